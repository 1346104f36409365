//! Transforms the events of a correction with its plugin: rows go to files, rejects and counts to the commit.

use std::ops::RangeInclusive;

use anyhow::bail;
use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, not};
use arrow::datatypes::TimestampMicrosecondType;
use silverd_core::chunk::Chunk;
use silverd_core::counts::Counts;
use silverd_core::offsets::Ranges;

use super::quarantined::{QuarantinedEvents, QuarantinedOutcomes, Resolution, Resolved};
use super::scope::{Plan, Scope};
use super::{Correction, NotInBronze, Progress};
use crate::bronze::replay_clusters::ReplayClusters;
use crate::delta::NewFile;
use crate::plugin::{Rejected, TransformOutput};
use crate::runtime::machine;
use crate::tables::column::column;
use crate::tables::event_set::{Coordinates, EventSet, RECORD_COORDINATES, ROW_COORDINATES};
use crate::tables::silver::RowsByDay;
use crate::tables::{late, quarantine};

/// Rejects stay in memory until the commit. A plugin with more rejects has to be fixed first.
const REJECTS_BYTES_MAX: usize = 512 << 20;
/// The same for late events that are not listed yet.
const LATE_BYTES_MAX: usize = 512 << 20;
/// Lost events that an error names.
const LOST_SHOWN_MAX: usize = 3;

/// What a correction has produced. The files are not committed yet.
#[derive(Default)]
pub(super) struct CorrectionOutput {
    pub(super) adds: Vec<NewFile>,
    pub(super) counts: Counts,
    /// New rows of the side outputs.
    pub(super) rejects: Vec<RecordBatch>,
    pub(super) late: Vec<RecordBatch>,
    pub(super) resolved: Resolved,
    /// For a scope of days: events that have rows on other days now.
    pub(super) moved: EventSet,
    pub(super) not_in_bronze: NotInBronze,
    rejects_bytes: usize,
    late_bytes: usize,
}

/// The records of a chunk to transform.
struct Selected<'c> {
    chunk: &'c Chunk,
    coordinates: &'c Coordinates,
    records: &'c [u32],
}

/// For a scope of days: the days, and the events whose rows are removed.
#[derive(Clone, Copy)]
struct DayScope<'d> {
    days: &'d RangeInclusive<i32>,
    removed_events: &'d EventSet,
}

impl Correction {
    /// Transforms the events of a scope, read from Bronze.
    pub(super) async fn transform_bronze(
        &mut self,
        scope: &Scope,
        plan: &Plan,
        quarantined: &QuarantinedEvents,
        ranges: &Ranges,
        progress: Progress<'_>,
    ) -> anyhow::Result<CorrectionOutput> {
        let (mut corrected, mut seen) = (CorrectionOutput::default(), EventSet::default());
        let (total, mut done) = (ranges.total() as u64, 0);
        let mut replay = ReplayClusters::new(self.bronze.clone(), ranges.clone(), self.rows_max, self.bytes_max);
        while let Some(chunk) = replay.next().await? {
            let coordinates = Coordinates::of(&chunk.records, RECORD_COORDINATES)?;
            seen.insert(&coordinates);
            let wanted = scope.mask(plan, &coordinates)?;
            let mut records = std::mem::take(&mut self.router.route(&chunk).tables[self.index]);
            if let Some(mask) = &wanted {
                records.retain(|record| mask.value(*record as usize));
            }
            let day_scope = match scope {
                Scope::Days(days) => Some(DayScope { days, removed_events: &plan.removed_events }),
                Scope::Everything | Scope::Events(_) => None,
            };
            let selected = Selected { chunk: &chunk, coordinates: &coordinates, records: &records };
            self.transform_chunk(&selected, day_scope, quarantined, &mut corrected).await?;
            done += chunk.ranges.total() as u64;
            progress(done, total);
        }
        corrected.not_in_bronze = self.check_lost(&plan.events_with_rows, &plan.events_with_rows.without(&seen))?;
        Ok(corrected)
    }

    /// Fails if rows would be lost that silverd may have written, unless that was asked for. `missing` are those of the events
    /// `with_rows` of which Bronze has no record.
    ///
    /// | Bronze has no record at         | the rows there are                            | so the correction |
    /// |---------------------------------|-----------------------------------------------|-------------------|
    /// | an offset beyond the table's    | of another program: silverd was never there   | removes them      |
    /// | an offset that the table passed | of silverd, if Bronze has lost the record     | is refused        |
    /// | any, if the progress was lost   | perhaps of silverd                            | is refused        |
    fn check_lost(&self, with_rows: &EventSet, missing: &EventSet) -> anyhow::Result<NotInBronze> {
        let lost = match self.restored {
            None => missing.passed(&self.table.offsets()),
            Some(_) => missing.clone(),
        };
        let (foreign, count) = (missing.count_not_in(&lost), lost.len());
        if count == 0 || self.removes_lost {
            return Ok(NotInBronze { foreign, lost: count });
        }
        let first = lost.first(LOST_SHOWN_MAX);
        let first: Vec<_> = first.iter().map(|(log, offset)| format!("offset {offset} of {log}")).collect();
        let help = match self.restored {
            None => "Limit the rebuild to days that bronze has, with --from and --to",
            Some(_) => {
                "The log has lost the table's progress, too, so silverd cannot say whether it has written these rows. Stop \
                 silverd, move the table away, and start silverd, which fills a new one with what bronze has"
            }
        };
        bail!(
            "bronze does not have {count} of the {} events whose rows would be replaced ({}), and silverd may have written \
             these rows; nothing was replaced. {help}. With --remove-lost, the rebuild gives these rows up",
            with_rows.len(),
            first.join(", ")
        );
    }

    /// Transforms quarantined events. Those in `with_rows` already have rows in the table: they are resolved, and not
    /// transformed.
    pub(super) async fn transform_quarantined(
        &mut self,
        quarantined: &QuarantinedEvents,
        with_rows: &EventSet,
        progress: Progress<'_>,
    ) -> anyhow::Result<CorrectionOutput> {
        let mut corrected = CorrectionOutput::default();
        corrected.resolved.add(Resolution::Row, with_rows);
        let (total, mut done) = (quarantined.len(), 0);
        for chunk in quarantined.chunks()? {
            let coordinates = Coordinates::of(&chunk.records, RECORD_COORDINATES)?;
            let has_rows = with_rows.mask(&coordinates);
            let records: Vec<u32> =
                (0..coordinates.rows() as u32).filter(|record| !has_rows.value(*record as usize)).collect();
            let selected = Selected { chunk: &chunk, coordinates: &coordinates, records: &records };
            self.transform_chunk(&selected, None, quarantined, &mut corrected).await?;
            done += coordinates.rows() as u64;
            progress(done, total);
        }
        Ok(corrected)
    }

    async fn transform_chunk(
        &mut self,
        selected: &Selected<'_>,
        day_scope: Option<DayScope<'_>>,
        quarantined: &QuarantinedEvents,
        corrected: &mut CorrectionOutput,
    ) -> anyhow::Result<()> {
        let Selected { chunk, coordinates, records } = *selected;
        let mut output = machine::block_in_place(|| self.transformer.transform(chunk, records))?;
        let rejected = events_at(coordinates, output.rejected.iter().map(|reject| reject.record));
        let left_out = match day_scope {
            Some(day_scope) => {
                let elsewhere = self.events_on_other_days(&output, day_scope.days)?;
                let left_out = elsewhere.without(day_scope.removed_events);
                corrected.moved.merge(&elsewhere.without(&left_out));
                leave_out(&mut output, &left_out, coordinates, day_scope.removed_events)?;
                left_out
            }
            None => EventSet::default(),
        };
        let mask = quarantined.events.mask(coordinates);
        let is_quarantined = |record: &u32| mask.value(*record as usize);
        let some_quarantined = records.iter().any(is_quarantined);
        let with_rows = match some_quarantined {
            true => EventSet::of_batches(&output.rows, ROW_COORDINATES)?,
            false => EventSet::default(),
        };
        if let Some(dedup) = &mut self.dedup {
            dedup.load_keys_for(&output.rows).await?;
            dedup.drop_duplicates(&mut output)?;
        }
        if some_quarantined {
            let outcomes = QuarantinedOutcomes {
                events: events_at(coordinates, records.iter().copied().filter(is_quarantined)),
                rejected: &rejected,
                are_unrouted: quarantined.rejected_before.is_some(),
                with_rows: &with_rows,
                with_new_rows: &EventSet::of_batches(&output.rows, ROW_COORDINATES)?,
                left_out: &left_out,
            };
            corrected.resolved.add_outcomes(&outcomes);
        }
        let mut new_rejects = std::mem::take(&mut output.rejected);
        match &quarantined.rejected_before {
            None => new_rejects.retain(|reject| !is_quarantined(&reject.record)),
            Some(before) => {
                let before = before.mask(coordinates);
                new_rejects.retain(|reject| !before.value(reject.record as usize));
            }
        }
        self.add_rejects(chunk, &new_rejects, corrected)?;
        if self.late.is_some() {
            self.add_late(&mut output, corrected)?;
        }
        let by_day = RowsByDay::split(&output.rows, &self.config.event_time, self.config.time_zone)?;
        for day in by_day.days() {
            let (file, bytes) = self.encoder.encode(day, &by_day.rows(day)?)?;
            file.put(&self.table.store(), bytes).await?;
            corrected.adds.push(file);
        }
        corrected.counts += output.counts;
        Ok(())
    }

    /// Adds rejects that are not in the quarantine yet.
    fn add_rejects(&self, chunk: &Chunk, rejects: &[Rejected], corrected: &mut CorrectionOutput) -> anyhow::Result<()> {
        if rejects.is_empty() {
            return Ok(());
        }
        let rows = quarantine::rows(&self.config.name, &self.transformer.plugin().digest, chunk, rejects)?;
        corrected.rejects_bytes += rows.get_array_memory_size();
        corrected.rejects.push(rows);
        if corrected.rejects_bytes > REJECTS_BYTES_MAX {
            bail!(
                "the plugin rejects more than {} MiB of events; nothing was replaced. Fix it first; `silverd plugin try` \
                 shows its rejects",
                REJECTS_BYTES_MAX >> 20
            );
        }
        Ok(())
    }

    /// Adds late events that are not listed yet, and counts only them.
    fn add_late(&self, output: &mut TransformOutput, corrected: &mut CorrectionOutput) -> anyhow::Result<()> {
        let Some(found) = late::find(&self.config, output)? else { return Ok(()) };
        let is_listed = self.listed_late.mask(&Coordinates::of(&found, RECORD_COORDINATES)?);
        let new = filter_record_batch(&found, &not(&is_listed)?)?;
        output.counts.late = new.num_rows() as u64;
        if new.num_rows() == 0 {
            return Ok(());
        }
        corrected.late_bytes += new.get_array_memory_size();
        corrected.late.push(new);
        if corrected.late_bytes > LATE_BYTES_MAX {
            bail!(
                "more than {} MiB of late events are not in the table late yet; nothing was replaced. Without `late_after` in \
                 pipeline.toml, the rebuild lists none",
                LATE_BYTES_MAX >> 20
            );
        }
        Ok(())
    }

    /// The events with rows on other days than these.
    fn events_on_other_days(&self, output: &TransformOutput, days: &RangeInclusive<i32>) -> anyhow::Result<EventSet> {
        let mut elsewhere = EventSet::default();
        let mut day_of = self.config.time_zone.days();
        for batch in &output.rows {
            let times = column(batch, &self.config.event_time)?.as_primitive::<TimestampMicrosecondType>().values();
            let is_elsewhere: BooleanArray = times.iter().map(|time| Some(!days.contains(&day_of.of(*time)))).collect();
            elsewhere.insert_some(&Coordinates::of(batch, ROW_COORDINATES)?, &is_elsewhere);
        }
        Ok(elsewhere)
    }
}

/// Leaves out events that had no rows on the days, and would get rows on other days; and rejects of events that had none.
fn leave_out(
    output: &mut TransformOutput,
    left_out: &EventSet,
    records: &Coordinates,
    removed_events: &EventSet,
) -> anyhow::Result<()> {
    let mut rows_left_out = 0;
    for batch in &mut output.rows {
        let mask = left_out.mask(&Coordinates::of(batch, ROW_COORDINATES)?);
        rows_left_out += mask.true_count() as u64;
        *batch = filter_record_batch(batch, &not(&mask)?)?;
    }
    output.rows.retain(|batch| batch.num_rows() > 0);
    output.counts.rows -= rows_left_out;
    output.counts.with_rows -= left_out.len();
    output.counts.events -= left_out.len();
    // A reject has no day: it counts only if rows of the event are removed.
    let had_rows = removed_events.mask(records);
    let before = output.rejected.len();
    output.rejected.retain(|reject| had_rows.value(reject.record as usize));
    let rejects_left_out = (before - output.rejected.len()) as u64;
    output.counts.rejected -= rejects_left_out;
    output.counts.events -= rejects_left_out;
    Ok(())
}

/// The events of the records with these indexes.
fn events_at(coordinates: &Coordinates, records: impl Iterator<Item = u32>) -> EventSet {
    let mut mask = vec![false; coordinates.rows()];
    for record in records {
        mask[record as usize] = true;
    }
    let mut events = EventSet::default();
    events.insert_some(coordinates, &mask.into());
    events
}
