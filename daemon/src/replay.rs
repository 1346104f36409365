//! Bronze as the queue: reads ranges of offsets back from the raw table, in chunks of bounded size, whatever its files
//! look like by now (small, compacted, several partitions in one).

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
use silverd_core::offsets::{LogPartition, OffsetRange, Ranges};

use crate::delta::{DataFile, ROW_GROUP_ROWS_MAX, RowGroups, files_of};

/// Rows of one Bronze read: a batch of the reader.
const BATCH_ROWS: usize = 64 * 1024;

/// What is to be read of one topic of one cluster, and the files that may hold it.
pub struct Replay {
    log: LogStoreRef,
    /// What is still to be read.
    missing: Ranges,
    files: Vec<Indexed>,
    rows_max: usize,
    bytes_max: usize,
    /// The large file that was read from last.
    opened: Option<RowGroups>,
}

/// A data file of Bronze, or a row group of a large one, with the offsets that it holds of each log partition (end
/// exclusive). The row groups of a merged file are much like the small files that it was made of.
struct Indexed {
    path: Path,
    /// Of the file.
    file_size: u64,
    group: Option<usize>,
    size: u64,
    rows: u64,
    holds: BTreeMap<LogPartition, OffsetRange>,
}

impl Replay {
    /// Finds the files. Of several topics or clusters in `missing` the first is taken; the others are for the next time.
    ///
    /// A chunk has about `rows_max` records and `bytes_max` bytes at most, but always at least one file's worth.
    pub async fn plan(log: LogStoreRef, missing: &Ranges, rows_max: usize, bytes_max: usize) -> anyhow::Result<Self> {
        let Some((first, _)) = missing.iter().next() else {
            return Ok(Self { log, missing: Ranges::default(), files: Vec::new(), rows_max, bytes_max, opened: None });
        };
        let same = |log: &LogPartition| log.cluster == first.cluster && log.topic == first.topic;
        let missing: Ranges = missing.iter().filter(|(log, _)| same(log)).map(|(log, r)| (log.clone(), r)).collect();
        let mut candidates = files_of(&log).await.context("list bronze's files")?;
        candidates.sort_by(|a, b| (a.modified_ms, &a.path).cmp(&(b.modified_ms, &b.path)));
        let mut files = Vec::new();
        for file in candidates {
            let stats = Stats::of(&file);
            if !stats.as_ref().is_none_or(|stats| stats.may_hold(&missing)) {
                continue;
            }
            match stats.and_then(|stats| stats.of_one_partition(&file)) {
                Some(indexed) => files.push(indexed),
                None => {
                    files.extend(index(&log, &file).await.with_context(|| format!("read offsets of {}", file.path))?)
                }
            }
        }
        files.retain(|file| holds_any(&file.holds, &missing));
        Ok(Self { log, missing, files, rows_max, bytes_max, opened: None })
    }

    /// The next chunk, or `None` when everything has been read. Its ranges follow one another without a gap.
    pub async fn next(&mut self) -> anyhow::Result<Option<Chunk>> {
        if self.missing.is_empty() {
            return Ok(None);
        }
        let (taken, mut window) = self.window();
        let (mut batches, mut bytes) = (Vec::new(), 0);
        for at in 0..taken {
            let read = self.read(at, &window).await?;
            bytes += read.iter().map(RecordBatch::get_array_memory_size).sum::<usize>();
            batches.extend(read);
            let shorter = self.window_of(at + 1);
            if bytes >= self.bytes_max && at + 1 < taken && !shorter.is_empty() {
                batches = batches.iter().map(|batch| within(batch, &shorter)).collect::<anyhow::Result<_>>()?;
                window = shorter;
                break;
            }
        }
        let records = in_order(concat_batches(&chunk::schema(), &batches)?)?;
        let next = window.ends();
        let left = |(log, range): (&LogPartition, OffsetRange)| {
            let start = next.get(log).copied().unwrap_or(range.start);
            (start < range.end).then(|| (log.clone(), OffsetRange::new(start, range.end)))
        };
        self.missing = self.missing.iter().filter_map(left).collect();
        self.files.retain(|file| holds_any(&file.holds, &self.missing));
        Ok(Some(Chunk { records, ranges: window }))
    }

    /// How many files to take, and the ranges that they hold in full: a range ends where a file begins that is not taken.
    fn window(&self) -> (usize, Ranges) {
        let (mut taken, mut rows) = (0, 0);
        while taken < self.files.len() && (taken == 0 || rows + self.files[taken].rows <= self.rows_max as u64) {
            rows += self.files[taken].rows;
            taken += 1;
        }
        while self.window_of(taken).is_empty() && taken < self.files.len() {
            taken += 1;
        }
        (taken, self.window_of(taken))
    }

    /// The ranges that the first `taken` files hold in full.
    fn window_of(&self, taken: usize) -> Ranges {
        // A file may be larger than a chunk should be: then it is read in several goes.
        let step = self.files[..taken].iter().filter_map(|file| file.step(self.rows_max, self.bytes_max)).min();
        let end_of = |log: &LogPartition, range: OffsetRange| {
            let left = self.files[taken..].iter().filter_map(|file| file.holds.get(log));
            let bound = left.filter(|held| held.end > range.start).map(|held| held.start.max(range.start)).min();
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
            let opened = self.opened.as_ref().context("a file is open")?;
            let batches = async { anyhow::Ok(opened.read(group, None)?.try_collect::<Vec<_>>().await?) };
            let batches = batches.await.with_context(|| format!("read bronze file {}", file.path))?;
            return batches.iter().map(|batch| within(&as_chunk(batch)?, window)).collect();
        }
        let store = self.log.object_store(None);
        let bytes = async { anyhow::Ok(store.get(&file.path).await?.bytes().await?) };
        let bytes = bytes.await.with_context(|| format!("read bronze file {}", file.path))?;
        let window = window.clone();
        let read = tokio::task::spawn_blocking(move || read(bytes, &window)).await?;
        read.with_context(|| format!("decode bronze file {}", file.path))
    }
}

impl Indexed {
    /// How many offsets of each log partition to read at once of a file that is too large to be read whole; `None` if it
    /// is not. Its bytes in memory are taken for four times those on the disk.
    fn step(&self, rows_max: usize, bytes_max: usize) -> Option<i64> {
        let row_bytes = (self.size * 4 / self.rows.max(1)).max(1);
        let rows = (rows_max as u64).min(bytes_max as u64 / row_bytes).max(1);
        (self.rows > rows * 2).then_some(rows as i64)
    }
}

fn holds_any(holds: &BTreeMap<LogPartition, OffsetRange>, wanted: &Ranges) -> bool {
    wanted.iter().any(|(log, range)| holds.get(log).is_some_and(|held| overlap(*held, range)))
}

fn overlap(a: OffsetRange, b: OffsetRange) -> bool {
    a.start < b.end && b.start < a.end
}

/// What Delta's statistics say of a Bronze file.
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

    fn may_hold(&self, missing: &Ranges) -> bool {
        let (min, max) = (&self.min_values, &self.max_values);
        missing.iter().any(|(log, range)| {
            (&*min.cluster_id..=&*max.cluster_id).contains(&&*log.cluster)
                && (min.partition..=max.partition).contains(&log.partition)
                && overlap(OffsetRange::new(min.offset, max.offset + 1), range)
        })
    }

    /// Where a file is of one log partition, the statistics say all.
    fn of_one_partition(&self, file: &DataFile) -> Option<Indexed> {
        let (min, max) = (&self.min_values, &self.max_values);
        let one = min.cluster_id == max.cluster_id && min.topic == max.topic && min.partition == max.partition;
        let log = LogPartition::new(min.cluster_id.as_str(), min.topic.as_str(), min.partition);
        let holds = BTreeMap::from([(log, OffsetRange::new(min.offset, max.offset + 1))]);
        let small = self.num_records <= ROW_GROUP_ROWS_MAX as u64;
        let (size, rows) = (file.size, self.num_records);
        (one && small).then(|| Indexed { path: file.path.clone(), file_size: size, group: None, size, rows, holds })
    }
}

/// Reads the coordinates of a file's records, and nothing else of it.
async fn index(log: &LogStoreRef, file: &DataFile) -> anyhow::Result<Vec<Indexed>> {
    let groups = RowGroups::open(log.object_store(None), file.path.clone(), file.size).await?;
    let (mut found, count) = (Vec::new(), groups.sizes().len());
    for (group, (rows, size)) in groups.sizes().enumerate() {
        let holds = coordinates_of(&groups, group).await?;
        let (group, size) = if count > 1 { (Some(group), size) } else { (None, file.size) };
        found.push(Indexed { path: file.path.clone(), file_size: file.size, group, size, rows, holds });
    }
    Ok(found)
}

/// The offsets that a row group holds of each log partition.
async fn coordinates_of(groups: &RowGroups, group: usize) -> anyhow::Result<BTreeMap<LogPartition, OffsetRange>> {
    let names = [column::CLUSTER_ID, column::TOPIC, column::PARTITION, column::OFFSET];
    let mut batches = groups.read(group, Some(&names))?;
    let mut holds = BTreeMap::<LogPartition, OffsetRange>::new();
    while let Some(batch) = batches.try_next().await? {
        let text = |name: &str| -> anyhow::Result<_> {
            Ok(cast(batch.column_by_name(name).with_context(|| format!("no column {name}"))?, &DataType::Utf8)?)
        };
        let (clusters, topics) = (text(column::CLUSTER_ID)?, text(column::TOPIC)?);
        let (clusters, topics) = (clusters.as_string::<i32>(), topics.as_string::<i32>());
        let (partitions, offsets) = coordinates(&batch)?;
        let mut last: Option<(LogPartition, OffsetRange)> = None;
        for row in 0..batch.num_rows() {
            let (partition, offset) = (partitions[row], offsets[row]);
            let same = last.as_ref().is_some_and(|(log, _)| {
                log.partition == partition && *log.cluster == *clusters.value(row) && *log.topic == *topics.value(row)
            });
            if !same {
                flush(&mut holds, last.take());
                let log = LogPartition::new(clusters.value(row), topics.value(row), partition);
                last = Some((log, OffsetRange::new(offset, offset + 1)));
            } else if let Some((_, range)) = &mut last {
                *range = OffsetRange::new(range.start.min(offset), range.end.max(offset + 1));
            }
        }
        flush(&mut holds, last);
    }
    Ok(holds)
}

fn flush(holds: &mut BTreeMap<LogPartition, OffsetRange>, found: Option<(LogPartition, OffsetRange)>) {
    if let Some((log, range)) = found {
        let held = holds.entry(log).or_insert(range);
        *held = OffsetRange::new(held.start.min(range.start), held.end.max(range.end));
    }
}

fn coordinates(batch: &RecordBatch) -> anyhow::Result<(&[i32], &[i64])> {
    let partitions = batch.column_by_name(column::PARTITION).and_then(|c| c.as_primitive_opt::<Int32Type>());
    let offsets = batch.column_by_name(column::OFFSET).and_then(|c| c.as_primitive_opt::<Int64Type>());
    Ok((partitions.context("no column partition")?.values(), offsets.context("no column offset")?.values()))
}

/// The records of a file that lie in the window, with a chunk's schema.
fn read(bytes: Bytes, window: &Ranges) -> anyhow::Result<Vec<RecordBatch>> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
    let batches = builder.with_batch_size(BATCH_ROWS).build()?;
    batches.map(|batch| within(&as_chunk(&batch?)?, window)).collect()
}

/// The records of a batch that lie in the window.
fn within(batch: &RecordBatch, window: &Ranges) -> anyhow::Result<RecordBatch> {
    let Some((one, _)) = window.iter().next() else { return Ok(batch.slice(0, 0)) };
    let by_partition: BTreeMap<i32, OffsetRange> = window.iter().map(|(log, range)| (log.partition, range)).collect();
    let (partitions, offsets) = coordinates(batch)?;
    let (clusters, topics) = (cast(batch.column(0), &DataType::Utf8)?, cast(batch.column(1), &DataType::Utf8)?);
    let (clusters, topics) = (clusters.as_string::<i32>(), topics.as_string::<i32>());
    let wanted = BooleanBuffer::collect_bool(batch.num_rows(), |row| {
        by_partition.get(&partitions[row]).is_some_and(|range| range.contains(offsets[row]))
            && *one.cluster == *clusters.value(row)
            && *one.topic == *topics.value(row)
    });
    Ok(filter_record_batch(batch, &BooleanArray::new(wanted, None))?)
}

/// A batch as the file has it, with the columns and types of a chunk.
pub fn as_chunk(batch: &RecordBatch) -> anyhow::Result<RecordBatch> {
    let schema = chunk::schema();
    let columns = schema.fields().iter().map(|field| {
        let column = batch.column_by_name(field.name()).with_context(|| format!("no column {}", field.name()))?;
        Ok(if column.data_type() == field.data_type() { column.clone() } else { cast(column, field.data_type())? })
    });
    Ok(RecordBatch::try_new(schema.clone(), columns.collect::<anyhow::Result<_>>()?)?)
}

/// The records in the order of their offsets within each partition, which most often they have already.
fn in_order(records: RecordBatch) -> anyhow::Result<RecordBatch> {
    let (partitions, offsets) = coordinates(&records)?;
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
