//! Reads every `txn` action of a Delta log: those of the last checkpoint, then those of the commits after it.
//!
//! delta-rs looks up one application id at a time. A silverd table has one id for each log partition that it ever read,
//! and the ids of a broker that was replaced are only known from the log.
//!
//! ```text
//!   commit ─ commit ─ commit ─ checkpoint ─ commit ─ commit { txns: 12 }
//!  ◀──────── restore ────────▶│◀─────────── read ───────────▶  fewer than 12 ids: look before the checkpoint
//! ```

use std::collections::HashMap;

use anyhow::{Context, bail};
use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use deltalake_core::logstore::LogStoreRef;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Deserialize;
use silverd_core::offsets::{LogPartition, Offsets};

use super::log::{LOG_FOLDER, entry_path, list_log, list_log_tail};

/// Commits that are searched for the number of silverd's application ids.
const COMMITS_MAX: usize = 1_000;

/// The application ids of a table, with their versions.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    pub(super) versions: HashMap<String, i64>,
    /// silverd's ids that are not where a reader of the log finds them, but in older commits.
    pub(super) restored: Vec<(String, i64)>,
    /// silverd's ids that no commit has any more.
    pub(super) lost: u64,
}

/// The next offset of every log partition that a table holds data of, at its newest version.
pub(crate) async fn read_offsets(log: &LogStoreRef) -> anyhow::Result<Offsets> {
    Ok(offsets_in(&read_transactions(log.object_store(None).as_ref(), None).await?.versions))
}

/// The application ids that name log partitions, as offsets.
pub(super) fn offsets_in(transactions: &HashMap<String, i64>) -> Offsets {
    transactions.iter().filter_map(|(id, version)| Some((LogPartition::from_app_id(id)?, *version))).collect()
}

/// How many of the application ids are silverd's. Each commit says it, so that an id that is lost later is missed.
pub(super) fn count_own<'i>(ids: impl Iterator<Item = &'i String>) -> u64 {
    ids.filter(|id| is_own(id)).count() as u64
}

fn is_own(id: &str) -> bool {
    id.starts_with("silverd")
}

/// The versions of all application ids, at `version` of the table in `store`, or at its newest.
///
/// Another engine's checkpoint may leave ids out: the protocol allows that for ids that were not set for a while, if a
/// table property says so. They are then taken from the commits before the checkpoint, as far as these exist.
pub(super) async fn read_transactions(store: &dyn ObjectStore, version: Option<u64>) -> anyhow::Result<Transactions> {
    let wanted = ..=version.unwrap_or(u64::MAX);
    let mut files = list_log_tail(store).await?;
    if files.checkpoints.range(wanted).next().is_none() {
        files = list_log(store).await?;
    }
    let mut versions = HashMap::new();
    let mut start = 0;
    if let Some((checkpoint, parts)) = files.checkpoints.range(wanted).next_back() {
        for part in parts {
            add_checkpoint(store, part, &mut versions).await.with_context(|| format!("read checkpoint {part}"))?;
        }
        start = checkpoint + 1;
    }
    files.commits.retain(|commit, _| wanted.contains(commit) && *commit >= start);
    let newest = files.commits.last_key_value().map(|(commit, _)| *commit).max(start.checked_sub(1));
    let version = version.or(newest).context("the log is empty")?;
    let complete = files.commits.keys().copied().eq(start..=version);
    if !complete {
        bail!(
            "commits between version {start} and {version} are missing in {LOG_FOLDER}/: were they deleted without a \
             checkpoint?"
        );
    }
    let mut known = None;
    for path in files.commits.values() {
        let bytes = store.get(path).await?.bytes().await?;
        let commit = read_commit(&bytes).with_context(|| format!("read commit {path}"))?;
        versions.extend(commit.txns);
        known = commit.known.or(known);
    }
    let mut found = Transactions { versions, ..Transactions::default() };
    if start > 0 {
        found.restore(store, start - 1, known).await?;
    }
    Ok(found)
}

impl Transactions {
    /// Finds ids that the checkpoint lacks in the commits up to `newest`. `known` is how many of silverd's ids there are,
    /// if a later commit says so.
    async fn restore(&mut self, store: &dyn ObjectStore, newest: u64, mut known: Option<u64>) -> anyhow::Result<()> {
        for (read, version) in (0..=newest).rev().enumerate() {
            let own = count_own(self.versions.keys());
            if known.is_some_and(|known| own >= known) || (known.is_none() && read == COMMITS_MAX) {
                break;
            }
            let bytes = match store.get(&entry_path(version)).await {
                Ok(found) => found.bytes().await?,
                Err(object_store::Error::NotFound { .. }) => break,
                Err(failure) => return Err(failure).with_context(|| format!("read commit {version}")),
            };
            let commit = read_commit(&bytes).with_context(|| format!("read commit {version}"))?;
            known = known.or(commit.known);
            for (id, version) in commit.txns {
                if is_own(&id) && !self.versions.contains_key(&id) {
                    self.restored.push((id.clone(), version));
                    self.versions.insert(id, version);
                }
            }
        }
        self.lost = known.unwrap_or(0).saturating_sub(count_own(self.versions.keys()));
        Ok(())
    }
}

/// What a commit says of application ids.
struct Commit {
    txns: HashMap<String, i64>,
    /// How many of silverd's ids there were after it.
    known: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    txn: Option<Txn>,
    commit_info: Option<CommitInfo>,
}

#[derive(Deserialize)]
struct CommitInfo {
    silverd: Option<SilverdInfo>,
}

#[derive(Deserialize)]
struct SilverdInfo {
    #[serde(rename = "txns")]
    known: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Txn {
    app_id: String,
    version: i64,
}

fn read_commit(bytes: &[u8]) -> anyhow::Result<Commit> {
    let needles = ["\"txn\"", "\"commitInfo\""].map(memchr::memmem::Finder::new);
    let mut commit = Commit { txns: HashMap::new(), known: None };
    let is_wanted = |line: &&[u8]| needles.iter().any(|needle| needle.find(line).is_some());
    for line in bytes.split(|byte| *byte == b'\n').filter(is_wanted) {
        let line: Line = serde_json::from_slice(line)?;
        commit.txns.extend(line.txn.map(|txn| (txn.app_id, txn.version)));
        commit.known = line.commit_info.and_then(|info| info.silverd?.known).or(commit.known);
    }
    Ok(commit)
}

async fn add_checkpoint(
    store: &dyn ObjectStore,
    path: &Path,
    versions: &mut HashMap<String, i64>,
) -> anyhow::Result<()> {
    let bytes = store.get(path).await?.bytes().await?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), ["txn.appId", "txn.version"]);
    for batch in builder.with_projection(mask).build()? {
        let batch = batch?;
        let Some(txn) = batch.column_by_name("txn").and_then(|column| column.as_struct_opt()) else { continue };
        let ids = txn.column_by_name("appId").context("`txn` has no `appId`")?;
        let ids = cast(ids, &DataType::Utf8)?;
        let numbers = txn.column_by_name("version").and_then(|column| column.as_primitive_opt::<Int64Type>());
        let (ids, numbers) = (ids.as_string::<i32>(), numbers.context("`txn` has no `version`")?);
        for row in (0..txn.len()).filter(|row| txn.is_valid(*row) && ids.is_valid(*row)) {
            versions.insert(ids.value(row).to_owned(), numbers.value(row));
        }
    }
    Ok(())
}
