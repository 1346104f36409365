//! Several topics: by their names, or by a pattern; which tables take what of them; and what becomes of topics that appear,
//! vanish, and are created again. All of it needs a real Kafka: the embedded broker has one topic.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer};
use serde_json::{Value, json};

use crate::harness::{Daemon, Project, entries, root, rows, verify};

/// A project without Silver tables that reads what `source` says; `{}` in it is a prefix of this project's topics. `None`
/// without a Kafka.
fn project(name: &str, source: &str) -> Option<Project> {
    let project = Project::with_sections(name, "[commit]\ninterval = \"50ms\"\n");
    if !project.broker.is_kafka() {
        eprintln!("needs a real Kafka: the embedded broker has one topic");
        return None;
    }
    let topic = format!("topic = \"{}\"", project.topic);
    project.replace_in_pipeline(&topic, &source.replace("{}", &project.topic));
    Some(project)
}

fn named(project: &Project, topic: &str) -> String {
    format!("{}.{topic}", project.topic)
}

fn create(project: &Project, topic: &str, partitions: i32) {
    project.broker.create_topic(&named(project, topic), partitions);
}

/// Sends records with these values to a topic, round its first two partitions.
fn send(project: &Project, topic: &str, values: impl IntoIterator<Item = String>) {
    let (producer, topic) = (project.producer(), named(project, topic));
    for (at, value) in (0..).zip(values) {
        let record = BaseRecord::<(), _>::to(&topic).partition(at % 2).payload(&value);
        producer.send(record).map_err(|(failure, _)| failure).unwrap();
    }
    producer.flush(Duration::from_secs(30)).unwrap();
}

fn numbers(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|number| format!("{{\"number\": {number}}}"))
}

/// How many records Bronze has of each topic, without the prefix.
fn stored(project: &Project) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    if project.has_table("bronze") {
        for row in rows(&project.path("bronze")) {
            let topic = row["topic"].as_str().unwrap().strip_prefix(&format!("{}.", project.topic)).unwrap().to_owned();
            *counts.entry(topic).or_default() += 1;
        }
    }
    counts
}

fn counts(of: &[(&str, usize)]) -> BTreeMap<String, usize> {
    of.iter().map(|(topic, count)| ((*topic).to_owned(), *count)).collect()
}

/// The topics of which a table has progress.
fn progress(project: &Project, table: &str) -> BTreeSet<String> {
    let mut topics = BTreeSet::new();
    for entry in entries(&project.path(table)).values() {
        for line in std::fs::read_to_string(entry).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let id = line["txn"]["appId"].as_str().unwrap_or_default();
            if let Some(log) = id.strip_prefix("silverd:") {
                let topic = log.rsplit(':').nth(1).unwrap();
                topics.insert(topic.strip_prefix(&format!("{}.", project.topic)).unwrap().to_owned());
            }
        }
    }
    topics
}

#[track_caller]
fn verify_deep(project: &Project) {
    let (report, code) = verify(project.folder.path(), &["--deep", "--strict"]);
    assert_eq!(code, Some(0), "{report:#}");
}

fn event(event_type: &str, number: usize) -> String {
    json!({"event_type": event_type, "event_id": format!("{event_type}-{number}"), "user_id": "u", "url": "/",
        "ts": "2026-01-02T03:04:05Z"})
    .to_string()
}

fn table(name: &str, plugin: &str, matches: &str) -> String {
    format!(
        "[silver.{name}]\nplugin = \"{}/plugins/{plugin}\"\nmatch = {matches}\nevent_time = \"ts\"\n",
        root().display()
    )
}

/// Each table takes what its `match` says, and has no progress in topics that it never takes. A table that takes another
/// topic later gets its events from Bronze, from the first.
#[test]
fn tables_take_topics() {
    let Some(project) = project("topics", "topics = [\"{}.web\", \"{}.app\", \"{}.shop\"]") else { return };
    let web = format!("{{ topic = \"{}\" }}", named(&project, "web"));
    project.append_to_pipeline(&table("web", "page_view", &web));
    let views = "{ field = \"event_type\", in = [\"page_view\", \"screen_view\"] }";
    project.append_to_pipeline(&table("views", "page_view", views));
    project.build_plugins();
    for topic in ["web", "app", "shop"] {
        create(&project, topic, 3);
    }
    send(&project, "web", (0..50).map(|number| event("page_view", number)));
    send(&project, "app", (0..30).map(|number| event("screen_view", number)));
    send(&project, "app", (30..40).map(|number| event("page_view", number)));
    send(&project, "shop", (0..20).map(|number| event("order", number)));
    for _ in 0..2 {
        project.silverd(&["run", "--drain"]);
        assert_eq!(stored(&project), counts(&[("web", 50), ("app", 40), ("shop", 20)]));
        assert_eq!(rows(&project.path("web")).len(), 50);
        assert_eq!(rows(&project.path("views")).len(), 90);
    }
    assert_eq!(progress(&project, "web"), BTreeSet::from(["web".to_owned()]));
    assert_eq!(progress(&project, "views").len(), 3);
    verify_deep(&project);

    let both = format!("{{ topic = [\"{}\", \"{}\"] }}", named(&project, "web"), named(&project, "app"));
    project.replace_in_pipeline(&web, &both);
    send(&project, "web", (50..60).map(|number| event("page_view", number)));
    project.silverd(&["run", "--drain"]);
    assert_eq!(rows(&project.path("web")).len(), 100);
    verify_deep(&project);
    project.silverd(&["rebuild", "web"]);
    assert_eq!(rows(&project.path("web")).len(), 100);
    verify_deep(&project);
}

/// A topic that matches the pattern is taken up while silverd runs, from its first record, whatever `start` says; and what
/// a pattern does not match is left alone.
#[test]
fn a_pattern_takes_up_new_topics() {
    let Some(project) = project("pattern", "topic_pattern = '^{}\\.shop\\..*'\nstart = \"latest\"") else { return };
    let mut daemon = Daemon::start_with_dashboard(&project);
    daemon.until("a refusal", |daemon| {
        let ready = daemon.get("/health/ready");
        ready.status == 503 && ready.body.contains("no topic at ")
    });
    create(&project, "shop.a", 2);
    create(&project, "other", 2);
    send(&project, "other", numbers(10));
    daemon.until_logged("partitions assigned", 1);
    // Where it was empty at the first start, it begins at its first record.
    send(&project, "shop.a", numbers(10));
    daemon.until("the records", |_| stored(&project) == counts(&[("shop.a", 10)]));
    daemon.until("readiness", |daemon| daemon.get("/health/ready").status == 200);
    create(&project, "shop.b", 4);
    send(&project, "shop.b", numbers(10));
    daemon.until("the records of the new topic", |_| stored(&project) == counts(&[("shop.a", 10), ("shop.b", 10)]));
    project.broker.grow_topic(&named(&project, "shop.a"), 3);
    daemon.stop();
    // One that appears while silverd is down.
    create(&project, "shop.c", 2);
    send(&project, "shop.c", numbers(10));
    project.silverd(&["run", "--drain"]);
    assert_eq!(stored(&project), counts(&[("shop.a", 10), ("shop.b", 10), ("shop.c", 10)]));
    verify_deep(&project);
}

/// A topic of the list that does not exist is reported, and the others are read; one that is deleted and created again is not
/// taken for the old one.
#[test]
fn topics_that_vanish_are_reported() {
    let Some(project) = project("vanish", "topics = [\"{}.a\", \"{}.b\"]") else { return };
    create(&project, "a", 2);
    let mut daemon = Daemon::start_with_dashboard(&project);
    send(&project, "a", numbers(10));
    daemon.until("the records", |_| stored(&project) == counts(&[("a", 10)]));
    daemon.until("a problem", |daemon| daemon.json("/api/status")["source_problems"].as_array().unwrap().len() == 1);
    let ready = daemon.get("/health/ready").body;
    assert!(ready.contains(&named(&project, "b")) && ready.contains("does not exist"), "{ready}");
    create(&project, "b", 2);
    send(&project, "b", numbers(10));
    daemon.until("the other topic", |_| stored(&project) == counts(&[("a", 10), ("b", 10)]));
    daemon.until("readiness", |daemon| daemon.get("/health/ready").status == 200);

    project.broker.delete_topic(&named(&project, "a"));
    create(&project, "a", 2);
    // As many records as before, and more: by the offsets alone, nothing is wrong.
    send(&project, "a", numbers(30));
    send(&project, "b", numbers(10));
    daemon.until("the refusal of the new topic", |daemon| daemon.get("/health/ready").body.contains("created again"));
    daemon.until("the other topic goes on", |_| stored(&project)["b"] == 20);
    // What silverd read before it looked at the topics again may be of the new one.
    let before = stored(&project)["a"];
    send(&project, "a", numbers(10));
    send(&project, "b", numbers(10));
    daemon.until("the other topic goes on", |_| stored(&project)["b"] == 30);
    assert_eq!(stored(&project)["a"], before);
    daemon.stop();
    let errors = project.silverd_fails(&["run", "--drain"], 1);
    assert!(errors.contains("the topic was deleted and created again"), "{errors}");
    let (report, code) = verify(project.folder.path(), &[]);
    assert_eq!(code, Some(0), "{report:#}");
}

/// Two daemons share the partitions of all topics; each record is stored once.
#[test]
fn daemons_share_topics() {
    let Some(project) = project("share", "topic_pattern = '^{}\\..*'") else { return };
    for topic in ["a", "b", "c"] {
        create(&project, topic, 4);
        send(&project, topic, numbers(100));
    }
    let mut first = Daemon::start(&project);
    first.until("all records", |_| stored(&project).values().sum::<usize>() == 300);
    let mut second = Daemon::start(&project);
    second.until_logged("partitions assigned", 1);
    create(&project, "d", 4);
    for topic in ["a", "b", "c", "d"] {
        send(&project, topic, numbers(100));
    }
    first.until("all records", |_| stored(&project).values().sum::<usize>() == 700);
    first.kill();
    send(&project, "d", numbers(100));
    second.until_within(Duration::from_secs(120), "the rest", |_| stored(&project).values().sum::<usize>() == 800);
    second.stop();
    verify_deep(&project);
}

/// A table with `tombstones = true` gets records without a value, with their keys and headers; another one does not.
#[test]
fn tombstones_reach_the_tables_that_ask_for_them() {
    let Some(project) = project("tombstones", "topics = [\"{}.customers\", \"{}.other\"]") else { return };
    let customers = format!("{{ topic = \"{}\" }}", named(&project, "customers"));
    project.append_to_pipeline(&table("customers", "fixtures/states", &customers));
    project.append_to_pipeline("tombstones = true\n");
    project.append_to_pipeline(&table("living", "fixtures/states", &customers));
    let by_header = "{ header = \"by\", equals = \"crm\" }";
    project.append_to_pipeline(&table("by_crm", "fixtures/states", by_header));
    project.append_to_pipeline("tombstones = true\n");
    project.build_plugins();
    create(&project, "customers", 1);
    create(&project, "other", 1);
    let producer = project.producer();
    let send = |topic: &str, key: &str, value: Option<&str>, by: Option<&str>| {
        let topic = named(&project, topic);
        let mut record = BaseRecord::to(&topic).key(key);
        if let Some(value) = value {
            record = record.payload(value);
        }
        if let Some(by) = by {
            record = record.headers(OwnedHeaders::new().insert(Header { key: "by", value: Some(by) }));
        }
        producer.send(record).map_err(|(failure, _)| failure).unwrap();
    };
    send("customers", "1", Some("{\"name\": \"Ann\"}"), Some("crm"));
    send("customers", "1", None, Some("web"));
    send("customers", "2", Some("{\"name\": \"Bob\"}"), None);
    send("customers", "2", Some(""), None);
    send("other", "3", None, Some("crm"));
    producer.flush(Duration::from_secs(30)).unwrap();
    project.silverd(&["run", "--drain"]);
    let found = |table: &str| {
        let mut found: Vec<_> = rows(&project.path(table))
            .into_iter()
            .map(|row| {
                [&row["customer"], &row["name"], &row["changed_by"]].map(|cell| cell.as_str().unwrap_or("-").to_owned())
            })
            .collect();
        found.sort();
        found
    };
    assert_eq!(found("customers"), [["1", "-", "web"], ["1", "Ann", "crm"], ["2", "Bob", "-"]]);
    assert_eq!(found("living"), [["1", "Ann", "crm"], ["2", "Bob", "-"]]);
    assert_eq!(found("by_crm"), [["1", "Ann", "crm"], ["3", "-", "crm"]]);
    // A value without a byte is no tombstone.
    let rejects: Vec<_> = rows(&project.path("quarantine")).into_iter().map(|row| row["table"].clone()).collect();
    assert_eq!(rejects.len(), 2, "{rejects:?}");
    verify_deep(&project);

    // A plugin that cannot tell a tombstone is refused.
    project.append_to_pipeline(&table("web", "page_view", &customers));
    project.append_to_pipeline("tombstones = true\n");
    let errors = project.silverd_fails(&["check"], 2);
    assert!(errors.contains("`tombstones = true`") && errors.contains("option<input>"), "{errors}");
}

/// The same offset in several topics is several events.
#[test]
fn equal_offsets_of_several_topics_are_several_events() {
    const TOPICS: [&str; 3] = ["a", "b", "c"];
    let Some(project) = project("equal-offsets", "topics = [\"{}.a\", \"{}.b\", \"{}.c\"]") else { return };
    let options = "dedup = { by = [\"event_id\"], within = \"1h\" }\nlate_after = \"1m\"\n";
    project.append_to_pipeline(&(table("views", "page_view", "\"everything\"") + options));
    project.build_plugins();
    for topic in TOPICS {
        create(&project, topic, 2);
        // The first one of each topic is the same event; the others are not.
        send(&project, topic, [event("page_view", 0), event(topic, 1), event(topic, 2)]);
    }
    project.silverd(&["run", "--drain"]);
    assert_eq!(rows(&project.path("views")).len(), 7);
    let late: BTreeSet<_> = rows(&project.path("late")).iter().map(|row| row["event_id"].to_string()).collect();
    assert_eq!(late.len(), 7);
    verify_deep(&project);
    // All of them again, each with another offset than in the topic that has its row.
    for topic in TOPICS {
        send(&project, "c", [event("page_view", 0), event(topic, 2), event(topic, 1)]);
    }
    project.silverd(&["run", "--drain"]);
    assert_eq!(rows(&project.path("views")).len(), 7);
    verify_deep(&project);
    project.silverd(&["rebuild", "views"]);
    assert_eq!(rows(&project.path("views")).len(), 7);
    verify_deep(&project);
}

/// `start = "latest"` leaves out what is there at the first start, and nothing that comes later.
#[test]
fn topics_that_are_created_later_are_read_from_their_first_record() {
    let source = "topics = [\"{}.a\", \"{}.b\", \"{}.c\"]\nstart = \"latest\"";
    let Some(project) = project("created-later", source) else { return };
    let mut daemon = Daemon::start_with_dashboard(&project);
    daemon.until("a refusal", |daemon| daemon.get("/health/ready").body.contains("does not exist"));
    create(&project, "a", 2);
    send(&project, "a", numbers(10));
    daemon.until("the topic that was created while silverd waited", |_| stored(&project) == counts(&[("a", 10)]));
    daemon.kill();
    create(&project, "b", 2);
    send(&project, "b", numbers(20));
    let mut daemon = Daemon::start(&project);
    daemon.until("the topic that was created after a kill", |_| stored(&project) == counts(&[("a", 10), ("b", 20)]));
    daemon.stop();
    create(&project, "c", 2);
    send(&project, "c", numbers(30));
    project.silverd(&["run", "--drain"]);
    assert_eq!(stored(&project), counts(&[("a", 10), ("b", 20), ("c", 30)]));
    verify_deep(&project);
}

/// A topic that was created with the wrong settings: Bronze has none of its records, so the new one is read.
#[test]
fn an_empty_topic_may_be_created_again() {
    let Some(project) = project("empty-again", "topics = [\"{}.a\", \"{}.b\"]") else { return };
    create(&project, "a", 2);
    create(&project, "b", 2);
    send(&project, "a", numbers(10));
    let mut daemon = Daemon::start(&project);
    daemon.until("the records", |_| stored(&project) == counts(&[("a", 10)]));
    project.broker.delete_topic(&named(&project, "b"));
    create(&project, "b", 3);
    send(&project, "b", numbers(10));
    daemon.until("the records of the new topic", |_| stored(&project) == counts(&[("a", 10), ("b", 10)]));
    send(&project, "b", numbers(100));
    daemon.until("more of them", |_| stored(&project) == counts(&[("a", 10), ("b", 110)]));
    daemon.stop();
    project.silverd(&["run", "--drain"]);
    verify_deep(&project);
}
