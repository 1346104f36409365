//! Which files belong to a table's newest version, and which belonged to a version within the retention.
//!
//! ```text
//!   commit ─ commit ─ commit ─ checkpoint ─ commit ─ commit
//!  ◀────── read_older ──────▶│◀─────────── read ──────────▶
//! ```
//!
//! The last checkpoint and the commits after it name the live files. The time when a file was removed is in the commit
//! that removed it: checkpoints leave out files that were removed some time before them. Paths are kept as hashes,
//! since a table with one commit a second removes more than a hundred thousand files a day.

use std::collections::{HashMap, HashSet};

use anyhow::Context;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::Deserialize;
use silverd_core::verify::file_key;

use super::checkpoint::{action_texts, read_checkpoint};
use super::log::{entry_path, list_log_tail};

/// Commits that one call of [`TableFiles::read_older`] reads.
const COMMITS_READ: u64 = 500;

/// The files of a table's newest version, and those that older versions had.
pub struct TableFiles {
    live: HashSet<u128>,
    /// When each file was removed, in milliseconds since the epoch, as far as the commits were read.
    removed: HashMap<u128, i64>,
    /// The oldest commit that was read.
    oldest: u64,
}

#[derive(Deserialize)]
struct Line {
    add: Option<Added>,
    remove: Option<Removed>,
}

#[derive(Deserialize)]
struct Added {
    path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Removed {
    path: String,
    deletion_timestamp: Option<i64>,
}

impl TableFiles {
    /// Reads the newest version's files, and the removed ones that the last checkpoint and the commits after it name.
    pub async fn read(store: &dyn ObjectStore) -> anyhow::Result<Self> {
        let files = list_log_tail(store).await?;
        let mut table = Self { live: HashSet::new(), removed: HashMap::new(), oldest: 0 };
        if let Some((version, parts)) = files.checkpoints.last_key_value() {
            let columns = ["add.path", "remove.path", "remove.deletionTimestamp"];
            read_checkpoint(store, parts, &columns, |batch| table.add_batch(batch)).await?;
            table.oldest = version + 1;
        }
        let newest = files.commits.last_key_value().map_or(0, |(version, _)| *version);
        for version in table.oldest..=newest {
            let path =
                files.commits.get(&version).with_context(|| format!("version {version} is missing in the log"))?;
            let bytes = store.get(path).await?.bytes().await?;
            table.add_commit(&bytes).with_context(|| format!("read commit {path}"))?;
        }
        Ok(table)
    }

    /// Reads a number of older commits, back to `since` (milliseconds since the epoch), and returns whether there are
    /// more to read. Versions before the log's first commit are unreadable, so their files need not be kept.
    pub(crate) async fn read_older(&mut self, store: &dyn ObjectStore, since: i64) -> anyhow::Result<bool> {
        // A single old commit does not end the search: the clock may have been wrong for a while.
        let mut any_young = false;
        for _ in 0..COMMITS_READ {
            let Some(version) = self.oldest.checked_sub(1) else { return Ok(false) };
            let Some((written, bytes)) = read_entry(store, version).await? else { return Ok(false) };
            any_young |= written >= since;
            self.add_older_commit(&bytes, written).with_context(|| format!("read commit {version}"))?;
            self.oldest = version;
        }
        Ok(any_young)
    }

    /// Whether a file belongs to the newest version, or to one that was the newest at or after `since` (milliseconds
    /// since the epoch).
    pub fn contains_since(&self, path: &Path, since: i64) -> bool {
        let key = file_key(path.as_ref());
        self.live.contains(&key) || self.removed.get(&key).is_some_and(|removed| *removed >= since)
    }

    fn add(&mut self, path: &str) {
        for key in keys(path) {
            self.removed.remove(&key);
            self.live.insert(key);
        }
    }

    fn remove(&mut self, path: &str, at: Option<i64>) {
        for key in keys(path) {
            self.live.remove(&key);
            // Without a time, the file counts as removed just now.
            self.removed.insert(key, at.unwrap_or(i64::MAX));
        }
    }

    /// Takes in the removals of an older commit. Their files are not live, unless a later commit added them again.
    fn add_older_commit(&mut self, bytes: &[u8], written: i64) -> anyhow::Result<()> {
        if memchr::memmem::find(bytes, b"\"remove\"").is_none() {
            return Ok(());
        }
        for line in lines(bytes) {
            let line: Line = serde_json::from_slice(line)?;
            for key in line.remove.iter().flat_map(|remove| keys(&remove.path)) {
                let at = line.remove.as_ref().and_then(|remove| remove.deletion_timestamp);
                let removed = self.removed.entry(key).or_insert(i64::MIN);
                *removed = at.map_or(i64::MAX, |at| at.max(written)).max(*removed);
            }
        }
        Ok(())
    }

    fn add_commit(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut added = Vec::new();
        for line in lines(bytes) {
            let line: Line = serde_json::from_slice(line)?;
            if let Some(remove) = line.remove {
                self.remove(&remove.path, remove.deletion_timestamp);
            }
            added.extend(line.add);
        }
        added.iter().for_each(|add| self.add(&add.path));
        Ok(())
    }

    /// Takes in a part of a checkpoint.
    fn add_batch(&mut self, batch: &RecordBatch) -> anyhow::Result<()> {
        action_texts(batch, "add", "path")?.iter().flatten().for_each(|path| self.add(path));
        let removes = batch.column_by_name("remove").and_then(|column| column.as_struct_opt());
        let times = removes.and_then(|removes| removes.column_by_name("deletionTimestamp"));
        let times = times.and_then(|times| times.as_primitive_opt::<Int64Type>());
        for (row, path) in action_texts(batch, "remove", "path")?.iter().enumerate() {
            let at = times.filter(|times| times.is_valid(row)).map(|times| times.value(row));
            path.iter().for_each(|path| self.remove(path, at));
        }
        Ok(())
    }
}

/// A commit, and when it was written, in milliseconds since the epoch; `None` if it does not exist.
async fn read_entry(store: &dyn ObjectStore, version: u64) -> anyhow::Result<Option<(i64, Bytes)>> {
    match store.get(&entry_path(version)).await {
        Ok(found) => Ok(Some((found.meta.last_modified.timestamp_millis(), found.bytes().await?))),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(failure) => Err(failure).with_context(|| format!("read commit {version}")),
    }
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty())
}

/// The keys of a path: of its spelling in the log, which is URL-encoded, and of its spelling in the folder.
fn keys(path: &str) -> impl Iterator<Item = u128> + use<> {
    let decoded = Path::from_url_path(path).ok().filter(|decoded| decoded.as_ref() != path);
    [Some(file_key(path)), decoded.map(|decoded| file_key(decoded.as_ref()))].into_iter().flatten()
}
