//! Events as other systems send them, from `fixtures/odd-events.tsv`: what becomes of each, and of the good events before
//! and after it.

use std::collections::BTreeMap;
use std::process::Output;
use std::time::Duration;

use rdkafka::producer::{BaseRecord, Producer};
use serde_json::Value;

use super::harness::tables::position;
use super::harness::{PARTITIONS, Project, SILVER, fixture, rows};

/// The partition of all events.
const PARTITION: i32 = 0;

/// Unrouted events in the quarantine, and a Gold table whose days depend on the days before them.
const SECTIONS: &str = r#"
[quarantine]
unrouted = "quarantine"

[gold.daily_views]
sql = "SELECT event_date, count(*) AS views FROM page_view GROUP BY event_date"
lookback_days = 1
"#;

struct OddEvent {
    name: String,
    /// `row page_view`, `reject malformed`, `unrouted not-json`.
    expected: String,
    value: Vec<u8>,
}

#[test]
fn odd_events_change_nothing_for_their_neighbours() {
    let project = Project::new("odd-events", "interval = \"50ms\"");
    project.append_to_pipeline(SECTIONS);
    project.broker.create_topic(&project.topic, PARTITIONS);
    let events = odd_events();
    send_between_good_events(&project, &events);
    inert("run", &project.output(&["run", "--drain"]));

    let outcomes = outcomes(&project);
    let outcome = |offset: usize| outcomes.get(&(offset as i64)).map_or("nothing", String::as_str);
    let found: Vec<_> =
        events.iter().enumerate().map(|(at, event)| format!("{}: {}", event.name, outcome(3 * at + 1))).collect();
    let expected: Vec<_> = events.iter().map(|event| format!("{}: {}", event.name, event.expected)).collect();
    assert_eq!(found, expected);
    for (at, event) in events.iter().enumerate() {
        assert_eq!(outcome(3 * at), "row page_view", "the event before {}", event.name);
        assert_eq!(outcome(3 * at + 2), "row page_view", "the event after {}", event.name);
    }
    assert_eq!(outcomes.len(), 3 * events.len());

    let day = "CAST(event_date AS VARCHAR) AS day";
    let gold = project.query(&format!("SELECT {day}, views FROM gold.daily_views ORDER BY day"));
    let counted = format!("SELECT {day}, count(*) AS views FROM page_view GROUP BY event_date ORDER BY day");
    assert_eq!(gold, project.query(&counted));
    let (first, last) = (&gold.first().unwrap()["day"], &gold.last().unwrap()["day"]);
    assert_eq!((first.as_str(), last.as_str()), (Some("0001-01-01"), Some("9999-12-31")));
    project.silverd(&["verify", "--deep"]);
    printed_events_are_inert(&project);
}

/// No command prints what a terminal would obey.
fn printed_events_are_inert(project: &Project) {
    let query = |sql: &str| inert(sql, &project.output(&["query", sql]));
    let row = query("SELECT user_id FROM page_view WHERE event_id = 'o17'");
    assert!(row.contains("| \\u{1b}[2J\\u{1b}]0;x\\u{7} |"), "{row}");
    let value = query("SELECT CAST(value AS VARCHAR) AS value FROM quarantine WHERE code = 'other-value'");
    assert!(value.contains("\\u{7f}\\u{9b}2J\\u{202e}\\u001b[2J"), "{value}");
    let lines = query("SELECT 'two' || chr(10) || 'lines' AS text");
    assert!(lines.contains("| two\\nlines |"), "{lines}");
    let plan = query("EXPLAIN SELECT user_id FROM page_view");
    assert!(!plan.contains("\\n"), "a plan keeps its lines: {plan}");
    query("SELECT * FROM quarantine");
    let error = project.output(&["query", "SELECT CAST(user_id AS BIGINT) FROM page_view WHERE event_id = 'o17'"]);
    assert!(!error.status.success());
    no_raw_character("the error of a query", &error.stderr);

    inert("quarantine list", &project.output(&["quarantine", "list", "--limit", "100"]));
    inert("plugin try", &project.output(&["plugin", "try", "add_to_cart", "--last", "100"]));
    let listed = project.silverd(&["quarantine", "list", "--json", "--limit", "100"]);
    let listed: Vec<Value> = serde_json::from_str(&listed).unwrap();
    assert!(listed.len() >= 10, "{listed:?}");
    for event in listed {
        let id = event["id"].as_str().unwrap();
        let shown = inert(id, &project.output(&["quarantine", "show", id]));
        let has_escape = event["code"] == "other-value";
        assert!(!has_escape || shown.contains("\"note\": \"\\u{7f}\\u{9b}2J\\u{202e}\\u001b[2J\""), "{shown}");
    }
}

fn odd_events() -> Vec<OddEvent> {
    let text = std::fs::read_to_string(fixture("odd-events.tsv")).unwrap();
    let event = |line: &str| {
        let columns: Vec<&str> = line.split('\t').collect();
        let [name, expected, value] = columns[..] else { panic!("expected three columns: {line}") };
        OddEvent { name: name.to_owned(), expected: expected.to_owned(), value: bytes(value) }
    };
    text.lines().filter(|line| !line.starts_with('#')).map(event).collect()
}

/// The bytes of a text in which `\xNN` is a byte.
fn bytes(text: &str) -> Vec<u8> {
    let mut parts = text.split("\\x");
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (byte, rest) = part.split_at(2);
        bytes.push(u8::from_str_radix(byte, 16).unwrap());
        bytes.extend_from_slice(rest.as_bytes());
    }
    bytes
}

/// Sends three events for each: the second one is the odd one.
fn send_between_good_events(project: &Project, events: &[OddEvent]) {
    let producer = project.producer();
    let send = |value: &[u8]| {
        let record = BaseRecord::<(), [u8]>::to(&project.topic).partition(PARTITION).payload(value);
        producer.send(record).map_err(|(failure, _)| failure).unwrap();
    };
    let good = |id: String| {
        format!(
            "{{\"event_type\": \"page_view\", \"event_id\": \"{id}\", \"user_id\": \"good\", \
             \"ts\": \"2026-01-02T03:04:05Z\", \"url\": \"/\"}}"
        )
    };
    for (at, event) in events.iter().enumerate() {
        send(good(format!("before-{at}")).as_bytes());
        send(&event.value);
        send(good(format!("after-{at}")).as_bytes());
    }
    producer.flush(Duration::from_secs(30)).unwrap();
}

/// What became of the event at each offset.
fn outcomes(project: &Project) -> BTreeMap<i64, String> {
    let mut outcomes = BTreeMap::<i64, Vec<String>>::new();
    for table in SILVER.into_iter().filter(|table| project.has_table(table)) {
        for row in rows(&project.path(table)) {
            outcomes.entry(position(&row, "_").1).or_default().push(format!("row {table}"));
        }
    }
    for row in rows(&project.path("quarantine")) {
        let (table, code) = (row["table"].as_str().unwrap(), row["code"].as_str().unwrap());
        let kind = if table == "unrouted" { "unrouted" } else { "reject" };
        outcomes.entry(position(&row, "").1).or_default().push(format!("{kind} {code}"));
    }
    outcomes.into_iter().map(|(offset, all)| (offset, all.join(", "))).collect()
}

/// What a command printed to standard output. It must have succeeded.
#[track_caller]
fn inert(what: &str, output: &Output) -> String {
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    no_raw_character(what, &output.stderr);
    no_raw_character(what, &output.stdout)
}

/// Only line breaks, and nothing else that a terminal obeys or that changes the direction of the text.
#[track_caller]
fn no_raw_character(what: &str, printed: &[u8]) -> String {
    let text = String::from_utf8(printed.to_vec()).unwrap();
    let is_raw = |character: char| match character {
        '\n' => false,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        _ => character.is_control(),
    };
    assert!(!text.contains(is_raw), "{what} prints a raw character: {text:?}");
    text
}
