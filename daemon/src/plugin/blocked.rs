//! Blocked versions: one that failed on live events, or that somebody replaced with an earlier version. They are stored
//! on disk, so that a restart does not use them again. A version is no longer blocked once another file takes its
//! place.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use serde::{Deserialize, Serialize};

use super::digest::Digest;
use crate::runtime::clock;
use crate::runtime::state_dir::StateDir;

/// The blocked version of one table, and its replacement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BlockedVersion {
    /// The digest of the version that fills the table.
    #[serde(rename = "use")]
    pub(crate) replacement: String,
    /// The digest of the blocked version.
    #[serde(rename = "instead_of")]
    pub(crate) blocked: String,
    #[serde(rename = "why")]
    pub(crate) reason: String,
    at_ms: i64,
}

impl BlockedVersion {
    /// Blocks a version from now on.
    pub(crate) fn new(replacement: &Digest, blocked: &Digest, reason: String) -> Self {
        let (replacement, blocked) = (replacement.as_str().to_owned(), blocked.as_str().to_owned());
        Self { replacement, blocked, reason, at_ms: clock::now_ms() }
    }
}

/// The folder of the blocked versions: one file for each table.
pub(crate) struct BlockedVersions(StateDir);

impl BlockedVersions {
    pub(super) fn new(folder: StateDir) -> Self {
        Self(folder)
    }

    /// The path of a table's file, whether it exists or not.
    pub(crate) fn path(&self, table: &str) -> PathBuf {
        self.0.path(&file_name(table))
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.0.path("")
    }

    /// The blocked version of a table; `None` if there is none, or if its file cannot be read.
    pub(crate) fn get(&self, table: &str) -> Option<BlockedVersion> {
        serde_json::from_slice(&std::fs::read(self.path(table)).ok()?).ok()
    }

    /// The entry that blocks this version of a table's plugin.
    pub(crate) fn blocking(&self, table: &str, digest: &Digest) -> Option<BlockedVersion> {
        self.get(table).filter(|entry| entry.blocked == digest.as_str())
    }

    /// The version to use if this one is blocked.
    pub(crate) fn replacement_for(&self, table: &str, digest: &Digest) -> Option<Digest> {
        Digest::parse(&self.blocking(table, digest)?.replacement)
    }

    pub(crate) fn put(&self, table: &str, entry: &BlockedVersion) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(entry).map_err(|error| anyhow!(error))?;
        let put = self.0.put(|file| Ok(file.write_all(&text).map(|()| file_name(table))?));
        put.map(drop).context("store the blocked version")
    }

    pub(crate) fn remove(&self, table: &str) {
        self.0.remove(&file_name(table));
    }
}

fn file_name(table: &str) -> String {
    format!("{table}.json")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use super::*;

    #[test]
    fn only_the_blocked_version_has_a_replacement() {
        let folder = tempfile::tempdir().unwrap();
        let versions = BlockedVersions::new(StateDir::open(folder.path()).unwrap());
        let (good, bad, other) = (Digest::of(b"good"), Digest::of(b"bad"), Digest::of(b"other"));
        assert_eq!(versions.replacement_for("hits", &bad), None);
        let entry = BlockedVersion::new(&good, &bad, "it traps".to_owned());
        versions.put("hits", &entry).unwrap();
        assert_eq!(versions.get("hits"), Some(entry));
        assert_eq!(versions.replacement_for("hits", &bad), Some(good));
        assert_eq!(versions.replacement_for("hits", &other), None);
        assert_eq!(versions.replacement_for("carts", &bad), None);
        std::fs::write(versions.path("hits"), "{ no JSON").unwrap();
        assert_eq!(versions.get("hits"), None);
        versions.remove("hits");
        assert!(!versions.path("hits").exists());
    }

    #[test]
    fn entries_keep_their_format_on_disk() {
        let text = r#"{"use":"a","instead_of":"b","why":"it traps","at_ms":7}"#;
        let entry: BlockedVersion = serde_json::from_str(text).unwrap();
        assert_eq!((&*entry.replacement, &*entry.blocked, &*entry.reason), ("a", "b", "it traps"));
        assert_eq!(serde_json::to_string(&entry).unwrap(), text);
    }
}
