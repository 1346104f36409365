//! Which version of a plugin serves each table in a running silverd. The log of a table says so only once there are events,
//! and commands ask before that.
//!
//! ```text
//!   serving/<table>.json   the version
//!   serving/<table>.lock   locked by the silverd that runs: without it, the version is that of an earlier one
//! ```

use std::fs::{File, TryLockError};
use std::io::Write;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::delta::PluginVersion;
use crate::runtime::state_dir::StateDir;

/// The folder of these files.
pub(crate) struct ServingVersions(StateDir);

/// Keeps the version of one table up to date. What it has recorded holds until it is dropped, or the process ends.
pub(crate) struct ServingRecord {
    folder: StateDir,
    table: String,
    recorded: Option<PluginVersion>,
    _lock: File,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    digest: String,
    #[serde(default)]
    given: Option<String>,
}

impl ServingVersions {
    pub(super) fn new(folder: StateDir) -> Self {
        Self(folder)
    }

    /// Starts to record which version serves a table. Nothing serves yet.
    pub(crate) fn record(&self, table: &str) -> anyhow::Result<ServingRecord> {
        let path = self.0.path(&lock_name(table));
        let open = File::options().create(true).truncate(false).write(true).open(&path);
        // Of two silverds that run on one folder, the last one to swap is believed.
        let lock = open.and_then(|file| file.lock_shared().map(|()| file));
        let lock = lock.with_context(|| format!("lock {}", path.display()))?;
        // That of an earlier silverd, or of the worker that this one replaces.
        self.0.remove(&file_name(table));
        Ok(ServingRecord { folder: self.0.clone(), table: table.to_owned(), recorded: None, _lock: lock })
    }

    /// The version that serves a table in a running silverd; `None` if none runs, or if nothing serves yet.
    pub(crate) fn get(&self, table: &str) -> Option<PluginVersion> {
        if !self.is_running(table) {
            return None;
        }
        let text = std::fs::read(self.0.path(&file_name(table))).ok()?;
        let Stored { digest, given } = serde_json::from_slice(&text).ok()?;
        Some(PluginVersion { digest, given })
    }

    /// The versions that serve any table in a running silverd.
    pub(super) fn all(&self) -> anyhow::Result<Vec<PluginVersion>> {
        let files = self.0.files().context("list which versions serve")?;
        let tables = files.iter().filter_map(|file| file.name.strip_suffix(".json"));
        Ok(tables.filter_map(|table| self.get(table)).collect())
    }

    /// Whether a silverd runs that fills the table.
    fn is_running(&self, table: &str) -> bool {
        let Ok(lock) = File::open(self.0.path(&lock_name(table))) else { return false };
        matches!(lock.try_lock(), Err(TryLockError::WouldBlock))
    }
}

impl ServingRecord {
    /// This version serves from now on.
    pub(crate) fn set(&mut self, version: PluginVersion) {
        if self.recorded.as_ref() == Some(&version) {
            return;
        }
        match self.store(&version) {
            Ok(()) => self.recorded = Some(version),
            Err(error) => warn!(table = %self.table, "remember which version serves: {error:#}"),
        }
    }

    fn store(&self, PluginVersion { digest, given }: &PluginVersion) -> anyhow::Result<()> {
        let text = serde_json::to_vec(&Stored { digest: digest.clone(), given: given.clone() })?;
        self.folder.put(|file| Ok(file.write_all(&text).map(|()| file_name(&self.table))?)).map(drop)
    }
}

fn file_name(table: &str) -> String {
    format!("{table}.json")
}

fn lock_name(table: &str) -> String {
    format!("{table}.lock")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use super::*;

    #[test]
    fn a_version_serves_as_long_as_its_silverd_runs() {
        let folder = tempfile::tempdir().unwrap();
        let serving = ServingVersions::new(StateDir::open(folder.path()).unwrap());
        let version = |digest: &str| PluginVersion { digest: digest.to_owned(), given: Some("g".to_owned()) };
        assert_eq!((serving.get("hits"), serving.is_running("hits")), (None, false));
        let mut record = serving.record("hits").unwrap();
        assert_eq!((serving.get("hits"), serving.is_running("hits")), (None, true));
        record.set(version("a"));
        record.set(version("b"));
        assert_eq!((serving.get("hits"), serving.get("carts")), (Some(version("b")), None));
        drop(record);
        assert_eq!((serving.get("hits"), serving.is_running("hits")), (None, false));
        let _record = serving.record("hits").unwrap();
        assert_eq!((serving.get("hits"), serving.is_running("hits")), (None, true));
    }
}
