//! Replays ranges of any number of clusters, one after the other.

use deltalake_core::logstore::LogStoreRef;
use silverd_core::chunk::Chunk;
use silverd_core::offsets::Ranges;

use super::replay::{Replay, first_cluster};

pub(crate) struct ReplayClusters {
    log: LogStoreRef,
    current: Option<Replay>,
    /// The ranges of the clusters after the current one.
    remaining: Ranges,
    rows_max: usize,
    bytes_max: usize,
}

impl ReplayClusters {
    /// A chunk has about `rows_max` records and `bytes_max` bytes at most, as in [`Replay::plan`].
    pub(crate) fn new(log: LogStoreRef, ranges: Ranges, rows_max: usize, bytes_max: usize) -> Self {
        Self { log, current: None, remaining: ranges, rows_max, bytes_max }
    }

    /// The next chunk, or `None` when all ranges have been read.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Chunk>> {
        loop {
            if let Some(current) = &mut self.current {
                if let Some(chunk) = current.next().await? {
                    return Ok(Some(chunk));
                }
                self.current = None;
            }
            if self.remaining.is_empty() {
                return Ok(None);
            }
            let (cluster, others) = first_cluster(&self.remaining);
            self.current = Some(Replay::plan(self.log.clone(), &cluster, self.rows_max, self.bytes_max).await?);
            self.remaining = others;
        }
    }
}
