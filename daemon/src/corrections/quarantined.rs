//! The quarantine's part in a correction: the unresolved events, and the mark on those that the correction resolves.

use std::sync::Arc;

use anyhow::bail;
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, ListArray, RecordBatch, StringArray, TimestampMicrosecondArray,
    new_empty_array, new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::kernels::cmp::eq;
use arrow::compute::{
    SortColumn, and, cast, concat_batches, filter_record_batch, is_null, lexsort_to_indices, not, take_record_batch,
};
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use futures::TryStreamExt;
use serde_json::json;
use silverd_core::chunk::{self, Chunk};
use silverd_core::offsets::Offsets;
use silverd_core::route::{Event, EventHeaders, Router, Routes};

use super::commit::commit_change;
use super::scope::rewrite;
use crate::delta::{Change, DataFile, Table, read_columns};
use crate::runtime::clock;
use crate::tables::column::column;
use crate::tables::event_set::{Coordinates, EventSet, RECORD_COORDINATES};
use crate::tables::side_output::SideOutput;

/// The most records of a chunk of quarantined events.
const CHUNK_ROWS_MAX: usize = 50_000;

/// Unresolved events of one table that are replayed in one commit: a quarantine may be larger than memory, and the commit
/// names the events.
const PART_ROWS_MAX: usize = 100_000;
const PART_BYTES_MAX: usize = 64 << 20;

/// Some of the quarantined events of one table that are not resolved.
pub(crate) struct QuarantinedEvents {
    pub(super) events: EventSet,
    rows: Vec<RecordBatch>,
    /// For events that no table took: which of them the quarantine has as rejects of the table that takes them now.
    pub(super) rejected_before: Option<EventSet>,
}

/// How a quarantined event was resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resolution {
    Row,
    Dropped,
    Duplicate,
    /// No table took it before. The table that takes it now rejects it, and has it in the quarantine.
    Rejected,
}

/// Resolved events by their resolution.
#[derive(Default)]
pub(crate) struct Resolved([EventSet; 4]);

/// The outcomes of some quarantined events.
pub(super) struct QuarantinedOutcomes<'o> {
    pub(super) events: EventSet,
    /// Events that were rejected, and whether that resolves them.
    pub(super) rejected: &'o EventSet,
    pub(super) are_unrouted: bool,
    /// Events with rows, before and after duplicates were dropped.
    pub(super) with_rows: &'o EventSet,
    pub(super) with_new_rows: &'o EventSet,
    /// Events that the correction leaves out.
    pub(super) left_out: &'o EventSet,
}

impl Resolution {
    const ALL: [Resolution; 4] = [Resolution::Row, Resolution::Dropped, Resolution::Duplicate, Resolution::Rejected];

    fn name(self) -> &'static str {
        match self {
            Resolution::Row => "row",
            Resolution::Dropped => "dropped",
            Resolution::Duplicate => "duplicate",
            Resolution::Rejected => "rejected",
        }
    }
}

impl Resolved {
    pub(super) fn add(&mut self, resolution: Resolution, events: &EventSet) {
        self.0[resolution as usize].merge(events);
    }

    /// Adds the events that were not rejected again, and those that a table rejects that did not take them before.
    pub(super) fn add_outcomes(&mut self, outcomes: &QuarantinedOutcomes<'_>) {
        let accepted = outcomes.events.without(outcomes.rejected).without(outcomes.left_out);
        let without_row = accepted.without(outcomes.with_new_rows);
        let dropped = without_row.without(outcomes.with_rows);
        self.add(Resolution::Row, &accepted.without(&without_row));
        self.add(Resolution::Duplicate, &without_row.without(&dropped));
        self.add(Resolution::Dropped, &dropped);
        if outcomes.are_unrouted {
            self.add(Resolution::Rejected, &outcomes.events.and(outcomes.rejected));
        }
    }

    /// Adds what another table made of the same events.
    pub(crate) fn merge(&mut self, others: Self) {
        for (events, more) in self.0.iter_mut().zip(others.0) {
            events.merge(&more);
        }
    }

    /// All of them. Several tables may have resolved an event in different ways.
    pub(super) fn events(&self) -> EventSet {
        let mut all = EventSet::default();
        self.0.iter().for_each(|events| all.merge(events));
        all
    }

    pub(crate) fn len(&self) -> u64 {
        self.events().len()
    }

    /// The events that every table rejects that takes them.
    pub(crate) fn rejected(&self) -> u64 {
        let [taken @ .., rejected] = &self.0;
        taken.iter().fold(rejected.clone(), |rejected, taken| rejected.without(taken)).len()
    }

    /// Marks the events in the quarantine. Events that are marked already are left as they are.
    pub(crate) async fn mark(&self, quarantine: &SideOutput, table: &str) -> anyhow::Result<()> {
        if self.0.iter().all(|events| events.is_empty()) {
            return Ok(());
        }
        let mut guard = quarantine.table().await;
        commit_change(&mut guard, async |guard| {
            let (mut change, mut marked) = (Change::default(), 0);
            for file in guard.files().await? {
                let count = self.count_in(guard, &file, table).await?;
                if count > 0 {
                    marked += count;
                    change.adds.push(rewrite(guard, &file, |batch| self.mark_rows(batch, table)).await?);
                    change.removes.push(file);
                }
            }
            change.info = json!({ "table": table, "resolved": marked });
            Ok((change, ()))
        })
        .await
    }

    /// How many rows of a file have to be marked.
    async fn count_in(&self, quarantine: &Table, file: &DataFile, table: &str) -> anyhow::Result<u64> {
        let names = ["table", "resolved_at"].into_iter().chain(RECORD_COORDINATES).collect::<Vec<_>>();
        let mut read = read_columns(quarantine.store(), file, Some(&names)).await?;
        let mut count = 0;
        while let Some(batch) = read.batches.try_next().await? {
            let unresolved = unresolved(&batch, table)?;
            let coordinates = Coordinates::of(&batch, RECORD_COORDINATES)?;
            for events in &self.0 {
                count += and(&unresolved, &events.mask(&coordinates))?.true_count() as u64;
            }
        }
        Ok(count)
    }

    /// The rows with `resolved_at` and `resolution` of the resolved events.
    fn mark_rows(&self, batch: &RecordBatch, table: &str) -> anyhow::Result<RecordBatch> {
        let (unresolved, coordinates) = (unresolved(batch, table)?, Coordinates::of(batch, RECORD_COORDINATES)?);
        let times = column(batch, "resolved_at")?.as_primitive::<TimestampMicrosecondType>();
        let texts = cast(column(batch, "resolution")?, &DataType::Utf8)?;
        let texts = texts.as_string::<i32>();
        let mut times: Vec<Option<i64>> = times.iter().collect();
        let mut texts: Vec<Option<&str>> = texts.iter().collect();
        let now = clock::now_micros();
        // Of an event that several tables take, a row counts the most.
        for resolution in Resolution::ALL.into_iter().rev() {
            let mask = and(&unresolved, &self.0[resolution as usize].mask(&coordinates))?;
            for row in (0..mask.len()).filter(|row| mask.value(*row)) {
                (times[row], texts[row]) = (Some(now), Some(resolution.name()));
            }
        }
        let texts = cast(&StringArray::from(texts), column(batch, "resolution")?.data_type())?;
        let schema = batch.schema();
        let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| -> ArrayRef {
            match field.name().as_str() {
                "resolved_at" => Arc::new(TimestampMicrosecondArray::from(times.clone()).with_timezone("UTC")),
                "resolution" => texts.clone(),
                _ => column.clone(),
            }
        });
        Ok(RecordBatch::try_new(schema.clone(), columns.collect())?)
    }
}

impl QuarantinedEvents {
    /// The positions of all unresolved events of a table; with a `code`, only those with this code.
    pub(crate) async fn positions(
        quarantine: &SideOutput,
        table: &str,
        code: Option<&str>,
    ) -> anyhow::Result<EventSet> {
        let names = ["table", "code", "resolved_at"].into_iter().chain(RECORD_COORDINATES).collect::<Vec<_>>();
        let mut guard = quarantine.table().await;
        let mut events = EventSet::default();
        for file in guard.files().await? {
            let mut read = read_columns(guard.store(), &file, Some(&names)).await?;
            while let Some(batch) = read.batches.try_next().await? {
                events.insert_some(&Coordinates::of(&batch, RECORD_COORDINATES)?, &wanted(&batch, table, code)?);
            }
        }
        Ok(events)
    }

    /// The positions alone, for a correction that reads the events from Bronze.
    pub(super) fn without_rows(events: EventSet) -> Self {
        Self { events, rows: Vec::new(), rejected_before: None }
    }

    /// Reads unresolved events of a table that are not in `done`, as many as one commit takes.
    pub(crate) async fn read_part(
        quarantine: &SideOutput,
        table: &str,
        code: Option<&str>,
        done: &EventSet,
    ) -> anyhow::Result<Self> {
        let mut guard = quarantine.table().await;
        let (mut events, mut rows, mut bytes) = (EventSet::default(), Vec::new(), 0);
        for file in guard.files().await? {
            let mut read = read_columns(guard.store(), &file, None).await?;
            while let Some(batch) = read.batches.try_next().await? {
                let is_done = done.mask(&Coordinates::of(&batch, RECORD_COORDINATES)?);
                let batch = filter_record_batch(&batch, &and(&wanted(&batch, table, code)?, &not(&is_done)?)?)?;
                if batch.num_rows() == 0 {
                    continue;
                }
                events.insert(&Coordinates::of(&batch, RECORD_COORDINATES)?);
                bytes += batch.get_array_memory_size();
                rows.push(batch);
                if events.len() >= PART_ROWS_MAX as u64 || bytes >= PART_BYTES_MAX {
                    return Ok(Self { events, rows, rejected_before: None });
                }
            }
        }
        Ok(Self { events, rows, rejected_before: None })
    }

    /// The events that table `index` of a router takes: none, if it matches on headers, which the quarantine does not have.
    /// With `passed`, the next offsets of that table, without those that
    /// it has not come to yet: it takes them from Bronze.
    pub(crate) fn routed_to(&self, router: &Router, index: usize, passed: Option<&Offsets>) -> anyhow::Result<Self> {
        let (mut events, mut rows) = (EventSet::default(), Vec::new());
        for batch in self.rows.iter().filter(|_| !router.reads_headers(index)) {
            let mut wanted = vec![false; batch.num_rows()];
            for row in &route(batch, router)?.tables[index] {
                wanted[*row as usize] = true;
            }
            let coordinates = Coordinates::of(batch, RECORD_COORDINATES)?;
            if let Some(passed) = passed {
                for (log, run) in coordinates.runs() {
                    let next = passed.get(&log).copied().unwrap_or(0);
                    run.for_each(|row| wanted[row] &= coordinates.offset(row) < next);
                }
            }
            let wanted = BooleanArray::from(wanted);
            events.insert_some(&coordinates, &wanted);
            rows.push(filter_record_batch(batch, &wanted)?);
        }
        rows.retain(|batch| batch.num_rows() > 0);
        Ok(Self { events, rows, rejected_before: None })
    }

    pub(crate) fn events(&self) -> &EventSet {
        &self.events
    }

    pub(crate) fn len(&self) -> u64 {
        self.events.len()
    }

    /// The events as chunks of records, sorted by offset. Each chunk is of one topic of one cluster.
    pub(super) fn chunks(&self) -> anyhow::Result<Vec<Chunk>> {
        let Some(first) = self.rows.first() else { return Ok(Vec::new()) };
        let rows = to_records(&concat_batches(&first.schema(), &self.rows)?)?;
        let types = [DataType::Utf8, DataType::Utf8, DataType::Int32, DataType::Int64];
        let sort_by = types
            .iter()
            .zip(rows.columns())
            .map(|(ty, values)| anyhow::Ok(SortColumn { values: cast(values, ty)?, options: None }));
        let order = lexsort_to_indices(&sort_by.collect::<anyhow::Result<Vec<_>>>()?, None)?;
        let rows = take_record_batch(&rows, &order)?;
        let (clusters, topics) = (cast(rows.column(0), &DataType::Utf8)?, cast(rows.column(1), &DataType::Utf8)?);
        let (clusters, topics) = (clusters.as_string::<i32>(), topics.as_string::<i32>());
        let same = |a: usize, b: usize| clusters.value(a) == clusters.value(b) && topics.value(a) == topics.value(b);
        let (mut chunks, mut start) = (Vec::new(), 0);
        for row in 1..=rows.num_rows() {
            if row == rows.num_rows() || !same(start, row) || row - start == CHUNK_ROWS_MAX {
                let records = rows.slice(start, row - start);
                let ranges = EventSet::of_batches([&records], RECORD_COORDINATES)?.bounds();
                chunks.push(Chunk { records, ranges });
                start = row;
            }
        }
        Ok(chunks)
    }
}

/// Rows of the quarantine with the columns of a chunk. The quarantine has no headers and no timestamp types; plugins do
/// not get them either.
fn to_records(rows: &RecordBatch) -> anyhow::Result<RecordBatch> {
    let schema = chunk::schema();
    let columns = schema.fields().iter().map(|field| {
        Ok(match field.name().as_str() {
            chunk::column::TIMESTAMP_TYPE => new_null_array(field.data_type(), rows.num_rows()),
            chunk::column::HEADERS => {
                let DataType::List(item) = field.data_type() else { bail!("the headers of a chunk are no list") };
                let offsets = OffsetBuffer::new_zeroed(rows.num_rows());
                Arc::new(ListArray::try_new(item.clone(), offsets, new_empty_array(item.data_type()), None)?)
                    as ArrayRef
            }
            name => cast(column(rows, name)?, field.data_type())?,
        })
    });
    Ok(RecordBatch::try_new(schema.clone(), columns.collect::<anyhow::Result<_>>()?)?)
}

/// Which rows of the quarantine are unresolved events of a table, and have this code.
fn wanted(batch: &RecordBatch, table: &str, code: Option<&str>) -> anyhow::Result<BooleanArray> {
    let unresolved = unresolved(batch, table)?;
    match code {
        Some(code) => Ok(and(&unresolved, &equals(batch, "code", code)?)?),
        None => Ok(unresolved),
    }
}

/// Which rows of a side output are events of a table that are not resolved. Late events never are.
pub(super) fn unresolved(batch: &RecordBatch, table: &str) -> anyhow::Result<BooleanArray> {
    let of_table = equals(batch, "table", table)?;
    match batch.column_by_name("resolved_at") {
        Some(resolved_at) => Ok(and(&of_table, &is_null(resolved_at)?)?),
        None => Ok(of_table),
    }
}

/// Which rows have this text in a column.
pub(super) fn equals(batch: &RecordBatch, name: &str, value: &str) -> anyhow::Result<BooleanArray> {
    let texts = cast(column(batch, name)?, &DataType::Utf8)?;
    Ok(eq(&texts, &StringArray::new_scalar(value))?)
}

/// Routes the events of a batch of the quarantine.
fn route(batch: &RecordBatch, router: &Router) -> anyhow::Result<Routes> {
    let binary = |name: &str| anyhow::Ok(cast(column(batch, name)?, &DataType::Binary)?);
    let (keys, values) = (binary(chunk::column::KEY)?, binary(chunk::column::VALUE)?);
    let topics = cast(column(batch, chunk::column::TOPIC)?, &DataType::Utf8)?;
    let fields = topics.as_string::<i32>().iter().zip(keys.as_binary::<i32>()).zip(values.as_binary::<i32>());
    Ok(router.route_events(fields.map(|((topic, key), value)| Event {
        topic: topic.unwrap_or_default(),
        key,
        value,
        headers: EventHeaders::Unknown,
    })))
}
