//! The state of a table, as its log makes it: which files live, how many rows they have, and the versions of all
//! application ids.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::entry::{Entry, rows_of};
use super::finding::{Findings, Problem};
use crate::offsets::LogPartition;

/// A file's path, hashed: a table may have a hundred thousand of them.
pub type FileKey = u128;

/// What a checkpoint says of a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    pub version: u64,
    files: HashMap<FileKey, u64>,
    /// Files that do not tell their rows.
    uncounted: usize,
    txns: BTreeMap<String, i64>,
    pub table_id: Option<String>,
}

/// Rows that an entry moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) added: u64,
    pub(super) removed: u64,
}

/// A table's log, up to the entry that came last.
pub struct Ledger {
    pub(super) findings: Findings,
    pub(super) state: State,
    /// The first version whose entry was held against its predecessor; `None` before any.
    pub(super) proven_from: Option<u64>,
    /// Rows that the commits account for.
    pub(super) accounted: i128,
}

pub fn file_key(path: &str) -> FileKey {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, path).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    (half(0) << 64) | half(1)
}

impl State {
    pub fn at(version: u64) -> Self {
        Self { version, ..Self::default() }
    }

    /// A live file of a checkpoint, with its statistics.
    pub fn file(&mut self, path: &str, stats: Option<&str>) {
        let rows = rows_of(stats);
        self.uncounted += usize::from(rows.is_none());
        self.files.insert(file_key(path), rows.unwrap_or(0));
    }

    pub fn txn(&mut self, app_id: &str, version: i64) {
        self.txns.insert(app_id.to_owned(), version);
    }

    pub fn rows(&self) -> u64 {
        self.files.values().sum()
    }

    pub fn files(&self) -> usize {
        self.files.len()
    }

    pub(super) fn txns(&self) -> impl Iterator<Item = (&str, i64)> {
        self.txns.iter().map(|(id, version)| (id.as_str(), *version))
    }

    pub(super) fn version_of(&self, app_id: &str) -> Option<i64> {
        self.txns.get(app_id).copied()
    }
}

impl Ledger {
    pub(super) fn new(table: &str) -> Self {
        let findings = Findings::of(table);
        Self { findings, state: State::default(), proven_from: None, accounted: 0 }
    }

    /// Begins behind a checkpoint, whose entries are gone.
    pub(super) fn begin(&mut self, state: State) {
        if state.uncounted > 0 {
            let file = format!("{} files of the checkpoint", state.uncounted);
            self.findings.at(state.version, Problem::Uncounted { file });
        }
        self.accounted = i128::from(state.rows());
        self.proven_from = Some(state.version + 1);
        self.state = state;
    }

    /// Takes an entry's files and application ids in, and tells what cannot be.
    pub(super) fn enter(&mut self, entry: &Entry) -> Moved {
        let version = entry.version;
        let expected = if self.proven_from.is_some() { self.state.version + 1 } else { 0 };
        if expected < version {
            self.findings.at(version - 1, Problem::LostEntries { first: expected, last: version - 1 });
        }
        self.proven_from.get_or_insert(0);
        self.state.version = version;
        let mut moved = Moved::default();
        for remove in &entry.removes {
            match self.state.files.remove(&file_key(&remove.path)) {
                Some(rows) => moved.removed += rows,
                None => self.findings.at(version, Problem::FileTwice { file: remove.path.clone(), added: false }),
            }
        }
        for add in &entry.adds {
            if add.rows.is_none() {
                self.findings.at(version, Problem::Uncounted { file: add.path.clone() });
            }
            let rows = add.rows.unwrap_or(0);
            moved.added += rows;
            if self.state.files.insert(file_key(&add.path), rows).is_some() {
                self.findings.at(version, Problem::FileTwice { file: add.path.clone(), added: true });
            }
        }
        for (id, number) in &entry.txns {
            self.state.txns.insert(id.clone(), *number);
        }
        if let Some(id) = &entry.table_id {
            self.state.table_id = Some(id.clone());
        }
        moved
    }

    /// A commit that says nothing of itself in silverd's words: it may write rows anew, and change none.
    pub(super) fn stranger(&mut self, entry: &Entry, moved: Moved) {
        if let Some((id, _)) = entry.txns.iter().find(|(id, _)| LogPartition::from_app_id(id).is_some()) {
            self.garbled(entry.version, format!("it moves `{id}`, and tells no `ranges`"));
        }
        let data =
            entry.adds.iter().any(|add| add.data_change) || entry.removes.iter().any(|remove| remove.data_change);
        if data || moved.added != moved.removed {
            let Moved { added, removed } = moved;
            self.findings.at(entry.version, Problem::Stranger { added, removed });
            // Told once, here; the sums go on from what is there.
            self.accounted += i128::from(added) - i128::from(removed);
        }
    }

    pub(super) fn garbled(&mut self, version: u64, why: impl std::fmt::Display) {
        let why = format!("what silverd left in the commit's info cannot be read: {why}");
        self.findings.at(version, Problem::Unreadable { why });
    }

    /// Holds a checkpoint against the entries up to it, which must be those that came last.
    pub(super) fn compare(&mut self, checkpoint: &State) {
        let version = checkpoint.version;
        let mut tell = |what, expected: String, found: String| {
            if expected != found {
                self.findings.at(version, Problem::Checkpoint { what, expected, found });
            }
        };
        tell("files", self.state.files().to_string(), checkpoint.files().to_string());
        if checkpoint.uncounted == 0 {
            tell("rows", self.state.rows().to_string(), checkpoint.rows().to_string());
        }
        let strange = checkpoint.files.keys().filter(|file| !self.state.files.contains_key(file)).count();
        tell("files of its own", "0".to_owned(), strange.to_string());
        let differ = |id: &&String| self.state.txns.get(*id) != checkpoint.txns.get(*id);
        if let Some(id) = self.state.txns.keys().chain(checkpoint.txns.keys()).find(differ) {
            let told = |state: &State| format!("{id} at {:?}", state.version_of(id));
            tell("application ids", told(&self.state), told(checkpoint));
        }
    }

    /// The sum over all: what the commits account for stands in the live files.
    pub(super) fn total(&mut self) {
        let live = self.state.rows();
        if self.findings.errors == 0 && i128::from(live) != self.accounted {
            self.findings.add(Default::default(), Problem::Total { accounted: self.accounted, live });
        }
    }
}
