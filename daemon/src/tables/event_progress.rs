//! How far a Silver table has processed the events of each partition, and of which time they were.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use silverd_core::offsets::{LogPartition, Offsets};

/// How far a table has processed a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Processed {
    /// The next offset.
    pub(crate) next: i64,
    /// The timestamp of the last record, in microseconds; `None` until one was processed since the start of the worker.
    pub(crate) last_timestamp: Option<i64>,
}

/// A table's progress, shared with what decides which days are complete. All rows and rejects of these events are committed.
#[derive(Clone, Debug, Default)]
pub struct EventProgress(Arc<Mutex<BTreeMap<LogPartition, Processed>>>);

impl EventProgress {
    /// Takes in what the table's log says, which is all that counts: a table that was deleted is filled again, and is not
    /// as far as it was.
    pub(crate) fn opened(&self, next: &Offsets) {
        let mut partitions = self.0.lock();
        let processed = |(log, next): (&LogPartition, &i64)| {
            let same = partitions.get(log).filter(|known| known.next == *next);
            let processed = Processed { next: *next, last_timestamp: same.and_then(|known| known.last_timestamp) };
            (log.clone(), processed)
        };
        let opened = next.iter().map(processed).collect();
        *partitions = opened;
    }

    /// The table has processed everything before `next`, and these records last.
    pub(crate) fn processed(&self, next: &Offsets, last_timestamps: &BTreeMap<LogPartition, i64>) {
        let mut partitions = self.0.lock();
        for (log, next) in next {
            let last = last_timestamps.get(log).copied();
            let known = partitions.entry(log.clone()).or_insert(Processed { next: *next, last_timestamp: last });
            *known = Processed { next: known.next.max(*next), last_timestamp: last.or(known.last_timestamp) };
        }
    }

    pub(crate) fn of(&self, log: &LogPartition) -> Option<Processed> {
        self.0.lock().get(log).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_that_of_the_log_after_it_was_opened() {
        let (progress, log) = (EventProgress::default(), LogPartition::new("c", "t", 0));
        let next = |next: i64| Offsets::from([(log.clone(), next)]);
        progress.opened(&next(5));
        assert_eq!(progress.of(&log), Some(Processed { next: 5, last_timestamp: None }));
        progress.processed(&next(9), &BTreeMap::from([(log.clone(), 70)]));
        progress.processed(&next(11), &BTreeMap::new());
        assert_eq!(progress.of(&log), Some(Processed { next: 11, last_timestamp: Some(70) }));
        progress.opened(&next(11));
        assert_eq!(progress.of(&log), Some(Processed { next: 11, last_timestamp: Some(70) }));
        progress.opened(&next(9));
        assert_eq!(progress.of(&log), Some(Processed { next: 9, last_timestamp: None }));
        progress.opened(&Offsets::new());
        assert_eq!(progress.of(&log), None);
    }
}
