//! When a chunk goes, whatever is in it: at once where little comes, and seldom where much does.
//!
//! | Kafka holds more at hand | the last chunk went | the chunk at hand goes |
//! |---|---|---|
//! | no | an interval ago, or never | [`LINGER`] after its first record: what came together goes together |
//! | no | less than an interval ago | an interval after the last chunk |
//! | yes | whenever | an interval after its first record, unless rows or bytes are full before |
//!
//! So there is at most one commit for each interval, no record waits for longer than that, and a lone one, such as the
//! first after the start, hardly waits. The chunk grows with the lag, up to its bounds.

use std::time::Duration;

/// How long a record that could go waits for those that were sent with it; a tenth of the interval where that is less.
const LINGER: Duration = Duration::from_millis(20);

/// The pace of one source. Times count from the source's start.
#[derive(Clone, Debug)]
pub struct Pace {
    interval: Duration,
    last: Option<Duration>,
}

impl Pace {
    pub fn new(interval: Duration) -> Self {
        Self { interval, last: None }
    }

    /// A chunk has gone.
    pub fn gone(&mut self, now: Duration) {
        self.last = Some(now);
    }

    /// When the chunk goes whose first record came at `first`.
    pub fn due(&self, first: Duration, nothing_waits: bool) -> Duration {
        let latest = first + self.interval;
        if !nothing_waits {
            return latest;
        }
        let soonest = first + LINGER.min(self.interval / 10);
        self.last.map_or(soonest, |last| soonest.max(last + self.interval)).min(latest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(last: Option<u64>, first: u64, nothing_waits: bool, expected: u64) {
        let mut pace = Pace::new(Duration::from_millis(500));
        if let Some(last) = last {
            pace.gone(Duration::from_millis(last));
        }
        let due = pace.due(Duration::from_millis(first), nothing_waits);
        assert_eq!(due, Duration::from_millis(expected), "{last:?} {first} {nothing_waits}");
    }

    #[test]
    fn a_chunk_goes_when_the_table_says() {
        check(None, 3_000, true, 3_020);
        check(Some(2_400), 3_000, true, 3_020);
        check(Some(2_900), 3_000, true, 3_400);
        check(Some(3_000), 3_000, true, 3_500);
        for last in [None, Some(0), Some(2_900)] {
            check(last, 3_000, false, 3_500);
        }
    }

    #[test]
    fn a_short_interval_has_a_shorter_linger() {
        let pace = Pace::new(Duration::from_millis(50));
        assert_eq!(pace.due(Duration::ZERO, true), Duration::from_millis(5));
    }

    proptest! {
        /// Records come at any times; chunks go when they are due, or at once if a record fills them.
        #[test]
        fn chunks_that_are_not_full_are_an_interval_apart(
            waits in prop::collection::vec((0..2_000_u64, any::<bool>()), 1..50),
            interval in 1..3_000_u64,
        ) {
            let mut pace = Pace::new(Duration::from_millis(interval));
            let (mut now, mut last) = (Duration::ZERO, None::<Duration>);
            for (wait, nothing_waits) in waits {
                let first = now + Duration::from_millis(wait);
                let due = pace.due(first, nothing_waits);
                prop_assert!(due >= first && due <= first + Duration::from_millis(interval));
                if let Some(last) = last {
                    prop_assert!(due - last >= Duration::from_millis(interval));
                }
                pace.gone(due);
                (now, last) = (due, Some(due));
            }
        }
    }
}
