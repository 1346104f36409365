//! What other engines do to the tables: nothing is lost or doubled.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::harness::{Daemon, Project, actions, entries, expected, rows};

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
    let version = entries(table).len();
    let next = table.join(format!("_delta_log/{version:020}.json"));
    fs::write(next, json!({ "metaData": metadata }).to_string()).unwrap();
    // The ids must be older than the retention.
    std::thread::sleep(std::time::Duration::from_millis(5));
    super::verify::checkpoint(table);
}

fn without_commits(table: &Path) {
    for entry in entries(table).values() {
        fs::remove_file(entry).unwrap();
    }
}

fn drained(name: &str) -> Project {
    let project = Project::new(name, "interval = \"100ms\"\nrows_max = 700");
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

/// Without the commits, Bronze's offsets are in its rows; Silver's are nowhere.
#[test]
fn lost_progress_is_read_from_bronzes_rows() {
    let project = drained("lost");
    let counts = expected::check(&project);
    for table in ["bronze", "page_view"] {
        let path = project.path(table);
        delete_transactions(&path);
        let entries: Vec<_> = entries(&path).into_values().collect();
        let [older @ .., kept, _] = &entries[..] else { panic!("{entries:?}") };
        // What silverd last said of its ids stays, and the checkpoint.
        for entry in older {
            fs::remove_file(entry).unwrap();
        }
        let without_txns: Vec<_> =
            actions(kept).into_iter().filter(|action| action.get("txn").is_none()).map(|a| a.to_string()).collect();
        fs::write(kept, without_txns.join("\n")).unwrap();
    }
    let errors = project.silverd_fails(&["run", "--drain"], 1);
    assert!(errors.contains("page_view") && errors.contains("does not write the table"), "{errors}");
    assert_eq!(rows(&project.path("bronze")).len(), counts["bronze"], "bronze is not doubled");

    fs::rename(project.path("page_view"), project.folder.path().join("old")).unwrap();
    project.silverd(&["run", "--drain"]);
    assert_eq!(rows(&project.path("bronze")).len(), counts["bronze"]);
    assert_eq!(rows(&project.path("page_view")).len(), counts["page_view"]);
}

/// A table that another engine has upgraded stops bronze: silverd says so, and writes no file twice.
#[test]
fn bronze_that_cannot_be_written_is_not_ready() {
    let project = Project::new("upgraded", "interval = \"50ms\"");
    project.generate(&["--count", "100", "--seed", "5"]);
    let mut daemon = Daemon::start_with_dashboard(&project);
    daemon.until("the first rows", |_| project.has_table("order_placed") && rows(&project.path("bronze")).len() == 100);
    daemon.until("readiness", |daemon| daemon.get("/health/ready").status == 200);
    let bronze = project.path("bronze");
    let version = entries(&bronze).len();
    let protocol = json!({ "protocol": { "minReaderVersion": 1, "minWriterVersion": 4 } });
    fs::write(bronze.join(format!("_delta_log/{version:020}.json")), protocol.to_string()).unwrap();
    project.generate(&["--count", "100", "--seed", "6"]);
    daemon.until("a refusal", |daemon| daemon.get("/health/ready").status == 503);
    daemon.until("the reason", |daemon| {
        let ready = daemon.get("/health/ready").body;
        ready.contains("bronze") && ready.contains("writer protocol version 4")
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
