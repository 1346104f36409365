//! What the shop's tables must contain, computed without the daemon: Bronze is the topic, and Silver and the quarantine
//! are what the plugins' native functions return for it.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use silverd_plugin::{Config, Event, Transform};

use super::tables::{KafkaRecord, LogPosition, Row, SILVER, position, record, rows, topic};
use super::{Project, root};

/// The plugins as native functions.
struct Plugins {
    page_view: page_view::PageView,
    add_to_cart: add_to_cart::AddToCart,
    order_placed: order_placed::OrderPlaced,
}

impl Plugins {
    fn new() -> Self {
        let products = std::fs::read(root().join("data/reference/products.csv")).unwrap();
        let config = || Config::new().with_reference("products", &products);
        Self {
            page_view: page_view::PageView::configure(&Config::new()).unwrap(),
            add_to_cart: add_to_cart::AddToCart::configure(&config()).unwrap(),
            order_placed: order_placed::OrderPlaced::configure(&config()).unwrap(),
        }
    }

    /// The table of an event, and its row, or `None` if it is rejected.
    fn transform(&self, value: &[u8]) -> Option<(&'static str, Option<Value>)> {
        // The router finds the type of an event that is cut off behind it, too.
        let text = String::from_utf8_lossy(value);
        let rest = text.split("\"event_type\": \"").nth(1).or_else(|| text.split("\"event_type\":\"").nth(1))?;
        let event = Event { value, ..Event::default() };
        Some(match rest.split('"').next()? {
            "page_view" => ("page_view", self.page_view.transform(&event).ok().flatten().map(|row| json_row(&row))),
            "add_to_cart" => {
                ("add_to_cart", self.add_to_cart.transform(&event).ok().flatten().map(|row| json_row(&row)))
            }
            "order_placed" => {
                ("order_placed", self.order_placed.transform(&event).ok().flatten().map(|row| json_row(&row)))
            }
            _ => return None,
        })
    }
}

/// A row as JSON, with the cases of enums spelled as in WIT.
fn json_row(row: &impl serde::Serialize) -> Value {
    let mut row = serde_json::to_value(row).unwrap();
    for name in ["channel", "device"] {
        if let Some(case) = row.get_mut(name) {
            *case = json!(case.as_str().unwrap_or_default().to_lowercase());
        }
    }
    row
}

/// Compares every table with the topic: each record is once in Bronze, unchanged, and each row and each rejected event
/// once in its table. Returns the number of rows of each table.
#[track_caller]
pub fn check(project: &Project) -> BTreeMap<String, usize> {
    let topic = topic(project);
    let bronze = rows(&project.path("bronze"));
    check_bronze(&bronze, &topic);
    let (mut silver, mut rejected) = (BTreeMap::new(), BTreeMap::new());
    let plugins = Plugins::new();
    for (position, record) in &topic {
        match record.value.as_deref().and_then(|value| plugins.transform(value)) {
            Some((table, Some(row))) => drop(silver.insert((table, *position), row)),
            Some((table, None)) => drop(rejected.insert(*position, table)),
            None => {}
        }
    }
    let mut counts = BTreeMap::from([("bronze".to_owned(), bronze.len())]);
    for table in SILVER {
        counts.insert(table.to_owned(), check_silver(project, table, &mut silver));
    }
    if let Some(late_after) = project.options.late_after_s {
        counts.insert("late".to_owned(), check_late(project, late_after * 1_000_000));
    }
    counts.insert("quarantine".to_owned(), check_quarantine(project, rejected, &topic));
    counts
}

/// Every record of the topic is once in Bronze, with all its bytes.
#[track_caller]
pub fn check_bronze(bronze: &[Row], topic: &BTreeMap<LogPosition, KafkaRecord>) {
    let stored: BTreeMap<LogPosition, KafkaRecord> =
        bronze.iter().map(|row| (position(row, ""), record(row))).collect();
    assert_eq!(bronze.len(), stored.len(), "Bronze has an offset twice");
    assert_eq!(stored.len(), topic.len(), "Bronze has as many records as the topic");
    assert!(stored == *topic, "Bronze has the bytes of the topic");
}

#[track_caller]
fn check_silver(
    project: &Project,
    table: &'static str,
    expected: &mut BTreeMap<(&'static str, LogPosition), Value>,
) -> usize {
    let found = rows(&project.path(table));
    let total = expected.keys().filter(|(of, _)| *of == table).count();
    match project.options.dedup_within_s {
        None => assert_eq!(found.len(), total, "rows of {table}"),
        Some(within) => check_duplicates(table, &found, expected, within * 1_000_000),
    }
    for row in &found {
        let at = position(row, "_");
        let row_expected = expected.remove(&(table, at));
        let row_expected =
            row_expected.unwrap_or_else(|| panic!("{table} has {at:?}, which is a second row or not its own"));
        for (name, value) in row_expected.as_object().unwrap() {
            assert_eq!(row.get(name), Some(value), "{table} {at:?} column {name}");
        }
        let day = row["ts"].as_i64().unwrap().div_euclid(86_400_000_000);
        assert_eq!(row["event_date"], json!(day), "{table} {at:?}");
    }
    found.len()
}

/// No two rows of an event are within the window, and every event without a row is within the window of a row.
#[track_caller]
fn check_duplicates(table: &str, found: &[Row], expected: &BTreeMap<(&str, LogPosition), Value>, within: i64) {
    let mut times = BTreeMap::<String, Vec<i64>>::new();
    for row in found {
        times.entry(row["event_id"].to_string()).or_default().push(row["ts"].as_i64().unwrap());
    }
    for (id, times) in &mut times {
        times.sort_unstable();
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] > within), "{table} has a duplicate of {id}: {times:?}");
    }
    for ((_, position), row) in expected.iter().filter(|((of, _), _)| *of == table) {
        let (id, ts) = (row["event_id"].to_string(), row["ts"].as_i64().unwrap());
        let near = times.get(&id).is_some_and(|times| times.iter().any(|time| (time - ts).abs() <= within));
        assert!(near, "{table} lost {position:?}, event {id}");
    }
}

/// The late table has the events of the late rows, and no others.
#[track_caller]
fn check_late(project: &Project, late_after: i64) -> usize {
    let mut expected = BTreeMap::new();
    for table in SILVER {
        for row in rows(&project.path(table)) {
            let lateness = row["ingested_at"].as_i64().unwrap() - row["ts"].as_i64().unwrap();
            if lateness > late_after {
                expected.insert((table.to_owned(), position(&row, "_")), (row["event_id"].clone(), lateness / 1000));
            }
        }
    }
    let late = rows(&project.path("late"));
    let found: BTreeMap<_, _> = late
        .iter()
        .map(|row| {
            let key = (row["table"].as_str().unwrap().to_owned(), position(row, ""));
            (key, (row["event_id"].clone(), row["lateness_ms"].as_i64().unwrap()))
        })
        .collect();
    assert_eq!(late.len(), found.len(), "the late table has an event twice");
    assert_eq!(found, expected, "the late events");
    found.len()
}

/// The quarantine has the rejected events, with all their bytes, and no others except those that no table takes.
#[track_caller]
fn check_quarantine(
    project: &Project,
    mut rejected: BTreeMap<LogPosition, &str>,
    topic: &BTreeMap<LogPosition, KafkaRecord>,
) -> usize {
    let mut quarantine = rows(&project.path("quarantine"));
    quarantine.retain(|row| row["table"] != "unrouted");
    assert_eq!(quarantine.len(), rejected.len(), "rejects in the quarantine");
    for row in &quarantine {
        let table = rejected.remove(&position(row, ""));
        assert_eq!(table, row["table"].as_str(), "{row:?}");
        assert_eq!(Some(&record(row)), topic.get(&position(row, "")), "the quarantine has the bytes of the event");
    }
    quarantine.len()
}
