//! The Silver workers of a pipeline, their side outputs, the writer of unrouted events, and how all follow
//! pipeline.toml.

use std::collections::BTreeMap;
use std::future::ready;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use silverd_core::config::diff::{Changes, TableChange};
use silverd_core::config::{Pipeline, SilverTable, TableName};
use silverd_core::route::Router;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::options::RunOptions;
use super::status::{RunState, Status};
use super::unrouted::{Unrouted, UnroutedWriter};
use crate::bronze::Bronze;
use crate::plugin::Loaded;
use crate::silver::{Worker, WorkerContext};
use crate::source::{CutLogs, FirstTopics, HighWatermarks, SourceProblems};
use crate::tables::side_output::SideOutput;
use crate::tables::{late, quarantine};
use crate::telemetry::Stages;

/// One worker for each Silver table, in the order of pipeline.toml.
pub struct SilverWorkers {
    pub pipeline: Arc<Pipeline>,
    pub router: Router,
    pub workers: Vec<Worker>,
    pub status: Arc<Status>,
    pub high_watermarks: Arc<HighWatermarks>,
    pub source_problems: Arc<SourceProblems>,
    pub first_topics: Arc<FirstTopics>,
    pub cut_logs: Arc<CutLogs>,
    pub stages: Arc<Stages>,
    side_outputs: SideOutputs,
    unrouted: Arc<Unrouted>,
    pub(super) unrouted_writer: UnroutedWriter,
    /// Workers of tables that were removed from pipeline.toml.
    stopping: JoinSet<()>,
}

/// The tables that all workers write besides their own.
pub struct SideOutputs {
    quarantine: Arc<SideOutput>,
    late: Option<Arc<SideOutput>>,
}

/// What a change of pipeline.toml takes.
pub enum Applied {
    InPlace,
    RestartSource,
    RestartAll,
}

impl SilverWorkers {
    pub async fn start(
        options: &RunOptions,
        pipeline: Arc<Pipeline>,
        bronze: &Bronze,
        stages: &Arc<Stages>,
    ) -> anyhow::Result<Self> {
        let side_outputs = SideOutputs::open(&options.base_dir, &pipeline).await?;
        let (high_watermarks, unrouted) = (Arc::<HighWatermarks>::default(), Arc::<Unrouted>::default());
        let (quarantine, source_problems) = (&side_outputs.quarantine, Arc::<SourceProblems>::default());
        let (ends, problems) = (high_watermarks.clone(), source_problems.clone());
        let status = Status::new(bronze, quarantine, &[], ends, problems, stages.clone(), unrouted.clone());
        let unrouted_writer = UnroutedWriter::start(&pipeline, quarantine, bronze, stages).await?;
        let mut workers = Self {
            router: Router::new(&pipeline.silver),
            pipeline,
            workers: Vec::new(),
            status: Arc::new(status),
            high_watermarks,
            source_problems,
            first_topics: Arc::default(),
            cut_logs: Arc::default(),
            stages: stages.clone(),
            side_outputs,
            unrouted,
            unrouted_writer,
            stopping: JoinSet::new(),
        };
        let context = workers.context(options, bronze, options.loaded.clone());
        let context = WorkerContext { builds_sources: true, ..context };
        let start = |table| Worker::start(table, context.clone(), ready(()));
        workers.workers = workers.pipeline.silver.iter().map(start).collect::<anyhow::Result<_>>()?;
        workers.publish_status(options, bronze);
        Ok(workers)
    }

    fn context(&self, options: &RunOptions, bronze: &Bronze, loaded: Loaded) -> WorkerContext {
        WorkerContext {
            host: options.host.clone(),
            loaded,
            pipeline: self.pipeline.clone(),
            limits: self.pipeline.limits.clone(),
            watch: options.watch.clone(),
            builds_sources: false,
            ignore_kept_plugin: false,
            quarantine: self.side_outputs.quarantine.clone(),
            late: self.side_outputs.late.clone(),
            days: options.days.clone(),
            bronze: bronze.log(),
            committed_offsets: bronze.committed_offsets(),
            rows_max: self.pipeline.commit.rows_max,
            bytes_max: self.pipeline.commit.bytes_max,
            stages: self.stages.clone(),
            recent_rows: options.recent_rows.clone(),
            base_dir: options.base_dir.clone(),
        }
    }

    fn publish_status(&mut self, options: &RunOptions, bronze: &Bronze) {
        let (ends, problems) = (self.high_watermarks.clone(), self.source_problems.clone());
        let (quarantine, stages, unrouted) =
            (&self.side_outputs.quarantine, self.stages.clone(), self.unrouted.clone());
        let status = Status::new(bronze, quarantine, &self.workers, ends, problems, stages, unrouted);
        self.status = Arc::new(status);
        options.status.send_replace(RunState::Running(self.status.clone()));
    }

    /// The workers, each with the records that the router found for its table.
    pub fn with_records<R: Clone>(&self, routes: &[R]) -> impl Iterator<Item = (&Worker, R)> {
        let tables = self.pipeline.silver.iter().zip(routes);
        tables.filter_map(|(table, records)| {
            let worker = self.workers.iter().find(|worker| worker.name == table.name)?;
            Some((worker, records.clone()))
        })
    }

    /// Applies another pipeline, and says what the caller must restart. Workers whose tables did not change keep running.
    pub async fn apply_config(&mut self, options: &RunOptions, pipeline: Arc<Pipeline>, bronze: &Bronze) -> Applied {
        let changes = Changes::between(&self.pipeline, &pipeline);
        if changes.all {
            return Applied::RestartAll;
        }
        if self.side_outputs.late.is_none() {
            match SideOutputs::open_late(&options.base_dir, &pipeline).await {
                Ok(late) => self.side_outputs.late = late,
                Err(failure) => {
                    error!("pipeline.toml: {failure:#}. Nothing was changed: the previous pipeline keeps running");
                    return Applied::InPlace;
                }
            }
        }
        let before = std::mem::replace(&mut self.pipeline, pipeline);
        self.router = Router::new(&self.pipeline.silver);
        self.unrouted_writer.set_routing(&self.pipeline);
        self.update_workers(options, bronze, &before, &changes);
        self.publish_status(options, bronze);
        if changes.source { Applied::RestartSource } else { Applied::InPlace }
    }

    fn update_workers(&mut self, options: &RunOptions, bronze: &Bronze, old: &Pipeline, changes: &Changes) {
        let context = self.context(options, bronze, Loaded::new());
        let mut before: BTreeMap<TableName, Worker> =
            std::mem::take(&mut self.workers).into_iter().map(|worker| (worker.name.clone(), worker)).collect();
        for table in &self.pipeline.silver {
            let worker = match (before.remove(&table.name), changes.of(&table.name)) {
                (Some(worker), Some(TableChange::Restarted)) => {
                    let same = |was: &SilverTable| was.name == table.name && was.transform == table.transform;
                    let ignore_kept_plugin = !old.silver.iter().any(same);
                    let context = WorkerContext { ignore_kept_plugin, ..context.clone() };
                    Worker::start(table, context, worker.replace())
                }
                (Some(worker), _) => {
                    worker.set_desired_version(table, &self.pipeline.reload);
                    Ok(worker)
                }
                (None, _) => Worker::start(table, context.clone(), ready(())),
            };
            match worker {
                Ok(worker) => self.workers.push(worker),
                Err(failure) => {
                    error!(table = %table.name, "start the table's worker: {failure:#}; bronze is still written");
                }
            }
        }
        for (_, worker) in before {
            self.stopping.spawn(worker.replace());
        }
    }

    /// Ends every worker, and gives the first failure.
    pub async fn finish(mut self, timeout: Duration, stop: &CancellationToken) -> anyhow::Result<()> {
        let ends = self.workers.into_iter().map(|worker| worker.finish(timeout, stop.clone()));
        let unrouted = self.unrouted_writer.finish(timeout, stop.clone());
        let (ended, unrouted) = tokio::join!(futures::future::join_all(ends), unrouted);
        while self.stopping.join_next().await.is_some() {}
        ended.into_iter().chain([unrouted]).collect()
    }
}

impl SideOutputs {
    pub async fn open(base_dir: &Path, pipeline: &Pipeline) -> anyhow::Result<Self> {
        let quarantine = SideOutput::open(&quarantine::KIND, base_dir.join(&*pipeline.quarantine.path)).await?;
        Ok(Self { quarantine: Arc::new(quarantine), late: Self::open_late(base_dir, pipeline).await? })
    }

    /// The table of late events, if a Silver table asks for one.
    pub async fn open_late(base_dir: &Path, pipeline: &Pipeline) -> anyhow::Result<Option<Arc<SideOutput>>> {
        match pipeline.silver.iter().any(|table| table.late_after_ms.is_some()) {
            true => Ok(Some(Arc::new(SideOutput::open(&late::KIND, base_dir.join(&*pipeline.late.path)).await?))),
            false => Ok(None),
        }
    }
}
