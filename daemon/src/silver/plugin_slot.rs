//! Which plugin version fills a table, and how far silverd trusts it.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use silverd_core::breaker::Breaker;
use silverd_core::config::SilverTable;
use silverd_core::offsets::Ranges;
use silverd_core::shadow::Shadow;
use tracing::info;

use super::canary::Canary;
use crate::plugin::Plugin;
use crate::reload::PendingVersion;

/// The plugin of a worker.
pub(super) struct PluginSlot {
    stage: PluginStage,
    /// How often the plugin has failed in a row; it outlives the table's openings.
    pub(super) breaker: Breaker,
    /// Where the next version arrives.
    pub(super) pending: Arc<PendingVersion>,
}

/// ```text
///   Unloaded ─▶ Trusted ◀──────────── enough events ───────────┐
///      │           │                                           │
///      │           └─ swap ─▶ Arriving ─ its first rows ─▶ Canary
///      │              ▲          │                             │
///      │              └──────────┴── swap, or rolled back ─────┤
///      └─ the log says that the canary period was not over ────┘
/// ```
#[derive(Default)]
enum PluginStage {
    #[default]
    Unloaded,
    /// The version serves without a baseline.
    Trusted(Arc<Plugin>),
    /// The version was swapped in and has committed no row yet.
    Arriving { plugin: Arc<Plugin>, swapped_at: Instant, written_at: Option<SystemTime>, canary: Option<Canary> },
    /// The version has committed rows and is still compared with the version before it.
    Canary { plugin: Arc<Plugin>, canary: Canary },
}

/// A version that takes the place of another.
pub(super) struct NewVersion {
    pub(super) plugin: Arc<Plugin>,
    pub(super) shadow: Option<Shadow>,
    pub(super) max_new_rejects: f64,
    pub(super) swapped_at: Instant,
    pub(super) written_at: Option<SystemTime>,
    /// It served before: it needs no canary period.
    pub(super) is_earlier_version: bool,
}

impl PluginSlot {
    pub(super) fn new(pending: Arc<PendingVersion>) -> Self {
        Self { stage: PluginStage::Unloaded, breaker: Breaker::default(), pending }
    }

    /// The version that fills the table; `None` before it is loaded.
    pub(super) fn plugin(&self) -> Option<&Arc<Plugin>> {
        match &self.stage {
            PluginStage::Unloaded => None,
            PluginStage::Trusted(plugin)
            | PluginStage::Arriving { plugin, .. }
            | PluginStage::Canary { plugin, .. } => Some(plugin),
        }
    }

    /// The first version of the worker serves, with its canary period if that is not over.
    pub(super) fn start(&mut self, plugin: Arc<Plugin>, canary: Option<Canary>) {
        self.stage = match canary {
            Some(canary) => PluginStage::Canary { plugin, canary },
            None => PluginStage::Trusted(plugin),
        };
    }

    pub(super) fn canary_mut(&mut self) -> Option<&mut Canary> {
        match &mut self.stage {
            PluginStage::Arriving { canary, .. } => canary.as_mut(),
            PluginStage::Canary { canary, .. } => Some(canary),
            PluginStage::Unloaded | PluginStage::Trusted(_) => None,
        }
    }

    /// Serves a new version from now on. `old_config` is what the version before it was given.
    ///
    /// | the version before | the new version's baseline |
    /// |---|---|
    /// | trusted | it |
    /// | in its canary period, and has committed rows | it; if it serves again, its canary period continues |
    /// | in its canary period, without rows | the baseline of that canary period |
    /// | its circuit breaker is open, or none was loaded | none: the new version is trusted |
    pub(super) fn swap(&mut self, new: NewVersion, old_config: SilverTable) {
        let no_baseline = self.breaker.is_tripped() || new.is_earlier_version;
        // The baseline, what it was given, and its own canary period.
        let baseline = match std::mem::take(&mut self.stage) {
            PluginStage::Unloaded => None,
            PluginStage::Trusted(plugin) | PluginStage::Arriving { plugin, canary: None, .. } => {
                Some((plugin, old_config, None))
            }
            PluginStage::Arriving { canary: Some(canary), .. } => {
                Some((canary.baseline, canary.baseline_config, canary.of_baseline.map(|canary| *canary)))
            }
            PluginStage::Canary { plugin, canary } => Some((plugin, old_config, Some(canary))),
        };
        let canary = baseline.filter(|(baseline, ..)| !no_baseline && !baseline.is_same_version(&new.plugin)).map(
            |(baseline, config, its_canary)| {
                Canary::new(baseline, config, its_canary, new.shadow.as_ref(), new.max_new_rejects)
            },
        );
        self.breaker = Breaker::default();
        self.pending.set_active(new.plugin.clone());
        let (swapped_at, written_at) = (new.swapped_at, new.written_at);
        self.stage = PluginStage::Arriving { plugin: new.plugin, swapped_at, written_at, canary };
    }

    /// The version has committed these offsets, with so many rows.
    pub(super) fn committed(&mut self, table: &str, ranges: &Ranges, rows: usize) {
        if let Some(canary) = self.canary_mut() {
            canary.committed.push(ranges.clone());
        }
        self.stage = match std::mem::take(&mut self.stage) {
            PluginStage::Arriving { plugin, swapped_at, written_at, canary } => {
                let canary = canary.filter(|canary| !canary.passed);
                if rows == 0 {
                    PluginStage::Arriving { plugin, swapped_at, written_at, canary }
                } else {
                    report_first_rows(table, &plugin, swapped_at, written_at);
                    match canary {
                        Some(canary) => PluginStage::Canary { plugin, canary },
                        None => PluginStage::Trusted(plugin),
                    }
                }
            }
            PluginStage::Canary { plugin, canary } if canary.passed => PluginStage::Trusted(plugin),
            stage => stage,
        };
    }

    /// The version in its canary period, and that period; `None` outside of one.
    pub(super) fn in_canary(&self) -> Option<(&Arc<Plugin>, &Canary)> {
        match &self.stage {
            PluginStage::Arriving { plugin, canary: Some(canary), .. } | PluginStage::Canary { plugin, canary } => {
                Some((plugin, canary))
            }
            PluginStage::Unloaded | PluginStage::Trusted(_) | PluginStage::Arriving { .. } => None,
        }
    }

    /// Serves the baseline again. Gives the canary period of the version that failed; `None` outside of one.
    pub(super) fn roll_back(&mut self) -> Option<Canary> {
        let mut canary = match std::mem::take(&mut self.stage) {
            PluginStage::Arriving { canary: Some(canary), .. } | PluginStage::Canary { canary, .. } => canary,
            stage => {
                self.stage = stage;
                return None;
            }
        };
        let plugin = canary.baseline.clone();
        self.stage = match canary.of_baseline.take() {
            Some(mut of_baseline) => {
                // It rebuilds the rows of the failed version, and answers for them from now on.
                of_baseline.committed.extend(canary.committed.iter().cloned());
                PluginStage::Canary { plugin, canary: *of_baseline }
            }
            None => PluginStage::Trusted(plugin),
        };
        self.breaker = Breaker::default();
        self.pending.set_active(canary.baseline.clone());
        Some(canary)
    }
}

fn report_first_rows(table: &str, plugin: &Plugin, swapped_at: Instant, written_at: Option<SystemTime>) {
    let since_written = written_at.and_then(|at| at.elapsed().ok());
    info!(
        table, digest = %plugin.digest,
        since_swap_ms = swapped_at.elapsed().as_millis() as u64,
        since_saved_ms = since_written.map(|since| since.as_millis() as u64),
        "committed the first rows of the new plugin version"
    );
}
