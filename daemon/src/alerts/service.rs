//! The thread of the alerts: it takes the state folder, delivers what is due, and follows edits of pipeline.toml.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use silverd_core::config::Pipeline;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::board::{AlertBoard, EvaluationState};
use super::engine::Engine;
use super::store::AlertStore;
use crate::gold::GoldStatus;
use crate::maintenance::MaintenanceStatus;
use crate::notify::Outbox;
use crate::pipeline::status::RunState;
use crate::runtime::log_once::LogOnce;
use crate::sql::Tables;
use crate::tables::recent_rows::RecentRows;

/// Between two tries to take the state folder.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// Names of hosts are looked up on these threads, and a lookup cannot be cancelled: one without an answer must delay
/// neither the others nor the record of a delivery.
const BLOCKING_THREADS_MAX: usize = 32;
/// For what is on these threads at the end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);

/// Evaluates the alerts and delivers their notifications.
pub(crate) struct AlertService {
    pub(crate) base_dir: PathBuf,
    /// That of `[state]`, at the start of silverd.
    pub(crate) state_dir: PathBuf,
    pub(crate) status: watch::Receiver<RunState>,
    pub(crate) recent_rows: Arc<RecentRows>,
    pub(crate) board: Arc<AlertBoard>,
}

/// What an edit of pipeline.toml changes.
#[derive(Clone)]
pub(crate) struct AlertInputs {
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) tables: Tables,
    pub(crate) gold: Arc<GoldStatus>,
    pub(crate) maintenance: Arc<MaintenanceStatus>,
}

impl AlertInputs {
    /// Whether there is anything to evaluate or to deliver.
    fn are_of_use(&self) -> bool {
        let Pipeline { built_in_alerts, alerts, notify, .. } = &*self.pipeline;
        built_in_alerts.enabled || !alerts.is_empty() || !notify.is_empty()
    }
}

impl AlertService {
    /// Starts a thread that evaluates the alerts until `stop`. The receiver completes when it has ended.
    pub(crate) fn start(
        self,
        inputs: watch::Receiver<AlertInputs>,
        stop: CancellationToken,
    ) -> anyhow::Result<oneshot::Receiver<()>> {
        let (ends, ended) = oneshot::channel();
        // The thread itself waits for the disk; the worker asks the process for SQL and delivers.
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).max_blocking_threads(BLOCKING_THREADS_MAX).thread_name("notify");
        let runtime = runtime.enable_all().build()?;
        std::thread::Builder::new().name("alerts".to_owned()).spawn(move || {
            runtime.block_on(self.run(inputs, stop));
            // A name server that does not answer keeps no thread from ending.
            runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
            let _ = ends.send(());
        })?;
        Ok(ended)
    }

    async fn run(self, mut inputs: watch::Receiver<AlertInputs>, stop: CancellationToken) {
        // An edit may add the first alert.
        let is_of_use = inputs.wait_for(AlertInputs::are_of_use);
        match stop.run_until_cancelled(is_of_use).await {
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return,
        }
        let Some((store, outbox)) = stop.run_until_cancelled(self.open(&inputs)).await else { return };
        self.board.set_outbox(outbox.clone());
        self.board.set_state(EvaluationState::Running);
        let delivery = tokio::spawn(outbox.clone().run(stop.clone()));
        let current = inputs.borrow_and_update().clone();
        // An edit may have come since the outbox was opened.
        outbox.apply_config(&current.pipeline, &self.base_dir);
        let store = Engine::new(self, store, outbox, current).run(inputs, stop).await;
        // Until then, no other silverd delivers what is in the outbox.
        let _ = delivery.await;
        drop(store);
    }

    /// Takes the state folder, as soon as no other silverd has it and it can be written.
    async fn open(&self, inputs: &watch::Receiver<AlertInputs>) -> (AlertStore, Arc<Outbox>) {
        let mut last_problem = LogOnce::default();
        loop {
            let (state, problem) = match self.try_open(inputs) {
                Ok(Some(opened)) => {
                    if last_problem.clear() {
                        info!("the alerts are evaluated from now on");
                    }
                    return opened;
                }
                Ok(None) => {
                    let text =
                        "another silverd with the same state folder evaluates the alerts; this one waits".to_owned();
                    (EvaluationState::Elsewhere, text)
                }
                Err(failure) => {
                    let text = format!("the alerts are not evaluated: {failure:#}; silverd tries again");
                    (EvaluationState::Failing, text)
                }
            };
            self.board.set_state(state);
            if last_problem.is_new(&problem) {
                warn!("{problem}");
            }
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }

    fn try_open(&self, inputs: &watch::Receiver<AlertInputs>) -> anyhow::Result<Option<(AlertStore, Arc<Outbox>)>> {
        let Some(store) = AlertStore::open(&self.state_dir)? else { return Ok(None) };
        let pipeline = inputs.borrow().pipeline.clone();
        let outbox = Outbox::open(&store.outbox(), &pipeline, &self.base_dir)?;
        Ok(Some((store, outbox)))
    }
}
