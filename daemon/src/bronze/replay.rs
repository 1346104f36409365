//! Replay: reads ranges of offsets from Bronze in chunks of bounded size. The files may be small or compacted, and hold
//! one partition or several.

use std::collections::BTreeMap;

use anyhow::Context;
use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{SortColumn, cast, concat_batches, filter_record_batch, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use bytes::Bytes;
use deltalake_core::logstore::LogStoreRef;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Deserialize;
use silverd_core::chunk::{self, Chunk, column};
use silverd_core::offsets::{LogPartition, OffsetRange, Offsets, Ranges, advance};

use crate::delta::{DataFile, ROW_GROUP_ROWS_MAX, RowGroups, list_files};

/// Rows of a batch of the Parquet reader.
const BATCH_ROWS: usize = 64 * 1024;

/// The offsets of one topic that are still to be read, and the files that hold them.
pub(crate) struct Replay {
    log: LogStoreRef,
    missing: Ranges,
    files: Vec<FilePart>,
    rows_max: usize,
    bytes_max: usize,
    /// The large file from which a row group was read last.
    opened: Option<RowGroups>,
}

/// A data file, or a row group of a large one. The row groups of a compacted file resemble the small files that it
/// replaced.
struct FilePart {
    path: Path,
    /// The size of the whole file.
    file_size: u64,
    group: Option<usize>,
    size: u64,
    rows: u64,
    /// The offsets of each log partition.
    offsets: BTreeMap<LogPartition, OffsetRange>,
}

impl Replay {
    /// Finds the files. If `missing` has several topics or clusters, only the first is read; plan again for the others.
    ///
    /// A chunk has about `rows_max` records and `bytes_max` bytes at most, but always at least those of one file.
    pub(crate) async fn plan(
        log: LogStoreRef,
        missing: &Ranges,
        rows_max: usize,
        bytes_max: usize,
    ) -> anyhow::Result<Self> {
        let mut replay = Self { log, missing: Ranges::default(), files: Vec::new(), rows_max, bytes_max, opened: None };
        let Some((first, _)) = missing.iter().next() else { return Ok(replay) };
        (replay.missing, _) = missing.split_topic(first);
        let mut candidates = list_files(&replay.log).await.context("list bronze files")?;
        candidates.sort_by(|a, b| (a.modified_ms, &a.path).cmp(&(b.modified_ms, &b.path)));
        for file in candidates {
            let stats = Stats::of(&file);
            if !stats.as_ref().is_none_or(|stats| stats.may_overlap(&replay.missing)) {
                continue;
            }
            match stats.and_then(|stats| stats.single_partition(&file)) {
                Some(part) => replay.files.push(part),
                None => {
                    let parts = read_parts(&replay.log, &file).await;
                    replay.files.extend(parts.with_context(|| format!("read offsets of {}", file.path))?);
                }
            }
        }
        replay.drop_finished_files();
        Ok(replay)
    }

    /// The next chunk, or `None` at the end. Its ranges continue those of the previous chunk without a gap.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Chunk>> {
        if self.missing.is_empty() {
            return Ok(None);
        }
        let (count, mut window) = self.window();
        let (mut batches, mut bytes) = (Vec::new(), 0);
        for at in 0..count {
            let read = self.read(at, &window).await?;
            bytes += read.iter().map(RecordBatch::get_array_memory_size).sum::<usize>();
            batches.extend(read);
            let shorter = self.window_of(at + 1);
            if bytes >= self.bytes_max && at + 1 < count && !shorter.is_empty() {
                batches = batches.iter().map(|batch| within(batch, &shorter)).collect::<anyhow::Result<_>>()?;
                window = shorter;
                break;
            }
        }
        let records = sort_by_offset(concat_batches(&chunk::schema(), &batches)?)?;
        let next = window.ends();
        let rest = |(log, range): (&LogPartition, OffsetRange)| {
            let start = next.get(log).copied().unwrap_or(range.start);
            (start < range.end).then(|| (log.clone(), OffsetRange::new(start, range.end)))
        };
        self.missing = self.missing.iter().filter_map(rest).collect();
        self.drop_finished_files();
        Ok(Some(Chunk { records, ranges: window }))
    }

    fn drop_finished_files(&mut self) {
        self.files.retain(|file| overlaps_any(&file.offsets, &self.missing));
    }

    /// How many files to read next, and the ranges that these files hold completely: a range ends where a file begins
    /// that is not read.
    fn window(&self) -> (usize, Ranges) {
        let (mut count, mut rows) = (0, 0);
        while count < self.files.len() && (count == 0 || rows + self.files[count].rows <= self.rows_max as u64) {
            rows += self.files[count].rows;
            count += 1;
        }
        while self.window_of(count).is_empty() && count < self.files.len() {
            count += 1;
        }
        (count, self.window_of(count))
    }

    /// The ranges that the first `count` files hold completely.
    fn window_of(&self, count: usize) -> Ranges {
        // A file that is larger than a chunk should be is read in several steps.
        let step = self.files[..count].iter().filter_map(|file| file.step(self.rows_max, self.bytes_max)).min();
        let end_of = |log: &LogPartition, range: OffsetRange| {
            let later = self.files[count..].iter().filter_map(|file| file.offsets.get(log));
            let bound = later.filter(|held| held.end > range.start).map(|held| held.start.max(range.start)).min();
            let step = step.map_or(i64::MAX, |step| range.start.saturating_add(step));
            range.end.min(bound.unwrap_or(i64::MAX)).min(step)
        };
        let ends = self.missing.iter().map(|(log, range)| (log, range.start, end_of(log, range)));
        ends.filter(|(_, start, end)| start < end)
            .map(|(log, start, end)| (log.clone(), OffsetRange::new(start, end)))
            .collect()
    }

    async fn read(&mut self, at: usize, window: &Ranges) -> anyhow::Result<Vec<RecordBatch>> {
        let file = &self.files[at];
        if let Some(group) = file.group {
            if self.opened.as_ref().is_none_or(|opened| *opened.path() != file.path) {
                let opened = RowGroups::open(self.log.object_store(None), file.path.clone(), file.file_size).await;
                self.opened = Some(opened.with_context(|| format!("open bronze file {}", file.path))?);
            }
            let opened = self.opened.as_ref().context("no file is open")?;
            let batches = async { anyhow::Ok(opened.read(group, None)?.try_collect::<Vec<_>>().await?) };
            let batches = batches.await.with_context(|| format!("read bronze file {}", file.path))?;
            return batches.iter().map(|batch| within(&to_chunk_schema(batch)?, window)).collect();
        }
        let store = self.log.object_store(None);
        let bytes = async { anyhow::Ok(store.get(&file.path).await?.bytes().await?) };
        let bytes = bytes.await.with_context(|| format!("read bronze file {}", file.path))?;
        let window = window.clone();
        let read = tokio::task::spawn_blocking(move || decode(bytes, &window)).await?;
        read.with_context(|| format!("decode bronze file {}", file.path))
    }
}

impl FilePart {
    /// How many offsets of each log partition to read at once; `None` if the file is small enough to read completely.
    /// Assumes that its records take four times as many bytes in memory as on disk.
    fn step(&self, rows_max: usize, bytes_max: usize) -> Option<i64> {
        let row_bytes = (self.size * 4 / self.rows.max(1)).max(1);
        let rows = (rows_max as u64).min(bytes_max as u64 / row_bytes).max(1);
        (self.rows > rows * 2).then_some(rows as i64)
    }
}

fn overlaps_any(offsets: &BTreeMap<LogPartition, OffsetRange>, wanted: &Ranges) -> bool {
    wanted.iter().any(|(log, range)| offsets.get(log).is_some_and(|held| overlap(*held, range)))
}

fn overlap(a: OffsetRange, b: OffsetRange) -> bool {
    a.start < b.end && b.start < a.end
}

/// The Delta statistics of a Bronze file.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    num_records: u64,
    min_values: Bounds,
    max_values: Bounds,
}

#[derive(Deserialize)]
struct Bounds {
    cluster_id: String,
    topic: String,
    partition: i32,
    offset: i64,
}

impl Stats {
    fn of(file: &DataFile) -> Option<Self> {
        serde_json::from_str(file.stats.as_deref()?).ok()
    }

    fn may_overlap(&self, missing: &Ranges) -> bool {
        let (min, max) = (&self.min_values, &self.max_values);
        missing.iter().any(|(log, range)| {
            (&*min.cluster_id..=&*max.cluster_id).contains(&&*log.cluster)
                && (min.partition..=max.partition).contains(&log.partition)
                && overlap(OffsetRange::new(min.offset, max.offset + 1), range)
        })
    }

    /// If all records of a small file belong to one log partition, the statistics suffice to describe it.
    fn single_partition(&self, file: &DataFile) -> Option<FilePart> {
        let (min, max) = (&self.min_values, &self.max_values);
        let one = min.cluster_id == max.cluster_id && min.topic == max.topic && min.partition == max.partition;
        let log = LogPartition::new(min.cluster_id.as_str(), min.topic.as_str(), min.partition);
        let offsets = BTreeMap::from([(log, OffsetRange::new(min.offset, max.offset + 1))]);
        let small = self.num_records <= ROW_GROUP_ROWS_MAX as u64;
        let (size, rows) = (file.size, self.num_records);
        (one && small).then(|| FilePart { path: file.path.clone(), file_size: size, group: None, size, rows, offsets })
    }
}

/// The next offset of each log partition of which Bronze has rows, from the rows themselves. Reads every file.
pub(super) async fn offsets_of_rows(log: &LogStoreRef) -> anyhow::Result<Offsets> {
    let mut offsets = Offsets::new();
    for file in list_files(log).await.context("list bronze files")? {
        let parts = read_parts(log, &file).await.with_context(|| format!("read offsets of {}", file.path))?;
        for part in parts {
            let ends = part.offsets.into_iter().map(|(log, range)| (log, range.end)).collect();
            advance(&mut offsets, &ends);
        }
    }
    Ok(offsets)
}

/// Reads only the columns with the partitions and offsets of a file.
async fn read_parts(log: &LogStoreRef, file: &DataFile) -> anyhow::Result<Vec<FilePart>> {
    let groups = RowGroups::open(log.object_store(None), file.path.clone(), file.size).await?;
    let (mut parts, count) = (Vec::new(), groups.sizes().len());
    for (group, (rows, size)) in groups.sizes().enumerate() {
        let offsets = read_offsets_of(&groups, group).await?;
        let (group, size) = if count > 1 { (Some(group), size) } else { (None, file.size) };
        parts.push(FilePart { path: file.path.clone(), file_size: file.size, group, size, rows, offsets });
    }
    Ok(parts)
}

/// The offsets of each log partition in a row group.
async fn read_offsets_of(groups: &RowGroups, group: usize) -> anyhow::Result<BTreeMap<LogPartition, OffsetRange>> {
    let names = [column::CLUSTER_ID, column::TOPIC, column::PARTITION, column::OFFSET];
    let mut batches = groups.read(group, Some(&names))?;
    let mut found = BTreeMap::<LogPartition, OffsetRange>::new();
    while let Some(batch) = batches.try_next().await? {
        let text = |name: &str| -> anyhow::Result<_> {
            Ok(cast(batch.column_by_name(name).with_context(|| format!("no column {name}"))?, &DataType::Utf8)?)
        };
        let (clusters, topics) = (text(column::CLUSTER_ID)?, text(column::TOPIC)?);
        let (clusters, topics) = (clusters.as_string::<i32>(), topics.as_string::<i32>());
        let (partitions, offsets) = partitions_and_offsets(&batch)?;
        let mut last: Option<(LogPartition, OffsetRange)> = None;
        for row in 0..batch.num_rows() {
            let (partition, offset) = (partitions[row], offsets[row]);
            let same = last.as_ref().is_some_and(|(log, _)| {
                log.partition == partition && *log.cluster == *clusters.value(row) && *log.topic == *topics.value(row)
            });
            if !same {
                extend(&mut found, last.take());
                let log = LogPartition::new(clusters.value(row), topics.value(row), partition);
                last = Some((log, OffsetRange::new(offset, offset + 1)));
            } else if let Some((_, range)) = &mut last {
                *range = OffsetRange::new(range.start.min(offset), range.end.max(offset + 1));
            }
        }
        extend(&mut found, last);
    }
    Ok(found)
}

fn extend(found: &mut BTreeMap<LogPartition, OffsetRange>, more: Option<(LogPartition, OffsetRange)>) {
    if let Some((log, range)) = more {
        let held = found.entry(log).or_insert(range);
        *held = OffsetRange::new(held.start.min(range.start), held.end.max(range.end));
    }
}

fn partitions_and_offsets(batch: &RecordBatch) -> anyhow::Result<(&[i32], &[i64])> {
    let partitions = batch.column_by_name(column::PARTITION).and_then(|c| c.as_primitive_opt::<Int32Type>());
    let offsets = batch.column_by_name(column::OFFSET).and_then(|c| c.as_primitive_opt::<Int64Type>());
    Ok((partitions.context("no column partition")?.values(), offsets.context("no column offset")?.values()))
}

/// The records of a file in the window, with the schema of a chunk.
fn decode(bytes: Bytes, window: &Ranges) -> anyhow::Result<Vec<RecordBatch>> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
    let batches = builder.with_batch_size(BATCH_ROWS).build()?;
    batches.map(|batch| within(&to_chunk_schema(&batch?)?, window)).collect()
}

/// The records of a batch in the window.
fn within(batch: &RecordBatch, window: &Ranges) -> anyhow::Result<RecordBatch> {
    let Some((one, _)) = window.iter().next() else { return Ok(batch.slice(0, 0)) };
    let by_partition: BTreeMap<i32, OffsetRange> = window.iter().map(|(log, range)| (log.partition, range)).collect();
    let (partitions, offsets) = partitions_and_offsets(batch)?;
    let (clusters, topics) = (cast(batch.column(0), &DataType::Utf8)?, cast(batch.column(1), &DataType::Utf8)?);
    let (clusters, topics) = (clusters.as_string::<i32>(), topics.as_string::<i32>());
    let wanted = BooleanBuffer::collect_bool(batch.num_rows(), |row| {
        by_partition.get(&partitions[row]).is_some_and(|range| range.contains(offsets[row]))
            && *one.cluster == *clusters.value(row)
            && *one.topic == *topics.value(row)
    });
    Ok(filter_record_batch(batch, &BooleanArray::new(wanted, None))?)
}

/// Converts a batch of a file to the columns and types of a chunk.
pub(super) fn to_chunk_schema(batch: &RecordBatch) -> anyhow::Result<RecordBatch> {
    let schema = chunk::schema();
    let columns = schema.fields().iter().map(|field| {
        let column = batch.column_by_name(field.name()).with_context(|| format!("no column {}", field.name()))?;
        Ok(if column.data_type() == field.data_type() { column.clone() } else { cast(column, field.data_type())? })
    });
    Ok(RecordBatch::try_new(schema.clone(), columns.collect::<anyhow::Result<_>>()?)?)
}

/// Sorts the records by offset within each partition. Most often they are sorted already.
fn sort_by_offset(records: RecordBatch) -> anyhow::Result<RecordBatch> {
    let (partitions, offsets) = partitions_and_offsets(&records)?;
    let mut last = BTreeMap::new();
    let ordered = partitions
        .iter()
        .zip(offsets)
        .all(|(partition, offset)| last.insert(*partition, *offset).is_none_or(|before| before < *offset));
    if ordered {
        return Ok(records);
    }
    let column = |at: usize| SortColumn { values: records.column(at).clone(), options: None };
    let order = lexsort_to_indices(&[column(2), column(3)], None)?;
    Ok(take_record_batch(&records, &order)?)
}
