//! The data path, on one screen: from Kafka to Bronze and to the Silver workers.

mod bronze_append;
mod memory_profile;
mod next_input;
mod open_tables;
mod options;
pub(crate) mod silver_workers;
pub mod status;
pub(crate) mod unrouted;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use futures::future::join_all;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::bronze::Bronze;
use crate::delta::{NotWritable, set_fsync};
use crate::silver::{BronzeCommit, ChunkForTable};
use crate::source::{BatchLimits, Broker, ReadChunk, Source, SourceOptions};
use crate::telemetry::{Stage, Stages, spans};

use bronze_append::{Append, Appended};
use memory_profile::MemoryProfile;
use next_input::Next;
pub use next_input::config_change;
use open_tables::OpenTables;
pub use options::RunOptions;
use silver_workers::SilverWorkers;

/// How long the Silver tables may take at the end to read Bronze to its end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);
const RECONNECT_PAUSE: Duration = Duration::from_secs(2);

/// Reads the topic and writes the tables until `stop`, or until the topic is drained.
pub async fn run(mut options: RunOptions, stop: CancellationToken) -> anyhow::Result<()> {
    let stages = Arc::<Stages>::default();
    let mut tables = match OpenTables::open(&mut options, &stages).await {
        // Somebody has to change bronze again, and the log says what: a daemon that ended would be started again and again.
        Err(failure) if !options.drain && failure.is::<NotWritable>() => {
            let Some(opened) = OpenTables::reopen(&mut options, &stages, &stop).await else { return Ok(()) };
            opened
        }
        opened => opened?,
    };
    loop {
        match run_once(&mut options, tables, &stop).await? {
            Outcome::Restart => {
                info!("restarting the pipeline with the changed pipeline.toml");
                options.loaded.clear();
                let Some(opened) = OpenTables::reopen(&mut options, &stages, &stop).await else { return Ok(()) };
                tables = opened;
            }
            Outcome::Stopped if options.drain => bail!("the drain was stopped before it had read the topic to its end"),
            Outcome::Stopped | Outcome::Drained => {
                info!("stopped after a last commit");
                return Ok(());
            }
        }
    }
}

async fn run_once(options: &mut RunOptions, tables: OpenTables, stop: &CancellationToken) -> anyhow::Result<Outcome> {
    let mut memory_profile = MemoryProfile::new();
    let OpenTables { mut bronze, mut workers } = tables;
    let mut outcome = Ok(Outcome::Stopped);
    'sources: while !stop.is_cancelled() {
        let mut source = start_source(options, &bronze, &workers)?;
        loop {
            let ReadChunk { chunk, full } =
                match next_input::next(options, source.as_mut(), &mut workers, &bronze, stop).await {
                    Next::Chunk(chunk) => chunk,
                    Next::Reconnect => break,
                    Next::RestartSource => continue 'sources,
                    Next::Stopped => break 'sources,
                    Next::Drained => {
                        outcome = Ok(Outcome::Drained);
                        break 'sources;
                    }
                    Next::Restart => {
                        outcome = Ok(Outcome::Restart);
                        break 'sources;
                    }
                    Next::Failed(failure) => {
                        outcome = Err(failure);
                        break 'sources;
                    }
                };
            let backlog = memory_profile.next_chunk(full);
            let chunk = Arc::new(chunk);
            let span = spans::chunk(&workers.pipeline.source.topics.to_string(), chunk.records.num_rows());
            let routing = || workers.stages.measure(Stage::Route, || workers.router.route(&chunk));
            let routes = spans::route(&span).in_scope(routing);
            workers.status.count_chunk(&chunk, &routes.unrouted);

            let (bronze_commit, committed) = watch::channel(BronzeCommit::Pending);
            workers.unrouted_writer.send(&chunk, routes.unrouted, committed.clone());
            let routes: Vec<Arc<[u32]>> = routes.tables.into_iter().map(Arc::from).collect();
            let silver = workers.with_records(&routes).map(|(worker, records)| {
                let (chunk, bronze_commit, span) = (chunk.clone(), committed.clone(), span.clone());
                worker.send(ChunkForTable { chunk, records, bronze_commit, span }, backlog)
            });
            let append = bronze_append::append(&mut bronze, &chunk, &mut options.pipeline, &bronze_commit, stop);
            // Bronze writes the chunk whatever the workers do.
            let (appended, _) = tokio::join!(spans::record(spans::bronze_append(&span), append), join_all(silver));
            let append = Append { options, workers: &mut workers, bronze: &mut bronze, bronze_commit };
            match append.finish(&chunk, appended, stop).await {
                Appended::Committed => source.committed(&chunk.ranges),
                Appended::Fenced => break, // the next source resumes behind what the other daemon has written
                Appended::RestartSource => continue 'sources,
                Appended::Stopped => break 'sources,
                Appended::Restart => {
                    outcome = Ok(Outcome::Restart);
                    break 'sources;
                }
            }
        }
        drop(source);
        tokio::select! { () = tokio::time::sleep(RECONNECT_PAUSE) => {}, () = stop.cancelled() => {} }
    }
    finish(workers, outcome, options.drain, stop).await
}

/// How a run ends: for good, or to start again with another pipeline.
enum Outcome {
    Drained,
    Stopped,
    Restart,
}

fn start_source(options: &RunOptions, bronze: &Bronze, workers: &SilverWorkers) -> anyhow::Result<Box<dyn Source>> {
    let (source, commit) = (&workers.pipeline.source, &workers.pipeline.commit);
    set_fsync(commit.fsync);
    let limits = BatchLimits {
        interval: Duration::from_millis(commit.interval_ms),
        rows_max: commit.rows_max,
        bytes_max: commit.bytes_max,
    };
    let from_config = || Broker { bootstrap: source.brokers.clone(), cluster_id: None };
    let source_options = SourceOptions {
        config: source.clone(),
        broker: options.broker.clone().unwrap_or_else(from_config),
        limits,
        resume: bronze.resume(),
        drain: options.drain,
        stages: workers.stages.clone(),
        bytes_read: options.bytes_read.clone(),
        high_watermarks: workers.high_watermarks.clone(),
        problems: workers.source_problems.clone(),
        first_topics: workers.first_topics.clone(),
        cut_logs: workers.cut_logs.clone(),
        topic_ids: bronze.topic_ids(),
    };
    options.sources.start(source_options).context("start the Kafka consumer")
}

/// Ends the workers. Their failure counts, unless the pipeline starts again and opens the tables anyway.
async fn finish(
    workers: SilverWorkers,
    outcome: anyhow::Result<Outcome>,
    drain: bool,
    stop: &CancellationToken,
) -> anyhow::Result<Outcome> {
    let timeout = match &outcome {
        Ok(Outcome::Restart) => Duration::ZERO,
        _ if drain => Duration::MAX,
        _ => SHUTDOWN_TIMEOUT,
    };
    match (workers.finish(timeout, stop).await, &outcome) {
        (Err(failure), Ok(Outcome::Restart)) => warn!("{failure:#}"),
        (finished, _) => finished?,
    }
    outcome.context("drain the topic")
}
