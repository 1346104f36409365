//! Silver, made anew and compared: the plugin judges again what Bronze has, and the rows must be those that stand in the
//! table, the rejects those of the quarantine.
//!
//! Rows are compared by sums over blocks of offsets, so that the memory it takes does not grow with the table. Blocks that
//! differ are read once more, and their rows shown. Only with deduplication every key is held in memory.
//!
//! | what the log says of an offset                     | it is                                                       |
//! |----------------------------------------------------|-------------------------------------------------------------|
//! | judged by a plugin that is at hand                 | compared                                                    |
//! | the same, and rejects were replayed                | compared, but for the rows of its rejects                   |
//! | judged by a plugin that is not                     | not compared, and told                                      |
//! | judged by one of several, after a correction       | not compared, and told                                      |

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use arrow::array::{AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{filter_record_batch, take_record_batch};
use arrow::datatypes::TimestampMicrosecondType;
use deltalake_core::logstore::LogStoreRef;
use futures::TryStreamExt;
use silverd_core::chunk::{Chunk, day_of};
use silverd_core::config::{Pipeline, SilverTable};
use silverd_core::offsets::{LogPartition, OffsetRange, Ranges};
use silverd_core::route::Router;
use silverd_core::rows::file_schema;
use silverd_core::verify::{Judge, Place, Problem, Proof, Silver};

use super::blocks::{Block, Difference, LOOKED_INTO_MAX, Looked, Row, Side, Sums};
use super::prints::Prints;
use super::rejects::{Rejects, compare};
use super::{Proven, Table};
use crate::correct::{Coordinates, OF_RECORDS, OF_ROWS, Places};
use crate::delta::{columns, files_at};
use crate::replay::Replay;
use crate::silver::{Dedup, load_kept, load_plugin};
use crate::transform::{Host, Transformer, Verdicts};

/// Told how many offsets of a table were judged, of how many.
pub type Progress<'p> = &'p mut (dyn FnMut(&str, u64, u64) + Send);

/// What was compared of a table.
#[derive(Clone, Debug, Default)]
pub struct Compared {
    pub events: u64,
    pub rows: u64,
    pub rejects: u64,
}

/// Offsets that one plugin judges in one go.
type Unit = (Ranges, usize);

/// A table under comparison.
struct Comparison<'c> {
    config: &'c SilverTable,
    index: usize,
    router: Router,
    bronze: LogStoreRef,
    proof: &'c Silver,
    /// The plugins at hand, by their place among the digests of the log.
    transformers: BTreeMap<usize, Transformer>,
    prints: Prints,
    /// With deduplication, which of two equal events has the row depends on what corrections did: then origins do not count.
    by_day: bool,
    rows_max: usize,
    bytes_max: usize,
    rejects: Rejects,
    compared: Compared,
}

/// Where rows go: into sums, or, of some blocks, side by side.
enum Take<'t> {
    Sum(&'t mut Sums),
    Look(&'t mut Looked),
}

/// Compares all tables whose logs were read. What differs is added to their findings.
pub async fn compare_rows(
    pipeline: &Pipeline,
    base: &Path,
    proven: &mut Proven,
    progress: Progress<'_>,
) -> anyhow::Result<()> {
    let Some(bronze) = proven.bronze.log.clone() else { return Ok(()) };
    let host = Host::new()?;
    for at in 0..proven.silver.len() {
        let Some(log) = proven.silver[at].log.clone() else { continue };
        let name = proven.silver[at].name.clone();
        let Some(index) = pipeline.silver.iter().position(|table| *table.name == *name) else { continue };
        let compared = table(pipeline, base, &host, (index, bronze.clone(), log), proven, at, progress).await;
        let (compared, findings) = match compared {
            // A log that does not hold may well be one that cannot be loaded.
            Err(failure) if proven.silver[at].proof.findings().errors > 0 => {
                (Compared::default(), vec![Problem::Unreadable { why: format!("{failure:#}") }])
            }
            compared => compared.with_context(|| format!("compare the rows of {name}"))?,
        };
        findings.into_iter().for_each(|problem| proven.silver[at].proof.report(Place::default(), problem));
        proven.compared.push((name, compared));
    }
    Ok(())
}

async fn table(
    pipeline: &Pipeline,
    base: &Path,
    host: &Arc<Host>,
    (index, bronze, log): (usize, LogStoreRef, LogStoreRef),
    proven: &Proven,
    at: usize,
    progress: Progress<'_>,
) -> anyhow::Result<(Compared, Vec<Problem>)> {
    let Table { name, proof, .. } = &proven.silver[at];
    let config = &pipeline.silver[index];
    let limits = pipeline.limits.clone();
    let mut findings = Vec::new();
    let current = Arc::new(tokio::task::block_in_place(|| load_plugin(config, base, host.clone(), limits.clone()))?);
    let mut transformers = BTreeMap::new();
    for (id, digest) in proof.judges().digests().iter().enumerate() {
        let plugin = match current.digest.as_str() == digest {
            true => Some(current.clone()),
            false => tokio::task::block_in_place(|| load_kept(config, base, host.clone(), limits.clone(), digest))?,
        };
        if let Some(plugin) = plugin {
            transformers.insert(id, Transformer::new(plugin));
        }
    }
    let by_day = config.dedup.is_some() && proof.corrections().commits > 0;
    let schema = file_schema(&current.schema);
    let mut comparison = Comparison {
        config,
        index,
        router: Router::new(&pipeline.silver),
        bronze,
        proof,
        transformers,
        prints: Prints::new(&schema, !by_day)?,
        by_day,
        rows_max: pipeline.commit.rows_max,
        bytes_max: pipeline.commit.bytes_max,
        rejects: Rejects::default(),
        compared: Compared::default(),
    };
    findings.extend(comparison.not_compared());
    if config.dedup.is_some() && !findings.is_empty() {
        // What is a duplicate depends on the rows of all.
        return Ok((Compared::default(), findings));
    }
    let dedup = || Dedup::of_nothing(config, &schema, log.clone());
    let mut sums = Sums::default();
    comparison.expected(None, dedup()?, &mut Take::Sum(&mut sums), &mut |done, all| progress(name, done, all)).await?;
    comparison.found(&log, &mut Take::Sum(&mut sums)).await?;
    let differing = sums.differing();
    if !differing.is_empty() {
        let mut looked = Looked::into(differing.iter().take(LOOKED_INTO_MAX).cloned());
        let (blocks, compared) = (looked.blocks.clone(), comparison.compared.clone());
        let rejects = std::mem::take(&mut comparison.rejects);
        let mut take = Take::Look(&mut looked);
        comparison.expected(Some(&blocks), dedup()?, &mut take, &mut |_, _| {}).await?;
        comparison.rejects = rejects;
        comparison.found(&log, &mut take).await?;
        comparison.compared = compared;
        let Difference { missing, unexpected, changed, examples } = looked.finish();
        let (blocks, looked_into) = (differing.len(), differing.len().min(LOOKED_INTO_MAX));
        findings.push(Problem::Content { missing, unexpected, changed, blocks, looked_into, examples });
    }
    let side = &proven.sides[0];
    findings.extend(compare(&comparison.rejects, &comparison.places(), proof, name, side).await?);
    comparison.compared.rejects = comparison.rejects.len();
    Ok((comparison.compared, findings))
}

impl Comparison<'_> {
    fn at_hand(&self, judge: Judge) -> Option<usize> {
        match judge {
            Judge::Plugin { id, .. } if self.transformers.contains_key(&id) => Some(id),
            _ => None,
        }
    }

    /// What cannot be compared, by plugin.
    fn not_compared(&self) -> Vec<Problem> {
        let mut offsets = BTreeMap::<Judge, i64>::new();
        for (_, range, judge) in self.proof.judges().iter().filter(|(_, _, judge)| self.at_hand(*judge).is_none()) {
            let judge = match judge {
                Judge::Plugin { id, .. } => Judge::Plugin { id, replayed: false },
                Judge::Mixed => Judge::Mixed,
            };
            *offsets.entry(judge).or_default() += range.end - range.start;
        }
        let problem = |(judge, offsets)| {
            let (digest, why) = match judge {
                Judge::Plugin { id, .. } => (self.proof.judges().digests()[id].clone(), "which is not here"),
                Judge::Mixed => ("unknown".to_owned(), "one of several after a correction, or before the log begins"),
            };
            Problem::NotCompared { digest, offsets, why: why.to_owned() }
        };
        offsets.into_iter().map(problem).collect()
    }

    /// The offsets whose rejects can be compared: judged by a plugin at hand; and those of them without a replay.
    fn places(&self) -> [Places; 2] {
        let of = |with_replayed: bool| {
            let wanted = |judge: Judge| {
                let replayed = matches!(judge, Judge::Plugin { replayed: true, .. });
                self.at_hand(judge).is_some() && (with_replayed || !replayed)
            };
            let spans = self.proof.judges().iter().filter(|(_, _, judge)| wanted(*judge));
            let ranges: Vec<Ranges> = spans.map(|(log, range, _)| Ranges::from_iter([(log.clone(), range)])).collect();
            Places::of_ranges(&ranges)
        };
        [of(true), of(false)]
    }

    /// What is to be judged, in an order in which duplicates are told as they were when they came.
    fn units(&self, only: Option<&BTreeSet<Block>>) -> Vec<Unit> {
        let spans = |log: &LogPartition, range: OffsetRange| {
            let parts = self.proof.judges().parts(log, range).into_iter();
            parts.filter_map(|(range, judge)| Some((log.clone(), range, self.at_hand(judge)?))).collect::<Vec<_>>()
        };
        if self.config.dedup.is_some() {
            let commits = self.proof.cuts().ranges();
            return commits
                .flat_map(|ranges| units(ranges.iter().flat_map(|(log, range)| spans(log, range))))
                .collect();
        }
        match only {
            None => {
                let all = self.proof.judges().iter();
                units(all.filter_map(|(log, range, judge)| Some((log.clone(), range, self.at_hand(judge)?))))
            }
            Some(blocks) => {
                let ranges: Vec<Ranges> = blocks.iter().filter_map(Block::ranges).collect();
                units(ranges.iter().flat_map(Ranges::iter).flat_map(|(log, range)| spans(log, range)))
            }
        }
    }

    /// What the plugins make of Bronze.
    async fn expected(
        &mut self,
        only: Option<&BTreeSet<Block>>,
        mut dedup: Option<Dedup>,
        take: &mut Take<'_>,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> anyhow::Result<()> {
        let units = self.units(only);
        let offsets = |ranges: &Ranges| ranges.iter().map(|(_, range)| (range.end - range.start) as u64).sum::<u64>();
        let (all, mut done) = (units.iter().map(|(ranges, _)| offsets(ranges)).sum(), 0);
        let mut units = units.into_iter().peekable();
        while let Some(first) = units.next() {
            // With deduplication every commit is judged by itself: a read serves as many of them as fit.
            let (mut group, mut size) = (vec![first], 0);
            while dedup.is_some() && size < self.rows_max as u64 {
                let Some(unit) = units.next_if(|(ranges, _)| follows(&group, ranges)) else { break };
                size += offsets(&unit.0);
                group.push(unit);
            }
            let whole = union(&group);
            let mut left = whole.clone();
            loop {
                let Some(first) = left.iter().next().map(|(log, _)| log.clone()) else { break };
                let mut replay = Replay::plan(self.bronze.clone(), &left, self.rows_max, self.bytes_max).await?;
                let mut routed = Vec::new();
                while let Some(chunk) = replay.next().await? {
                    done += offsets(&chunk.ranges);
                    let chunk = self.routed(&chunk)?;
                    match &dedup {
                        None => self.judge(&chunk, group[0].1, &mut None, take)?,
                        Some(_) => routed.push(chunk),
                    }
                    progress(done, all);
                }
                for (ranges, id) in group.iter().filter(|_| !routed.is_empty()) {
                    if let Some(chunk) = part(&routed, ranges)? {
                        self.judge(&chunk, *id, &mut dedup, take)?;
                    }
                }
                let other = |log: &LogPartition| log.cluster != first.cluster || log.topic != first.topic;
                left = left.iter().filter(|(log, _)| other(log)).map(|(log, range)| (log.clone(), range)).collect();
            }
        }
        Ok(())
    }

    /// A chunk with the records that are this table's, and no others.
    fn routed(&self, chunk: &Chunk) -> anyhow::Result<Chunk> {
        let rows = std::mem::take(&mut self.router.route(chunk.values().iter()).tables[self.index]);
        let records = take_record_batch(&chunk.records, &UInt32Array::from(rows))?;
        Ok(Chunk { records, ranges: chunk.ranges.clone() })
    }

    fn judge(
        &mut self,
        chunk: &Chunk,
        id: usize,
        dedup: &mut Option<Dedup>,
        take: &mut Take<'_>,
    ) -> anyhow::Result<()> {
        let all: Vec<u32> = (0..chunk.records.num_rows() as u32).collect();
        let transformer = self.transformers.get_mut(&id).context("the plugin is gone")?;
        let mut verdicts: Verdicts = tokio::task::block_in_place(|| transformer.transform(chunk, &all))?;
        self.compared.events += verdicts.counts.events;
        self.rejects.add(&Coordinates::of(&chunk.records, OF_RECORDS)?, &verdicts.rejected);
        if let Some(dedup) = dedup {
            dedup.judge(&mut verdicts)?;
        }
        for batch in &verdicts.rows {
            let times = batch.column_by_name(&self.config.event_date).context("no column of event_date")?;
            let times = times.as_primitive::<TimestampMicrosecondType>().values();
            let days = times.iter().map(|time| day_of(*time)).collect();
            self.compared.rows += batch.num_rows() as u64;
            self.give(Side::Expected, batch, days, take)?;
        }
        Ok(())
    }

    /// What stands in the table, at the version whose log was proven.
    async fn found(&self, log: &LogStoreRef, take: &mut Take<'_>) -> anyhow::Result<()> {
        for file in files_at(log, self.proof.version()).await? {
            let store = log.object_store(None);
            let read = async {
                let mut read = columns(store, file.path.clone(), file.size, None).await?;
                while let Some(batch) = read.batches.try_next().await? {
                    let days = vec![file.day().unwrap_or(i32::MIN); batch.num_rows()];
                    self.give(Side::Found, &batch, days, take)?;
                }
                anyhow::Ok(())
            };
            read.await.with_context(|| format!("read {}", file.path))?;
        }
        Ok(())
    }

    /// Hands rows over, with their fingerprints; of those that stand in the table the ones that are compared.
    fn give(&self, side: Side, batch: &RecordBatch, days: Vec<i32>, take: &mut Take<'_>) -> anyhow::Result<()> {
        let places = Coordinates::of(batch, OF_ROWS)?;
        let rejected = (side == Side::Found).then(|| self.rejects.all().mask(&places));
        let rejected = |row: usize| rejected.as_ref().is_some_and(|mask| mask.value(row));
        let counts = |log: &LogPartition, row: usize| match self.proof.judges().of(log, places.offset(row)) {
            Some(judge @ Judge::Plugin { replayed: after, .. }) => {
                self.at_hand(judge).is_some() && !(after && rejected(row))
            }
            Some(Judge::Mixed) => false,
            // Of no commit's ranges: it should not be there.
            None => true,
        };
        let block = |log: &LogPartition, row: usize| match self.by_day {
            true => Block::Day(days[row]),
            false => Block::of_offset(log, places.offset(row)),
        };
        let mut wanted = vec![None; batch.num_rows()];
        for (log, rows) in places.runs() {
            for row in rows.filter(|row| side == Side::Expected || counts(&log, *row)) {
                let block = block(&log, row);
                if matches!(take, Take::Sum(_)) || matches!(take, Take::Look(looked) if looked.blocks.contains(&block))
                {
                    wanted[row] = Some((log.clone(), places.offset(row), block));
                }
            }
        }
        let plain = self.prints.plain(batch, days)?;
        let mask: BooleanArray = wanted.iter().map(|place| Some(place.is_some())).collect();
        let plain = if mask.true_count() < mask.len() { filter_record_batch(&plain, &mask)? } else { plain };
        let prints = self.prints.of(&plain)?;
        for (row, ((log, offset, block), print)) in wanted.into_iter().flatten().zip(prints).enumerate() {
            match take {
                Take::Sum(sums) => sums.add(side, &block, print),
                Take::Look(looked) => {
                    looked.add(side, self.by_day, &Row { log: &log, offset, print, plain: &plain, row });
                }
            }
        }
        Ok(())
    }
}

/// Offsets of one plugin each, as few as can be, at most one range of a log partition in each.
fn units(spans: impl IntoIterator<Item = (LogPartition, OffsetRange, usize)>) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    for (log, range, id) in spans {
        match units.iter_mut().find(|(ranges, of)| *of == id && ranges.get(&log).is_none()) {
            Some((ranges, _)) => ranges.insert(log, range),
            None => units.push((Ranges::from_iter([(log, range)]), id)),
        }
    }
    units
}

/// Whether ranges go on where those of a group end.
fn follows(group: &[Unit], ranges: &Ranges) -> bool {
    let end = |log: &LogPartition| group.iter().rev().find_map(|(unit, _)| unit.get(log)).map(|range| range.end);
    ranges.iter().all(|(log, range)| end(log).is_none_or(|end| end == range.start))
}

fn union(group: &[Unit]) -> Ranges {
    let mut whole = Ranges::default();
    for (log, range) in group.iter().flat_map(|(ranges, _)| ranges.iter()) {
        let start = whole.get(log).map_or(range.start, |before: OffsetRange| before.start);
        whole.insert(log.clone(), OffsetRange::new(start, range.end));
    }
    whole
}

/// The records of some ranges, out of several chunks of one topic of one cluster.
fn part(chunks: &[Chunk], ranges: &Ranges) -> anyhow::Result<Option<Chunk>> {
    let first = chunks.iter().find_map(|chunk| chunk.ranges.iter().next().map(|(log, _)| log.clone()));
    let Some(first) = first else { return Ok(None) };
    let same = |log: &LogPartition| log.cluster == first.cluster && log.topic == first.topic;
    let ranges: Ranges = ranges.iter().filter(|(log, _)| same(log)).map(|(log, range)| (log.clone(), range)).collect();
    let parts: Vec<RecordBatch> = chunks.iter().map(|chunk| chunk.select(&ranges).records).collect();
    let records = arrow::compute::concat_batches(&silverd_core::chunk::schema(), &parts)?;
    Ok((records.num_rows() > 0).then_some(Chunk { records, ranges }))
}
