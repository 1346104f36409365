//! A folder that silverd wrote before its configuration keys and commands were renamed. `fixtures/made_before` has its
//! tables, its kept plugins and its pipeline.toml, written by `silverd demo` from 412 events: those of `shop-events.jsonl`,
//! two that are rejected, and three duplicates.

use serde_json::Value;

use super::harness::{Project, copy_folder, fixture, root};

/// What the old silverd had written.
const ROWS: [(&str, u64); 7] = [
    ("bronze", 412),
    ("page_view", 286),
    ("add_to_cart", 92),
    ("order_placed", 30),
    ("quarantine", 2),
    ("late", 286),
    ("gold.orders_daily", 1),
];

#[test]
fn a_folder_from_before_the_renames_continues() {
    let project = Project::with_sections("before", "");
    copy_folder(fixture("made_before").as_ref(), project.folder.path());
    let old = project.pipeline().replace("@ROOT@", root().to_str().unwrap());
    let old = old.replace("localhost:9092", &project.broker.address()).replace("events.raw", &project.topic);
    project.write_pipeline(&old);

    check_names_every_new_key(&project);
    let fixed = check_fix_keeps_comments(&project);
    for (table, rows) in ROWS {
        assert_eq!(count(&project, table), rows, "{table}");
    }
    // Deep verification transforms Bronze again with the plugins that the old silverd kept.
    project.silverd(&["verify", "--deep"]);
    let history = project.plugin_history("page_view");
    assert_eq!(history.len(), 1, "{history:?}");
    let old_digest = history[0]["digest"].as_str().unwrap();

    project.generate(&["--count", "500", "--seed", "5"]);
    project.silverd(&["run", "--drain"]);
    assert_eq!(count(&project, "bronze"), 912);
    let silver: u64 = ["page_view", "add_to_cart", "order_placed"].iter().map(|table| count(&project, table)).sum();
    assert!(silver > 800, "{silver} rows of 912 events");
    assert!(count(&project, "gold.orders_daily") >= 2);
    project.silverd(&["verify", "--deep"]);

    // A kept plugin of the old silverd still rebuilds the rows that it wrote.
    let rows = count(&project, "page_view");
    project.silverd(&["rebuild", "page_view", "--written-by", old_digest]);
    assert_eq!(count(&project, "page_view"), rows);
    project.silverd(&["verify"]);
    assert_eq!(project.pipeline(), fixed, "no command but `check --fix` writes pipeline.toml");
}

fn check_names_every_new_key(project: &Project) {
    let check = project.output(&["check"]);
    let error = String::from_utf8_lossy(&check.stderr);
    assert_eq!(check.status.code(), Some(2), "{error}");
    for new in ["event_time", "on_data_loss", "interval", "lookback_days", "transform_time_max", "silverd check --fix"]
    {
        assert!(error.contains(new), "{new}: {error}");
    }
}

fn check_fix_keeps_comments(project: &Project) -> String {
    project.silverd(&["check", "--fix"]);
    let fixed = project.pipeline();
    for line in [
        "# A pipeline of silverd 0.1.0, before the keys were renamed.",
        "on_data_loss = \"skip\"",
        "interval = \"250ms\"          # four commits a second",
        "event_time = \"ts\"",
        "lookback_days = 1",
        "transform_time_max = \"2s\"",
    ] {
        assert!(fixed.lines().any(|fixed| fixed == line), "{line}:\n{fixed}");
    }
    project.silverd(&["check", "--fix"]);
    assert_eq!(project.pipeline(), fixed);
    fixed
}

fn count(project: &Project, table: &str) -> u64 {
    let answer = project.silverd(&["query", "--json", &format!("SELECT count(*) AS n FROM {table}")]);
    serde_json::from_str::<Value>(&answer).unwrap()[0]["n"].as_u64().unwrap()
}
