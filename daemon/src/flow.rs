//! The whole way of the data, on one screen.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Context;
use futures::future::join_all;
use silverd_core::config::Pipeline;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::bronze::{Bronze, NotAppended};
use crate::crew::{Crew, Turn};
use crate::ingest::{Arrival, Broker, Cadence, Gathered, Source, Task};
use crate::live::Fresh;
use crate::memory;
use crate::reload::Watch;
use crate::silver::{Landing, Loaded, Offer};
use crate::spans;
use crate::status::Status;
use crate::telemetry::{Stage, Stages};
use crate::transform::Host;

/// How a pipeline is to be run.
pub struct Run {
    /// What pipeline.toml says, now and later: changes are taken up while the daemon runs.
    pub pipeline: watch::Receiver<Arc<Pipeline>>,
    /// The brokers, if they are not those of `[source]`.
    pub broker: Option<Broker>,
    /// Paths of pipeline.toml count from here.
    pub base: PathBuf,
    /// What the plugins run in.
    pub host: Arc<Host>,
    /// Plugins that have been loaded already. The others are loaded by their workers.
    pub loaded: Loaded,
    /// Tells of new versions of plugins; `None`: what is loaded stays.
    pub watch: Option<Watch>,
    /// End when everything that was in the topic at the start is in the tables.
    pub drain: bool,
    /// Bytes of keys and values taken from Kafka.
    pub taken: Arc<AtomicU64>,
    /// Given the newest rows.
    pub fresh: Arc<Fresh>,
    /// Told what runs, as soon as it runs.
    pub status: watch::Sender<Option<Arc<Status>>>,
}

/// How long the Silver tables may take at the end to come to Bronze's end.
const PATIENCE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);

/// Reads the topic and writes the tables until it is told to stop, or the topic is drained.
pub async fn run(mut run: Run, stop: CancellationToken) -> anyhow::Result<()> {
    let stages = Arc::<Stages>::default();
    while let End::Anew = flow(&mut run, &stages, &stop).await? {
        info!("beginning anew with what pipeline.toml says now");
        run.loaded.clear();
    }
    info!("stopped after a last commit");
    Ok(())
}

async fn flow(run: &mut Run, stages: &Arc<Stages>, stop: &CancellationToken) -> anyhow::Result<End> {
    memory::calm();
    let pipeline = run.pipeline.borrow_and_update().clone();
    let mut bronze = Bronze::open(&run.base, &pipeline.bronze, stages.clone()).await?;
    let mut crew = Crew::start(run, pipeline, &bronze, stages).await?;
    let (mut failed, mut end, mut rush) = (None, End::Over, false);
    'sources: while !stop.is_cancelled() {
        let mut source = start_source(run, &bronze, &crew)?;
        loop {
            let arrival = tokio::select! {
                arrival = source.next() => arrival,
                pipeline = edited(&mut run.pipeline) => match crew.turn_to(run, pipeline, &bronze).await {
                    Turn::Done => continue,
                    Turn::Source => continue 'sources,
                    Turn::Everything => { end = End::Anew; break 'sources }
                },
                () = stop.cancelled(), if !source.stopping() => { source.stop(); continue }
            };
            let Gathered { chunk, full } = match arrival {
                Some(Arrival::Chunk(chunk)) => chunk,
                Some(Arrival::Drained) => break 'sources,
                None if source.stopping() => break 'sources,
                None => {
                    warn!("the Kafka thread ended by itself; connecting anew");
                    break;
                }
                Some(Arrival::Failed(failure)) if run.drain => {
                    failed = Some(failure);
                    break 'sources;
                }
                Some(Arrival::Failed(failure)) => {
                    warn!("kafka: {failure:#}; connecting anew");
                    break;
                }
            };
            // The chunk that ends a rush belongs to it.
            let backlog = full || rush;
            match (rush, full) {
                (false, true) => memory::rush(),
                (true, false) => drop(tokio::task::spawn_blocking(memory::calm)),
                (true, true) | (false, false) => {}
            }
            rush = full;
            let chunk = Arc::new(chunk);
            let span = spans::chunk(&crew.pipeline.source.topic, chunk.records.num_rows());
            let routing = || stages.measure(Stage::Route, || crew.router.route(chunk.values().iter()));
            let routes = spans::route(&span).in_scope(routing);
            crew.status.arrived(&chunk, routes.unrouted);

            let (landing, landed) = watch::channel(Landing::Pending);
            let routes: Vec<Arc<[u32]>> = routes.tables.into_iter().map(Arc::from).collect();
            let offers = crew.workers_of(&routes).map(|(worker, records)| {
                let (chunk, landing, span) = (chunk.clone(), landed.clone(), span.clone());
                worker.offer(Offer { chunk, records, landing, span }, backlog)
            });
            let append = async {
                let appended = spans::tell(spans::bronze_append(&span), bronze.append(&chunk, stop)).await;
                landing.send_replace(if appended.is_ok() { Landing::Landed } else { Landing::Abandoned });
                appended
            };
            // Beside Bronze: this chunk is written whatever the workers do.
            match tokio::join!(append, join_all(offers)).0 {
                Ok(()) => source.committed(&chunk.ranges),
                Err(NotAppended::Fenced) => break, // a new source resumes behind what the other daemon has written
                Err(NotAppended::Stopped) => break 'sources,
            }
        }
        drop(source);
        tokio::select! { () = tokio::time::sleep(RETRY) => {}, () = stop.cancelled() => {} }
    }
    let patience = match end {
        End::Anew => Duration::ZERO,
        End::Over if run.drain => Duration::MAX,
        End::Over => PATIENCE,
    };
    match (crew.finish(patience, stop).await, &end) {
        (Err(failure), End::Anew) => warn!("{failure:#}"),
        (finished, _) => finished?,
    }
    match failed {
        Some(failure) => Err(failure.context("drain the topic")),
        None => Ok(end),
    }
}

/// How a flow ends: for good, or to begin anew with another pipeline.
enum End {
    Over,
    Anew,
}

/// The pipeline, once it is another one.
pub async fn edited(pipeline: &mut watch::Receiver<Arc<Pipeline>>) -> Arc<Pipeline> {
    if pipeline.changed().await.is_err() {
        return std::future::pending().await; // nobody will ever edit it
    }
    pipeline.borrow_and_update().clone()
}

fn start_source(run: &Run, bronze: &Bronze, crew: &Crew) -> anyhow::Result<Source> {
    let (source, commit) = (&crew.pipeline.source, &crew.pipeline.commit);
    let cadence = Cadence {
        interval: Duration::from_millis(commit.interval_ms),
        rows_max: commit.rows_max,
        bytes_max: commit.bytes_max,
    };
    let of_source = || Broker { bootstrap: source.brokers.clone(), cluster_id: None };
    let task = Task {
        config: source.clone(),
        broker: run.broker.clone().unwrap_or_else(of_source),
        cadence,
        resume: bronze.resume(),
        drain: run.drain,
        stages: crew.stages.clone(),
        taken: run.taken.clone(),
        high: crew.high.clone(),
    };
    Source::start(task).context("start the Kafka consumer")
}
