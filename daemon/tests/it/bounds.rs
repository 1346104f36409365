//! What outside data, and other daemons, can do to the size and the time of silverd's work.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema};
use rdkafka::producer::{BaseRecord, Producer};
use serde_json::Value;
use silverd::delta::{Table, TableSpec};

use super::harness::tables::data_files;
use super::harness::{Daemon, PARTITIONS, Project, TableOptions, expected, rows};

const EVENTS: usize = 100_000;

/// Since 1970: Kafka takes no timestamps of the future.
const DAYS: usize = 20_000;

/// A pipeline that writes Bronze alone, in one chunk if the topic has one.
fn bronze_alone(name: &str) -> Project {
    let project =
        Project::with_sections(name, "[commit]\ninterval = \"3s\"\nrows_max = 200000\nbytes_max = \"200MiB\"\n");
    project.broker.create_topic(&project.topic, PARTITIONS);
    project
}

/// Sends events whose timestamps in Kafka have these days since the epoch.
fn send(project: &Project, day: impl Fn(usize) -> i64) {
    let producer = project.producer();
    for number in 0..EVENTS {
        let value = format!("{{\"number\": {number}, \"text\": \"{}\"}}", "some text of an event. ".repeat(8));
        let mut record = BaseRecord::<(), _>::to(&project.topic).payload(&value).timestamp(day(number) * 86_400_000);
        // The producer's queue is full: it must send first.
        while let Err((_, refused)) = producer.send(record) {
            producer.poll(Duration::from_millis(10));
            record = refused;
        }
    }
    producer.flush(Duration::from_secs(60)).unwrap();
}

struct Measured {
    /// The seconds of all commits to Bronze, with the encoding.
    seconds: f64,
    peak_bytes: u64,
    files: usize,
}

/// Whether a daemon has written this many rows of a table since its start.
fn has_rows(daemon: &Daemon, table: &str, rows: usize) -> bool {
    let status: Value = serde_json::from_str(&daemon.get("/api/status").body).unwrap_or_default();
    let tables = status["tables"].as_array();
    tables.is_some_and(|tables| tables.iter().any(|one| one["name"] == table && one["rows"] == rows))
}

fn measure(project: &Project) -> Measured {
    let mut daemon = Daemon::start_with_dashboard(project);
    daemon.until_within(Duration::from_secs(120), "all events in bronze", |daemon| has_rows(daemon, "bronze", EVENTS));
    let metrics = daemon.get("/metrics").body;
    let sum =
        metrics.lines().find_map(|line| line.strip_prefix("silverd_commit_duration_seconds_sum{table=\"bronze\"} "));
    let seconds = sum.unwrap_or_else(|| panic!("{metrics}")).parse().unwrap();
    let peak_bytes = daemon.json("/api/status")["memory_peak_bytes"].as_u64().unwrap();
    daemon.stop();
    let files = data_files(&project.path("bronze"));
    Measured { seconds, peak_bytes, files }
}

/// The timestamps of a producer whose clock is confused: thousands of days in one chunk.
#[test]
fn many_days_in_a_chunk_cost_little_more_than_one() {
    let one = bronze_alone("one-day");
    send(&one, |_| DAYS as i64);
    let one_day = measure(&one);
    let many = bronze_alone("many-days");
    send(&many, |number| (number % DAYS) as i64);
    let many_days = measure(&many);
    println!(
        "one day: {:.2} s, {} MiB, {} files; {DAYS} days: {:.2} s, {} MiB, {} files",
        one_day.seconds,
        one_day.peak_bytes >> 20,
        one_day.files,
        many_days.seconds,
        many_days.peak_bytes >> 20,
        many_days.files
    );
    assert!(many_days.files <= 128 * 8, "{} files", many_days.files);
    assert!(many_days.peak_bytes <= 512 << 20, "{} bytes", many_days.peak_bytes);
    assert_eq!(rows(&many.path("bronze")).len(), EVENTS);
    many.silverd(&["verify"]);
}

/// A plugin's event times of thousands of days in one chunk: a file for each, as the table's partitions are its days. Memory
/// does not grow with them.
#[test]
fn many_days_of_silver_need_no_more_memory() {
    const EVENTS: usize = 10_000;
    let sections = "[commit]\ninterval = \"3s\"\nrows_max = 200000\nbytes_max = \"200MiB\"\n";
    let measure = |name: &str, day: &dyn Fn(usize) -> usize| {
        let project = super::reload::project(name, sections);
        project.broker.create_topic(&project.topic, PARTITIONS);
        let event = |number: usize| {
            // From 1984 on.
            let seconds = (5_000 + day(number)) * 86_400;
            format!("{{\"event_type\": \"page_view\", \"event_id\": \"e{number}\", \"ts\": {seconds}}}").into_bytes()
        };
        project.send_values(&(0..EVENTS).map(event).collect::<Vec<_>>());
        let mut daemon = Daemon::start_with_dashboard(&project);
        daemon.until_within(Duration::from_secs(120), "all rows", |daemon| has_rows(daemon, "hits", EVENTS));
        let peak_bytes = daemon.json("/api/status")["memory_peak_bytes"].as_u64().unwrap();
        daemon.stop();
        project.silverd(&["verify"]);
        assert_eq!(project.query("SELECT count(*) AS n FROM hits")[0]["n"], EVENTS);
        peak_bytes
    };
    let one_day = measure("silver-day", &|_| 0);
    let many_days = measure("silver-days", &|number| number);
    println!("one day: {} MiB; {EVENTS} days: {} MiB", one_day >> 20, many_days >> 20);
    assert!(many_days <= 512 << 20, "{many_days} bytes");
}

/// A commit needs nothing of the log but the entries since the one before: it costs the same however long the log is.
#[test]
fn commits_do_not_read_the_log_again() {
    let project = Project::with_sections("log-once", "[commit]\ninterval = \"50ms\"\n");
    project.broker.create_topic(&project.topic, PARTITIONS);
    let mut daemon = Daemon::start_with_dashboard(&project);
    let mut until_stored = |events: usize| {
        project.send_values(&vec![b"{}".to_vec(); 10]);
        daemon.until("the events in bronze", |daemon| has_rows(daemon, "bronze", events));
    };
    until_stored(10);
    let log = project.path("bronze").join("_delta_log");
    let (first, elsewhere) = (log.join(format!("{:020}.json", 0)), project.folder.path().join("first.json"));
    std::fs::rename(&first, &elsewhere).unwrap();
    for events in (20..=100).step_by(10) {
        until_stored(events);
    }
    assert_eq!(daemon.count_logged("append to bronze"), 0, "{}", daemon.log());
    std::fs::rename(&elsewhere, &first).unwrap();
    daemon.stop();
    project.silverd(&["verify"]);
}

/// Two daemons that are started at once create the same tables, and write them.
#[test]
fn two_daemons_that_start_on_an_empty_folder_write_every_event_once() {
    for round in 0..4 {
        let options = TableOptions { dedup_within_s: None, late_after_s: Some(120) };
        let project = Project::with_options("two-first", "interval = \"50ms\"\nrows_max = 400", options);
        project.append_to_pipeline("[quarantine]\nunrouted = \"quarantine\"");
        project.generate(&["--count", "2000", "--seed", &round.to_string()]);
        project.send_odd_events();
        assert!(!project.folder.path().join("data/bronze").exists() && !project.has_table("page_view"));
        let mut daemons = [Daemon::start(&project), Daemon::start(&project)];
        for daemon in &mut daemons {
            daemon.until("all events in bronze", |_| {
                project.has_table("bronze") && rows(&project.path("bronze")).len() >= 2009
            });
        }
        for daemon in daemons {
            for line in daemon.stop().iter().filter(|line| line["level"] == "ERROR") {
                let message = line["fields"]["message"].as_str().unwrap_or_default();
                assert!(!message.contains("create the table") && !message.contains("open table"), "{line}");
            }
        }
        project.silverd(&["run", "--drain"]);
        expected::check(&project);
        project.silverd(&["verify", "--deep"]);
    }
}

/// Of several that create a table at once, one does, and all have it open.
#[test]
fn tables_that_are_created_at_once_are_open_for_each() {
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    for round in 0..200 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/bronze");
        let open = || {
            let (name, path) = ("bronze".to_owned(), path.clone());
            let spec =
                TableSpec { name, path, schema: schema.clone(), doc: None, time_zone: silverd_core::zone::Zone::UTC };
            runtime.spawn(async move { Table::open(&spec).await.map(drop) })
        };
        let opened = [open(), open(), open(), open()];
        for opened in runtime.block_on(futures::future::join_all(opened)) {
            opened.unwrap().unwrap_or_else(|error| panic!("round {round}: {error:#}"));
        }
    }
}
