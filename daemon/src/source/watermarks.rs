//! The end offset of each partition, for lag.

use parking_lot::Mutex;
use silverd_core::offsets::{LogPartition, Offsets};

/// Where each log partition ends in Kafka (its high watermark). Up to a second old.
#[derive(Default)]
pub(crate) struct HighWatermarks(Mutex<Offsets>);

impl HighWatermarks {
    /// What Kafka has answered.
    pub(super) fn set(&self, log: LogPartition, end: i64) {
        self.0.lock().insert(log, end);
    }

    /// What the consumer knows, which may be old: it can only say that there is more.
    pub(super) fn raise(&self, log: &LogPartition, end: i64) {
        let mut ends = self.0.lock();
        match ends.get_mut(log) {
            Some(known) => *known = (*known).max(end),
            None => drop(ends.insert(log.clone(), end)),
        }
    }

    /// Forgets the partitions that are not read any more.
    pub(super) fn retain(&self, is_read: impl Fn(&LogPartition) -> bool) {
        self.0.lock().retain(|log, _| is_read(log));
    }

    pub(crate) fn ends(&self) -> Offsets {
        self.0.lock().clone()
    }

    /// How many offsets a table is behind whose next offsets are `next`.
    pub(crate) fn lag(&self, next: &Offsets) -> i64 {
        let ends = self.0.lock();
        ends.iter().map(|(log, end)| (end - next.get(log).copied().unwrap_or(0)).max(0)).sum()
    }
}
