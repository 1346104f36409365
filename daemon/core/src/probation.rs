//! The first events of a new version of a plugin, until it is trusted. What the run beside the old version promised must
//! hold on the live events, too: if the new version fails where the old one does not, it goes.
//!
//! While on probation, a chunk with faults, or with more rejects than were promised, is given to the old version as well:
//!
//! | on the same events, so far                                            | verdict       |
//! |-----------------------------------------------------------------------|---------------|
//! | the new one faulted (trap, time, memory, answer) more often           | it goes       |
//! | it rejected more, beyond what was promised and allowed                | it goes       |
//! | else: the events were bad, not the plugin                              | it stays      |
//! | it was given `EVENTS`                                                  | it is trusted |

use crate::account::Counts;

/// So many events, and a version is trusted.
pub const EVENTS: u64 = 10_000;
/// Shares are of so many events at least: one reject among the first three says little.
const EVENTS_LEAST: u64 = 100;

/// What a version made of some events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub events: u64,
    pub rejected: u64,
    /// Those of the rejected on which the plugin itself failed.
    pub faults: u64,
}

impl Tally {
    pub fn new(counts: &Counts, faults: u64) -> Self {
        Self { events: counts.events, rejected: counts.rejected, faults }
    }
}

/// A version that has not been trusted yet.
#[derive(Clone, Debug)]
pub struct Probation {
    /// The share of all events that it may reject beyond the old one.
    allowed: f64,
    /// The share that it rejected when both were compared.
    promised: f64,
    seen: u64,
    /// Rejects beyond the old version's, so far.
    beyond: u64,
}

impl Probation {
    /// `promised` is what the new version rejected in the run beside the old one, `added` the share that the old one did not
    /// reject, and `max_new_rejects` what may come on top.
    pub fn new(promised: f64, added: f64, max_new_rejects: f64) -> Self {
        Self { allowed: added + max_new_rejects, promised, seen: 0, beyond: 0 }
    }

    /// Whether the old version should be asked, too.
    pub fn doubts(&self, new: Tally) -> bool {
        new.faults > 0 || new.rejected as f64 > self.promised * new.events as f64
    }

    /// Both versions were given the same events.
    ///
    /// # Errors
    ///
    /// Says why the new one goes.
    pub fn compare(&mut self, new: Tally, old: Tally) -> Result<(), String> {
        if new.faults > old.faults {
            return Err(format!(
                "it failed on {} of its first events, on which the version before it does not fail",
                new.faults - old.faults
            ));
        }
        self.beyond += new.rejected.saturating_sub(old.rejected);
        let events = self.seen + new.events;
        if self.beyond as f64 > self.allowed * events.max(EVENTS_LEAST) as f64 {
            return Err(format!(
                "it rejected {} of its first {events} events, which the version before it takes; {:.1} % are allowed",
                self.beyond,
                100.0 * self.allowed
            ));
        }
        Ok(())
    }

    /// Whether it has been right so far, on enough events that it is a better one to go back to than the version before.
    pub fn has_shown_itself(&self) -> bool {
        self.seen >= EVENTS_LEAST
    }

    /// These events were judged, and are believed. True once the version is trusted.
    pub fn passed(&mut self, events: u64) -> bool {
        self.seen += events;
        self.seen >= EVENTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(events: u64, rejected: u64, faults: u64) -> Tally {
        Tally { events, rejected, faults }
    }

    #[test]
    fn what_was_promised_raises_no_doubt() {
        let probation = Probation::new(0.05, 0.0, 0.1);
        assert!(!probation.doubts(tally(100, 5, 0)));
        assert!(probation.doubts(tally(100, 6, 0)));
        assert!(probation.doubts(tally(100, 1, 1)), "a fault always does");
        assert!(!probation.doubts(tally(0, 0, 0)));
    }

    #[test]
    fn bad_events_are_no_bad_plugin() {
        let mut probation = Probation::new(0.0, 0.0, 0.1);
        assert_eq!(probation.compare(tally(100, 90, 3), tally(100, 90, 3)), Ok(()));
        assert_eq!(probation.compare(tally(100, 10, 0), tally(100, 90, 3)), Ok(()));
    }

    #[test]
    fn one_fault_of_its_own_is_enough() {
        let mut probation = Probation::new(0.5, 0.5, 1.0);
        let told = probation.compare(tally(5_000, 1, 1), tally(5_000, 0, 0));
        assert_eq!(
            told,
            Err("it failed on 1 of its first events, on which the version before it does not fail".into())
        );
    }

    #[test]
    fn rejects_add_up_over_chunks() {
        let mut probation = Probation::new(0.0, 0.02, 0.08);
        for _ in 0..2 {
            assert_eq!(probation.compare(tally(10, 5, 0), tally(10, 0, 0)), Ok(()), "few events say little");
            assert!(!probation.passed(10));
        }
        let told = probation.compare(tally(10, 5, 0), tally(10, 0, 0));
        assert_eq!(
            told,
            Err("it rejected 15 of its first 30 events, which the version before it takes; 10.0 % are allowed".into())
        );
        let mut large = Probation::new(0.0, 0.0, 0.1);
        assert_eq!(large.compare(tally(1_000, 100, 0), tally(1_000, 0, 0)), Ok(()));
        assert!(large.compare(tally(1_000, 101, 0), tally(1_000, 0, 0)).is_err());
    }

    #[test]
    fn it_is_trusted_after_enough_events() {
        let mut probation = Probation::new(0.0, 0.0, 0.1);
        assert!(!probation.has_shown_itself() && !probation.passed(EVENTS_LEAST - 1));
        assert!(!probation.has_shown_itself() && !probation.passed(1) && probation.has_shown_itself());
        assert!(!probation.passed(EVENTS - EVENTS_LEAST - 1));
        assert!(probation.passed(1));
    }
}
