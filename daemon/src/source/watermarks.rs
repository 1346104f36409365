//! The end offset of each partition, for lag, and for whether a day is complete.

use std::collections::{BTreeMap, HashSet};

use parking_lot::Mutex;
use silverd_core::days::End;
use silverd_core::offsets::{LogPartition, Offsets};

/// Where each log partition ends in Kafka (its high watermark). Up to a second old.
#[derive(Default)]
pub(crate) struct HighWatermarks(Mutex<Known>);

#[derive(Default)]
struct Known {
    ends: BTreeMap<LogPartition, End>,
    /// The first offset that is read of a partition of which Bronze has nothing: what was before it is never read.
    begins: BTreeMap<LogPartition, i64>,
    /// All partitions of the topics, whether this process reads them or another one; empty before Kafka has named them.
    partitions: Vec<LogPartition>,
}

impl HighWatermarks {
    /// What Kafka has answered, and when it was asked, in microseconds; `None` for a partition that is not read.
    pub(super) fn set(&self, log: LogPartition, end: i64, asked_at: Option<i64>) {
        self.0.lock().ends.insert(log, End { offset: end, asked_at });
    }

    /// Bronze has nothing of a partition, which is read from this offset on.
    pub(super) fn begin(&self, log: LogPartition, offset: i64) {
        self.0.lock().begins.insert(log, offset);
    }

    /// The next offset of a table that has processed nothing of a partition.
    pub(crate) fn begin_of(&self, log: &LogPartition) -> i64 {
        self.0.lock().begins.get(log).copied().unwrap_or(0)
    }

    /// What the consumer knows, which may be old: it can only say that there is more.
    pub(super) fn raise(&self, log: &LogPartition, end: i64) {
        let mut known = self.0.lock();
        match known.ends.get_mut(log) {
            Some(known) => known.offset = known.offset.max(end),
            None => drop(known.ends.insert(log.clone(), End { offset: end, asked_at: None })),
        }
    }

    /// The partitions that the topics have now. Forgets those that are gone.
    pub(super) fn set_partitions(&self, partitions: &HashSet<LogPartition>) {
        let mut known = self.0.lock();
        known.ends.retain(|log, _| partitions.contains(log));
        known.begins.retain(|log, _| partitions.contains(log));
        known.partitions = partitions.iter().cloned().collect();
    }

    pub(crate) fn ends(&self) -> Offsets {
        self.0.lock().ends.iter().map(|(log, end)| (log.clone(), end.offset)).collect()
    }

    /// All partitions of the topics, with their ends where this process knows them.
    pub(crate) fn partitions(&self) -> Vec<(LogPartition, Option<End>)> {
        let known = self.0.lock();
        known.partitions.iter().map(|log| (log.clone(), known.ends.get(log).copied())).collect()
    }

    /// How many offsets a table is behind whose next offsets are `next`.
    pub(crate) fn lag(&self, next: &Offsets) -> i64 {
        let known = self.0.lock();
        known.ends.iter().map(|(log, end)| (end.offset - next.get(log).copied().unwrap_or(0)).max(0)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kafka has deleted all records of a partition before silverd read one.
    #[test]
    fn a_partition_begins_where_it_is_read_first() {
        let (known, log) = (HighWatermarks::default(), LogPartition::new("c", "t", 0));
        assert_eq!(known.begin_of(&log), 0);
        known.begin(log.clone(), 500);
        known.set(log.clone(), 500, Some(1));
        assert_eq!((known.begin_of(&log), known.ends().get(&log)), (500, Some(&500)));
        known.set_partitions(&HashSet::new());
        assert_eq!(known.begin_of(&log), 0);
    }
}
