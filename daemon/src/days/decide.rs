//! From what is known to what is to be published.

use std::collections::{BTreeMap, BTreeSet};

use silverd_core::days::{
    CompleteUntil, DayFacts, DayReason, DayState, GoldFacts, SourceDay, reasons_of_gold, reasons_of_silver, state,
};

use super::facts::{Facts, GoldTableFacts, SilverFacts};
use crate::day_status::{DayRow, DayUpdate, Figures};
use crate::delta::format_day;

/// Days without rows that are listed: those since the first day with rows, and none before the last two weeks.
const EMPTY_DAYS_MAX: i32 = 14;
/// Days of one table that are published: the newest ones.
const DAYS_MAX: usize = 3_660;
/// Days whose figures are published while they are provisional: today, and those before it.
const RECENT_DAYS: i32 = 3;
/// A day that was final stays provisional for so long after a change, in microseconds, if late events are waited for as long:
/// with a trickle of them, each would publish two states.
const SETTLES_WITHIN: i64 = 60 * 1_000_000;

/// What is to be published besides the states that changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    /// Other kinds of reasons.
    pub(super) reasons: bool,
    /// The figures of the newest provisional days.
    pub(super) figures: bool,
}

/// The published rows, by table.
type Rows<'r> = BTreeMap<&'r str, BTreeMap<i32, &'r DayRow>>;
/// The states of the days of Silver tables, by table.
type States<'f> = BTreeMap<&'f str, BTreeMap<i32, DayState>>;

/// What is to be published, by the facts and by what is published.
pub(super) fn decide(facts: &Facts, rows: &mut dyn Iterator<Item = &DayRow>, due: Due) -> Vec<DayUpdate> {
    let mut by_table = Rows::new();
    for row in rows {
        by_table.entry(&row.table).or_default().insert(row.day, row);
    }
    let (mut updates, mut states) = (Vec::new(), States::new());
    for table in &facts.silver {
        let of_table = by_table.get(table.name.as_str());
        let today = table.zone.day_of(facts.now);
        let of_states = states.entry(&table.name).or_default();
        for day in days_of_silver(table, of_table, today) {
            let row = of_table.and_then(|rows| rows.get(&day).copied());
            // The most frequent case, with years of days: nothing else revokes a final day of a Silver table here.
            if row.is_some_and(|row| row.state == DayState::Final) && facts.quarantine.of(&table.name, day) == 0 {
                of_states.insert(day, DayState::Final);
                continue;
            }
            let found = Found { table: &table.name, day, row, is_recent: (today - RECENT_DAYS..=today).contains(&day) };
            let mut reasons = reasons(facts, table, day);
            if reasons.is_empty() {
                reasons.extend(row.and_then(|row| settles(row, table.late_after, facts.now)));
            }
            let (state, update) = found.update(reasons, due, || figures_of_silver(table, day, row));
            of_states.insert(day, state);
            updates.extend(update);
        }
    }
    for table in &facts.gold {
        let of_table = by_table.get(table.name.as_str());
        let today = table.zone.day_of(facts.now);
        let pending = pending(table);
        for day in days_of_gold(table, of_table, &states) {
            let row = of_table.and_then(|rows| rows.get(&day).copied());
            let found = Found { table: &table.name, day, row, is_recent: (today - RECENT_DAYS..=today).contains(&day) };
            let of_gold = gold_facts(facts, table, day, &states, &pending);
            updates.extend(found.update(reasons_of_gold(&of_gold), due, || figures_of_gold(facts, table)).1);
        }
    }
    updates
}

/// A day of a table, and what is published of it.
struct Found<'f> {
    table: &'f str,
    day: i32,
    row: Option<&'f DayRow>,
    is_recent: bool,
}

impl Found<'_> {
    /// The state of the day, and what is to be published.
    fn update(
        &self,
        reasons: Vec<DayReason>,
        due: Due,
        figures: impl FnOnce() -> Figures,
    ) -> (DayState, Option<DayUpdate>) {
        let state = state(self.row.map(|row| row.state), &reasons);
        let reasons = if state == DayState::Final { Vec::new() } else { reasons };
        let is_due = match self.row {
            None => true,
            Some(row) if row.state != state => true,
            Some(_) if state == DayState::Final => false,
            Some(row) => (due.reasons && !row.has_reasons(&reasons)) || (due.figures && self.is_recent),
        };
        let update =
            || DayUpdate { table: self.table.to_owned(), day: self.day, state, reasons, figures: Some(figures()) };
        (state, is_due.then(update))
    }
}

/// The days with rows, those that are published, and those without rows between the first one and today.
fn days_of_silver(table: &SilverFacts, rows: Option<&BTreeMap<i32, &DayRow>>, today: i32) -> Vec<i32> {
    let mut days: BTreeSet<i32> = rows.into_iter().flat_map(|rows| rows.keys().copied()).collect();
    days.extend(table.log.followed().into_iter().flat_map(|log| log.days.iter().copied()));
    let first = days.first().map_or(today, |first| (*first).max(today - EMPTY_DAYS_MAX));
    days.extend(first..=today);
    newest(days)
}

/// The days of the sources, and those with rows.
fn days_of_gold(table: &GoldTableFacts, rows: Option<&BTreeMap<i32, &DayRow>>, states: &States<'_>) -> Vec<i32> {
    let mut days: BTreeSet<i32> = rows.into_iter().flat_map(|rows| rows.keys().copied()).collect();
    days.extend(table.log.followed().into_iter().flat_map(|log| log.days.iter().copied()));
    let sources = table.sources.iter().filter_map(|source| states.get(source.as_str()));
    days.extend(sources.flat_map(|states| states.keys().copied()));
    newest(days)
}

fn newest(days: BTreeSet<i32>) -> Vec<i32> {
    days.into_iter().rev().take(DAYS_MAX).collect()
}

fn reasons(facts: &Facts, table: &SilverFacts, day: i32) -> Vec<DayReason> {
    reasons_of_silver(&DayFacts {
        ends_at: table.zone.end_of_day(day),
        late_after: table.late_after,
        now: facts.now,
        complete: table.complete,
        lag: table.lag,
        quarantined: facts.quarantine.of(&table.name, day),
        is_corrected: table.is_corrected,
    })
}

/// Why a day that was final is not final again at once. A time in the future is one of a clock that was ahead.
fn settles(row: &DayRow, late_after: i64, now: i64) -> Option<DayReason> {
    let was_final = row.state == DayState::Provisional && row.first_final_at.is_some();
    let until = row.since.saturating_add(late_after.min(SETTLES_WITHIN));
    (was_final && (row.since..until).contains(&now)).then_some(DayReason::Changing)
}

fn gold_facts(
    facts: &Facts,
    table: &GoldTableFacts,
    day: i32,
    states: &States<'_>,
    pending: &BTreeSet<String>,
) -> GoldFacts {
    let days = day.saturating_sub(table.lookback_days)..=day;
    let of_source = |name: &String| {
        let state_of = |silver: &SilverFacts, day: i32| {
            let known = states.get(silver.name.as_str()).and_then(|days| days.get(&day)).copied();
            // A day that is not listed has no rows.
            known.unwrap_or_else(|| state(None, &reasons(facts, silver, day)))
        };
        let least = |silver| days.clone().map(|day| state_of(silver, day)).min().unwrap_or(DayState::Provisional);
        SourceDay { table: name.clone(), state: facts.silver_of(name).map(least) }
    };
    let computed = table.log.followed().and_then(|log| log.computed_from.as_ref());
    let is_computed = |name: &String| {
        let Some(log) = facts.silver_of(name).and_then(|silver| silver.log.followed()) else { return false };
        let Some(version) = computed.and_then(|computed| computed.versions.get(name)) else { return false };
        !days.clone().any(|day| log.changed_after(day, *version))
    };
    let silver = || table.sources.iter().filter(|name| facts.silver_of(name).is_some());
    GoldFacts {
        ends_at: table.zone.end_of_day(day),
        now: facts.now,
        sources: table.sources.iter().map(of_source).collect(),
        is_current: !pending.contains(&format_day(day)) && computed.is_some() && silver().all(is_computed),
    }
}

/// The days that Gold has still to compute.
fn pending(table: &GoldTableFacts) -> BTreeSet<String> {
    let computed = table.log.followed().and_then(|log| log.computed_from.as_ref());
    computed.into_iter().flat_map(|computed| computed.pending.iter().cloned()).collect()
}

fn figures_of_silver(table: &SilverFacts, day: i32, row: Option<&DayRow>) -> Figures {
    let log = table.log.followed();
    let counted = row.filter(|row| row.first_final_at.is_some());
    let new_late = counted.and_then(|row| Some(log?.rows_after(day, row.commit_version?.unsigned_abs()))).unwrap_or(0);
    Figures {
        complete_until: time_of(table.complete),
        commit_version: log.map(|log| log.version as i64),
        offsets: table.offsets(),
        late_events: row.map_or(0, |row| row.late_events) + new_late as i64,
    }
}

/// As complete as the sources.
fn figures_of_gold(facts: &Facts, table: &GoldTableFacts) -> Figures {
    let of_sources = table.sources.iter().map(|name| time_of(facts.silver_of(name)?.complete));
    let complete_until = of_sources.collect::<Option<Vec<_>>>().and_then(|times| times.into_iter().min());
    let commit_version = table.log.followed().map(|log| log.version as i64);
    Figures { complete_until, commit_version, ..Figures::default() }
}

fn time_of(complete: CompleteUntil) -> Option<i64> {
    match complete {
        CompleteUntil::Time(until) => Some(until),
        CompleteUntil::Unknown { .. } => None,
    }
}

/// Of all updates, those of one publication: every day that is not final any more, and the newest of the others.
pub(super) fn of_one_publication(updates: Vec<DayUpdate>, days_max: usize) -> Vec<DayUpdate> {
    let revoked = |update: &DayUpdate| update.state == DayState::Provisional;
    let newest = updates.iter().filter(|update| !revoked(update)).map(|update| update.day).collect::<BTreeSet<_>>();
    let newest: BTreeSet<i32> = newest.into_iter().rev().take(days_max).collect();
    updates.into_iter().filter(|update| revoked(update) || newest.contains(&update.day)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(day: i32, state: DayState) -> DayUpdate {
        DayUpdate { table: "t".to_owned(), day, state, reasons: Vec::new(), figures: None }
    }

    #[test]
    fn a_publication_has_a_bound_and_every_revocation() {
        let updates: Vec<_> = (0..5).map(|day| update(day, DayState::Final)).collect();
        let revoked = update(1, DayState::Provisional);
        let days = of_one_publication([updates, vec![revoked]].concat(), 2);
        assert_eq!(days.iter().map(|update| update.day).collect::<Vec<_>>(), [3, 4, 1]);
    }

    fn row() -> DayRow {
        DayRow { reason: Some("late-events".to_owned()), ..DayRow::new("t", 1, DayState::Provisional, 0) }
    }

    #[test]
    fn a_day_that_was_final_settles_first() {
        let was_final = DayRow { since: 100, first_final_at: Some(50), ..row() };
        for (row, late_after, now, expected) in [
            (&was_final, 10, 109, true),
            (&was_final, 10, 110, false),
            (&was_final, i64::MAX, 99 + SETTLES_WITHIN, true),
            (&was_final, i64::MAX, 100 + SETTLES_WITHIN, false),
            // The clock was set back.
            (&was_final, 10, 99, false),
            (&DayRow { since: 100, ..row() }, 10, 105, false),
        ] {
            assert_eq!(settles(row, late_after, now).is_some(), expected, "{late_after} {now}");
        }
    }

    #[test]
    fn what_is_published_is_published_again_only_when_due() {
        let row = row();
        let waits = || vec![DayReason::WaitsForLateEvents { until: 9 }];
        let (never, reasons) = (Due { reasons: false, figures: false }, Due { reasons: true, figures: false });
        let figures = Due { reasons: false, figures: true };
        for (found, new_reasons, due, expected) in [
            (None, waits(), never, true),
            (Some(&row), waits(), reasons, false),
            (Some(&row), vec![DayReason::Rebuild], never, false),
            (Some(&row), vec![DayReason::Rebuild], reasons, true),
            (Some(&row), waits(), figures, true),
            (Some(&row), Vec::new(), never, true),
        ] {
            let found = Found { table: "t", day: 1, row: found, is_recent: true };
            let (_, update) = found.update(new_reasons, due, Figures::default);
            assert_eq!(update.is_some(), expected, "{due:?}");
        }
    }
}
