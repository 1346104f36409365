//! Events under the plugin of today: what becomes of each, as files and counts.

use anyhow::{Context, bail};
use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use silverd_core::account::Counts;
use silverd_core::chunk::{Chunk, day_of};
use silverd_core::offsets::{LogPartition, Ranges};

use super::places::{Coordinates, Places};
use super::resolve::{Resolution, Resolved, Waiting};
use super::scope::{OF_RECORDS, OF_ROWS, Plan, Scope};
use super::{Correction, Progress};
use crate::delta::NewFile;
use crate::replay::Replay;
use crate::silver::by_day;
use crate::transform::{Rejected, Verdicts};
use crate::{late, quarantine};

/// Rejects are held in memory until the commit. A plugin that rejects more than this is to be mended first.
const REJECTS_BYTES_MAX: usize = 512 << 20;

/// What the events became, in files that are in no commit yet.
#[derive(Default)]
pub struct Made {
    pub adds: Vec<NewFile>,
    pub counts: Counts,
    /// Rows for the quarantine, and for the late table.
    pub rejects: Vec<RecordBatch>,
    pub late: Vec<RecordBatch>,
    pub resolved: Resolved,
    rejects_bytes: usize,
}

impl Correction {
    /// Judges what Bronze has of a scope.
    pub(super) async fn judge_bronze(
        &mut self,
        scope: &Scope,
        plan: &Plan,
        waiting: &Waiting,
        ranges: &Ranges,
        progress: Progress<'_>,
    ) -> anyhow::Result<Made> {
        let (mut made, mut seen, mut left) = (Made::default(), Places::default(), ranges.clone());
        let offsets = |ranges: &Ranges| ranges.iter().map(|(_, range)| (range.end - range.start) as u64).sum::<u64>();
        let (total, mut done) = (offsets(ranges), 0);
        loop {
            let Some(first) = left.iter().next().map(|(log, _)| log.clone()) else { break };
            let mut replay = Replay::plan(self.bronze.clone(), &left, self.rows_max, self.bytes_max).await?;
            while let Some(chunk) = replay.next().await? {
                let records = Coordinates::of(&chunk.records, OF_RECORDS)?;
                seen.insert(&records);
                let wanted = scope.mask(plan, &records)?;
                let routed = std::mem::take(&mut self.router.route(chunk.values().iter()).tables[self.index]);
                let routed: Vec<u32> = match &wanted {
                    Some(mask) => routed.into_iter().filter(|row| mask.value(*row as usize)).collect(),
                    None => routed,
                };
                let days = match scope {
                    Scope::Days(days) => Some((days, &plan.gone)),
                    _ => None,
                };
                self.judge(&chunk, &records, &routed, days, waiting, &mut made).await?;
                done += offsets(&chunk.ranges);
                progress(done, total);
            }
            let other = |log: &LogPartition| log.cluster != first.cluster || log.topic != first.topic;
            left = left.iter().filter(|(log, _)| other(log)).map(|(log, range)| (log.clone(), range)).collect();
        }
        let lost = plan.hit.count_beyond(&seen);
        if lost > 0 {
            bail!(
                "bronze no longer has {lost} of the {} events whose rows would be replaced: nothing was changed. Name the \
                 days that bronze has with --from and --to",
                plan.hit.len()
            );
        }
        Ok(made)
    }

    /// Judges quarantined events; those of them that have rows already are resolved, and not judged.
    pub(super) async fn judge_waiting(
        &mut self,
        waiting: Waiting,
        there: &Places,
        progress: Progress<'_>,
    ) -> anyhow::Result<Made> {
        let mut made = Made::default();
        made.resolved.add(Resolution::Row, there);
        let (total, mut done) = (waiting.places.len(), 0);
        for chunk in waiting.chunks()? {
            let records = Coordinates::of(&chunk.records, OF_RECORDS)?;
            let there = there.mask(&records);
            let todo: Vec<u32> = (0..records.rows() as u32).filter(|row| !there.value(*row as usize)).collect();
            self.judge(&chunk, &records, &todo, None, &waiting, &mut made).await?;
            done += records.rows() as u64;
            progress(done, total);
        }
        Ok(made)
    }

    /// Judges some records of a chunk. Of `days`, with the events whose rows go: others count only with rows of those days.
    async fn judge(
        &mut self,
        chunk: &Chunk,
        records: &Coordinates,
        routed: &[u32],
        days: Option<(&std::ops::RangeInclusive<i32>, &Places)>,
        waiting: &Waiting,
        made: &mut Made,
    ) -> anyhow::Result<()> {
        let mut verdicts = tokio::task::block_in_place(|| self.transformer.transform(chunk, routed))?;
        let rejected = picked(records, verdicts.rejected.iter().map(|reject| reject.record));
        let outside = match days {
            Some((days, gone)) => self.leave_out(&mut verdicts, records, days, gone)?,
            None => Places::default(),
        };
        let waits = waiting.places.mask(records);
        let was_waiting = |row: &u32| waits.value(*row as usize);
        let some_waited = routed.iter().any(was_waiting);
        let before = if some_waited { rows_in(&verdicts.rows)? } else { Places::default() };
        if let Some(dedup) = &mut self.dedup {
            dedup.look_up(&verdicts.rows).await?;
            dedup.judge(&mut verdicts)?;
        }
        if some_waited {
            let rows = rows_in(&verdicts.rows)?;
            let candidates = picked(records, routed.iter().copied().filter(was_waiting));
            made.resolved.judge(&candidates, &rejected, &rows, &before, &outside);
        }
        let new: Vec<Rejected> = verdicts.rejected.into_iter().filter(|reject| !was_waiting(&reject.record)).collect();
        if !new.is_empty() {
            let digest = &self.transformer.plugin().digest;
            let rows = quarantine::rows(&self.config.name, digest, chunk, &new)?;
            made.rejects_bytes += rows.get_array_memory_size();
            made.rejects.push(rows);
        }
        if made.rejects_bytes > REJECTS_BYTES_MAX {
            bail!(
                "the plugin rejects more than {} MiB of events: nothing was changed. Mend it first; `silverd plugin try` \
                 shows what it says",
                REJECTS_BYTES_MAX >> 20
            );
        }
        verdicts.rejected = Vec::new();
        if self.late.is_some() {
            made.late.extend(late::find(&self.config, &mut verdicts)?);
        }
        for (day, rows) in by_day(&verdicts.rows, &self.config.event_date)? {
            let (file, bytes) = self.encoder.encode(day, &rows)?;
            file.put(&self.table.store(), bytes).await?;
            made.adds.push(file);
        }
        made.counts += verdicts.counts;
        Ok(())
    }

    /// Leaves out the events that had no rows in the days, and would get some elsewhere; gives them.
    fn leave_out(
        &self,
        verdicts: &mut Verdicts,
        records: &Coordinates,
        days: &std::ops::RangeInclusive<i32>,
        gone: &Places,
    ) -> anyhow::Result<Places> {
        let mut outside = Places::default();
        for batch in &verdicts.rows {
            let times = batch.column_by_name(&self.config.event_date).context("no column of event_date")?;
            let times = times.as_primitive::<TimestampMicrosecondType>().values();
            let elsewhere: BooleanArray = times.iter().map(|time| Some(!days.contains(&day_of(*time)))).collect();
            outside.insert_some(&Coordinates::of(batch, OF_ROWS)?, &elsewhere);
        }
        let outside = outside.without(gone);
        let mut left_out = 0;
        for batch in &mut verdicts.rows {
            let mask = outside.mask(&Coordinates::of(batch, OF_ROWS)?);
            left_out += mask.true_count() as u64;
            *batch = filter_record_batch(batch, &arrow::compute::not(&mask)?)?;
        }
        verdicts.rows.retain(|batch| batch.num_rows() > 0);
        verdicts.counts.rows -= left_out;
        verdicts.counts.with_rows -= outside.len();
        verdicts.counts.events -= outside.len();
        // A reject has no day: it is new to the quarantine only where the event had rows that go.
        let had_rows = gone.mask(records);
        let before = verdicts.rejected.len();
        verdicts.rejected.retain(|reject| had_rows.value(reject.record as usize));
        let passed_over = (before - verdicts.rejected.len()) as u64;
        verdicts.counts.rejected -= passed_over;
        verdicts.counts.events -= passed_over;
        Ok(outside)
    }
}

/// The events that rows were made of.
fn rows_in(rows: &[RecordBatch]) -> anyhow::Result<Places> {
    let mut places = Places::default();
    for batch in rows {
        places.insert(&Coordinates::of(batch, OF_ROWS)?);
    }
    Ok(places)
}

fn picked(records: &Coordinates, rows: impl Iterator<Item = u32>) -> Places {
    let mut mask = vec![false; records.rows()];
    for row in rows {
        mask[row as usize] = true;
    }
    let mut places = Places::default();
    places.insert_some(records, &mask.into());
    places
}
