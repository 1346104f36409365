//! The Gold tables of the repository's pipeline.toml equal an independent computation for every day, with late events,
//! duplicates, and sessions over midnight.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::harness::{Project, fixture, python, root, rows};

/// The `[gold.…]` sections of the repository's pipeline.toml.
fn gold_sections() -> String {
    let pipeline = std::fs::read_to_string(root().join("pipeline.toml")).unwrap();
    let from = pipeline.find("[gold.").unwrap();
    let to = pipeline.find("\n[panel.").unwrap();
    pipeline[from..to].to_owned()
}

/// The shop with its Gold tables, and more sections.
fn project(name: &str, sections: &str) -> Project {
    let project = Project::new(name, "interval = \"100ms\"\nrows_max = 2000");
    project.append_to_pipeline(&format!("{}\n{sections}", gold_sections()));
    project
}

fn view(user: &str, ts: &str) -> String {
    json!({ "event_type": "page_view", "event_id": format!("{user}-{ts}"), "user_id": user, "ts": ts, "url": "/a" })
        .to_string()
}

fn order(user: &str, ts: &str) -> String {
    let items = json!([{ "sku": "SKU-00001", "qty": 1, "price": 10.5 }]);
    let id = format!("{user}-{ts}");
    json!({
        "event_type": "order_placed", "event_id": id, "order_id": id, "user_id": user, "ts": ts, "total": 10.5,
        "line_items": items,
    })
    .to_string()
}

/// The files of each day of a Gold table, by the log.
fn files(project: &Project, table: &str) -> BTreeMap<String, BTreeSet<String>> {
    let log = project.folder.path().join(format!("data/gold/{table}/_delta_log"));
    let mut entries: Vec<_> = std::fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.retain(|entry| entry.extension().is_some_and(|extension| extension == "json"));
    entries.sort();
    let mut days = BTreeMap::<String, BTreeSet<String>>::new();
    for entry in entries {
        for line in std::fs::read_to_string(entry).unwrap().lines() {
            let action: Value = serde_json::from_str(line).unwrap();
            for (kind, added) in [("add", true), ("remove", false)] {
                let Some(path) = action[kind]["path"].as_str() else { continue };
                let day = path.split('/').next().unwrap().to_owned();
                let files = days.entry(day).or_default();
                assert!(if added { files.insert(path.to_owned()) } else { files.remove(path) }, "{action}");
            }
        }
    }
    days.retain(|_, files| !files.is_empty());
    days
}

fn sessions(project: &Project, user: &str) -> Vec<Value> {
    project.query(&format!(
        "SELECT CAST(event_date AS VARCHAR) AS day, session, pages, orders, converted, continued FROM gold.sessions \
         WHERE user_id = '{user}' ORDER BY event_date, session"
    ))
}

#[test]
fn gold_equals_an_independent_computation() {
    let project = project("gold", "");
    project.send_file(&fixture("shop-events.jsonl"));
    project.generate(&["--count", "3000", "--seed", "11", "--backdate", "2025-08-17"]);
    project.send_lines([
        // 23:50, then 00:10: one session over midnight, with a row on each day. 00:45 is another session.
        view("night", "2025-03-01T23:50:00Z"),
        order("night", "2025-03-02T00:10:00Z"),
        view("night", "2025-03-02T00:45:00Z"),
        // A pause of exactly thirty minutes continues the session; a microsecond more ends it.
        view("edge", "2025-03-03T10:00:00Z"),
        view("edge", "2025-03-03T10:30:00Z"),
        view("edge", "2025-03-03T11:00:00.000001Z"),
        // Two events at the same time, at the start of a session.
        view("twin", "2025-03-03T10:00:00Z"),
        order("twin", "2025-03-03T10:00:00Z"),
    ]);
    project.silverd(&["run", "--drain"]);
    python::check_gold(&project);
    assert_eq!(
        Value::from(sessions(&project, "night")),
        json!([
            { "day": "2025-03-01", "session": 1, "pages": 1, "orders": 0, "converted": false, "continued": false },
            { "day": "2025-03-02", "session": 1, "pages": 0, "orders": 1, "converted": true, "continued": true },
            { "day": "2025-03-02", "session": 2, "pages": 1, "orders": 0, "converted": false, "continued": false },
        ])
    );
    assert_eq!(sessions(&project, "edge").len(), 2);
    assert_eq!(sessions(&project, "twin").len(), 1);
    only_changed_days_are_recomputed(&project);
    recreated_source_is_read_again(&project);
}

/// A late event changes its own day, for sessions also the next day, and no other file.
fn only_changed_days_are_recomputed(project: &Project) {
    let before: BTreeMap<_, _> = ["daily_metrics", "sessions"].map(|table| (table, files(project, table))).into();
    project.silverd(&["run", "--drain"]);
    for (table, files_before) in &before {
        assert_eq!(&files(project, table), files_before, "{table} was recomputed although no event came");
    }
    project.send_lines([view("night", "2025-03-01T23:45:00Z"), view("late", "2025-03-01T12:00:00Z")]);
    project.silverd(&["run", "--drain"]);
    python::check_gold(project);
    let changed = |table: &str| {
        let (before, after) = (&before[table], files(project, table));
        let days: BTreeSet<_> = before.keys().chain(after.keys()).cloned().collect();
        days.into_iter().filter(|day| before.get(day) != after.get(day)).collect::<Vec<_>>()
    };
    assert_eq!(changed("daily_metrics"), ["event_date=2025-03-01"]);
    assert_eq!(changed("sessions"), ["event_date=2025-03-01", "event_date=2025-03-02"]);
    for (day, files) in files(project, "sessions") {
        assert_eq!(files.len(), 1, "{day}");
    }
}

/// A deleted Silver table is filled again from Bronze, with versions from 0.
fn recreated_source_is_read_again(project: &Project) {
    std::fs::remove_dir_all(project.path("order_placed")).unwrap();
    project.silverd(&["run", "--drain"]);
    assert!(!rows(&project.path("order_placed")).is_empty());
    python::check_gold(project);
}

#[test]
fn failing_gold_table_is_reported_and_does_not_stop_the_others() {
    let bad = r#"
[gold.no_date]
sql = "SELECT count(*) AS n FROM page_view"

[gold.nonsense]
sql = "SELECT event_date, nonsense FROM page_view GROUP BY 1, 2"

[gold.of_gold]
sql = "SELECT event_date FROM gold.daily_metrics"
"#;
    let project = project("badgold", bad);
    let errors = project.silverd_fails(&["check"], 2);
    assert!(errors.contains("[gold.of_gold] a Gold table cannot read `gold.daily_metrics`"), "{errors}");
    project.generate(&["--count", "500", "--seed", "3"]);
    let output = project.output(&["run", "--drain"]);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    for words in ["gives no column `event_date`", "nonsense", "cannot read `gold.daily_metrics`"] {
        assert!(log.contains(words), "{words}: {log}");
    }
    python::check_gold(&project);
}

#[test]
fn changed_gold_sql_recomputes_all_days() {
    let project = project("goldsql", "");
    project.generate(&["--count", "500", "--seed", "3"]);
    project.silverd(&["run", "--drain"]);
    assert!(project.query("SELECT count(*) AS n FROM gold.daily_metrics")[0]["n"].as_u64().unwrap() > 0);
    project.replace_in_pipeline(
        "FROM events GROUP BY event_date\"\"\"\n\n[gold.product",
        "FROM events WHERE views > 1 GROUP BY event_date\"\"\"\n\n[gold.product",
    );
    project.silverd(&["run", "--drain"]);
    // Days without rows are removed.
    assert_eq!(project.query("SELECT count(*) AS n FROM gold.daily_metrics")[0]["n"], 0);
}

/// A time that no clock shows is a row like any other, and days that cannot be computed do not stop the others.
#[test]
fn odd_days_stop_no_table() {
    let failing =
        "SELECT event_date, 10 / (CASE WHEN event_date = '2025-03-02' THEN 0 ELSE 1 END) AS ten FROM page_view";
    let project = project("odd-days", &format!("[gold.failing]\nsql = \"{failing}\"\n"));
    project.send_lines([
        view("old", "0001-01-01T00:00:00Z"),
        view("old", "2025-03-01T10:00:00Z"),
        view("old", "9999-12-31T23:59:59.999999Z"),
        view("other", "2025-03-02T10:00:00Z"),
        view("other", "2025-03-03T10:00:00Z"),
    ]);
    project.silverd(&["run", "--drain"]);
    let days: Vec<_> = sessions(&project, "old").iter().map(|row| row["day"].as_str().unwrap().to_owned()).collect();
    assert_eq!(days, ["0001-01-01", "2025-03-01", "9999-12-31"]);
    let computed: Vec<_> = files(&project, "failing").into_keys().collect();
    assert!(computed.contains(&"event_date=2025-03-03".to_owned()), "{computed:?}");
    assert!(!computed.contains(&"event_date=2025-03-02".to_owned()), "{computed:?}");
}
