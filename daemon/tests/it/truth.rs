//! What the tables must hold, worked out apart from the daemon: Bronze is the topic, read by a plain consumer; Silver and
//! the quarantine are what the plugins' native functions make of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Date32Type, Decimal128Type, Int32Type, Int64Type, TimestampMicrosecondType};
use datafusion::prelude::SessionContext;
use deltalake_core::DeltaTableBuilder;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde_json::{Map, Value, json};
use silverd_plugin::{Config, Event, Transform};

use super::harness::{PARTITIONS, Project, root};

/// Partition and offset: where an event lies in the topic.
pub type Place = (i64, i64);

/// A record as Kafka has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Produced {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
}

/// Everything in the topic.
pub fn topic(project: &Project) -> BTreeMap<Place, Produced> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", project.broker.address())
        .set("group.id", "truth")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset(&project.topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&all).unwrap();
    let (mut records, mut ended) = (BTreeMap::new(), std::collections::BTreeSet::new());
    let deadline = Instant::now() + Duration::from_secs(60);
    while ended.len() < PARTITIONS as usize {
        assert!(Instant::now() < deadline, "the topic has no end");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let record =
                    Produced { key: message.key().map(<[u8]>::to_vec), value: message.payload().map(<[u8]>::to_vec) };
                records.insert((i64::from(message.partition()), message.offset()), record);
            }
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(partition))) => {
                ended.insert(partition);
            }
            Some(Err(failure)) => eprintln!("truth: {failure}"),
            None => {}
        }
    }
    records
}

/// The rows of a table, as delta-rs and DataFusion read them, one JSON object each.
pub fn rows(path: &Path) -> Vec<Map<String, Value>> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let batches: Vec<RecordBatch> = runtime.block_on(async {
        let url = url::Url::from_directory_path(path.canonicalize().unwrap()).unwrap();
        let mut table = DeltaTableBuilder::from_url(url).unwrap().build().unwrap();
        table.load().await.unwrap();
        let context = SessionContext::new();
        context.register_table("t", table.table_provider().await.unwrap()).unwrap();
        context.sql("select * from t").await.unwrap().collect().await.unwrap()
    });
    let row = |batch: &RecordBatch, row: usize| {
        let cell = |at: usize| (batch.schema().field(at).name().clone(), value(batch.column(at), row));
        (0..batch.num_columns()).map(cell).collect()
    };
    batches.iter().flat_map(|batch| (0..batch.num_rows()).map(|at| row(batch, at)).collect::<Vec<_>>()).collect()
}

/// A cell; times in microseconds, days as numbers, decimals in their smallest unit, bytes in hex.
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

/// What the plugins' native functions say of an event: the table, and its row or none where it is rejected.
pub struct Native {
    page_view: page_view::PageView,
    add_to_cart: add_to_cart::AddToCart,
    order_placed: order_placed::OrderPlaced,
}

impl Native {
    pub fn new() -> Self {
        let products = std::fs::read(root().join("data/reference/products.csv")).unwrap();
        let config = || Config::new().with_reference("products", &products);
        Self {
            page_view: page_view::PageView::configure(&Config::new()).unwrap(),
            add_to_cart: add_to_cart::AddToCart::configure(&config()).unwrap(),
            order_placed: order_placed::OrderPlaced::configure(&config()).unwrap(),
        }
    }

    pub fn verdict(&self, value: &[u8]) -> Option<(&'static str, Option<Value>)> {
        // As the router reads it, the event's type stands at the top; a cut-off event still has one.
        let text = String::from_utf8_lossy(value);
        let ty = text.split("\"event_type\": \"").nth(1).or_else(|| text.split("\"event_type\":\"").nth(1))?;
        let event = Event { value, ..Event::default() };
        Some(match ty.split('"').next()? {
            "page_view" => ("page_view", self.page_view.transform(&event).ok().flatten().map(|row| plain(&row))),
            "add_to_cart" => ("add_to_cart", self.add_to_cart.transform(&event).ok().flatten().map(|row| plain(&row))),
            "order_placed" => {
                ("order_placed", self.order_placed.transform(&event).ok().flatten().map(|row| plain(&row)))
            }
            _ => return None,
        })
    }
}

/// A row as JSON, with the enums' cases as WIT writes them.
fn plain(row: &impl serde::Serialize) -> Value {
    fn lower(value: Value) -> Value {
        match value {
            Value::Object(fields) => Value::Object(fields.into_iter().map(|(name, v)| (name, lower(v))).collect()),
            Value::Array(items) => items.into_iter().map(lower).collect(),
            other => other,
        }
    }
    let mut row = lower(serde_json::to_value(row).unwrap());
    for name in ["channel", "device"] {
        if let Some(case) = row.get_mut(name) {
            *case = json!(case.as_str().unwrap_or_default().to_lowercase());
        }
    }
    row
}

pub const SILVER: [&str; 3] = ["page_view", "add_to_cart", "order_placed"];

/// Holds every table against the topic: each record once in Bronze, as it came; each verdict once in its table.
#[track_caller]
pub fn check(project: &Project) -> BTreeMap<String, usize> {
    let topic = topic(project);
    let bronze = rows(&project.path("bronze"));
    let mut counts = BTreeMap::from([("bronze".to_owned(), bronze.len())]);
    let stored: BTreeMap<Place, Produced> = bronze.iter().map(|row| (place(row, ""), produced(row))).collect();
    assert_eq!(bronze.len(), stored.len(), "bronze has an offset twice");
    assert_eq!(stored.len(), topic.len(), "bronze has as many records as the topic");
    assert!(stored == topic, "bronze holds every byte of the topic");

    let (native, mut expected, mut rejected) = (Native::new(), BTreeMap::new(), BTreeMap::new());
    for (place, record) in &topic {
        match record.value.as_deref().and_then(|value| native.verdict(value)) {
            Some((table, Some(row))) => drop(expected.insert((table, *place), row)),
            Some((table, None)) => drop(rejected.insert(*place, table)),
            None => {}
        }
    }
    for table in SILVER {
        let found = rows(&project.path(table));
        counts.insert(table.to_owned(), found.len());
        let total = expected.keys().filter(|(of, _)| *of == table).count();
        match project.asked.dedup_within_s {
            None => assert_eq!(found.len(), total, "rows of {table}"),
            Some(within) => duplicates_are_out(table, &found, &expected, within * 1_000_000),
        }
        for row in found {
            let place = place(&row, "_");
            let expected = expected.remove(&(table, place)).unwrap_or_else(|| panic!("{table} has {place:?} twice"));
            for (name, value) in expected.as_object().unwrap() {
                assert_eq!(row.get(name), Some(value), "{table} {place:?} column {name}");
            }
            let day = row["ts"].as_i64().unwrap().div_euclid(86_400_000_000);
            assert_eq!(row["event_date"], json!(day), "{table} {place:?}");
        }
    }
    if let Some(late_after) = project.asked.late_after_s {
        counts.insert("late".to_owned(), late_events_are_listed(project, late_after * 1_000_000));
    }
    let quarantine = rows(&project.path("quarantine"));
    counts.insert("quarantine".to_owned(), quarantine.len());
    assert_eq!(quarantine.len(), rejected.len(), "rejects in the quarantine");
    for row in &quarantine {
        let table = rejected.remove(&place(row, ""));
        assert_eq!(table, row["table"].as_str(), "{row:?}");
        assert_eq!(Some(&produced(row)), topic.get(&place(row, "")), "the quarantine keeps the bytes");
    }
    counts
}

/// No two rows say the same within the window, and every event that has none is near one that says the same.
#[track_caller]
fn duplicates_are_out(
    table: &str,
    found: &[Map<String, Value>],
    expected: &BTreeMap<(&str, Place), Value>,
    within: i64,
) {
    let mut times = BTreeMap::<String, Vec<i64>>::new();
    for row in found {
        times.entry(row["event_id"].to_string()).or_default().push(row["ts"].as_i64().unwrap());
    }
    for (id, times) in &mut times {
        times.sort_unstable();
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] > within), "{table} has a duplicate of {id}: {times:?}");
    }
    for ((_, place), row) in expected.iter().filter(|((of, _), _)| *of == table) {
        let (id, ts) = (row["event_id"].to_string(), row["ts"].as_i64().unwrap());
        let near = times.get(&id).is_some_and(|times| times.iter().any(|time| (time - ts).abs() <= within));
        assert!(near, "{table} lost {place:?}, event {id}");
    }
}

/// The late table has the late rows' events, and no others.
#[track_caller]
fn late_events_are_listed(project: &Project, late_after: i64) -> usize {
    let mut expected = BTreeMap::new();
    for table in SILVER {
        for row in rows(&project.path(table)) {
            let lateness = row["ingested_at"].as_i64().unwrap() - row["ts"].as_i64().unwrap();
            if lateness > late_after {
                expected.insert((table.to_owned(), place(&row, "_")), (row["event_id"].clone(), lateness / 1000));
            }
        }
    }
    let listed = rows(&project.path("late"));
    let found: BTreeMap<_, _> = listed
        .iter()
        .map(|row| {
            let key = (row["table"].as_str().unwrap().to_owned(), place(row, ""));
            (key, (row["event_id"].clone(), row["lateness_ms"].as_i64().unwrap()))
        })
        .collect();
    assert_eq!(listed.len(), found.len(), "a late event is listed twice");
    assert_eq!(found, expected, "the late events");
    found.len()
}

pub fn place(row: &Map<String, Value>, prefix: &str) -> Place {
    let number = |name: &str| row[&format!("{prefix}{name}")].as_i64().unwrap();
    (number("partition"), number("offset"))
}

pub fn produced(row: &Map<String, Value>) -> Produced {
    let bytes = |name: &str| {
        row[name]
            .as_str()
            .map(|hex| (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect())
    };
    Produced { key: bytes("key"), value: bytes("value") }
}
