//! A copy of a project's tables, to tamper with.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::copy_folder;
use super::log_entries::actions;
use super::project::table_path;

pub struct TableCopy(tempfile::TempDir);

impl TableCopy {
    pub fn of(folder: &Path) -> Self {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(folder, copy.path());
        Self(copy)
    }

    pub fn folder(&self) -> &Path {
        self.0.path()
    }

    pub fn path(&self, table: &str) -> PathBuf {
        self.0.path().join(table_path(table))
    }

    /// The file of a log entry.
    pub fn entry(&self, table: &str, version: u64) -> PathBuf {
        self.path(table).join(format!("_delta_log/{version:020}.json"))
    }

    /// The newest version of a table.
    pub fn last(&self, table: &str) -> u64 {
        (0..).find(|version| !self.entry(table, version + 1).exists()).unwrap()
    }

    /// The actions of a log entry.
    pub fn actions(&self, table: &str, version: u64) -> Vec<Value> {
        actions(&self.entry(table, version))
    }

    pub fn write_actions(&self, table: &str, version: u64, actions: &[Value]) {
        let text: String = actions.iter().map(|action| format!("{action}\n")).collect();
        std::fs::write(self.entry(table, version), text).unwrap();
    }

    /// Changes the actions of a log entry.
    pub fn edit(&self, table: &str, version: u64, edit: impl Fn(&mut Value)) {
        let mut actions = self.actions(table, version);
        let before = actions.clone();
        actions.iter_mut().for_each(edit);
        assert_ne!(actions, before, "nothing was changed in version {version} of {table}");
        self.write_actions(table, version, &actions);
    }
}
