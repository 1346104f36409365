//! What the dashboard, the API and the metrics show of the Gold tables.

use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use silverd_core::config::{Gold, Pipeline};

use super::model::Refreshed;
use crate::runtime::clock;
use crate::sql::QueryError;

/// The state of all Gold tables, shared with the dashboard.
#[derive(Default)]
pub(crate) struct GoldStatus(Mutex<Vec<GoldTable>>);

#[derive(Clone, Debug, Serialize)]
pub(crate) struct GoldTable {
    pub name: String,
    pub path: String,
    pub refresh_ms: u64,
    pub state: GoldState,
    /// Why it fails, or what it waits for.
    pub reason: Option<String>,
    pub version: Option<u64>,
    /// Rows of the days that the last refresh computed, and the number of these days.
    pub rows: u64,
    pub days: usize,
    /// Milliseconds since the epoch; `None` before the first refresh.
    pub refreshed_at_ms: Option<i64>,
    pub took_ms: u64,
    pub commits: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GoldState {
    /// A source has no rows yet.
    Waiting,
    /// Up to date.
    Ok,
    /// Days are still to be computed.
    CatchingUp,
    Failing,
}

impl fmt::Display for GoldState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiting => "waiting",
            Self::Ok => "ok",
            Self::CatchingUp => "catching up",
            Self::Failing => "failing",
        })
    }
}

impl GoldStatus {
    pub(crate) fn new(pipeline: &Pipeline) -> Self {
        Self(Mutex::new(pipeline.gold.iter().map(GoldTable::new).collect()))
    }

    pub(crate) fn tables(&self) -> Vec<GoldTable> {
        self.0.lock().clone()
    }

    /// Takes in the result of a refresh of the table at index `at` in pipeline.toml.
    pub(super) fn update(&self, at: usize, result: Result<Refreshed, QueryError>, took: Duration) {
        if let Some(table) = self.0.lock().get_mut(at) {
            table.update(result, took);
        }
    }
}

impl GoldTable {
    fn new(gold: &Gold) -> Self {
        Self {
            name: gold.name.to_string(),
            path: gold.path.value.clone(),
            refresh_ms: gold.refresh_ms,
            state: GoldState::Waiting,
            reason: None,
            version: None,
            rows: 0,
            days: 0,
            refreshed_at_ms: None,
            took_ms: 0,
            commits: 0,
        }
    }

    fn update(&mut self, result: Result<Refreshed, QueryError>, took: Duration) {
        match result {
            Ok(refreshed) => {
                let pending = refreshed.pending;
                self.state = if pending > 0 { GoldState::CatchingUp } else { GoldState::Ok };
                self.reason = (pending > 0).then(|| format!("{pending} days to compute"));
                self.refreshed_at_ms = Some(clock::now_ms());
                if let Some(version) = refreshed.committed {
                    self.version = Some(version);
                    self.commits += 1;
                    (self.rows, self.days) = (refreshed.rows, refreshed.days);
                    self.took_ms = took.as_millis() as u64;
                }
            }
            Err(waiting @ QueryError::NotWritten(_)) => {
                self.state = GoldState::Waiting;
                self.reason = Some(waiting.to_string());
            }
            Err(failure) => {
                self.state = GoldState::Failing;
                self.reason = Some(failure.to_string());
            }
        }
    }
}
