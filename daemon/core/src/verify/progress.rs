//! The progress of a table: ranges follow one another, and the application ids agree with them.

use super::entry::{Added, Entry};
use super::finding::{Findings, LogPosition, Problem};
use crate::offsets::{LogPartition, OffsetRange, Offsets, Ranges};

/// The application ids with the next offset of each log partition.
pub(super) struct ProgressIds {
    pub(super) of_log: fn(&LogPartition) -> String,
    /// `None` for other application ids.
    pub(super) log_of: fn(&str) -> Option<LogPartition>,
}

impl Default for ProgressIds {
    /// Those of Bronze and Silver.
    fn default() -> Self {
        Self { of_log: LogPartition::app_id, log_of: LogPartition::from_app_id }
    }
}

/// The offsets that a table has, by log partition.
#[derive(Default)]
pub(super) struct Progress {
    ids: ProgressIds,
    /// The start of the first checked range.
    pub(super) first: Offsets,
    pub(super) next: Offsets,
}

impl Progress {
    pub(super) fn with_ids(ids: ProgressIds) -> Self {
        Self { ids, ..Self::default() }
    }

    /// Starts at the application ids of a checkpoint.
    pub(super) fn start_at<'a>(&mut self, txns: impl Iterator<Item = (&'a str, i64)>) {
        for (id, version) in txns {
            if let Some(log) = (self.ids.log_of)(id) {
                self.next.insert(log.clone(), version);
                // The entries with the start of its first range are gone.
                self.first.insert(log, 0);
            }
        }
    }

    /// Checks the ranges of a commit with this many events. `gap` makes the problem for offsets between two ranges.
    pub(super) fn apply(
        &mut self,
        entry: &Entry,
        ranges: &Ranges,
        events: u64,
        gap: fn(i64) -> Problem,
        findings: &mut Findings,
    ) {
        let version = entry.version;
        for (log, range) in ranges.iter() {
            let position = |start: i64, end: i64| {
                let offsets = (0 <= start && start < end).then(|| OffsetRange::new(start, end));
                LogPosition { version: Some(version), partition: Some(log.clone()), offsets }
            };
            match self.next.get(log).copied() {
                Some(next) if range.start < next => {
                    let problem = Problem::Overlap { expected: next };
                    findings.add(position(range.start, range.end.min(next)), problem);
                }
                Some(next) if next < range.start => findings.add(position(next, range.start), gap(next)),
                Some(_) => {}
                None => drop(self.first.insert(log.clone(), range.start)),
            }
            let (app_id, expected) = ((self.ids.of_log)(log), Some(range.end));
            let found = entry.txn(&app_id);
            if found != expected {
                findings.add(position(range.start, range.end), Problem::TxnMismatch { app_id, expected, found });
            }
            self.next.insert(log.clone(), range.end);
        }
        let offsets = ranges.total();
        if events > offsets.unsigned_abs() {
            findings.at(version, Problem::MoreEventsThanOffsets { events, offsets });
        }
        self.check_unchanged(entry, ranges, findings);
        for add in &entry.adds {
            check_inside(add, ranges, version, findings);
        }
    }

    /// Checks a commit that sets application ids again which the log had lost: those that are known must be the same.
    /// Returns the offsets up to the others.
    pub(super) fn restore(&mut self, entry: &Entry, findings: &mut Findings) -> Ranges {
        self.check_known(entry, findings);
        let mut restored = Ranges::default();
        for (app_id, next) in &entry.txns {
            let log = (self.ids.log_of)(app_id).filter(|log| !self.next.contains_key(log));
            if let Some(log) = log.filter(|_| *next >= 0) {
                self.first.insert(log.clone(), 0);
                self.next.insert(log.clone(), *next);
                restored.insert(log, OffsetRange::new(0, *next));
            }
        }
        restored
    }

    /// Checks a commit that has the rows of all offsets of these ranges, from 0 on, and sets the application ids to their
    /// ends, because the log had lost them.
    pub(super) fn restart(&mut self, entry: &Entry, ranges: &Ranges, findings: &mut Findings) {
        for (log, range) in ranges.iter() {
            let (app_id, expected) = ((self.ids.of_log)(log), range.end.max(self.next.get(log).copied().unwrap_or(0)));
            let found = entry.txn(&app_id);
            if found != Some(expected) {
                let problem = Problem::TxnMismatch { app_id, expected: Some(expected), found };
                let position =
                    LogPosition { version: Some(entry.version), partition: Some(log.clone()), offsets: None };
                findings.add(position, problem);
            }
            self.first.entry(log.clone()).or_insert(0);
            self.next.insert(log.clone(), expected);
        }
        self.check_unchanged(entry, ranges, findings);
    }

    /// Checks that a commit sets no application id to another offset than the one that is known.
    fn check_known(&self, entry: &Entry, findings: &mut Findings) {
        for (app_id, found) in &entry.txns {
            let Some(log) = (self.ids.log_of)(app_id) else { continue };
            if let Some(expected) = self.next.get(&log).filter(|next| *next != found) {
                let (app_id, expected) = (app_id.clone(), Some(*expected));
                findings.at(entry.version, Problem::TxnMismatch { app_id, expected, found: Some(*found) });
            }
        }
    }

    /// Checks that a commit changes no application id of a log partition outside of its ranges.
    pub(super) fn check_unchanged(&self, entry: &Entry, ranges: &Ranges, findings: &mut Findings) {
        for (app_id, found) in &entry.txns {
            let log = (self.ids.log_of)(app_id).filter(|log| ranges.get(log).is_none());
            if let Some(log) = log.filter(|log| self.next.get(log) != Some(found)) {
                let (app_id, expected) = (app_id.clone(), self.next.get(&log).copied());
                findings.at(entry.version, Problem::TxnMismatch { app_id, expected, found: Some(*found) });
            }
        }
    }
}

/// Checks that the rows of a file are inside the commit's ranges, by the lowest and highest values of its statistics.
fn check_inside(add: &Added, ranges: &Ranges, version: u64, findings: &mut Findings) {
    let Some([(first, last), (low, high)]) = add.bounds else { return };
    let covers = |partition: i64| ranges.iter().any(|(log, _)| i64::from(log.partition) == partition);
    let of_file = || ranges.iter().filter(|(log, _)| (first..=last).contains(&i64::from(log.partition)));
    let start = of_file().map(|(_, range)| range.start).min();
    let end = of_file().map(|(_, range)| range.end).max();
    let is_inside = start.is_some_and(|start| start <= low) && end.is_some_and(|end| high < end);
    if !(is_inside && covers(first) && covers(last)) {
        let offsets = (0 <= low && low <= high).then(|| OffsetRange::new(low, high + 1));
        let position = LogPosition { version: Some(version), partition: None, offsets };
        findings.add(position, Problem::OutsideRanges { file: add.path.clone() });
    }
}
