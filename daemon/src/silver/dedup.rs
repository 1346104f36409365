//! Duplicates: rows that say what the table has already, within a span of event time.
//!
//! The rule stands in `silverd_core::dedup`: the table alone decides. So after a crash, a rebalance or a fence nothing is
//! to be recovered; the parts of the table that the next events need are read again.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use anyhow::Context;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch, not};
use arrow::datatypes::{DataType, Int32Type, Int64Type, SchemaRef, TimestampMicrosecondType};
use arrow::row::{RowConverter, SortField};
use chrono::DateTime;
use deltalake_core::logstore::LogStoreRef;
use futures::TryStreamExt;
use serde::Deserialize;
use silverd_core::config::SilverTable;
use silverd_core::dedup::{Key, Keys, Window};
use silverd_core::schema::added;
use tracing::warn;

use crate::correct::{Coordinates, OF_ROWS, Places};
use crate::delta::{DataFile, columns, files_of};
use crate::transform::Verdicts;

/// Leaves rows out that the table has already.
pub struct Dedup {
    table: String,
    /// The columns that name an event, and the one that says when it was.
    by: Vec<String>,
    time: String,
    keys: Keys,
    converter: RowConverter,
    types: Vec<DataType>,
    window: Window,
    log: LogStoreRef,
    /// Rows of the table that are taken as gone.
    gone: Option<Places>,
    told: bool,
}

/// Some columns of a batch: what `judge` looks at.
struct Looked<'b> {
    keys: Vec<Key>,
    times: &'b [i64],
    partitions: &'b [i32],
    offsets: &'b [i64],
}

impl Dedup {
    /// Ready for a table as it stands now; `None` where pipeline.toml asks for no deduplication.
    pub async fn open(config: &SilverTable, schema: &SchemaRef, log: LogStoreRef) -> anyhow::Result<Option<Self>> {
        let Some(mut opened) = Self::of_nothing(config, schema, log)? else { return Ok(None) };
        let Some(dedup) = &config.dedup else { return Ok(None) };
        let mut reach = None;
        for file in files_of(&opened.log).await.context("list the table's files")? {
            let (oldest, newest) = span_of(&file, &config.event_date);
            let (low, high) = reach.unwrap_or((oldest, newest));
            reach = Some((low.min(oldest), high.max(newest)));
        }
        opened.window = Window::new(dedup.within_ms, dedup.memory_bytes_max, dedup.when_full, reach);
        Ok(Some(opened))
    }

    /// As for a table that is still empty. Every key is kept, and nothing is read from the log.
    pub fn of_nothing(config: &SilverTable, schema: &SchemaRef, log: LogStoreRef) -> anyhow::Result<Option<Self>> {
        let Some(dedup) = &config.dedup else { return Ok(None) };
        let types = dedup.by.iter().map(|name| Ok(plain(schema.field_with_name(name)?.data_type())));
        let types: Vec<DataType> = types.collect::<anyhow::Result<_>>()?;
        let converter = RowConverter::new(types.iter().cloned().map(SortField::new).collect())?;
        let mut window = Window::new(dedup.within_ms, dedup.memory_bytes_max, dedup.when_full, None);
        window.keep_all();
        Ok(Some(Self {
            table: config.name.to_string(),
            by: dedup.by.value.clone(),
            time: config.event_date.value.clone(),
            keys: Keys::default(),
            converter,
            types,
            window,
            log,
            gone: None,
            told: false,
        }))
    }

    /// For a correction: takes the rows of some events as gone, and keeps every key, since rows that are in no commit yet
    /// cannot be read again.
    pub fn for_correction(mut self, gone: Places) -> Self {
        self.gone = Some(gone);
        self.window.keep_all();
        self
    }

    /// True if some rows of these files say what others say that were judged here.
    pub async fn meets(&mut self, files: &[DataFile]) -> anyhow::Result<bool> {
        let rows = self.read(files, &(i64::MIN..=i64::MAX)).await?;
        Ok(rows.into_iter().any(|(key, time)| self.window.has(key, time)))
    }

    /// Reads what these rows are to be held against, as far as it is not in memory.
    pub async fn look_up(&mut self, rows: &[RecordBatch]) -> anyhow::Result<()> {
        let mut times = Vec::new();
        for batch in rows {
            times.extend_from_slice(micros(batch, &self.time)?);
        }
        let lacking = self.window.lacks(times);
        if lacking.is_empty() {
            return Ok(());
        }
        let files = files_of(&self.log).await.context("list the table's files")?;
        for range in lacking {
            let rows = self.read(&files, &range).await.context("read the table's keys")?;
            self.window.fill(&range, rows);
        }
        Ok(())
    }

    /// The keys and times of the table's rows in a range of event time.
    async fn read(&self, files: &[DataFile], range: &RangeInclusive<i64>) -> anyhow::Result<Vec<(Key, i64)>> {
        let mut names: Vec<&str> = self.by.iter().map(String::as_str).collect();
        names.push(&self.time);
        names.extend(OF_ROWS);
        let mut found = Vec::new();
        for file in files {
            let (oldest, newest) = span_of(file, &self.time);
            if newest < *range.start() || *range.end() < oldest {
                continue;
            }
            let store = self.log.object_store(None);
            let mut read = columns(store, file.path.clone(), file.size, Some(&names)).await?;
            while let Some(batch) = read.batches.try_next().await? {
                let batch = match &self.gone {
                    Some(gone) => filter_record_batch(&batch, &not(&gone.mask(&Coordinates::of(&batch, OF_ROWS)?))?)?,
                    None => batch,
                };
                let rows = self.keys(&batch)?.into_iter().zip(micros(&batch, &self.time)?);
                found.extend(rows.filter(|(_, time)| range.contains(time)).map(|(key, time)| (key, *time)));
            }
        }
        Ok(found)
    }

    /// Leaves duplicates out of the rows, and counts their events. What stays counts as being in the table from now on.
    ///
    /// Within a chunk, events come in the order of their partitions, then offsets, however the poll mixed them: so the same
    /// offsets give the same rows again.
    pub fn judge(&mut self, verdicts: &mut Verdicts) -> anyhow::Result<()> {
        let mut batches = Vec::with_capacity(verdicts.rows.len());
        for batch in &verdicts.rows {
            batches.push(Looked {
                keys: self.keys(batch)?,
                times: micros(batch, &self.time)?,
                partitions: of(batch, added::PARTITION)?.as_primitive::<Int32Type>().values(),
                offsets: of(batch, added::OFFSET)?.as_primitive::<Int64Type>().values(),
            });
        }
        let mut by_partition = BTreeMap::<i32, Vec<(usize, usize)>>::new();
        for (at, batch) in batches.iter().enumerate() {
            for (row, partition) in batch.partitions.iter().enumerate() {
                by_partition.entry(*partition).or_default().push((at, row));
            }
        }
        let mut keep: Vec<Vec<bool>> = batches.iter().map(|batch| vec![true; batch.keys.len()]).collect();
        let (mut rows_out, mut events_out) = (0, 0);
        for rows in by_partition.values() {
            for event in rows.chunk_by(|(a, b), (c, d)| batches[*a].offsets[*b] == batches[*c].offsets[*d]) {
                // The rows of one event are no duplicates of each other.
                for (at, row) in event {
                    keep[*at][*row] = !self.window.has(batches[*at].keys[*row], batches[*at].times[*row]);
                }
                let mut kept = 0;
                for (at, row) in event.iter().filter(|(at, row)| keep[*at][*row]) {
                    self.window.put(batches[*at].keys[*row], batches[*at].times[*row]);
                    kept += 1;
                }
                rows_out += event.len() - kept;
                events_out += usize::from(kept == 0);
            }
        }
        drop(batches);
        if rows_out > 0 {
            for (batch, keep) in verdicts.rows.iter_mut().zip(keep) {
                if keep.contains(&false) {
                    *batch = filter_record_batch(batch, &BooleanArray::from(keep))?;
                }
            }
            verdicts.rows.retain(|batch| batch.num_rows() > 0);
            verdicts.counts.rows -= rows_out as u64;
            verdicts.counts.with_rows -= events_out as u64;
            verdicts.counts.duplicates += events_out as u64;
        }
        if self.window.shed() > 0 && !self.told {
            self.told = true;
            warn!(
                table = %self.table,
                keys = self.window.keys(),
                "the keys of the last events fill dedup.memory_bytes_max: older ones are let go, and are {}",
                if self.window.reloads() { "read from the table when an event needs them, which is slower" } else {
                    "forgotten: an event that comes again after them is in the table twice"
                }
            );
        }
        Ok(())
    }

    fn keys(&self, batch: &RecordBatch) -> anyhow::Result<Vec<Key>> {
        let columns = self.by.iter().zip(&self.types).map(|(name, ty)| Ok(cast(of(batch, name)?, ty)?));
        let columns: Vec<ArrayRef> = columns.collect::<anyhow::Result<_>>()?;
        if let [ids] = &columns[..]
            && ids.data_type() == &DataType::Utf8
        {
            let ids = ids.as_string::<i32>();
            return Ok((0..ids.len()).map(|row| self.keys.of(ids.value(row).as_bytes())).collect());
        }
        let rows = self.converter.convert_columns(&columns)?;
        Ok(rows.iter().map(|row| self.keys.of(row.as_ref())).collect())
    }
}

/// A column's type without the dictionary.
fn plain(ty: &DataType) -> DataType {
    match ty {
        DataType::Dictionary(_, value) => (**value).clone(),
        other => other.clone(),
    }
}

fn of<'b>(batch: &'b RecordBatch, name: &str) -> anyhow::Result<&'b ArrayRef> {
    batch.column_by_name(name).with_context(|| format!("no column {name}"))
}

fn micros<'b>(batch: &'b RecordBatch, name: &str) -> anyhow::Result<&'b [i64]> {
    let times = of(batch, name)?.as_primitive_opt::<TimestampMicrosecondType>();
    Ok(times.with_context(|| format!("column {name} is no timestamp in microseconds"))?.values())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    min_values: BTreeMap<String, serde_json::Value>,
    max_values: BTreeMap<String, serde_json::Value>,
}

/// The event times of a file's rows, from its statistics or else its day; all times where neither tells.
fn span_of(file: &DataFile, time: &str) -> (i64, i64) {
    const DAY: i64 = 86_400_000_000;
    /// Some writers cut the statistics' times to milliseconds.
    const CUT: i64 = 999;
    let stats: Option<Stats> = file.stats.as_deref().and_then(|stats| serde_json::from_str(stats).ok());
    let parse = |values: &BTreeMap<String, serde_json::Value>| {
        let text = values.get(time)?.as_str()?;
        Some(DateTime::parse_from_rfc3339(text).ok()?.timestamp_micros())
    };
    if let Some((oldest, newest)) = stats.and_then(|s| Some((parse(&s.min_values)?, parse(&s.max_values)?))) {
        return (oldest, newest.saturating_add(CUT));
    }
    let Some(start) = file.day().map(|day| i64::from(day) * DAY) else { return (i64::MIN, i64::MAX) };
    // Times beyond the calendar lie in its first and last day.
    match file.event_date.as_deref() {
        Some("0001-01-01") => (i64::MIN, start + DAY - 1),
        Some("9999-12-31") => (start, i64::MAX),
        _ => (start, start + DAY - 1),
    }
}
