//! A table turns to another version of its plugin: between two chunks, and on probation at first.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use anyhow::Context;
use silverd_core::chunk::Chunk;
use silverd_core::config::SilverTable;
use silverd_core::offsets::Ranges;
use silverd_core::probation::{Probation, Tally};
use silverd_core::shadow::Shadow;
use tracing::{error, info, warn};

use super::open::Open;
use super::task::Task;
use crate::correct::{Correction, Kind, Places, Scope, undisturbed};
use crate::reload::{Candidate, Held};
use crate::spans;
use crate::transform::{Plugin, Transformer, Tripped, Verdicts};

/// A new version that is not trusted yet, and the one before it.
pub(super) struct Trial {
    old: Arc<Plugin>,
    old_config: SilverTable,
    /// The old version at work, once it has been asked.
    beside: Option<Transformer>,
    rules: Probation,
    /// The offsets that the new version has committed.
    made: Vec<Ranges>,
    trusted: bool,
}

/// The new version fails where the old one does not: nothing of the chunk at hand was committed.
#[derive(Debug, thiserror::Error)]
#[error("the new version is rolled back: {0}")]
pub(super) struct RolledBack(String);

/// A version whose first rows are not committed yet.
pub(super) struct Arriving {
    swapped: Instant,
    written_at: Option<SystemTime>,
}

impl Trial {
    fn new(old: Arc<Plugin>, old_config: SilverTable, shadow: Option<&Shadow>, max_new_rejects: f64) -> Self {
        let (promised, added) = shadow.map_or((0.0, 0.0), |shadow| (shadow.rejected_share(), shadow.added_share()));
        let rules = Probation::new(promised, added, max_new_rejects);
        Self { old, old_config, beside: None, rules, made: Vec::new(), trusted: false }
    }

    /// Looks at the new version's verdicts on a chunk, and asks the old one where they raise doubts.
    ///
    /// # Errors
    ///
    /// [`RolledBack`] if the new version goes; what it failed with if the events are to blame.
    fn look(&mut self, verdicts: anyhow::Result<Verdicts>, chunk: &Chunk, records: &[u32]) -> anyhow::Result<Verdicts> {
        let verdicts = match verdicts {
            Ok(verdicts) => verdicts,
            // That both fail on everything says nothing of the new one.
            Err(failure) if failure.is::<Tripped>() && self.ask(chunk, records).is_err() => return Err(failure),
            Err(failure) => return Err(RolledBack(format!("{failure:#}")).into()),
        };
        let new = Tally::new(&verdicts.counts, verdicts.faults());
        if self.rules.doubts(new) {
            // An old version that fails on everything is no measure.
            let old = self.ask(chunk, records).unwrap_or(Tally { rejected: new.events, faults: new.events, ..new });
            self.rules.compare(new, old).map_err(RolledBack)?;
        }
        self.trusted = self.rules.passed(new.events);
        Ok(verdicts)
    }

    fn ask(&mut self, chunk: &Chunk, records: &[u32]) -> anyhow::Result<Tally> {
        let old = self.beside.get_or_insert_with(|| Transformer::new(self.old.clone()));
        let verdicts = old.transform(chunk, records)?;
        Ok(Tally::new(&verdicts.counts, verdicts.faults()))
    }
}

impl Task {
    /// Turns to the version that lies on the desk, if one does.
    pub(super) fn take_version(&mut self) {
        let Some(candidate) = self.desk.take() else { return };
        let begun = Instant::now();
        let _span = spans::plugin_swap(&self.config.name, candidate.plugin().digest.as_str()).entered();
        if let Err(failure) = self.turn_to(candidate, begun) {
            self.stats.plugin_refused(Some(format!("{failure:#}")));
            error!(table = %self.config.name, "the new version stays out: {failure:#}");
        }
    }

    fn turn_to(&mut self, candidate: Candidate, begun: Instant) -> anyhow::Result<()> {
        let Candidate { transformer, config, shadow, max_new_rejects, written_at, back } = candidate;
        let plugin = transformer.plugin().clone();
        if self.plugin.as_ref().is_some_and(|now| now.is(&plugin)) {
            // It was proven twice while it waited. Its probation goes on.
            self.config = config;
            return Ok(());
        }
        match &mut self.open {
            Some(open) => {
                if !open.turn_to(transformer, &config, &self.shared.base)? {
                    // Its files, or the keys of its duplicates, are of another type: they are written or read anew.
                    self.open = None;
                }
            }
            None => drop(transformer),
        }
        let old = self.plugin.replace(plugin.clone());
        let old_config = std::mem::replace(&mut self.config, config);
        // One that had given up on everything is no measure for another.
        let old = old.filter(|_| !self.breaker.trips() && !back);
        // A version that has judged next to nothing yet is none to go back to: the one before it is.
        let before = self.trial.take().filter(|trial| !trial.rules.has_shown_itself());
        let before = before.map(|trial| (trial.old, trial.old_config)).or(old.map(|old| (old, old_config)));
        self.trial = before
            .filter(|(old, _)| !back && !old.is(&plugin))
            .map(|(old, old_config)| Trial::new(old, old_config, shadow.as_ref(), max_new_rejects));
        self.breaker = Default::default();
        self.desk.serve(plugin.clone());
        let pause = begun.elapsed();
        let shadow = shadow.map(|shadow| shadow.to_string());
        self.stats.plugin_swapped(&plugin.schema.interface, plugin.digest.as_str(), shadow, pause);
        info!(
            table = %self.config.name, digest = %plugin.digest, interface = %plugin.schema.interface,
            pause_us = pause.as_micros() as u64, "the plugin was swapped"
        );
        self.arriving = Some(Arriving { swapped: begun, written_at });
        Ok(())
    }

    /// The plugin's verdicts on a chunk. While it is on probation, they are looked at.
    pub(super) fn judge(&mut self, open: &mut Open, chunk: &Chunk, records: &[u32]) -> anyhow::Result<Verdicts> {
        let verdicts = open.transformer.transform(chunk, records);
        self.breaker = open.transformer.breaker().clone();
        match &mut self.trial {
            Some(trial) => trial.look(verdicts, chunk, records),
            None => verdicts,
        }
    }

    /// These offsets are in the table, by the version at hand.
    pub(super) fn has_committed(&mut self, ranges: &Ranges, rows: usize) {
        if let Some(trial) = &mut self.trial {
            trial.made.push(ranges.clone());
            if trial.trusted {
                self.trial = None;
            }
        }
        if rows == 0 {
            return;
        }
        if let (Some(Arriving { swapped, written_at }), Some(plugin)) = (self.arriving.take(), &self.plugin) {
            let since_written = written_at.and_then(|at| at.elapsed().ok());
            info!(
                table = %self.config.name, digest = %plugin.digest,
                since_swap_ms = swapped.elapsed().as_millis() as u64,
                since_saved_ms = since_written.map(|since| since.as_millis() as u64),
                "the first rows of the new version"
            );
        }
    }

    /// Goes back to the version before, holds this one off until its file changes, and makes anew what it has committed.
    pub(super) async fn roll_back(&mut self, failure: &RolledBack) {
        let (Some(trial), Some(bad)) = (self.trial.take(), self.plugin.take()) else { return };
        let (table, good) = (trial.old_config.name.clone(), trial.old);
        error!(%table, bad = %bad.digest, good = %good.digest, "{failure}");
        self.stats.plugin_refused(Some(failure.to_string()));
        if let Some(holds) = self.shared.host.holds.as_ref().filter(|_| bad.digest != good.digest) {
            let held = Held::new(&good.digest, &bad.digest, failure.0.clone());
            if let Err(error) = holds.put(&table, &held) {
                warn!(%table, "{error:#}; the next start tries this version again");
            }
        }
        self.config = trial.old_config;
        self.plugin = Some(good.clone());
        self.breaker = Default::default();
        self.arriving = None;
        self.open = None;
        self.desk.serve(good.clone());
        if trial.made.is_empty() {
            return;
        }
        self.state.set("making anew what a bad version wrote");
        let by_hand = match bad.digest == good.digest {
            true => format!("silverd rebuild {table}"),
            false => format!("silverd undo --plugin {} {table}", bad.digest),
        };
        warn!(%table, "making anew what the bad version wrote; if silverd ends before that is done, run `{by_hand}`");
        let events = Places::of_ranges(&trial.made);
        match self.make_anew(&good, &events).await {
            Ok(version) => info!(%table, version, "what the bad version wrote was made anew"),
            Err(error) => error!(
                %table, "make anew what the bad version wrote: {error:#}. Its rows stay until you run `{by_hand}`"
            ),
        }
    }

    async fn make_anew(&self, plugin: &Arc<Plugin>, events: &Places) -> anyhow::Result<Option<u64>> {
        let (pipeline, base) = (&self.shared.pipeline, &self.shared.base);
        let index = pipeline.silver.iter().position(|table| table.name == self.config.name);
        let index = index.context("the table is in no pipeline.toml any more")?;
        let outcome = undisturbed(&self.config.name, async || {
            let correction = Correction::open(pipeline, base, index, plugin.clone()).await?;
            correction.rebuild(Kind::Undo, Scope::Events(events.clone()), false, &mut |_, _| {}).await
        });
        Ok(outcome.await?.version)
    }
}
