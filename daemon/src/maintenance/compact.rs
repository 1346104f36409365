//! Compaction: small files of one day become one file with the same rows, each row group sorted by log position. At
//! most one row group is in memory.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use arrow::array::{Array, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{Int32Type, Int64Type};
use futures::TryStreamExt;

use super::error::MaintenanceError;
use super::throttle::Throttle;
use crate::delta::{DataFile, Encoder, FileWriter, NewFile, ROW_GROUP_ROWS_MAX, Table, conform, read_columns};
use crate::tables::event_set::{RECORD_COORDINATES, ROW_COORDINATES};

/// A row group is written when it takes this much memory, or has as many rows as a row group may have.
const ROW_GROUP_BYTES_MAX: usize = 8 << 20;

/// What was compacted, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    pub compactions: u64,
    pub files: u64,
    pub bytes: u64,
    /// Size of the files that replaced them.
    pub bytes_written: u64,
}

/// Writes the rows of one day's files into a file that is not committed yet. The files come in the order of their rows.
pub(super) async fn write_compacted(
    table: &Table,
    encoder: &Encoder,
    event_date: &str,
    files: &[DataFile],
    throttle: &Throttle,
) -> Result<NewFile, MaintenanceError> {
    let writer = encoder.file_writer(table.store(), event_date)?;
    let mut row_group = RowGroup { writer, batches: Vec::new(), rows: 0, bytes: 0, rows_written: 0 };
    let (mut rows_read, mut rows_recorded) = (0, Some(0));
    let mut started = Instant::now();
    for file in files {
        let read = read_columns(table.store(), file, None).await;
        let mut read = read.with_context(|| format!("open {}", file.path))?;
        rows_read += read.rows;
        rows_recorded = rows_recorded.zip(file.rows()).map(|(sum, rows)| sum + rows);
        while let Some(batch) = read.batches.try_next().await.with_context(|| format!("read {}", file.path))? {
            row_group.push(conform(&batch, encoder.schema())?);
            if row_group.is_full() {
                row_group.write().await?;
                throttle.pause_after(started.elapsed()).await?;
                started = Instant::now();
            }
        }
    }
    row_group.write().await?;
    check_rows(rows_read, row_group.rows_written, rows_recorded)?;
    throttle.pause_after(started.elapsed()).await?;
    // As old as its newest rows, so that files sorted by age are still in the order of their rows.
    let modified_ms = files.iter().map(|file| file.modified_ms).max().unwrap_or_default();
    Ok(row_group.writer.finish(modified_ms).await?)
}

fn check_rows(read: u64, written: u64, recorded: Option<u64>) -> anyhow::Result<()> {
    ensure!(written == read, "{read} rows were read, and {written} written");
    ensure!(recorded.is_none_or(|rows| rows == read), "{read} rows were read, and the log records {recorded:?}");
    Ok(())
}

/// Collects rows until they fill a row group.
struct RowGroup<'e> {
    writer: FileWriter<'e>,
    batches: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
    /// Rows of the row groups before this one.
    rows_written: u64,
}

impl RowGroup<'_> {
    fn push(&mut self, batch: RecordBatch) {
        self.rows += batch.num_rows();
        self.bytes += batch.get_array_memory_size();
        self.batches.push(batch);
    }

    fn is_full(&self) -> bool {
        self.rows >= ROW_GROUP_ROWS_MAX || self.bytes >= ROW_GROUP_BYTES_MAX
    }

    async fn write(&mut self) -> anyhow::Result<()> {
        let batches = std::mem::take(&mut self.batches);
        (self.rows, self.bytes) = (0, 0);
        let Some(first) = batches.first() else { return Ok(()) };
        let rows = concat_batches(&first.schema(), &batches)?;
        drop(batches);
        let rows = sort_by_position(rows)?;
        self.rows_written += rows.num_rows() as u64;
        self.writer.write_row_group(&rows).await
    }
}

/// Sorts rows by cluster, topic, partition and offset; usually all have the same cluster and topic. Rows of tables
/// without these columns keep their order.
fn sort_by_position(rows: RecordBatch) -> anyhow::Result<RecordBatch> {
    let named = |names: [&str; 4]| names.map(|name| rows.column_by_name(name).cloned());
    let found = [ROW_COORDINATES, RECORD_COORDINATES]
        .into_iter()
        .map(named)
        .find(|columns| columns.iter().all(Option::is_some));
    let Some([Some(clusters), Some(topics), Some(partitions), Some(offsets)]) = found else { return Ok(rows) };
    let is_constant = |column: &dyn Array| {
        let texts = column.as_string_opt::<i32>();
        texts.is_some_and(|texts| texts.iter().all(|text| text == texts.iter().next().flatten()))
    };
    let mut sort_by = Vec::new();
    for column in [clusters, topics].into_iter().filter(|column| !is_constant(column)) {
        sort_by.push(SortColumn { values: column, options: None });
    }
    if let (true, Some(partitions), Some(offsets)) =
        (sort_by.is_empty(), partitions.as_primitive_opt::<Int32Type>(), offsets.as_primitive_opt::<Int64Type>())
    {
        let positions = partitions.values().iter().zip(offsets.values());
        if positions.is_sorted() {
            return Ok(rows);
        }
    }
    sort_by.extend([partitions, offsets].map(|values| SortColumn { values, options: None }));
    // The sort is not stable. The row number keeps the rows of one event in their order.
    let numbers = UInt32Array::from_iter_values(0..rows.num_rows() as u32);
    sort_by.push(SortColumn { values: Arc::new(numbers), options: None });
    Ok(take_record_batch(&rows, &lexsort_to_indices(&sort_by, None)?)?)
}
