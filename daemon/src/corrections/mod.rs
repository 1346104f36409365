//! Corrections: replace rows of a Silver table by what a plugin version returns for the same events, in one commit. That is
//! the current version, or the one that served at an earlier time.
//!
//! ```text
//!   the table at version v ─▶ Scope::plan: which rows are removed and kept
//!      ─▶ the events, from Bronze or the quarantine ─▶ the plugin ─▶ files that are not committed yet
//!      ─▶ gold.day_status: the days of these files are provisional, if they were final
//!      ─▶ one commit { removed files, added files, txn silverd-corrections }
//!      ─▶ the quarantine: new rejects are published, resolved events are marked
//! ```
//!
//! Readers see the old rows or the new ones, never a mixture. A correction that is killed has changed nothing or
//! everything, except for the marks in the quarantine, which the next replay sets. While a daemon runs, a correction
//! covers the offsets that the table had at version `v`; the rows that the daemon adds in the meantime stay.
//!
//! A table whose days are those of another zone than pipeline.toml says takes one correction, too: a rebuild of
//! everything, which gives all rows their days in the new zone.
//!
//! A table whose log has lost its progress takes one correction, a rebuild of everything, which sets the progress again.

mod commit;
mod doubled;
mod error;
mod history;
mod lost_progress;
mod quarantined;
mod row_writers;
mod scope;
mod transform;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use deltalake_core::logstore::LogStoreRef;
use serde_json::{Value, json};
use silverd_core::config::{Pipeline, SilverTable};
use silverd_core::counts::Counts;
use silverd_core::offsets::{Offsets, missing};
use silverd_core::route::Router;
use silverd_core::zone::Zone;
use uuid::Uuid;

use crate::bronze::{self, ranges_json};
use crate::day_status::{CorrectionMark, DayLedger};
use crate::delta::{DataFile, Encoder, NewFile, Table, TableLock, is_table};
use crate::gold::day_ledger;
use crate::plugin::{Plugin, Transformer};
use crate::tables::dedup::Dedup;
use crate::tables::event_set::EventSet;
use crate::tables::side_output::{SideOutput, SideOutputKind};
use crate::tables::silver::{properties, table_spec};
use crate::tables::{late, quarantine};

pub(crate) use error::{CorrectionError, retry_on_conflict};
pub(crate) use history::{VersionPrefix, Written, events_made_again, events_written_by};
pub(crate) use quarantined::{QuarantinedEvents, Resolved};
use row_writers::event_ranges_json;
use scope::Plan;
pub(crate) use scope::Scope;
use transform::CorrectionOutput;

/// The kind of a correction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Of everything, or of some days.
    Rebuild,
    /// Of the events that one plugin version wrote.
    Undo,
    /// Of quarantined events.
    Replay,
}

/// A table that is corrected.
pub(crate) struct Correction {
    config: SilverTable,
    /// The index of the table in the router.
    index: usize,
    rows_max: usize,
    bytes_max: usize,
    router: Router,
    bronze: LogStoreRef,
    table: Table,
    /// The table's files at the version at which the correction started.
    files: Vec<DataFile>,
    transformer: Transformer,
    encoder: Encoder,
    dedup: Option<Dedup>,
    quarantine: Arc<SideOutput>,
    late: Option<Arc<SideOutput>>,
    /// The folders of both side outputs, whether the table has late events or not.
    side_outputs: [(&'static SideOutputKind, PathBuf); 2],
    /// The plugin is the one that served at this time, in milliseconds.
    as_of_ms: Option<i64>,
    /// Rows whose events Bronze has lost are removed, too.
    removes_lost: bool,
    /// The application ids that the commit sets again, if the table's log has lost some.
    restored: Option<Vec<(String, i64)>>,
    /// Late events that are listed already.
    listed_late: EventSet,
    days: DayLedger,
    /// Keeps days of the table from becoming final.
    _mark: CorrectionMark,
    /// Keeps maintenance from compacting the files.
    _lock: TableLock,
}

/// What a correction changed, or would change.
#[derive(Debug, Default)]
pub(crate) struct CorrectionSummary {
    /// The version of the commit; `None` after a dry run, and if there was nothing to change.
    pub(crate) version: Option<u64>,
    pub(crate) counts: Counts,
    /// The replaced rows, without rows that only moved to another file.
    pub(crate) rows_replaced: u64,
    /// Events that are new in the quarantine.
    pub(crate) quarantined: u64,
    /// Quarantined events that are resolved now.
    pub(crate) resolved: u64,
    /// The table's log had lost its progress, which is set again.
    pub(crate) restores_progress: bool,
    /// The table had the days of another zone, and has those of this one now.
    pub(crate) moved_to: Option<Zone>,
    /// Events whose rows are removed, and of which Bronze has no record.
    pub(crate) not_in_bronze: NotInBronze,
    /// Side outputs that had rows of the table twice, and how many of these are removed.
    pub(crate) doubled: Vec<(&'static str, u64)>,
}

/// Events whose rows a correction removes, and of which Bronze has no record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NotInBronze {
    /// silverd cannot have written their rows.
    pub(crate) foreign: u64,
    /// silverd may have written their rows, which can be made no more.
    pub(crate) lost: u64,
}

/// Called with the number of offsets that were transformed, and their total.
pub(crate) type Progress<'p> = &'p mut (dyn FnMut(u64, u64) + Send);

impl Kind {
    /// The name in the commit's info.
    fn name(self) -> &'static str {
        match self {
            Kind::Rebuild => "rebuild",
            Kind::Undo => "undo",
            Kind::Replay => "replay",
        }
    }
}

impl Correction {
    /// Opens table `index` of the pipeline.
    pub(crate) async fn open(
        pipeline: &Pipeline,
        base_dir: &Path,
        index: usize,
        plugin: Arc<Plugin>,
    ) -> anyhow::Result<Self> {
        let config = pipeline.silver[index].clone();
        let spec = table_spec(&config, &plugin.schema, base_dir);
        if !is_table(&spec.path) {
            bail!("table {} does not exist yet: `silverd run` creates it", config.name);
        }
        let lock = TableLock::shared(&spec.path, &config.name).await?;
        let days = day_ledger(pipeline, base_dir);
        let mark = days.mark_correction(&config.name).await?;
        let bronze = Table::open(&bronze::table_spec(base_dir.join(&*pipeline.bronze.path))).await?.log();
        let mut table = Table::open_in_any_zone(&spec).await?;
        table.check_removal()?;
        let schema = table.layout()?;
        let properties = properties(&config.compression, &plugin.schema)?;
        let encoder = Encoder::new(schema.clone(), properties, &config.compression);
        table.widen(&encoder).await?;
        let files = table.files().await?;
        let quarantine_path = base_dir.join(&*pipeline.quarantine.path);
        let late_path = base_dir.join(&*pipeline.late.path);
        let quarantine = SideOutput::open(&quarantine::KIND, quarantine_path.clone()).await?;
        let late = match config.late_after_ms {
            Some(_) => Some(Arc::new(SideOutput::open(&late::KIND, late_path.clone()).await?)),
            None => None,
        };
        quarantine.check_progress().await?;
        if let Some(late) = &late {
            late.check_progress().await?;
        }
        quarantine.recover(&table).await?;
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
            side_outputs: [(&quarantine::KIND, quarantine_path), (&late::KIND, late_path)],
            as_of_ms: None,
            removes_lost: false,
            restored: None,
            listed_late: EventSet::default(),
            config,
            days,
            _mark: mark,
            _lock: lock,
        })
    }

    /// Lets the commit say that the plugin is the one that served at this time.
    pub(crate) fn made_as_of(self, as_of_ms: Option<i64>) -> Self {
        Self { as_of_ms, ..self }
    }

    /// Lets a rebuild remove rows whose events Bronze has lost.
    pub(crate) fn removing_lost(self, removes_lost: bool) -> Self {
        Self { removes_lost, ..self }
    }

    /// Transforms the events of a scope again, read from Bronze, and replaces their rows.
    ///
    /// A dry run writes files that nobody reads, and commits nothing.
    pub(crate) async fn rebuild(
        mut self,
        kind: Kind,
        scope: Scope,
        dry_run: bool,
        progress: Progress<'_>,
    ) -> Result<CorrectionSummary, CorrectionError> {
        let restores_progress = self.table.lost_transactions() > 0 && matches!(scope, Scope::Everything);
        if !restores_progress {
            self.table.check_progress()?;
            // Late events were listed when they arrived.
            self.late = None;
        }
        if !matches!(scope, Scope::Everything) {
            self.table.check_zone()?;
        }
        let plan = scope.plan(&self.table, &self.files).await?;
        if restores_progress {
            self.restore_progress(&plan).await?;
        }
        let ranges = match &scope {
            Scope::Events(events) => events.bounds(),
            Scope::Everything | Scope::Days(_) => missing(&Offsets::default(), &self.table.offsets()),
        };
        let mut correction = json!({ "kind": kind.name(), "ranges": ranges_json(&ranges) });
        match &scope {
            Scope::Everything => {}
            Scope::Events(events) => correction["event_ranges"] = event_ranges_json(&self.config.name, events)?,
            Scope::Days(days) => correction["days"] = json!([days.start(), days.end()]),
        }
        let for_correction = |dedup: Dedup| dedup.for_correction(plan.removed_events.clone(), &plan.removed_whole);
        self.dedup = self.dedup.take().map(for_correction);
        let quarantined = QuarantinedEvents::positions(&self.quarantine, &self.config.name, None).await?;
        let quarantined = QuarantinedEvents::without_rows(quarantined);
        let output = self.transform_bronze(&scope, &plan, &quarantined, &ranges, progress).await?;
        if matches!(scope, Scope::Days(_)) {
            correction["moved"] = event_ranges_json(&self.config.name, &output.moved)?;
        }
        let (mut summary, resolved) = self.finish(correction, plan, output, dry_run).await?;
        if !dry_run {
            self.mark(&resolved).await?;
        }
        if matches!(scope, Scope::Everything) {
            summary.doubled = self.remove_doubled(dry_run).await?;
        }
        Ok(summary)
    }

    /// Transforms quarantined events again. Those that are accepted become rows.
    pub(crate) async fn replay(
        mut self,
        quarantined: &QuarantinedEvents,
        progress: Progress<'_>,
    ) -> Result<CorrectionSummary, CorrectionError> {
        let (summary, resolved) = self.transform_again(quarantined, progress).await?;
        self.mark(&resolved).await?;
        Ok(summary)
    }

    /// Transforms quarantined events that no table took, if this one takes them now and has passed their offsets. The
    /// caller marks those that are resolved.
    pub(crate) async fn replay_unrouted(
        mut self,
        unrouted: &QuarantinedEvents,
        progress: Progress<'_>,
    ) -> Result<(CorrectionSummary, Resolved), CorrectionError> {
        self.table.check_progress()?;
        let mut passed = unrouted.routed_to(&self.router, self.index, Some(&self.table.offsets()))?;
        if passed.len() == 0 {
            return Ok(Default::default());
        }
        let rejected = QuarantinedEvents::positions(&self.quarantine, &self.config.name, None).await?;
        passed.rejected_before = Some(rejected);
        self.transform_again(&passed, progress).await
    }

    async fn transform_again(
        &mut self,
        quarantined: &QuarantinedEvents,
        progress: Progress<'_>,
    ) -> Result<(CorrectionSummary, Resolved), CorrectionError> {
        self.table.check_progress()?;
        self.table.check_zone()?;
        self.dedup = self.dedup.take().map(|dedup| dedup.for_correction(EventSet::default(), &[]));
        let with_rows = self.events_with_rows(&quarantined.events).await?;
        let output = self.transform_quarantined(quarantined, &with_rows, progress).await?;
        let accepted = output.resolved.events().without(&with_rows);
        let correction = json!({
            "kind": Kind::Replay.name(),
            "ranges": ranges_json(&quarantined.events.bounds()),
            "event_ranges": event_ranges_json(&self.config.name, &accepted)?,
        });
        self.finish(correction, Plan::default(), output, false).await
    }

    /// Which of these events have rows in the table.
    async fn events_with_rows(&self, events: &EventSet) -> anyhow::Result<EventSet> {
        let mut found = EventSet::default();
        for file in &self.files {
            scope::read_coordinates(self.table.store(), file, |rows| found.insert_some(rows, &events.mask(rows)))
                .await?;
        }
        Ok(found)
    }

    async fn mark(&self, resolved: &Resolved) -> anyhow::Result<()> {
        let marked = resolved.mark(&self.quarantine, &self.config.name).await;
        marked.context("mark resolved events in the quarantine")
    }

    /// Commits the output, and returns what it resolves. `correction` is what the commit's info says of the events.
    async fn finish(
        &mut self,
        mut correction: Value,
        plan: Plan,
        output: CorrectionOutput,
        dry_run: bool,
    ) -> Result<(CorrectionSummary, Resolved), CorrectionError> {
        let mut summary = CorrectionSummary {
            version: None,
            counts: output.counts,
            rows_replaced: plan.rows_removed - plan.rows_kept,
            quarantined: output.rejects.iter().map(|batch| batch.num_rows() as u64).sum(),
            resolved: output.resolved.len(),
            restores_progress: self.restored.is_some(),
            moved_to: self.table.moves_to(),
            not_in_bronze: output.not_in_bronze,
            doubled: Vec::new(),
        };
        if dry_run {
            return Ok((summary, output.resolved));
        }
        correction["id"] = json!(Uuid::new_v4().to_string());
        correction["counts"] = json!(output.counts);
        correction["quarantined"] = json!(summary.quarantined);
        correction["removed"] = json!(plan.rows_removed);
        correction["kept"] = json!(plan.rows_kept);
        if let Some(as_of_ms) = self.as_of_ms {
            correction["as_of"] = json!(as_of_ms);
        }
        if summary.restores_progress {
            correction["progress"] = json!(true);
        }
        if let Some(zone) = summary.moved_to {
            correction["time_zone"] = json!(zone);
        }
        let info = json!({ "correction": correction, "plugin": self.transformer.plugin().commit_info() });
        let adds: Vec<NewFile> = plan.adds.into_iter().chain(output.adds).collect();
        let changes_nothing = adds.is_empty() && plan.removes.is_empty() && output.rejects.is_empty();
        if !changes_nothing || summary.restores_progress || summary.moved_to.is_some() {
            let version = self.commit(adds, plan.removes, info, &output.rejects, &output.late).await?;
            summary.version = Some(version);
        }
        Ok((summary, output.resolved))
    }
}
