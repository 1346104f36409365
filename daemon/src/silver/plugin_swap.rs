//! A table switches to another plugin version between two chunks.

use std::time::Instant;

use silverd_core::chunk::Chunk;
use tracing::{error, info};

use super::open_table::OpenTable;
use super::plugin_slot::NewVersion;
use super::step_error::StepError;
use super::worker_task::WorkerTask;
use crate::plugin::{Plugin, TransformOutput};
use crate::reload::Candidate;
use crate::telemetry::spans;

impl WorkerTask {
    /// Switches to the version that waits, if one does.
    pub(super) fn take_pending_version(&mut self) {
        let Some(candidate) = self.plugin.pending.take() else { return };
        if self.has_failed(candidate.plugin()) {
            // It served, and was rolled back, while it was validated again.
            return;
        }
        let begun = Instant::now();
        let _span = spans::plugin_swap(&self.config.name, candidate.plugin().digest.as_str()).entered();
        if let Err(failure) = self.switch_to(candidate, begun) {
            self.report.stats.plugin_update_rejected(Some(format!("{failure:#}")));
            error!(table = %self.config.name, "the new plugin version was rejected: {failure:#}");
        }
    }

    fn has_failed(&self, plugin: &Plugin) -> bool {
        self.context.host.held(&self.config.name).failed(&plugin.version()).is_some()
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
        self.record_serving();
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
}
