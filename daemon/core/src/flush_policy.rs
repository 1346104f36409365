//! When the source flushes a chunk that is not full yet: soon while few records arrive, once per interval under load.
//!
//! | Kafka has more records ready | last flush                | the current chunk is flushed                           |
//! |------------------------------|---------------------------|--------------------------------------------------------|
//! | no                           | an interval ago, or never | [`LINGER`] after its first record, to batch a burst    |
//! | no                           | less than an interval ago | an interval after the last flush                       |
//! | yes                          | at any time               | an interval after its first record, or when it is full |
//!
//! So there is at most one commit per interval, no record waits longer than one interval, and a single record after a
//! pause waits only for the linger time. Under load the chunk grows up to its limits.

use std::time::Duration;

/// How long a record waits for others of the same burst; a tenth of the interval where that is shorter.
const LINGER: Duration = Duration::from_millis(20);

/// The flush policy of one source. Times count from the start of the source.
#[derive(Clone, Debug)]
pub struct FlushPolicy {
    interval: Duration,
    last_flush: Option<Duration>,
}

impl FlushPolicy {
    pub fn new(interval: Duration) -> Self {
        Self { interval, last_flush: None }
    }

    /// From the next chunk on.
    pub fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// A chunk was flushed.
    pub fn flushed(&mut self, now: Duration) {
        self.last_flush = Some(now);
    }

    /// When to flush the chunk whose first record arrived at `first`. `is_idle` says that Kafka has no more records
    /// ready.
    pub fn flush_at(&self, first: Duration, is_idle: bool) -> Duration {
        let latest = first + self.interval;
        if !is_idle {
            return latest;
        }
        let earliest = first + LINGER.min(self.interval / 10);
        self.last_flush.map_or(earliest, |last| earliest.max(last + self.interval)).min(latest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(last: Option<u64>, first: u64, is_idle: bool, expected: u64) {
        let mut policy = FlushPolicy::new(Duration::from_millis(500));
        if let Some(last) = last {
            policy.flushed(Duration::from_millis(last));
        }
        let flush_at = policy.flush_at(Duration::from_millis(first), is_idle);
        assert_eq!(flush_at, Duration::from_millis(expected), "{last:?} {first} {is_idle}");
    }

    #[test]
    fn flush_follows_the_truth_table() {
        check(None, 3_000, true, 3_020);
        check(Some(2_400), 3_000, true, 3_020);
        check(Some(2_900), 3_000, true, 3_400);
        check(Some(3_000), 3_000, true, 3_500);
        for last in [None, Some(0), Some(2_900)] {
            check(last, 3_000, false, 3_500);
        }
    }

    #[test]
    fn a_new_interval_counts_from_the_last_flush() {
        let mut policy = FlushPolicy::new(Duration::from_millis(50));
        policy.flushed(Duration::from_millis(1_000));
        policy.set_interval(Duration::from_millis(400));
        assert_eq!(policy.flush_at(Duration::from_millis(1_100), true), Duration::from_millis(1_400));
        assert_eq!(policy.flush_at(Duration::from_millis(1_100), false), Duration::from_millis(1_500));
    }

    #[test]
    fn a_short_interval_has_a_shorter_linger() {
        let policy = FlushPolicy::new(Duration::from_millis(50));
        assert_eq!(policy.flush_at(Duration::ZERO, true), Duration::from_millis(5));
    }

    proptest! {
        /// Records arrive at any time; chunks are flushed on time, or earlier if a record fills them.
        #[test]
        fn chunks_that_are_not_full_are_an_interval_apart(
            waits in prop::collection::vec((0..2_000_u64, any::<bool>()), 1..50),
            interval in 1..3_000_u64,
        ) {
            let mut policy = FlushPolicy::new(Duration::from_millis(interval));
            let (mut now, mut last) = (Duration::ZERO, None::<Duration>);
            for (wait, is_idle) in waits {
                let first = now + Duration::from_millis(wait);
                let flush_at = policy.flush_at(first, is_idle);
                prop_assert!(flush_at >= first && flush_at <= first + Duration::from_millis(interval));
                if let Some(last) = last {
                    prop_assert!(flush_at - last >= Duration::from_millis(interval));
                }
                policy.flushed(flush_at);
                (now, last) = (flush_at, Some(flush_at));
            }
        }
    }
}
