//! Deduplication of a Silver table's rows, by the `dedup` keys of pipeline.toml.
//!
//! The rules are in `silverd_core::dedup`: the table alone decides which events are duplicates. So there is no state to
//! recover after a crash, a rebalance or a fence; the keys that the next events need are read from the table again.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};

use anyhow::Context;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch, not};
use arrow::datatypes::{DataType, Int64Type, SchemaRef, TimestampMicrosecondType};
use arrow::row::{RowConverter, SortField};
use chrono::DateTime;
use deltalake_core::logstore::LogStoreRef;
use futures::TryStreamExt;
use object_store::path::Path;
use serde::Deserialize;
use silverd_core::config::SilverTable;
use silverd_core::dedup::{Key, KeyFunction, Window};
use silverd_core::offsets::LogPartition;
use silverd_core::schema::added;
use silverd_core::zone::Zone;
use tracing::warn;

use super::column::column;
use super::event_set::{Coordinates, EventSet, ROW_COORDINATES};
use crate::delta::{DataFile, list_files, read_columns};
use crate::plugin::TransformOutput;
use crate::runtime::log_once::LogOnce;

/// Drops rows that the table already has.
pub(crate) struct Dedup {
    table: String,
    /// The columns that identify an event.
    by: Vec<String>,
    /// The column with the event time.
    event_time: String,
    /// That of the table's days.
    zone: Zone,
    key_function: KeyFunction,
    converter: RowConverter,
    types: Vec<DataType>,
    window: Window,
    log: LogStoreRef,
    /// Events whose rows are ignored because the correction at hand removes them.
    removed_events: Option<EventSet>,
    /// Files that it removes with all their rows: they may be unreadable.
    removed_files: Vec<Path>,
    evictions: LogOnce,
}

/// The columns of a batch that decide about duplicates.
struct KeyColumns<'b> {
    keys: Vec<Key>,
    times: &'b [i64],
    /// Consecutive rows of the same log partition.
    runs: Vec<(LogPartition, Range<usize>)>,
    offsets: &'b [i64],
}

impl Dedup {
    /// For a table at its newest version; `None` if pipeline.toml configures no deduplication.
    pub(crate) async fn open(
        config: &SilverTable,
        schema: &SchemaRef,
        log: LogStoreRef,
    ) -> anyhow::Result<Option<Self>> {
        let Some(mut opened) = Self::for_empty_table(config, schema, log)? else { return Ok(None) };
        let Some(dedup) = &config.dedup else { return Ok(None) };
        let mut extent = None;
        for file in list_files(&opened.log).await.context("list the table's files")? {
            let (oldest, newest) = time_range(&file, &config.event_time, config.time_zone);
            let (min, max) = extent.unwrap_or((oldest, newest));
            extent = Some((min.min(oldest), max.max(newest)));
        }
        opened.window = Window::new(dedup.within_ms, dedup.memory_bytes_max, dedup.when_full, extent);
        Ok(Some(opened))
    }

    /// For an empty table. No key is evicted, and nothing is read from the log.
    pub(crate) fn for_empty_table(
        config: &SilverTable,
        schema: &SchemaRef,
        log: LogStoreRef,
    ) -> anyhow::Result<Option<Self>> {
        let Some(dedup) = &config.dedup else { return Ok(None) };
        let types = dedup.by.iter().map(|name| Ok(without_dictionary(schema.field_with_name(name)?.data_type())));
        let types: Vec<DataType> = types.collect::<anyhow::Result<_>>()?;
        let converter = RowConverter::new(types.iter().cloned().map(SortField::new).collect())?;
        let mut window = Window::new(dedup.within_ms, dedup.memory_bytes_max, dedup.when_full, None);
        window.disable_eviction();
        Ok(Some(Self {
            table: config.name.to_string(),
            by: dedup.by.value.clone(),
            event_time: config.event_time.value.clone(),
            zone: config.time_zone,
            key_function: KeyFunction::default(),
            converter,
            types,
            window,
            log,
            removed_events: None,
            removed_files: Vec::new(),
            evictions: LogOnce::default(),
        }))
    }

    /// For a correction: ignores the rows of the events and of the files that it removes. No key is evicted, since rows
    /// that are not committed yet cannot be read again.
    pub(crate) fn for_correction(mut self, removed_events: EventSet, removed_files: &[Path]) -> Self {
        self.removed_events = Some(removed_events);
        self.removed_files = removed_files.to_vec();
        self.window.disable_eviction();
        self
    }

    /// Reads the keys that these rows are compared with, as far as they are not in memory.
    pub(crate) async fn load_keys_for(&mut self, rows: &[RecordBatch]) -> anyhow::Result<()> {
        let mut times = Vec::new();
        for batch in rows {
            times.extend_from_slice(micros(batch, &self.event_time)?);
        }
        let missing = self.window.missing_ranges(times);
        if missing.is_empty() {
            return Ok(());
        }
        let files = list_files(&self.log).await.context("list the table's files")?;
        for range in missing {
            let rows = self.read(&files, &range).await.context("read the table's keys")?;
            self.window.load(&range, rows);
        }
        Ok(())
    }

    /// Drops duplicate rows and counts their events. The rows that remain count as rows of the table from now on.
    ///
    /// Within a chunk, events are processed by topic, partition and offset, in whatever order they were polled. So the same
    /// offsets give the same rows again.
    pub(crate) fn drop_duplicates(&mut self, output: &mut TransformOutput) -> anyhow::Result<()> {
        let batches: Vec<KeyColumns<'_>> =
            output.rows.iter().map(|batch| self.key_columns(batch)).collect::<anyhow::Result<_>>()?;
        let mut by_log = BTreeMap::<&LogPartition, Vec<(usize, usize)>>::new();
        for (index, batch) in batches.iter().enumerate() {
            for (log, rows) in &batch.runs {
                by_log.entry(log).or_default().extend(rows.clone().map(|row| (index, row)));
            }
        }
        let mut keep: Vec<Vec<bool>> = batches.iter().map(|batch| vec![true; batch.keys.len()]).collect();
        let (mut duplicate_rows, mut duplicate_events) = (0, 0);
        for rows in by_log.values() {
            for event in rows.chunk_by(|(a, b), (c, d)| batches[*a].offsets[*b] == batches[*c].offsets[*d]) {
                // The rows of one event are no duplicates of each other.
                for (index, row) in event {
                    let batch = &batches[*index];
                    keep[*index][*row] = !self.window.contains(batch.keys[*row], batch.times[*row]);
                }
                let mut kept = 0;
                for (index, row) in event.iter().filter(|(index, row)| keep[*index][*row]) {
                    self.window.insert(batches[*index].keys[*row], batches[*index].times[*row]);
                    kept += 1;
                }
                duplicate_rows += event.len() - kept;
                duplicate_events += usize::from(kept == 0);
            }
        }
        drop(by_log);
        drop(batches);
        if duplicate_rows > 0 {
            for (batch, keep) in output.rows.iter_mut().zip(keep) {
                if keep.contains(&false) {
                    *batch = filter_record_batch(batch, &BooleanArray::from(keep))?;
                }
            }
            output.rows.retain(|batch| batch.num_rows() > 0);
            output.counts.rows -= duplicate_rows as u64;
            output.counts.with_rows -= duplicate_events as u64;
            output.counts.duplicates += duplicate_events as u64;
        }
        self.evict();
        Ok(())
    }

    /// Whether the table's rows in some files are duplicates of rows that are in memory.
    pub(crate) async fn has_duplicates_in(&mut self, files: &[DataFile]) -> anyhow::Result<bool> {
        let rows = self.read(files, &(i64::MIN..=i64::MAX)).await?;
        Ok(rows.into_iter().any(|(key, time)| self.window.contains(key, time)))
    }

    /// Evicts keys that do not fit into memory. The first time, this is logged.
    fn evict(&mut self) {
        if self.window.evict() == 0 {
            return;
        }
        let consequence = match self.window.reloads() {
            true => "older keys are read from the table when an event needs them, which is slower",
            false => "older keys are forgotten: an event that is sent again after that is in the table twice",
        };
        if self.evictions.is_new(consequence) {
            let (table, keys) = (&self.table, self.window.keys());
            warn!(%table, keys, "the keys of the newest events fill dedup.memory_bytes_max; {consequence}");
        }
    }

    /// The keys and times of the table's rows in a range of event time.
    async fn read(&self, files: &[DataFile], range: &RangeInclusive<i64>) -> anyhow::Result<Vec<(Key, i64)>> {
        let mut names: Vec<&str> = self.by.iter().map(String::as_str).collect();
        names.push(&self.event_time);
        names.extend(ROW_COORDINATES);
        let mut found = Vec::new();
        for file in files {
            let (oldest, newest) = time_range(file, &self.event_time, self.zone);
            if newest < *range.start() || *range.end() < oldest || self.removed_files.contains(&file.path) {
                continue;
            }
            let store = self.log.object_store(None);
            let mut columns = read_columns(store, file, Some(&names)).await?;
            while let Some(batch) = columns.batches.try_next().await? {
                let batch = match &self.removed_events {
                    Some(removed) => {
                        filter_record_batch(&batch, &not(&removed.mask(&Coordinates::of(&batch, ROW_COORDINATES)?))?)?
                    }
                    None => batch,
                };
                let rows = self.keys(&batch)?.into_iter().zip(micros(&batch, &self.event_time)?);
                found.extend(rows.filter(|(_, time)| range.contains(time)).map(|(key, time)| (key, *time)));
            }
        }
        Ok(found)
    }

    fn key_columns<'b>(&self, batch: &'b RecordBatch) -> anyhow::Result<KeyColumns<'b>> {
        Ok(KeyColumns {
            keys: self.keys(batch)?,
            times: micros(batch, &self.event_time)?,
            runs: Coordinates::of(batch, ROW_COORDINATES)?.runs(),
            offsets: column(batch, added::OFFSET)?.as_primitive::<Int64Type>().values(),
        })
    }

    fn keys(&self, batch: &RecordBatch) -> anyhow::Result<Vec<Key>> {
        let columns = self.by.iter().zip(&self.types).map(|(name, ty)| Ok(cast(column(batch, name)?, ty)?));
        let columns: Vec<ArrayRef> = columns.collect::<anyhow::Result<_>>()?;
        if let [ids] = &columns[..]
            && ids.data_type() == &DataType::Utf8
        {
            let ids = ids.as_string::<i32>();
            return Ok((0..ids.len()).map(|row| self.key_function.key(ids.value(row).as_bytes())).collect());
        }
        let rows = self.converter.convert_columns(&columns)?;
        Ok(rows.iter().map(|row| self.key_function.key(row.as_ref())).collect())
    }
}

fn without_dictionary(ty: &DataType) -> DataType {
    match ty {
        DataType::Dictionary(_, value) => (**value).clone(),
        other => other.clone(),
    }
}

fn micros<'b>(batch: &'b RecordBatch, name: &str) -> anyhow::Result<&'b [i64]> {
    let times = column(batch, name)?.as_primitive_opt::<TimestampMicrosecondType>();
    Ok(times.with_context(|| format!("column {name} is not a timestamp in microseconds"))?.values())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    min_values: BTreeMap<String, serde_json::Value>,
    max_values: BTreeMap<String, serde_json::Value>,
}

/// The oldest and newest possible event time in a file, from its statistics or else its day; all times without either.
fn time_range(file: &DataFile, event_time: &str, zone: Zone) -> (i64, i64) {
    /// Some writers truncate the times in statistics to milliseconds.
    const TRUNCATED_MICROS: i64 = 999;
    let stats: Option<Stats> = file.stats.as_deref().and_then(|stats| serde_json::from_str(stats).ok());
    let parse = |values: &BTreeMap<String, serde_json::Value>| {
        let text = values.get(event_time)?.as_str()?;
        Some(DateTime::parse_from_rfc3339(text).ok()?.timestamp_micros())
    };
    if let Some((oldest, newest)) = stats.and_then(|s| Some((parse(&s.min_values)?, parse(&s.max_values)?))) {
        return (oldest, newest.saturating_add(TRUNCATED_MICROS));
    }
    let Some(day) = file.day() else { return (i64::MIN, i64::MAX) };
    let (start, end) = (zone.start_of_day(day), zone.end_of_day(day) - 1);
    // The first and the last day of the calendar also have all times before and after it.
    match file.event_date.as_deref() {
        Some("0001-01-01") => (i64::MIN, end),
        Some("9999-12-31") => (start, i64::MAX),
        _ => (start, end),
    }
}
