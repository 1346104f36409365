//! The worker's task: one step after the other, and what happens after a step that fails.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use futures::FutureExt;
use silverd_core::config::SilverTable;
use silverd_core::route::Router;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info};

use super::open_table::OpenTable;
use super::plugin_slot::PluginSlot;
use super::step_error::StepError;
use super::{ChunkForTable, WorkerContext};
use crate::plugin::ServingRecord;
use crate::runtime::causes;
use crate::runtime::clock;
use crate::runtime::log_once::LogOnce;
use crate::tables::event_progress::EventProgress;
use crate::tables::writer_state::{WriterState, WriterStateCell};
use crate::telemetry::{TableStats, spans};

const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// How often a table that fails is tried again after the pipeline has stopped.
const RETRIES_AFTER_STOP_MAX: u32 = 2;

pub(super) struct WorkerTask {
    pub(super) context: WorkerContext,
    pub(super) config: SilverTable,
    /// Finds this table's records in chunks that are read from Bronze.
    pub(super) router: Router,
    pub(super) inbox: Inbox,
    pub(super) plugin: PluginSlot,
    pub(super) report: WorkerReport,
    /// Says to commands which version serves; `None` if the folder of `[state]` cannot be used.
    pub(super) serving: Option<ServingRecord>,
    /// `None` until the next step opens the table.
    pub(super) table: Option<OpenTable>,
}

/// What the pipeline sends to a worker.
pub(super) struct Inbox {
    pub(super) chunks: mpsc::Receiver<ChunkForTable>,
    /// The table is as new as Bronze: the pipeline may wait for it.
    pub(super) is_live: Arc<AtomicBool>,
    /// End after the step at hand.
    pub(super) shutdown_now: CancellationToken,
}

/// What a worker shows of itself.
pub(super) struct WorkerReport {
    pub(super) stats: Arc<TableStats>,
    pub(super) state: WriterStateCell,
    pub(super) progress: EventProgress,
    pub(super) last_error: LogOnce,
}

pub(super) enum Step {
    Continue,
    Finished,
}

impl WorkerTask {
    pub(super) async fn run(mut self) -> Result<(), StepError> {
        let (mut pause, mut retries_after_stop) = (RETRY_FIRST, 0);
        loop {
            let step = AssertUnwindSafe(self.step()).catch_unwind().await;
            let error = match step.unwrap_or(Err(StepError::Panicked)) {
                Ok(Step::Continue) => {
                    pause = RETRY_FIRST;
                    continue;
                }
                Ok(Step::Finished) => return Ok(()),
                Err(StepError::RolledBack(rolled_back)) => {
                    let span = spans::plugin_rollback(&self.config.name);
                    self.roll_back(&rolled_back).instrument(span).await;
                    continue;
                }
                Err(error) => error,
            };
            self.table = None;
            self.inbox.is_live.store(false, Relaxed);
            let stopped = self.inbox.chunks.is_closed();
            // Another daemon was first. That is no failure, also of a daemon that stops: the next start goes on from there.
            let lost_race = error.is_lost_race();
            if lost_race && self.inbox.shutdown_now.is_cancelled() {
                return Ok(());
            }
            retries_after_stop += u32::from(stopped && !lost_race);
            let tripped = matches!(error, StepError::Tripped(_));
            if retries_after_stop > RETRIES_AFTER_STOP_MAX
                || self.inbox.shutdown_now.is_cancelled()
                || (tripped && stopped)
            {
                return Err(error);
            }
            if tripped {
                self.pause_table(&error).await;
            } else {
                self.report_error(&error, pause);
                self.wait_to_retry(pause).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
        }
    }

    /// Says to commands which version serves now.
    pub(super) fn record_serving(&mut self) {
        if let (Some(record), Some(plugin)) = (&mut self.serving, self.plugin.plugin()) {
            record.set(plugin.version());
        }
    }

    /// Waits before the table is opened again. No chunk stays in memory meanwhile.
    async fn wait_to_retry(&mut self, pause: Duration) {
        let (shutdown_now, pending) = (self.inbox.shutdown_now.clone(), self.plugin.pending.clone());
        let discard_chunks = async {
            while self.inbox.chunks.recv().await.is_some() {}
            // The pipeline has stopped: `shutdown_now` bounds what is left to do.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown_now.cancelled() => {}
            () = pending.changed() => {}
            () = discard_chunks => {}
        }
    }

    /// The plugin fails on every event: waits for another version of it, or for the circuit breaker's backoff.
    async fn pause_table(&mut self, error: &StepError) {
        let now = clock::now_ms().unsigned_abs();
        let pause = Duration::from_millis(self.plugin.breaker.pause(now).saturating_sub(now));
        let (table, seconds, reason) = (&self.config.name, pause.as_secs(), error.to_string());
        error!(
            %table,
            "{reason}. The table is paused for {seconds} s, or until the plugin changes; bronze is still written"
        );
        self.report.last_error.is_new(&reason);
        self.report.state.set(WriterState::Paused { seconds, reason });
        let (shutdown_now, pending) = (self.inbox.shutdown_now.clone(), self.plugin.pending.clone());
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = pending.changed() => {}
            () = shutdown_now.cancelled() => {}
            // The pipeline has stopped: one last try.
            () = async { while self.inbox.chunks.recv().await.is_some() {} } => {}
        }
    }

    fn report_error(&mut self, error: &StepError, pause: Duration) {
        let table = &self.config.name;
        if error.is_lost_race() {
            return info!(%table, "{error}; opening the table again");
        }
        let reason = match error {
            StepError::Failed(failure) => causes(failure),
            error => error.to_string(),
        };
        if self.report.last_error.is_new(&reason) {
            let seconds = RETRY_MAX.as_secs();
            error!(%table, "{reason}. Retrying at least every {seconds} s; bronze is still written");
        } else {
            tracing::debug!(%table, "{reason}; next try in {pause:?}");
        }
        self.report.state.set(WriterState::Retrying { reason });
    }
}
