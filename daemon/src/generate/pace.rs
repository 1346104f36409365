//! How many events may go out now, so that they flow evenly.

use std::time::{Duration, Instant};

/// Time that was lost (a full queue, a closed gate, a busy machine) is made up for by this much at most.
const CATCH_UP_MAX: Duration = Duration::from_millis(250);

pub(super) struct Pace {
    events_per_second: f64,
    began: Instant,
    released: u64,
}

impl Pace {
    /// 0 events per second: no limit.
    pub(super) fn new(events_per_second: f64, began: Instant) -> Self {
        Self { events_per_second, began, released: 0 }
    }

    /// How many events are due; they count as released by this call or a later one, see [`Pace::release`].
    pub(super) fn due(&mut self, now: Instant) -> u64 {
        if self.events_per_second == 0.0 {
            return u64::MAX;
        }
        // The first event is due at once.
        let until_now = 1 + (now.duration_since(self.began).as_secs_f64() * self.events_per_second) as u64;
        let at_once_max = 1 + (CATCH_UP_MAX.as_secs_f64() * self.events_per_second) as u64;
        self.released = self.released.max(until_now.saturating_sub(at_once_max));
        until_now.saturating_sub(self.released)
    }

    pub(super) fn release(&mut self, events: u64) {
        self.released = self.released.saturating_add(events);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(events_per_second: f64, steps: &[(u64, u64)]) {
        let began = Instant::now();
        let mut pace = Pace::new(events_per_second, began);
        for (millis, expected) in steps {
            let due = pace.due(began + Duration::from_millis(*millis));
            assert_eq!(due, *expected, "after {millis} ms at {events_per_second} events/s");
            pace.release(due);
        }
    }

    #[test]
    fn events_flow_evenly() {
        check(100.0, &[(0, 1), (5, 0), (10, 1), (30, 2), (30, 0), (40, 1)]);
        check(0.5, &[(0, 1), (1_999, 0), (2_000, 1), (3_000, 0), (4_000, 1)]);
    }

    #[test]
    fn a_pause_is_followed_by_no_flood() {
        check(1_000.0, &[(0, 1), (10, 10), (60_000, 251), (60_010, 10)]);
        check(0.5, &[(0, 1), (60_000, 1), (60_010, 0)]);
    }

    #[test]
    fn without_a_limit_everything_is_due() {
        check(0.0, &[(0, u64::MAX), (1, u64::MAX)]);
    }
}
