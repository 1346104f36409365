//! Local days: of Silver and Gold, in queries, and when a table moves to another zone.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, SecondsFormat};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use silverd_core::zone::{TZDATA_VERSION, Zone};

use super::harness::{Daemon, Project, actions, entries, python, rows, seed, until, verify};

/// Shops with their zones, and the year of their events: Apia had no 30 December in 2011.
const SHOPS: [(&str, &str, i32); 5] = [
    ("berlin", "Europe/Berlin", 2025),
    ("new_york", "America/New_York", 2025),
    ("kolkata", "Asia/Kolkata", 2025),
    ("lord_howe", "Australia/Lord_Howe", 2025),
    ("apia", "Pacific/Apia", 2011),
];
/// The days of the year with events, apart from those on which a zone changes its offset.
const RANDOM_DAYS: usize = 40;
const EVENTS_A_DAY: usize = 60;
const SECOND: i64 = 1_000_000;

/// A table of a shop's orders, by SQL, with further keys; and a Gold table of its days.
fn shop(name: &str, keys: &str) -> String {
    format!(
        r#"
[silver.{name}]
match = {{ field = "shop", equals = "{name}" }}
event_time = "ts"
input = {{ event_id = "string", ts = "timestamp", total = "money" }}
sql = "SELECT event_id, ts, total FROM event"
{keys}
[gold.{name}_days]
sql = """
SELECT event_date, count(*) AS orders, CAST(sum(total) AS DECIMAL(18, 2)) AS revenue,
  date_trunc('day', min(ts)) AS starts_at
FROM {name} GROUP BY event_date
"""
"#
    )
}

fn order(shop: &str, id: &str, micros: i64, cents: u32) -> String {
    let ts = DateTime::from_timestamp_micros(micros).unwrap().to_rfc3339_opts(SecondsFormat::Micros, true);
    format!(r#"{{"shop": "{shop}", "event_id": "{id}", "ts": "{ts}", "total": {}.{:02}}}"#, cents / 100, cents % 100)
}

/// Days since the epoch.
fn day(date: NaiveDate) -> i32 {
    i32::try_from(date.signed_duration_since(NaiveDate::default()).num_days()).unwrap()
}

/// A year's events of a shop: on random days and on those on which the offset changes, each close to its midnights, in
/// the hours around them, or at any time.
fn orders(random: &mut StdRng, shop: &str, zone: Zone, year: i32) -> Vec<String> {
    let first = day(NaiveDate::from_ymd_opt(year, 1, 1).unwrap());
    let offset = |day: i32| zone.offset_micros(i64::from(day) * 86_400 * SECOND);
    let mut days: Vec<i32> = (first..first + 365).filter(|day| offset(*day) != offset(day + 1)).collect();
    days.extend((0..RANDOM_DAYS).map(|_| first + random.random_range(0..365)));
    let mut lines = Vec::new();
    for day in days {
        for _ in 0..EVENTS_A_DAY {
            let (start, end) = (zone.start_of_day(day), zone.end_of_day(day));
            let micros = match random.random_range(0..4) {
                0 => start + random.random_range(-5..5),
                1 => end + random.random_range(-5..5),
                2 => start + random.random_range(-4 * 3_600..4 * 3_600) * SECOND,
                _ => start + random.random_range(0..24 * 3_600 * SECOND),
            };
            let id = format!("{shop}-{}", lines.len());
            lines.push(order(shop, &id, micros, random.random_range(1..100_000)));
        }
    }
    lines
}

/// The day of each event of a table, as in its `event_date`.
fn days_of(project: &Project, table: &str) -> BTreeMap<String, String> {
    let date = |row: &Value| (NaiveDate::default() + chrono::Days::new(row.as_u64().unwrap())).to_string();
    let rows = rows(&project.path(table)).into_iter();
    rows.map(|row| (row["event_id"].as_str().unwrap().to_owned(), date(&row["event_date"]))).collect()
}

/// The rows are those that Bronze gives, on the days that these have in the table's zone.
#[track_caller]
fn check_verified(project: &Project) {
    let (report, code) = verify(project.folder.path(), &["--deep"]);
    assert_eq!(code, Some(0), "{report:#}");
}

#[test]
fn local_days_equal_an_independent_computation() {
    let mut random = StdRng::seed_from_u64(seed());
    let shops: String = SHOPS.map(|(name, zone, _)| shop(name, &format!("time_zone = \"{zone}\""))).concat();
    // Gold's zone is that of its sources.
    let gold = |text: String, (name, zone, _): (&str, &str, i32)| {
        text.replace(&format!("[gold.{name}_days]"), &format!("[gold.{name}_days]\ntime_zone = \"{zone}\""))
    };
    let shops = SHOPS.into_iter().fold(shops, gold);
    let project = Project::with_topic("zones", &format!("[commit]\nfsync = false\n{shops}"));
    let mut lines = Vec::new();
    for (name, zone, year) in SHOPS {
        lines.extend(orders(&mut random, name, Zone::parse(zone).unwrap(), year));
    }
    project.send_lines(lines);
    project.silverd(&["check"]);
    project.silverd(&["run", "--drain"]);
    let zones: serde_json::Map<String, Value> =
        SHOPS.map(|(name, zone, _)| (name.to_owned(), json!(zone))).into_iter().collect();
    let events = project.folder.path().join("events.jsonl");
    let (events, zones) = (events.to_str().unwrap(), Value::Object(zones).to_string());
    let Some(expected) = python::run("local_days.py", &[TZDATA_VERSION, events, &zones]) else { return };
    let expected: Value = serde_json::from_slice(&expected).unwrap();
    for (name, zone, _) in SHOPS {
        let days: BTreeMap<String, String> = serde_json::from_value(expected[name]["day"].clone()).unwrap();
        assert_eq!(days_of(&project, name), days, "{name}");
        let gold = project.query(&format!(
            "SELECT CAST(event_date AS VARCHAR) AS day, orders, CAST(revenue * 100 AS BIGINT) AS cents, \
             CAST(starts_at AS DATE) = event_date AS starts FROM gold.{name}_days"
        ));
        let found: BTreeMap<String, Value> = gold
            .iter()
            .map(|row| (row["day"].as_str().unwrap().to_owned(), json!([row["orders"], row["cents"]])))
            .collect();
        assert_eq!(json!(found), expected[name]["days"], "{name}");
        assert!(gold.iter().all(|row| row["starts"] == true), "{name}");
        let hours = project.query(&format!("SELECT date_part('hour', ts) AS h, count(*) AS n FROM {name} GROUP BY 1"));
        let hours: BTreeMap<String, Value> = hours.iter().map(|row| (row["h"].to_string(), row["n"].clone())).collect();
        assert_eq!(json!(hours), expected[name]["hours"], "{name}");
        let other_days = format!(
            "SELECT count(*) AS n FROM {name} WHERE CAST(ts AS DATE) <> event_date OR date_trunc('day', ts) > ts \
             OR ts < event_date OR CAST(date_bin(INTERVAL '1 day', ts) AS DATE) <> event_date"
        );
        assert_eq!(project.query(&other_days), [json!({ "n": 0 })], "{name}");
        // Filters by time skip files by statistics, which say UTC.
        for day in days.values().take(1) {
            let next = day.parse::<NaiveDate>().unwrap() + chrono::Days::new(1);
            let sql = format!("SELECT count(*) AS n FROM {name} WHERE ts >= DATE '{day}' AND ts < DATE '{next}'");
            assert_eq!(project.query(&sql)[0]["n"], expected[name]["days"][day][0], "{day} in {zone}");
        }
    }
    assert!(days_of(&project, "apia").values().all(|day| day != "2011-12-30"));
    check_verified(&project);
}

/// The zone in the newest metadata of a table's log; `null` for UTC.
fn zone_property(project: &Project, table: &str) -> Value {
    let newest = |log: BTreeMap<u64, std::path::PathBuf>| {
        let actions = log.into_values().flat_map(|entry| actions(&entry));
        let mut metadata = actions.filter_map(|action| action.get("metaData").cloned());
        let metadata = metadata.next_back().unwrap();
        let zone = metadata["configuration"]["silverd.timeZone"].clone();
        let comment = format!("Day of the event, {}.", zone.as_str().unwrap_or("UTC"));
        assert!(metadata["schemaString"].as_str().unwrap().contains(&comment), "{metadata}");
        zone
    };
    let path = match table.strip_prefix("gold.") {
        Some(gold) => project.folder.path().join("data/gold").join(gold),
        None => project.path(table),
    };
    newest(entries(&path))
}

/// 23:30 and 00:30 in Berlin, twice the same day in UTC.
fn night() -> Vec<String> {
    ["2025-03-01T22:30:00Z", "2025-03-01T23:30:00Z", "2025-07-01T21:30:00Z", "2025-07-01T22:30:00Z"]
        .iter()
        .enumerate()
        .map(|(at, ts)| {
            order("berlin", &format!("e{at}"), DateTime::parse_from_rfc3339(ts).unwrap().timestamp_micros(), 100)
        })
        .collect()
}

fn days(project: &Project, table: &str) -> Vec<Value> {
    project.query(&format!("SELECT CAST(event_date AS VARCHAR) AS day FROM {table} ORDER BY 1"))
}

fn expected_days(days: &[&str]) -> Vec<Value> {
    days.iter().map(|day| json!({ "day": day })).collect()
}

#[test]
fn a_table_moves_to_another_zone_by_one_rebuild() {
    let sections = format!("[maintenance]\nenabled = false\n{}", shop("berlin", ""));
    let project = Project::with_topic("zone-moves", &sections);
    project.send_lines(night());
    project.silverd(&["run", "--drain"]);
    assert_eq!(days(&project, "gold.berlin_days"), expected_days(&["2025-03-01", "2025-07-01"]));
    assert_eq!(zone_property(&project, "berlin"), Value::Null);
    project.write_pipeline(&format!("time_zone = \"Europe/Berlin\"\n\n{}", project.pipeline()));

    // Refused, with the plan, and nothing is written.
    let version = *entries(&project.path("berlin")).last_key_value().unwrap().0;
    let plan = "the days of table berlin are those of UTC, and pipeline.toml asks for those of Europe/Berlin";
    for (command, code) in [(&["check"][..], 2), (&["run", "--drain"][..], 1)] {
        let errors = project.silverd_fails(command, code);
        assert!(errors.contains(plan) && errors.contains("silverd rebuild berlin"), "{command:?}: {errors}");
    }
    let errors = project.silverd_fails(&["rebuild", "berlin", "--from", "2025-03-01"], 1);
    assert!(errors.contains(plan), "{errors}");
    assert_eq!(*entries(&project.path("berlin")).last_key_value().unwrap().0, version);
    assert_eq!(days(&project, "berlin"), expected_days(&["2025-03-01", "2025-03-01", "2025-07-01", "2025-07-01"]));
    check_verified(&project);
    let kinds = |report: &Value| report["findings"].to_string().matches("other-time-zone").count();
    let (report, _) = verify(project.folder.path(), &[]);
    assert_eq!(kinds(&report), 1, "{report:#}");

    let out = project.silverd(&["rebuild", "berlin", "--dry-run"]);
    assert!(out.contains("all rows would have their days in Europe/Berlin"), "{out}");
    let out = project.silverd(&["rebuild", "berlin"]);
    assert!(out.contains("all rows have their days in Europe/Berlin"), "{out}");
    let log = entries(&project.path("berlin"));
    assert_eq!(*log.last_key_value().unwrap().0, version + 1, "one commit");
    assert_eq!(zone_property(&project, "berlin"), "Europe/Berlin");
    let (report, _) = verify(project.folder.path(), &[]);
    assert_eq!(kinds(&report), 0, "{report:#}");
    let local = ["2025-03-01", "2025-03-02", "2025-07-01", "2025-07-02"];
    assert_eq!(days(&project, "berlin"), expected_days(&local));

    // Gold follows, in one commit, too.
    let gold = project.folder.path().join("data/gold/berlin_days");
    let before = entries(&gold).len();
    project.silverd(&["check"]);
    project.silverd(&["run", "--drain"]);
    assert_eq!(entries(&gold).len(), before + 1);
    assert_eq!(days(&project, "gold.berlin_days"), expected_days(&local));
    assert_eq!(zone_property(&project, "gold.berlin_days"), "Europe/Berlin");
    let starts =
        project.query("SELECT CAST(starts_at AS VARCHAR) AS at FROM gold.berlin_days ORDER BY event_date LIMIT 1");
    assert_eq!(starts, [json!({ "at": "2025-03-01T00:00:00+01:00" })]);
    check_verified(&project);

    // And back.
    project.replace_in_pipeline("Europe/Berlin", "UTC");
    project.silverd(&["rebuild", "berlin"]);
    project.silverd(&["run", "--drain"]);
    assert_eq!(zone_property(&project, "berlin"), Value::Null);
    assert_eq!(days(&project, "gold.berlin_days"), expected_days(&["2025-03-01", "2025-07-01"]));
}

/// More days than one request computes.
#[test]
fn a_gold_table_of_many_days_moves_in_one_commit() {
    const DAYS: i64 = 70;
    let sections = format!("[maintenance]\nenabled = false\n{}", shop("berlin", ""));
    let project = Project::with_topic("zone-moves-many", &sections);
    let first = DateTime::parse_from_rfc3339("2025-01-01T23:30:00Z").unwrap().timestamp_micros();
    let micros = |day: i64| first + day * 86_400 * SECOND;
    project.send_lines((0..DAYS).map(|day| order("berlin", &format!("e{day}"), micros(day), 100)));
    project.silverd(&["run", "--drain"]);
    project.write_pipeline(&format!("time_zone = \"Europe/Berlin\"\n\n{}", project.pipeline()));
    project.silverd(&["rebuild", "berlin"]);
    let gold = project.folder.path().join("data/gold/berlin_days");
    let before = entries(&gold).len();
    project.silverd(&["run", "--drain"]);
    assert_eq!(entries(&gold).len(), before + 1);
    let sql = "SELECT count(*) AS n, CAST(min(event_date) AS VARCHAR) AS first FROM gold.berlin_days";
    assert_eq!(project.query(sql), [json!({ "n": DAYS, "first": "2025-01-02" })]);
}

#[test]
fn a_running_daemon_writes_the_table_again_after_the_rebuild() {
    let project = Project::with_topic("zone-running", &shop("berlin", ""));
    project.send_lines(night());
    let mut daemon = Daemon::start(&project);
    daemon.until("the first rows", |_| project.has_table("berlin") && rows(&project.path("berlin")).len() == 4);
    project.write_pipeline(&format!("time_zone = \"Europe/Berlin\"\n\n{}", project.pipeline()));
    daemon.until_logged("the days of table berlin are those of UTC", 1);
    project.send_lines([order("berlin", "e4", 1_740_871_800 * SECOND, 100)]);
    daemon.until("bronze is written meanwhile", |_| project.bronze_rows() == 5);
    project.silverd(&["rebuild", "berlin"]);
    daemon.until("the event that arrived meanwhile", |_| rows(&project.path("berlin")).len() == 5);
    assert_eq!(days_of(&project, "berlin")["e4"], "2025-03-02");
    assert_eq!(days_of(&project, "berlin")["e1"], "2025-03-02");
}

#[test]
fn a_gold_table_needs_the_zone_of_its_sources() {
    let project = Project::with_topic("zone-gold", &shop("berlin", "time_zone = \"Europe/Berlin\""));
    let errors = project.silverd_fails(&["check"], 2);
    assert!(errors.contains("its days are those of UTC, and those of `berlin` are Europe/Berlin's"), "{errors}");
    project.replace_in_pipeline("[gold.berlin_days]", "[gold.berlin_days]\ntime_zone = \"Europe/Berlin\"");
    project.silverd(&["check"]);
}

/// A duplicate on the other side of midnight is found, and a late event is on its own day.
#[test]
fn duplicates_and_late_events_over_midnight() {
    let keys = "dedup = { by = [\"event_id\"], within = \"1h\" }\nlate_after = \"1h\"\ntime_zone = \"Europe/Berlin\"";
    let sections =
        shop("berlin", keys).replace("[gold.berlin_days]", "[gold.berlin_days]\ntime_zone = \"Europe/Berlin\"");
    let project = Project::with_topic("zone-dedup", &sections);
    let at = |ts: &str| DateTime::parse_from_rfc3339(ts).unwrap().timestamp_micros();
    project.send_lines([order("berlin", "a", at("2025-03-29T22:59:59Z"), 100)]);
    project.silverd(&["run", "--drain"]);
    project.send_lines([
        // Within an hour: a duplicate, on another day.
        order("berlin", "a", at("2025-03-29T23:00:01Z"), 100),
        order("berlin", "b", at("2025-03-29T23:00:00Z"), 100),
    ]);
    project.silverd(&["run", "--drain"]);
    let days = days_of(&project, "berlin");
    assert_eq!(json!(days), json!({ "a": "2025-03-29", "b": "2025-03-30" }));
    assert_eq!(project.query("SELECT count(*) AS n FROM late"), [json!({ "n": 2 })]);
    check_verified(&project);
}

/// The dashboard says its zone, which panels follow, also for rows in memory.
#[test]
fn the_dashboard_has_the_zone_of_the_pipeline() {
    let panels = r#"
[panel.now]
sql = "SELECT arrow_typeof(now()) LIKE '%Asia/Kolkata%' AS is_local, current_date = CAST(now() AS DATE) AS is_today"
[panel.live]
sql = "SELECT DISTINCT arrow_typeof(ts) LIKE '%Asia/Kolkata%' AS is_local, date_part('hour', ts) AS hour FROM live.kolkata"
refresh = "1s"
"#;
    let project = Project::with_topic("zone-dashboard", &format!("{}{panels}", shop("kolkata", "")));
    project.replace_in_pipeline("[http]\nlisten = \"off\"\n", "");
    project.write_pipeline(&format!("time_zone = \"Asia/Kolkata\"\n\n{}", project.pipeline()));
    let daemon = Daemon::start_with_dashboard(&project);
    assert_eq!(daemon.json("/api/status")["time_zone"], "Asia/Kolkata");
    let rows_of = |panel: &str| daemon.json(&format!("/api/panels/{panel}"))["rows"].clone();
    until("a result of the panel", || rows_of("now") == json!([[true, true]]));
    let mut sent = 0;
    until("rows in memory", || {
        // 00:40 in UTC.
        project.send_lines([order("kolkata", &format!("e{sent}"), 1_740_789_600 * SECOND, 100)]);
        sent += 1;
        rows_of("live") == json!([[true, "6"]])
    });
}
