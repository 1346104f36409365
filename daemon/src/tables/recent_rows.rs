//! The newest rows of the Silver tables, in memory for the dashboard: bounded in time, rows and bytes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::compute::{max, min, take_record_batch};
use arrow::datatypes::TimestampMicrosecondType;
use parking_lot::Mutex;
use silverd_core::schema::added;

use crate::telemetry::TableStats;

/// How long a row is kept.
const AGE_MAX: Duration = Duration::from_secs(5 * 60);
/// Limits for one table.
const BYTES_MAX: usize = 8 << 20;
const ROWS_MAX: usize = 100_000;

/// The recent rows of every table. While disabled, it keeps nothing.
#[derive(Default)]
pub struct RecentRows {
    enabled: AtomicBool,
    tables: Mutex<BTreeMap<String, TableRows>>,
}

/// The newest rows of a table that somebody does not have yet.
pub(crate) struct NewRows {
    /// The number of the oldest batch that is kept. Numbers count up.
    pub first: u64,
    /// Oldest first, up to the newest that is kept.
    pub batches: Vec<RecordBatch>,
}

#[derive(Default)]
struct TableRows {
    /// The number of the first batch.
    first: u64,
    /// Each batch with the time of its commit and its size.
    batches: VecDeque<(Instant, RecordBatch, usize)>,
    rows: usize,
    bytes: usize,
}

impl RecentRows {
    /// Keeps rows from now on, or drops all rows and keeps none.
    pub(crate) fn set_enabled(&self, enabled: bool) {
        self.enabled.store(enabled, Relaxed);
        if !enabled {
            self.tables.lock().clear();
        }
    }

    /// Adds rows that were just committed. Waits for a reader at most as long as it takes to clone a list.
    pub(crate) fn push(&self, table: &str, rows: &[RecordBatch], stats: &TableStats) {
        if let Some((oldest, newest)) = ingestion_times(rows) {
            stats.ingested(oldest, newest);
        }
        if !self.enabled.load(Relaxed) || rows.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut tables = self.tables.lock();
        let kept = tables.entry(table.to_owned()).or_default();
        for batch in rows.iter().filter(|batch| batch.num_rows() > 0) {
            kept.push(now, batch);
        }
        kept.drop_expired(now);
    }

    /// The batches of a table from number `known` on, and the number after the last; `None` before the first row.
    pub(crate) fn newer_than(&self, table: &str, known: u64) -> Option<(NewRows, u64)> {
        let mut tables = self.tables.lock();
        let kept = tables.get_mut(table)?;
        kept.drop_expired(Instant::now());
        let first = kept.first;
        let skip = usize::try_from(known.saturating_sub(first)).unwrap_or(usize::MAX);
        let batches = kept.batches.iter().skip(skip).map(|(_, batch, _)| batch.clone()).collect();
        Some((NewRows { first, batches }, first + kept.batches.len() as u64))
    }
}

impl TableRows {
    fn push(&mut self, now: Instant, batch: &RecordBatch) {
        if self.batches.front().is_some_and(|(_, first, _)| first.schema() != batch.schema()) {
            // Another plugin version with other columns.
            *self = Self { first: self.first + self.batches.len() as u64, ..Self::default() };
        }
        let Some(batch) = cut_to_bounds(batch) else { return };
        let bytes = batch.get_array_memory_size();
        self.rows += batch.num_rows();
        self.bytes += bytes;
        self.batches.push_back((now, batch, bytes));
        while self.bytes > BYTES_MAX || self.rows > ROWS_MAX {
            self.drop_oldest();
        }
    }

    fn drop_expired(&mut self, now: Instant) {
        // The last batch stays, so that the columns are known while the table gets no rows.
        while self.batches.len() > 1 && self.batches.front().is_some_and(|(at, ..)| now.duration_since(*at) > AGE_MAX) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, batch, bytes)) = self.batches.pop_front() {
            self.first += 1;
            self.rows -= batch.num_rows();
            self.bytes -= bytes;
        }
    }
}

/// When silverd read the first and the last of the rows' events from Kafka.
fn ingestion_times(rows: &[RecordBatch]) -> Option<(i64, i64)> {
    let times = rows.iter().filter_map(|batch| {
        let column = batch.column_by_name(added::INGESTED_AT)?;
        let times = column.as_primitive_opt::<TimestampMicrosecondType>()?;
        Some((min(times)?, max(times)?))
    });
    times.reduce(|(oldest, newest), (min, max)| (oldest.min(min), newest.max(max)))
}

/// The newest rows of a batch that is too large on its own. They are copied: a slice would keep the whole batch.
fn cut_to_bounds(batch: &RecordBatch) -> Option<RecordBatch> {
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

    fn enabled() -> RecentRows {
        RecentRows { enabled: true.into(), ..RecentRows::default() }
    }

    fn batch(from: i64, rows: i64, width: usize) -> RecordBatch {
        let text = StringArray::from_iter_values((0..rows).map(|_| "x".repeat(width)));
        let numbers = Int64Array::from_iter_values(from..from + rows);
        RecordBatch::try_from_iter([("n", Arc::new(numbers) as _), ("text", Arc::new(text) as _)]).expect("a batch")
    }

    fn batches(recent: &RecentRows, known: u64) -> Vec<RecordBatch> {
        recent.newer_than("t", known).expect("a table").0.batches
    }

    /// The last number, and the count and bytes of all rows.
    fn newest(recent: &RecentRows) -> (i64, usize, usize) {
        let batches = batches(recent, 0);
        let last = batches.last().expect("a batch");
        let last = last.column(0).as_primitive::<arrow::datatypes::Int64Type>().values()[last.num_rows() - 1];
        let bytes = batches.iter().map(RecordBatch::get_array_memory_size).sum();
        (last, batches.iter().map(RecordBatch::num_rows).sum(), bytes)
    }

    #[test]
    fn the_newest_rows_stay_within_the_limits() {
        let (recent, stats) = (enabled(), TableStats::default());
        for round in 0..300 {
            recent.push("t", &[batch(round * 1000, 1000, 100)], &stats);
        }
        let (last, rows, bytes) = newest(&recent);
        assert_eq!(last, 299_999);
        assert!(rows > 10_000 && bytes <= BYTES_MAX, "{rows} rows, {bytes} bytes");
        // One batch that is larger than the limit.
        recent.push("t", &[batch(0, 500_000, 100)], &stats);
        let (last, rows, bytes) = newest(&recent);
        assert_eq!(last, 499_999);
        assert!(rows > 1_000 && bytes <= BYTES_MAX, "{rows} rows, {bytes} bytes");
    }

    #[test]
    fn rows_with_other_columns_replace_all_and_disabled_keeps_none() {
        let (recent, stats) = (enabled(), TableStats::default());
        recent.push("t", &[batch(0, 10, 1), batch(10, 10, 1)], &stats);
        let (rows, known) = recent.newer_than("t", 0).expect("a table");
        assert_eq!((rows.first, rows.batches.len(), known), (0, 2, 2));
        assert!(batches(&recent, known).is_empty());
        recent.push("t", &[batch(20, 10, 1)], &stats);
        assert_eq!(batches(&recent, known), [batch(20, 10, 1)]);
        recent.push("t", &[batch(0, 5, 1).project(&[0]).expect("one column")], &stats);
        let (rows, known) = recent.newer_than("t", known).expect("a table");
        assert_eq!((rows.first, rows.batches.len(), known), (3, 1, 4));
        let disabled = RecentRows::default();
        disabled.push("t", &[batch(0, 10, 1)], &stats);
        assert!(disabled.newer_than("t", 0).is_none());
    }
}
