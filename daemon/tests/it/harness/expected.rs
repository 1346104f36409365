//! What the shop's tables must contain, computed without the daemon: Bronze is the topic, and Silver and the quarantine
//! are what the plugins' native functions return for it.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use silverd_plugin::{Config, Money, Transform};

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
        let event = serde_json::from_slice::<Value>(value).ok();
        Some(match rest.split('"').next()? {
            "page_view" => ("page_view", event.and_then(|event| self.page_view(&event))),
            "add_to_cart" => ("add_to_cart", event.and_then(|event| self.add_to_cart(&event))),
            "order_placed" => ("order_placed", event.and_then(|event| self.order_placed(&event))),
            _ => return None,
        })
    }

    fn page_view(&self, event: &Value) -> Option<Value> {
        let optional = |name: &str| event[name].as_str().map(str::to_owned);
        let input = page_view::Input {
            event_id: text(&event["event_id"])?,
            user_id: text(&event["user_id"])?,
            ts: time(&event["ts"])?,
            url: optional("url"),
            referrer: optional("referrer"),
            ua: optional("ua"),
            session_hint: optional("session_hint"),
        };
        let row = self.page_view.transform(input).ok()??;
        Some(json!({
            "event_id": row.event_id, "user_id": row.user_id, "ts": row.ts, "url": row.url, "referrer": row.referrer,
            "channel": case(&row.channel), "browser": row.browser, "os": row.os,
            "device": case(&row.device), "session_hint": row.session_hint,
        }))
    }

    fn add_to_cart(&self, event: &Value) -> Option<Value> {
        let (event_id, user_id) = (text(&event["event_id"])?, text(&event["user_id"])?);
        let (ts, (sku, qty, price)) = (time(&event["ts"])?, item(event)?);
        let input = add_to_cart::Input { event_id, user_id, ts, sku, qty, price };
        let row = self.add_to_cart.transform(input).ok()??;
        Some(json!({
            "event_id": row.event_id, "user_id": row.user_id, "ts": row.ts, "sku": row.sku, "category": row.category,
            "qty": row.qty, "price": row.price, "line_total": row.line_total,
        }))
    }

    fn order_placed(&self, event: &Value) -> Option<Value> {
        let items = event["line_items"].as_array()?.iter().map(|event| {
            let (sku, qty, price) = item(event)?;
            Some(order_placed::InputItem { sku, qty, price })
        });
        let input = order_placed::Input {
            event_id: text(&event["event_id"])?,
            order_id: text(&event["order_id"])?,
            user_id: text(&event["user_id"])?,
            ts: time(&event["ts"])?,
            total: cents(&event["total"])?,
            line_items: items.collect::<Option<_>>()?,
        };
        let row = self.order_placed.transform(input).ok()??;
        let items = row.line_items.iter().map(|item| {
            json!({
                "sku": item.sku, "category": item.category, "qty": item.qty, "price": item.price,
                "line_total": item.line_total,
            })
        });
        Some(json!({
            "event_id": row.event_id, "order_id": row.order_id, "user_id": row.user_id, "ts": row.ts,
            "total": row.total, "item_count": row.item_count, "line_items": items.collect::<Vec<_>>(),
        }))
    }
}

/// The case of an enum, as WIT spells it.
fn case(case: &impl std::fmt::Debug) -> String {
    let name = format!("{case:?}");
    name.rsplit("::").next().unwrap_or(&name).to_lowercase()
}

/// What silverd reads for an input's fields, for the events that these tests send.
fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.trim().is_empty()).map(str::to_owned)
}

fn time(value: &Value) -> Option<i64> {
    silverd_plugin::timestamp::parse_iso_8601(value.as_str()?.trim())
}

fn cents(value: &Value) -> Option<i64> {
    serde_json::from_value::<Money>(value.clone()).ok().map(Money::cents)
}

fn item(event: &Value) -> Option<(String, u32, i64)> {
    let qty = u32::try_from(event["qty"].as_u64()?).ok()?;
    Some((text(&event["sku"])?, qty, cents(&event["price"])?))
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
