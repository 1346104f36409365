//! Corrections: a Silver table's history, made anew from Bronze by the plugin of today, in one commit.
//!
//! ```text
//!   table at version v ─▶ Scope::plan: what goes, what stays ─▶ Bronze, or the quarantine ─▶ the plugin ─▶ files, in no commit
//!                                                                                                             │
//!   the quarantine: resolved rejects are marked ◀─ its new rejects follow ◀─ one commit: removes, adds, fence ◀┘
//! ```
//!
//! Readers see the old rows or the new ones, never some of both. A correction that is killed has changed nothing, or is
//! in whole; what is left then is a mark in the quarantine, which the next replay sets. Beside a running daemon a
//! correction covers the offsets that the table had at version `v`; what the daemon adds meanwhile stays.

mod history;
mod judge;
mod places;
mod resolve;
mod scope;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use deltalake_core::logstore::LogStoreRef;
use object_store::ObjectStoreExt;
use serde_json::{Value, json};
use silverd_core::account::Counts;
use silverd_core::config::{Pipeline, SilverTable};
use silverd_core::offsets::Ranges;
use silverd_core::route::Router;
use tracing::{debug, info};
use uuid::Uuid;

use crate::bronze::{self, ranges_json};
use crate::delta::{Change, CommitError, DataFile, Encoder, Lease, NewFile, Table};
use crate::side::{self, SideTable};
use crate::silver::{Dedup, properties, spec};
use crate::transform::{Plugin, Transformer};
use crate::{late, quarantine};

pub use history::made_by;
use judge::Made;
pub use places::{Coordinates, Places};
pub use resolve::{Waiting, waiting};
use scope::Plan;
pub use scope::{OF_RECORDS, OF_ROWS, Scope};

/// The application id that keeps the corrections of a table apart.
const CORRECTIONS: &str = "silverd-corrections";
/// How often a commit is tried again behind those of a running daemon.
const COMMIT_TRIES_MAX: usize = 50;
/// How often a correction that another writer has overtaken is made from its beginning.
const TRIES_MAX: usize = 5;

/// What kind of correction, as the commit's info names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Rebuild,
    Undo,
    Replay,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Rebuild => "rebuild",
            Kind::Undo => "undo",
            Kind::Replay => "replay",
        }
    }
}

/// A table under correction.
pub struct Correction {
    config: SilverTable,
    index: usize,
    rows_max: usize,
    bytes_max: usize,
    router: Router,
    bronze: LogStoreRef,
    table: Table,
    /// The table's files at the version from which the correction starts.
    files: Vec<DataFile>,
    transformer: Transformer,
    encoder: Encoder,
    dedup: Option<Dedup>,
    quarantine: Arc<SideTable>,
    late: Option<Arc<SideTable>>,
    /// Keeps the merging of small files out of its way.
    _lease: Lease,
}

/// What a correction did, or would do.
#[derive(Debug, Default)]
pub struct Outcome {
    /// `None` where nothing was to be done, or it was a rehearsal.
    pub version: Option<u64>,
    pub counts: Counts,
    /// Rows that went, without those that were only moved into another file.
    pub removed: u64,
    /// Rejects that are new in the quarantine, and those there that are resolved now.
    pub quarantined: u64,
    pub resolved: u64,
}

/// Why a correction is to be started over.
#[derive(Debug, thiserror::Error)]
#[error("table {0} was changed by another writer meanwhile: nothing was replaced. Run the command again")]
pub struct StartOver(String);

/// Makes a correction, and some times over if another writer has overtaken it.
pub async fn undisturbed<T>(table: &str, attempt: impl AsyncFn() -> anyhow::Result<T>) -> anyhow::Result<T> {
    for _ in 1..TRIES_MAX {
        match attempt().await {
            Err(failure) if failure.is::<StartOver>() => {
                info!(table, "another writer was in between; starting over");
            }
            result => return result,
        }
    }
    attempt().await
}

/// Told how many offsets were judged, of how many.
pub type Progress<'p> = &'p mut (dyn FnMut(u64, u64) + Send);

impl Correction {
    pub async fn open(pipeline: &Pipeline, base: &Path, index: usize, plugin: Arc<Plugin>) -> anyhow::Result<Self> {
        let config = pipeline.silver[index].clone();
        let spec = spec(&config, &plugin.schema, base);
        if !spec.path.join("_delta_log").is_dir() {
            bail!("table {} is not there yet: `silverd run` makes it", config.name);
        }
        let lease = Lease::with_others(&spec.path, &config.name).await?;
        let bronze = Table::open(&bronze::spec(base.join(&*pipeline.bronze.path))).await?.log();
        let mut table = Table::open(&spec).await?;
        let schema = table.layout()?;
        let properties = properties(&config.compression, &plugin.schema)?;
        let encoder = Encoder::new(schema.clone(), properties, &config.compression);
        table.widen(&encoder).await?;
        let files = table.files().await?;
        let quarantine = SideTable::open(&quarantine::KIND, base.join(&*pipeline.quarantine.path)).await?;
        let late = match config.late_after_ms {
            Some(_) => Some(Arc::new(SideTable::open(&late::KIND, base.join(&*pipeline.late.path)).await?)),
            None => None,
        };
        quarantine.settle(&table).await?;
        Ok(Self {
            index,
            rows_max: pipeline.commit.rows_max,
            bytes_max: pipeline.commit.bytes_max,
            router: Router::new(&pipeline.silver),
            bronze,
            dedup: Dedup::open(&config, &schema, table.log()).await?,
            encoder,
            table,
            files,
            transformer: Transformer::new(plugin),
            quarantine: Arc::new(quarantine),
            late,
            config,
            _lease: lease,
        })
    }

    /// Judges the events of a scope anew from Bronze, and puts what comes of them in the place of their rows.
    ///
    /// A rehearsal writes files, which nobody will ever read, and no commit.
    pub async fn rebuild(
        mut self,
        kind: Kind,
        scope: Scope,
        rehearsal: bool,
        progress: Progress<'_>,
    ) -> anyhow::Result<Outcome> {
        let ranges = match &scope {
            Scope::Events(events) => events.bounds(),
            _ => silverd_core::offsets::missing(&Default::default(), &self.table.offsets()),
        };
        // Rows that are made anew were listed as late when they came.
        self.late = None;
        let plan = scope.plan(&self.table, &self.files).await?;
        self.dedup = self.dedup.take().map(|dedup| dedup.for_correction(plan.gone.clone()));
        let waiting = waiting(&self.quarantine, &self.config.name, None).await?;
        let made = self.judge_bronze(&scope, &plan, &waiting, &ranges, progress).await?;
        self.finish(kind, Some(&scope), ranges, plan, made, rehearsal).await
    }

    /// Judges quarantined events anew. Those that pass become rows.
    pub async fn replay(mut self, waiting: Waiting, progress: Progress<'_>) -> anyhow::Result<Outcome> {
        let places = waiting.places.clone();
        self.dedup = self.dedup.take().map(|dedup| dedup.for_correction(Places::default()));
        let there = self.rows_of(&places).await?;
        let made = self.judge_waiting(waiting, &there, progress).await?;
        let plan = Plan::default();
        self.finish(Kind::Replay, None, places.bounds(), plan, made, false).await
    }

    /// Those of some events that have rows in the table.
    async fn rows_of(&self, events: &Places) -> anyhow::Result<Places> {
        let mut there = Places::default();
        for file in &self.files {
            scope::each(&self.table, file, |at| there.insert_some(at, &events.mask(at))).await?;
        }
        Ok(there)
    }

    async fn finish(
        mut self,
        kind: Kind,
        scope: Option<&Scope>,
        ranges: Ranges,
        plan: Plan,
        made: Made,
        rehearsal: bool,
    ) -> anyhow::Result<Outcome> {
        let mut outcome = Outcome {
            version: None,
            counts: made.counts,
            removed: plan.removed - plan.kept,
            quarantined: made.rejects.iter().map(|batch| batch.num_rows() as u64).sum(),
            resolved: made.resolved.len(),
        };
        if rehearsal {
            return Ok(outcome);
        }
        let (kept, removed) = (plan.kept, plan.removed);
        let plugin = self.transformer.plugin();
        let mut info = json!({
            "correction": {
                "id": Uuid::new_v4().to_string(),
                "kind": kind.name(),
                "ranges": ranges_json(&ranges),
                "counts": made.counts,
                "quarantined": outcome.quarantined,
                "removed": removed,
                "kept": kept,
            },
            "plugin": { "interface": plugin.schema.interface, "digest": plugin.digest.as_str() },
        });
        if let Some(Scope::Days(days)) = scope {
            info["correction"]["days"] = json!([days.start(), days.end()]);
        }
        let adds: Vec<NewFile> = plan.adds.into_iter().chain(made.adds).collect();
        let nothing = adds.is_empty() && plan.removes.is_empty() && made.rejects.is_empty();
        if !nothing {
            let version = self.commit(adds, plan.removes, info, &made.rejects, &made.late).await?;
            outcome.version = Some(version);
        }
        resolve::mark(&self.quarantine, &self.config.name, &made.resolved).await.context("mark resolved rejects")?;
        Ok(outcome)
    }

    /// One commit, behind whatever a running daemon commits meanwhile.
    async fn commit(
        &mut self,
        adds: Vec<NewFile>,
        removes: Vec<DataFile>,
        mut info: Value,
        rejects: &[RecordBatch],
        late: &[RecordBatch],
    ) -> anyhow::Result<u64> {
        let number = self.table.transaction(CORRECTIONS).unwrap_or(0) + 1;
        let mut put = Vec::new();
        for (side, rows) in [(Some(&self.quarantine), rejects), (self.late.as_ref(), late)] {
            if let (Some(side), Some(first)) = (side, rows.first()) {
                put.push(side.put(concat_batches(&first.schema(), rows)?).await?);
            }
        }
        self.are_there(&adds).await?;
        for _ in 0..COMMIT_TRIES_MAX {
            let mut fence = vec![(CORRECTIONS.to_owned(), number)];
            let announced = side::announce(put.clone(), &self.table, &mut fence, &mut info)?;
            let change = Change {
                adds: adds.clone(),
                removes: removes.clone(),
                progress: fence,
                info: info.clone(),
                decided_by_rows: self.dedup.is_some(),
                ..Change::default()
            };
            let failure = match self.table.commit(change).await {
                Ok(committed) => {
                    side::follow(announced, &self.table).await?;
                    return Ok(committed.version);
                }
                Err(failure) => failure,
            };
            debug!(table = %self.config.name, "commit the correction: {failure}");
            if self.landed(number, &info).await? {
                side::follow(announced, &self.table).await?;
                return Ok(self.table.version());
            }
            self.still_stands(number, &removes, &failure).await?;
        }
        Err(StartOver(self.config.name.to_string()).into())
    }

    /// A correction may take hours, in which its files are in no commit: somebody may have swept them away.
    async fn are_there(&self, adds: &[NewFile]) -> anyhow::Result<()> {
        let store = self.table.store();
        for file in adds {
            let there = store.head(&file.path().into()).await;
            there.with_context(|| {
                format!(
                    "look for {}, which this correction wrote (a VACUUM by another engine may have removed it); nothing \
                     was replaced. Run the command again",
                    file.path()
                )
            })?;
        }
        Ok(())
    }

    /// After an error: whether the commit is in all the same. Reads the log anew.
    async fn landed(&mut self, number: i64, info: &Value) -> anyhow::Result<bool> {
        self.table.reload().await?;
        if self.table.transaction(CORRECTIONS) < Some(number) {
            return Ok(false);
        }
        let found = self.table.info_of(CORRECTIONS, number).await?.unwrap_or_default();
        Ok(found["correction"]["id"] == info["correction"]["id"])
    }

    /// Whether what others have committed since leaves the correction right.
    async fn still_stands(&mut self, number: i64, removes: &[DataFile], failure: &CommitError) -> anyhow::Result<()> {
        let name = self.config.name.to_string();
        if matches!(failure, CommitError::Changed(_)) {
            bail!("the columns of table {name} were changed meanwhile: nothing was replaced. Run the command again");
        }
        let known: HashSet<_> = self.files.iter().map(|file| file.path.clone()).collect();
        let now = self.table.files().await?;
        let live: HashSet<_> = now.iter().map(|file| &file.path).collect();
        let other_correction = self.table.transaction(CORRECTIONS).unwrap_or(0) >= number;
        if other_correction || removes.iter().any(|file| !live.contains(&file.path)) {
            return Err(StartOver(name).into());
        }
        if let Some(dedup) = &mut self.dedup {
            let new: Vec<DataFile> = now.iter().filter(|file| !known.contains(&file.path)).cloned().collect();
            if dedup.meets(&new).await? {
                return Err(StartOver(name).into());
            }
        }
        // What was looked at need not be looked at again.
        self.files = now;
        Ok(())
    }
}
