//! The canary period: the first live events of a new plugin version, until the version is trusted. A version that fails
//! on events which the previous version accepts is rolled back.
//!
//! The previous version is the *baseline*. In the canary period, a chunk with faults, or with more rejects than the
//! shadow run predicted, is also given to the baseline:
//!
//! | on the same events, so far                                             | the new version |
//! |------------------------------------------------------------------------|-----------------|
//! | it faulted (trap, time, memory, invalid output) more often             | is rolled back  |
//! | it rejected more, beyond what was predicted and allowed                | is rolled back  |
//! | otherwise: the events are bad, not the plugin                          | stays           |
//! | it has processed enough events for the time that it serves             | is trusted      |
//!
//! Enough is, for tables with many events and with few:
//!
//! | serves for at least | events |
//! |---|---|
//! | no time | 10,000 |
//! | 10 minutes | 100 |
//! | 1 hour | 1 |
//!
//! A restart does not end the period: the table's log says how many events the version has processed, and for how long. It
//! does not say what the shadow run predicted, so the baseline processes every chunk with rejects then.

use std::time::Duration;

use crate::counts::Counts;

/// A version is trusted once it has served this long and has processed this many events.
const TRUSTED_AFTER: [(Duration, u64); 3] =
    [(Duration::ZERO, 10_000), (Duration::from_secs(600), EVENTS_MIN), (Duration::from_secs(3_600), 1)];
/// Shares are computed of at least this many events: one reject among the first three says little.
const EVENTS_MIN: u64 = 100;

/// How a version did on some events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub events: u64,
    pub rejected: u64,
    /// The rejected events on which the plugin itself failed.
    pub faults: u64,
}

impl Tally {
    pub fn new(counts: &Counts, faults: u64) -> Self {
        Self { events: counts.events, rejected: counts.rejected, faults }
    }
}

/// The canary period of one version.
#[derive(Clone, Debug)]
pub struct CanaryPeriod {
    /// The share of all events that it may reject in addition to the baseline's rejects.
    allowed_share: f64,
    /// The share that it rejected in the shadow run.
    predicted_share: f64,
    events: u64,
    /// Rejects in addition to the baseline's, so far.
    extra_rejects: u64,
}

impl CanaryPeriod {
    /// Of the events of the shadow run, the new version rejected `rejected_share`, and `added_share` were not rejected
    /// by the baseline; `max_new_rejects` is the share that may come on top.
    pub fn new(rejected_share: f64, added_share: f64, max_new_rejects: f64) -> Self {
        Self {
            allowed_share: added_share + max_new_rejects,
            predicted_share: rejected_share,
            events: 0,
            extra_rejects: 0,
        }
    }

    /// The period of a version that has processed events before a restart, with these outcomes; `before` are the outcomes of
    /// the version before it, on earlier events. What it rejected more than that is taken for intended, up to the share that
    /// the shadow run lets pass.
    pub fn resumed(so_far: &Counts, before: &Counts, max_new_rejects: f64) -> Self {
        let added_share = (rejected_share(so_far) - rejected_share(before)).clamp(0.0, max_new_rejects.max(0.0));
        Self { events: so_far.events, ..Self::new(0.0, added_share, max_new_rejects) }
    }

    /// Whether the baseline must process the same events for comparison.
    pub fn needs_baseline(&self, new: Tally) -> bool {
        new.faults > 0 || new.rejected as f64 > self.predicted_share * new.events as f64
    }

    /// Compares the two versions on the same events.
    ///
    /// # Errors
    ///
    /// Says why the new version must be rolled back.
    pub fn compare(&mut self, new: Tally, baseline: Tally) -> Result<(), String> {
        if new.faults > baseline.faults {
            return Err(format!(
                "it failed on {} of its first events, on which the version before it does not fail",
                new.faults - baseline.faults
            ));
        }
        self.extra_rejects += new.rejected.saturating_sub(baseline.rejected);
        let events = self.events + new.events;
        if self.extra_rejects as f64 > self.allowed_share * events.max(EVENTS_MIN) as f64 {
            return Err(format!(
                "it rejected {} of its first {events} events, which the version before it accepts; {:.1} % are allowed",
                self.extra_rejects,
                100.0 * self.allowed_share
            ));
        }
        Ok(())
    }

    /// The version processed these events without being rolled back, and serves for `served` now. True once it is
    /// trusted.
    pub fn record_passed(&mut self, events: u64, served: Duration) -> bool {
        self.events += events;
        is_trusted(self.events, served)
    }
}

/// Whether a version is trusted that serves for this long and has processed this many events.
pub fn is_trusted(events: u64, served: Duration) -> bool {
    TRUSTED_AFTER.iter().any(|(time, events_min)| served >= *time && events >= *events_min)
}

fn rejected_share(counts: &Counts) -> f64 {
    if counts.events == 0 { 0.0 } else { counts.rejected as f64 / counts.events as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(events: u64, rejected: u64, faults: u64) -> Tally {
        Tally { events, rejected, faults }
    }

    #[test]
    fn predicted_rejects_need_no_baseline() {
        let period = CanaryPeriod::new(0.05, 0.0, 0.1);
        assert!(!period.needs_baseline(tally(100, 5, 0)));
        assert!(period.needs_baseline(tally(100, 6, 0)));
        assert!(period.needs_baseline(tally(100, 1, 1)), "a fault always does");
        assert!(!period.needs_baseline(tally(0, 0, 0)));
    }

    #[test]
    fn events_that_the_baseline_rejects_too_do_not_count() {
        let mut period = CanaryPeriod::new(0.0, 0.0, 0.1);
        assert_eq!(period.compare(tally(100, 90, 3), tally(100, 90, 3)), Ok(()));
        assert_eq!(period.compare(tally(100, 10, 0), tally(100, 90, 3)), Ok(()));
    }

    #[test]
    fn one_additional_fault_is_enough() {
        let mut period = CanaryPeriod::new(0.5, 0.5, 1.0);
        let compared = period.compare(tally(5_000, 1, 1), tally(5_000, 0, 0));
        assert_eq!(
            compared,
            Err("it failed on 1 of its first events, on which the version before it does not fail".into())
        );
    }

    #[test]
    fn rejects_add_up_over_chunks() {
        let mut period = CanaryPeriod::new(0.0, 0.02, 0.08);
        for _ in 0..2 {
            assert_eq!(period.compare(tally(10, 5, 0), tally(10, 0, 0)), Ok(()), "few events say little");
            assert!(!period.record_passed(10, Duration::ZERO));
        }
        let compared = period.compare(tally(10, 5, 0), tally(10, 0, 0));
        assert_eq!(
            compared,
            Err("it rejected 15 of its first 30 events, which the version before it accepts; 10.0 % are allowed".into())
        );
        let mut large = CanaryPeriod::new(0.0, 0.0, 0.1);
        assert_eq!(large.compare(tally(1_000, 100, 0), tally(1_000, 0, 0)), Ok(()));
        assert!(large.compare(tally(1_000, 101, 0), tally(1_000, 0, 0)).is_err());
    }

    #[test]
    fn a_version_is_trusted_after_enough_events_or_time() {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        for (events, served, trusted) in [
            (0, minutes(600), false),
            (1, minutes(59), false),
            (1, minutes(60), true),
            (99, minutes(10), false),
            (100, minutes(9), false),
            (100, minutes(10), true),
            (9_999, Duration::ZERO, false),
            (10_000, Duration::ZERO, true),
        ] {
            let mut period = CanaryPeriod::new(0.0, 0.0, 0.1);
            assert_eq!(period.record_passed(events, served), trusted, "{events} {served:?}");
        }
        let mut period = CanaryPeriod::new(0.0, 0.0, 0.1);
        assert!(!period.record_passed(6_000, Duration::ZERO) && period.record_passed(4_000, Duration::ZERO));
    }

    #[test]
    fn a_resumed_period_counts_the_events_before_the_restart() {
        let counts = |events, rejected| Counts { events, rejected, with_rows: events - rejected, ..Counts::default() };
        let mut period = CanaryPeriod::resumed(&counts(6_000, 0), &counts(100, 0), 0.1);
        assert!(period.needs_baseline(tally(100, 1, 0)), "what the shadow run predicted is not known");
        assert!(!period.record_passed(3_999, Duration::ZERO) && period.record_passed(1, Duration::ZERO));
        // So many rejects more are allowed on 100 events.
        for (so_far, before, allowed) in [
            (counts(0, 0), counts(100, 50), 10),
            (counts(50, 0), counts(0, 0), 10),
            (counts(50, 2), counts(100, 1), 13),
            // More than the shadow run lets pass.
            (counts(50, 50), counts(100, 0), 20),
        ] {
            let resumed = || CanaryPeriod { events: 0, ..CanaryPeriod::resumed(&so_far, &before, 0.1) };
            assert_eq!(resumed().compare(tally(100, allowed, 0), tally(100, 0, 0)), Ok(()), "{so_far:?}");
            assert!(resumed().compare(tally(100, allowed + 1, 0), tally(100, 0, 0)).is_err(), "{so_far:?}");
        }
    }
}
