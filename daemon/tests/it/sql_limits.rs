//! SQL that takes too much memory or time ends with an error that names the limit, and costs nothing else.

use std::time::Duration;

use serde_json::Value;

use super::harness::{Daemon, Project, rows, until};

/// Statements that pass a limit, with the one that they pass.
const STATEMENTS: [(&str, &str); 12] = [
    ("sum_of_repeats", "SELECT sum(length(repeat(url || 'x', 3000000))) AS n FROM page_view"),
    ("one_repeat", "SELECT length(repeat('x', 2000000000)) AS n"),
    ("array_of_a_join", "SELECT array_agg(a.url) AS n FROM page_view a, page_view b, page_view c"),
    ("text_of_a_join", "SELECT length(string_agg(a.url, ',')) AS n FROM page_view a, page_view b, page_view c"),
    (
        "distinct",
        "SELECT count(DISTINCT a.value * 100000 + b.value) AS n FROM generate_series(1, 100000) a, generate_series(1, 100000) b",
    ),
    ("padding", "SELECT max(length(lpad(url, 20000000, 'x'))) AS n FROM page_view"),
    ("long_array", "SELECT array_length(array_repeat(1, 1000000000)) AS n"),
    ("endless_series", "SELECT count(*) AS n FROM generate_series(1, 100000000000)"),
    (
        "endless_recursion",
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) AS n FROM t",
    ),
    (
        "cross_joins",
        "SELECT count(*) AS n FROM page_view a, page_view b, page_view c, page_view d WHERE a.url || b.url || c.url = d.url",
    ),
    (
        "sort_of_a_join",
        "SELECT a.url FROM page_view a, page_view b, page_view c ORDER BY a.url || b.url || c.url DESC LIMIT 400000",
    ),
    (
        "window",
        "SELECT max(n) AS n FROM (SELECT row_number() OVER (ORDER BY a.value % 7, b.value) AS n FROM generate_series(1, 100000) a, generate_series(1, 100000) b)",
    ),
];
const LIMITS: &str = "[limits]\nsql_memory_max = \"96MiB\"\nsql_seconds_max = 3\n";

/// The text names a limit.
fn names_a_limit(text: &str) -> bool {
    text.contains("sql_memory_max = \"96MiB\"") || text.contains("sql_seconds_max = 3 ")
}

fn project(name: &str, sections: &str) -> Project {
    let project = Project::new(name, "interval = \"100ms\"");
    project.append_to_pipeline(&format!("{LIMITS}{sections}"));
    project.generate(&["--count", "2000", "--seed", "7", "--dup-pct", "0"]);
    project
}

#[test]
fn a_query_that_passes_a_limit_ends_with_an_error_that_names_it() {
    let project = project("query-limits", "");
    project.silverd(&["run", "--drain"]);
    for (name, sql) in STATEMENTS {
        let error = project.silverd_fails(&["query", sql], 1);
        assert!(names_a_limit(&error), "{name}: {error}");
    }
    // Another limit, for one query.
    let sql = "SELECT length(repeat('x', 200000000)) AS n";
    project.silverd_fails(&["query", sql], 1);
    project.silverd(&["query", "--memory-max", "1024", sql]);
    // What fits is as right as ever, and integers that do not fit are no wrong numbers.
    let views = rows(&project.path("page_view")).len();
    assert_eq!(project.query("SELECT count(*) AS n FROM page_view")[0]["n"], views);
    let error = project.silverd_fails(&["query", "SELECT 10000000000 * 10000000000"], 1);
    assert!(error.contains("Arithmetic overflow"), "{error}");
    assert_eq!(project.query("SELECT ceil(9007199254740993) AS n")[0]["n"], 9_007_199_254_740_993_i64);
    // A time outside of the calendar is its number, and no error in the place of a value.
    let sql = "SELECT from_unixtime(9223372036854775807) AS t, [from_unixtime(9223372036854775807)] AS times";
    let row = &project.query(sql)[0];
    let number = Value::from("9223372036854775807 s");
    assert_eq!((&row["t"], &row["times"][0]), (&number, &number), "{row}");
    let text = project.silverd(&["query", sql]);
    assert!(text.contains("| 9223372036854775807 s | [9223372036854775807 s] |"), "{text}");
}

#[test]
fn panels_that_pass_a_limit_cost_nothing_else() {
    let panel = |(name, sql): (&str, &str)| format!("[panel.{name}]\nrefresh = \"1s\"\nsql = \"{sql}\"\n\n");
    let panels: String =
        STATEMENTS.into_iter().chain([("good", "SELECT count(*) AS n FROM live.page_view")]).map(panel).collect();
    let project = project("panel-limits", &panels);
    project.replace_in_pipeline("[http]\nlisten = \"off\"\n", "");
    let mut daemon = Daemon::start_with_dashboard(&project);
    daemon.until("the first rows", |_| project.has_table("page_view"));
    let result = |daemon: &Daemon, name: &str| -> Value { daemon.json(&format!("/api/panels/{name}")) };
    for (name, _) in STATEMENTS {
        daemon.until_within(Duration::from_secs(120), name, |daemon| {
            let panel = result(daemon, name);
            panel["state"] == "failing" && names_a_limit(panel["reason"].as_str().unwrap_or_default())
        });
    }
    // The daemon goes on: new rows, a good panel, and little memory.
    project.generate(&["--count", "1000", "--seed", "8", "--dup-pct", "0"]);
    daemon.until_within(Duration::from_secs(120), "a good panel", |daemon| {
        let panel = result(daemon, "good");
        panel["state"] == "ok" && panel["rows"][0][0].as_str().is_some_and(|n| n != "0")
    });
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")).unwrap();
    let mebibytes = peak.trim().parse::<u64>().unwrap() >> 10;
    assert!(mebibytes < 700, "the daemon took {mebibytes} MiB");
    daemon.stop();
}

/// The day of which the SQL takes too much memory is left out, and the others are computed.
#[test]
fn a_day_of_gold_that_passes_a_limit_is_left_out() {
    let view = |id: usize, day: &str| {
        format!(
            r#"{{"event_type": "page_view", "event_id": "e{id}", "user_id": "u{id}", "ts": "{day}T10:00:00Z", "url": "/a"}}"#
        )
    };
    let gold = "[gold.views]\nrefresh = \"1s\"\nsql = \"\"\"\nSELECT event_date, count(*) AS views,\n\
                max(length(repeat(url, CASE WHEN event_date = DATE '2025-03-02' THEN 200000000 ELSE 1 END))) AS n\n\
                FROM page_view GROUP BY event_date\"\"\"\n";
    let project = Project::new("gold-limits", "interval = \"100ms\"");
    project.append_to_pipeline(&format!("{LIMITS}{gold}"));
    project
        .send_lines(["2025-03-01", "2025-03-02", "2025-03-03"].into_iter().enumerate().map(|(id, day)| view(id, day)));
    let mut daemon = Daemon::start(&project);
    daemon.until_logged("2025-03-02: the query needs more memory than sql_memory_max", 1);
    let days = || -> Vec<String> {
        if !project.folder.path().join("data/gold/views/_delta_log").is_dir() {
            return Vec::new();
        }
        let rows = project.query("SELECT CAST(event_date AS VARCHAR) AS day FROM gold.views ORDER BY 1");
        rows.iter().map(|row| row["day"].as_str().unwrap().to_owned()).collect()
    };
    until("the other days", || days() == ["2025-03-01", "2025-03-03"]);
    // A day that changes later is computed, though that one still fails.
    project.send_lines([view(9, "2025-03-04")]);
    until("a later day", || days() == ["2025-03-01", "2025-03-03", "2025-03-04"]);
    daemon.stop();
}
