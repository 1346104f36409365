//! Silver: one worker for each table, off Bronze's path. A worker that keeps up takes its chunks from Kafka's flow; one
//! that does not (a slow plugin, a failing one, a new table) skips them and reads the same offsets from Bronze.
//!
//! ```text
//!                    ┌── a chunk that continues the table ──┐
//!   chunk of Kafka ──┤                                      ├─▶ transform ─▶ dedup ─▶ encode ─▶ wait for Bronze ─▶ commit
//!                    └── a gap: skip it                     │
//!   Bronze ──────────── the next window of what is missing ─┘
//!
//!   any error: close the table, wait, open it again; its log says where to continue
//! ```
//!
//! A commit to a day that was called final waits until the day is called provisional (`day_status/`).

mod canary;
mod open_table;
mod plugin_slot;
mod plugin_swap;
mod rollback;
mod step;
mod step_error;
mod worker_task;
mod write;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Context;
use deltalake_core::logstore::LogStoreRef;
use parking_lot::Mutex;
use silverd_core::chunk::Chunk;
use silverd_core::config::{Limits, Pipeline, Reload, SilverTable, TableName};
use silverd_core::offsets::Offsets;
use silverd_core::route::Router;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{Span, info, warn};

use crate::day_status::DayLedger;
use crate::plugin::{Host, Loaded};
use crate::reload::{DesiredVersion, PendingVersion, PluginLoader, PluginReloader};
use crate::runtime::file_watch::FileWatch;
use crate::runtime::log_once::LogOnce;
use crate::runtime::machine;
use crate::runtime::worker_thread::WorkerThread;
use crate::tables::event_progress::EventProgress;
use crate::tables::recent_rows::RecentRows;
use crate::tables::side_output::SideOutput;
use crate::tables::writer_state::WriterStateCell;
use crate::telemetry::{Stages, TableStats};

use plugin_slot::PluginSlot;
use step_error::StepError;
use worker_task::{Inbox, WorkerReport, WorkerTask};

/// Whether Bronze has committed a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BronzeCommit {
    Pending,
    Committed,
    /// It never will be: another silverd writes its partitions, or silverd stops.
    Aborted,
}

/// A chunk from Kafka, with the records that belong to one table.
#[derive(Clone)]
pub struct ChunkForTable {
    pub chunk: Arc<Chunk>,
    pub records: Arc<[u32]>,
    pub bronze_commit: watch::Receiver<BronzeCommit>,
    /// The chunk's span, the parent of the table's.
    pub span: Span,
}

/// What all workers share.
#[derive(Clone)]
pub struct WorkerContext {
    pub host: Arc<Host>,
    pub loaded: Loaded,
    pub pipeline: Arc<Pipeline>,
    pub limits: Limits,
    /// Reports new plugin versions; `None`: the loaded version stays.
    pub watch: Option<FileWatch>,
    /// Build the plugin's sources if they are newer than the version that serves first: at the start of silverd.
    pub builds_sources: bool,
    /// Start with the newest build, whatever version filled the table before: pipeline.toml names another plugin, and was
    /// checked with that build.
    pub ignore_kept_plugin: bool,
    pub quarantine: Arc<SideOutput>,
    /// Where late events are listed.
    pub late: Option<Arc<SideOutput>>,
    /// Says which days are final; `None`: nothing does.
    pub days: Option<Arc<DayLedger>>,
    pub bronze: LogStoreRef,
    /// Up to where Bronze has committed each log partition.
    pub committed_offsets: watch::Receiver<Offsets>,
    pub rows_max: usize,
    pub bytes_max: usize,
    pub stages: Arc<Stages>,
    /// Gets the rows of every commit, for the dashboard.
    pub recent_rows: Arc<RecentRows>,
    /// The folder of pipeline.toml, from which its paths count.
    pub base_dir: PathBuf,
}

impl WorkerContext {
    pub fn side_outputs(&self) -> impl Iterator<Item = &Arc<SideOutput>> {
        std::iter::once(&self.quarantine).chain(&self.late)
    }
}

/// A table's worker, as the pipeline sees it.
pub struct Worker {
    pub name: TableName,
    pub stats: Arc<TableStats>,
    pub state: WriterStateCell,
    pub progress: EventProgress,
    chunks: mpsc::Sender<ChunkForTable>,
    is_live: Arc<AtomicBool>,
    thread: WorkerThread<StepError>,
    desired: watch::Sender<DesiredVersion>,
    reloader: Option<tokio::task::JoinHandle<()>>,
}

/// Chunks that wait for a worker. One: a chunk that does not fit is read from Bronze.
const CHUNKS_WAITING_MAX: usize = 1;
/// How long the pipeline waits, once, for a live worker that falls behind.
const ROOM_TIMEOUT: Duration = Duration::from_secs(2);

impl Worker {
    /// Starts once `before` is over: the worker that has filled the table until now.
    pub fn start(
        table: &SilverTable,
        context: WorkerContext,
        before: impl Future<Output = ()> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let (sender, chunks) = mpsc::channel(CHUNKS_WAITING_MAX);
        let (stats, state) = (Arc::<TableStats>::default(), WriterStateCell::default());
        let progress = EventProgress::default();
        let (shutdown_now, is_live) = (CancellationToken::new(), Arc::<AtomicBool>::default());
        let pending = Arc::<PendingVersion>::default();
        let desired = DesiredVersion { table: table.clone(), reload: context.pipeline.reload.clone() };
        let (desired, asked) = watch::channel(desired);
        let reloader = context.watch.clone().map(|watch| {
            let loader = PluginLoader {
                host: context.host.clone(),
                limits: context.limits.clone(),
                bronze: context.bronze.clone(),
                base_dir: context.base_dir.clone(),
            };
            let (desired, pending, stats) = (asked, pending.clone(), stats.clone());
            let builds_sources = context.builds_sources;
            let logged = Mutex::default();
            machine::spawn(PluginReloader { desired, pending, stats, loader, watch, builds_sources, logged }.run())
        });
        let serving = context.host.serving.as_ref().and_then(|serving| {
            let record = serving.record(&table.name);
            record.inspect_err(|error| warn!(table = %table.name, "say which version serves: {error:#}")).ok()
        });
        let task = WorkerTask {
            config: table.clone(),
            router: Router::new(std::slice::from_ref(table)),
            context,
            inbox: Inbox { chunks, is_live: is_live.clone(), shutdown_now: shutdown_now.clone() },
            plugin: PluginSlot::new(pending),
            report: WorkerReport {
                stats: stats.clone(),
                state: state.clone(),
                progress: progress.clone(),
                last_error: LogOnce::default(),
            },
            serving,
            table: None,
        };
        let work = move || async move {
            before.await;
            task.run().await
        };
        let name = table.name.clone();
        let thread = WorkerThread::spawn(format!("silver-{name}"), format!("table {name}"), shutdown_now, work)?;
        Ok(Self { name, stats, state, progress, chunks: sender, is_live, thread, desired, reloader })
    }

    /// Sends a chunk. A worker without room finds it in Bronze, at the cost of decoding it; so while Kafka holds more than
    /// Bronze can write, a live worker is waited for. Bronze writes its own chunk meanwhile.
    ///
    /// | room | backlog | live | |
    /// |---|---|---|---|
    /// | yes | | | the worker takes the chunk |
    /// | no | no | | the chunk is skipped |
    /// | no | yes | no | the chunk is skipped |
    /// | no | yes | yes | `ROOM_TIMEOUT` for room; then the chunk is skipped, and the worker is live again once it has caught up |
    pub async fn send(&self, chunk: ChunkForTable, backlog: bool) {
        let Err(TrySendError::Full(chunk)) = self.chunks.try_send(chunk) else { return };
        if backlog && self.is_live.load(Relaxed) {
            let sent = tokio::time::timeout(ROOM_TIMEOUT, self.chunks.send(chunk)).await;
            self.is_live.fetch_and(sent.is_ok(), Relaxed);
        }
    }

    /// Asks for another plugin, or for other settings of it. The table is the same otherwise.
    pub fn set_desired_version(&self, table: &SilverTable, reload: &Reload) {
        let desired = DesiredVersion { table: table.clone(), reload: reload.clone() };
        self.desired.send_if_modified(|current| {
            let differs = *current != desired;
            *current = desired;
            differs
        });
    }

    /// Ends after the step at hand, and leaves the rest to the worker that replaces it.
    pub async fn replace(self) {
        let name = self.name.clone();
        self.thread.shut_down_now();
        if let Err(failure) = self.finish(Duration::ZERO, CancellationToken::new()).await {
            info!(table = %name, "{failure:#}");
        }
    }

    /// Lets the worker read Bronze to its end, or as far as it gets within `timeout` (after `stop`: within ten seconds),
    /// and ends it.
    pub async fn finish(self, timeout: Duration, stop: CancellationToken) -> anyhow::Result<()> {
        drop(self.chunks);
        if let Some(reloader) = self.reloader {
            reloader.abort();
        }
        let ended = self.thread.finish(timeout, stop).await;
        ended.with_context(|| format!("fill table {}", self.name))
    }
}
