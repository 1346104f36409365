//! Who works on a pipeline's Silver tables: one worker for each, the tables beside them, and how they change with
//! pipeline.toml.

use std::collections::BTreeMap;
use std::future::ready;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use silverd_core::config::diff::{Changes, TableChange};
use silverd_core::config::{Pipeline, SilverTable, TableName};
use silverd_core::route::Router;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::bronze::Bronze;
use crate::flow::Run;
use crate::ingest::High;
use crate::side::SideTable;
use crate::silver::{Loaded, Shared, Worker};
use crate::status::Status;
use crate::telemetry::Stages;
use crate::{late, quarantine};

/// The workers of a pipeline, in its order.
pub struct Crew {
    pub pipeline: Arc<Pipeline>,
    pub router: Router,
    pub workers: Vec<Worker>,
    pub status: Arc<Status>,
    pub high: Arc<High>,
    pub stages: Arc<Stages>,
    sides: Sides,
    unrouted: Arc<AtomicU64>,
    /// Workers of tables that pipeline.toml has no more.
    leaving: JoinSet<()>,
}

/// The tables beside Silver, shared by all workers.
pub struct Sides {
    quarantine: Arc<SideTable>,
    late: Option<Arc<SideTable>>,
}

/// How much of the flow must begin anew for a change of pipeline.toml.
pub enum Turn {
    Done,
    Source,
    Everything,
}

impl Crew {
    pub async fn start(
        run: &Run,
        pipeline: Arc<Pipeline>,
        bronze: &Bronze,
        stages: &Arc<Stages>,
    ) -> anyhow::Result<Self> {
        let sides = Sides::open(&run.base, &pipeline).await?;
        let (high, unrouted) = (Arc::<High>::default(), Arc::<AtomicU64>::default());
        let status = Status::new(bronze, &sides.quarantine, &[], high.clone(), stages.clone(), unrouted.clone());
        let mut crew = Self {
            router: Router::new(&pipeline.silver),
            pipeline,
            workers: Vec::new(),
            status: Arc::new(status),
            high,
            stages: stages.clone(),
            sides,
            unrouted,
            leaving: JoinSet::new(),
        };
        let shared = crew.shared(run, bronze, run.loaded.clone());
        let start = |table| Worker::start(table, shared.clone(), ready(()));
        crew.workers = crew.pipeline.silver.iter().map(start).collect::<anyhow::Result<_>>()?;
        crew.show(run, bronze);
        Ok(crew)
    }

    fn shared(&self, run: &Run, bronze: &Bronze, loaded: Loaded) -> Shared {
        Shared {
            host: run.host.clone(),
            loaded,
            pipeline: self.pipeline.clone(),
            limits: self.pipeline.limits.clone(),
            watch: run.watch.clone(),
            anew: false,
            quarantine: self.sides.quarantine.clone(),
            late: self.sides.late.clone(),
            bronze: bronze.log(),
            head: bronze.head(),
            rows_max: self.pipeline.commit.rows_max,
            bytes_max: self.pipeline.commit.bytes_max,
            stages: self.stages.clone(),
            fresh: run.fresh.clone(),
            base: run.base.clone(),
        }
    }

    /// Tells those who watch what runs now.
    fn show(&mut self, run: &Run, bronze: &Bronze) {
        let (high, stages, unrouted) = (self.high.clone(), self.stages.clone(), self.unrouted.clone());
        self.status = Arc::new(Status::new(bronze, &self.sides.quarantine, &self.workers, high, stages, unrouted));
        run.status.send_replace(Some(self.status.clone()));
    }

    /// The workers, each with what the router has found for its table.
    pub fn workers_of<R: Clone>(&self, routes: &[R]) -> impl Iterator<Item = (&Worker, R)> {
        let tables = self.pipeline.silver.iter().zip(routes);
        tables.filter_map(|(table, records)| {
            let worker = self.workers.iter().find(|worker| worker.name == table.name)?;
            Some((worker, records.clone()))
        })
    }

    /// Turns to another pipeline, and says what the flow must do for it. Workers that it does not concern go on.
    pub async fn turn_to(&mut self, run: &Run, pipeline: Arc<Pipeline>, bronze: &Bronze) -> Turn {
        let changes = Changes::between(&self.pipeline, &pipeline);
        if changes.all {
            return Turn::Everything;
        }
        if self.sides.late.is_none() {
            match Sides::late(&run.base, &pipeline).await {
                Ok(late) => self.sides.late = late,
                Err(failure) => {
                    error!("pipeline.toml: {failure:#}. Nothing was changed: silverd goes on with what it had");
                    return Turn::Done;
                }
            }
        }
        let before = std::mem::replace(&mut self.pipeline, pipeline);
        self.router = Router::new(&self.pipeline.silver);
        self.turn_workers(run, bronze, &before, &changes);
        self.show(run, bronze);
        if changes.source { Turn::Source } else { Turn::Done }
    }

    fn turn_workers(&mut self, run: &Run, bronze: &Bronze, old: &Pipeline, changes: &Changes) {
        let shared = self.shared(run, bronze, Loaded::new());
        let mut before: BTreeMap<TableName, Worker> =
            std::mem::take(&mut self.workers).into_iter().map(|worker| (worker.name.clone(), worker)).collect();
        for table in &self.pipeline.silver {
            let worker = match (before.remove(&table.name), changes.of(&table.name)) {
                (Some(worker), Some(TableChange::Restarted)) => {
                    let same = |was: &SilverTable| was.name == table.name && was.plugin == table.plugin;
                    let shared = Shared { anew: !old.silver.iter().any(same), ..shared.clone() };
                    Worker::start(table, shared, worker.replace())
                }
                (Some(worker), _) => {
                    worker.want(table, &self.pipeline.reload);
                    Ok(worker)
                }
                (None, _) => Worker::start(table, shared.clone(), ready(())),
            };
            match worker {
                Ok(worker) => self.workers.push(worker),
                Err(failure) => error!(table = %table.name, "start its worker: {failure:#}; bronze goes on without it"),
            }
        }
        for (_, worker) in before {
            self.leaving.spawn(worker.replace());
        }
    }

    /// Ends every worker, and gives the first failure.
    pub async fn finish(mut self, patience: Duration, stop: &CancellationToken) -> anyhow::Result<()> {
        let ends = self.workers.into_iter().map(|worker| worker.finish(patience, stop.clone()));
        let ended = futures::future::join_all(ends).await;
        while self.leaving.join_next().await.is_some() {}
        ended.into_iter().collect()
    }
}

impl Sides {
    pub async fn open(base: &Path, pipeline: &Pipeline) -> anyhow::Result<Self> {
        let quarantine = SideTable::open(&quarantine::KIND, base.join(&*pipeline.quarantine.path)).await?;
        Ok(Self { quarantine: Arc::new(quarantine), late: Self::late(base, pipeline).await? })
    }

    /// The list of late events, if a table asks for one.
    pub async fn late(base: &Path, pipeline: &Pipeline) -> anyhow::Result<Option<Arc<SideTable>>> {
        match pipeline.silver.iter().any(|table| table.late_after_ms.is_some()) {
            true => Ok(Some(Arc::new(SideTable::open(&late::KIND, base.join(&*pipeline.late.path)).await?))),
            false => Ok(None),
        }
    }
}
