//! Deep verification: transforms the events of Bronze again, and compares the result with the rows of Silver and the
//! rejects in the quarantine.
//!
//! Rows are compared by fingerprints of blocks of offsets, so that the memory does not grow with the table; only with
//! deduplication are all keys in memory. A few blocks that differ are read a second time and compared row by row.
//!
//! | writer of an offset, according to the log     | the offset is                             |
//! |-----------------------------------------------|-------------------------------------------|
//! | a plugin that is available                    | compared                                  |
//! | the same, and a replay accepted this reject   | compared with the plugin of the replay¹   |
//! | the same, and its rejects were replayed later | compared; rows of its rejects: a notice   |
//! | a plugin that is not available                | not compared, with a notice               |
//! | a plugin whose events another decoder read    | not compared, with a notice               |
//! | one of several plugins, after a correction    | not compared, with a notice               |
//!
//! ¹ With deduplication, as in the next line: the event may have been a duplicate when it was replayed.
//!
//! Before that, all data files are read to their end: if one of Bronze or of the table is missing or damaged, the table
//! is not compared. Nor is it if its log has lost its progress, because the writers of its offsets are lost with it.

mod blocks;
mod by_commit;
mod by_range;
mod comparison;
mod plugins;
mod strategy;
mod unrouted;

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use arrow::datatypes::SchemaRef;
use deltalake_core::logstore::LogStoreRef;
use silverd_core::config::{Pipeline, SilverTable};
use silverd_core::route::Router;
use silverd_core::verify::{
    FileOwner, LogPosition, NotComparedReason, Problem, SideOutputVerifier, SilverVerifier, Verifier,
};
use silverd_core::zone::Zone;

use self::blocks::{BlockFingerprints, Difference, ROW_DIFF_BLOCKS_MAX, RowDiff};
use self::by_commit::ByCommit;
use self::by_range::ByRange;
use self::comparison::{Comparison, Destination, ReplayedRows};
use self::plugins::Plugins;
use self::strategy::{Strategy, transform_bronze};
use super::files::check_contents;
use super::fingerprint::RowFingerprinter;
use super::rejects::{Rejects, compare_rejects};
use super::verified::{Compared, Verified, VerifiedTable};
use crate::delta::{last_plugin, zone_name_at};
use crate::plugin::Host;
use crate::tables::dedup::Dedup;
use crate::tables::event_set::EventSet;

/// Called with the name of a table, the number of offsets that were transformed, and their total.
pub type Progress<'p> = &'p mut (dyn FnMut(&str, u64, u64) + Send);

/// A table to compare.
struct Job<'j> {
    pipeline: &'j Pipeline,
    base_dir: &'j Path,
    host: &'j Arc<Host>,
    /// The index of the table in the pipeline.
    index: usize,
    bronze: LogStoreRef,
    log: LogStoreRef,
    verifier: &'j SilverVerifier,
    quarantine: &'j VerifiedTable<SideOutputVerifier>,
    /// Events that Bronze is known to have lost.
    lost: &'j EventSet,
}

/// Compares all tables whose logs were verified, and adds what differs to their findings.
pub async fn compare_rows(
    pipeline: &Pipeline,
    base_dir: &Path,
    host: &Arc<Host>,
    verified: &mut Verified,
    progress: Progress<'_>,
) -> anyhow::Result<()> {
    let Some(bronze) = verified.bronze.log.clone() else { return Ok(()) };
    check_contents(&mut verified.bronze, &FileOwner::Bronze).await;
    for table in &mut verified.side_outputs {
        check_contents(table, &FileOwner::SideOutput).await;
    }
    let [quarantine, _] = &verified.side_outputs;
    let is_bronze_readable = verified.bronze.broken_files.is_empty();
    let mut lost = EventSet::default();
    verified.bronze.verifier.lost().for_each(|(log, range)| lost.insert_range(&log, range));
    for table in &mut verified.silver {
        check_contents(table, &FileOwner::Silver(table.name.clone())).await;
        let VerifiedTable { name, log, verifier, broken_files } = table;
        let Some(log) = log.clone() else { continue };
        let Some(index) = pipeline.silver.iter().position(|table| *table.name == **name) else { continue };
        let (bronze, log, lost) = (bronze.clone(), log.clone(), &lost);
        let job = Job { pipeline, base_dir, host, index, bronze, log, verifier, quarantine, lost };
        let obstacle = if verifier.has_lost_progress() {
            Some(NotComparedReason::ProgressLost)
        } else if !is_bronze_readable || !broken_files.is_empty() {
            Some(NotComparedReason::FilesDamaged)
        } else {
            None
        };
        let (compared, problems) = match obstacle {
            None => match job.compare(&mut |done, total| progress(name, done, total)).await {
                Ok(compared) => compared,
                // A log with findings may not even load.
                Err(failure) if verifier.findings().errors + verified.bronze.verifier.findings().errors > 0 => {
                    (Compared::default(), vec![Problem::Unreadable { why: format!("{failure:#}") }])
                }
                Err(failure) => return Err(failure.context(format!("compare the rows of {name}"))),
            },
            Some(reason) => {
                let offsets = verifier.attribution().iter().map(|(_, range, _)| range.len()).sum();
                (Compared::default(), vec![Problem::NotCompared { digest: None, offsets, rows: None, reason }])
            }
        };
        problems.into_iter().for_each(|problem| verifier.report(LogPosition::default(), problem));
        verified.compared.push((name.clone(), compared));
    }
    // Only all tables together say which events go to none.
    if verified.silver.len() == pipeline.silver.len() && is_bronze_readable && quarantine.broken_files.is_empty() {
        let [quarantine, _] = &mut verified.side_outputs;
        if let Some(problem) = unrouted::compare(pipeline, &bronze, quarantine, &lost).await? {
            quarantine.verifier.report(LogPosition::default(), problem);
        }
    }
    Ok(())
}

impl Job<'_> {
    fn config(&self) -> &SilverTable {
        &self.pipeline.silver[self.index]
    }

    async fn compare(&self, progress: &mut (dyn FnMut(u64, u64) + Send)) -> anyhow::Result<(Compared, Vec<Problem>)> {
        // It only helps to find the current plugin. What is wrong with the log was reported.
        let last = last_plugin(&self.base_dir.join(&*self.config().path)).await.unwrap_or_default();
        let (config, limits, attribution) = (self.config(), &self.pipeline.limits, self.verifier.attribution());
        let load = || Plugins::load(config, self.base_dir, self.host, limits, attribution, last.as_ref());
        let plugins = tokio::task::block_in_place(load);
        let mut problems = plugins.not_compared(attribution);
        // With `dedup`, which event is a duplicate depends on all rows.
        let all_or_nothing = config.dedup.is_some() && !problems.is_empty();
        let Some(schema) = plugins.schema.clone().filter(|_| !all_or_nothing) else {
            return Ok((Compared::default(), problems));
        };
        let zone = match zone_name_at(&self.log, self.verifier.version()).await {
            Ok(name) => Zone::parse(&name).context("the time zone of the table's days")?,
            // What is wrong with the log is reported already.
            Err(_) => self.config().time_zone,
        };
        let mut comparison = self.comparison(&schema, plugins, zone)?;
        let mut fingerprints = BlockFingerprints::default();
        let destination = &mut Destination::Fingerprints(&mut fingerprints);
        let mut strategy = self.strategy(&schema)?;
        transform_bronze(&mut comparison, &mut *strategy, None, destination, progress).await?;
        comparison.read_table(&self.log, destination).await?;
        let compared = Compared { rejects: comparison.rejects.len(), ..comparison.compared.clone() };
        problems.extend(comparison.replayed_rows());
        let name = &self.config().name;
        let without_replay = comparison.events_without_replay();
        let rejects = match self.quarantine.broken_files.is_empty() {
            true => compare_rejects(&comparison.rejects, &without_replay, self.verifier, name, self.quarantine).await?,
            false => None,
        };
        let differing = fingerprints.differing();
        if !differing.is_empty() {
            let mut diff = RowDiff::new(differing.iter().take(ROW_DIFF_BLOCKS_MAX).cloned());
            let blocks = diff.blocks.clone();
            let destination = &mut Destination::Diff(&mut diff);
            let mut strategy = self.strategy(&schema)?;
            transform_bronze(&mut comparison, &mut *strategy, Some(&blocks), destination, &mut |_, _| {}).await?;
            comparison.read_table(&self.log, destination).await?;
            let Difference { missing, unexpected, changed, examples } = diff.finish();
            let (compared, blocks) = (blocks.len(), differing.len());
            problems.push(Problem::Content { missing, unexpected, changed, blocks, compared, examples });
        }
        problems.extend(rejects);
        Ok((compared, problems))
    }

    fn comparison(&self, schema: &SchemaRef, plugins: Plugins, zone: Zone) -> anyhow::Result<Comparison<'_>> {
        let by_day = self.config().dedup.is_some() && self.verifier.corrections().commits > 0;
        Ok(Comparison {
            config: self.config(),
            zone,
            index: self.index,
            router: Router::new(&self.pipeline.silver),
            bronze: self.bronze.clone(),
            verifier: self.verifier,
            plugins,
            fingerprinter: RowFingerprinter::new(schema, !by_day)?,
            by_day,
            rows_max: self.pipeline.commit.rows_max,
            bytes_max: self.pipeline.commit.bytes_max,
            lost: self.lost,
            rejects: Rejects::default(),
            replayed: ReplayedRows::default(),
            compared: Compared::default(),
        })
    }

    fn strategy(&self, schema: &SchemaRef) -> anyhow::Result<Box<dyn Strategy>> {
        let dedup = Dedup::for_empty_table(self.config(), schema, self.log.clone())?;
        Ok(match dedup {
            Some(dedup) => Box::new(ByCommit::new(dedup)),
            None => Box::new(ByRange),
        })
    }
}
