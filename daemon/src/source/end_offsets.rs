//! How far a partition was read whose last offsets have no record: those of transaction markers and aborted records. The
//! consumer passes them without a word; only its statistics say where it has found the end.
//!
//! ```text
//!   records ─ marker │ end of the partition        statistics: end = 7, and the queue of messages is empty:
//!   … 4   5     6    │ 7                           all records before 7 were given out
//! ```
//!
//! That a poll gives no message says nothing of the queue: a poll that handles another event gives none, either.

use std::collections::BTreeMap;

use rdkafka::Statistics;
use silverd_core::offsets::LogPartition;

#[derive(Default)]
pub(super) struct EndOffsets {
    partitions: BTreeMap<LogPartition, Partition>,
}

struct Partition {
    /// librdkafka's clock when the partition was assigned. Older statistics are of an earlier assignment.
    assigned_at: i64,
    /// The end by the last statistics. Those of an earlier assignment may stand once in the first ones.
    end: Option<i64>,
}

impl EndOffsets {
    pub(super) fn assigned(&mut self, log: LogPartition) {
        self.partitions.insert(log, Partition { assigned_at: monotonic_micros(), end: None });
    }

    pub(super) fn revoked(&mut self, log: &LogPartition) {
        self.partitions.remove(log);
    }

    /// The ends up to which every record was given out: those that two statistics in a row name, the second one while no
    /// message waits.
    pub(super) fn reached(&mut self, statistics: &Statistics) -> Vec<(LogPartition, i64)> {
        let mut reached = Vec::new();
        for (log, partition) in &mut self.partitions {
            let topic = statistics.topics.get(&*log.topic);
            let Some(found) = topic.and_then(|topic| topic.partitions.get(&log.partition)) else { continue };
            if statistics.ts <= partition.assigned_at || found.eof_offset < 0 {
                continue;
            }
            // The queue of all partitions.
            if partition.end == Some(found.eof_offset) && found.fetchq_cnt == 0 {
                reached.push((log.clone(), found.eof_offset));
            }
            partition.end = Some(found.eof_offset);
        }
        reached
    }
}

/// The clock of librdkafka's statistics.
fn monotonic_micros() -> i64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a local struct, which the call fills.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
}

#[cfg(test)]
mod tests {
    use rdkafka::statistics;

    use super::*;

    fn log() -> LogPartition {
        LogPartition::new("c", "t", 3)
    }

    fn statistics(ts: i64, end: i64, waiting: i64) -> Statistics {
        let partition =
            statistics::Partition { partition: 3, eof_offset: end, fetchq_cnt: waiting, ..Default::default() };
        let topic = statistics::Topic { partitions: [(3, partition)].into(), ..Default::default() };
        Statistics { ts, topics: [("t".to_owned(), topic)].into(), ..Statistics::default() }
    }

    #[test]
    fn an_end_counts_while_no_message_waits() {
        let mut ends = EndOffsets::default();
        ends.assigned(log());
        for (end, waiting, expected) in
            [(-1001, 0, None), (7, 0, None), (7, 2, None), (7, 0, Some(7)), (9, 0, None), (9, 0, Some(9))]
        {
            let reached = ends.reached(&statistics(i64::MAX, end, waiting));
            assert_eq!(reached, expected.map(|end| (log(), end)).into_iter().collect::<Vec<_>>(), "{end}, {waiting}");
        }
    }

    #[test]
    fn statistics_of_an_earlier_assignment_are_ignored() {
        let mut ends = EndOffsets::default();
        let before = monotonic_micros() - 1;
        ends.assigned(log());
        for _ in 0..2 {
            assert_eq!(ends.reached(&statistics(before, 7, 0)), []);
        }
        assert_eq!(ends.reached(&statistics(i64::MAX, 7, 0)), []);
        ends.assigned(log());
        assert_eq!(ends.reached(&statistics(i64::MAX, 7, 0)), []);
        ends.revoked(&log());
        assert_eq!(ends.reached(&statistics(i64::MAX, 7, 0)), []);
    }
}
