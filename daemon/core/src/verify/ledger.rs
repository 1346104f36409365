//! The part of verification that is the same for every table: the files of the log, and the sum of their rows.

use std::collections::BTreeSet;

use super::entry::Entry;
use super::finding::{APPLICATION_IDS, Findings, Problem};
use super::foreign::ForeignCommits;
use super::state::{TableState, file_key};
use crate::offsets::LogPartition;

/// A table's log, up to the entry that was applied last.
pub struct Ledger {
    pub(super) findings: Findings,
    pub(super) state: TableState,
    /// The first version whose entry was checked against the one before it; `None` if no entry was applied.
    pub(super) checked_from: Option<u64>,
    /// The rows that the commits account for.
    pub(super) accounted: i128,
    /// The commits of other writers, which are reported at the end.
    foreign: ForeignCommits,
    left_out: LeftOut,
}

/// The application ids that the newest checkpoint leaves out. Another engine's checkpoint may do so, if a table property says
/// so; silverd then sets them again.
#[derive(Default)]
struct LeftOut {
    /// The version of the checkpoint.
    version: u64,
    /// Those that no later entry has set.
    ids: BTreeSet<String>,
}

/// The rows that an entry added and removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RowChange {
    pub(super) added: u64,
    pub(super) removed: u64,
}

impl Ledger {
    pub(super) fn new(table: &str) -> Self {
        Self {
            findings: Findings::new(table),
            state: TableState::default(),
            checked_from: None,
            accounted: 0,
            foreign: ForeignCommits::default(),
            left_out: LeftOut::default(),
        }
    }

    /// Starts at a checkpoint, because the entries before it are gone.
    pub(super) fn start_at(&mut self, checkpoint: TableState) {
        if checkpoint.files_without_count > 0 {
            let file = format!("{} files of the checkpoint", checkpoint.files_without_count);
            self.findings.at(checkpoint.version, Problem::NoRowCount { file });
        }
        self.accounted = i128::from(checkpoint.rows());
        self.checked_from = Some(checkpoint.version + 1);
        self.state = checkpoint;
    }

    /// Applies the files and application ids of an entry.
    pub(super) fn apply(&mut self, entry: &Entry) -> RowChange {
        let version = entry.version;
        let expected = if self.checked_from.is_some() { self.state.version + 1 } else { 0 };
        if expected < version {
            self.findings.at(version - 1, Problem::LostEntries { first: expected, last: version - 1 });
        }
        self.checked_from.get_or_insert(0);
        self.state.version = version;
        let mut change = RowChange::default();
        for remove in &entry.removes {
            match self.state.files.remove(&file_key(&remove.path)) {
                Some(rows) => change.removed += rows,
                None => self.findings.at(version, Problem::FileMismatch { file: remove.path.clone(), added: false }),
            }
        }
        for add in &entry.adds {
            if add.rows.is_none() {
                self.findings.at(version, Problem::NoRowCount { file: add.path.clone() });
            }
            let rows = add.rows.unwrap_or(0);
            change.added += rows;
            if self.state.files.insert(file_key(&add.path), rows).is_some() {
                self.findings.at(version, Problem::FileMismatch { file: add.path.clone(), added: true });
            }
        }
        for (id, number) in &entry.txns {
            self.left_out.ids.remove(id);
            self.state.txns.insert(id.clone(), *number);
        }
        if let Some(id) = &entry.table_id {
            self.state.table_id = Some(id.clone());
        }
        change
    }

    /// Checks a commit without silverd's commit info: it may rewrite rows, but not change them.
    pub(super) fn check_foreign_commit(&mut self, entry: &Entry, change: RowChange) {
        let of_log = entry.txns.iter().find(|(id, _)| LogPartition::from_app_id(id).is_some());
        if let Some((id, _)) = of_log.filter(|_| !entry.restores_progress()) {
            self.report_unreadable_info(entry.version, format!("it sets `{id}`, but has no `ranges`"));
        }
        let data_change =
            entry.adds.iter().any(|add| add.data_change) || entry.removes.iter().any(|remove| remove.data_change);
        if data_change || change.added != change.removed {
            self.foreign.add(entry, change, &mut self.findings);
            // It is one finding: the sum continues from the rows that exist.
            self.accounted += i128::from(change.added) - i128::from(change.removed);
        }
    }

    /// A rebuild of these days since the epoch, or of all, was applied.
    pub(super) fn rebuilt(&mut self, version: u64, days: Option<(i32, i32)>) {
        self.foreign.rebuilt(version, days, &self.state);
    }

    /// Reports the commits of other writers, after the last entry.
    pub(super) fn report_foreign_commits(&mut self) {
        self.foreign.report(&mut self.findings);
    }

    pub(super) fn report_unreadable_info(&mut self, version: u64, why: impl std::fmt::Display) {
        let why = format!("silverd's commit info cannot be read: {why}");
        self.findings.at(version, Problem::Unreadable { why });
    }

    /// Compares a checkpoint with the entries up to it; the last of them must be the last that was applied.
    pub(super) fn check_checkpoint(&mut self, checkpoint: &TableState) {
        let version = checkpoint.version;
        let mut compare = |what, expected: String, found: String| {
            if expected != found {
                self.findings.at(version, Problem::Checkpoint { what, expected, found });
            }
        };
        compare("files", self.state.files.len().to_string(), checkpoint.files.len().to_string());
        if checkpoint.files_without_count == 0 {
            compare("rows", self.state.rows().to_string(), checkpoint.rows().to_string());
        }
        let unknown = checkpoint.files.keys().filter(|file| !self.state.files.contains_key(file)).count();
        compare("files that no entry added", "0".to_owned(), unknown.to_string());
        let differs = |id: &&String| self.state.txns.get(*id) != checkpoint.txns.get(*id);
        if let Some(id) = checkpoint.txns.keys().find(differs) {
            compare(APPLICATION_IDS, describe_id(&self.state, id), describe_id(checkpoint, id));
        }
        let is_left_out = |id: &&String| !checkpoint.txns.contains_key(*id);
        self.left_out = LeftOut { version, ids: self.state.txns.keys().filter(is_left_out).cloned().collect() };
    }

    /// Reports an application id that a reader of the newest checkpoint does not find.
    fn report_left_out(&mut self) {
        let Some(id) = self.left_out.ids.first() else { return };
        let (expected, found) = (describe_id(&self.state, id), format!("no {id}"));
        self.findings.at(self.left_out.version, Problem::Checkpoint { what: APPLICATION_IDS, expected, found });
    }

    /// Compares the rows that all commits account for with the rows of the live files.
    pub(super) fn check_total(&mut self) {
        self.report_foreign_commits();
        self.report_left_out();
        let live = self.state.rows();
        if self.findings.errors == 0 && i128::from(live) != self.accounted {
            self.findings.add(Default::default(), Problem::Total { accounted: self.accounted, live });
        }
    }
}

fn describe_id(state: &TableState, id: &str) -> String {
    match state.txn(id) {
        Some(number) => format!("{id} at {number}"),
        None => format!("no {id}"),
    }
}
