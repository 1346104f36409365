//! A version that fails in its canary period is rolled back: it is blocked, the version before it serves again, and makes
//! the rows of the failed version again.
//!
//! ```text
//!   remember the rebuild ─▶ block the version ─▶ the version before serves ─▶ rebuild ─▶ forget the rebuild
//!
//!   killed before "remember": the next worker continues the canary period, in which the version fails again
//!   killed after it:          the next worker blocks the version, and rebuilds, unless the log has the correction
//! ```

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::Context;
use silverd_core::offsets::{LogPartition, OffsetRange, Ranges};
use tracing::{error, info, warn};

use super::step_error::RolledBack;
use super::worker_task::WorkerTask;
use crate::corrections::{Correction, CorrectionSummary, Kind, Scope, events_made_again, retry_on_conflict};
use crate::delta::{PluginVersion, TableReader};
use crate::plugin::{Deployment, Digest, Plugin, UnfinishedRebuild, load_version};
use crate::tables::event_set::EventSet;
use crate::tables::writer_state::WriterState;

impl WorkerTask {
    /// Goes back to the version before, blocks the one that failed, and rebuilds what it wrote.
    pub(super) async fn roll_back(&mut self, failure: &RolledBack) {
        let Some((failed, canary)) = self.plugin.in_canary() else { return };
        let (failed, baseline, committed) = (failed.version(), canary.baseline.clone(), canary.committed.clone());
        let (table, short) = (self.config.name.clone(), Digest::short(&failed.digest));
        error!(%table, failed = short, baseline = %baseline.digest, "{failure}");
        let after_version = self.table_version().await.unwrap_or_else(|error| {
            warn!(%table, "read the newest version of the table: {error:#}");
            0
        });
        let by = baseline.version();
        let rebuild = UnfinishedRebuild::new(&failed, &by, failure.reason.clone(), &committed, after_version);
        let deployments = self.context.host.deployments.as_ref();
        let reason = match committed.is_empty() {
            true => format!("{}. It wrote no row", failure.reason),
            false => {
                self.check_stored(deployments.map(|known| known.add_rebuild(&table, &rebuild)));
                failure.reason.clone()
            }
        };
        self.check_stored(deployments.map(|known| known.put(&table, &Deployment::rollback(&by, &failed, reason))));
        // From now on the reloader finds the version blocked: another one is active.
        let Some(canary) = self.plugin.roll_back() else { return };
        self.report.stats.plugin_update_rejected(Some(failure.to_string()));
        self.config = canary.baseline_config;
        self.table = None;
        self.record_serving();
        if committed.is_empty() {
            return;
        }
        let shutdown_now = self.inbox.shutdown_now.clone();
        if shutdown_now.run_until_cancelled(self.rebuild_rows(&rebuild, &baseline)).await.is_none() {
            info!(%table, "silverd stops: the next start continues the rebuild of the rows of the failed version");
        }
    }

    /// Continues the rebuilds that the worker before this one has not finished. `serving` is the version that serves.
    pub(super) async fn resume_rebuilds(&mut self, serving: &Arc<Plugin>) {
        let table = self.config.name.clone();
        let deployments = self.context.host.deployments.as_ref();
        for rebuild in deployments.map(|known| known.rebuilds(&table)).unwrap_or_default() {
            match self.rows_left(&rebuild).await {
                Ok(events) if events.is_empty() => {
                    self.rebuild_is_done(&rebuild, "Its rows were made again by later corrections of the table");
                    continue;
                }
                Ok(_) => {}
                Err(error) => warn!(%table, "look whether the rows of a failed version were rebuilt: {error:#}"),
            }
            let by = rebuild.by();
            match self.version_of_rebuild(&by, serving).await {
                Ok(plugin) => self.rebuild_rows(&rebuild, &plugin).await,
                Err(error) => {
                    let (failed, by) = (rebuild.failed(), Digest::short(&by.digest));
                    let by_hand = by_hand(&table, &failed, &rebuild.by());
                    error!(
                        %table,
                        "load version {by}, to rebuild the rows of version {}: {error:#}. They stay until you {by_hand}",
                        Digest::short(&failed.digest)
                    );
                }
            }
        }
    }

    /// Rebuilds what a failed version wrote, with the version before it.
    async fn rebuild_rows(&mut self, rebuild: &UnfinishedRebuild, baseline: &Arc<Plugin>) {
        let table = self.config.name.clone();
        // Nobody waits for this table meanwhile.
        self.inbox.is_live.store(false, Relaxed);
        self.report.state.set(WriterState::RollingBack { done: 0, total: 0 });
        let by_hand = by_hand(&table, &rebuild.failed(), &rebuild.by());
        let written = offsets_text(&EventSet::of_ranges(&rebuild.committed()).bounds());
        warn!(
            %table,
            "rebuilding the rows of the failed version, of {written}; if silverd stops before that is done, its next start \
             continues"
        );
        match self.rebuild_events(baseline, rebuild).await {
            Ok(summary) => {
                let (version, outcome) = (summary.version, summary_text(&summary));
                info!(%table, version, "rebuilt the rows of the failed version, of {written}: {outcome}");
                let by = &baseline.digest;
                self.rebuild_is_done(rebuild, &format!("Version {by} made its rows again, of {written}: {outcome}"));
            }
            Err(error) => {
                error!(
                    %table,
                    "rebuild the rows of the failed version: {error:#}. They stay until you {by_hand}; the next start of \
                     silverd tries it again"
                );
                let reason = format!("{}. Its rows stay, of {written}, until you {by_hand}: {error:#}", rebuild.reason);
                let deployments = self.context.host.deployments.as_ref();
                self.check_stored(deployments.map(|known| known.set_reason(&table, &rebuild.failed(), &reason)));
            }
        }
    }

    fn rebuild_is_done(&self, rebuild: &UnfinishedRebuild, outcome: &str) {
        let (table, deployments) = (&self.config.name, self.context.host.deployments.as_ref());
        let reason = format!("{}. {outcome}", rebuild.reason);
        self.check_stored(deployments.map(|known| known.set_reason(table, &rebuild.failed(), &reason)));
        self.check_stored(deployments.map(|known| known.remove_rebuild(table, rebuild)));
    }

    async fn rebuild_events(
        &self,
        plugin: &Arc<Plugin>,
        rebuild: &UnfinishedRebuild,
    ) -> anyhow::Result<CorrectionSummary> {
        let (pipeline, base_dir, state) = (&self.context.pipeline, &self.context.base_dir, &self.report.state);
        let index = pipeline.silver.iter().position(|table| table.name == self.config.name);
        let index = index.context("pipeline.toml does not have the table any more")?;
        retry_on_conflict(&self.config.name, async || {
            let correction = Correction::open(pipeline, base_dir, index, plugin.clone()).await?;
            let mut progress = |done, total| state.set(WriterState::RollingBack { done, total });
            let events = self.rows_left(rebuild).await?;
            correction.rebuild(Kind::Undo, Scope::Events(events), false, &mut progress).await
        })
        .await
    }

    /// The events of a rebuild whose rows no other version has made again since the rollback.
    async fn rows_left(&self, rebuild: &UnfinishedRebuild) -> anyhow::Result<EventSet> {
        let path = self.context.base_dir.join(&*self.config.path);
        let made_again = events_made_again(&path, rebuild.after_version, &rebuild.failed()).await?;
        Ok(EventSet::of_ranges(&rebuild.committed()).without(&made_again))
    }

    /// The version that has to make rows again.
    async fn version_of_rebuild(&self, by: &PluginVersion, serving: &Arc<Plugin>) -> anyhow::Result<Arc<Plugin>> {
        if serving.version() == *by {
            return Ok(serving.clone());
        }
        let (config, base_dir, by) = (self.config.clone(), self.context.base_dir.clone(), by.clone());
        let (host, limits) = (self.context.host.clone(), self.context.limits.clone());
        let load = move || load_version(&config, &base_dir, host, limits, &by.digest, by.given.as_deref());
        let plugin = tokio::task::spawn_blocking(load).await??;
        Ok(Arc::new(plugin.context("it, or what it was given, was not kept")?))
    }

    async fn table_version(&self) -> anyhow::Result<u64> {
        let Some(reader) = TableReader::open(&self.context.base_dir.join(&*self.config.path))? else { return Ok(0) };
        Ok(reader.version().await?.unwrap_or(0))
    }

    /// Warns if what a restart needs to know could not be stored.
    fn check_stored(&self, stored: Option<anyhow::Result<()>>) {
        if let Some(Err(error)) = stored {
            warn!(table = %self.config.name, "{error:#}; the next start does not know of it");
        }
    }
}

/// What somebody does to rebuild the rows of a failed version, as the end of a sentence.
fn by_hand(table: &str, failed: &PluginVersion, by: &PluginVersion) -> String {
    let digest = Digest::short(&failed.digest);
    match &failed.given {
        // The command uses the current settings.
        Some(given) if failed.digest == by.digest => format!(
            "put the settings and reference files back and run `silverd rebuild {table} --written-by {digest}+{}`",
            Digest::short(given)
        ),
        _ => format!("run `silverd rebuild {table} --written-by {digest}`"),
    }
}

fn summary_text(summary: &CorrectionSummary) -> String {
    let CorrectionSummary { rows_replaced, counts, quarantined, resolved, .. } = summary;
    let (rows, rejected) = (counts.rows, counts.rejected);
    format!(
        "{rows_replaced} rows replaced by {rows}, {rejected} events rejected ({quarantined} new in the quarantine), \
         {resolved} quarantined events resolved"
    )
}

/// Partitions that a text names.
const PARTITIONS_MAX: usize = 8;

/// A text for ranges: `offsets 10 to 49 of events.raw/0, …`.
fn offsets_text(ranges: &Ranges) -> String {
    let offsets = |(log, range): (&LogPartition, OffsetRange)| {
        format!("offsets {} to {} of {}/{}", range.start, range.end - 1, log.topic, log.partition)
    };
    let mut texts: Vec<_> = ranges.iter().take(PARTITIONS_MAX).map(offsets).collect();
    let more = ranges.iter().count().saturating_sub(PARTITIONS_MAX);
    if more > 0 {
        texts.push(format!("and {more} more partitions"));
    }
    texts.join(", ")
}
