//! The writer of unrouted events, as the pipeline sees it. Bronze and the Silver tables never wait for it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use silverd_core::chunk::Chunk;
use silverd_core::config::{Pipeline, Unrouted};
use silverd_core::unrouted::UnroutedEvents;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::routing::Routing;
use super::switch::{Quarantined, switch_on};
use super::task::UnroutedTask;
use crate::bronze::Bronze;
use crate::runtime::worker_thread::WorkerThread;
use crate::silver::BronzeCommit;
use crate::tables::side_output::SideOutput;
use crate::telemetry::Stages;

/// Chunks that wait for the writer. One: a chunk that does not fit is read from Bronze.
const CHUNKS_WAITING_MAX: usize = 1;

/// Writes the events that no table takes to the quarantine, if pipeline.toml says so.
pub(in crate::pipeline) struct UnroutedWriter {
    routing: watch::Sender<Arc<Routing>>,
    /// `None` if unrouted events are only counted.
    chunks: Option<mpsc::Sender<UnroutedChunk>>,
    thread: Option<WorkerThread<anyhow::Error>>,
}

/// A chunk from Kafka, with the events that no table takes.
pub(super) struct UnroutedChunk {
    pub(super) chunk: Arc<Chunk>,
    pub(super) events: UnroutedEvents,
    pub(super) routing: Arc<Routing>,
    pub(super) bronze_commit: watch::Receiver<BronzeCommit>,
}

impl UnroutedWriter {
    /// Starts the writer. It continues where the quarantine ends; if it is switched on just now, where Bronze ends.
    ///
    /// If it is switched off, it first quarantines what came until now.
    pub(in crate::pipeline) async fn start(
        pipeline: &Pipeline,
        quarantine: &Arc<SideOutput>,
        bronze: &Bronze,
        stages: &Arc<Stages>,
    ) -> anyhow::Result<Self> {
        let (routing, current_routing) = watch::channel(Arc::new(Routing::new(&pipeline.silver)));
        let end = bronze.committed_offsets().borrow().clone();
        if pipeline.quarantine.unrouted == Unrouted::Quarantine
            && let Err(failure) = quarantine.check_progress().await
        {
            error!("unrouted events are counted, and not quarantined, until silverd starts again: {failure:#}");
            return Ok(Self { routing, chunks: None, thread: None });
        }
        let until = match pipeline.quarantine.unrouted {
            Unrouted::Quarantine => {
                let switched = switch_on(quarantine, &end).await;
                switched.context("switch on [quarantine] unrouted = \"quarantine\"")?;
                None
            }
            Unrouted::Count if Quarantined::read(quarantine).await?.is_on() => Some(end),
            Unrouted::Count => return Ok(Self { routing, chunks: None, thread: None }),
        };
        let (sender, chunks) = mpsc::channel(CHUNKS_WAITING_MAX);
        let sender = until.is_none().then_some(sender);
        let shutdown_now = CancellationToken::new();
        let task = UnroutedTask {
            quarantine: quarantine.clone(),
            bronze: bronze.log(),
            committed_offsets: bronze.committed_offsets(),
            routing: current_routing,
            chunks,
            shutdown_now: shutdown_now.clone(),
            until,
            rows_max: pipeline.commit.rows_max,
            bytes_max: pipeline.commit.bytes_max,
            stages: stages.clone(),
        };
        let what = "the quarantine of unrouted events";
        let thread = WorkerThread::spawn("unrouted", what, shutdown_now, move || task.run())?;
        Ok(Self { routing, chunks: sender, thread: Some(thread) })
    }

    /// The tables match on something else from now on.
    pub(in crate::pipeline) fn set_routing(&self, pipeline: &Pipeline) {
        self.routing.send_replace(Arc::new(Routing::new(&pipeline.silver)));
    }

    /// Sends a chunk. If the writer has no room, it finds the chunk in Bronze.
    pub(in crate::pipeline) fn send(
        &self,
        chunk: &Arc<Chunk>,
        events: UnroutedEvents,
        bronze_commit: watch::Receiver<BronzeCommit>,
    ) {
        let Some(chunks) = &self.chunks else { return };
        let routing = self.routing.borrow().clone();
        let _ = chunks.try_send(UnroutedChunk { chunk: chunk.clone(), events, routing, bronze_commit });
    }

    /// Lets the writer read Bronze to its end, or as far as it gets within `timeout`, and ends it.
    pub(in crate::pipeline) async fn finish(self, timeout: Duration, stop: CancellationToken) -> anyhow::Result<()> {
        drop(self.chunks);
        match self.thread {
            Some(thread) => thread.finish(timeout, stop).await.context("quarantine unrouted events"),
            None => Ok(()),
        }
    }
}
