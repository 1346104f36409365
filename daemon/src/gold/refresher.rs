//! Refreshes the Gold tables when they are due.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use silverd_core::config::{Gold, Pipeline};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::days::name_in_queries;
use super::model::{Definition, Refreshed};
use super::process::GoldProcess;
use super::status::GoldStatus;
use crate::runtime::due::{Schedule, rest};
use crate::runtime::log_once::LogOnce;
use crate::sql::{QueryError, Tables};
use crate::telemetry::spans;

/// A slow table is refreshed less often: at most a tenth of the time is spent on it.
const REST_FACTOR: u32 = 9;
/// A failed refresh is tried again no sooner than this.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// Between two checks whether a source has been written.
const WAITING_INTERVAL: Duration = Duration::from_secs(1);

/// Refreshes all Gold tables, one at a time.
pub(crate) struct GoldRefresher {
    models: Vec<ScheduledModel>,
    schedule: Schedule,
    process: GoldProcess,
    status: Arc<GoldStatus>,
}

struct ScheduledModel {
    definition: Definition,
    refresh_interval: Duration,
    last_error: LogOnce,
}

impl GoldRefresher {
    pub(crate) fn new(pipeline: &Pipeline, base_dir: &Path, tables: &Tables, status: Arc<GoldStatus>) -> Self {
        let scheduled = |gold: &Gold| ScheduledModel {
            definition: Definition {
                name: name_in_queries(gold),
                path: base_dir.join(&*gold.path),
                sql: gold.sql.value.clone(),
                lookback_days: gold.lookback_days,
                time_zone: gold.time_zone,
                day_status: base_dir.join(&*pipeline.days.path),
            },
            refresh_interval: Duration::from_millis(gold.refresh_ms),
            last_error: LogOnce::default(),
        };
        let models: Vec<_> = pipeline.gold.iter().map(scheduled).collect();
        let schedule = Schedule::new(models.len(), Instant::now());
        Self { models, schedule, process: GoldProcess::new(tables, &pipeline.sql_limits), status }
    }

    /// Refreshes what is due until `finish`, then brings every table up to date once more.
    pub(crate) async fn run(mut self, finish: CancellationToken) {
        while let Some(Some(at)) = finish.run_until_cancelled(self.schedule.next()).await {
            self.refresh(at).await;
        }
        for at in 0..self.models.len() {
            while self.refresh(at).await {}
        }
    }

    /// Refreshes a table and schedules the next refresh; true if days are still to be computed.
    async fn refresh(&mut self, at: usize) -> bool {
        let scheduled = &mut self.models[at];
        let started = Instant::now();
        let span = spans::gold_refresh(&scheduled.definition.name);
        let result = spans::record(span, self.process.refresh(&scheduled.definition)).await;
        let took = started.elapsed();
        let is_pending = matches!(&result, Ok(refreshed) if refreshed.pending > 0);
        let pause = match &result {
            Ok(_) if is_pending => took,
            Ok(_) => rest(scheduled.refresh_interval, took, REST_FACTOR),
            Err(QueryError::NotWritten(_)) => WAITING_INTERVAL,
            Err(_) => scheduled.refresh_interval.max(RETRY_INTERVAL),
        };
        self.schedule.set(at, Instant::now() + pause);
        scheduled.log_change(&result);
        self.status.update(at, result, took);
        is_pending
    }
}

impl ScheduledModel {
    fn log_change(&mut self, result: &Result<Refreshed, QueryError>) {
        let name = &self.definition.name;
        match result {
            Ok(refreshed) => {
                if self.last_error.clear() {
                    info!(table = %name, "the Gold table is refreshed again");
                }
                debug!(table = %name, days = refreshed.days, rows = refreshed.rows, "refreshed");
            }
            Err(QueryError::NotWritten(_)) => {}
            Err(failure) => {
                let text = failure.to_string();
                if self.last_error.is_new(&text) {
                    warn!(table = %name, "refresh the Gold table: {text}; silverd tries again");
                }
            }
        }
    }
}
