//! What the built-in alerts go by: the state of the pipeline at a moment, and how it was before.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::gold::GoldTable;
use crate::maintenance::TableMaintenance;
use crate::pipeline::status::{RunState, Status};
use crate::runtime::clock;
use crate::tables::writer_state::WriterState;

/// The name of Bronze among the tables.
pub(super) const BRONZE: &str = "bronze";
/// The window of the share of rejected events.
pub(super) const REJECTS_WINDOW: Duration = Duration::from_secs(60 * 60);
/// Between two samples.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(60);

/// The pipeline at a moment.
pub(super) struct Observed {
    pub(super) at: Instant,
    pub(super) at_ms: i64,
    /// `None` while it is being opened.
    pub(super) pipeline: Option<Tables>,
    /// Why it cannot be opened.
    pub(super) cannot_open: Option<String>,
    /// Why records are not read, with for how long.
    pub(super) source_problems: Vec<(String, Duration)>,
    pub(super) gold: Vec<GoldTable>,
    pub(super) maintenance: Vec<TableMaintenance>,
}

/// Bronze and the Silver tables by name.
pub(super) type Tables = BTreeMap<String, Table>;

pub(super) struct Table {
    pub(super) state: WriterState,
    pub(super) lag: i64,
    pub(super) events: u64,
    pub(super) rejected: u64,
    pub(super) commits: u64,
    /// Why the newest plugin version does not fill the table.
    pub(super) rejection: Option<String>,
}

impl Observed {
    pub(super) fn new(state: &RunState, gold: Vec<GoldTable>, maintenance: Vec<TableMaintenance>) -> Self {
        let (pipeline, cannot_open, source_problems) = (None, None, Vec::new());
        let (at, at_ms) = (Instant::now(), clock::now_ms());
        let mut observed = Self { at, at_ms, pipeline, cannot_open, source_problems, gold, maintenance };
        match state {
            RunState::Starting => {}
            RunState::Waiting(problem) => observed.cannot_open = Some(problem.text.clone()),
            RunState::Running(status) => {
                let problems = status.source_problems().into_iter();
                observed.source_problems = problems.map(|problem| (problem.text, problem.since.elapsed())).collect();
                observed.pipeline = Some(tables_of(status));
            }
        }
        observed
    }
}

fn tables_of(status: &Status) -> Tables {
    let bronze = Table {
        state: status.bronze_state.get(),
        lag: status.lag(),
        events: status.bronze.events.load(Relaxed),
        rejected: 0,
        commits: status.bronze.commits.load(Relaxed),
        rejection: None,
    };
    let silver = status.silver.iter().map(|silver| {
        let stats = &silver.stats;
        let table = Table {
            state: silver.state.get(),
            lag: stats.lag.load(Relaxed),
            events: stats.events.load(Relaxed),
            rejected: stats.rejected.load(Relaxed),
            commits: stats.commits.load(Relaxed),
            rejection: stats.update_rejection(),
        };
        (silver.name.clone(), table)
    });
    silver.chain([(BRONZE.to_owned(), bronze)]).collect()
}

impl Table {
    /// Whether it is known that the table can be written: since the start of silverd it was, or it has nothing to write.
    pub(super) fn is_known_to_write(&self) -> bool {
        let is_writing =
            matches!(self.state, WriterState::Live | WriterState::CatchingUp | WriterState::RollingBack { .. });
        is_writing && (self.commits > 0 || self.lag == 0)
    }
}

/// The counts of the last hour, or of a longer window of the lag.
pub(super) struct Samples {
    window: Duration,
    /// Oldest first. Counts go up while one pipeline runs.
    samples: VecDeque<Sample>,
    /// When the first event was counted, or else when the samples begin; then when the count changed last.
    last_event: Option<(Instant, u64)>,
    /// The commits of a table when it was last seen to fail: until there is another one, it may fail again.
    failed_at: BTreeMap<String, u64>,
}

struct Sample {
    at: Instant,
    tables: BTreeMap<String, Counted>,
}

#[derive(Clone, Copy)]
struct Counted {
    lag: i64,
    events: u64,
    rejected: u64,
}

impl Samples {
    pub(super) fn new(lag_window: Duration) -> Self {
        Self {
            window: REJECTS_WINDOW.max(lag_window),
            samples: VecDeque::new(),
            last_event: None,
            failed_at: BTreeMap::new(),
        }
    }

    /// Another window of the lag. What is known stays.
    pub(super) fn set_lag_window(&mut self, lag_window: Duration) {
        self.window = REJECTS_WINDOW.max(lag_window);
    }

    pub(super) fn add(&mut self, at: Instant, tables: &Tables) {
        let events = tables.get(BRONZE).map_or(0, |bronze| bronze.events);
        match &mut self.last_event {
            Some((_, known)) if *known == events => {}
            last => *last = Some((at, events)),
        }
        for (name, table) in tables {
            if matches!(table.state, WriterState::Retrying { .. } | WriterState::Paused { .. }) {
                self.failed_at.insert(name.clone(), table.commits);
            }
        }
        // An edit restarts the pipeline, and its counts.
        if self.samples.back().is_some_and(|last| last.is_ahead_of(tables)) {
            self.samples.clear();
        }
        if self.samples.back().is_some_and(|last| at.duration_since(last.at) < SAMPLE_INTERVAL) {
            return;
        }
        let counted = |table: &Table| Counted { lag: table.lag, events: table.events, rejected: table.rejected };
        let tables = tables.iter().map(|(name, table)| (name.clone(), counted(table))).collect();
        self.samples.push_back(Sample { at, tables });
        // One sample is at least as old as the window.
        while self.samples.get(1).is_some_and(|second| at.duration_since(second.at) >= self.window) {
            self.samples.pop_front();
        }
    }

    /// Whether it is known that a table can be written. Between two tries, one that fails looks like one that catches
    /// up.
    pub(super) fn is_known_to_write(&self, name: &str, table: &Table) -> bool {
        let has_failed = self.failed_at.get(name) == Some(&table.commits);
        table.is_known_to_write() && (table.lag == 0 || !has_failed)
    }

    /// For how long no event has come, as far as this process has seen.
    pub(super) fn without_events(&self, at: Instant) -> Option<Duration> {
        self.last_event.map(|(since, _)| at.duration_since(since))
    }

    /// Whether any event has come since the samples begin.
    pub(super) fn has_events(&self) -> bool {
        self.last_event.is_some_and(|(_, events)| events > 0)
    }

    /// The lag of a table so long ago; `None` if that is not known.
    pub(super) fn lag_before(&self, table: &str, at: Instant, window: Duration) -> Option<i64> {
        let before = self.samples.iter().rev().find(|sample| at.duration_since(sample.at) >= window)?;
        Some(before.tables.get(table)?.lag)
    }

    /// The events of a table and those that it rejected, within a window; `None` before that is over.
    pub(super) fn rejected_since(&self, table: &str, now: &Table, at: Instant, window: Duration) -> Option<(u64, u64)> {
        let before = self.samples.iter().rev().find(|sample| at.duration_since(sample.at) >= window);
        let first = before.or(self.samples.front())?.tables.get(table)?;
        Some((now.events.saturating_sub(first.events), now.rejected.saturating_sub(first.rejected)))
    }

    /// Whether the samples go back as far as a window.
    pub(super) fn cover(&self, at: Instant, window: Duration) -> bool {
        self.samples.front().is_some_and(|first| at.duration_since(first.at) >= window)
    }
}

impl Sample {
    /// Whether it has counted more than there is now.
    fn is_ahead_of(&self, tables: &Tables) -> bool {
        self.tables.iter().any(|(name, counted)| tables.get(name).is_some_and(|now| now.events < counted.events))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn tables(events: u64, rejected: u64, lag: i64) -> Tables {
        let table = || Table { state: WriterState::Live, lag, events, rejected, commits: 1, rejection: None };
        Tables::from([(BRONZE.to_owned(), table()), ("hits".to_owned(), table())])
    }

    #[test]
    fn a_window_is_known_once_it_is_over() {
        let (start, mut samples) = (Instant::now(), Samples::new(15 * MINUTE));
        for minute in 0..200 {
            let (at, number) = (start + MINUTE * minute, u64::from(minute));
            samples.add(at, &tables(number * 10, number, i64::from(minute)));
            let expected = (minute >= 15).then(|| i64::from(minute) - 15);
            assert_eq!(samples.lag_before("hits", at, 15 * MINUTE), expected);
            assert_eq!(samples.cover(at, REJECTS_WINDOW), minute >= 60);
        }
        let at = start + 199 * MINUTE;
        let now = &tables(1_990, 199, 0)["hits"];
        assert_eq!(samples.rejected_since("hits", now, at, REJECTS_WINDOW), Some((600, 60)));
        assert!(samples.samples.len() <= 62, "{}", samples.samples.len());
        // The pipeline restarts.
        samples.add(at + MINUTE, &tables(5, 0, 0));
        assert!(!samples.cover(at + MINUTE, MINUTE));
    }

    #[test]
    fn a_table_that_fails_is_not_known_to_be_writable_between_its_tries() {
        let (start, mut samples) = (Instant::now(), Samples::new(15 * MINUTE));
        let mut check = |state: WriterState, commits: u64, lag: i64, expected: bool| {
            let table = Table { state, lag, events: 0, rejected: 0, commits, rejection: None };
            let tables = Tables::from([("hits".to_owned(), table)]);
            samples.add(start, &tables);
            assert_eq!(samples.is_known_to_write("hits", &tables["hits"]), expected);
        };
        check(WriterState::CatchingUp, 7, 5, true);
        check(WriterState::Retrying { reason: String::new() }, 7, 5, false);
        check(WriterState::CatchingUp, 7, 5, false);
        check(WriterState::Live, 7, 0, true);
        check(WriterState::CatchingUp, 8, 5, true);
    }

    #[test]
    fn a_topic_without_events_is_known() {
        let (start, mut samples) = (Instant::now(), Samples::new(15 * MINUTE));
        assert_eq!(samples.without_events(start), None);
        samples.add(start, &tables(0, 0, 0));
        assert!(!samples.has_events());
        samples.add(start + MINUTE, &tables(7, 0, 0));
        samples.add(start + 3 * MINUTE, &tables(7, 0, 0));
        assert_eq!(samples.without_events(start + 4 * MINUTE), Some(3 * MINUTE));
        assert!(samples.has_events());
    }

    #[test]
    fn a_table_that_was_not_written_yet_is_not_known_to_be_writable() {
        let check = |state: WriterState, commits: u64, lag: i64, expected: bool| {
            let table = Table { state, lag, events: 0, rejected: 0, commits, rejection: None };
            assert_eq!(table.is_known_to_write(), expected);
        };
        check(WriterState::Live, 0, 5, false);
        check(WriterState::Live, 0, 0, true);
        check(WriterState::CatchingUp, 1, 5, true);
        check(WriterState::Opening, 1, 0, false);
        check(WriterState::Retrying { reason: String::new() }, 1, 0, false);
    }
}
