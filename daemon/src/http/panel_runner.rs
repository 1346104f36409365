//! Runs the queries of the dashboard one at a time, and only while a client needs them: the panels, the newest rejected
//! events, and the sizes of the tables.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use silverd_core::config::Panel;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::event_broadcast::EventBroadcast;
use super::health::{TableSize, TableSizes};
use super::panel_result::PanelResult;
use super::rejects;
use crate::delta::{TableReader, list_files};
use crate::runtime::due::{Schedule, rest};
use crate::runtime::log_once::LogOnce;
use crate::sql::{PanelQueries, QueryError, ResultLimits, Tables};

const PANEL_LIMITS: ResultLimits = ResultLimits { rows: 500, characters: 4096 };
/// A slow query runs less often, for at most a fifth of the time.
const REST_FACTOR: u32 = 4;
const REJECTS_INTERVAL: Duration = Duration::from_secs(2);
const SIZES_INTERVAL: Duration = Duration::from_secs(30);
/// How often the schedule is checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

pub(crate) struct PanelRunner {
    events: Arc<EventBroadcast>,
    tables: Tables,
    queries: PanelQueries,
    table_sizes: Arc<Mutex<TableSizes>>,
    panels: Vec<RunningPanel>,
    /// The version of the quarantine that was published.
    quarantine_version: Option<u64>,
    quarantine_error: LogOnce,
    /// One job for each panel, then the rejected events, then the sizes.
    schedule: Schedule,
}

struct RunningPanel {
    panel: Panel,
    last_error: LogOnce,
}

impl PanelRunner {
    pub(super) fn new(
        events: Arc<EventBroadcast>,
        panels: Vec<Panel>,
        tables: Tables,
        queries: PanelQueries,
        table_sizes: Arc<Mutex<TableSizes>>,
    ) -> Self {
        let running = |panel| RunningPanel { panel, last_error: LogOnce::default() };
        let panels: Vec<_> = panels.into_iter().map(running).collect();
        let schedule = Schedule::new(panels.len() + 2, Instant::now());
        Self {
            events,
            tables,
            queries,
            table_sizes,
            panels,
            quarantine_version: None,
            quarantine_error: LogOnce::default(),
            schedule,
        }
    }

    /// Runs until `ended`.
    pub(crate) async fn run(mut self, ended: CancellationToken) {
        let _ = ended.run_until_cancelled(self.run_jobs()).await;
    }

    async fn run_jobs(&mut self) {
        loop {
            if !self.events.is_in_use() {
                self.queries.pause();
            }
            self.events.in_use().await;
            for job in self.schedule.take_due(Instant::now()) {
                let started = Instant::now();
                let interval = self.run_job(job).await;
                let pause = rest(interval, started.elapsed(), REST_FACTOR);
                self.schedule.set(job, Instant::now() + pause);
            }
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
    }

    /// Gives the interval of the job.
    async fn run_job(&mut self, job: usize) -> Duration {
        if job < self.panels.len() {
            self.run_panel(job).await
        } else if job == self.panels.len() {
            self.publish_rejects().await;
            REJECTS_INTERVAL
        } else {
            self.read_sizes().await;
            SIZES_INTERVAL
        }
    }

    async fn run_panel(&mut self, position: usize) -> Duration {
        let RunningPanel { panel, last_error } = &mut self.panels[position];
        let started = Instant::now();
        let result = self.queries.rows(&panel.sql, PANEL_LIMITS).await;
        log_change(last_error, &format!("run the query of [panel.{}]", panel.name), &result);
        self.events.publish("panel", &panel.name, &PanelResult::new(panel, position, result, started.elapsed()));
        Duration::from_millis(panel.refresh_ms)
    }

    /// Publishes the rejected events if the quarantine has a new version. Other processes write to it, too: a replay.
    async fn publish_rejects(&mut self) {
        let result = rejects::read(&self.tables, &mut self.queries, self.quarantine_version).await;
        log_change(&mut self.quarantine_error, "read the quarantine for the dashboard", &result);
        if let Ok(Some((version, rejects))) = result {
            self.events.publish("rejects", "", &rejects);
            self.quarantine_version = Some(version);
        }
    }

    async fn read_sizes(&mut self) {
        let mut sizes = TableSizes::new();
        for name in self.tables.names() {
            if let Some(size) = size_of(&self.tables, name).await {
                sizes.insert(name.to_owned(), size);
            }
        }
        *self.table_sizes.lock() = sizes;
    }
}

/// `None` for a table that does not exist yet, or that cannot be read.
async fn size_of(tables: &Tables, name: &str) -> Option<TableSize> {
    let reader = TableReader::open(tables.path(name)?).ok()??;
    let files = list_files(reader.log()).await.ok()?;
    Some(TableSize { files: files.len() as u64, bytes: files.iter().map(|file| file.size).sum() })
}

/// Logs the first of equal errors, and the first success after an error.
fn log_change<T>(last_error: &mut LogOnce, action: &str, result: &Result<T, QueryError>) {
    match result {
        Ok(_) if last_error.clear() => info!("{action}: works again"),
        Ok(_) | Err(QueryError::NotWritten(_)) => {}
        Err(error) => {
            let text = error.to_string();
            if last_error.is_new(&text) {
                warn!("{action}: {text}");
            }
        }
    }
}
