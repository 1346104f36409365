//! The log of a table, as files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

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
