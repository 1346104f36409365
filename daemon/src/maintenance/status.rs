//! What the dashboard, the API and the metrics show of table maintenance.

use std::fmt;

use parking_lot::Mutex;
use serde::Serialize;

use super::compact::Compacted;
use super::log_cleanup::CleanedUp;
use super::vacuum::Vacuumed;

/// The maintenance of all tables, shared with the dashboard.
#[derive(Default)]
pub(crate) struct MaintenanceStatus(Mutex<Vec<TableMaintenance>>);

/// The maintenance of one table since the start of silverd.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct TableMaintenance {
    pub table: String,
    pub state: MaintenanceState,
    /// Why it is paused or fails.
    pub reason: Option<String>,
    pub compactions: u64,
    pub files_compacted: u64,
    pub bytes_compacted: u64,
    pub files_removed: u64,
    pub bytes_removed: u64,
    /// Commits and checkpoints.
    pub log_files_removed: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MaintenanceState {
    /// Not maintained yet.
    #[default]
    Waiting,
    Ok,
    /// The disk is too full to compact files.
    Paused,
    Failing,
}

impl MaintenanceState {
    /// False while small files are not compacted or old files are not removed.
    pub(crate) fn is_up(self) -> bool {
        matches!(self, Self::Waiting | Self::Ok)
    }
}

impl fmt::Display for MaintenanceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiting => "waiting",
            Self::Ok => "ok",
            Self::Paused => "paused",
            Self::Failing => "failing",
        })
    }
}

impl MaintenanceStatus {
    pub(crate) fn tables(&self) -> Vec<TableMaintenance> {
        self.0.lock().clone()
    }

    pub(super) fn add_table(&self, table: &str) {
        self.update(table, |_| {});
    }

    pub(super) fn set_state(&self, table: &str, state: MaintenanceState, reason: Option<String>) {
        self.update(table, |shown| (shown.state, shown.reason) = (state, reason));
    }

    pub(super) fn count_compacted(&self, table: &str, compacted: Compacted) {
        self.update(table, |shown| {
            shown.compactions += compacted.compactions;
            shown.files_compacted += compacted.files;
            shown.bytes_compacted += compacted.bytes;
        });
    }

    pub(super) fn count_removed(&self, table: &str, vacuumed: Vacuumed, cleaned_up: CleanedUp) {
        self.update(table, |shown| {
            shown.files_removed += vacuumed.files;
            shown.bytes_removed += vacuumed.bytes + cleaned_up.bytes;
            shown.log_files_removed += cleaned_up.entries + cleaned_up.checkpoints;
        });
    }

    fn update(&self, table: &str, update: impl FnOnce(&mut TableMaintenance)) {
        let mut tables = self.0.lock();
        let at = tables.iter().position(|shown| shown.table == table).unwrap_or_else(|| {
            tables.push(TableMaintenance { table: table.to_owned(), ..TableMaintenance::default() });
            tables.len() - 1
        });
        update(&mut tables[at]);
    }
}
