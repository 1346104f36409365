//! Which files a table's newest version has, and which it had a while ago: from the last checkpoint, and the entries behind
//! it. Paths are held as hashes: a table at a commit a second removes some hundred thousand files a day.

use std::collections::{HashMap, HashSet};

use anyhow::Context;
use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Deserialize;
use silverd_core::verify::file_key;

use super::log::{tail, texts};

/// The files of a table, now and before.
#[derive(Default)]
pub struct Files {
    pub version: u64,
    live: HashSet<u128>,
    /// When each was removed, in milliseconds since the epoch.
    gone: HashMap<u128, i64>,
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

impl Files {
    pub async fn read(store: &dyn ObjectStore) -> anyhow::Result<Self> {
        let files = tail(store).await?;
        let mut state = Self::default();
        let mut start = 0;
        if let Some((version, parts)) = files.checkpoints.last_key_value() {
            for part in parts {
                state.checkpoint(store, part).await.with_context(|| format!("read checkpoint {part}"))?;
            }
            start = version + 1;
        }
        let newest = files.commits.last_key_value().map_or(0, |(version, _)| *version);
        for version in start..=newest {
            let path = files.commits.get(&version).with_context(|| format!("the log lacks version {version}"))?;
            let bytes = store.get(path).await?.bytes().await?;
            state.entry(&bytes).with_context(|| format!("read commit {path}"))?;
        }
        state.version = newest.max(start.saturating_sub(1));
        Ok(state)
    }

    /// Whether a file is of the newest version, or was until `since`, in milliseconds since the epoch.
    pub fn keeps(&self, path: &Path, since: i64) -> bool {
        let key = file_key(path.as_ref());
        self.live.contains(&key) || self.gone.get(&key).is_some_and(|gone| *gone >= since)
    }

    /// Whether a commit has ever named it, as far as is known.
    pub fn knows(&self, path: &Path) -> bool {
        let key = file_key(path.as_ref());
        self.live.contains(&key) || self.gone.contains_key(&key)
    }

    pub fn live(&self) -> usize {
        self.live.len()
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

    fn entry(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut added = Vec::new();
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
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

/// A path as the log writes it, and as the folder has it: the log's is that of a URL.
fn keys(path: &str) -> impl Iterator<Item = u128> + use<> {
    let decoded = Path::from_url_path(path).ok().filter(|decoded| decoded.as_ref() != path);
    [Some(file_key(path)), decoded.map(|decoded| file_key(decoded.as_ref()))].into_iter().flatten()
}
