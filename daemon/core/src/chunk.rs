//! A chunk: raw Kafka records as one Arrow batch, with the offsets that it covers. The payloads are copied once, here:
//! Bronze encodes these buffers, and the plugins receive the same bytes.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use arrow_array::builder::BooleanBufferBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int16Type, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, DictionaryArray, Int8Array, Int16Array, Int32Array, Int64Array,
    ListArray, RecordBatch, StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use arrow_select::filter::filter_record_batch;

use crate::buffer_pool::BufferPool;
use crate::offsets::{LogPartition, OffsetRange, Ranges};
use crate::schema::COMMENT;

/// The columns of Bronze, in order. `event_date`, the partition column, is in the path and not in the files.
pub mod column {
    pub const CLUSTER_ID: &str = "cluster_id";
    pub const TOPIC: &str = "topic";
    pub const PARTITION: &str = "partition";
    pub const OFFSET: &str = "offset";
    pub const TIMESTAMP: &str = "timestamp";
    pub const TIMESTAMP_TYPE: &str = "timestamp_type";
    pub const KEY: &str = "key";
    pub const VALUE: &str = "value";
    pub const HEADERS: &str = "headers";
    pub const INGESTED_AT: &str = "ingested_at";
    pub const EVENT_DATE: &str = "event_date";
}

/// The Arrow schema of a chunk and of a Bronze file.
pub fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let few_values = || DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
        let topics = DataType::Dictionary(Box::new(DataType::Int16), Box::new(DataType::Utf8));
        let timestamp = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        Arc::new(Schema::new(vec![
            documented(
                Field::new(column::CLUSTER_ID, few_values(), false),
                "Id of the Kafka cluster; with topic and partition it names the log that the offset counts in.",
            ),
            documented(Field::new(column::TOPIC, topics, false), "Kafka topic."),
            documented(Field::new(column::PARTITION, DataType::Int32, false), "Kafka partition."),
            documented(Field::new(column::OFFSET, DataType::Int64, false), "Offset in the partition."),
            documented(
                Field::new(column::TIMESTAMP, timestamp(), true),
                "Time that Kafka has for the record; null where it has none.",
            ),
            documented(
                Field::new(column::TIMESTAMP_TYPE, few_values(), true),
                "Who set the timestamp: CreateTime (the producer) or LogAppendTime (the broker).",
            ),
            documented(Field::new(column::KEY, DataType::Binary, true), "Key of the record, as it came."),
            documented(Field::new(column::VALUE, DataType::Binary, true), "Value of the record, as it came."),
            documented(Field::new(column::HEADERS, headers_type(), false), "Headers of the record, in their order."),
            documented(Field::new(column::INGESTED_AT, timestamp(), false), "When silverd took the record from Kafka."),
        ]))
    });
    SCHEMA.clone()
}

fn documented(field: Field, doc: &str) -> Field {
    field.with_metadata([(COMMENT.to_owned(), doc.to_owned())].into())
}

fn header_fields() -> Fields {
    Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Binary, true)])
}

fn headers_type() -> DataType {
    DataType::List(Arc::new(Field::new("element", DataType::Struct(header_fields()), false)))
}

/// Who set the timestamp of a record; Kafka's `TimestampType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

const TIMESTAMP_TYPES: [&str; 2] = ["CreateTime", "LogAppendTime"];

/// A Kafka record, borrowed from the client.
#[derive(Clone, Debug)]
pub struct Record<'a, H> {
    pub offset: i64,
    /// Milliseconds since the epoch, if the broker has a timestamp.
    pub timestamp: Option<(i64, TimestampType)>,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: H,
}

/// Raw records, and the offsets that they cover.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// In offset order within each log partition. Schema: [`schema`].
    pub records: RecordBatch,
    pub ranges: Ranges,
}

/// The headers of a chunk's records, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'c> {
    /// Where those of each record end; the first is where they start.
    pub ends: &'c [i32],
    pub names: &'c StringArray,
    pub values: &'c BinaryArray,
}

impl Chunk {
    pub fn values(&self) -> &BinaryArray {
        self.records.column(7).as_binary::<i32>()
    }

    pub fn keys(&self) -> &BinaryArray {
        self.records.column(6).as_binary::<i32>()
    }

    /// The topics of the records; see [`topic_of`](Self::topic_of).
    pub fn topics(&self) -> &StringArray {
        self.records.column(1).as_dictionary::<Int16Type>().values().as_string()
    }

    /// The topic of a record, by its index in [`topics`](Self::topics).
    pub fn topic_of(&self, row: usize) -> usize {
        self.records.column(1).as_dictionary::<Int16Type>().keys().value(row) as usize
    }

    pub fn headers(&self) -> Headers<'_> {
        let lists: &ListArray = self.records.column(8).as_list();
        let fields = lists.values().as_struct();
        Headers {
            ends: lists.value_offsets(),
            names: fields.column(0).as_string(),
            values: fields.column(1).as_binary(),
        }
    }

    pub fn partitions(&self) -> &[i32] {
        self.records.column(2).as_primitive::<Int32Type>().values()
    }

    pub fn offsets(&self) -> &[i64] {
        self.records.column(3).as_primitive::<Int64Type>().values()
    }

    /// The timestamp of a record in microseconds, or the ingestion time if it has none.
    pub fn timestamp(&self, row: usize) -> i64 {
        let timestamps = self.records.column(4).as_primitive::<TimestampMicrosecondType>();
        if timestamps.is_valid(row) { timestamps.value(row) } else { self.ingested_at().value(row) }
    }

    pub fn ingested_at(&self) -> &TimestampMicrosecondArray {
        self.records.column(9).as_primitive::<TimestampMicrosecondType>()
    }

    /// The rows of each day (days since the epoch, UTC) of the records' timestamps: the partitions of Bronze.
    pub fn days(&self) -> BTreeMap<i32, Vec<u32>> {
        let mut days = BTreeMap::<i32, Vec<u32>>::new();
        for row in 0..self.records.num_rows() {
            days.entry(day_of(self.timestamp(row))).or_default().push(row as u32);
        }
        days
    }

    /// The same for `days_max` days at most. If there are more, the records of those with the fewest records have the day of
    /// their ingestion.
    pub fn days_at_most(&self, days_max: usize) -> BTreeMap<i32, Vec<u32>> {
        let mut days = self.days();
        if days.len() <= days_max {
            return days;
        }
        let mut by_size: Vec<(usize, i32)> = days.iter().map(|(day, rows)| (rows.len(), *day)).collect();
        by_size.sort_unstable();
        // One day is that of the ingestion.
        let others = by_size.len() + 1 - days_max.max(1);
        let mut moved: Vec<u32> = Vec::new();
        for (_, day) in &by_size[..others] {
            moved.extend(days.remove(day).unwrap_or_default());
        }
        for row in moved {
            days.entry(day_of(self.ingested_at().value(row as usize))).or_default().push(row);
        }
        days.values_mut().for_each(|rows| rows.sort_unstable());
        days
    }

    /// The timestamp of the last record of each log partition, no later than its ingestion. Partitions without a record have
    /// none.
    pub fn last_timestamps(&self) -> BTreeMap<LogPartition, i64> {
        let (topics, partitions) = (self.topics(), self.partitions());
        let mut wanted: HashMap<(&str, i32), &LogPartition> =
            self.ranges.iter().map(|(log, _)| ((&*log.topic, log.partition), log)).collect();
        let mut found = BTreeMap::new();
        // From the end: the partitions' records alternate.
        for row in (0..self.records.num_rows()).rev() {
            if wanted.is_empty() {
                break;
            }
            if let Some(log) = wanted.remove(&(topics.value(self.topic_of(row)), partitions[row])) {
                found.insert(log.clone(), self.timestamp(row).min(self.ingested_at().value(row)));
            }
        }
        found
    }

    /// The records with offsets in `ranges`, as a chunk of those ranges. They must be of the chunk's cluster.
    pub fn select(&self, ranges: &Ranges) -> Chunk {
        if *ranges == self.ranges {
            return self.clone();
        }
        let topics: Vec<BTreeMap<i32, OffsetRange>> =
            self.topics().iter().map(|topic| ranges.of_topic(topic.unwrap_or_default())).collect();
        let (partitions, offsets) = (self.partitions(), self.offsets());
        let wanted = BooleanBuffer::collect_bool(self.records.num_rows(), |row| {
            topics[self.topic_of(row)].get(&partitions[row]).is_some_and(|range| range.contains(offsets[row]))
        });
        let records = filter_record_batch(&self.records, &BooleanArray::new(wanted, None));
        Chunk { records: records.expect("one flag for each record"), ranges: ranges.clone() }
    }
}

/// The day of a time in microseconds, as days since the epoch.
pub fn day_of(micros: i64) -> i32 {
    const DAY: i64 = 86_400_000_000;
    // A time outside of the calendar must still have a day that can be written: the first or the last.
    micros.div_euclid(DAY).clamp(-719_162, 2_932_896) as i32
}

/// A log partition of a [`ChunkBuilder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogIndex(u32);

/// Collects records into a chunk. Their log partitions are of one cluster.
pub struct ChunkBuilder {
    logs: Logs,
    /// What the chunk covers, by [`LogIndex`].
    ranges: Vec<Option<OffsetRange>>,
    has_ranges: bool,
    topics: Vec<i16>,
    partitions: Vec<i32>,
    offsets: Vec<i64>,
    timestamps: Vec<i64>,
    timestamp_types: Vec<i8>,
    has_timestamp: BooleanBufferBuilder,
    keys: Blobs,
    values: Blobs,
    header_ends: Vec<i32>,
    header_names: Blobs,
    header_values: Blobs,
}

/// The log partitions that a builder knows, over all its chunks.
#[derive(Default)]
struct Logs {
    list: Vec<LogPartition>,
    /// The topic of each, by its index in `topics`.
    topic_of: Vec<i16>,
    topics: Vec<Arc<str>>,
    by_log: HashMap<LogPartition, LogIndex>,
}

impl Logs {
    fn index(&mut self, log: &LogPartition) -> LogIndex {
        if let Some(index) = self.by_log.get(log) {
            return *index;
        }
        let topic = self.topics.iter().position(|topic| *topic == log.topic).unwrap_or_else(|| {
            self.topics.push(log.topic.clone());
            self.topics.len() - 1
        });
        let index = LogIndex(self.list.len() as u32);
        self.list.push(log.clone());
        self.topic_of.push(topic as i16);
        self.by_log.insert(log.clone(), index);
        index
    }
}

impl Default for ChunkBuilder {
    fn default() -> Self {
        Self {
            logs: Logs::default(),
            ranges: Vec::new(),
            has_ranges: false,
            topics: Vec::new(),
            partitions: Vec::new(),
            offsets: Vec::new(),
            timestamps: Vec::new(),
            timestamp_types: Vec::new(),
            has_timestamp: BooleanBufferBuilder::new(0),
            keys: Blobs::default(),
            values: Blobs::default(),
            header_ends: vec![0],
            header_names: Blobs::default(),
            header_values: Blobs::default(),
        }
    }
}

impl ChunkBuilder {
    /// The most topics that a builder can have.
    pub const TOPICS_MAX: usize = i16::MAX as usize;

    /// A builder for the records of one log partition.
    pub fn of(log: &LogPartition) -> (Self, LogIndex) {
        let mut builder = Self::default();
        let log = builder.log(log);
        (builder, log)
    }

    /// A log partition, for the calls that follow.
    pub fn log(&mut self, log: &LogPartition) -> LogIndex {
        let index = self.logs.index(log);
        self.ranges.resize(self.logs.list.len(), None);
        index
    }

    pub fn log_partition(&self, index: LogIndex) -> &LogPartition {
        &self.logs.list[index.0 as usize]
    }

    pub fn rows(&self) -> usize {
        self.partitions.len()
    }

    /// Whether it has neither records nor covered offsets.
    pub fn is_empty(&self) -> bool {
        !self.has_ranges
    }

    /// Covers the offsets `position..end` of a log partition, which have no records. `position` is the end of what earlier
    /// chunks have covered of it, if this one has nothing of it.
    pub fn pass(&mut self, log: LogIndex, position: i64, end: i64) {
        let range = self.range(log, position);
        range.end = range.end.max(end);
    }

    /// What the chunk covers of a log partition: nothing from `start` on, if it has nothing of it yet.
    fn range(&mut self, log: LogIndex, start: i64) -> &mut OffsetRange {
        self.has_ranges = true;
        self.ranges[log.0 as usize].get_or_insert(OffsetRange::new(start, start))
    }

    /// Bytes of keys, values and headers.
    pub fn bytes(&self) -> usize {
        self.keys.bytes.len() + self.values.bytes.len() + self.header_names.bytes.len() + self.header_values.bytes.len()
    }

    /// Appends a record. `position` is the end of what earlier chunks have covered of its log partition.
    pub fn push<'a, H>(&mut self, log: LogIndex, position: i64, record: Record<'a, H>)
    where
        H: Iterator<Item = (Cow<'a, str>, Option<&'a [u8]>)>,
    {
        self.topics.push(self.logs.topic_of[log.0 as usize]);
        self.partitions.push(self.logs.list[log.0 as usize].partition);
        self.offsets.push(record.offset);
        let (millis, kind) = record.timestamp.unwrap_or((0, TimestampType::CreateTime));
        self.has_timestamp.append(record.timestamp.is_some());
        self.timestamps.push(millis.saturating_mul(1000));
        self.timestamp_types.push(kind as i8);
        self.keys.push(record.key);
        self.values.push(record.value);
        for (name, value) in record.headers {
            self.header_names.push(Some(name.as_bytes()));
            self.header_values.push(value);
        }
        self.header_ends.push(self.header_names.len() as i32);
        self.range(log, position.min(record.offset)).end = record.offset + 1;
    }

    /// The chunk with all records so far; the builder is empty afterwards, and knows the same log partitions.
    pub fn finish(&mut self, ingested_at: i64) -> Chunk {
        let next = Self {
            logs: std::mem::take(&mut self.logs),
            ranges: vec![None; self.ranges.len()],
            // The next chunk is about as large: growing its buffers by doubling would copy them, and fragment the heap.
            keys: Blobs::like(&self.keys),
            values: Blobs::like(&self.values),
            ..Self::default()
        };
        let mut done = std::mem::replace(self, next);
        let rows = done.rows();
        let valid = NullBuffer::new(done.has_timestamp.finish());
        let valid = (valid.null_count() > 0).then_some(valid);
        let headers = StructArray::new(
            header_fields(),
            vec![done.header_names.into_strings(), Arc::new(done.header_values.into_binary())],
            None,
        );
        let DataType::List(header) = headers_type() else { unreachable!("headers are a list") };
        let cluster = self.logs.list.first().map_or("", |log| &*log.cluster);
        let columns: Vec<ArrayRef> = vec![
            constant(cluster, rows),
            topics(done.topics, &self.logs.topics),
            Arc::new(Int32Array::from(done.partitions)),
            Arc::new(Int64Array::from(done.offsets)),
            Arc::new(TimestampMicrosecondArray::new(done.timestamps.into(), valid.clone()).with_timezone("UTC")),
            Arc::new(DictionaryArray::new(
                Int8Array::new(done.timestamp_types.into(), valid),
                Arc::new(StringArray::from_iter_values(TIMESTAMP_TYPES)),
            )),
            Arc::new(done.keys.into_binary()),
            Arc::new(done.values.into_binary()),
            Arc::new(ListArray::new(header, offsets(done.header_ends), Arc::new(headers), None)),
            Arc::new(TimestampMicrosecondArray::from(vec![ingested_at; rows]).with_timezone("UTC")),
        ];
        let records = RecordBatch::try_new(schema(), columns).expect("the builder keeps its columns of one length");
        let covered = self.logs.list.iter().zip(done.ranges);
        Chunk { records, ranges: covered.filter_map(|(log, range)| Some((log.clone(), range?))).collect() }
    }
}

/// The column of topics, with those that the records have.
fn topics(mut of_records: Vec<i16>, topics: &[Arc<str>]) -> ArrayRef {
    let mut new_index = vec![None; topics.len()];
    let mut used: Vec<&str> = Vec::new();
    for topic in &mut of_records {
        let at = *topic as usize;
        *topic = *new_index[at].get_or_insert_with(|| {
            used.push(&topics[at]);
            (used.len() - 1) as i16
        });
    }
    Arc::new(DictionaryArray::new(Int16Array::from(of_records), Arc::new(StringArray::from_iter_values(used))))
}

fn constant(text: &str, rows: usize) -> ArrayRef {
    Arc::new(DictionaryArray::new(Int8Array::from(vec![0; rows]), Arc::new(StringArray::from_iter_values([text]))))
}

fn offsets(ends: Vec<i32>) -> OffsetBuffer<i32> {
    OffsetBuffer::new(ScalarBuffer::from(ends))
}

/// Byte strings in one buffer, some of them null.
struct Blobs {
    bytes: Vec<u8>,
    ends: Vec<i32>,
    valid: BooleanBufferBuilder,
    nulls: usize,
    pool: BufferPool,
}

impl Default for Blobs {
    fn default() -> Self {
        let valid = BooleanBufferBuilder::new(0);
        Self { bytes: Vec::new(), ends: vec![0], valid, nulls: 0, pool: BufferPool::default() }
    }
}

impl Blobs {
    fn len(&self) -> usize {
        self.ends.len() - 1
    }

    /// An empty one with the capacity to hold about as much as `other`.
    fn like(other: &Blobs) -> Self {
        let pool = other.pool.clone();
        let bytes = pool.take(other.bytes.len() + other.bytes.len() / 8);
        let mut ends = Vec::with_capacity(other.ends.len());
        ends.push(0);
        Self { bytes, ends, valid: BooleanBufferBuilder::new(0), nulls: 0, pool }
    }

    fn push(&mut self, blob: Option<&[u8]>) {
        self.bytes.extend_from_slice(blob.unwrap_or_default());
        self.ends.push(self.bytes.len() as i32);
        self.valid.append(blob.is_some());
        self.nulls += usize::from(blob.is_none());
    }

    fn into_binary(mut self) -> BinaryArray {
        let nulls = (self.nulls > 0).then(|| NullBuffer::new(self.valid.finish()));
        BinaryArray::new(offsets(self.ends), self.pool.share(self.bytes), nulls)
    }

    fn into_strings(self) -> ArrayRef {
        Arc::new(StringArray::new(offsets(self.ends), Buffer::from_vec(self.bytes), None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Headers = std::vec::IntoIter<(Cow<'static, str>, Option<&'static [u8]>)>;

    fn record(offset: i64, value: &'static str) -> Record<'static, Headers> {
        let headers = vec![(Cow::Borrowed("h"), Some(&b"x"[..])), (Cow::Borrowed("none"), None)];
        Record {
            offset,
            timestamp: (offset % 2 == 0).then_some((offset * 86_400_000, TimestampType::LogAppendTime)),
            key: None,
            value: (!value.is_empty()).then_some(value.as_bytes()),
            headers: headers.into_iter(),
        }
    }

    /// A builder that knows two partitions of a topic.
    fn builder() -> (ChunkBuilder, [LogIndex; 2]) {
        let mut builder = ChunkBuilder::default();
        let logs = [0, 1].map(|partition| builder.log(&LogPartition::new("c", "t", partition)));
        (builder, logs)
    }

    fn chunk() -> Chunk {
        let (mut builder, [zero, one]) = builder();
        builder.push(zero, 3, record(5, "five"));
        builder.push(zero, 6, record(6, "six"));
        builder.push(one, 0, record(0, ""));
        builder.finish(86_400_000_000)
    }

    #[test]
    fn a_chunk_covers_from_the_end_of_the_last_one() {
        let chunk = chunk();
        let ranges: Vec<_> = chunk.ranges.iter().map(|(log, range)| (log.partition, range.start, range.end)).collect();
        assert_eq!(ranges, [(0, 3, 7), (1, 0, 1)]);
        assert_eq!(chunk.values().iter().collect::<Vec<_>>(), [Some(&b"five"[..]), Some(b"six"), None]);
        assert_eq!(chunk.records.schema(), schema());
    }

    #[test]
    fn a_record_without_a_timestamp_has_the_day_of_its_ingestion() {
        assert_eq!(chunk().days(), BTreeMap::from([(0, vec![2]), (1, vec![0]), (6, vec![1])]));
    }

    #[test]
    fn many_days_are_reduced_to_the_largest_and_that_of_the_ingestion() {
        const DAY: i64 = 86_400_000;
        // Of day 1 four records, of day 2 three, of the days 10 to 19 one each.
        let days = [1, 1, 10, 2, 11, 12, 2, 13, 14, 1, 15, 16, 17, 18, 19, 2, 1];
        let (mut builder, [log, _]) = builder();
        for (offset, day) in days.into_iter().enumerate() {
            let offset = offset as i64;
            let timestamp = Some((day * DAY, TimestampType::CreateTime));
            builder.push(log, offset, Record { timestamp, ..record(offset, "x") });
        }
        let chunk = builder.finish(100 * DAY * 1000);
        assert_eq!(chunk.days().len(), 12);
        assert_eq!(chunk.days_at_most(12), chunk.days());
        let rows = |max: usize| {
            let days = chunk.days_at_most(max);
            assert!(days.len() <= max && days.values().all(|rows| rows.is_sorted()), "{days:?}");
            assert_eq!(days.values().map(Vec::len).sum::<usize>(), 17);
            days.into_iter().map(|(day, rows)| (day, rows.len())).collect::<Vec<_>>()
        };
        assert_eq!(rows(3), [(1, 4), (2, 3), (100, 10)]);
        // Of equally many records, those of the latest days stay.
        assert_eq!(rows(5), [(1, 4), (2, 3), (18, 1), (19, 1), (100, 8)]);
        assert_eq!(rows(2), [(1, 4), (100, 13)]);
        assert_eq!(rows(1), [(100, 17)]);
    }

    /// The day of the ingestion may be one of those that stay.
    #[test]
    fn the_day_of_the_ingestion_takes_the_records_of_other_days() {
        let (mut builder, [log, _]) = builder();
        for (offset, day) in [(0, 7), (1, 3), (2, 7), (3, 9)] {
            let timestamp = Some((day * 86_400_000, TimestampType::CreateTime));
            builder.push(log, offset, Record { timestamp, ..record(offset, "x") });
        }
        let chunk = builder.finish(7 * 86_400_000_000);
        assert_eq!(chunk.days_at_most(2), BTreeMap::from([(7, vec![0, 1, 2, 3])]));
        assert_eq!(chunk.days_at_most(3), chunk.days());
    }

    #[test]
    fn the_last_record_of_each_partition_has_its_timestamp() {
        let of = |partition| LogPartition::new("c", "t", partition);
        // Of partition 0 offset 6 is the last one, of day 6: its clock is ahead of the ingestion, at the end of day 0.
        assert_eq!(chunk().last_timestamps(), BTreeMap::from([(of(0), 86_400_000_000), (of(1), 0)]));
    }

    #[test]
    fn selecting_keeps_the_records_of_the_ranges() {
        let chunk = chunk();
        let ranges = Ranges::from_iter([(LogPartition::new("c", "t", 0), OffsetRange::new(6, 7))]);
        let part = chunk.select(&ranges);
        assert_eq!(part.offsets(), [6]);
        assert_eq!(part.ranges, ranges);
        assert_eq!(chunk.select(&chunk.ranges).records, chunk.records);
    }

    #[test]
    fn offsets_without_records_are_covered() {
        let (mut builder, [zero, one]) = builder();
        let two = builder.log(&LogPartition::new("c", "t", 2));
        assert!(builder.is_empty());
        builder.pass(zero, 0, 10);
        builder.pass(one, 0, 4);
        builder.push(zero, 10, record(12, "x"));
        assert!(!builder.is_empty());
        builder.pass(zero, 13, 15);
        builder.pass(two, 7, 9);
        let chunk = builder.finish(0);
        let ranges: Vec<_> = chunk.ranges.iter().map(|(log, range)| (log.partition, range.start, range.end)).collect();
        assert_eq!(ranges, [(0, 0, 15), (1, 0, 4), (2, 7, 9)]);
    }

    #[test]
    fn finish_empties_the_builder() {
        let (mut builder, [zero, _]) = builder();
        builder.push(zero, 0, record(0, "x"));
        assert_eq!((builder.rows(), builder.bytes()), (1, 1 + 1 + 5));
        let _ = builder.finish(0);
        assert_eq!((builder.rows(), builder.bytes()), (0, 0));
        assert!(builder.finish(0).ranges.is_empty());
    }

    #[test]
    fn a_chunk_has_the_topics_of_its_records() {
        let mut builder = ChunkBuilder::default();
        let logs = [("a", 0), ("b", 0), ("c", 3), ("b", 1)];
        let [a, b, c, b1] = logs.map(|(topic, partition)| builder.log(&LogPartition::new("c", topic, partition)));
        assert_eq!(builder.log(&LogPartition::new("c", "b", 0)), b);
        builder.push(a, 0, record(0, "first"));
        let first = builder.finish(0);
        assert_eq!(first.topics().iter().flatten().collect::<Vec<_>>(), ["a"]);
        for (log, offset) in [(c, 7), (b1, 0), (c, 8), (b, 1)] {
            builder.push(log, offset, record(offset, "x"));
        }
        builder.pass(a, 1, 4);
        let chunk = builder.finish(0);
        assert_eq!(chunk.topics().iter().flatten().collect::<Vec<_>>(), ["c", "b"]);
        let topics = |chunk: &Chunk| (0..chunk.records.num_rows()).map(|row| chunk.topic_of(row)).collect::<Vec<_>>();
        assert_eq!(topics(&chunk), [0, 1, 0, 1]);
        assert_eq!(chunk.ranges.len(), 4);
        // The same partition and offset of another topic are not selected.
        let ranges = Ranges::from_iter([(LogPartition::new("c", "c", 3), OffsetRange::new(8, 9))]);
        let part = chunk.select(&ranges);
        assert_eq!((part.offsets(), topics(&part)), (&[8][..], vec![0]));
    }

    #[test]
    fn days_are_clamped_to_the_calendar() {
        assert_eq!(day_of(-1), -1);
        assert_eq!(day_of(86_399_999_999), 0);
        assert_eq!(day_of(i64::MAX), 2_932_896);
        assert_eq!(day_of(i64::MIN), -719_162);
    }
}
