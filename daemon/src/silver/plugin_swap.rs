//! A table switches to another plugin version between two chunks, and back if the new version fails.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use silverd_core::chunk::Chunk;
use silverd_core::offsets::{LogPartition, OffsetRange, Ranges};
use tracing::{error, info, warn};

use super::open_table::OpenTable;
use super::plugin_slot::NewVersion;
use super::step_error::{RolledBack, StepError};
use super::worker_task::WorkerTask;
use crate::corrections::{Correction, Kind, Scope, retry_on_conflict};
use crate::plugin::{Deployment, Plugin, TransformOutput};
use crate::reload::Candidate;
use crate::tables::event_set::EventSet;
use crate::tables::writer_state::WriterState;
use crate::telemetry::spans;

impl WorkerTask {
    /// Switches to the version that waits, if one does.
    pub(super) fn take_pending_version(&mut self) {
        let Some(candidate) = self.plugin.pending.take() else { return };
        let begun = Instant::now();
        let _span = spans::plugin_swap(&self.config.name, candidate.plugin().digest.as_str()).entered();
        if let Err(failure) = self.switch_to(candidate, begun) {
            self.report.stats.plugin_update_rejected(Some(format!("{failure:#}")));
            error!(table = %self.config.name, "the new plugin version was rejected: {failure:#}");
        }
    }

    fn switch_to(&mut self, candidate: Candidate, begun: Instant) -> anyhow::Result<()> {
        let Candidate { transformer, config, shadow, max_new_rejects, written_at, is_earlier_version } = candidate;
        let plugin = transformer.plugin().clone();
        if self.plugin.plugin().is_some_and(|now| now.is_same_version(&plugin)) {
            // It was validated twice while it waited. Its canary period continues.
            self.config = config;
            return Ok(());
        }
        match &mut self.table {
            Some(table) => {
                if !table.switch_to(transformer, &config, &self.context.base_dir)? {
                    // Its files, or its dedup keys, have another type: the next step opens the table again.
                    self.table = None;
                }
            }
            None => drop(transformer),
        }
        let old_config = std::mem::replace(&mut self.config, config);
        let shadow_text = shadow.as_ref().map(ToString::to_string);
        let new = NewVersion {
            plugin: plugin.clone(),
            shadow,
            max_new_rejects,
            swapped_at: begun,
            written_at,
            is_earlier_version,
        };
        self.plugin.swap(new, old_config);
        let pause = begun.elapsed();
        self.report.stats.plugin_swapped(&plugin.schema.interface, plugin.digest.as_str(), shadow_text, pause);
        info!(
            table = %self.config.name, digest = %plugin.digest, interface = %plugin.schema.interface,
            pause_us = pause.as_micros() as u64, "the plugin was swapped"
        );
        Ok(())
    }

    /// The plugin's output for a chunk, checked against the version before while it is in its canary period.
    pub(super) fn transform_checked(
        &mut self,
        table: &mut OpenTable,
        chunk: &Chunk,
        records: &[u32],
    ) -> Result<TransformOutput, StepError> {
        let output = table.transformer.transform(chunk, records);
        self.plugin.breaker = table.transformer.breaker().clone();
        match self.plugin.canary_mut() {
            Some(canary) => canary.check(output, chunk, records),
            None => Ok(output?),
        }
    }

    /// Goes back to the version before, blocks the one that failed until its file changes, and rebuilds what it wrote.
    pub(super) async fn roll_back(&mut self, failure: &RolledBack) {
        let Some((failed, canary)) = self.plugin.roll_back() else { return };
        let (table, baseline) = (canary.baseline_config.name.clone(), canary.baseline);
        error!(%table, failed = %failed.digest, baseline = %baseline.digest, "{failure}");
        self.report.stats.plugin_update_rejected(Some(failure.to_string()));
        self.config = canary.baseline_config;
        self.table = None;
        if canary.committed.is_empty() {
            let reason = format!("{}. It wrote no row", failure.reason);
            return self.block(&failed, &baseline, reason);
        }
        // Before the rebuild: silverd may be killed during it.
        self.block(&failed, &baseline, failure.reason.clone());
        self.report.state.set(WriterState::RollingBack);
        let by_hand = match failed.digest == baseline.digest {
            true => format!("silverd rebuild {table}"),
            false => format!("silverd rebuild {table} --written-by {}", failed.digest),
        };
        let events = EventSet::of_ranges(&canary.committed);
        let written = offsets_text(&events.bounds());
        warn!(
            %table,
            "rebuilding the rows of the failed version, of {written}; if silverd stops before that is done, run `{by_hand}`"
        );
        let done = match self.rebuild_events(&baseline, &events).await {
            Ok(version) => {
                info!(%table, version, "rebuilt the rows of the failed version, of {written}");
                format!("Version {} made its rows again, of {written}", baseline.digest)
            }
            Err(error) => {
                error!(%table, "rebuild the rows of the failed version: {error:#}. They stay until you run `{by_hand}`");
                format!("Its rows stay, of {written}, until you run `{by_hand}`: {error:#}")
            }
        };
        self.block(&failed, &baseline, format!("{}. {done}", failure.reason));
    }

    /// Remembers that a version failed, and which one serves instead.
    fn block(&self, failed: &Plugin, baseline: &Plugin, reason: String) {
        if failed.digest == baseline.digest {
            return;
        }
        let (table, deployments) = (&self.config.name, self.context.host.deployments.as_ref());
        let rollback = Deployment::rollback(&baseline.digest, &failed.digest, reason);
        if let Some(Err(error)) = deployments.map(|deployments| deployments.put(table, &rollback)) {
            warn!(%table, "{error:#}; the next start tries this version again");
        }
    }

    async fn rebuild_events(&self, plugin: &Arc<Plugin>, events: &EventSet) -> anyhow::Result<Option<u64>> {
        let (pipeline, base_dir) = (&self.context.pipeline, &self.context.base_dir);
        let index = pipeline.silver.iter().position(|table| table.name == self.config.name);
        let index = index.context("pipeline.toml does not have the table any more")?;
        let outcome = retry_on_conflict(&self.config.name, async || {
            let correction = Correction::open(pipeline, base_dir, index, plugin.clone()).await?;
            correction.rebuild(Kind::Undo, Scope::Events(events.clone()), false, &mut |_, _| {}).await
        });
        Ok(outcome.await?.version)
    }
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
