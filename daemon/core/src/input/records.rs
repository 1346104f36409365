//! The records of a chunk, as the buffers that events refer to.

use arrow_array::cast::AsArray;
use arrow_array::{Array, BinaryArray, StringArray};

use super::Region;
use crate::chunk::Chunk;

/// The buffers of a chunk. A [`Block`](super::Block) is a part of one of them, or of its image.
pub struct Records<'c> {
    pub(super) chunk: &'c Chunk,
    pub(super) values: &'c BinaryArray,
    pub(super) keys: &'c BinaryArray,
    pub(super) topics: &'c StringArray,
    pub(super) headers: Headers<'c>,
    pub(super) partitions: &'c [i32],
    pub(super) offsets: &'c [i64],
}

/// The headers of all records, and where those of each end.
pub(super) struct Headers<'c> {
    pub(super) ends: &'c [i32],
    pub(super) names: &'c StringArray,
    pub(super) values: &'c BinaryArray,
}

impl<'c> Records<'c> {
    pub fn new(chunk: &'c Chunk) -> Self {
        let headers = chunk.headers();
        let fields = headers.values().as_struct();
        let headers = Headers {
            ends: headers.value_offsets(),
            names: fields.column(0).as_string(),
            values: fields.column(1).as_binary(),
        };
        Self {
            chunk,
            values: chunk.values(),
            keys: chunk.keys(),
            topics: chunk.topics(),
            headers,
            partitions: chunk.partitions(),
            offsets: chunk.offsets(),
        }
    }

    /// Whether a record has no value.
    pub(super) fn is_tombstone(&self, row: usize) -> bool {
        self.values.is_null(row)
    }

    /// The buffer of a region that is not in the image.
    pub fn buffer(&self, region: Region) -> &'c [u8] {
        match region {
            Region::Events | Region::Nested => &[],
            Region::Values => self.values.value_data(),
            Region::Keys => self.keys.value_data(),
            Region::Topics => self.topics.value_data(),
            Region::HeaderNames => self.headers.names.value_data(),
            Region::HeaderValues => self.headers.values.value_data(),
        }
    }
}
