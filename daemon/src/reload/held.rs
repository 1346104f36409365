//! Versions that are held off: one that has failed on live events, or that somebody has rolled back. Remembered on the
//! disk, so that a restart does not take it up again; void as soon as another file lies in the plugin's place.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::state::OwnFolder;
use crate::transform::Digest;

/// For one table: what is used, and instead of what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The digest of the version that fills the table.
    #[serde(rename = "use")]
    pub used: String,
    /// The digest of the one that is held off.
    pub instead_of: String,
    pub why: String,
    pub at_ms: i64,
}

impl Held {
    /// As of now.
    pub fn new(used: &Digest, instead_of: &Digest, why: String) -> Self {
        let (used, instead_of) = (used.as_str().to_owned(), instead_of.as_str().to_owned());
        Self { used, instead_of, why, at_ms: clock::now_ms() }
    }
}

/// The folder of them: a file for each table.
pub struct Holds(OwnFolder);

impl Holds {
    pub fn new(folder: OwnFolder) -> Self {
        Self(folder)
    }

    /// Where the file of a table is, or would be.
    pub fn path(&self, table: &str) -> PathBuf {
        self.0.path(&name_of(table))
    }

    pub fn folder(&self) -> PathBuf {
        self.0.path("")
    }

    /// What is held for a table. A file that cannot be read says nothing.
    pub fn get(&self, table: &str) -> Option<Held> {
        serde_json::from_slice(&std::fs::read(self.path(table)).ok()?).ok()
    }

    /// What is held for a table in whose plugin's place this version lies, if that is held off.
    pub fn held_off(&self, table: &str, digest: &Digest) -> Option<Held> {
        self.get(table).filter(|held| held.instead_of == digest.as_str())
    }

    /// The version to use instead.
    pub fn instead_of(&self, table: &str, digest: &Digest) -> Option<Digest> {
        Digest::parse(&self.held_off(table, digest)?.used)
    }

    pub fn put(&self, table: &str, held: &Held) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(held).map_err(|error| anyhow!(error))?;
        let put = self.0.put(|file| Ok(file.write_all(&text).map(|()| name_of(table))?));
        put.map(drop).context("remember which version is held off")
    }

    pub fn remove(&self, table: &str) {
        self.0.remove(&name_of(table));
    }
}

fn name_of(table: &str) -> String {
    format!("{table}.json")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_held_counts_for_that_version_alone() {
        let folder = tempfile::tempdir().unwrap();
        let holds = Holds::new(OwnFolder::open(folder.path()).unwrap());
        let (good, bad, other) = (Digest::of(b"good"), Digest::of(b"bad"), Digest::of(b"other"));
        assert_eq!(holds.instead_of("hits", &bad), None);
        let held = Held::new(&good, &bad, "it traps".to_owned());
        holds.put("hits", &held).unwrap();
        assert_eq!(holds.get("hits"), Some(held));
        assert_eq!(holds.instead_of("hits", &bad), Some(good));
        assert_eq!(holds.instead_of("hits", &other), None);
        assert_eq!(holds.instead_of("carts", &bad), None);
        std::fs::write(holds.path("hits"), "{ no JSON").unwrap();
        assert_eq!(holds.get("hits"), None);
        holds.remove("hits");
        assert!(!holds.path("hits").exists());
    }
}
