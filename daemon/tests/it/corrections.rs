//! Corrections of history: rebuilds of days, of tables, and of the rows of a plugin version; replays of the quarantine,
//! also when they are killed.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use super::harness::{Project, entries, expected, root, rows};
use super::reload;

/// Days since the epoch.
const FIRST_OF_MARCH_2025: i64 = 20_148;

/// Events of the first three days of March 2025, a hundred an hour.
fn carts() -> impl Iterator<Item = String> {
    (0..7200).map(|at| {
        format!(
            "{{\"event_type\": \"add_to_cart\", \"event_id\": \"cart-{at}\", \"user_id\": \"u\", \"sku\": \"SKU-{:05}\", \
             \"qty\": 1, \"price\": 2.5, \"ts\": \"2025-03-{:02}T{:02}:00:00Z\"}}",
            at % 500 + 1,
            at / 2400 + 1,
            at / 100 % 24
        )
    })
}

/// Lets the plugins use a copy of the products, or one in which every category is `wrong`.
fn set_products(project: &Project, right: bool) {
    let csv = std::fs::read_to_string(root().join("data/reference/products.csv")).unwrap();
    let wrong = |line: &str| format!("{},wrong,x\n", line.split(',').next().unwrap());
    let mut lines = csv.lines();
    let header = lines.next().unwrap();
    let text = if right { csv.clone() } else { format!("{header}\n{}", lines.map(wrong).collect::<String>()) };
    std::fs::write(project.folder.path().join("products.csv"), text).unwrap();
    let shipped = format!("{}/data/reference/products.csv", root().display());
    project.write_pipeline(&project.pipeline().replace(&shipped, "products.csv"));
}

/// The days that have rows with a wrong category.
fn wrong_days(project: &Project, table: &str) -> Vec<i64> {
    let rows = rows(&project.path(table)).into_iter().filter(|row| row["category"] == "wrong");
    let mut days: Vec<i64> = rows.map(|row| row["event_date"].as_i64().unwrap()).collect();
    days.sort_unstable();
    days.dedup();
    days
}

#[test]
fn rebuild_replaces_the_rows_of_some_days_or_all() {
    let project = Project::new("rebuild", "interval = \"100ms\"\nrows_max = 900");
    set_products(&project, false);
    project.send_lines(carts());
    project.generate(&["--count", "3000", "--seed", "4"]);
    project.send_odd_events();
    project.silverd(&["run", "--drain"]);
    let march = [0, 1, 2].map(|day| FIRST_OF_MARCH_2025 + day);
    assert_eq!(wrong_days(&project, "add_to_cart")[..3], march);

    set_products(&project, true);
    let day = ["rebuild", "add_to_cart", "--from", "2025-03-02", "--to", "2025-03-02"];
    let printed = project.silverd(&[&day[..], &["--dry-run"]].concat());
    assert!(printed.contains("would replace 2400 rows by 2400"), "{printed}");
    assert_eq!(wrong_days(&project, "add_to_cart")[..3], march);
    let printed = project.silverd(&day);
    assert!(printed.contains("replaces 2400 rows by 2400"), "{printed}");
    assert_eq!(wrong_days(&project, "add_to_cart")[..2], [march[0], march[2]]);
    project.silverd(&["rebuild", "add_to_cart"]);
    project.silverd(&["rebuild", "order_placed"]);
    assert!(wrong_days(&project, "add_to_cart").is_empty());
    let counts = expected::check(&project);
    project.silverd(&["run", "--drain"]);
    assert_eq!(expected::check(&project), counts, "the daemon continues where it was");

    let errors = project.silverd_fails(&["rebuild", "nonsense"], 2);
    assert!(errors.contains("has no [silver.nonsense]") && errors.contains("page_view, add_to_cart"), "{errors}");
}

/// Installs a plugin with one more custom section, so that it has another digest, which is returned.
fn install_version(project: &Project, plugin: &str, name: &str) -> String {
    let built = root().join(format!("plugins/target/wasm32-unknown-unknown/release/{plugin}.wasm"));
    let mut bytes = std::fs::read(built).unwrap();
    bytes.extend([0, name.len() as u8 + 1, name.len() as u8]);
    bytes.extend(name.as_bytes());
    std::fs::write(project.folder.path().join(format!("{plugin}.wasm")), &bytes).unwrap();
    silverd::plugin::Digest::of(&bytes).as_str().to_owned()
}

#[test]
fn rebuild_replaces_the_rows_of_a_plugin_version() {
    let project = Project::new("undo", "interval = \"100ms\"\nrows_max = 700");
    project.use_plugin_file("add_to_cart", "add_to_cart.wasm");
    install_version(&project, "add_to_cart", "good");
    project.generate(&["--count", "4000", "--seed", "1"]);
    project.silverd(&["run", "--drain"]);
    set_products(&project, false);
    let bad = install_version(&project, "add_to_cart", "bad");
    project.generate(&["--count", "4000", "--seed", "2"]);
    project.silverd(&["run", "--drain"]);
    set_products(&project, true);
    let errors = project.silverd_fails(&["rebuild", "--written-by", &bad[..12]], 1);
    assert!(errors.contains("still runs version"), "{errors}");
    install_version(&project, "add_to_cart", "better");
    project.generate(&["--count", "4000", "--seed", "3"]);
    project.silverd(&["run", "--drain"]);
    assert!(!wrong_days(&project, "add_to_cart").is_empty());

    let printed = project.silverd(&["rebuild", "--written-by", &bad[..12]]);
    assert!(printed.starts_with("add_to_cart: version"), "{printed}");
    assert!(wrong_days(&project, "add_to_cart").is_empty());
    // This table had the wrong products, too.
    project.silverd(&["rebuild", "order_placed"]);
    let counts = expected::check(&project);
    project.silverd(&["run", "--drain"]);
    assert_eq!(expected::check(&project), counts);
    // Also with the earlier name of the command.
    for args in [["rebuild", "--written-by", "00112233"], ["undo", "--plugin", "00112233"]] {
        let errors = project.silverd_fails(&args, 2);
        assert!(errors.contains("no commit of these tables"), "{errors}");
    }
}

/// A pipeline with one table, `hits`, whose plugin panics on the events that `fault` selects.
fn set_fault(project: &Project, fault: &str) {
    project.write_pipeline(&format!(
        "[source]\nbrokers = \"{}\"\ntopic = \"{}\"\n\n[commit]\ninterval = \"50ms\"\nrows_max = 500\n\n\
         [silver.hits]\nplugin = \"{}/plugins/fixtures/hostile\"\n\
         match = {{ field = \"event_type\", equals = \"hit\" }}\nevent_time = \"ts\"\nlate_after = \"1d\"\n\
         dedup = {{ by = [\"event_id\"], within = \"1h\" }}\nsettings = {{ fault = \"panic\", {fault} }}\n",
        project.broker.address(),
        project.topic,
        root().display()
    ));
}

const NO_FAULT: &str = "event = \"none\"";

fn hit(number: i64) -> String {
    format!(
        "{{\"event_type\": \"hit\", \"event_id\": \"hit-{number}\", \"number\": {number}, \
         \"ts\": \"2025-03-{:02}T{:02}:00:00Z\"}}",
        number / 100 % 28 + 1,
        number % 24
    )
}

fn hits(project: &Project) -> usize {
    rows(&project.path("hits")).len()
}

#[test]
fn quarantined_events_become_rows_once_the_plugin_accepts_them() {
    let project = Project::new("replay", "interval = \"100ms\"");
    set_fault(&project, "every = 10");
    let malformed = || "{\"event_type\": \"hit\", \"broken\": tru}".to_owned();
    let events = || (0..2000).map(hit).chain([malformed()]);
    project.send_lines(events());
    project.silverd(&["run", "--drain"]);
    assert_eq!(hits(&project), 1800);
    quarantine_is_listed(&project);

    // The same events again, of which the quarantined ones become rows: their first copies are duplicates then.
    set_fault(&project, NO_FAULT);
    project.send_lines(events());
    project.silverd(&["run", "--drain"]);
    assert_eq!(hits(&project), 2000);
    let printed = project.silverd(&["quarantine", "replay", "--code", "trap"]);
    assert!(printed.contains("hits: 200 of 200 events resolved (0 rows), 0 rejected again"), "{printed}");
    let printed = project.silverd(&["quarantine", "replay"]);
    assert!(printed.contains("hits: 0 of 2 events resolved (0 rows), 2 rejected again"), "{printed}");

    // Without second copies, the quarantined events become rows, once.
    set_fault(&project, "every = 10");
    project.send_lines((5000..6000).map(hit));
    project.silverd(&["run", "--drain"]);
    assert_eq!(hits(&project), 2900);
    let late = rows(&project.path("late")).len();
    set_fault(&project, NO_FAULT);
    let printed = project.silverd(&["quarantine", "replay", "--table", "hits", "--code", "trap"]);
    assert!(printed.contains("hits: 100 of 100 events resolved (100 rows), 0 rejected again"), "{printed}");
    let printed = project.silverd(&["quarantine", "replay", "--code", "trap"]);
    assert!(printed.contains("hits: no unresolved events"), "{printed}");
    assert_eq!(hits(&project), 3000);
    assert_eq!(rows(&project.path("late")).len(), late + 100, "a replayed event is late, too");
    let quarantine = rows(&project.path("quarantine"));
    let resolved_as = |resolution: &str| quarantine.iter().filter(|row| row["resolution"] == resolution).count();
    assert_eq!((resolved_as("duplicate"), resolved_as("row")), (200, 100));
    project.silverd(&["run", "--drain"]);
    assert_eq!(hits(&project), 3000);
}

/// 200 events on which the plugin panicked, and a malformed one.
fn quarantine_is_listed(project: &Project) {
    let listed = project.silverd(&["quarantine", "list", "--json", "--limit", "500"]);
    let listed: Vec<serde_json::Value> = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed.len(), 201);
    let panicked = listed.iter().find(|event| event["code"] == "trap").unwrap();
    let shown = project.silverd(&["quarantine", "show", panicked["id"].as_str().unwrap()]);
    assert!(shown.contains("\"event_type\": \"hit\"") && shown.contains("panicked at"), "{shown}");
    assert!(project.silverd(&["quarantine", "list", "--code", "malformed"]).contains("hits/"));
}

/// Also if a replay is killed between the commit of the rows and the one that marks the events as resolved.
#[test]
fn killed_replays_write_rows_once() {
    let project = Project::new("replay-kill", "interval = \"100ms\"");
    for round in 0..8i64 {
        set_fault(&project, "every = 5");
        project.send_lines((round * 500..(round + 1) * 500).map(hit));
        project.silverd(&["run", "--drain"]);
        set_fault(&project, NO_FAULT);
        // Killed later each time, until a replay ends before it: the kills hit every part of it.
        let mut time = Duration::from_millis(20 + 7 * round as u64);
        loop {
            let mut replay = project.command(&["quarantine", "replay"]).stdout(Stdio::null()).spawn().unwrap();
            std::thread::sleep(time);
            let has_ended = replay.try_wait().unwrap().is_some();
            let _ = replay.kill();
            replay.wait().unwrap();
            project.silverd(&["verify"]);
            if has_ended {
                break;
            }
            time = time * 5 / 4;
        }
        assert!(project.silverd(&["quarantine", "replay"]).contains("hits: no unresolved events"));
        assert_eq!(hits(&project) as i64, (round + 1) * 500);
    }
    let quarantine = rows(&project.path("quarantine"));
    assert_eq!(quarantine.len(), 800);
    assert!(quarantine.iter().all(|row| row["resolution"] == "row"));
}

/// A quarantine may be larger than memory: it is replayed in parts, each in a commit of its own.
#[test]
fn large_quarantines_are_replayed_in_parts() {
    let project = reload::project("replay-parts", "[commit]\ninterval = \"200ms\"\n");
    reload::install(&project, &reload::version("one rejects-all"));
    reload::send(&project, (0..250_000).map(|n| format!("e{n}")));
    project.silverd(&["run", "--drain"]);
    assert_eq!(reload::hits(&project), 0);
    reload::install(&project, &reload::version("two rejects-boom"));
    let printed = project.silverd(&["quarantine", "replay"]);
    assert!(printed.contains("hits: 250000 of 250000 events resolved (250000 rows), 0 rejected again"), "{printed}");
    assert_eq!(reload::hits(&project), 250_000);
    let history = project.query("SELECT count(*) AS n FROM quarantine WHERE resolution = 'row'");
    assert_eq!(history[0]["n"], 250_000);
    project.silverd(&["verify", "--deep"]);
    let is_replay = |entry: &PathBuf| std::fs::read_to_string(entry).unwrap().contains("\"replay\"");
    let commits = entries(&project.path("hits")).into_values().filter(is_replay).count();
    assert!(commits > 1, "{commits} commits");
}
