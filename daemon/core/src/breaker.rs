//! When to give up on a plugin that fails on everything, and when to try it again. Bad events are the quarantine's; a bad
//! plugin must not put a whole topic there.
//!
//! An event *faults* if the plugin traps, runs out of time or memory, or answers nonsense on it alone. What counts is how
//! many faulted in a row, without a batch or an event between them that succeeded:
//!
//! | in a row | what is done |
//! |---|---|
//! | below 8 | the event goes to the quarantine |
//! | 8 or more | up to 8 others, spread over what is left, are tried one by one: *probes* |
//! | … and a probe succeeds | these events were bad, the plugin is not: the count is 0 again |
//! | … and all fail, 16 in a row | the plugin fails on everything: the table is paused |
//! | … and all fail, fewer in a row, as nothing is left to probe | the event goes to the quarantine, and the count goes on with the next chunk |
//!
//! A paused table tries again after 5 s, then 10 s, 20 s, … 5 min; each time other events are probed. The first success
//! forgets all.

/// So many events in a row make a plugin suspect.
pub const SUSPECT: usize = 8;
/// So many further events are tried before a suspect plugin is given up.
pub const PROBES: usize = 8;
/// So many events in a row, probes among them, and the plugin is given up.
pub const TRIP: usize = SUSPECT + PROBES;

/// The first pause.
pub const BACKOFF_FIRST_MS: u64 = 5_000;
/// The longest pause.
pub const BACKOFF_MAX_MS: u64 = 300_000;

/// What a table remembers of its plugin's faults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    in_a_row: usize,
    openings: u32,
    retry_at_ms: u64,
}

/// As it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The plugin works, as far as is known.
    Closed,
    /// The table is paused.
    Open { retry_at_ms: u64 },
    /// The pause is over, and no event has succeeded since.
    Trying,
}

impl Breaker {
    /// A batch or an event succeeded.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// An event alone faulted, which has not been counted before.
    pub fn faulted(&mut self) {
        self.in_a_row = self.in_a_row.saturating_add(1);
    }

    /// How many events have faulted since the last success.
    pub fn in_a_row(&self) -> usize {
        self.in_a_row
    }

    /// Others must be probed before more is believed.
    pub fn suspects(&self) -> bool {
        self.in_a_row >= SUSPECT
    }

    /// The plugin is given up, unless a probe succeeds.
    pub fn trips(&self) -> bool {
        self.in_a_row >= TRIP
    }

    /// Which of the events that are `left` to probe: spread evenly, and others after each pause.
    pub fn probes(&self, left: usize) -> impl Iterator<Item = usize> + use<> {
        let count = left.min(PROBES);
        let shift = self.openings as usize % left.checked_div(count).unwrap_or(1);
        (0..count).map(move |probe| probe * left / count + shift)
    }

    /// Pauses the table from now on, and says until when. Each pause without a success before it is twice as long.
    pub fn open(&mut self, now_ms: u64) -> u64 {
        let backoff = BACKOFF_FIRST_MS.saturating_mul(1 << self.openings.min(16)).min(BACKOFF_MAX_MS);
        self.openings = self.openings.saturating_add(1);
        self.retry_at_ms = now_ms.saturating_add(backoff);
        self.retry_at_ms
    }

    pub fn state(&self, now_ms: u64) -> State {
        match self.openings {
            0 => State::Closed,
            _ if now_ms < self.retry_at_ms => State::Open { retry_at_ms: self.retry_at_ms },
            _ => State::Trying,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn after(faults: usize) -> Breaker {
        let mut breaker = Breaker::default();
        (0..faults).for_each(|_| breaker.faulted());
        breaker
    }

    #[test]
    fn how_many_faults_make_what() {
        let check = |faults, suspects, trips| {
            let breaker = after(faults);
            assert_eq!((breaker.suspects(), breaker.trips()), (suspects, trips), "{faults} faults");
        };
        check(0, false, false);
        check(7, false, false);
        check(8, true, false);
        check(15, true, false);
        check(16, true, true);
        check(10_000, true, true);
    }

    #[test]
    fn pauses_grow_from_5_s_to_5_min_and_begin_anew_after_a_success() {
        let (mut breaker, mut now, mut pauses) = (after(TRIP), 1_000_000, Vec::new());
        for _ in 0..8 {
            let retry = breaker.open(now);
            pauses.push((retry - now) / 1_000);
            assert_eq!(breaker.state(retry - 1), State::Open { retry_at_ms: retry });
            assert_eq!(breaker.state(retry), State::Trying);
            now = retry;
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300]);
        breaker.succeeded();
        assert_eq!((breaker.state(now), breaker.in_a_row()), (State::Closed, 0));
        assert_eq!(breaker.open(now), now + BACKOFF_FIRST_MS);
    }

    #[test]
    fn probes_are_spread_and_others_after_each_pause() {
        let mut breaker = after(SUSPECT);
        let probes = |breaker: &Breaker, left| breaker.probes(left).collect::<Vec<_>>();
        assert_eq!(probes(&breaker, 0), [0_usize; 0]);
        assert_eq!(probes(&breaker, 3), [0, 1, 2]);
        assert_eq!(probes(&breaker, 80), [0, 10, 20, 30, 40, 50, 60, 70]);
        breaker.open(0);
        assert_eq!(probes(&breaker, 80), [1, 11, 21, 31, 41, 51, 61, 71]);
        assert_eq!(probes(&breaker, 3), [0, 1, 2]);
    }

    proptest! {
        #[test]
        fn probes_are_events_that_are_left_each_once(left in 0_usize..100_000, openings in 0_usize..100) {
            let mut breaker = after(SUSPECT);
            (0..openings).for_each(|_| {
                breaker.open(0);
            });
            let probes: BTreeSet<usize> = breaker.probes(left).collect();
            prop_assert_eq!(probes.len(), left.min(PROBES));
            prop_assert!(probes.iter().all(|probe| *probe < left));
            // No long stretch goes unseen.
            let seen: Vec<usize> = probes.into_iter().collect();
            prop_assert!(seen.windows(2).all(|pair| pair[1] - pair[0] <= left / PROBES + 1));
        }

        #[test]
        fn the_count_is_that_of_the_faults_since_the_last_success(events in proptest::collection::vec(any::<bool>(), 0..200)) {
            let mut breaker = Breaker::default();
            for fine in &events {
                if *fine { breaker.succeeded() } else { breaker.faulted() }
            }
            let in_a_row = events.iter().rev().take_while(|fine| !**fine).count();
            prop_assert_eq!(breaker.in_a_row(), in_a_row);
            prop_assert_eq!(breaker.trips(), in_a_row >= TRIP);
        }

        #[test]
        fn a_pause_is_never_shorter_than_the_one_before(openings in 1_usize..100, now in 0..u64::MAX / 2) {
            let mut breaker = after(TRIP);
            let mut before = 0;
            for _ in 0..openings {
                let pause = breaker.open(now) - now;
                prop_assert!((BACKOFF_FIRST_MS..=BACKOFF_MAX_MS).contains(&pause) && pause >= before);
                before = pause;
            }
        }
    }
}
