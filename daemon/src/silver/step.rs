//! One step of a worker: a chunk from Kafka, a window from Bronze, or a wait for either.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use silverd_core::chunk::Chunk;
use silverd_core::offsets::{Ranges, missing};
use tokio::sync::{mpsc, watch};
use tracing::{Instrument, info};

use super::canary::Canary;
use super::open_table::{OpenTable, load_first_plugin};
use super::step_error::StepError;
use super::worker_task::{Step, WorkerTask};
use super::{BronzeCommit, ChunkForTable};
use crate::bronze::replay::Replay;
use crate::plugin::{Plugin, TransformOutput};
use crate::reload::StartupVersion;
use crate::tables::writer_state::WriterState;
use crate::telemetry::{Stage, spans};

/// Progress over other tables' events alone is committed this seldom; after a crash it is read again from Bronze.
const IDLE_COMMIT_INTERVAL: Duration = Duration::from_secs(30);

impl WorkerTask {
    pub(super) async fn step(&mut self) -> Result<Step, StepError> {
        self.take_pending_version();
        let mut table = match self.table.take() {
            Some(table) => table,
            None => {
                // A plugin may take long to load.
                let shutdown_now = self.inbox.shutdown_now.clone();
                match shutdown_now.run_until_cancelled(self.open_table()).await {
                    Some(opened) => opened?,
                    None => {
                        self.report.state.set(WriterState::Stopped);
                        return Ok(Step::Finished);
                    }
                }
            }
        };
        let step = match self.inbox.chunks.try_recv() {
            Ok(chunk) => self.write_live(&mut table, chunk).await.map(|()| Step::Continue),
            Err(mpsc::error::TryRecvError::Disconnected) => self.finish(&mut table).await,
            Err(mpsc::error::TryRecvError::Empty) if self.is_behind(&table) => {
                let span = spans::silver_step(None, &self.config.name);
                spans::record(span, self.catch_up(&mut table)).await.map(|()| Step::Continue)
            }
            Err(mpsc::error::TryRecvError::Empty) => self.wait(&mut table).await.map(|()| Step::Continue),
        }?;
        self.update_lag(&table);
        self.table = Some(table);
        Ok(step)
    }

    /// Loads the plugin, if none is loaded, and opens the table for it.
    async fn open_table(&mut self) -> anyhow::Result<OpenTable> {
        self.report.state.set(WriterState::Opening);
        let plugin = match self.plugin.plugin() {
            Some(plugin) => plugin.clone(),
            None => self.load_first_version().await?,
        };
        self.plugin.pending.set_active(plugin.clone());
        self.report.stats.plugin_loaded(&plugin.schema.interface.to_string(), plugin.digest.as_str());
        let breaker = self.plugin.breaker.clone();
        let table = OpenTable::open(&self.context, &self.config, plugin, breaker).await?;
        self.report.progress.opened(&table.next);
        self.record_serving();
        if self.report.last_error.clear() {
            info!(table = %self.config.name, "the table can be written again");
        }
        Ok(table)
    }

    /// Loads the version that serves first, and continues what the worker before this one has not finished: the canary
    /// period of that version, and the rebuild after a rollback.
    async fn load_first_version(&mut self) -> anyhow::Result<Arc<Plugin>> {
        let loaded = self.context.loaded.remove(&self.config.name);
        let StartupVersion { plugin, canary } = load_first_plugin(&self.context, &self.config, loaded).await?;
        let canary = canary.map(|unfinished| {
            let (digest, baseline, events) =
                (&plugin.digest, &unfinished.baseline.digest, unfinished.counts.events);
            info!(table = %self.config.name, %digest, %baseline, events, "the canary period of the version is not over");
            let max_new_rejects = self.context.pipeline.reload.max_new_rejects;
            Canary::resumed(unfinished, &self.config, self.config.max_new_rejects.unwrap_or(max_new_rejects))
        });
        self.plugin.start(plugin.clone(), canary);
        self.resume_rebuilds(&plugin).await;
        self.report.state.set(WriterState::Opening);
        Ok(plugin)
    }

    async fn wait(&mut self, table: &mut OpenTable) -> Result<(), StepError> {
        self.report.state.set(WriterState::Live);
        self.inbox.is_live.store(true, Relaxed);
        let pending = self.plugin.pending.clone();
        let idle = IDLE_COMMIT_INTERVAL.saturating_sub(table.committed_at.elapsed());
        tokio::select! {
            biased;
            chunk = self.inbox.chunks.recv() => match chunk {
                Some(chunk) => self.write_live(table, chunk).await,
                None => Ok(()),
            },
            _ = self.context.committed_offsets.changed() => Ok(()),
            () = pending.changed() => Ok(()),
            () = tokio::time::sleep(idle) => {
                table.committed_at = Instant::now();
                self.commit(table, Vec::new(), Vec::new(), &TransformOutput::default()).await
            }
        }
    }

    /// The pipeline has stopped: reads Bronze to its end, unless `shutdown_now` says to end.
    async fn finish(&mut self, table: &mut OpenTable) -> Result<Step, StepError> {
        if self.is_behind(table) && !self.inbox.shutdown_now.is_cancelled() {
            self.catch_up(table).await?;
            return Ok(Step::Continue);
        }
        self.commit(table, Vec::new(), Vec::new(), &TransformOutput::default()).await?;
        self.report.state.set(WriterState::Stopped);
        Ok(Step::Finished)
    }

    /// What Bronze has and the table does not.
    fn missing(&self, table: &OpenTable) -> Ranges {
        self.own(&missing(&table.next, &self.context.committed_offsets.borrow()))
    }

    /// The ranges of topics whose events can be of this table. It has no progress in the others.
    fn own(&self, ranges: &Ranges) -> Ranges {
        ranges.of_topics(|topic| self.router.takes(0, topic))
    }

    fn is_behind(&self, table: &OpenTable) -> bool {
        !self.missing(table).is_empty()
    }

    fn update_lag(&self, table: &OpenTable) {
        self.report.stats.lag.store(self.missing(table).total(), Relaxed);
    }

    /// Writes a chunk from Kafka. One that leaves a gap is skipped: the next step reads the gap from Bronze.
    async fn write_live(&mut self, table: &mut OpenTable, live: ChunkForTable) -> Result<(), StepError> {
        let own = self.own(&live.chunk.ranges);
        let (new, gap) = own.new_and_gap(&table.next);
        if !gap.is_empty() || new.is_empty() {
            return Ok(());
        }
        table.replay = None;
        let span = spans::silver_step(Some(&live.span), &self.config.name);
        if new == own {
            // The records of other topics are not among this table's.
            let chunk = Chunk { records: live.chunk.records.clone(), ranges: own };
            let write = self.write_chunk(table, &chunk, &live.records, live.bronze_commit);
            return spans::record(span, write).await;
        }
        let part = live.chunk.select(&new);
        let records = self.route(&part);
        spans::record(span, self.write_chunk(table, &part, &records, live.bronze_commit)).await
    }

    /// Writes the next window of what is missing, read from Bronze.
    async fn catch_up(&mut self, table: &mut OpenTable) -> Result<(), StepError> {
        self.report.state.set(WriterState::CatchingUp);
        self.inbox.is_live.store(false, Relaxed);
        let context = &self.context;
        let mut replay = match table.replay.take() {
            Some(replay) => replay,
            None => {
                let missing = self.missing(table);
                Replay::plan(context.bronze.clone(), &missing, context.rows_max, context.bytes_max).await?
            }
        };
        let read = replay.next().instrument(spans::bronze_read());
        let Some(chunk) = context.stages.time(Stage::BronzeRead, read).await? else { return Ok(()) };
        let records = self.route(&chunk);
        let (_, committed) = watch::channel(BronzeCommit::Committed);
        table.overtook_replay = false;
        self.write_chunk(table, &chunk, &records, committed).await?;
        table.replay = (!table.overtook_replay).then_some(replay);
        Ok(())
    }

    /// This table's records of a chunk.
    fn route(&self, chunk: &Chunk) -> Vec<u32> {
        self.context.stages.measure(Stage::Route, || {
            let mut routes = self.router.route(chunk);
            routes.tables.pop().unwrap_or_default()
        })
    }
}
