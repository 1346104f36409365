//! The log of a table, as files.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// The log entries of a table, by version.
pub fn entries(table: &Path) -> BTreeMap<u64, PathBuf> {
    let files = std::fs::read_dir(table.join("_delta_log")).unwrap().map(|entry| entry.unwrap().path());
    let version = |path: &PathBuf| path.file_stem()?.to_str()?.parse().ok();
    files.filter(|path| path.extension().is_some_and(|e| e == "json")).filter_map(|p| Some((version(&p)?, p))).collect()
}

/// The actions of a log entry.
pub fn actions(entry: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(entry).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Commits actions as another engine does, which takes the next version if this one is taken. Returns the log entry.
pub fn commit_as_other_engine(table: &Path, actions: &[Value]) -> PathBuf {
    let log = table.join("_delta_log");
    let written = log.join("written-by-another-engine");
    let lines: Vec<_> = actions.iter().map(Value::to_string).collect();
    std::fs::write(&written, lines.join("\n")).unwrap();
    let entry = loop {
        let version = entries(table).last_key_value().unwrap().0 + 1;
        let entry = log.join(format!("{version:020}.json"));
        // Nobody sees a part of it.
        match std::fs::hard_link(&written, &entry) {
            Ok(()) => break entry,
            Err(failure) => assert_eq!(failure.kind(), ErrorKind::AlreadyExists, "{failure}"),
        }
    };
    std::fs::remove_file(written).unwrap();
    entry
}

/// Another engine switches a feature on that silverd does not write. Returns the log entry.
pub fn upgrade(table: &Path) -> PathBuf {
    let features = ["appendOnly", "invariants", "rowTracking", "domainMetadata"];
    let protocol = json!({ "minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": features });
    commit_as_other_engine(table, &[json!({ "protocol": protocol })])
}
