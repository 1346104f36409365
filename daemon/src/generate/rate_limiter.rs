//! Limits the rate of the generated events, so that they are evenly distributed over time.

use std::time::{Duration, Instant};

/// After a pause (a full queue, a closed gate, a busy machine) the generator sends the events of at most this time at
/// once.
const CATCH_UP_MAX: Duration = Duration::from_millis(250);

pub(super) struct RateLimiter {
    events_per_second: f64,
    started: Instant,
    released: u64,
}

impl RateLimiter {
    /// 0 events per second: no limit.
    pub(super) fn new(events_per_second: f64, started: Instant) -> Self {
        Self { events_per_second, started, released: 0 }
    }

    /// How many events may be sent now. [`RateLimiter::release`] counts those that are sent.
    pub(super) fn due(&mut self, now: Instant) -> u64 {
        if self.events_per_second == 0.0 {
            return u64::MAX;
        }
        // The first event is due immediately.
        let until_now = 1 + (now.duration_since(self.started).as_secs_f64() * self.events_per_second) as u64;
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
        let started = Instant::now();
        let mut limiter = RateLimiter::new(events_per_second, started);
        for (millis, expected) in steps {
            let due = limiter.due(started + Duration::from_millis(*millis));
            assert_eq!(due, *expected, "after {millis} ms at {events_per_second} events/s");
            limiter.release(due);
        }
    }

    #[test]
    fn events_are_evenly_distributed() {
        check(100.0, &[(0, 1), (5, 0), (10, 1), (30, 2), (30, 0), (40, 1)]);
        check(0.5, &[(0, 1), (1_999, 0), (2_000, 1), (3_000, 0), (4_000, 1)]);
    }

    #[test]
    fn a_pause_is_followed_by_a_bounded_burst() {
        check(1_000.0, &[(0, 1), (10, 10), (60_000, 251), (60_010, 10)]);
        check(0.5, &[(0, 1), (60_000, 1), (60_010, 0)]);
    }

    #[test]
    fn without_a_limit_all_events_are_due() {
        check(0.0, &[(0, u64::MAX), (1, u64::MAX)]);
    }
}
