//! The tables of a pipeline, open for writing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing::error;

use super::options::RunOptions;
use super::silver_workers::SilverWorkers;
use super::status::RunState;
use crate::bronze::Bronze;
use crate::runtime::causes;
use crate::runtime::log_once::LogOnce;
use crate::source::SourceProblem;
use crate::tables::writer_state::WriterState;
use crate::telemetry::Stages;

const REOPEN_PAUSE: Duration = Duration::from_secs(5);

/// Bronze, and the workers of the Silver tables.
pub(super) struct OpenTables {
    pub(super) bronze: Bronze,
    pub(super) workers: SilverWorkers,
}

impl OpenTables {
    /// Opens the tables of the newest pipeline.toml.
    pub(super) async fn open(options: &mut RunOptions, stages: &Arc<Stages>) -> anyhow::Result<Self> {
        let pipeline = options.pipeline.borrow_and_update().clone();
        let bronze = Bronze::open(&options.base_dir, &pipeline.bronze, stages.clone()).await?;
        let workers = SilverWorkers::start(options, pipeline, &bronze, stages).await?;
        Ok(Self { bronze, workers })
    }

    /// The same for a daemon that runs, until it succeeds: what keeps it from writing a table must not end it. `None` if
    /// it is stopped.
    pub(super) async fn reopen(
        options: &mut RunOptions,
        stages: &Arc<Stages>,
        stop: &CancellationToken,
    ) -> Option<Self> {
        let mut last_error = LogOnce::default();
        loop {
            let failure = match Self::open(options, stages).await {
                Ok(opened) => return Some(opened),
                Err(failure) => failure,
            };
            let reason = causes(&failure);
            if last_error.is_new(&reason) {
                error!("{reason}; trying again every {} s, and once pipeline.toml is saved", REOPEN_PAUSE.as_secs());
            }
            options.status.send_modify(|state| match state {
                RunState::Running(status) => status.bronze_state.set(WriterState::Retrying { reason }),
                RunState::Waiting(problem) => problem.text = reason,
                RunState::Starting => *state = RunState::Waiting(SourceProblem { text: reason, since: Instant::now() }),
            });
            tokio::select! {
                () = tokio::time::sleep(REOPEN_PAUSE) => {}
                Ok(()) = options.pipeline.changed() => {}
                () = stop.cancelled() => return None,
            }
        }
    }
}
