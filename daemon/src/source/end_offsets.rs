//! How far a partition was read whose last offsets have no record: those of transaction markers and aborted records. The
//! consumer passes them without a word; only its statistics say where it has found the end.
//!
//! ```text
//!   records ─ marker │ end of the partition        statistics: end = 7
//!   … 4   5     6    │ 7                           the queue is empty after that: all records before 7 were given out
//! ```

use std::collections::BTreeMap;

use rdkafka::Statistics;

#[derive(Default)]
pub(super) struct EndOffsets {
    partitions: BTreeMap<i32, Partition>,
}

struct Partition {
    /// librdkafka's clock when the partition was assigned. Older statistics are of an earlier assignment.
    assigned_at: i64,
    end: Option<End>,
}

#[derive(Clone, Copy)]
struct End {
    offset: i64,
    /// The queue was looked at after the end was known.
    is_waiting: bool,
}

impl EndOffsets {
    pub(super) fn assigned(&mut self, partition: i32) {
        self.partitions.insert(partition, Partition { assigned_at: monotonic_micros(), end: None });
    }

    pub(super) fn revoked(&mut self, partition: i32) {
        self.partitions.remove(&partition);
    }

    pub(super) fn update(&mut self, statistics: &Statistics, topic: &str) {
        let Some(topic) = statistics.topics.get(topic) else { return };
        for (number, partition) in &mut self.partitions {
            let Some(found) = topic.partitions.get(number) else { continue };
            let is_known = partition.end.is_some_and(|end| end.offset == found.eof_offset);
            if statistics.ts > partition.assigned_at && found.eof_offset >= 0 && !is_known {
                partition.end = Some(End { offset: found.eof_offset, is_waiting: false });
            }
        }
    }

    /// The queue of messages is empty: returns the ends that were known before it was looked at. Every record before them
    /// was given out.
    pub(super) fn queue_is_empty(&mut self) -> Vec<(i32, i64)> {
        let mut reached = Vec::new();
        for (number, partition) in &mut self.partitions {
            match &mut partition.end {
                Some(End { offset, is_waiting: true }) => reached.push((*number, *offset)),
                Some(end) => end.is_waiting = true,
                None => {}
            }
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

    fn statistics(ts: i64, end: i64) -> Statistics {
        let partition = statistics::Partition { partition: 3, eof_offset: end, ..Default::default() };
        let topic = statistics::Topic { partitions: [(3, partition)].into(), ..Default::default() };
        Statistics { ts, topics: [("t".to_owned(), topic)].into(), ..Statistics::default() }
    }

    #[test]
    fn an_end_counts_once_the_queue_was_empty_after_it_was_known() {
        let mut ends = EndOffsets::default();
        ends.assigned(3);
        ends.update(&statistics(i64::MAX, -1001), "t");
        assert_eq!(ends.queue_is_empty(), []);
        ends.update(&statistics(i64::MAX, 7), "t");
        assert_eq!(ends.queue_is_empty(), [], "a message may have come before the statistics were read");
        ends.update(&statistics(i64::MAX, 7), "t");
        assert_eq!(ends.queue_is_empty(), [(3, 7)]);
        ends.update(&statistics(i64::MAX, 9), "t");
        assert_eq!(ends.queue_is_empty(), []);
        assert_eq!(ends.queue_is_empty(), [(3, 9)]);
    }

    #[test]
    fn statistics_of_an_earlier_assignment_are_ignored() {
        let mut ends = EndOffsets::default();
        let before = monotonic_micros() - 1;
        ends.assigned(3);
        ends.update(&statistics(before, 7), "t");
        ends.queue_is_empty();
        assert_eq!(ends.queue_is_empty(), []);
        ends.update(&statistics(i64::MAX, 7), "t");
        ends.assigned(3);
        ends.queue_is_empty();
        assert_eq!(ends.queue_is_empty(), []);
        ends.revoked(3);
        ends.update(&statistics(i64::MAX, 7), "t");
        assert_eq!(ends.queue_is_empty(), []);
    }
}
