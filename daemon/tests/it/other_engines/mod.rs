//! What other engines do to the tables: nothing is lost or doubled.

mod checkpoints;
mod features;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::harness::tables::topic;
use super::harness::{
    Daemon, Project, SILVER, TableCopy, TableOptions, actions, commit_as_other_engine, entries, expected,
    finding_kinds, rows, upgrade, verify,
};

const TXN_RETENTION: &str = "delta.setTransactionRetentionDuration";

/// The table's newest metadata.
fn metadata(table: &Path) -> Value {
    let entries = entries(table);
    let actions = entries.values().rev().flat_map(|entry| actions(entry));
    actions.filter_map(|action| action.get("metaData").cloned()).next().unwrap()
}

/// Commits a property as another engine does, and writes a checkpoint that follows it.
fn delete_transactions(table: &Path) {
    let mut metadata = metadata(table);
    metadata["configuration"][TXN_RETENTION] = json!("interval 0 seconds");
    commit_as_other_engine(table, &[json!({ "metaData": metadata })]);
    // The ids must be older than the retention.
    std::thread::sleep(std::time::Duration::from_millis(5));
    super::verify::checkpoint(table);
}

fn without_commits(table: &Path) {
    for entry in entries(table).values() {
        fs::remove_file(entry).unwrap();
    }
}

/// Deletes silverd's progress, and the commits that set it: only one is left, which says how many application ids there were.
fn lose_progress(table: &Path) {
    delete_transactions(table);
    let entries: Vec<_> = entries(table).into_values().collect();
    let [older @ .., kept, _] = &entries[..] else { panic!("{entries:?}") };
    // What silverd last said of its ids stays, and the checkpoint.
    for entry in older {
        fs::remove_file(entry).unwrap();
    }
    let without_txns: Vec<_> =
        actions(kept).into_iter().filter(|action| action.get("txn").is_none()).map(|a| a.to_string()).collect();
    fs::write(kept, without_txns.join("\n")).unwrap();
}

fn drained(name: &str) -> Project {
    drained_with(name, TableOptions::default())
}

fn drained_with(name: &str, options: TableOptions) -> Project {
    let project = Project::with_options(name, "interval = \"100ms\"\nrows_max = 700", options);
    project.generate(&["--count", "3000", "--seed", "5"]);
    project.send_odd_events();
    project.silverd(&["run", "--drain"]);
    project
}

/// Spark's checkpoints leave out `txn` actions that are older than a table property says.
#[test]
fn deleted_progress_is_found_in_older_commits() {
    let project = drained("retention");
    let counts = expected::check(&project);
    let tables = ["bronze", "page_view", "add_to_cart", "order_placed", "quarantine"];
    for table in tables {
        delete_transactions(&project.path(table));
    }
    project.silverd(&["run", "--drain"]);
    assert_eq!(expected::check(&project), counts, "nothing is written again");
    for table in tables {
        let metadata = metadata(&project.path(table));
        assert!(metadata["configuration"].get(TXN_RETENTION).is_none(), "{table}: {metadata}");
    }
    project.silverd(&["verify"]);
    // The next reader needs the older commits no more.
    for table in tables {
        let path = project.path(table);
        super::verify::checkpoint(&path);
        without_commits(&path);
    }
    project.generate(&["--count", "500", "--seed", "6"]);
    project.silverd(&["run", "--drain"]);
    expected::check(&project);
}

/// Verifies all tables, which have exactly these kinds of findings, among them an error. Returns the report.
#[track_caller]
fn verify_finds(folder: &Path, args: &[&str], kinds: &[&str]) -> Value {
    let (report, code) = verify(folder, args);
    let expected = kinds.iter().map(|kind| (*kind).to_owned()).collect();
    assert_eq!((code, finding_kinds(&report)), (Some(1), expected), "{report:#}");
    report
}

/// Without the commits, Bronze's offsets are in its rows; Silver's are nowhere.
#[test]
fn lost_progress_is_read_from_bronzes_rows() {
    let project = drained("lost");
    let counts = expected::check(&project);
    for table in ["bronze", "page_view"] {
        lose_progress(&project.path(table));
    }
    verify_finds(project.folder.path(), &[], &["bronze: lost-progress", "page_view: lost-progress"]);
    let errors = project.silverd_fails(&["run", "--drain"], 1);
    assert!(errors.contains("page_view") && errors.contains("does not write the table"), "{errors}");
    assert_eq!(rows(&project.path("bronze")).len(), counts["bronze"], "bronze is not doubled");

    fs::rename(project.path("page_view"), project.folder.path().join("old")).unwrap();
    project.silverd(&["run", "--drain"]);
    assert_eq!(rows(&project.path("bronze")).len(), counts["bronze"]);
    assert_eq!(rows(&project.path("page_view")).len(), counts["page_view"]);
}

/// Verifies all tables, without any finding.
#[track_caller]
fn verify_ok(project: &Project, args: &[&str]) {
    let (report, code) = verify(project.folder.path(), args);
    assert_eq!((code, finding_kinds(&report)), (Some(0), [].into()), "{report:#}");
}

/// The way out for a Silver table is a rebuild of everything, and nothing else. It also has the rejects and the late events
/// that came while the table was not written.
#[test]
fn lost_progress_of_silver_is_set_again_by_a_rebuild() {
    let options = TableOptions { dedup_within_s: None, late_after_s: Some(60) };
    let project = drained_with("lost-silver", options);
    expected::check(&project);
    let copy = TableCopy::of(project.folder.path());
    lose_progress(&copy.path("late"));
    verify_finds(copy.folder(), &[], &["late: lost-progress"]);
    let page_view = project.path("page_view");
    lose_progress(&page_view);
    let report = verify_finds(project.folder.path(), &[], &["page_view: lost-progress"]);
    let help = report["findings"][0]["help"].as_str().unwrap();
    assert!(help.contains("`silverd rebuild page_view`, without days"), "{help}");
    let both = ["page_view: lost-progress", "page_view: not-compared"];
    verify_finds(project.folder.path(), &["--deep"], &both);
    project.generate(&["--count", "500", "--seed", "6"]);
    project.send_odd_events();
    let before = rows(&page_view).len();
    for args in [
        &["run", "--drain"][..],
        &["rebuild", "page_view", "--from", "2025-01-01", "--to", "2025-01-01"],
        &["quarantine", "replay", "--table", "page_view"],
    ] {
        let errors = project.silverd_fails(args, 1);
        assert!(errors.contains("does not write the table"), "{args:?}: {errors}");
        assert!(errors.contains("`silverd rebuild page_view`, without days"), "{args:?}: {errors}");
    }
    let printed = project.silverd(&["rebuild", "page_view", "--dry-run"]);
    assert!(printed.contains(&format!("would replace {before} rows by")), "{printed}");
    assert_eq!(rows(&page_view).len(), before);
    project.silverd_fails(&["run", "--drain"], 1);

    let printed = project.silverd(&["rebuild", "page_view"]);
    assert!(printed.contains("sets it to the end of bronze"), "{printed}");
    let counts = expected::check(&project);
    verify_ok(&project, &[]);
    project.silverd(&["run", "--drain"]);
    assert_eq!(expected::check(&project), counts, "nothing is written again");
    project.generate(&["--count", "500", "--seed", "7"]);
    project.send_odd_events();
    project.silverd(&["run", "--drain"]);
    expected::check(&project);
    verify_ok(&project, &[]);
    verify_ok(&project, &["--deep", "--strict"]);
    // A rebuild of some days is one as any other again.
    project.silverd(&["rebuild", "page_view", "--from", "2025-01-01", "--to", "2025-01-01"]);
    expected::check(&project);
}

/// The same if no commit is left that says how many application ids there were.
#[test]
fn lost_progress_is_missed_without_a_commit_that_counts_it() {
    let project = drained("uncounted");
    let counts = expected::check(&project);
    for table in ["bronze", "page_view"] {
        let path = project.path(table);
        delete_transactions(&path);
        without_commits(&path);
    }
    verify_finds(project.folder.path(), &[], &["bronze: lost-progress", "page_view: lost-progress"]);
    let errors = project.silverd_fails(&["run", "--drain"], 1);
    assert!(errors.contains("page_view") && errors.contains("does not write the table"), "{errors}");
    assert_eq!(rows(&project.path("bronze")).len(), counts["bronze"], "bronze is not doubled");
    assert_eq!(rows(&project.path("page_view")).len(), counts["page_view"], "page_view is not doubled");
    project.silverd(&["rebuild", "page_view"]);
    project.generate(&["--count", "500", "--seed", "6"]);
    project.silverd(&["run", "--drain"]);
    expected::check(&project);
    verify_ok(&project, &[]);
    verify_ok(&project, &["--deep", "--strict"]);
}

/// A table that silverd wrote before its commits said how many application ids there are.
#[test]
fn a_table_whose_commits_count_nothing_goes_on() {
    let project = drained("before-counts");
    for table in SILVER.into_iter().chain(["bronze", "quarantine"]) {
        let path = project.path(table);
        for entry in entries(&path).values() {
            let without_count = |mut action: Value| {
                if let Some(info) = action.pointer_mut("/commitInfo/silverd").and_then(Value::as_object_mut) {
                    info.remove("txns");
                }
                if let Some(txn) = action.get_mut("txn").and_then(Value::as_object_mut) {
                    txn.remove("lastUpdated");
                }
                action.to_string()
            };
            let actions: Vec<_> = actions(entry).into_iter().map(without_count).collect();
            fs::write(entry, actions.join("\n")).unwrap();
        }
        super::verify::checkpoint(&path);
        without_commits(&path);
    }
    project.generate(&["--count", "500", "--seed", "6"]);
    project.send_odd_events();
    project.silverd(&["run", "--drain"]);
    expected::check(&project);
}

/// Nothing is committed to a quarantine whose progress is lost, and bronze does not wait for it.
#[test]
fn a_quarantine_that_has_lost_its_progress_does_not_stop_bronze() {
    let project = drained("lost-quarantine");
    let quarantine = project.path("quarantine");
    lose_progress(&quarantine);
    verify_finds(project.folder.path(), &[], &["quarantine: lost-progress"]);
    let before = rows(&quarantine).len();
    project.generate(&["--count", "500", "--seed", "6"]);
    project.send_odd_events();
    let errors = project.silverd_fails(&["run", "--drain"], 1);
    assert!(errors.contains("the log of the table quarantine has lost"), "{errors}");
    assert!(errors.contains(&format!("move {} away", quarantine.canonicalize().unwrap().display())), "{errors}");
    assert_eq!(rows(&project.path("bronze")).len(), topic(&project).len(), "bronze has everything");
    assert_eq!(rows(&quarantine).len(), before);

    fs::rename(&quarantine, project.folder.path().join("old")).unwrap();
    project.silverd(&["run", "--drain"]);
    for table in SILVER {
        project.silverd(&["rebuild", table]);
    }
    expected::check(&project);
}

/// A table that another engine has upgraded stops bronze: silverd says so, and writes no file twice.
#[test]
fn bronze_that_cannot_be_written_is_not_ready() {
    let project = Project::new("upgraded", "interval = \"50ms\"");
    project.generate(&["--count", "100", "--seed", "5"]);
    // Each try is logged at this level.
    let args = ["run", "--listen", "127.0.0.1:0", "--log-format", "json", "--log", "info,silverd::bronze=debug"];
    let mut daemon = Daemon::start_with(&project, &args, &[]);
    daemon.until("the first rows", |_| project.has_table("order_placed") && rows(&project.path("bronze")).len() == 100);
    daemon.until("readiness", |daemon| daemon.get("/health/ready").status == 200);
    let bronze = project.path("bronze");
    upgrade(&bronze);
    project.generate(&["--count", "100", "--seed", "6"]);
    daemon.until("a refusal", |daemon| daemon.get("/health/ready").status == 503);
    daemon.until("the reason", |daemon| {
        let ready = daemon.get("/health/ready").body;
        ready.contains("bronze") && ready.contains("table feature `rowTracking`")
    });
    daemon.until_logged("append to bronze", 3);
    let status = daemon.json("/api/status");
    let table = status["tables"].as_array().unwrap().iter().find(|table| table["name"] == "bronze").unwrap();
    assert_eq!((table["state"].as_str(), table["is_writing"].as_bool()), (Some("retrying"), Some(false)), "{table}");
    assert!(daemon.get("/metrics").body.contains("silverd_table_up{table=\"bronze\"} 0"));
    let files = fs::read_dir(&bronze).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let files: usize =
        files.filter(|day| !day.ends_with("_delta_log")).map(|day| fs::read_dir(day).unwrap().count()).sum();
    let live = entries(&bronze).values().flat_map(|entry| actions(entry)).filter(|a| a.get("add").is_some()).count();
    assert!(files <= live + 1, "{files} files, {live} of them committed");
}
