//! What the metrics and the dashboard show of the days.

use parking_lot::Mutex;
use serde::Serialize;

/// Shared with the dashboard.
#[derive(Default)]
pub(crate) struct DaysStatus(Mutex<Vec<LastFinalDay>>);

/// The newest final day of a table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct LastFinalDay {
    pub(crate) table: String,
    pub(crate) event_date: String,
    /// When the day ended, in milliseconds since the epoch.
    pub(crate) ended_at_ms: i64,
}

impl DaysStatus {
    pub(crate) fn last_final_days(&self) -> Vec<LastFinalDay> {
        self.0.lock().clone()
    }

    pub(super) fn set(&self, days: Vec<LastFinalDay>) {
        *self.0.lock() = days;
    }
}
