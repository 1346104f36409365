//! The canary period of a new plugin version: until it has shown itself on live events, the version before it stands by.

use std::sync::Arc;
use std::time::{Duration, Instant};

use silverd_core::canary::{CanaryPeriod, Tally};
use silverd_core::chunk::Chunk;
use silverd_core::config::SilverTable;
use silverd_core::offsets::Ranges;
use silverd_core::shadow::Shadow;

use super::step_error::{RolledBack, StepError};
use crate::plugin::{Plugin, TransformError, TransformOutput, Transformer};
use crate::reload::UnfinishedCanary;

/// The version before a new one, and how the new one has done so far.
pub(super) struct Canary {
    pub(super) baseline: Arc<Plugin>,
    pub(super) baseline_config: SilverTable,
    /// The baseline's instance, from the first comparison on.
    baseline_instance: Option<Transformer>,
    pub(super) period: CanaryPeriod,
    /// The offsets that the new version has committed.
    pub(super) committed: Vec<Ranges>,
    /// The new version has passed its canary period; its next commit ends it.
    pub(super) passed: bool,
    /// Since when the new version serves, and how long it served before the worker started.
    swapped_at: Instant,
    served_before: Duration,
    /// The canary period of the baseline, if it was not over.
    pub(super) of_baseline: Option<Box<Canary>>,
}

/// Canary periods within one another: a version that follows this many others which had no time is compared with the
/// last ones.
const DEPTH_MAX: usize = 4;

impl Canary {
    pub(super) fn new(
        baseline: Arc<Plugin>,
        baseline_config: SilverTable,
        of_baseline: Option<Self>,
        shadow: Option<&Shadow>,
        max_new_rejects: f64,
    ) -> Self {
        let (promised, added) = shadow.map_or((0.0, 0.0), |shadow| (shadow.rejected_share(), shadow.added_share()));
        Self {
            baseline,
            baseline_config,
            baseline_instance: None,
            period: CanaryPeriod::new(promised, added, max_new_rejects),
            committed: Vec::new(),
            passed: false,
            swapped_at: Instant::now(),
            served_before: Duration::ZERO,
            of_baseline: of_baseline.map(|canary| Box::new(canary.limited(DEPTH_MAX - 1))),
        }
    }

    /// The canary period that was not over when the worker before this one ended.
    pub(super) fn resumed(unfinished: UnfinishedCanary, config: &SilverTable, max_new_rejects: f64) -> Self {
        let UnfinishedCanary { baseline, counts, baseline_counts, served, committed, of_baseline } = unfinished;
        Self {
            baseline,
            // The section that the baseline had is not known. The settings are part of the version.
            baseline_config: config.clone(),
            baseline_instance: None,
            period: CanaryPeriod::resumed(&counts, &baseline_counts, max_new_rejects),
            committed: vec![committed],
            passed: false,
            swapped_at: Instant::now(),
            served_before: served,
            of_baseline: of_baseline.map(|inner| Box::new(Self::resumed(*inner, config, max_new_rejects))),
        }
        .limited(DEPTH_MAX)
    }

    /// The same, with at most `depth` canary periods.
    fn limited(mut self, depth: usize) -> Self {
        let inner = self.of_baseline.take().filter(|_| depth > 1);
        self.of_baseline = inner.map(|inner| Box::new(inner.limited(depth - 1)));
        self
    }

    /// Checks the new version's output for a chunk; where it looks wrong, runs the baseline on the same events.
    ///
    /// # Errors
    ///
    /// [`StepError::RolledBack`] if the new version is worse; the new version's own error if the events are to blame.
    pub(super) fn check(
        &mut self,
        output: Result<TransformOutput, TransformError>,
        chunk: &Chunk,
        records: &[u32],
    ) -> Result<TransformOutput, StepError> {
        let output = match output {
            Ok(output) => output,
            // If both fail on everything, the events are to blame.
            Err(error @ TransformError::Tripped(_)) if self.run_baseline(chunk, records).is_err() => {
                return Err(error.into());
            }
            Err(error) => return Err(RolledBack { reason: format!("{error:#}") }.into()),
        };
        let new = Tally::new(&output.counts, output.faults());
        if self.period.needs_baseline(new) {
            // A baseline that fails on everything is no measure.
            let failed = Tally { rejected: new.events, faults: new.events, ..new };
            let baseline = self.run_baseline(chunk, records).unwrap_or(failed);
            self.period.compare(new, baseline).map_err(|reason| RolledBack { reason })?;
        }
        let served = self.served_before + self.swapped_at.elapsed();
        self.passed = self.period.record_passed(new.events, served);
        Ok(output)
    }

    fn run_baseline(&mut self, chunk: &Chunk, records: &[u32]) -> Result<Tally, TransformError> {
        let baseline = self.baseline_instance.get_or_insert_with(|| Transformer::new(self.baseline.clone()));
        let output = baseline.transform(chunk, records)?;
        Ok(Tally::new(&output.counts, output.faults()))
    }
}
