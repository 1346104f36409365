//! `silverd verify --json`.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The report of `silverd verify` in a folder, and its exit code.
pub fn verify(folder: &Path, args: &[&str]) -> (Value, Option<i32>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_silverd"));
    let output = command.current_dir(folder).args(["verify", "--json"]).args(args).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|failure| panic!("{failure}: {errors}"));
    (report, output.status.code())
}

/// The kinds of a report's findings with their tables. Each finding must be explained.
pub fn finding_kinds(report: &Value) -> BTreeSet<String> {
    let findings = report["findings"].as_array().unwrap().iter();
    findings
        .map(|finding| {
            for text in ["found", "expected", "help"] {
                assert!(finding[text].as_str().is_some_and(|text| !text.is_empty()), "{finding}");
            }
            format!("{}: {}", finding["table"].as_str().unwrap(), finding["problem"]["kind"].as_str().unwrap())
        })
        .collect()
}

/// The report on one table.
pub fn table_report<'r>(report: &'r Value, table: &str) -> &'r Value {
    report["tables"].as_array().unwrap().iter().find(|row| row["table"] == table).unwrap()
}
