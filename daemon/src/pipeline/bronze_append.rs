//! Commits a chunk to Bronze. While that fails and is tried again, changes of pipeline.toml are applied: they may be what
//! helps.

use std::future::pending;
use std::sync::Arc;

use silverd_core::chunk::Chunk;
use silverd_core::config::Pipeline;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::options::RunOptions;
use super::silver_workers::{Applied, SilverWorkers};
use crate::bronze::{Bronze, NotAppended};
use crate::silver::BronzeCommit;

/// What became of a chunk. All but the first leave it to Kafka, which gives it again.
pub(super) enum Appended {
    Committed,
    /// Another silverd has committed to these partitions.
    Fenced,
    /// pipeline.toml asks for another source.
    RestartSource,
    /// pipeline.toml has changed so much that everything starts again.
    Restart,
    /// silverd stops.
    Stopped,
}

/// Commits a chunk, and lets the workers know. A change of pipeline.toml interrupts it between two tries.
pub(super) async fn append(
    bronze: &mut Bronze,
    chunk: &Chunk,
    pipeline: &mut watch::Receiver<Arc<Pipeline>>,
    bronze_commit: &watch::Sender<BronzeCommit>,
    stop: &CancellationToken,
) -> Result<(), NotAppended> {
    let edit = async {
        if pipeline.changed().await.is_err() {
            pending::<()>().await; // nobody watches pipeline.toml
        }
    };
    bronze.append(chunk, stop, edit).await?;
    bronze_commit.send_replace(BronzeCommit::Committed);
    Ok(())
}

/// A chunk that was sent to the workers, and is perhaps not in Bronze yet.
pub(super) struct Append<'p> {
    pub(super) options: &'p mut RunOptions,
    pub(super) workers: &'p mut SilverWorkers,
    pub(super) bronze: &'p mut Bronze,
    pub(super) bronze_commit: watch::Sender<BronzeCommit>,
}

impl Append<'_> {
    /// Applies the change that interrupted the commit, and goes on, until the chunk is committed or given up.
    pub(super) async fn finish(
        self,
        chunk: &Chunk,
        mut appended: Result<(), NotAppended>,
        stop: &CancellationToken,
    ) -> Appended {
        let Self { options, workers, bronze, bronze_commit } = self;
        let given_up = loop {
            match appended {
                Ok(()) => return Appended::Committed,
                Err(NotAppended::Fenced) => break Appended::Fenced,
                Err(NotAppended::Stopped) => break Appended::Stopped,
                Err(NotAppended::Interrupted) => {}
            }
            let pipeline = options.pipeline.borrow_and_update().clone();
            match workers.apply_config(options, pipeline, bronze).await {
                Applied::InPlace => {}
                Applied::RestartSource => break Appended::RestartSource,
                Applied::RestartAll => break Appended::Restart,
            }
            appended = append(bronze, chunk, &mut options.pipeline, &bronze_commit, stop).await;
        };
        bronze_commit.send_replace(BronzeCommit::Aborted);
        given_up
    }
}
