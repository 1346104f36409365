//! Days that are final: no commit changes one that was not called provisional before, whatever happens in between.

mod month;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use chrono::NaiveDate;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rdkafka::producer::{BaseRecord, Producer};
use serde_json::{Value, json};

use super::harness::tables::Row;
use super::harness::{Daemon, Project, actions, entries, rows, seed, until};
use super::kill::random_time;

/// The name and the folder of a table.
type NamedTable = (&'static str, &'static str);

const DAY: &str = "2025-03-01";

const SECTIONS: &str = r#"
[commit]
interval = "50ms"

[days]
final_after = "1s"

[silver.orders]
match = { field = "kind", equals = "order" }
event_time = "ts"
path = "data/silver/orders"
input = { event_id = "string", ts = "timestamp", amount = "s64" }
sql = "SELECT event_id, ts, 100 / amount AS share FROM event"

[gold.daily]
sql = "SELECT event_date, sum(share) AS share FROM orders GROUP BY event_date"
refresh = "1s"
"#;

const TABLES: [NamedTable; 2] = [("orders", "data/silver/orders"), ("gold.daily", "data/gold/daily")];

fn project(name: &str) -> Project {
    Project::with_topic(name, SECTIONS)
}

fn order(id: &str, day: &str, amount: i64) -> String {
    json!({ "kind": "order", "event_id": id, "ts": format!("{day}T10:00:00Z"), "amount": amount }).to_string()
}

fn number_of(day: &str) -> i64 {
    day.parse::<NaiveDate>().unwrap().signed_duration_since(NaiveDate::default()).num_days()
}

fn status_path(project: &Project) -> PathBuf {
    project.folder.path().join("data/gold/day_status")
}

/// What is published of a day.
fn published(project: &Project, table: &str, day: &str) -> Option<Row> {
    let path = status_path(project);
    let is_of_day = |row: &Row| row["table_name"] == table && row["event_date"] == number_of(day);
    path.join("_delta_log").is_dir().then(|| rows(&path).into_iter().find(is_of_day)).flatten()
}

fn is_final(project: &Project, table: &str, day: &str) -> bool {
    published(project, table, day).is_some_and(|row| row["state"] == "final")
}

fn until_final(daemon: &mut Daemon, project: &Project, day: &str) {
    for (table, _) in TABLES {
        daemon.until(&format!("{day} of {table} is final"), |_| is_final(project, table, day));
    }
}

fn count(project: &Project) -> usize {
    if project.has_table("orders") { rows(&project.path("orders")).len() } else { 0 }
}

/// A state that a version of the table publishes: when, of which table and day, and whether the day is final.
#[derive(Debug)]
struct Publication {
    at: i64,
    table: String,
    day: i64,
    is_final: bool,
    /// The table's version when its figures were published.
    commit_version: Option<i64>,
}

/// All publications, in their order.
fn publications(project: &Project) -> Vec<Publication> {
    let path = status_path(project);
    let mut found = Vec::new();
    if !path.join("_delta_log").is_dir() {
        return found;
    }
    for entry in entries(&path).values() {
        let (actions, at) = (actions(entry), written_at(entry));
        for add in actions.iter().filter_map(|action| action["add"]["path"].as_str()) {
            let day = number_of(day_of(add));
            let file = std::fs::File::open(path.join(add)).unwrap();
            for batch in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
                let batch = batch.unwrap();
                let text = |name: &str, row: usize| {
                    batch.column_by_name(name).unwrap().as_string::<i32>().value(row).to_owned()
                };
                let versions = batch.column_by_name("commit_version").unwrap().as_primitive::<Int64Type>();
                found.extend((0..batch.num_rows()).map(|row| Publication {
                    at,
                    table: text("table_name", row),
                    day,
                    is_final: text("state", row) == "final",
                    commit_version: versions.is_valid(row).then(|| versions.value(row)),
                }));
            }
        }
    }
    found
}

/// When a log entry was written, in microseconds, by the kernel's clock: the same for all processes.
fn written_at(entry: &Path) -> i64 {
    let modified = std::fs::metadata(entry).unwrap().modified().unwrap();
    i64::try_from(modified.duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

fn time_of(actions: &[Value]) -> i64 {
    actions.iter().find_map(|action| action["commitInfo"]["timestamp"].as_i64()).unwrap()
}

/// The day of a file, by its path in the log.
fn day_of(path: &str) -> &str {
    path.split('/').next().unwrap().strip_prefix("event_date=").unwrap()
}

/// The days whose rows each commit of a table changed, with its version and when it was written.
fn changes(table: &Path) -> Vec<(u64, i64, BTreeSet<i64>)> {
    let changes_of = |(version, entry): (&u64, &PathBuf)| {
        let actions = actions(entry);
        let changed = actions.iter().flat_map(|action| ["add", "remove"].map(|kind| &action[kind]));
        let changed = changed.filter(|file| file["dataChange"] == true);
        let days = changed.map(|file| number_of(day_of(file["path"].as_str().unwrap()))).collect();
        (*version, written_at(entry), days)
    };
    entries(table).iter().map(changes_of).collect()
}

/// No commit changes a day between a version that calls it final and the next one that calls it provisional. Returns how
/// many changes of days were compared, and how often a day was called provisional again.
#[track_caller]
fn check_no_silent_change(project: &Project) -> (usize, usize) {
    check_tables(project, &TABLES)
}

#[track_caller]
fn check_tables(project: &Project, tables: &[NamedTable]) -> (usize, usize) {
    let mut of_day = BTreeMap::<(String, i64), Vec<Publication>>::new();
    for state in publications(project) {
        of_day.entry((state.table.clone(), state.day)).or_default().push(state);
    }
    let mut compared = 0;
    for (table, folder) in tables {
        let path = project.folder.path().join(folder);
        if !path.join("_delta_log").is_dir() {
            continue;
        }
        let mut of_table = BTreeMap::<i64, Vec<(u64, i64)>>::new();
        for (version, at, days) in changes(&path) {
            days.into_iter().for_each(|day| of_table.entry(day).or_default().push((version, at)));
        }
        for (day, changes) in of_table {
            let Some(states) = of_day.get(&((*table).to_owned(), day)) else { continue };
            compared += changes.len();
            check_by_time(states, &changes);
            check_by_version(states, &changes);
        }
    }
    let is_revoked = |pair: &[Publication]| pair[0].is_final && !pair[1].is_final;
    (compared, of_day.values().map(|states| states.windows(2).filter(|pair| is_revoked(pair)).count()).sum())
}

/// By when the log entries were written. Those of the same tick of the kernel's clock may be in either order.
#[track_caller]
fn check_by_time(states: &[Publication], changes: &[(u64, i64)]) {
    for (version, changed_at) in changes {
        let was_final = states.iter().rfind(|state| state.at < *changed_at).is_some_and(|state| state.is_final);
        let revoked = states.iter().any(|state| state.at == *changed_at && !state.is_final);
        assert!(!was_final || revoked, "version {version} at {changed_at} changed a final day: {states:?}");
    }
}

/// By the versions of the logs alone: no version changes the day between the one at which it was found to be final, and the
/// next one at which it was, without a provisional state between the two.
#[track_caller]
fn check_by_version(states: &[Publication], changes: &[(u64, i64)]) {
    let check = |from: Option<i64>, to: i64| {
        let Some(from) = from else { return };
        let changed = changes.iter().find(|(version, _)| (from + 1..=to).contains(&(*version as i64)));
        assert!(changed.is_none(), "version {changed:?} changed a day that is final since {from}: {states:?}");
    };
    let mut final_at = None;
    for state in states {
        if !state.is_final {
            final_at = None;
        } else if let Some(version) = state.commit_version {
            check(final_at.replace(version), version);
        }
    }
    check(final_at, i64::MAX);
}

#[test]
fn a_late_event_makes_its_day_provisional_before_its_row_is_there() {
    let project = project("days-late");
    project.send_lines([order("a", DAY, 10), order("b", "2025-03-02", 10)]);
    let mut daemon = Daemon::start(&project);
    // Most partitions have no event: they count by their end offsets.
    until_final(&mut daemon, &project, DAY);
    let first = published(&project, "orders", DAY).unwrap();
    assert_eq!((first["late_events"].as_i64(), first["may_change_because"].is_null()), (Some(0), true), "{first:?}");
    assert!(!is_final(&project, "orders", "2025-03-03"), "a day long ago without rows is not listed");
    for late in 0..3 {
        project.send_lines([order(&format!("late-{late}"), DAY, 5)]);
        daemon.until("the late row", |_| count(&project) == 3 + late);
        let counted = |row: Row| row["state"] == "final" && row["late_events"] == late as i64 + 1;
        daemon.until("the day is final again", |_| published(&project, "orders", DAY).is_some_and(counted));
        until_final(&mut daemon, &project, DAY);
    }
    // 100 / 10, and three times 100 / 5.
    assert_eq!(project.query(&format!("SELECT share FROM gold.daily WHERE event_date = '{DAY}'"))[0]["share"], 70);
    daemon.stop();
    let (compared, revoked) = check_no_silent_change(&project);
    println!("{compared} changes of days, {revoked} days called provisional again");
    assert!(revoked >= 6, "three times of both tables: {revoked}");
    // The other day was left alone.
    assert_stays_final(&project, "2025-03-02");
}

/// A day of the orders is final from the first time that it is called so.
#[track_caller]
fn assert_stays_final(project: &Project, day: &str) {
    let states = publications(project);
    let of_day = states.iter().filter(|state| state.table == "orders" && state.day == number_of(day));
    assert!(of_day.skip_while(|state| !state.is_final).all(|state| state.is_final));
}

#[test]
fn a_day_that_is_final_stays_final_over_a_restart() {
    let project = project("days-restart");
    project.send_lines([order("a", DAY, 10)]);
    let mut daemon = Daemon::start(&project);
    until_final(&mut daemon, &project, DAY);
    daemon.stop();
    let daemon = Daemon::start(&project);
    project.send_lines([order("b", "2025-03-05", 10)]);
    until("the other day is final", || is_final(&project, "orders", "2025-03-05"));
    daemon.stop();
    assert_stays_final(&project, DAY);
}

#[test]
fn rejects_in_the_quarantine_keep_their_day_provisional() {
    let project = project("days-quarantine");
    project.send_lines([order("a", DAY, 10)]);
    let mut daemon = Daemon::start(&project);
    until_final(&mut daemon, &project, DAY);
    // A record of that day whose SQL fails.
    let reject = order("zero", DAY, 0);
    let producer = project.producer();
    let at_ms = (number_of(DAY) * 24 + 12) * 60 * 60 * 1000;
    let record = BaseRecord::<(), _>::to(&project.topic).payload(&reject).timestamp(at_ms);
    producer.send(record).map_err(|(failure, _)| failure).unwrap();
    producer.flush(Duration::from_secs(30)).unwrap();
    let waits =
        |row: Row| row["state"] == "provisional" && row["reason"].as_str().is_some_and(|r| r.contains("quarantine"));
    daemon.until("the reject is a reason", |_| published(&project, "orders", DAY).is_some_and(waits));
    daemon.until("gold follows", |_| !is_final(&project, "gold.daily", DAY));
    project
        .replace_in_pipeline("100 / amount AS share", "100 / (CASE WHEN amount = 0 THEN 1 ELSE amount END) AS share");
    daemon.until_logged("a new version is validated", 1);
    project.silverd(&["quarantine", "replay", "--table", "orders"]);
    daemon.until("the replayed row", |_| count(&project) == 2);
    until_final(&mut daemon, &project, DAY);
    daemon.stop();
    check_no_silent_change(&project);
}

#[test]
fn a_rebuild_makes_its_days_provisional_first() {
    let project = project("days-rebuild");
    project.send_lines([order("a", DAY, 10), order("b", "2025-03-02", 10)]);
    let mut daemon = Daemon::start(&project);
    until_final(&mut daemon, &project, DAY);
    until_final(&mut daemon, &project, "2025-03-02");
    project.silverd(&["rebuild", "orders", "--from", DAY, "--to", DAY]);
    until_final(&mut daemon, &project, DAY);
    daemon.stop();
    // Without a daemon, too: then nothing finalizes the day.
    project.silverd(&["rebuild", "orders", "--from", DAY, "--to", DAY]);
    assert!(!is_final(&project, "orders", DAY) && !is_final(&project, "gold.daily", DAY));
    assert!(is_final(&project, "orders", "2025-03-02"));
    let (_, revoked) = check_no_silent_change(&project);
    assert!(revoked >= 3, "{revoked}");
}

#[test]
fn wait_ends_when_the_day_is_final_or_says_why_it_is_not() {
    let project = project("days-wait");
    let wait = |day: &'static str, table: &'static str, timeout: &'static str| {
        ["wait", "--day", day, "--table", table, "--timeout", timeout]
    };
    let errors = project.silverd_fails(&wait(DAY, "orders", "0s"), 3);
    assert!(errors.contains("no state of the day is published"), "{errors}");
    project.send_lines([order("a", DAY, 10)]);
    let mut daemon = Daemon::start(&project);
    let answer = project.silverd(&wait(DAY, "gold.daily", "2m"));
    assert!(answer.contains("2025-03-01 of gold.daily is final"), "{answer}");
    let row = project.silverd(&[&wait(DAY, "orders", "2m")[..], &["--json"]].concat());
    let row: Value = serde_json::from_str(&row).unwrap();
    assert_eq!((row["table"].as_str(), row["state"].as_str()), (Some("orders"), Some("final")), "{row}");
    assert!(row["offsets"].is_object() && row["complete_until"].is_string(), "{row}");
    let today = chrono::DateTime::from_timestamp_millis(row_time(&project)).unwrap().date_naive().to_string();
    daemon.until("today is published", |_| published(&project, "orders", &today).is_some());
    let errors = project.silverd_fails(&wait("today", "orders", "0s"), 3);
    assert!(errors.contains("is not final after 0s: the day ends at"), "{errors}");
    daemon.stop();
    for (day, table, words) in [
        (DAY, "nosuch", "there is no table `nosuch` with days; the tables are orders, gold.daily"),
        (DAY, "bronze", "there is no table `bronze` with days"),
        ("2999-01-01", "orders", "this day has not begun"),
        ("1 March", "orders", "expected a day such as 2026-11-25"),
    ] {
        let errors = project.silverd_fails(&wait(day, table, "0s"), 2);
        assert!(errors.contains(words), "{errors}");
    }
}

/// When the last version of the table was published: by the clock of the daemon.
fn row_time(project: &Project) -> i64 {
    time_of(&actions(entries(&status_path(project)).values().next_back().unwrap()))
}

#[test]
fn no_final_day_changes_silently_after_kills_at_any_moment() {
    let mut rng = StdRng::seed_from_u64(seed());
    let project = project("days-kill");
    project.send_lines([order("first", DAY, 10)]);
    let mut daemon = Daemon::start(&project);
    until_final(&mut daemon, &project, DAY);
    daemon.stop();
    let mut sent = 1;
    let days: Vec<String> = (1..6).map(|day| format!("2025-03-0{day}")).collect();
    let mut send = |rng: &mut StdRng, count: usize| {
        sent += count;
        let id = |at: usize| format!("{sent}-{at}");
        // Late events of all days, and a backfill of the month before.
        let late = (0..count).map(|at| {
            let day = days[rng.random_range(0..days.len())].clone();
            order(&id(at), &if at % 4 == 3 { day.replace("-03-", "-02-") } else { day }, 10)
        });
        project.send_lines(late.collect::<Vec<_>>());
    };
    for kill in 0..8 {
        let daemon = Daemon::start(&project);
        let parts = rng.random_range(1..4);
        for _ in 0..parts {
            send(&mut rng, 8);
            std::thread::sleep(random_time(&mut rng, 900));
        }
        let correction = (kill % 3 == 1).then(|| {
            let mut command = project.command(&["rebuild", "orders", "--log", "error"]);
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap()
        });
        std::thread::sleep(random_time(&mut rng, 900));
        daemon.kill();
        if let Some(mut correction) = correction {
            let _ = correction.kill();
            correction.wait().unwrap();
        }
        check_no_silent_change(&project);
    }
    let mut daemon = Daemon::start(&project);
    daemon.until("every event has its row", |_| count(&project) == sent);
    for day in &days {
        until_final(&mut daemon, &project, day);
    }
    daemon.stop();
    let (compared, revoked) = check_no_silent_change(&project);
    println!("{compared} changes of days, {revoked} days called provisional again");
    assert!(revoked > 0);
    project.silverd(&["verify"]);
}
