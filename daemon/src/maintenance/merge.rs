//! Small files into one: the same rows, in row groups that are ordered by where the rows came from. A row group at a time
//! is in memory.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use arrow::array::{Array, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{Int32Type, Int64Type};
use futures::TryStreamExt;
use serde::Deserialize;

use super::room::Pace;
use crate::correct::{OF_RECORDS, OF_ROWS};
use crate::delta::{DataFile, Encoder, FileWriter, NewFile, ROW_GROUP_ROWS_MAX, Table, columns, conform};

/// A row group is written when it has so many bytes in memory, or as many rows as a row group may have.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// Writes the rows of files of one day into a file that is in no commit yet. Files come in the order in which their rows
/// are to stand.
pub async fn merge(
    table: &Table,
    encoder: &Encoder,
    event_date: &str,
    files: &[DataFile],
    pace: &Pace,
) -> anyhow::Result<NewFile> {
    let writer = encoder.stream(table.store(), event_date)?;
    let mut group = Group { writer, batches: Vec::new(), rows: 0, bytes: 0, written: 0 };
    let (mut rows, mut known) = (0, Some(0));
    let mut begun = Instant::now();
    for file in files {
        let read = columns(table.store(), file.path.clone(), file.size, None).await;
        let mut read = read.with_context(|| format!("open {}", file.path))?;
        rows += read.rows;
        known = known.zip(recorded(file)).map(|(sum, rows)| sum + rows);
        while let Some(batch) = read.batches.try_next().await.with_context(|| format!("read {}", file.path))? {
            group.push(conform(&batch, encoder.schema())?);
            if group.is_full() {
                group.write().await?;
                pace.rest(begun.elapsed()).await?;
                begun = Instant::now();
            }
        }
    }
    group.write().await?;
    ensure!(group.written == rows, "{rows} rows were read, and {} written", group.written);
    ensure!(known.is_none_or(|known| known == rows), "{rows} rows were read, and the log knows of {known:?}");
    pace.rest(begun.elapsed()).await?;
    // As old as its newest rows, so that the order of the files stays that of their rows.
    let modified_ms = files.iter().map(|file| file.modified_ms).max().unwrap_or_default();
    group.writer.finish(modified_ms).await
}

/// The rows that a file has by the log.
fn recorded(file: &DataFile) -> Option<u64> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Stats {
        num_records: Option<u64>,
    }
    serde_json::from_str::<Stats>(file.stats.as_deref()?).ok()?.num_records
}

/// Rows that become a row group.
struct Group<'e> {
    writer: FileWriter<'e>,
    batches: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
    /// Rows of the row groups before.
    written: u64,
}

impl Group<'_> {
    fn push(&mut self, batch: RecordBatch) {
        self.rows += batch.num_rows();
        self.bytes += batch.get_array_memory_size();
        self.batches.push(batch);
    }

    fn is_full(&self) -> bool {
        self.rows >= ROW_GROUP_ROWS_MAX || self.bytes >= GROUP_BYTES_MAX
    }

    async fn write(&mut self) -> anyhow::Result<()> {
        let batches = std::mem::take(&mut self.batches);
        (self.rows, self.bytes) = (0, 0);
        let Some(first) = batches.first() else { return Ok(()) };
        let rows = concat_batches(&first.schema(), &batches)?;
        drop(batches);
        let rows = in_order(rows)?;
        self.written += rows.num_rows() as u64;
        self.writer.group(&rows).await
    }
}

/// The rows by cluster, topic, partition and offset, which most often are of one cluster and topic. Rows of tables that do
/// not tell where they came from stay as they are.
fn in_order(rows: RecordBatch) -> anyhow::Result<RecordBatch> {
    let named = |names: [&str; 4]| names.map(|name| rows.column_by_name(name).cloned());
    let found = [OF_ROWS, OF_RECORDS].into_iter().map(named).find(|columns| columns.iter().all(Option::is_some));
    let Some([Some(clusters), Some(topics), Some(partitions), Some(offsets)]) = found else { return Ok(rows) };
    let one = |column: &dyn Array| {
        let texts = column.as_string_opt::<i32>();
        texts.is_some_and(|texts| texts.iter().all(|text| text == texts.iter().next().flatten()))
    };
    let mut by = Vec::new();
    for column in [clusters, topics].into_iter().filter(|column| !one(column)) {
        by.push(SortColumn { values: column, options: None });
    }
    if let (true, Some(at), Some(of)) =
        (by.is_empty(), partitions.as_primitive_opt::<Int32Type>(), offsets.as_primitive_opt::<Int64Type>())
    {
        let places = at.values().iter().zip(of.values());
        if places.is_sorted() {
            return Ok(rows);
        }
    }
    by.extend([partitions, offsets].map(|values| SortColumn { values, options: None }));
    // Rows of one event keep their order only if the sort cannot tell them apart in another way: by where they stand.
    let places = UInt32Array::from_iter_values(0..rows.num_rows() as u32);
    by.push(SortColumn { values: Arc::new(places), options: None });
    Ok(take_record_batch(&rows, &lexsort_to_indices(&by, None)?)?)
}
