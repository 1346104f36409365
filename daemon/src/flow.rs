//! The whole way of the data, on one screen.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Context;
use futures::future::join_all;
use silverd_core::config::Pipeline;
use silverd_core::route::Router;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::bronze::{Bronze, NotAppended};
use crate::ingest::{Arrival, Broker, Cadence, Gathered, High, Source, Task};
use crate::live::Fresh;
use crate::side::SideTable;
use crate::silver::{self, Landing, Loaded, Offer, Worker};
use crate::status::Status;
use crate::telemetry::{Stage, Stages};
use crate::transform::Host;
use crate::{late, memory, quarantine};

/// How a pipeline is to be run.
pub struct Run {
    pub pipeline: Pipeline,
    pub broker: Broker,
    /// Paths of pipeline.toml count from here.
    pub base: PathBuf,
    /// What the plugins run in.
    pub host: Arc<Host>,
    /// Plugins that have been loaded already. The others are loaded by their workers.
    pub loaded: Loaded,
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
pub async fn run(run: Run, stop: CancellationToken) -> anyhow::Result<()> {
    let stages = Arc::<Stages>::default();
    let router = Arc::new(Router::new(&run.pipeline.silver));
    let mut bronze = Bronze::open(&run.base, &run.pipeline.bronze, stages.clone()).await?;
    let sides = Sides::open(&run).await?;
    let workers = start_workers(&run, &bronze, &sides, &router, &stages)?;
    let high = Arc::<High>::default();
    let status = Arc::new(Status::new(&bronze, &sides.quarantine, &workers, high.clone(), stages.clone()));
    run.status.send_replace(Some(status.clone()));

    let (mut failed, mut rush) = (None, false);
    'sources: while !stop.is_cancelled() {
        let mut source = start_source(&run, &bronze, &high, &stages)?;
        loop {
            let arrival = tokio::select! {
                arrival = source.next() => arrival,
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
            let backlog = std::mem::replace(&mut rush, full) || full;
            if backlog && !full {
                tokio::task::spawn_blocking(memory::give_back);
            }
            let chunk = Arc::new(chunk);
            let routes = stages.measure(Stage::Route, || router.route(chunk.values().iter()));
            status.arrived(&chunk, routes.unrouted);

            let (landing, landed) = watch::channel(Landing::Pending);
            let offer = Offer { chunk: chunk.clone(), routes: Arc::new(routes.tables), landing: landed };
            let append = async {
                let appended = bronze.append(&chunk, &stop).await;
                landing.send_replace(if appended.is_ok() { Landing::Landed } else { Landing::Abandoned });
                appended
            };
            // Beside Bronze: this chunk is written whatever the workers do.
            let offers = join_all(workers.iter().map(|worker| worker.offer(&offer, backlog)));
            match tokio::join!(append, offers).0 {
                Ok(()) => source.committed(&chunk.ranges),
                Err(NotAppended::Fenced) => break, // a new source resumes behind what the other daemon has written
                Err(NotAppended::Stopped) => break 'sources,
            }
        }
        drop(source);
        tokio::select! { () = tokio::time::sleep(RETRY) => {}, () = stop.cancelled() => {} }
    }
    finish(workers, if run.drain { Duration::MAX } else { PATIENCE }, &stop).await?;
    if let Some(failure) = failed {
        return Err(failure.context("drain the topic"));
    }
    info!("stopped after a last commit");
    Ok(())
}

/// The tables beside Silver, shared by all workers.
struct Sides {
    quarantine: Arc<SideTable>,
    late: Option<Arc<SideTable>>,
}

impl Sides {
    async fn open(run: &Run) -> anyhow::Result<Self> {
        let (base, pipeline) = (&run.base, &run.pipeline);
        let quarantine = SideTable::open(&quarantine::KIND, base.join(&*pipeline.quarantine.path)).await?;
        let late = match pipeline.silver.iter().any(|table| table.late_after_ms.is_some()) {
            true => Some(Arc::new(SideTable::open(&late::KIND, base.join(&*pipeline.late.path)).await?)),
            false => None,
        };
        Ok(Self { quarantine: Arc::new(quarantine), late })
    }
}

fn start_workers(
    run: &Run,
    bronze: &Bronze,
    sides: &Sides,
    router: &Arc<Router>,
    stages: &Arc<Stages>,
) -> anyhow::Result<Vec<Worker>> {
    let shared = silver::Shared {
        host: run.host.clone(),
        loaded: run.loaded.clone(),
        limits: run.pipeline.limits.clone(),
        router: router.clone(),
        quarantine: sides.quarantine.clone(),
        late: sides.late.clone(),
        bronze: bronze.log(),
        head: bronze.head(),
        rows_max: run.pipeline.commit.rows_max,
        bytes_max: run.pipeline.commit.bytes_max,
        stages: stages.clone(),
        fresh: run.fresh.clone(),
        base: run.base.clone(),
    };
    let tables = run.pipeline.silver.iter().enumerate();
    tables.map(|(index, table)| Worker::start(table, index, shared.clone())).collect()
}

fn start_source(run: &Run, bronze: &Bronze, high: &Arc<High>, stages: &Arc<Stages>) -> anyhow::Result<Source> {
    let commit = &run.pipeline.commit;
    let cadence = Cadence {
        interval: Duration::from_millis(commit.interval_ms),
        rows_max: commit.rows_max,
        bytes_max: commit.bytes_max,
    };
    let task = Task {
        config: run.pipeline.source.clone(),
        broker: run.broker.clone(),
        cadence,
        resume: bronze.resume(),
        drain: run.drain,
        stages: stages.clone(),
        taken: run.taken.clone(),
        high: high.clone(),
    };
    Source::start(task).context("start the Kafka consumer")
}

/// Ends every worker, and gives the first failure.
async fn finish(workers: Vec<Worker>, patience: Duration, stop: &CancellationToken) -> anyhow::Result<()> {
    let ends = workers.into_iter().map(|worker| worker.finish(patience, stop.clone()));
    join_all(ends).await.into_iter().collect()
}
