//! The records of a chunk, as the buffers that events refer to.

use arrow_array::{Array, BinaryArray, StringArray};

use super::Region;
use crate::chunk::{Chunk, Headers};

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

impl<'c> Records<'c> {
    pub fn new(chunk: &'c Chunk) -> Self {
        Self {
            chunk,
            values: chunk.values(),
            keys: chunk.keys(),
            topics: chunk.topics(),
            headers: chunk.headers(),
            partitions: chunk.partitions(),
            offsets: chunk.offsets(),
        }
    }

    /// The chunk.
    pub fn chunk(&self) -> &'c Chunk {
        self.chunk
    }

    /// Whether a record has no value.
    pub(super) fn is_tombstone(&self, row: usize) -> bool {
        self.values.is_null(row)
    }

    /// The buffer of a region that is not in the image.
    #[inline]
    pub(super) fn buffer(&self, region: Region) -> &'c [u8] {
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
