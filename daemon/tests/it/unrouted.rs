//! `[quarantine] unrouted = "quarantine"`: each event that no table takes is in the quarantine once, whatever happens.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::deep::{rewrite, set_text};
use super::harness::tables::{Row, position, record, topic};
use super::harness::{
    Daemon, Generator, PARTITIONS, Project, TableCopy, actions, entries, expected, finding_kinds, root, rounds, rows,
    seed, upgrade, verify,
};
use super::kill::{kill_at_commit, random_time};

const ON: &str = "unrouted = \"quarantine\"";
const OFF: &str = "unrouted = \"count\"";

/// The shop's tables, with unrouted events in the quarantine.
fn quarantining(name: &str, commit: &str) -> Project {
    let project = Project::new(name, commit);
    project.append_to_pipeline(&format!("[quarantine]\n{ON}"));
    project.broker.create_topic(&project.topic, PARTITIONS);
    project
}

/// Sends an event for each of the five reasons, and one for a table.
fn send_unrouted(project: &Project, number: usize) {
    project.send_values(&[
        Vec::new(),
        format!("not JSON, {number}").into_bytes(),
        format!("[\"an array\", {number}]").into_bytes(),
        format!("{{\"x\": {number}}}").into_bytes(),
        format!("{{\"event_type\": \"page_hidden\", \"x\": {number}}}").into_bytes(),
        view("page_view", number),
    ]);
}

fn view(event_type: &str, number: usize) -> Vec<u8> {
    let event = format!(
        "{{\"event_type\": \"{event_type}\", \"event_id\": \"{event_type}-{number}\", \"user_id\": \"u\", \
         \"ts\": \"2026-01-02T03:04:05Z\", \"url\": \"/\"}}"
    );
    event.into_bytes()
}

/// Why an event goes to none of the shop's tables; `None` if it goes to one. For the events that these tests send.
fn reason(value: Option<&[u8]>) -> Option<&'static str> {
    let value = value.unwrap_or_default();
    if value.is_empty() {
        return Some("empty");
    }
    if value.starts_with(b"[") {
        return Some("not-an-object");
    }
    if !value.starts_with(b"{") {
        return Some("not-json");
    }
    let text = String::from_utf8_lossy(value);
    let Some((_, rest)) = text.split_once("\"event_type\":") else { return Some("no-such-field") };
    let event_type = rest.trim_start().split('"').nth(1)?;
    let is_of_shop = ["page_view", "add_to_cart", "order_placed"].contains(&event_type);
    (!is_of_shop).then_some("other-value")
}

/// The rows of the quarantine that are of no table.
fn unrouted_rows(project: &Project) -> Vec<Row> {
    let mut rows = if project.has_table("quarantine") { rows(&project.path("quarantine")) } else { Vec::new() };
    rows.retain(|row| row["table"] == "unrouted");
    rows
}

/// The quarantine has each event of the topic that no table takes once, with its reason and all its bytes. Returns how
/// many there are of each reason.
#[track_caller]
fn check_unrouted(project: &Project) -> BTreeMap<&'static str, usize> {
    let topic = topic(project);
    let mut expected: BTreeMap<_, _> =
        topic.iter().filter_map(|(at, record)| Some((*at, reason(record.value.as_deref())?))).collect();
    let mut counts = BTreeMap::<&'static str, usize>::new();
    expected.values().for_each(|reason| *counts.entry(reason).or_default() += 1);
    for row in unrouted_rows(project) {
        let at = position(&row, "");
        let reason = expected.remove(&at);
        assert_eq!(row["code"].as_str(), reason, "a second row, or another reason: {row:?}");
        assert_eq!(Some(&record(&row)), topic.get(&at), "the quarantine has the bytes of the event");
        assert_eq!((row["plugin_digest"].as_str(), row["topic"].as_str()), (Some(""), Some(&*project.topic)));
        assert!(row["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{row:?}");
    }
    assert!(expected.is_empty(), "not in the quarantine: {expected:?}");
    counts
}

#[test]
fn unrouted_events_are_quarantined_with_their_reason() {
    let project = quarantining("unrouted", "interval = \"50ms\"");
    for number in 0..3 {
        send_unrouted(&project, number);
        project.send_odd_events();
        project.silverd(&["run", "--drain"]);
    }
    let counts = check_unrouted(&project);
    let expected_counts =
        [("empty", 9), ("no-such-field", 3), ("not-an-object", 3), ("not-json", 9), ("other-value", 6)];
    assert_eq!(counts, expected_counts.into());
    assert_eq!(expected::check(&project)["quarantine"], 9, "the rejects of the tables are there, too");

    let report: Value = serde_json::from_str(&project.silverd(&["verify", "--json"])).unwrap();
    assert_eq!(report["findings"], json!([]), "{report:#}");
    let tables = report["tables"].as_array().unwrap();
    assert_eq!(tables.iter().find(|table| table["table"] == "quarantine").unwrap()["unrouted"], 30, "{report:#}");
    project.silverd(&["verify", "--deep", "--strict"]);

    let list = |args: &[&str]| -> Vec<Value> {
        let all = ["quarantine", "list", "--json", "--limit", "100"];
        serde_json::from_str(&project.silverd(&[&all, args].concat())).unwrap()
    };
    assert_eq!(list(&["--table", "unrouted"]).len(), 30);
    let listed = list(&["--code", "no-such-field"]);
    assert_eq!(listed.len(), 3);
    let id = listed[0]["id"].as_str().unwrap();
    assert!(id.starts_with("unrouted/"), "{id}");
    let shown = project.silverd(&["quarantine", "show", id]);
    assert!(shown.contains("\"x\": ") && shown.contains("no-such-field"), "{shown}");
    let errors = project.silverd_fails(&["quarantine", "list", "--code", "nonsense"], 2);
    assert!(errors.contains("malformed") && errors.contains("other-value"), "{errors}");
}

/// Tampering is found: with the log by every verification, with the rows by a deep one.
#[test]
fn altered_unrouted_events_are_reported() {
    let project = quarantining("unrouted-altered", "interval = \"50ms\"");
    for number in 0..3 {
        send_unrouted(&project, number);
    }
    project.silverd(&["run", "--drain"]);
    project.silverd(&["verify", "--deep", "--strict"]);
    let deep = |copy: &TableCopy| {
        assert_eq!(verify(copy.folder(), &[]).1, Some(0), "the logs are unchanged");
        let (report, code) = verify(copy.folder(), &["--deep"]);
        assert_eq!((code, finding_kinds(&report)), (Some(1), ["quarantine: unrouted".to_owned()].into()), "{report:#}");
        let problem = &report["findings"][0]["problem"];
        ["missing", "unexpected", "other_code"].map(|count| problem[count].as_u64().unwrap())
    };
    let copies = || TableCopy::of(project.folder.path());

    let copy = copies();
    rewrite(&copy, "quarantine", |batch| set_text(batch, "code", "timeout"));
    assert_eq!(deep(&copy), [0, 0, 1]);
    let copy = copies();
    rewrite(&copy, "quarantine", |batch| batch.slice(1, batch.num_rows() - 1));
    assert_eq!(deep(&copy), [1, 0, 0]);
    // What the tables matched on before is not compared with what they match on now.
    let text = std::fs::read_to_string(copy.folder().join("pipeline.toml")).unwrap();
    let edited = text.replace("equals = \"order_placed\"", "equals = \"page_hidden\"");
    std::fs::write(copy.folder().join("pipeline.toml"), edited).unwrap();
    let (report, _) = verify(copy.folder(), &["--deep"]);
    assert!(!finding_kinds(&report).contains("quarantine: unrouted"), "{report:#}");

    let copy = copies();
    let has_rows =
        |version: &u64| copy.actions("quarantine", *version).iter().any(|action| action.get("add").is_some());
    let version = (1..=copy.last("quarantine")).find(has_rows).unwrap();
    copy.edit("quarantine", version, |action| {
        if let Some(info) = action.get_mut("commitInfo").and_then(|info| info.get_mut("silverd")) {
            info["rejected"] = json!(info["rejected"].as_u64().unwrap() - 1);
        }
    });
    let (report, code) = verify(copy.folder(), &[]);
    assert_eq!((code, finding_kinds(&report)), (Some(1), ["quarantine: rows".to_owned()].into()), "{report:#}");
}

#[test]
fn unrouted_events_are_quarantined_once_after_kills_at_any_moment() {
    let mut rng = StdRng::seed_from_u64(seed());
    let project = quarantining("unrouted-kill", "interval = \"50ms\"\nrows_max = 400");
    let kills = rounds(&project, 12);
    let generator = Generator::start(&project, 300);
    // All tables exist before the first kill.
    send_unrouted(&project, 0);
    project.send_odd_events();
    project.silverd(&["run", "--drain"]);
    let commits = || entries(&project.path("quarantine")).len();
    let mut while_writing = 0;
    for kill in 0..kills {
        let before = commits();
        (0..3).for_each(|number| send_unrouted(&project, kill * 3 + number));
        project.send_odd_events();
        let mut daemon = Daemon::start_with(&project, &["run", "--log", "warn"], &[]);
        match kill % 3 {
            // At any time, also while it starts.
            0 => std::thread::sleep(random_time(&mut rng, 2_500)),
            // At the instant in which a commit appears in the log of a table.
            1 => kill_at_commit(&project, daemon.id(), rng.random_range(1..=12)),
            // Some time after the quarantine has got the first of them.
            _ => {
                daemon.until("a commit to the quarantine", |_| commits() > before);
                std::thread::sleep(random_time(&mut rng, 300));
            }
        }
        daemon.kill();
        while_writing += usize::from(commits() > before);
        project.silverd(&["verify"]);
    }
    generator.stop();
    assert!(while_writing >= kills / 3, "only {while_writing} of {kills} kills came after a commit to the quarantine");
    project.silverd(&["run", "--drain"]);
    project.silverd(&["verify", "--deep"]);
    let counts = check_unrouted(&project);
    assert_eq!(counts["not-an-object"], kills * 3 + 1);
    expected::check(&project);
    println!("{kills} kills, {while_writing} of them after a commit to the quarantine: {counts:?}");
}

#[test]
fn only_events_that_come_while_it_is_on_are_quarantined() {
    let project = quarantining("unrouted-switch", "interval = \"50ms\"");
    let send = |phase: &str, count: usize| {
        let values = (0..count).map(|number| format!("{{\"phase\": \"{phase}\", \"x\": {number}}}").into_bytes());
        project.send_values(&values.collect::<Vec<_>>());
    };
    let switched_on = || {
        let log = entries(&project.path("quarantine")).into_values();
        log.filter(|entry| std::fs::read_to_string(entry).unwrap().contains("\"switched\":\"on\"")).count()
    };
    let mut daemon = Daemon::start(&project);
    send("first", 30);
    daemon.until("the first events", |_| unrouted_rows(&project).len() == 30);
    project.replace_in_pipeline(ON, OFF);
    daemon.until_logged("unrouted events are no longer quarantined", 1);
    send("off", 40);
    daemon.until("the events in bronze", |_| rows(&project.path("bronze")).len() == 70);
    project.replace_in_pipeline(OFF, ON);
    daemon.until("the switch", |_| switched_on() == 2);
    send("second", 50);
    daemon.until("the later events", |_| unrouted_rows(&project).len() >= 80);
    daemon.stop();
    let mut phases = BTreeMap::<String, usize>::new();
    for row in unrouted_rows(&project) {
        let event: Value = serde_json::from_slice(record(&row).value.as_deref().unwrap()).unwrap();
        *phases.entry(event["phase"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!(phases, [("first".to_owned(), 30), ("second".to_owned(), 50)].into());
    project.silverd(&["verify", "--deep"]);
}

/// What came while it was on, and a crash kept from the quarantine, is still quarantined when it is switched off.
#[test]
fn what_is_behind_is_quarantined_before_it_is_switched_off() {
    let project = quarantining("unrouted-behind", "interval = \"50ms\"");
    send_unrouted(&project, 0);
    project.silverd(&["run", "--drain"]);
    // The quarantine loses its last commit with events, as if silverd had been killed before it.
    let mut log = entries(&project.path("quarantine"));
    loop {
        let (_, last) = log.pop_last().unwrap();
        let has_rows = actions(&last).iter().any(|action| action.get("add").is_some());
        std::fs::remove_file(last).unwrap();
        if has_rows {
            break;
        }
    }
    assert!(unrouted_rows(&project).len() < 5);
    project.silverd(&["verify"]);
    project.replace_in_pipeline(ON, OFF);
    project.silverd(&["run", "--drain"]);
    assert_eq!(check_unrouted(&project).values().sum::<usize>(), 5);
    send_unrouted(&project, 1);
    project.silverd(&["run", "--drain"]);
    assert_eq!(unrouted_rows(&project).len(), 5);
    project.silverd(&["verify", "--deep"]);
}

/// Bronze is written while the quarantine cannot be, and the quarantine catches up.
#[test]
fn bronze_does_not_wait_for_the_quarantine() {
    let project = quarantining("unrouted-stuck", "interval = \"50ms\"");
    let mut daemon = Daemon::start(&project);
    send_unrouted(&project, 0);
    daemon.until("the first events", |_| unrouted_rows(&project).len() == 5);
    let upgrade = upgrade(&project.path("quarantine"));
    for number in 1..=4 {
        send_unrouted(&project, number);
        daemon.until("the events in bronze", |_| rows(&project.path("bronze")).len() == 6 * (number + 1));
    }
    daemon.until_logged("quarantine unrouted events: ", 1);
    std::fs::remove_file(&upgrade).unwrap();
    daemon.until("the other events", |_| unrouted_rows(&project).len() == 25);
    daemon.stop();
    check_unrouted(&project);
    project.silverd(&["verify", "--deep"]);
}

/// A table that is added takes its events from Bronze; a replay marks them. If an existing table matches on something
/// else, a replay makes the rows.
#[test]
fn unrouted_events_that_a_table_takes_by_now_are_resolved() {
    let project = quarantining("unrouted-replay", "interval = \"50ms\"");
    let replay = || project.silverd(&["quarantine", "replay", "--table", "unrouted"]);
    let incomplete = b"{\"event_type\": \"secret\"}".to_vec();
    project.send_values(&[view("hidden", 1), view("hidden", 2), view("secret", 3), b"{}".to_vec(), incomplete]);
    project.silverd(&["run", "--drain"]);
    let printed = replay();
    assert!(printed.contains("unrouted: 0 of 5 events resolved (0 rows), 0 rejected"), "{printed}");

    let hidden = format!(
        "[silver.hidden]\nplugin = \"{}/plugins/page_view\"\nmatch = {{ field = \"event_type\", equals = \"hidden\" }}\n\
         event_time = \"ts\"",
        root().display()
    );
    project.append_to_pipeline(&hidden);
    // Its table does not exist yet: it will take them from Bronze.
    let printed = replay();
    assert!(printed.contains("unrouted: 0 of 5 events resolved"), "{printed}");
    project.silverd(&["run", "--drain"]);
    assert_eq!(rows(&project.path("hidden")).len(), 2);
    let printed = replay();
    assert!(printed.contains("unrouted: 2 of 5 events resolved (0 rows), 0 rejected"), "{printed}");

    project.replace_in_pipeline("equals = \"hidden\"", "equals = \"secret\"");
    project.silverd(&["run", "--drain"]);
    assert_eq!(rows(&project.path("hidden")).len(), 2, "the table has passed their offsets");
    let printed = project.silverd(&["quarantine", "replay", "--code", "other-value"]);
    assert!(printed.contains("unrouted: 1 of 2 events resolved (1 rows), 1 rejected"), "{printed}");
    assert_eq!(rows(&project.path("hidden")).len(), 3);
    let printed = project.silverd(&["quarantine", "replay"]);
    assert!(printed.contains("unrouted: 0 of 1 events resolved"), "{printed}");
    assert_eq!(rows(&project.path("hidden")).len(), 3);
    let resolved = |by: &str| unrouted_rows(&project).iter().filter(|row| row["resolution"] == by).count();
    assert_eq!((resolved("row"), resolved("rejected")), (3, 1));
    // The table that rejects it has it in the quarantine, once.
    let of_table = project.query("SELECT count(*) AS n FROM quarantine WHERE \"table\" = 'hidden'");
    assert_eq!(of_table[0]["n"], 1);
    project.silverd(&["verify"]);
}
