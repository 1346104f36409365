//! Reading the topic and the tables, with a plain consumer, delta-rs and the Parquet reader.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, FieldRef, Int32Type, Int64Type, TimestampMicrosecondType,
};
use chrono::NaiveDate;
use deltalake_core::{DeltaTableBuilder, DeltaTableError};
use futures::TryStreamExt;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde_json::{Map, Value, json};

use super::wait::poll;
use super::{PARTITIONS, Project, block_on};

/// The Silver tables of the shop.
pub const SILVER: [&str; 3] = ["page_view", "add_to_cart", "order_placed"];

/// Partition and offset of an event.
pub type LogPosition = (i64, i64);

/// A row as JSON: timestamps in microseconds, dates in days, decimals in their smallest unit, bytes in hexadecimal.
pub type Row = Map<String, Value>;

/// The key and value of a record in Kafka.
#[derive(Debug, Clone, PartialEq)]
pub struct KafkaRecord {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
}

/// All records of the project's topic.
pub fn topic(project: &Project) -> BTreeMap<LogPosition, KafkaRecord> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", project.broker.address())
        .set("group.id", "silverd-tests")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset(&project.topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&all).unwrap();
    let (mut records, mut read_to_end) = (BTreeMap::new(), BTreeSet::new());
    let deadline = Instant::now() + Duration::from_secs(60);
    while read_to_end.len() < PARTITIONS as usize {
        assert!(Instant::now() < deadline, "not within 60 s: the end of every partition");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let (key, value) = (message.key().map(<[u8]>::to_vec), message.payload().map(<[u8]>::to_vec));
                records.insert((i64::from(message.partition()), message.offset()), KafkaRecord { key, value });
            }
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(partition))) => {
                read_to_end.insert(partition);
            }
            Some(Err(failure)) => eprintln!("read the topic: {failure}"),
            None => {}
        }
    }
    records
}

/// How long a table may fail to load: while a daemon writes, a listing of the log's folder can miss an entry, or come before
/// the first one.
const LOAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The rows of a table: of the files that delta-rs lists, as the Parquet reader reads them.
#[track_caller]
pub fn rows(path: &Path) -> Vec<Row> {
    let load = || {
        block_on(async {
            let url = url::Url::from_directory_path(path.canonicalize().unwrap()).unwrap();
            let mut table = DeltaTableBuilder::from_url(url)?.build()?;
            table.load().await?;
            let (log, snapshot) = (table.log_store(), table.snapshot()?.snapshot());
            let files: Vec<_> = snapshot.file_views(log.as_ref(), None).try_collect().await?;
            Ok::<_, DeltaTableError>((snapshot.arrow_schema(), files))
        })
    };
    let mut last_failure = None;
    let loaded = poll(LOAD_TIMEOUT, || load().map_err(|failure| last_failure = Some(failure)).ok());
    let (columns, files) = loaded.unwrap_or_else(|| {
        let (seconds, path) = (LOAD_TIMEOUT.as_secs(), path.display());
        panic!(
            "{path} does not load within {seconds} s: {}",
            last_failure.map_or_else(String::new, |it| it.to_string())
        )
    });
    let mut rows = Vec::new();
    for file in files {
        let day = file.partition_values_map().remove("event_date").flatten();
        let day =
            day.map(|day| day.parse::<NaiveDate>().unwrap().signed_duration_since(NaiveDate::default()).num_days());
        let file = std::fs::File::open(path.join(file.path().as_ref())).unwrap();
        for batch in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
            let batch = batch.unwrap();
            let cell = |name: &str, row: usize| match batch.column_by_name(name) {
                Some(column) => value(column, row),
                None if name == "event_date" => json!(day),
                None => Value::Null,
            };
            let row = |row: usize| {
                let value = |field: &FieldRef| complete(cell(field.name(), row), field.data_type());
                columns.fields().iter().map(|field| (field.name().clone(), value(field))).collect()
            };
            rows.extend((0..batch.num_rows()).map(row));
        }
    }
    rows
}

/// A value with the fields that its file lacks, as nulls.
fn complete(value: Value, ty: &DataType) -> Value {
    match (value, ty) {
        (Value::Object(mut fields), DataType::Struct(types)) => {
            let field = |ty: &FieldRef| {
                let value = fields.remove(ty.name()).unwrap_or_default();
                (ty.name().clone(), complete(value, ty.data_type()))
            };
            Value::Object(types.iter().map(field).collect())
        }
        (Value::Array(items), DataType::List(item)) => {
            items.into_iter().map(|value| complete(value, item.data_type())).collect()
        }
        (value, _) => value,
    }
}

/// Where a row's event is in the log. Silver's columns have the prefix `_`.
pub fn position(row: &Row, prefix: &str) -> LogPosition {
    let number = |name: &str| row[&format!("{prefix}{name}")].as_i64().unwrap();
    (number("partition"), number("offset"))
}

/// The record that a row of Bronze or of the quarantine holds.
pub fn record(row: &Row) -> KafkaRecord {
    let byte = |hex: &str, at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    let bytes = |hex: &str| (0..hex.len()).step_by(2).map(|at| byte(hex, at)).collect();
    KafkaRecord { key: row["key"].as_str().map(bytes), value: row["value"].as_str().map(bytes) }
}

fn value(array: &dyn Array, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    let hex = |bytes: &[u8]| json!(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    match array.data_type() {
        DataType::Utf8 => json!(array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => json!(array.as_string::<i64>().value(row)),
        DataType::Utf8View => json!(array.as_string_view().value(row)),
        DataType::Binary => hex(array.as_binary::<i32>().value(row)),
        DataType::LargeBinary => hex(array.as_binary::<i64>().value(row)),
        DataType::BinaryView => hex(array.as_binary_view().value(row)),
        DataType::Int32 => json!(array.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => json!(array.as_primitive::<Int64Type>().value(row)),
        DataType::Date32 => json!(array.as_primitive::<Date32Type>().value(row)),
        DataType::Timestamp(..) => json!(array.as_primitive::<TimestampMicrosecondType>().value(row)),
        DataType::Decimal128(..) => json!(array.as_primitive::<Decimal128Type>().value(row) as i64),
        DataType::Dictionary(..) => {
            let plain = arrow::compute::cast(&array.slice(row, 1), &DataType::Utf8).unwrap();
            value(&plain, 0)
        }
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            (0..items.len()).map(|at| value(&items, at)).collect()
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            Value::Object(
                fields.iter().zip(columns).map(|(f, column)| (f.name().clone(), value(column, row))).collect(),
            )
        }
        other => panic!("a test table has no {other}"),
    }
}

/// The number of data files in a table's folder, whether its log has them or not.
pub fn data_files(table: &Path) -> usize {
    let days = std::fs::read_dir(table).unwrap().map(|day| day.unwrap().path());
    let days = days.filter(|path| path.is_dir() && !path.ends_with("_delta_log"));
    days.map(|day| std::fs::read_dir(day).unwrap().count()).sum()
}

#[cfg(test)]
mod tests {
    use super::super::{copy_folder, fixture};
    use super::*;

    /// As if a listing of the log's folder had missed an entry, or come before the first one.
    #[test]
    fn a_log_that_lacks_an_entry_for_a_moment_is_read_again() {
        let quarantine = Path::new(&fixture("made_before")).join("data/quarantine");
        let expected = rows(&quarantine).len();
        assert!(expected > 0);
        for missing in [0, 1] {
            let copy = tempfile::tempdir().unwrap();
            copy_folder(&quarantine, copy.path());
            let entry = copy.path().join(format!("_delta_log/{missing:020}.json"));
            let hidden = copy.path().join("hidden");
            std::fs::rename(&entry, &hidden).unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    std::thread::sleep(Duration::from_millis(200));
                    std::fs::rename(&hidden, &entry).unwrap();
                });
                assert_eq!(rows(copy.path()).len(), expected, "without entry {missing}");
            });
        }
    }
}
