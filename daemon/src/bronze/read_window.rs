//! The records of a window of offsets, while they are read. If they take too much memory, the window becomes shorter: the
//! sizes of files say little, as events may be large, and compress well.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use anyhow::Context;
use arrow::array::{Array, AsArray, BooleanArray, Int16Array, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{SortColumn, cast, concat_batches, filter_record_batch, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Int16Type, Int32Type, Int64Type};
use silverd_core::chunk::{self, Chunk, column};
use silverd_core::offsets::{OffsetRange, Ranges};

/// The most bytes of a chunk, whatever pipeline.toml says: a column of a chunk cannot have two GiB.
const BYTES_LIMIT: usize = 1 << 30;

pub(super) struct ReadWindow {
    ranges: Ranges,
    batches: Vec<RecordBatch>,
    bytes: usize,
    bytes_max: usize,
}

impl ReadWindow {
    /// More than four times `bytes_max` make the window shorter.
    pub(super) fn new(ranges: Ranges, bytes_max: usize) -> Self {
        let bytes_max = bytes_max.saturating_mul(4).min(BYTES_LIMIT);
        Self { ranges, batches: Vec::new(), bytes: 0, bytes_max }
    }

    pub(super) fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    /// The bytes of the records so far.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds the records of a batch that are in the window.
    pub(super) fn push(&mut self, batch: &RecordBatch) -> anyhow::Result<()> {
        let records = within(&to_chunk_schema(batch)?, &self.ranges)?;
        if records.num_rows() == 0 {
            return Ok(());
        }
        self.bytes += bytes_of(&records)?;
        self.batches.push(records);
        while self.bytes > self.bytes_max
            && let Some(half) = half_of(&self.ranges)
        {
            self.shorten(half)?;
        }
        Ok(())
    }

    /// Keeps the records of some ranges, which are within the window.
    pub(super) fn shorten(&mut self, ranges: Ranges) -> anyhow::Result<()> {
        self.ranges = ranges;
        self.bytes = 0;
        for batch in std::mem::take(&mut self.batches) {
            let records = within(&batch, &self.ranges)?;
            if records.num_rows() > 0 {
                self.bytes += bytes_of(&records)?;
                self.batches.push(records);
            }
        }
        Ok(())
    }

    pub(super) fn into_chunk(self) -> anyhow::Result<Chunk> {
        let records = concat_batches(&chunk::schema(), &self.batches)?;
        drop(self.batches);
        Ok(Chunk { records: sort_by_offset(records)?, ranges: self.ranges })
    }
}

/// About the first half of these ranges; `None` if there is only one offset.
pub(super) fn half_of(ranges: &Ranges) -> Option<Ranges> {
    if ranges.iter().any(|(_, range)| range.len() > 1) {
        let half = |range: OffsetRange| OffsetRange::new(range.start, range.start + (range.len() / 2).max(1));
        return Some(ranges.iter().map(|(log, range)| (log.clone(), half(range))).collect());
    }
    let logs = ranges.len();
    (logs > 1).then(|| ranges.iter().take(logs / 2).map(|(log, range)| (log.clone(), range)).collect())
}

/// The memory of the records, without what else is in the buffers that they share.
fn bytes_of(records: &RecordBatch) -> anyhow::Result<usize> {
    let mut bytes = 0;
    for column in records.columns() {
        bytes += column.to_data().get_slice_memory_size()?;
    }
    Ok(bytes)
}

/// The records of a batch in the window.
fn within(batch: &RecordBatch, window: &Ranges) -> anyhow::Result<RecordBatch> {
    let Some((one, _)) = window.iter().next() else { return Ok(batch.slice(0, 0)) };
    let (partitions, offsets) = partitions_and_offsets(batch)?;
    let clusters = cast(batch.column(0), &DataType::Utf8)?;
    let clusters = clusters.as_string::<i32>();
    let topics = batch.column(1).as_dictionary::<Int16Type>();
    let wanted_of: Vec<BTreeMap<i32, OffsetRange>> =
        topics.values().as_string::<i32>().iter().map(|topic| window.of_topic(topic.unwrap_or_default())).collect();
    let topics = topics.keys().values();
    let wanted = BooleanBuffer::collect_bool(batch.num_rows(), |row| {
        wanted_of[topics[row] as usize].get(&partitions[row]).is_some_and(|range| range.contains(offsets[row]))
            && *one.cluster == *clusters.value(row)
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

/// Sorts the records by offset within each log partition. Most often they are sorted already.
fn sort_by_offset(records: RecordBatch) -> anyhow::Result<RecordBatch> {
    let (partitions, offsets) = partitions_and_offsets(&records)?;
    let topics = topics_of(&records);
    let mut last = HashMap::new();
    let ordered = topics
        .iter()
        .zip(partitions)
        .zip(offsets)
        .all(|(log, offset)| last.insert(log, *offset).is_none_or(|before| before < *offset));
    if ordered {
        return Ok(records);
    }
    let column = |at: usize| SortColumn { values: records.column(at).clone(), options: None };
    let topic = SortColumn { values: Arc::new(Int16Array::from(topics)), options: None };
    let order = lexsort_to_indices(&[topic, column(2), column(3)], None)?;
    Ok(take_record_batch(&records, &order)?)
}

/// A number for the topic of each record. The keys of the dictionary do not do: that of records from several files may have a
/// topic more than once.
fn topics_of(records: &RecordBatch) -> Vec<i16> {
    let topics = records.column(1).as_dictionary::<Int16Type>();
    let values = topics.values().as_string::<i32>();
    let first = |topic: Option<&str>| values.iter().position(|value| value == topic).unwrap_or_default() as i16;
    let numbers: Vec<i16> = values.iter().map(first).collect();
    topics.keys().values().iter().map(|key| numbers[*key as usize]).collect()
}

pub(super) fn partitions_and_offsets(batch: &RecordBatch) -> anyhow::Result<(&[i32], &[i64])> {
    let partitions = batch.column_by_name(column::PARTITION).and_then(|c| c.as_primitive_opt::<Int32Type>());
    let offsets = batch.column_by_name(column::OFFSET).and_then(|c| c.as_primitive_opt::<Int64Type>());
    Ok((partitions.context("no column partition")?.values(), offsets.context("no column offset")?.values()))
}

#[cfg(test)]
mod tests {
    use std::iter::empty;

    use proptest::prelude::*;
    use silverd_core::chunk::{ChunkBuilder, Record, TimestampType};
    use silverd_core::offsets::{LogPartition, Offsets, advance};

    use super::*;

    /// A batch with records of these partitions, offsets and sizes.
    fn batch(records: &[(i32, i64, usize)]) -> RecordBatch {
        let mut builder = ChunkBuilder::default();
        for (partition, offset, bytes) in records {
            let value = vec![b'x'; *bytes];
            let record = Record {
                offset: *offset,
                timestamp: Some((0, TimestampType::CreateTime)),
                key: None,
                value: Some(&value),
                headers: empty(),
            };
            let log = builder.log(&LogPartition::new("c", "t", *partition));
            builder.push(log, *offset, record);
        }
        builder.finish(0).records
    }

    fn ranges(of: &[(i32, i64, i64)]) -> Ranges {
        of.iter()
            .map(|(partition, start, end)| (LogPartition::new("c", "t", *partition), OffsetRange::new(*start, *end)))
            .collect()
    }

    fn positions(chunk: &Chunk) -> Vec<(i32, i64)> {
        chunk.partitions().iter().copied().zip(chunk.offsets().iter().copied()).collect()
    }

    #[test]
    fn windows_are_halved_down_to_one_offset() {
        let mut window = ranges(&[(0, 10, 15), (1, 0, 2), (2, 7, 8)]);
        let mut seen = Vec::new();
        while let Some(half) = half_of(&window) {
            window = half;
            seen.push(window.iter().map(|(log, range)| (log.partition, range.start, range.end)).collect::<Vec<_>>());
        }
        let expected: [&[_]; 3] =
            [&[(0, 10, 12), (1, 0, 1), (2, 7, 8)], &[(0, 10, 11), (1, 0, 1), (2, 7, 8)], &[(0, 10, 11)]];
        assert_eq!(seen, expected);
        assert_eq!(half_of(&Ranges::default()), None);
    }

    /// As after compactions by several daemons: files whose offsets interleave.
    #[test]
    fn records_of_several_files_come_by_offset() {
        let mut window = ReadWindow::new(ranges(&[(0, 0, 3), (1, 0, 3)]), 1_000);
        window.push(&batch(&[(0, 1, 1), (1, 0, 1), (1, 2, 1)])).expect("a batch of records");
        window.push(&batch(&[(0, 0, 1), (0, 2, 1), (1, 1, 1)])).expect("a batch of records");
        let read = positions(&window.into_chunk().expect("a chunk"));
        assert_eq!(read, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]);
    }

    /// Forty events of "20 MiB" in one file, and a limit of a column's bytes, both a thousand times smaller.
    #[test]
    fn large_events_are_read_in_parts() {
        const EVENT: usize = 20 << 10;
        const BYTES_MAX: usize = 20 << 10;
        let file: Vec<_> = (0..40).map(|offset| batch(&[(0, offset, EVENT)])).collect();
        let (mut next, mut read, mut chunks) = (0, Vec::new(), 0);
        while next < 40 {
            let mut window = ReadWindow::new(ranges(&[(0, next, 40)]), BYTES_MAX);
            for batch in &file {
                window.push(batch).expect("a batch of records");
                assert!(window.bytes() <= 4 * BYTES_MAX, "{} bytes", window.bytes());
            }
            let chunk = window.into_chunk().expect("a chunk");
            let (_, range) = chunk.ranges.iter().next().expect("a range");
            assert_eq!(range.start, next);
            read.extend(positions(&chunk));
            (next, chunks) = (range.end, chunks + 1);
        }
        assert_eq!(read, (0..40).map(|offset| (0, offset)).collect::<Vec<_>>());
        assert!((10..=40).contains(&chunks), "{chunks} chunks");
    }

    #[test]
    fn an_event_that_is_larger_than_the_limit_is_read_alone() {
        let mut window = ReadWindow::new(ranges(&[(0, 0, 9), (1, 0, 9)]), 10);
        window.push(&batch(&[(0, 0, 1000), (0, 1, 1), (1, 0, 1000), (1, 8, 1)])).expect("a batch of records");
        window.push(&batch(&[(0, 2, 1), (1, 1, 1)])).expect("a batch of records");
        let chunk = window.into_chunk().expect("a chunk");
        assert_eq!((chunk.ranges.clone(), positions(&chunk)), (ranges(&[(0, 0, 1)]), vec![(0, 0)]));
    }

    proptest! {
        /// Whatever the sizes, each record is read once, in order, and no chunk is larger than its limit, unless it is one
        /// record.
        #[test]
        fn every_record_is_read_once(
            sizes in prop::collection::vec((0i32..3, 0usize..3_000), 1..60),
            per_batch in 1usize..20,
            bytes_max in 200usize..4_000,
        ) {
            let mut ends = [0i64; 3];
            let records: Vec<_> = sizes
                .iter()
                .map(|(partition, bytes)| {
                    ends[*partition as usize] += 1;
                    (*partition, ends[*partition as usize] - 1, *bytes)
                })
                .collect();
            let batches: Vec<_> = records.chunks(per_batch).map(batch).collect();
            let log = |partition: i32| LogPartition::new("c", "t", partition);
            let end: Offsets = (0..3).map(|partition| (log(partition), ends[partition as usize])).collect();
            let (mut next, mut read) = (Offsets::new(), Vec::new());
            loop {
                let window = silverd_core::offsets::missing(&next, &end);
                if window.is_empty() {
                    break;
                }
                let mut window = ReadWindow::new(window, bytes_max);
                batches.iter().for_each(|batch| window.push(batch).expect("a batch of records"));
                let (bytes, chunk) = (window.bytes(), window.into_chunk().expect("a chunk"));
                prop_assert!(bytes <= 4 * bytes_max || chunk.records.num_rows() == 1, "{} bytes", bytes);
                prop_assert!(!chunk.ranges.is_empty());
                read.extend(positions(&chunk));
                advance(&mut next, &chunk.ranges.ends());
            }
            for partition in 0..3 {
                let of: Vec<_> = read.iter().filter(|(p, _)| *p == partition).map(|(_, offset)| *offset).collect();
                prop_assert_eq!(of, (0..ends[partition as usize]).collect::<Vec<_>>());
            }
        }
    }
}
