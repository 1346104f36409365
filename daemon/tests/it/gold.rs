//! The Gold tables of the repository's pipeline.toml: the same as an independent computation, day by day, whatever comes
//! late, twice or over midnight.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use super::harness::{Project, root};
use super::truth;

/// The `[gold.…]` sections as they are shipped.
fn shipped() -> String {
    let pipeline = std::fs::read_to_string(root().join("pipeline.toml")).unwrap();
    let from = pipeline.find("[gold.").unwrap();
    let to = pipeline.find("# The page.").unwrap();
    pipeline[from..to].to_owned()
}

fn project(name: &str, more: &str) -> Project {
    let project = Project::new(name, "interval_ms = 100\nrows_max = 2000");
    let file = project.folder.path().join("pipeline.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}\n{}\n{more}", shipped())).unwrap();
    project
}

fn send(project: &Project, events: &[String]) {
    let file = project.folder.path().join("events.jsonl");
    std::fs::write(&file, events.join("\n")).unwrap();
    project.generate(&["--file", file.to_str().unwrap()]);
}

fn view(user: &str, ts: &str) -> String {
    format!(
        r#"{{"event_type": "page_view", "event_id": "{user}-{ts}", "user_id": "{user}", "ts": "{ts}", "url": "/a"}}"#
    )
}

fn order(user: &str, ts: &str) -> String {
    format!(
        r#"{{"event_type": "order_placed", "event_id": "{user}-{ts}", "order_id": "{user}-{ts}", "user_id": "{user}", "ts": "{ts}", "total": 10.5, "line_items": [{{"sku": "SKU-00001", "qty": 1, "price": 10.5}}]}}"#
    )
}

/// The files of each day of a Gold table, by the log.
fn files(project: &Project, table: &str) -> BTreeMap<String, BTreeSet<String>> {
    let log = project.folder.path().join(format!("data/gold/{table}/_delta_log"));
    let mut names: Vec<_> = std::fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|name| name.extension().is_some_and(|extension| extension == "json"));
    names.sort();
    let mut days = BTreeMap::<String, BTreeSet<String>>::new();
    for name in names {
        for line in std::fs::read_to_string(name).unwrap().lines() {
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

fn python_agrees(project: &Project) {
    let Ok(python) = std::env::var("SILVERD_TEST_PYTHON") else {
        eprintln!("SILVERD_TEST_PYTHON is not set: nobody works the Gold tables out anew");
        return;
    };
    let check =
        Command::new(python).arg(root().join(".ci/check_gold.py")).arg(project.folder.path().join("data")).output();
    let check = check.unwrap();
    let told = String::from_utf8_lossy(&check.stderr);
    assert!(check.status.success(), "{told}{}", String::from_utf8_lossy(&check.stdout));
}

fn sessions(project: &Project, user: &str) -> Vec<Value> {
    let sql = format!(
        "SELECT CAST(event_date AS VARCHAR) AS day, session, pages, orders, converted, continued FROM gold.sessions \
         WHERE user_id = '{user}' ORDER BY event_date, session"
    );
    serde_json::from_str::<Vec<Value>>(&project.silverd(&["query", "--json", &sql])).unwrap()
}

#[test]
fn gold_is_what_silver_says() {
    let project = project("gold", "");
    let sample = root().join("../shared/data/sample-events.jsonl");
    if sample.is_file() {
        project.generate(&["--file", sample.to_str().unwrap()]);
    }
    project.generate(&["--count", "3000", "--seed", "11", "--backdate", "2025-08-17"]);
    send(
        &project,
        &[
            // 23:50, then 00:10: one visit over midnight, a row of either day. 00:45 is another visit.
            view("night", "2025-03-01T23:50:00Z"),
            order("night", "2025-03-02T00:10:00Z"),
            view("night", "2025-03-02T00:45:00Z"),
            // Exactly thirty minutes go on, a microsecond more does not.
            view("edge", "2025-03-03T10:00:00Z"),
            view("edge", "2025-03-03T10:30:00Z"),
            view("edge", "2025-03-03T11:00:00.000001Z"),
            // Twice at the same time, on the first moment of a session.
            view("twin", "2025-03-03T10:00:00Z"),
            order("twin", "2025-03-03T10:00:00Z"),
        ],
    );
    project.silverd(&["run", "--drain"]);
    python_agrees(&project);
    let row = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(
        sessions(&project, "night"),
        [
            row(
                r#"{"day": "2025-03-01", "session": 1, "pages": 1, "orders": 0, "converted": false, "continued": false}"#
            ),
            row(
                r#"{"day": "2025-03-02", "session": 1, "pages": 0, "orders": 1, "converted": true, "continued": true}"#
            ),
            row(
                r#"{"day": "2025-03-02", "session": 2, "pages": 1, "orders": 0, "converted": false, "continued": false}"#
            ),
        ]
    );
    assert_eq!(sessions(&project, "edge").len(), 2);
    assert_eq!(sessions(&project, "twin").len(), 1);
    only_days_that_changed_are_made_anew(&project);
    a_source_that_is_made_anew_is_read_anew(&project);
}

/// A late event changes its own day, and of the sessions the next, and no other file.
fn only_days_that_changed_are_made_anew(project: &Project) {
    let before: BTreeMap<_, _> = ["daily_metrics", "sessions"].map(|table| (table, files(project, table))).into();
    project.silverd(&["run", "--drain"]);
    for (table, files_before) in &before {
        assert_eq!(&files(project, table), files_before, "nothing came, and {table} was made anew");
    }
    send(project, &[view("night", "2025-03-01T23:45:00Z"), view("late", "2025-03-01T12:00:00Z")]);
    project.silverd(&["run", "--drain"]);
    python_agrees(project);
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

/// A Silver table that was removed fills itself from Bronze, with versions that begin anew.
fn a_source_that_is_made_anew_is_read_anew(project: &Project) {
    std::fs::remove_dir_all(project.path("order_placed")).unwrap();
    project.silverd(&["run", "--drain"]);
    truth::rows(&project.path("order_placed"));
    python_agrees(project);
}

#[test]
fn a_bad_model_is_told_and_costs_nothing_else() {
    let bad = r#"
[gold.no_date]
sql = "SELECT count(*) AS n FROM page_view"

[gold.nonsense]
sql = "SELECT event_date, nonsense FROM page_view GROUP BY 1, 2"

[gold.of_gold]
sql = "SELECT event_date FROM gold.daily_metrics"
"#;
    let project = project("badgold", bad);
    let checked = project.output(&["check"]);
    let told = String::from_utf8_lossy(&checked.stderr);
    assert_eq!(checked.status.code(), Some(2), "{told}");
    assert!(told.contains("[gold.of_gold] it cannot be made of `gold.daily_metrics`"), "{told}");
    project.generate(&["--count", "500", "--seed", "3"]);
    let output = project.output(&["run", "--drain"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    for words in ["gives no column `event_date`", "nonsense", "cannot be made of `gold.daily_metrics`"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    python_agrees(&project);

    // Another SQL for the same table makes it anew, without the days that it has no rows for.
    let file = project.folder.path().join("pipeline.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let other = text.replace(
        "FROM events GROUP BY event_date\"\"\"\n\n[gold.product",
        "FROM events WHERE views > 1 GROUP BY event_date\"\"\"\n\n[gold.product",
    );
    assert_ne!(text, other);
    std::fs::write(&file, other).unwrap();
    project.silverd(&["run", "--drain"]);
    let answer = project.silverd(&["query", "--json", "SELECT count(*) AS n FROM gold.daily_metrics"]);
    assert_eq!(answer.trim(), "[{\"n\":0}]");
}
