//! What the pipeline does next: the match over what arrives from Kafka, from pipeline.toml, and from whoever stops it.

use std::sync::Arc;

use silverd_core::config::Pipeline;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::options::RunOptions;
use super::silver_workers::{Applied, SilverWorkers};
use crate::bronze::Bronze;
use crate::runtime::causes;
use crate::source::{ProblemOf, ReadChunk, Source, SourceEvent};

pub(super) enum Next {
    Chunk(ReadChunk),
    /// The source has ended: start a new one after a pause.
    Reconnect,
    /// pipeline.toml asks for another source: start it at once.
    RestartSource,
    /// Everything that was in the topic at the start was read.
    Drained,
    /// silverd stops.
    Stopped,
    /// pipeline.toml has changed so much that everything starts again.
    Restart,
    /// A drain cannot go on.
    Failed(anyhow::Error),
}

/// Waits for the next chunk, or for a reason to read no more of them. Applies changes of pipeline.toml meanwhile.
pub(super) async fn next(
    options: &mut RunOptions,
    source: &mut dyn Source,
    workers: &mut SilverWorkers,
    bronze: &Bronze,
    stop: &CancellationToken,
) -> Next {
    loop {
        let event = tokio::select! {
            event = source.next() => event,
            pipeline = config_change(&mut options.pipeline) => {
                match workers.apply_config(options, pipeline, bronze).await {
                    Applied::InPlace => continue,
                    Applied::RestartSource => return Next::RestartSource,
                    Applied::RestartAll => return Next::Restart,
                }
            }
            () = stop.cancelled(), if !source.is_stopping() => {
                source.stop();
                continue;
            }
        };
        return match event {
            Some(SourceEvent::Chunk(chunk)) => Next::Chunk(chunk),
            Some(SourceEvent::Drained) => Next::Drained,
            Some(SourceEvent::Failed(failure)) if options.drain => Next::Failed(failure),
            Some(SourceEvent::Failed(failure)) => {
                let failure = causes(&failure);
                workers.source_problems.set(ProblemOf::Consumer, format!("kafka: {failure}"));
                warn!("kafka: {failure}; reconnecting");
                Next::Reconnect
            }
            None if source.is_stopping() => Next::Stopped,
            None => {
                warn!("the Kafka thread ended unexpectedly; reconnecting");
                Next::Reconnect
            }
        };
    }
}

/// Waits until pipeline.toml has changed, and gives the new pipeline.
pub async fn config_change(pipeline: &mut watch::Receiver<Arc<Pipeline>>) -> Arc<Pipeline> {
    if pipeline.changed().await.is_err() {
        return std::future::pending().await; // nobody watches pipeline.toml
    }
    pipeline.borrow_and_update().clone()
}
