//! When each table is maintained by a running daemon.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use silverd_core::config::Pipeline;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::error::MaintenanceError;
use super::remove_expired::remove_expired;
use super::status::{MaintenanceState, MaintenanceStatus};
use super::table::{CompleteDays, MaintainedTable};
use super::throttle::Throttle;
use crate::delta::{TableLock, TableReader};
use crate::runtime::background;
use crate::runtime::causes;
use crate::runtime::due::Schedule;
use crate::runtime::log_once::LogOnce;

/// Between two checks of a table.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// The first check waits until the daemon has started.
const FIRST_CHECK: Duration = Duration::from_secs(2);
/// New versions after which a table's files are listed for compaction.
const VERSIONS_MIN: u64 = 8;
/// A table with fewer new versions is listed after this time, since its days become complete.
const COMPACT_INTERVAL_MAX: Duration = Duration::from_secs(10 * 60);
/// Expired files are removed this often, and at least so many times within the retention.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(3 * 60 * 60);
const EXPIRIES_PER_RETENTION: u64 = 8;
const FIRST_EXPIRY: Duration = Duration::from_secs(5 * 60);
const RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// Maintains all tables of a pipeline, one at a time.
pub(crate) struct MaintenanceScheduler {
    pipeline: Pipeline,
    base_dir: PathBuf,
    tables: Vec<ScheduledTable>,
    schedule: Schedule,
    status: Arc<MaintenanceStatus>,
}

struct ScheduledTable {
    maintained: MaintainedTable,
    /// When expired files are removed.
    expiry_due: Instant,
    /// The version at the last compaction, and when that was.
    compacted: Option<(u64, Instant)>,
    state: MaintenanceState,
    last_error: LogOnce,
}

impl MaintenanceScheduler {
    pub(crate) fn new(pipeline: &Pipeline, base_dir: &Path, status: Arc<MaintenanceStatus>) -> Self {
        let now = Instant::now();
        let scheduled = |maintained| ScheduledTable {
            maintained,
            expiry_due: now + FIRST_EXPIRY,
            compacted: None,
            state: MaintenanceState::Waiting,
            last_error: LogOnce::default(),
        };
        let tables: Vec<_> = match pipeline.maintenance.enabled {
            true => MaintainedTable::all(pipeline, base_dir).into_iter().map(scheduled).collect(),
            false => Vec::new(),
        };
        tables.iter().for_each(|scheduled| status.add_table(&scheduled.maintained.name));
        let schedule = Schedule::new(tables.len(), now + FIRST_CHECK);
        Self { pipeline: pipeline.clone(), base_dir: base_dir.to_path_buf(), tables, schedule, status }
    }

    /// Starts a thread of low priority that maintains the tables until `stop`. The receiver completes when the thread
    /// has ended.
    pub(crate) fn start(self, stop: CancellationToken) -> anyhow::Result<oneshot::Receiver<()>> {
        let (ends, ended) = oneshot::channel();
        let runtime = background::handle()?;
        std::thread::Builder::new().name("maintenance".to_owned()).spawn(move || {
            background::lower_priority();
            runtime.block_on(self.run(stop));
            let _ = ends.send(());
        })?;
        Ok(ended)
    }

    async fn run(mut self, stop: CancellationToken) {
        let throttle = Throttle::background(stop.clone());
        while let Some(Some(at)) = stop.run_until_cancelled(self.schedule.next()).await {
            let result = self.maintain(at, &throttle).await;
            let interval = if result.is_ok() { CHECK_INTERVAL } else { RETRY_INTERVAL };
            self.schedule.set(at, Instant::now() + interval);
            self.report(at, result);
        }
    }

    /// Compacts a table that has enough new versions, and removes its expired files when that is due.
    async fn maintain(&mut self, at: usize, throttle: &Throttle) -> Result<(), MaintenanceError> {
        let config = &self.pipeline.maintenance;
        let scheduled = &mut self.tables[at];
        let maintained = &scheduled.maintained;
        let Some(reader) = TableReader::open(&maintained.path)? else { return Ok(()) };
        let Some(version) = reader.version().await? else { return Ok(()) };
        let now = Instant::now();
        let expiry_is_due = now >= scheduled.expiry_due;
        if !expiry_is_due && !scheduled.may_need_compaction(version) {
            return Ok(());
        }
        let Some(_lock) = TableLock::exclusive(&maintained.path)? else {
            debug!(table = %maintained.name, "a correction or another maintenance of the table is running");
            return Ok(());
        };
        let Some((mut table, mut files)) = maintained.open().await? else { return Ok(()) };
        let mut expiry = Ok(());
        if expiry_is_due {
            let removed = remove_expired(&self.pipeline, &self.base_dir, maintained, &mut table, throttle).await;
            let interval = EXPIRY_INTERVAL.min(Duration::from_millis(config.retention_ms / EXPIRIES_PER_RETENTION));
            scheduled.expiry_due = now + if removed.is_ok() { interval } else { RETRY_INTERVAL.min(interval) };
            expiry = removed.map(|(vacuumed, cleaned_up)| {
                self.status.count_removed(&maintained.name, vacuumed, cleaned_up);
            });
            files = table.files().await?;
        }
        let compacted = maintained.compact(&mut table, files, config, CompleteDays::Past, throttle).await?;
        scheduled.compacted = Some((table.version(), Instant::now()));
        self.status.count_compacted(&maintained.name, compacted);
        if compacted.compactions > 0 {
            let (files, outputs) = (compacted.files, compacted.compactions);
            debug!(table = %maintained.name, files, outputs, "compacted small files");
        }
        expiry
    }

    /// Logs a change of a table's state, and shows the state on the dashboard.
    fn report(&mut self, at: usize, result: Result<(), MaintenanceError>) {
        let any_paused = self.tables.iter().any(|scheduled| scheduled.state == MaintenanceState::Paused);
        let scheduled = &mut self.tables[at];
        let name = &scheduled.maintained.name;
        let (state, reason) = match result {
            Ok(()) => {
                if scheduled.last_error.clear() {
                    info!(table = %name, "the table is maintained again");
                }
                (MaintenanceState::Ok, None)
            }
            Err(MaintenanceError::Stopped) => return,
            Err(failure @ MaintenanceError::DiskSpaceLow { .. }) => {
                let text = failure.to_string();
                scheduled.last_error.is_new(&text);
                // The tables are usually on the same disk: one message for all of them.
                if !any_paused {
                    warn!(
                        "{text}: small files are not compacted until there is more space; old files are still removed"
                    );
                }
                (MaintenanceState::Paused, Some(text))
            }
            Err(MaintenanceError::Failed(failure)) => {
                let text = causes(&failure);
                if scheduled.last_error.is_new(&text) {
                    warn!(table = %name, "maintain the table: {text}; silverd tries again");
                }
                (MaintenanceState::Failing, Some(text))
            }
        };
        scheduled.state = state;
        self.status.set_state(name, state, reason);
    }
}

impl ScheduledTable {
    fn may_need_compaction(&self, version: u64) -> bool {
        self.compacted.is_none_or(|(compacted, when)| {
            version >= compacted + VERSIONS_MIN || (version > compacted && when.elapsed() > COMPACT_INTERVAL_MAX)
        })
    }
}
