//! Corrections of history: rebuilds of days, of tables, and of the rows of a plugin version, also with the version of an
//! earlier time; replays of the quarantine, also when they are killed.

use std::ops::Range;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use serde_json::Value;

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

/// Lets the plugins use a copy of the products, or one in which every category is `wrong`, except for the products of the
/// plugins' own cases.
fn set_products(project: &Project, right: bool) {
    let csv = std::fs::read_to_string(root().join("data/reference/products.csv")).unwrap();
    let wrong = |line: &str| match line.split(',').next().unwrap() {
        "SKU-00001" | "SKU-00412" => format!("{line}\n"),
        sku => format!("{sku},wrong,x\n"),
    };
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
    let errors = project.silverd_fails(&["rebuild", "--written-by", &bad[..12]], 1);
    assert!(errors.contains("still runs version"), "{errors}");
    set_products(&project, true);
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

/// A table `hits` whose rows hold the contents of the reference file given.txt.
fn project_with_given(name: &str) -> Project {
    let project = reload::project(name, "[commit]\ninterval = \"100ms\"\n");
    let time = "event_time = \"ts\"\n";
    project.replace_in_pipeline(time, &format!("{time}reference = {{ given = \"given.txt\" }}\n"));
    project
}

/// Writes rows of these events with this reference file. Returns what `plugin history` says of the version.
fn serve(project: &Project, given: &str, events: Range<u32>) -> Value {
    std::fs::write(project.folder.path().join("given.txt"), given).unwrap();
    reload::send(project, events.map(|number| format!("e{number}")));
    project.silverd(&["run", "--drain"]);
    project.plugin_history("hits").pop().unwrap()
}

/// The version of a span, as `--written-by` takes it, and a time at which it served.
fn version_and_time(span: &Value) -> (String, String) {
    let short = |digest: &Value| digest.as_str().unwrap()[..12].to_owned();
    let time = DateTime::from_timestamp_millis(span["last_at_ms"].as_i64().unwrap()).unwrap();
    let version = format!("{}+{}", short(&span["digest"]), short(&span["given"]));
    (version, time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// The number of rows by the reference file that they were made with.
fn rows_by_given(project: &Project) -> Vec<String> {
    let rows = project.query("select given, count(*) as n from hits group by given order by given");
    rows.iter().map(|row| format!("{}={}", row["given"].as_str().unwrap(), row["n"])).collect()
}

/// Whatever the reference files are now.
#[test]
fn rebuild_uses_the_version_that_served_at_an_earlier_time() {
    let project = project_with_given("as-of");
    let first = serve(&project, "first", 0..10);
    let second = serve(&project, "second", 10..20);
    serve(&project, "third", 20..30);
    let all = ["first=10", "second=10", "third=10"];
    assert_eq!(rows_by_given(&project), all);

    let (version, time) = version_and_time(&second);
    let printed = project.silverd(&["rebuild", "hits", "--as-of", &time, "--dry-run"]);
    let served = format!("hits: as of {time}, plugin {version} served: commit {} ", second["last_version"]);
    assert!(printed.contains(&served) && printed.contains("would replace 30 rows by 30"), "{printed}");
    assert_eq!(rows_by_given(&project), all);
    let printed = project.silverd(&["rebuild", "hits", "--as-of", &time]);
    assert!(printed.contains("replaces 30 rows by 30"), "{printed}");
    assert_eq!(rows_by_given(&project), ["second=30"]);
    project.silverd(&["verify", "--deep", "--strict"]);
    let (_, commit) = entries(&project.path("hits")).pop_last().unwrap();
    let info = std::fs::read_to_string(commit).unwrap();
    assert!(info.contains(&format!("\"as_of\":{}", second["last_at_ms"])), "{info}");

    // The daemon continues with the current ones, which also serve a rebuild without a time.
    serve(&project, "third", 30..40);
    assert_eq!(rows_by_given(&project), ["second=30", "third=10"]);
    project.silverd(&["rebuild", "hits"]);
    assert_eq!(rows_by_given(&project), ["third=40"]);
    project.silverd(&["verify", "--deep", "--strict"]);

    let errors = project.silverd_fails(&["rebuild", "hits", "--as-of", "2025-01-31"], 1);
    let (_, first_time) = version_and_time(&project.plugin_history("hits")[0]);
    let since = &first_time[..10];
    assert!(errors.contains("no version that served at 2025-01-31T00:00:00Z") && errors.contains(since), "{errors}");
    let errors = project.silverd_fails(&["rebuild", "hits", "--as-of", "yesterday"], 2);
    assert!(errors.contains("a time such as 2026-11-23T17:30:00Z, or a day such as 2026-11-23"), "{errors}");

    // What it had is gone, and then its file.
    let (_, time) = version_and_time(&first);
    for (folder, digest) in [("given", &first["given"]), ("plugins", &first["digest"])] {
        std::fs::remove_dir_all(project.folder.path().join("data/.silverd").join(folder)).unwrap();
        let errors = project.silverd_fails(&["rebuild", "hits", "--as-of", &time], 1);
        let place = format!("data/.silverd/{folder}");
        assert!(errors.contains(digest.as_str().unwrap()) && errors.contains(&place), "{errors}");
    }
    assert_eq!(rows_by_given(&project), ["third=40"]);
}

#[test]
fn rebuild_replaces_the_rows_of_one_reference_file() {
    let project = project_with_given("undo-given");
    let good = serve(&project, "good", 0..10);
    let bad = serve(&project, "bad", 10..20);
    let (bad, bad_time) = version_and_time(&bad);
    let (_, good_time) = version_and_time(&good);
    // It still serves.
    let errors = project.silverd_fails(&["rebuild", "--written-by", &bad], 1);
    assert!(errors.contains(&format!("still runs version {bad}")), "{errors}");
    let errors = project.silverd_fails(&["rebuild", "--written-by", &bad, "--as-of", &bad_time], 1);
    assert!(errors.contains("name another time"), "{errors}");
    let printed = project.silverd(&["rebuild", "--written-by", &bad, "--as-of", &good_time, "--dry-run"]);
    assert!(printed.contains("would replace 10 rows by 10"), "{printed}");

    serve(&project, "better", 20..30);
    // All that the plugin wrote has the current settings, too.
    let digest = &bad[..12];
    let errors = project.silverd_fails(&["rebuild", "--written-by", digest], 1);
    let other = format!("--written-by {bad}");
    assert!(errors.contains("still runs version") && errors.contains(&other), "{errors}");
    let printed = project.silverd(&["rebuild", "--written-by", &bad]);
    assert!(printed.contains("replaces 10 rows by 10"), "{printed}");
    assert_eq!(rows_by_given(&project), ["better=20", "good=10"]);
    project.silverd(&["verify", "--deep", "--strict"]);
    let printed = project.silverd(&["undo", "--plugin", &bad, "--as-of", &good_time]);
    assert!(printed.contains("replaces 10 rows by 10"), "{printed}");
    assert_eq!(rows_by_given(&project), ["better=10", "good=20"]);
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
    let listed: Vec<Value> = serde_json::from_str(&listed).unwrap();
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
