//! Checkpoints that are missing or damaged: the entries of the log hold the same.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::super::harness::python::rows_and_digest;
use super::super::harness::{Project, entries, expected, rows};
use super::super::verify::checkpoint;
use super::{drained, verify_ok};

const TABLES: [&str; 3] = ["bronze", "page_view", "quarantine"];

fn log_file(table: &Path, name: &str) -> PathBuf {
    table.join("_delta_log").join(name)
}

/// The newest checkpoint.
fn newest(table: &Path) -> PathBuf {
    let files = fs::read_dir(table.join("_delta_log")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|file| file.to_str().unwrap().ends_with("checkpoint.parquet")).max().unwrap()
}

/// silverd goes on after each of these, and the next reader needs nothing of what was damaged.
fn goes_on_after(name: &str, damage: impl Fn(&Path), warning: &str) {
    let project = drained(name);
    expected::check(&project);
    for table in TABLES {
        let table = project.path(table);
        checkpoint(&table);
        damage(&table);
    }
    project.generate(&["--count", "500", "--seed", "6"]);
    let output = project.output(&["run", "--drain"]);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    let warnings = log.matches("silverd reads what it held from the entries of the log").count();
    assert!(warnings >= TABLES.len() && log.contains(warning), "{log}");
    expected::check(&project);
    verify_ok(&project, &[]);
    for table in TABLES {
        let path = project.path(table);
        let all = rows(&path).len() as u64;
        if let Some((rows, _)) = rows_and_digest(&path, None) {
            assert_eq!(rows, all, "{table}: delta-rs reads it, too");
        }
    }
    let output = project.output(&["run", "--drain"]);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !log.contains("is damaged"), "there is a good one: {log}");
}

#[test]
fn a_checkpoint_that_is_cut_off() {
    let cut = |table: &Path| {
        let file = newest(table);
        let bytes = fs::read(&file).unwrap();
        fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    };
    goes_on_after("checkpoint-cut", cut, "checkpoint.parquet is damaged");
}

#[test]
fn a_checkpoint_without_a_byte() {
    goes_on_after("checkpoint-empty", |table| fs::write(newest(table), "").unwrap(), "checkpoint.parquet is damaged");
}

/// As a power cut leaves it that fell between the checkpoint and the hint that names it.
#[test]
fn a_checkpoint_without_a_byte_that_nothing_names() {
    let damage = |table: &Path| {
        fs::write(newest(table), "").unwrap();
        fs::remove_file(log_file(table, "_last_checkpoint")).unwrap();
    };
    goes_on_after("checkpoint-unnamed", damage, "checkpoint.parquet is damaged");
}

#[test]
fn a_checkpoint_that_is_missing() {
    let remove = |table: &Path| fs::remove_file(newest(table)).unwrap();
    goes_on_after("checkpoint-missing", remove, "_last_checkpoint is damaged (it names the checkpoint of version");
}

#[test]
fn a_last_checkpoint_beyond_the_log() {
    let hint = json!({ "version": 900, "size": 10 }).to_string();
    let point_beyond = |table: &Path| fs::write(log_file(table, "_last_checkpoint"), &hint).unwrap();
    goes_on_after(
        "checkpoint-beyond",
        point_beyond,
        "_last_checkpoint is damaged (it names the checkpoint of version 900)",
    );
}

#[test]
fn a_last_checkpoint_that_is_no_json() {
    let zeros = |table: &Path| {
        fs::write(newest(table), [0; 4096]).unwrap();
        fs::write(log_file(table, "_last_checkpoint"), [0; 40]).unwrap();
    };
    goes_on_after("checkpoint-zeros", zeros, "_last_checkpoint is damaged");
}

/// What is not in the log any more is not guessed: the table stops alone, and says what can be done.
#[test]
fn a_damaged_checkpoint_without_the_entries() {
    let project: Project = drained("checkpoint-only");
    let counts = expected::check(&project);
    let path = project.path("page_view");
    checkpoint(&path);
    fs::write(newest(&path), "nonsense").unwrap();
    for entry in entries(&path).values().take(2) {
        fs::remove_file(entry).unwrap();
    }
    project.generate(&["--count", "500", "--seed", "6"]);
    let errors = project.silverd_fails(&["run", "--drain"], 1);
    assert!(errors.contains("is damaged") && errors.contains("entry 0 of _delta_log/ is gone"), "{errors}");
    assert!(errors.contains("move the folder"), "{errors}");
    assert!(rows(&project.path("bronze")).len() > counts["bronze"], "bronze goes on");
    assert!(rows(&project.path("order_placed")).len() > counts["order_placed"], "the other tables go on");

    let before = rows(&project.path("page_view").with_file_name("order_placed")).len();
    fs::rename(&path, project.folder.path().join("old")).unwrap();
    project.silverd(&["run", "--drain"]);
    assert!(rows(&path).len() > counts["page_view"]);
    assert_eq!(rows(&project.path("order_placed")).len(), before);
}
