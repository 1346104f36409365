//! Which files a table's newest version has, and which it had a while ago.
//!
//! ```text
//!   entry ─ entry ─ entry ─ checkpoint ─ entry ─ entry
//!  ◀────── look back ────▶│◀────────── read ─────────▶
//! ```
//!
//! The live files stand in the last checkpoint and the entries behind it. When a file was removed, the entry that did it
//! says: checkpoints leave out what was removed a while before them. Paths are held as hashes: a table at a commit a second
//! removes some hundred thousand files a day.

use std::collections::{HashMap, HashSet};

use anyhow::Context;
use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Deserialize;
use silverd_core::verify::file_key;

use super::log::{entry_path, tail, texts};

/// The files of a table, now and before.
pub struct Files {
    live: HashSet<u128>,
    /// When each was removed, in milliseconds since the epoch, as far as it was read.
    gone: HashMap<u128, i64>,
    /// The entries before this one were not read yet.
    oldest: u64,
}

/// Entries that are read in one go.
const LOOK_BACK: u64 = 500;

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

impl Files {
    /// Those of the newest version, and what the last checkpoint and the entries behind it say of removed ones.
    pub async fn read(store: &dyn ObjectStore) -> anyhow::Result<Self> {
        let files = tail(store).await?;
        let mut state = Self { live: HashSet::new(), gone: HashMap::new(), oldest: 0 };
        if let Some((version, parts)) = files.checkpoints.last_key_value() {
            for part in parts {
                state.checkpoint(store, part).await.with_context(|| format!("read checkpoint {part}"))?;
            }
            state.oldest = version + 1;
        }
        let newest = files.commits.last_key_value().map_or(0, |(version, _)| *version);
        for version in state.oldest..=newest {
            let path = files.commits.get(&version).with_context(|| format!("the log lacks version {version}"))?;
            let bytes = store.get(path).await?.bytes().await?;
            state.entry(&bytes).with_context(|| format!("read commit {path}"))?;
        }
        Ok(state)
    }

    /// Reads some of the entries before, as far back as `since`, in milliseconds since the epoch. Says whether there are
    /// more. Of versions before the first entry none can be read any more, so that nothing is kept for them.
    pub async fn look_back(&mut self, store: &dyn ObjectStore, since: i64) -> anyhow::Result<bool> {
        // Not the first entry that is old ends it: a clock may have been wrong for a while.
        let mut young = false;
        for _ in 0..LOOK_BACK {
            let Some(version) = self.oldest.checked_sub(1) else { return Ok(false) };
            let Some((written, bytes)) = entry(store, version).await? else { return Ok(false) };
            young |= written >= since;
            self.removed(&bytes, written).with_context(|| format!("read commit {version}"))?;
            self.oldest = version;
        }
        Ok(young)
    }

    /// Whether a file is of the newest version, or was until `since`, in milliseconds since the epoch.
    pub fn keeps(&self, path: &Path, since: i64) -> bool {
        let key = file_key(path.as_ref());
        self.live.contains(&key) || self.gone.get(&key).is_some_and(|gone| *gone >= since)
    }

    fn add(&mut self, path: &str) {
        for key in keys(path) {
            self.gone.remove(&key);
            self.live.insert(key);
        }
    }

    fn remove(&mut self, path: &str, at: Option<i64>) {
        for key in keys(path) {
            self.live.remove(&key);
            // One that does not say when is as good as of now.
            self.gone.insert(key, at.unwrap_or(i64::MAX));
        }
    }

    /// What an older entry, written then, removed. None of these is live, but for those that a later one has brought back.
    fn removed(&mut self, bytes: &[u8], written: i64) -> anyhow::Result<()> {
        if memchr::memmem::find(bytes, b"\"remove\"").is_none() {
            return Ok(());
        }
        for line in lines(bytes) {
            let line: Line = serde_json::from_slice(line)?;
            for key in line.remove.iter().flat_map(|remove| keys(&remove.path)) {
                let at = line.remove.as_ref().and_then(|remove| remove.deletion_timestamp);
                let gone = self.gone.entry(key).or_insert(i64::MIN);
                *gone = at.map_or(i64::MAX, |at| at.max(written)).max(*gone);
            }
        }
        Ok(())
    }

    fn entry(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
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

    async fn checkpoint(&mut self, store: &dyn ObjectStore, part: &Path) -> anyhow::Result<()> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(store.get(part).await?.bytes().await?)?;
        let columns = ["add.path", "remove.path", "remove.deletionTimestamp"];
        let mask = ProjectionMask::columns(builder.parquet_schema(), columns);
        for batch in builder.with_projection(mask).build()? {
            let batch = batch?;
            texts(&batch, "add", "path")?.iter().flatten().for_each(|path| self.add(path));
            let removes = batch.column_by_name("remove").and_then(|column| column.as_struct_opt());
            let times = removes.and_then(|removes| removes.column_by_name("deletionTimestamp"));
            let times = times.and_then(|times| times.as_primitive_opt::<Int64Type>());
            for (row, path) in texts(&batch, "remove", "path")?.iter().enumerate() {
                let at = times.filter(|times| times.is_valid(row)).map(|times| times.value(row));
                path.iter().for_each(|path| self.remove(path, at));
            }
        }
        Ok(())
    }
}

/// An entry of the log, and when it was written, in milliseconds since the epoch; `None` where it is not there.
async fn entry(store: &dyn ObjectStore, version: u64) -> anyhow::Result<Option<(i64, Bytes)>> {
    match store.get(&entry_path(version)).await {
        Ok(found) => Ok(Some((found.meta.last_modified.timestamp_millis(), found.bytes().await?))),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(failure) => Err(failure).with_context(|| format!("read commit {version}")),
    }
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty())
}

/// A path as the log writes it, and as the folder has it: the log's is that of a URL.
fn keys(path: &str) -> impl Iterator<Item = u128> + use<> {
    let decoded = Path::from_url_path(path).ok().filter(|decoded| decoded.as_ref() != path);
    [Some(file_key(path)), decoded.map(|decoded| file_key(decoded.as_ref()))].into_iter().flatten()
}
