//! Replays ranges of any number of topics and clusters, one topic after the other.

use deltalake_core::logstore::LogStoreRef;
use silverd_core::chunk::Chunk;
use silverd_core::offsets::Ranges;

use super::replay::Replay;

pub(crate) struct ReplayTopics {
    log: LogStoreRef,
    current: Option<Replay>,
    /// The ranges of the topics after the current one.
    remaining: Ranges,
    rows_max: usize,
    bytes_max: usize,
}

impl ReplayTopics {
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
            let Some((first, _)) = self.remaining.iter().next() else { return Ok(None) };
            let (topic, others) = self.remaining.split_topic(first);
            self.current = Some(Replay::plan(self.log.clone(), &topic, self.rows_max, self.bytes_max).await?);
            self.remaining = others;
        }
    }
}
