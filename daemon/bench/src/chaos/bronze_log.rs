//! How far Bronze is, by its Delta log and nothing else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::Value;
use silverd::delta::log_dir;

/// The commits of Bronze, each read once.
pub(super) struct BronzeLog {
    folder: PathBuf,
    version: u64,
    /// The next offset, by log partition.
    next: BTreeMap<String, i64>,
}

impl BronzeLog {
    pub(super) fn new(table: &Path) -> Self {
        Self { folder: log_dir(table), version: 0, next: BTreeMap::new() }
    }

    /// The events that Bronze has.
    pub(super) fn events(&mut self) -> anyhow::Result<i64> {
        loop {
            let file = self.folder.join(format!("{:020}.json", self.version));
            let Ok(text) = std::fs::read_to_string(&file) else { return Ok(self.next.values().sum()) };
            for line in text.lines() {
                let action: Value = serde_json::from_str(line).with_context(|| format!("read {}", file.display()))?;
                let progress = &action["txn"];
                if let (Some(id), Some(next)) = (progress["appId"].as_str(), progress["version"].as_i64())
                    && id.starts_with("silverd:")
                {
                    self.next.insert(id.to_owned(), next);
                }
            }
            self.version += 1;
        }
    }
}
