//! History made anew: rebuilds, undone versions and replayed rejects, by the real binary, beside a running daemon and under
//! `kill -9`.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use super::harness::{Project, root};
use super::truth;

/// Events of three days in March 2025, a hundred an hour, in the carts of one user.
fn carts(project: &Project) -> PathBuf {
    let file = project.folder.path().join("carts.jsonl");
    let event = |at: i64| {
        format!(
            "{{\"event_type\": \"add_to_cart\", \"event_id\": \"cart-{at}\", \"user_id\": \"u\", \"sku\": \"SKU-{:05}\", \
             \"qty\": 1, \"price\": 2.5, \"ts\": \"2025-03-{:02}T{:02}:00:00Z\"}}\n",
            at % 500 + 1,
            at / 2400 + 1,
            at / 100 % 24
        )
    };
    std::fs::write(&file, (0..7200).map(event).collect::<String>()).unwrap();
    file
}

/// Puts products of wrong categories, or the right ones, in the place that pipeline.toml names.
fn products(project: &Project, right: bool) {
    let csv = std::fs::read_to_string(root().join("data/reference/products.csv")).unwrap();
    let wrong = |line: &str| format!("{},wrong,x\n", line.split(',').next().unwrap());
    let mut lines = csv.lines();
    let header = lines.next().unwrap();
    let text = if right { csv.clone() } else { format!("{header}\n{}", lines.map(wrong).collect::<String>()) };
    std::fs::write(project.folder.path().join("products.csv"), text).unwrap();
    let pipeline = project.folder.path().join("pipeline.toml");
    let text = std::fs::read_to_string(&pipeline).unwrap();
    let there = format!("{}/data/reference/products.csv", root().display());
    std::fs::write(&pipeline, text.replace(&there, "products.csv")).unwrap();
}

/// The days of the rows whose category is wrong.
fn wrong_days(project: &Project, table: &str) -> Vec<i64> {
    let rows = truth::rows(&project.path(table)).into_iter();
    let mut days: Vec<i64> =
        rows.filter(|row| row["category"] == "wrong").map(|row| row["event_date"].as_i64().unwrap()).collect();
    days.dedup();
    days.sort_unstable();
    days.dedup();
    days
}

#[test]
fn a_rebuild_replaces_some_days_or_all() {
    let project = Project::new("rebuild", "interval_ms = 100\nrows_max = 900");
    products(&project, false);
    project.generate(&["--file", carts(&project).to_str().unwrap()]);
    project.generate(&["--count", "3000", "--seed", "4"]);
    super::pipeline::send_odd_ones(&project);
    project.silverd(&["run", "--drain"]);
    const MARCH: i64 = 20_148;
    assert_eq!(wrong_days(&project, "add_to_cart")[..3], [MARCH, MARCH + 1, MARCH + 2]);

    products(&project, true);
    let told = project.silverd(&["rebuild", "add_to_cart", "--from", "2025-03-02", "--to", "2025-03-02", "--dry-run"]);
    assert!(told.contains("would replace 2400 rows by 2400"), "{told}");
    assert_eq!(wrong_days(&project, "add_to_cart")[..3], [MARCH, MARCH + 1, MARCH + 2]);
    let told = project.silverd(&["rebuild", "add_to_cart", "--from", "2025-03-02", "--to", "2025-03-02"]);
    assert!(told.contains("replaces 2400 rows by 2400"), "{told}");
    assert_eq!(wrong_days(&project, "add_to_cart")[..2], [MARCH, MARCH + 2]);
    project.silverd(&["rebuild", "add_to_cart"]);
    project.silverd(&["rebuild", "order_placed"]);
    assert!(wrong_days(&project, "add_to_cart").is_empty());
    let counts = truth::check(&project);
    project.silverd(&["run", "--drain"]);
    assert_eq!(truth::check(&project), counts, "the daemon goes on where it was");

    let failed = project.output(&["rebuild", "nonsense"]);
    assert_eq!(failed.status.code(), Some(1));
    let told = String::from_utf8_lossy(&failed.stderr);
    assert!(told.contains("has no [silver.nonsense]") && told.contains("page_view, add_to_cart"), "{told}");
}

/// A component with another digest: a section with a name, which changes nothing else.
fn version(project: &Project, plugin: &str, name: &str) -> String {
    let built = root().join(format!("plugins/target/wasm32-unknown-unknown/release/{plugin}.wasm"));
    let mut bytes = std::fs::read(built).unwrap();
    bytes.extend([0, name.len() as u8 + 1, name.len() as u8]);
    bytes.extend(name.as_bytes());
    let file = format!("{plugin}.wasm");
    std::fs::write(project.folder.path().join(&file), &bytes).unwrap();
    let pipeline = project.folder.path().join("pipeline.toml");
    let text = std::fs::read_to_string(&pipeline).unwrap();
    std::fs::write(&pipeline, text.replace(&format!("{}/plugins/{plugin}", root().display()), &file)).unwrap();
    silverd::transform::Digest::of(&bytes).as_str().to_owned()
}

#[test]
fn what_a_bad_version_made_is_undone() {
    let project = Project::new("undo", "interval_ms = 100\nrows_max = 700");
    version(&project, "add_to_cart", "good");
    project.generate(&["--count", "4000", "--seed", "1"]);
    project.silverd(&["run", "--drain"]);
    products(&project, false);
    let bad = version(&project, "add_to_cart", "bad");
    project.generate(&["--count", "4000", "--seed", "2"]);
    project.silverd(&["run", "--drain"]);
    products(&project, true);
    let refused = project.output(&["undo", "--plugin", &bad[..12]]);
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(told.contains("still runs version"), "{told}");
    version(&project, "add_to_cart", "better");
    project.generate(&["--count", "4000", "--seed", "3"]);
    project.silverd(&["run", "--drain"]);
    assert!(!wrong_days(&project, "add_to_cart").is_empty());

    let told = project.silverd(&["undo", "--plugin", &bad[..12]]);
    project.silverd(&["rebuild", "order_placed"]); // which had the wrong products, too
    assert!(told.starts_with("add_to_cart: version"), "{told}");
    assert!(wrong_days(&project, "add_to_cart").is_empty());
    let counts = truth::check(&project);
    project.silverd(&["run", "--drain"]);
    assert_eq!(truth::check(&project), counts);
    let refused = project.output(&["undo", "--plugin", "00112233"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no commit of these tables"));
}

/// A pipeline with one table, `hits`, whose plugin panics on every tenth event as long as it is asked to.
fn hits(project: &Project, fault: &str) {
    let text = format!(
        "[source]\nbrokers = \"{}\"\ntopic = \"{}\"\n\n[commit]\ninterval_ms = 50\nrows_max = 500\n\n\
         [silver.hits]\nplugin = \"{}/plugins/fixtures/hostile\"\n\
         match = {{ field = \"event_type\", equals = \"hit\" }}\nevent_date = \"ts\"\nlate_after = \"1d\"\n\
         dedup = {{ by = [\"event_id\"], within = \"1h\" }}\nsettings = {{ fault = \"panic\", {fault} }}\n",
        project.broker.address(),
        project.topic,
        root().display()
    );
    std::fs::write(project.folder.path().join("pipeline.toml"), text).unwrap();
}

#[test]
fn quarantined_events_are_replayed_once_the_plugin_takes_them() {
    let project = Project::new("replay", "interval_ms = 100");
    hits(&project, "every = 10");
    let file = project.folder.path().join("hits.jsonl");
    let event = |number: i64| {
        format!(
            "{{\"event_type\": \"hit\", \"event_id\": \"hit-{number}\", \"number\": {number}, \
             \"ts\": \"2025-03-01T{:02}:00:00Z\"}}\n",
            number / 100 % 24
        )
    };
    // The last event is quarantined, and comes again: the second copy is a row by the time that the first is replayed.
    let text: String = (0..2000).map(event).collect::<String>() + "{\"event_type\": \"hit\", \"broken\": tru}\n";
    std::fs::write(&file, text).unwrap();
    project.generate(&["--file", file.to_str().unwrap()]);
    project.silverd(&["run", "--drain"]);
    assert_eq!(truth::rows(&project.path("hits")).len(), 1800);
    let listed: Value =
        serde_json::from_str(&project.silverd(&["quarantine", "list", "--json", "--limit", "500"])).unwrap();
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), 201);
    let panicked = listed.iter().find(|event| event["code"] == "trap").unwrap();
    let shown = project.silverd(&["quarantine", "show", panicked["id"].as_str().unwrap()]);
    assert!(shown.contains("\"event_type\": \"hit\"") && shown.contains("panicked at"), "{shown}");
    assert!(project.silverd(&["quarantine", "list", "--code", "malformed"]).contains("hits/"));

    hits(&project, "event = \"none\"");
    project.generate(&["--file", file.to_str().unwrap()]);
    project.silverd(&["run", "--drain"]);
    assert_eq!(truth::rows(&project.path("hits")).len(), 2000, "the second copies of what was quarantined are rows");
    let told = project.silverd(&["quarantine", "replay", "--code", "trap"]);
    assert!(told.contains("hits: 200 of 200 events resolved (0 rows), 0 rejected again"), "{told}");
    let told = project.silverd(&["quarantine", "replay"]);
    assert!(told.contains("hits: 0 of 2 events resolved (0 rows), 2 rejected again"), "{told}");

    // The same without second copies: rows, once, however often it is asked for.
    let other = project.folder.path().join("others.jsonl");
    std::fs::write(&other, (5000..6000).map(event).collect::<String>()).unwrap();
    hits(&project, "every = 10");
    project.generate(&["--file", other.to_str().unwrap()]);
    project.silverd(&["run", "--drain"]);
    assert_eq!(truth::rows(&project.path("hits")).len(), 2900);
    let late = truth::rows(&project.path("late")).len();
    hits(&project, "event = \"none\"");
    let told = project.silverd(&["quarantine", "replay", "--table", "hits", "--code", "trap"]);
    assert!(told.contains("hits: 100 of 100 events resolved (100 rows), 0 rejected again"), "{told}");
    assert!(project.silverd(&["quarantine", "replay", "--code", "trap"]).contains("hits: nothing waits"));
    assert_eq!(truth::rows(&project.path("hits")).len(), 3000);
    assert_eq!(truth::rows(&project.path("late")).len(), late + 100, "a row that comes by a replay is late, too");
    let resolved = truth::rows(&project.path("quarantine"));
    let how = |of: &str| resolved.iter().filter(|row| row["resolution"] == of).count();
    assert_eq!((how("duplicate"), how("row")), (200, 100));
    project.silverd(&["run", "--drain"]);
    assert_eq!(truth::rows(&project.path("hits")).len(), 3000);
}

/// Replays that are killed at any moment, one after the other: each event that passes is a row once, whether or not its mark
/// in the quarantine came to be.
#[test]
fn replays_that_are_killed_make_rows_once() {
    let project = Project::new("replay-kill", "interval_ms = 100");
    hits(&project, "every = 5");
    let file = project.folder.path().join("hits.jsonl");
    let event = |number: i64| {
        format!(
            "{{\"event_type\": \"hit\", \"event_id\": \"hit-{number}\", \"number\": {number}, \
             \"ts\": \"2025-03-{:02}T{:02}:00:00Z\"}}\n",
            number / 100 % 28 + 1,
            number % 24
        )
    };
    for round in 0..8i64 {
        hits(&project, "every = 5");
        std::fs::write(&file, (round * 500..(round + 1) * 500).map(event).collect::<String>()).unwrap();
        project.generate(&["--file", file.to_str().unwrap()]);
        project.silverd(&["run", "--drain"]);
        hits(&project, "event = \"none\"");
        // Later and later, until one comes to its end: in every part of its way there is a kill.
        let mut patience = Duration::from_millis(20 + 7 * round as u64);
        loop {
            let mut replay = project.command(&["quarantine", "replay"]).stdout(Stdio::null()).spawn().unwrap();
            std::thread::sleep(patience);
            let ended = replay.try_wait().unwrap().is_some();
            let _ = replay.kill();
            replay.wait().unwrap();
            project.silverd(&["verify"]);
            if ended {
                break;
            }
            patience = patience * 5 / 4;
        }
        assert!(project.silverd(&["quarantine", "replay"]).contains("hits: nothing waits"));
        assert_eq!(truth::rows(&project.path("hits")).len() as i64, (round + 1) * 500);
    }
    let quarantine = truth::rows(&project.path("quarantine"));
    assert_eq!(quarantine.len(), 800);
    assert!(quarantine.iter().all(|row| row["resolution"] == "row"));
}
