//! The quarantine's side of a correction: the rejects that wait there, and the mark on those that were resolved.

use std::sync::Arc;

use anyhow::Context;
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, ListArray, RecordBatch, StringArray, TimestampMicrosecondArray,
    new_null_array,
};
use arrow::compute::kernels::cmp::eq;
use arrow::compute::{SortColumn, concat_batches};
use arrow::compute::{and, cast, filter_record_batch, is_null, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use futures::TryStreamExt;
use serde_json::json;
use silverd_core::chunk::{self, Chunk, column};

use super::places::{Coordinates, Places};
use super::scope::{OF_RECORDS, rewrite};
use crate::clock;
use crate::delta::{Change, DataFile, Table, columns};
use crate::side::SideTable;

/// Records of one chunk of quarantined events.
const CHUNK_ROWS_MAX: usize = 50_000;
/// How often the mark is tried again behind commits of others.
const MARK_TRIES_MAX: usize = 50;

/// Rejects of one table that no plugin has taken yet.
pub struct Waiting {
    pub places: Places,
    rows: Vec<RecordBatch>,
}

/// What became of a quarantined event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    Row,
    Dropped,
    Duplicate,
}

impl Resolution {
    const ALL: [Resolution; 3] = [Resolution::Row, Resolution::Dropped, Resolution::Duplicate];

    fn name(self) -> &'static str {
        match self {
            Resolution::Row => "row",
            Resolution::Dropped => "dropped",
            Resolution::Duplicate => "duplicate",
        }
    }
}

/// Quarantined events that are resolved, by what became of them.
#[derive(Default)]
pub struct Resolved([Places; 3]);

impl Resolved {
    pub fn add(&mut self, resolution: Resolution, events: &Places) {
        self.0[resolution as usize].merge(events.clone());
    }

    /// Sorts quarantined events by what a plugin said of them now: rejected again, a row, a row but for its duplicate,
    /// neither. Those of `outside` were not asked for.
    pub fn judge(&mut self, events: &Places, rejected: &Places, rows: &Places, before: &Places, outside: &Places) {
        let judged = events.without(rejected).without(outside);
        let without_row = judged.without(rows);
        let dropped = without_row.without(before);
        self.add(Resolution::Row, &judged.without(&without_row));
        self.add(Resolution::Duplicate, &without_row.without(&dropped));
        self.add(Resolution::Dropped, &dropped);
    }

    pub fn len(&self) -> u64 {
        self.0.iter().map(Places::len).sum()
    }
}

/// The rejects of a table that wait in the quarantine; with a `code`, those of that kind.
pub async fn waiting(quarantine: &SideTable, table: &str, code: Option<&str>) -> anyhow::Result<Waiting> {
    let mut guard = quarantine.table().await;
    let files = guard.files().await?;
    let (mut places, mut rows) = (Places::default(), Vec::new());
    for file in &files {
        let mut read = columns(guard.store(), file.path.clone(), file.size, None).await?;
        while let Some(batch) = read.batches.try_next().await? {
            let mut mask = unresolved(&batch, table)?;
            if let Some(code) = code {
                mask = and(&mask, &equals(&batch, "code", code)?)?;
            }
            let batch = filter_record_batch(&batch, &mask)?;
            if batch.num_rows() > 0 {
                places.insert(&Coordinates::of(&batch, OF_RECORDS)?);
                rows.push(batch);
            }
        }
    }
    Ok(Waiting { places, rows })
}

fn unresolved(batch: &RecordBatch, table: &str) -> anyhow::Result<BooleanArray> {
    let of_table = equals(batch, "table", table)?;
    match batch.column_by_name("resolved_at") {
        Some(resolved_at) => Ok(and(&of_table, &is_null(resolved_at)?)?),
        None => Ok(of_table),
    }
}

fn equals(batch: &RecordBatch, name: &str, value: &str) -> anyhow::Result<BooleanArray> {
    let texts = cast(named(batch, name)?, &DataType::Utf8)?;
    Ok(eq(&texts, &StringArray::new_scalar(value))?)
}

fn named<'b>(batch: &'b RecordBatch, name: &str) -> anyhow::Result<&'b ArrayRef> {
    batch.column_by_name(name).with_context(|| format!("the quarantine has no column {name}"))
}

impl Waiting {
    /// The events as chunks of records, in the order of their offsets, each of one topic of one cluster.
    pub fn chunks(&self) -> anyhow::Result<Vec<Chunk>> {
        let Some(first) = self.rows.first() else { return Ok(Vec::new()) };
        let rows = as_records(&concat_batches(&first.schema(), &self.rows)?)?;
        let types = [DataType::Utf8, DataType::Utf8, DataType::Int32, DataType::Int64];
        let by = types
            .iter()
            .zip(rows.columns())
            .map(|(ty, values)| anyhow::Ok(SortColumn { values: cast(values, ty)?, options: None }));
        let order = lexsort_to_indices(&by.collect::<anyhow::Result<Vec<_>>>()?, None)?;
        let rows = take_record_batch(&rows, &order)?;
        let (clusters, topics) = (cast(rows.column(0), &DataType::Utf8)?, cast(rows.column(1), &DataType::Utf8)?);
        let (clusters, topics) = (clusters.as_string::<i32>(), topics.as_string::<i32>());
        let same = |a: usize, b: usize| clusters.value(a) == clusters.value(b) && topics.value(a) == topics.value(b);
        let (mut chunks, mut start) = (Vec::new(), 0);
        for row in 1..=rows.num_rows() {
            if row == rows.num_rows() || !same(start, row) || row - start == CHUNK_ROWS_MAX {
                let records = rows.slice(start, row - start);
                let mut places = Places::default();
                places.insert(&Coordinates::of(&records, OF_RECORDS)?);
                chunks.push(Chunk { records, ranges: places.bounds() });
                start = row;
            }
        }
        Ok(chunks)
    }
}

/// The quarantine's columns as a chunk's. It keeps no headers and no kind of timestamp, which no plugin sees.
fn as_records(rows: &RecordBatch) -> anyhow::Result<RecordBatch> {
    let schema = chunk::schema();
    let columns = schema.fields().iter().map(|field| {
        Ok(match field.name().as_str() {
            column::TIMESTAMP_TYPE => new_null_array(field.data_type(), rows.num_rows()),
            column::HEADERS => {
                let DataType::List(item) = field.data_type() else { anyhow::bail!("headers are no list") };
                Arc::new(ListArray::try_new(
                    item.clone(),
                    arrow::buffer::OffsetBuffer::new_zeroed(rows.num_rows()),
                    arrow::array::new_empty_array(item.data_type()),
                    None,
                )?) as ArrayRef
            }
            name => cast(named(rows, name)?, field.data_type())?,
        })
    });
    Ok(RecordBatch::try_new(schema.clone(), columns.collect::<anyhow::Result<_>>()?)?)
}

/// Marks rejects as resolved. Once: what bears the mark already is left as it is.
pub async fn mark(quarantine: &SideTable, table: &str, resolved: &Resolved) -> anyhow::Result<()> {
    if resolved.len() == 0 {
        return Ok(());
    }
    let mut guard = quarantine.table().await;
    for _ in 0..MARK_TRIES_MAX {
        let (mut adds, mut removes, mut marked) = (Vec::new(), Vec::new(), 0);
        for file in guard.files().await? {
            let hits = hits(&guard, &file, table, resolved).await?;
            if hits > 0 {
                marked += hits;
                adds.push(rewrite(&guard, &file, |batch| with_mark(batch, table, resolved)).await?);
                removes.push(file);
            }
        }
        if removes.is_empty() {
            return Ok(());
        }
        let info = json!({ "table": table, "resolved": marked });
        match guard.commit(Change { adds, removes, info, ..Change::default() }).await {
            Ok(_) => return Ok(()),
            Err(failure) => tracing::debug!("mark the quarantine: {failure}"),
        }
    }
    anyhow::bail!("the quarantine's log took {MARK_TRIES_MAX} commits of others in a row; run the command again")
}

/// How many rows of a file are to be marked.
async fn hits(quarantine: &Table, file: &DataFile, table: &str, resolved: &Resolved) -> anyhow::Result<u64> {
    let names = ["table", "resolved_at", column::CLUSTER_ID, column::TOPIC, column::PARTITION, column::OFFSET];
    let mut read = columns(quarantine.store(), file.path.clone(), file.size, Some(&names)).await?;
    let mut hits = 0;
    while let Some(batch) = read.batches.try_next().await? {
        let (unresolved, at) = (unresolved(&batch, table)?, Coordinates::of(&batch, OF_RECORDS)?);
        for events in &resolved.0 {
            hits += and(&unresolved, &events.mask(&at))?.true_count() as u64;
        }
    }
    Ok(hits)
}

fn with_mark(batch: &RecordBatch, table: &str, resolved: &Resolved) -> anyhow::Result<RecordBatch> {
    let (unresolved, at) = (unresolved(batch, table)?, Coordinates::of(batch, OF_RECORDS)?);
    let times = named(batch, "resolved_at")?.as_primitive::<TimestampMicrosecondType>();
    let texts = cast(named(batch, "resolution")?, &DataType::Utf8)?;
    let texts = texts.as_string::<i32>();
    let mut times: Vec<Option<i64>> = times.iter().collect();
    let mut texts: Vec<Option<&str>> = texts.iter().collect();
    let now = clock::now_micros();
    for resolution in Resolution::ALL {
        let mask = and(&unresolved, &resolved.0[resolution as usize].mask(&at))?;
        for row in (0..mask.len()).filter(|row| mask.value(*row)) {
            (times[row], texts[row]) = (Some(now), Some(resolution.name()));
        }
    }
    let texts = cast(&StringArray::from(texts), named(batch, "resolution")?.data_type())?;
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
