//! Whether a day is final.

use super::DayState;
use super::complete::CompleteUntil;
use super::reason::DayReason;

/// What is known of a Silver table and one of its days.
#[derive(Clone, Copy, Debug)]
pub struct DayFacts {
    /// When the day is over, in microseconds: the start of the next day in the table's zone.
    pub ends_at: i64,
    /// How long after the day's end late events are waited for, in microseconds.
    pub late_after: i64,
    pub now: i64,
    pub complete: CompleteUntil,
    /// Offsets that the table has not processed.
    pub lag: i64,
    /// Unresolved rejects of the day, as far as they are waited for.
    pub quarantined: u64,
    /// A rebuild or a replay of the table is under way.
    pub is_corrected: bool,
}

/// What is known of a Gold table and one of its days.
#[derive(Clone, Debug, Default)]
pub struct GoldFacts {
    pub ends_at: i64,
    pub now: i64,
    /// The sources, with the state of the days that the day's rows depend on.
    pub sources: Vec<SourceDay>,
    /// The day was computed from the newest rows of these days.
    pub is_current: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceDay {
    pub table: String,
    /// `None`: a table without a day status.
    pub state: Option<DayState>,
}

/// Why the rows of a Silver table's day may change; empty if the day is final.
///
/// | | reason |
/// |---|---|
/// | the clock is before the day's end | not over; of the next three none |
/// | it is not known how far the table is | unknown |
/// | complete until before the day's end | lag |
/// | complete until before the day's end and `late_after` | late events |
/// | unresolved rejects of the day | quarantine |
/// | a correction of the table runs | rebuild |
pub fn reasons_of_silver(facts: &DayFacts) -> Vec<DayReason> {
    let DayFacts { ends_at, late_after, now, complete, lag, quarantined, is_corrected } = *facts;
    let mut reasons = Vec::new();
    let final_at = ends_at.saturating_add(late_after);
    match complete {
        // How far the table is says nothing of such a day.
        _ if now < ends_at => reasons.push(DayReason::NotOver { ends_at }),
        CompleteUntil::Unknown { partitions } => reasons.push(DayReason::Unknown { partitions }),
        CompleteUntil::Time(until) if until < ends_at && lag > 0 => {
            reasons.push(DayReason::Lag { complete_until: until, offsets: lag });
        }
        CompleteUntil::Time(until) if until < final_at => {
            reasons.push(DayReason::WaitsForLateEvents { until: final_at });
        }
        CompleteUntil::Time(_) => {}
    }
    if quarantined > 0 {
        reasons.push(DayReason::Quarantine { count: quarantined });
    }
    if is_corrected {
        reasons.push(DayReason::Rebuild);
    }
    reasons
}

/// Why the rows of a Gold table's day may change; empty if the day is final.
pub fn reasons_of_gold(facts: &GoldFacts) -> Vec<DayReason> {
    let mut reasons = Vec::new();
    if facts.now < facts.ends_at {
        // It is computed again every few seconds, and so are its sources.
        return vec![DayReason::NotOver { ends_at: facts.ends_at }];
    }
    for SourceDay { table, state } in &facts.sources {
        match state {
            Some(DayState::Final) => {}
            Some(DayState::Provisional) => reasons.push(DayReason::SourceProvisional { table: table.clone() }),
            None => reasons.push(DayReason::SourceWithoutDays { table: table.clone() }),
        }
    }
    if !facts.is_current {
        reasons.push(DayReason::GoldBehind);
    }
    reasons
}

/// The state of a day that was published as `before`, with these reasons.
///
/// | before | reasons | |
/// |---|---|---|
/// | final | none, or such as revoke nothing | final |
/// | final | one that revokes | provisional |
/// | provisional, or nothing | none | final |
/// | provisional, or nothing | any | provisional |
pub fn state(before: Option<DayState>, reasons: &[DayReason]) -> DayState {
    let stays = before == Some(DayState::Final) && !reasons.iter().any(DayReason::revokes);
    if reasons.is_empty() || stays { DayState::Final } else { DayState::Provisional }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A day from 0 to 100 whose late events are waited for until 110.
    fn facts(now: i64, complete: Option<i64>, lag: i64) -> DayFacts {
        let complete = complete.map_or(CompleteUntil::Unknown { partitions: 1 }, CompleteUntil::Time);
        DayFacts { ends_at: 100, late_after: 10, now, complete, lag, quarantined: 0, is_corrected: false }
    }

    fn kinds(reasons: &[DayReason]) -> Vec<&'static str> {
        reasons.iter().map(DayReason::kind).collect()
    }

    #[test]
    fn reasons_follow_their_truth_table() {
        for (now, complete, lag, expected) in [
            (99, Some(99), 0, &["not-over"][..]),
            (99, None, 0, &["not-over"]),
            (100, Some(99), 1, &["lag"]),
            (100, Some(99), 0, &["late-events"]),
            (105, Some(100), 5, &["late-events"]),
            (120, Some(109), 0, &["late-events"]),
            (120, None, 0, &["unknown"]),
            (120, Some(110), 0, &[]),
            (120, Some(110), 7, &[]),
        ] {
            let reasons = reasons_of_silver(&facts(now, complete, lag));
            assert_eq!(kinds(&reasons), expected, "{now} {complete:?} {lag}");
        }
        let rejected = DayFacts { quarantined: 2, is_corrected: true, ..facts(120, Some(115), 0) };
        assert_eq!(kinds(&reasons_of_silver(&rejected)), ["quarantine", "rebuild"]);
    }

    #[test]
    fn gold_is_final_with_its_sources() {
        let source = |state| SourceDay { table: "t".to_owned(), state };
        let facts = |state, is_current| GoldFacts { ends_at: 0, now: 9, sources: vec![source(state)], is_current };
        for (state, is_current, expected) in [
            (Some(DayState::Final), true, &[][..]),
            (Some(DayState::Final), false, &["gold-behind"]),
            (Some(DayState::Provisional), true, &["source-provisional"]),
            (None, true, &["source-without-days"]),
        ] {
            assert_eq!(kinds(&reasons_of_gold(&facts(state, is_current))), expected);
        }
    }

    #[test]
    fn what_is_not_known_revokes_nothing() {
        let unknown = [DayReason::Unknown { partitions: 1 }];
        let rejected = [DayReason::Unknown { partitions: 1 }, DayReason::Quarantine { count: 1 }];
        for (before, reasons, expected) in [
            (None, &[][..], DayState::Final),
            (None, &unknown, DayState::Provisional),
            (Some(DayState::Provisional), &[], DayState::Final),
            (Some(DayState::Provisional), &unknown, DayState::Provisional),
            (Some(DayState::Final), &[], DayState::Final),
            (Some(DayState::Final), &unknown, DayState::Final),
            (Some(DayState::Final), &rejected, DayState::Provisional),
        ] {
            assert_eq!(state(before, reasons), expected, "{before:?} {reasons:?}");
        }
    }

    proptest! {
        /// A day that was not final becomes final only if it is over and complete, and nothing waits.
        #[test]
        fn only_complete_days_become_final(
            now in 0i64..300, complete in prop::option::of(0i64..300), lag in 0i64..3, quarantined in 0u64..2,
            is_corrected: bool,
        ) {
            let complete = complete.map(|until| until.min(now));
            let facts = DayFacts { quarantined, is_corrected, ..facts(now, complete, lag) };
            let is_final = state(None, &reasons_of_silver(&facts)) == DayState::Final;
            let is_complete = complete.is_some_and(|until| until >= 110);
            prop_assert_eq!(is_final, is_complete && quarantined == 0 && !is_corrected);
        }
    }
}
