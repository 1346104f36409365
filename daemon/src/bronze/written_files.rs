//! The files of a chunk between their writing and their commit. A commit that is tried again need not write them again, and
//! those of a chunk that is given up do not stay behind.

use std::sync::Arc;

use object_store::ObjectStore;
use silverd_core::chunk::Chunk;
use silverd_core::offsets::Ranges;
use tracing::warn;

use crate::delta::{DataFile, NewFile};

#[derive(Default)]
pub(super) struct WrittenFiles {
    /// Which chunk it is: the same records that were read again have another time of ingestion.
    ranges: Ranges,
    ingested_at: Option<i64>,
    /// In the order of their days.
    files: Vec<NewFile>,
}

impl WrittenFiles {
    /// None yet.
    pub(super) fn of(chunk: &Chunk) -> Self {
        Self { ranges: chunk.ranges.clone(), ingested_at: ingested_at(chunk), files: Vec::new() }
    }

    pub(super) fn are_of(&self, chunk: &Chunk) -> bool {
        (&self.ranges, self.ingested_at) == (&chunk.ranges, ingested_at(chunk))
    }

    pub(super) fn push(&mut self, file: NewFile) {
        self.files.push(file);
    }

    pub(super) fn files(&self) -> &[NewFile] {
        &self.files
    }

    /// Removes the files that the table does not name. One that cannot be removed is left to maintenance.
    pub(super) async fn remove(self, store: &Arc<dyn ObjectStore>, named: &[DataFile]) {
        for file in self.files.into_iter().filter(|file| !named.iter().any(|one| one.path.as_ref() == file.path())) {
            if let Err(failure) = file.remove(store).await {
                warn!("a file that bronze does not need any more is left behind: {failure:#}");
            }
        }
    }
}

fn ingested_at(chunk: &Chunk) -> Option<i64> {
    chunk.ingested_at().values().first().copied()
}
