//! The circuit breaker: when to give up on a plugin that fails on every event, and when to try it again. Single bad
//! events go to the quarantine; a broken plugin must not send a whole topic there.
//!
//! An event *faults* if the plugin traps, exceeds its time or memory, or returns invalid output for it alone. What
//! counts is the number of consecutive faults, without a successful batch or event in between:
//!
//! | consecutive faults | what happens |
//! |---|---|
//! | fewer than 8 | the event goes to the quarantine |
//! | 8 or more | up to 8 other events, spread over the rest of the chunk, are tried one by one: *probes* |
//! | … and a probe succeeds | the events are bad, the plugin is not: the count is 0 again |
//! | … and all probes fail, 16 faults in total | the plugin fails on every event: the table is paused |
//! | … and all probes fail, fewer in total because no event is left to probe | the event goes to the quarantine, and the count continues with the next chunk |
//!
//! A paused table tries again after 5 s, then 10 s, 20 s, … 5 min, and probes other events each time. The first success
//! resets the breaker.

/// After this many consecutive faults the plugin is suspect, and is probed.
pub const SUSPECT_AFTER: usize = 8;
/// The most events that one round of probes tries.
pub const PROBES_MAX: usize = 8;
/// After this many consecutive faults, probes included, the breaker trips.
pub const TRIP_AFTER: usize = SUSPECT_AFTER + PROBES_MAX;

/// The first pause.
pub const BACKOFF_FIRST_MS: u64 = 5_000;
/// The longest pause.
pub const BACKOFF_MAX_MS: u64 = 300_000;

/// The circuit breaker of one table's plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    consecutive_faults: usize,
    /// Pauses since the last success.
    pauses: u32,
}

impl Breaker {
    /// A batch or an event succeeded.
    pub fn record_success(&mut self) {
        *self = Self::default();
    }

    /// A single event faulted. Each event is counted once.
    pub fn record_fault(&mut self) {
        self.consecutive_faults = self.consecutive_faults.saturating_add(1);
    }

    /// How many events have faulted since the last success.
    pub fn consecutive_faults(&self) -> usize {
        self.consecutive_faults
    }

    /// Whether other events must be probed.
    pub fn is_suspect(&self) -> bool {
        self.consecutive_faults >= SUSPECT_AFTER
    }

    /// Whether the plugin fails on every event, as far as is known.
    pub fn is_tripped(&self) -> bool {
        self.consecutive_faults >= TRIP_AFTER
    }

    /// Which of `remaining` events to probe: spread evenly, and different ones after each pause.
    pub fn probes(&self, remaining: usize) -> impl Iterator<Item = usize> + use<> {
        let count = remaining.min(PROBES_MAX);
        let shift = self.pauses as usize % remaining.checked_div(count).unwrap_or(1);
        (0..count).map(move |probe| probe * remaining / count + shift)
    }

    /// Pauses the table and returns when to try again. Each further pause without a success is twice as long.
    pub fn pause(&mut self, now_ms: u64) -> u64 {
        let backoff = BACKOFF_FIRST_MS.saturating_mul(1 << self.pauses.min(16)).min(BACKOFF_MAX_MS);
        self.pauses = self.pauses.saturating_add(1);
        now_ms.saturating_add(backoff)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn after(faults: usize) -> Breaker {
        let mut breaker = Breaker::default();
        (0..faults).for_each(|_| breaker.record_fault());
        breaker
    }

    #[test]
    fn the_breaker_trips_after_enough_consecutive_faults() {
        let check = |faults, is_suspect, is_tripped| {
            let breaker = after(faults);
            assert_eq!((breaker.is_suspect(), breaker.is_tripped()), (is_suspect, is_tripped), "{faults} faults");
        };
        check(0, false, false);
        check(7, false, false);
        check(8, true, false);
        check(15, true, false);
        check(16, true, true);
        check(10_000, true, true);
    }

    #[test]
    fn pauses_grow_from_5_s_to_5_min_and_a_success_resets_them() {
        let (mut breaker, mut now, mut pauses) = (after(TRIP_AFTER), 1_000_000, Vec::new());
        for _ in 0..8 {
            let retry = breaker.pause(now);
            pauses.push((retry - now) / 1_000);
            now = retry;
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300]);
        breaker.record_success();
        assert_eq!(breaker, Breaker::default());
        assert_eq!(breaker.pause(now), now + BACKOFF_FIRST_MS);
    }

    #[test]
    fn probes_are_spread_and_differ_after_each_pause() {
        let mut breaker = after(SUSPECT_AFTER);
        let probes = |breaker: &Breaker, remaining| breaker.probes(remaining).collect::<Vec<_>>();
        assert_eq!(probes(&breaker, 0), [0_usize; 0]);
        assert_eq!(probes(&breaker, 3), [0, 1, 2]);
        assert_eq!(probes(&breaker, 80), [0, 10, 20, 30, 40, 50, 60, 70]);
        breaker.pause(0);
        assert_eq!(probes(&breaker, 80), [1, 11, 21, 31, 41, 51, 61, 71]);
        assert_eq!(probes(&breaker, 3), [0, 1, 2]);
    }

    proptest! {
        #[test]
        fn probes_are_distinct_remaining_events(remaining in 0_usize..100_000, pauses in 0_usize..100) {
            let mut breaker = after(SUSPECT_AFTER);
            (0..pauses).for_each(|_| {
                breaker.pause(0);
            });
            let probes: BTreeSet<usize> = breaker.probes(remaining).collect();
            prop_assert_eq!(probes.len(), remaining.min(PROBES_MAX));
            prop_assert!(probes.iter().all(|probe| *probe < remaining));
            // No long stretch is left without a probe.
            let seen: Vec<usize> = probes.into_iter().collect();
            prop_assert!(seen.windows(2).all(|pair| pair[1] - pair[0] <= remaining / PROBES_MAX + 1));
        }

        #[test]
        fn only_faults_since_the_last_success_count(events in proptest::collection::vec(any::<bool>(), 0..200)) {
            let mut breaker = Breaker::default();
            for succeeded in &events {
                if *succeeded { breaker.record_success() } else { breaker.record_fault() }
            }
            let consecutive = events.iter().rev().take_while(|succeeded| !**succeeded).count();
            prop_assert_eq!(breaker.consecutive_faults(), consecutive);
            prop_assert_eq!(breaker.is_tripped(), consecutive >= TRIP_AFTER);
        }

        #[test]
        fn a_pause_is_never_shorter_than_the_one_before(pauses in 1_usize..100, now in 0..u64::MAX / 2) {
            let mut breaker = after(TRIP_AFTER);
            let mut before = 0;
            for _ in 0..pauses {
                let pause = breaker.pause(now) - now;
                prop_assert!((BACKOFF_FIRST_MS..=BACKOFF_MAX_MS).contains(&pause) && pause >= before);
                before = pause;
            }
        }
    }
}
