//! The newest rows of the Silver tables, held in memory for whoever watches: bounded in time, rows and bytes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::compute::{max, min, take_record_batch};
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};

use crate::telemetry::TableStats;

/// How long a row is kept.
pub const AGE_MAX: Duration = Duration::from_secs(5 * 60);
/// What is kept of one table.
const BYTES_MAX: usize = 8 << 20;
const ROWS_MAX: usize = 100_000;

/// The fresh rows of every table. Off, it keeps nothing.
#[derive(Default)]
pub struct Fresh {
    on: AtomicBool,
    tables: Mutex<BTreeMap<String, Kept>>,
}

#[derive(Default)]
struct Kept {
    batches: VecDeque<(Instant, RecordBatch, usize)>,
    rows: usize,
    bytes: usize,
}

impl Fresh {
    pub fn on() -> Self {
        Self { on: true.into(), ..Self::default() }
    }

    /// Keeps rows from now on, or lets go of them.
    pub fn turn(&self, on: bool) {
        self.on.store(on, Relaxed);
        if !on {
            self.tables.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    /// Takes rows that have just been committed. Never waits for a reader for longer than it takes to clone a list.
    pub fn push(&self, table: &str, rows: &[RecordBatch], stats: &TableStats) {
        if let Some((oldest, newest)) = ingested(rows) {
            stats.ingested(oldest, newest);
        }
        if !self.on.load(Relaxed) || rows.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = tables.entry(table.to_owned()).or_default();
        for batch in rows.iter().filter(|batch| batch.num_rows() > 0) {
            kept.push(now, batch);
        }
        kept.expire(now);
    }

    /// What is kept of a table: its columns and rows, oldest first. `None` before its first row.
    pub fn of(&self, table: &str) -> Option<(SchemaRef, Vec<RecordBatch>)> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = tables.get_mut(table)?;
        let schema = kept.batches.front().map(|(_, batch, _)| batch.schema())?;
        kept.expire(Instant::now());
        Some((schema, kept.batches.iter().map(|(_, batch, _)| batch.clone()).collect()))
    }
}

impl Kept {
    fn push(&mut self, now: Instant, batch: &RecordBatch) {
        if self.batches.front().is_some_and(|(_, first, _)| first.schema() != batch.schema()) {
            *self = Self::default(); // another plugin, other columns
        }
        let Some(batch) = within_bounds(batch) else { return };
        let bytes = batch.get_array_memory_size();
        self.rows += batch.num_rows();
        self.bytes += bytes;
        self.batches.push_back((now, batch, bytes));
        while self.bytes > BYTES_MAX || self.rows > ROWS_MAX {
            self.drop_oldest();
        }
    }

    fn expire(&mut self, now: Instant) {
        // The last batch stays, so that the columns are known while the table rests.
        while self.batches.len() > 1 && self.batches.front().is_some_and(|(at, ..)| now.duration_since(*at) > AGE_MAX) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, batch, bytes)) = self.batches.pop_front() {
            self.rows -= batch.num_rows();
            self.bytes -= bytes;
        }
    }
}

/// When silverd took the first and the last of the events that gave these rows.
fn ingested(rows: &[RecordBatch]) -> Option<(i64, i64)> {
    let times = rows.iter().filter_map(|batch| {
        let column = batch.column_by_name("ingested_at")?;
        let times = column.as_primitive_opt::<TimestampMicrosecondType>()?;
        Some((min(times)?, max(times)?))
    });
    times.reduce(|(oldest, newest), (low, high)| (oldest.min(low), newest.max(high)))
}

/// The newest rows of a batch that is too large by itself, copied: a slice would keep the whole batch.
fn within_bounds(batch: &RecordBatch) -> Option<RecordBatch> {
    let (rows, bytes) = (batch.num_rows(), batch.get_array_memory_size());
    if bytes <= BYTES_MAX / 4 && rows <= ROWS_MAX / 4 {
        return Some(batch.clone());
    }
    let keep = (rows * (BYTES_MAX / 4) / bytes.max(1)).clamp(1, ROWS_MAX / 4).min(rows);
    let newest = UInt32Array::from_iter_values((rows - keep) as u32..rows as u32);
    take_record_batch(batch, &newest).ok().filter(|batch| batch.get_array_memory_size() <= BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};

    use super::*;

    fn batch(from: i64, rows: i64, width: usize) -> RecordBatch {
        let text = StringArray::from_iter_values((0..rows).map(|_| "x".repeat(width)));
        let numbers = Int64Array::from_iter_values(from..from + rows);
        RecordBatch::try_from_iter([("n", Arc::new(numbers) as _), ("text", Arc::new(text) as _)]).expect("good")
    }

    fn newest(fresh: &Fresh) -> (i64, usize, usize) {
        let (_, batches) = fresh.of("t").expect("good");
        let last = batches.last().expect("good");
        let last = last.column(0).as_primitive::<arrow::datatypes::Int64Type>().values()[last.num_rows() - 1];
        let bytes = batches.iter().map(RecordBatch::get_array_memory_size).sum();
        (last, batches.iter().map(RecordBatch::num_rows).sum(), bytes)
    }

    #[test]
    fn keeps_the_newest_within_its_bounds() {
        let (fresh, stats) = (Fresh::on(), TableStats::default());
        for round in 0..300 {
            fresh.push("t", &[batch(round * 1000, 1000, 100)], &stats);
        }
        let (last, rows, bytes) = newest(&fresh);
        assert_eq!(last, 299_999);
        assert!(rows > 10_000 && bytes <= BYTES_MAX, "{rows} rows, {bytes} bytes");
        // One batch that is larger than everything that may be kept.
        fresh.push("t", &[batch(0, 500_000, 100)], &stats);
        let (last, rows, bytes) = newest(&fresh);
        assert_eq!(last, 499_999);
        assert!(rows > 1_000 && bytes <= BYTES_MAX, "{rows} rows, {bytes} bytes");
    }

    #[test]
    fn other_columns_begin_anew_and_off_keeps_nothing() {
        let (fresh, stats) = (Fresh::on(), TableStats::default());
        fresh.push("t", &[batch(0, 10, 1)], &stats);
        fresh.push("t", &[batch(0, 5, 1).project(&[0]).expect("good")], &stats);
        assert_eq!(fresh.of("t").expect("good").1.len(), 1);
        let off = Fresh::default();
        off.push("t", &[batch(0, 10, 1)], &stats);
        assert!(off.of("t").is_none());
    }
}
