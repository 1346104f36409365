//! The main job from end to end, by the real binary: a topic into Bronze, Silver and the quarantine, read back by two
//! implementations of Delta.

use std::process::Command;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;

use super::guest::{self, ALLOCATOR, REALLOC};
use super::harness::{Asked, Project, root};
use super::truth::{self, SILVER};

/// Events that no generator makes: broken, cut off, of no table, empty, with headers and odd bytes.
pub fn send_odd_ones(project: &Project) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", project.broker.address()).create().unwrap();
    let odd: [Option<&[u8]>; 9] = [
        Some(b"not json at all"),
        Some(br#"{"event_type": "page_view", "event_id": "cut o"#),
        Some(br#"{"event_type": "add_to_cart", "event_id": "a", "user_id": "u", "ts": "never", "sku": "x"}"#),
        Some(br#"{"event_type": "order_placed", "event_id": "a"}"#),
        Some(br#"{"event_type": "of no table", "x": 1}"#),
        Some(b""),
        None,
        Some(&[0xff, 0xfe, 0x00, 0x80]),
        Some("{\"event_type\": \"page_view\", \"event_id\": \"é😀\", \"user_id\": \"ü\", \"ts\": \"2025-01-01T00:00:00Z\", \"url\": \"/\"}".as_bytes()),
    ];
    for (at, value) in odd.into_iter().enumerate() {
        let headers = OwnedHeaders::new()
            .insert(Header { key: "trace", value: Some(b"\x00\xff") })
            .insert(Header { key: "none", value: None::<&[u8]> });
        let key = format!("odd-{at}");
        let mut record = BaseRecord::to(&project.topic).key(&key).headers(headers);
        if let Some(value) = value {
            record = record.payload(value);
        }
        producer.send(record).map_err(|(failure, _)| failure).unwrap();
    }
    producer.flush(Duration::from_secs(30)).unwrap();
}

#[test]
fn a_topic_becomes_tables_and_a_second_run_adds_nothing() {
    let project = Project::new("pipeline", "interval_ms = 200\nrows_max = 3000");
    project.generate(&["--count", "20000", "--seed", "7"]);
    let sample = root().join("../shared/data/sample-events.jsonl");
    if sample.is_file() {
        project.generate(&["--file", sample.to_str().unwrap()]);
    }
    send_odd_ones(&project);

    project.silverd(&["run", "--drain"]);
    let counts = truth::check(&project);
    assert_eq!(counts["bronze"], 20_009 + if sample.is_file() { 10_000 } else { 0 });
    assert_eq!(counts["quarantine"], 3);

    project.silverd(&["run", "--drain"]);
    assert_eq!(truth::check(&project), counts);
    second_implementation_agrees(&project);
    queries_are_answered(&project, counts["bronze"]);
}

/// Python's deltalake and pyarrow read the same rows, and see the comments.
fn second_implementation_agrees(project: &Project) {
    let Ok(python) = std::env::var("SILVERD_TEST_PYTHON") else {
        eprintln!("SILVERD_TEST_PYTHON is not set: no second implementation of Delta reads the tables");
        return;
    };
    for table in SILVER.into_iter().chain(["bronze", "quarantine"]) {
        let dump = project.folder.path().join(format!("{table}.jsonl"));
        let output = Command::new(&python)
            .arg(root().join(".ci/check_delta.py"))
            .arg(project.path(table))
            .args(["--rows-json", dump.to_str().unwrap()])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let ours = truth::rows(&project.path(table));
        assert_eq!(report["num_rows"], ours.len(), "{table}");
        assert_eq!(report["partition_columns"], serde_json::json!(["event_date"]), "{table}");
        for column in report["schema"].as_array().unwrap() {
            assert!(column["comment"].as_str().is_some_and(|comment| !comment.is_empty()), "{table}: {column}");
        }
        let theirs = std::fs::read_to_string(&dump).unwrap();
        let key = |row: &Value, name: &str| row[name].to_string().replace('"', "");
        let of = |row: &Value| (key(row, "event_id"), key(row, "user_id"), key(row, "ts"), key(row, "url"));
        let mut theirs: Vec<_> = theirs.lines().map(|line| of(&serde_json::from_str(line).unwrap())).collect();
        let mut ours: Vec<_> = ours.into_iter().map(|row| of(&Value::Object(row))).collect();
        theirs.sort();
        ours.sort();
        assert_eq!(theirs, ours, "{table}");
    }
}

fn queries_are_answered(project: &Project, events: usize) {
    let answer = project.silverd(&["query", "--json", "select count(*) as n from bronze"]);
    assert_eq!(answer.trim(), format!("[{{\"n\":{events}}}]"));
    let answer = project.silverd(&["query", "select count(*) as n from page_view where event_id = 'é😀'"]);
    assert!(answer.contains("| 1 |"), "{answer}");
    assert_eq!(project.silverd(&["query", "--json", "select event_id from page_view where false"]).trim(), "[]");
    let failed = project.output(&["query", "select nonsense from page_view"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("nonsense"));
}

/// The table alone tells what it has: a second daemon, which remembers nothing of the first, leaves out the same.
#[test]
fn duplicates_are_left_out_and_late_events_are_listed() {
    let asked = Asked { dedup_within_s: Some(600), late_after_s: Some(120) };
    let project = Project::asking("dedup", "interval_ms = 50\nrows_max = 700", asked);
    let events = project.folder.path().join("events.jsonl");
    let event = |id: i64, minute: i64| {
        format!(
            "{{\"event_type\": \"page_view\", \"event_id\": \"{id}\", \"user_id\": \"u\", \
             \"ts\": \"2025-03-01T{:02}:{:02}:00Z\", \"url\": \"/\"}}\n",
            minute / 60,
            minute % 60
        )
    };
    // Each event again 10 minutes later, which is a duplicate, and 11 minutes before it, which is none.
    let text: String = (0..1000).map(|id| event(id, 20 + id) + &event(id, 30 + id) + &event(id, 9 + id)).collect();
    std::fs::write(&events, text).unwrap();
    for round in 0..3 {
        project.generate(&["--file", events.to_str().unwrap()]);
        project.generate(&["--count", "2000", "--dup-pct", "30", "--seed", &round.to_string()]);
        send_odd_ones(&project);
        project.silverd(&["run", "--drain"]);
        let counts = truth::check(&project);
        assert!(counts["late"] > 2000 && counts["late"] < 5000, "{counts:?}");
    }
    let answer = project.silverd(&["query", "--json", "select count(*) as n from page_view where user_id = 'u'"]);
    assert_eq!(answer.trim(), "[{\"n\":2000}]");
}

/// No plugin can stop Bronze; a table whose plugin comes later finds everything there.
#[test]
fn bronze_goes_on_without_a_plugin_and_the_table_catches_up() {
    let project = Project::new("broken", "interval_ms = 100\nrows_max = 500");
    let pipeline = project.folder.path().join("pipeline.toml");
    let good = std::fs::read_to_string(&pipeline).unwrap();
    let page_view = format!("{}/plugins/page_view", root().display());
    std::fs::write(project.folder.path().join("broken.wasm"), b"\0asm\x01\0\0\0garbage").unwrap();
    std::fs::write(&pipeline, good.replace(&page_view, "broken.wasm")).unwrap();
    project.generate(&["--count", "5000", "--seed", "3"]);

    let output = project.output(&["run", "--drain"]);
    assert_eq!(output.status.code(), Some(1), "a table that was not filled is a failure");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("broken.wasm") && told.contains("page_view"), "{told}");
    assert_eq!(truth::rows(&project.path("bronze")).len(), 5000);
    assert!(!truth::rows(&project.path("order_placed")).is_empty());

    std::fs::write(&pipeline, good).unwrap();
    project.silverd(&["run", "--drain"]);
    truth::check(&project);
}

/// A plugin that fails on everything pauses its table, and nothing else; another version, put in its place, goes on where
/// it was, without an event in the quarantine.
#[test]
fn a_plugin_that_fails_on_everything_pauses_its_table_until_another_comes() {
    let project = Project::new("paused", "interval_ms = 50\nrows_max = 500");
    let transform = "(func (export \"shop:silver/page-view@0.1.0#transform\") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 \
                     i32 i32 i32 i32 i32) (result i32) (unreachable))";
    let configure = "(func (export \"silverd:pipeline/plugin@0.1.0#configure\") (param i32 i32 i32 i32) (result i32) \
                     (i32.const 512))"; // where zeros stand, which say that all is well
    let wit = std::fs::read_to_string(root().join("wit/silver/page-view.wit")).unwrap();
    let broken = guest::module(
        &format!("{ALLOCATOR} {REALLOC} {configure} {transform}"),
        guest::TYPES,
        &wit,
        "page-view-plugin",
        wit_component::StringEncoding::UTF8,
    );
    let plugin = project.folder.path().join("page_view.wasm");
    std::fs::write(&plugin, broken).unwrap();
    let pipeline = project.folder.path().join("pipeline.toml");
    let text = std::fs::read_to_string(&pipeline).unwrap();
    std::fs::write(&pipeline, text.replace(&format!("{}/plugins/page_view", root().display()), "page_view.wasm"))
        .unwrap();
    project.generate(&["--count", "4000", "--seed", "9"]);
    let log = project.folder.path().join("log");
    let mut daemon = project
        .command(&["run"])
        .stdout(std::process::Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let told = || std::fs::read_to_string(&log).unwrap();
    until("the table is paused", || told().contains("The table is paused, bronze goes on"));
    assert!(told().contains("the plugin fails on everything: ") && told().contains("it trapped: "), "{}", told());
    until("the others are filled", || {
        ["bronze", "add_to_cart", "order_placed"].iter().all(|table| project.path(table).join("_delta_log").is_dir())
            && truth::rows(&project.path("bronze")).len() == 4000
    });
    assert_eq!(truth::rows(&project.path("page_view")).len(), 0);
    let built = root().join("plugins/target/wasm32-unknown-unknown/release/page_view.wasm");
    std::fs::copy(built, project.folder.path().join("new.wasm")).unwrap();
    std::fs::rename(project.folder.path().join("new.wasm"), &plugin).unwrap();
    until("the table goes on", || !truth::rows(&project.path("page_view")).is_empty());
    assert!(told().contains("the plugin was swapped"), "{}", told());
    super::kill::terminate(&daemon);
    assert!(super::harness::wait(&mut daemon, Duration::from_secs(60)).is_some_and(|status| status.success()));
    truth::check(&project);
}

/// Waits for a condition, for a minute at most.
#[track_caller]
fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A quarantine that was removed is made anew, and goes on with the rejects to come.
#[test]
fn a_removed_quarantine_goes_on() {
    let project = Project::new("removed", "interval_ms = 100");
    project.generate(&["--count", "1"]);
    for round in 1..=3 {
        send_odd_ones(&project);
        project.silverd(&["run", "--drain"]);
        assert_eq!(truth::rows(&project.path("quarantine")).len(), if round == 1 { 3 } else { 3 * (round - 1) });
        if round == 1 {
            std::fs::remove_dir_all(project.path("quarantine")).unwrap();
        }
    }
}

#[test]
fn check_tells_mistakes_with_their_places_and_exits_with_2() {
    let project = Project::new("check", "interval_ms = 200");
    assert!(project.silverd(&["check"]).contains("no mistakes"));
    let pipeline = project.folder.path().join("pipeline.toml");
    let good = std::fs::read_to_string(&pipeline).unwrap();
    std::fs::write(&pipeline, good.replace("event_date = \"ts\"", "event_date = \"url\"")).unwrap();
    let output = project.output(&["check"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("pipeline.toml:") && told.contains("event_date"), "{told}");
    std::fs::write(&pipeline, good.replace("[commit]", "[comit]")).unwrap();
    let output = project.output(&["run"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("did you mean `commit`"));
}

/// A log that is shorter than what Bronze has of it is not read, and Bronze is left as it is.
#[test]
fn a_topic_made_anew_is_not_taken_for_the_old_one() {
    let project = Project::new("anew", "interval_ms = 100");
    if !project.broker.is_kafka() {
        eprintln!("needs a real Kafka: the embedded broker cannot delete a topic");
        return;
    }
    project.generate(&["--count", "400", "--seed", "5"]);
    project.silverd(&["run", "--drain"]);
    recreate(&project);
    project.generate(&["--count", "40", "--seed", "6"]);
    let output = project.output(&["run", "--for", "6s"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("the log ends at"), "{told}");
    assert_eq!(truth::rows(&project.path("bronze")).len(), 400);
}

fn recreate(project: &Project) {
    use rdkafka::admin::{AdminClient, AdminOptions};
    use rdkafka::client::DefaultClientContext;
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", project.broker.address()).create().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let deleted = runtime.block_on(admin.delete_topics(&[&project.topic], &AdminOptions::new())).unwrap();
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    // Kafka deletes in the background; it is gone when nobody knows it any more.
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    let gone = || {
        let metadata = admin.inner().fetch_metadata(None, Duration::from_secs(10)).unwrap();
        !metadata.topics().iter().any(|topic| topic.name() == project.topic)
    };
    while !gone() {
        assert!(std::time::Instant::now() < deadline, "the topic does not go");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Whoever wants to send events of their own reads there where to.
#[test]
fn the_demo_says_where_its_broker_is() {
    let project = Project::new("demo", "interval_ms = 100");
    let output = project.command(&["demo", "--for", "2s", "--count", "100"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("embedded broker at 127.0.0.1:"), "{told}");
}
