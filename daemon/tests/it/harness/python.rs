//! A second implementation of Delta, and an independent computation of Gold: Python's deltalake, pyarrow and Polars.
//!
//! `SILVERD_TEST_PYTHON` names the interpreter. Without it, the functions check nothing and return `None`.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{Project, SILVER, rows};

/// Reads a table with `check_delta.py`, and returns its report.
#[track_caller]
pub fn check_delta(table: &Path, args: &[&str]) -> Option<Value> {
    let stdout = run("check_delta.py", &[&[table.to_str().unwrap()], args].concat())?;
    Some(serde_json::from_slice(&stdout).unwrap())
}

/// The number of a table's rows, and a digest of them.
#[track_caller]
pub fn rows_and_digest(table: &Path, version: Option<u64>) -> Option<(u64, String)> {
    let version = version.map(|version| version.to_string());
    let args: Vec<&str> = version.iter().flat_map(|version| ["--version", version.as_str()]).collect();
    let report = check_delta(table, &args)?;
    Some((report["num_rows"].as_u64().unwrap(), report["sha256"].as_str().unwrap().to_owned()))
}

/// Checks that both implementations read the same rows of the shop's tables, and that every column has a comment.
#[track_caller]
pub fn check_shop_tables(project: &Project) {
    for table in SILVER.into_iter().chain(["bronze", "quarantine"]) {
        let dump = project.folder.path().join(format!("{table}.jsonl"));
        let Some(report) = check_delta(&project.path(table), &["--rows-json", dump.to_str().unwrap()]) else { return };
        let ours = rows(&project.path(table));
        assert_eq!(report["num_rows"], ours.len(), "{table}");
        assert_eq!(report["partition_columns"], serde_json::json!(["event_date"]), "{table}");
        for column in report["schema"].as_array().unwrap() {
            assert!(column["comment"].as_str().is_some_and(|comment| !comment.is_empty()), "{table}: {column}");
        }
        let cell = |row: &Value, name: &str| row[name].to_string().replace('"', "");
        let cells = |row: &Value| ["event_id", "user_id", "ts", "url"].map(|name| cell(row, name));
        let theirs = std::fs::read_to_string(&dump).unwrap();
        let mut theirs: Vec<_> = theirs.lines().map(|line| cells(&serde_json::from_str(line).unwrap())).collect();
        let mut ours: Vec<_> = ours.into_iter().map(|row| cells(&Value::Object(row))).collect();
        theirs.sort();
        ours.sort();
        assert_eq!(theirs, ours, "{table}");
    }
}

/// Compares the Gold tables of the repository's pipeline.toml with what `check_gold.py` computes from Silver.
#[track_caller]
pub fn check_gold(project: &Project) {
    run("check_gold.py", &[project.folder.path().join("data").to_str().unwrap()]);
}

/// Runs a script of `tests/it/scripts`, which must succeed, and returns its standard output.
#[track_caller]
pub fn run(script: &str, args: &[&str]) -> Option<Vec<u8>> {
    let Ok(python) = std::env::var("SILVERD_TEST_PYTHON") else {
        eprintln!("SILVERD_TEST_PYTHON is not set: {script} checks nothing");
        return None;
    };
    let script = format!("{}/tests/it/scripts/{script}", env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(python).arg(script).args(args).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{err}{out}");
    Some(output.stdout)
}
