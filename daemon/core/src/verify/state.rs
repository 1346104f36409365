//! The state of a table at a version: its files with their row counts, and the versions of its application ids.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::entry::rows_of;

/// The hash of a file's path: a table can have a hundred thousand files.
pub type FileKey = u128;

pub fn file_key(path: &str) -> FileKey {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, path).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    (half(0) << 64) | half(1)
}

/// The state of a table, from a checkpoint or from the entries of its log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TableState {
    pub version: u64,
    /// The rows of each live file.
    pub(super) files: HashMap<FileKey, u64>,
    /// Files without a row count in their statistics.
    pub(super) files_without_count: usize,
    pub(super) txns: BTreeMap<String, i64>,
    pub table_id: Option<String>,
}

impl TableState {
    pub fn at(version: u64) -> Self {
        Self { version, ..Self::default() }
    }

    /// Adds a live file of a checkpoint, with its statistics.
    pub fn add_file(&mut self, path: &str, stats: Option<&str>) {
        let rows = rows_of(stats);
        self.files_without_count += usize::from(rows.is_none());
        self.files.insert(file_key(path), rows.unwrap_or(0));
    }

    pub fn set_txn(&mut self, app_id: &str, version: i64) {
        self.txns.insert(app_id.to_owned(), version);
    }

    pub fn rows(&self) -> u64 {
        self.files.values().sum()
    }

    pub(super) fn txns(&self) -> impl Iterator<Item = (&str, i64)> {
        self.txns.iter().map(|(id, version)| (id.as_str(), *version))
    }

    pub(super) fn txn(&self, app_id: &str) -> Option<i64> {
        self.txns.get(app_id).copied()
    }
}
