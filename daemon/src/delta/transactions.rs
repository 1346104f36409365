//! Reads every `txn` action of a Delta log: those of the last checkpoint, then those of the commits after it.
//!
//! delta-rs looks up one application id at a time. A silverd table has one id for each log partition that it ever read,
//! and the ids of a broker that was replaced are only known from the log.
//!
//! ```text
//!   commit ─ commit ─ commit ─ checkpoint ─ commit ─ commit { txns: 12 }
//!  ◀──────── search ─────────▶│◀─────────── read ───────────▶  fewer than 12 ids: look before the checkpoint
//! ```

use std::collections::HashMap;

use anyhow::{Context, bail};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use deltalake_core::logstore::LogStoreRef;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::Deserialize;
use silverd_core::lost::{self, LOST_EVENTS};
use silverd_core::offsets::{LogPartition, OffsetRange, Offsets, TopicIds, TopicName};

use super::checkpoint::read_checkpoint;
use super::log::{LOG_FOLDER, entry_path, list_log, list_log_tail};
use super::table::TXN_RETENTION;

/// The application ids of a table, with their versions.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    pub(crate) versions: HashMap<String, i64>,
    /// silverd's ids that are not where a reader of the log finds them, but before the last checkpoint.
    pub(super) restored: Vec<(String, i64)>,
    /// How many of silverd's ids the log has lost, at least.
    pub(super) lost: u64,
}

/// The next offset of every log partition that a table holds data of, at its newest version.
pub(crate) struct LogOffsets {
    pub(crate) offsets: Offsets,
    /// The id that each topic had at first, where it is known.
    pub(crate) topic_ids: TopicIds,
    /// How many of silverd's ids the log has lost, at least. Unless it is 0, there are more offsets than these.
    pub(crate) lost: u64,
}

/// Reads the next offsets from a log.
pub(crate) async fn read_offsets(log: &LogStoreRef) -> anyhow::Result<LogOffsets> {
    let found = read_transactions(log.object_store(None).as_ref(), None).await?;
    let topic_ids = found.versions.keys().filter_map(|id| TopicName::from_app_id(id)).collect();
    Ok(LogOffsets { offsets: offsets_in(&found.versions), topic_ids, lost: found.lost })
}

/// The offsets of events that Bronze has lost for good, and the number of these events, as its log says.
pub(crate) struct LostEvents {
    pub(crate) offsets: Vec<(LogPartition, OffsetRange)>,
    pub(crate) events: i64,
}

/// Reads which events of Bronze are lost for good.
pub(crate) async fn read_lost_events(log: &LogStoreRef) -> anyhow::Result<LostEvents> {
    let found = read_transactions(log.object_store(None).as_ref(), None).await?.versions;
    let offsets = found.iter().filter_map(|(id, version)| lost::from_app_id(id, *version)).collect();
    Ok(LostEvents { offsets, events: found.get(LOST_EVENTS).copied().unwrap_or(0) })
}

/// How many of silverd's ids the log has lost at a version, at least. A table with any is not written.
pub(crate) async fn lost_transactions(store: &dyn ObjectStore, version: u64) -> anyhow::Result<u64> {
    Ok(read_transactions(store, Some(version)).await?.lost)
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
/// table property says so. They are then looked for before that checkpoint, as far as the log still reaches.
pub(crate) async fn read_transactions(store: &dyn ObjectStore, version: Option<u64>) -> anyhow::Result<Transactions> {
    let wanted = ..=version.unwrap_or(u64::MAX);
    let mut files = list_log_tail(store).await?;
    if files.checkpoints.range(wanted).next().is_none() {
        files = list_log(store).await?;
    }
    let mut found = Transactions::default();
    let (mut start, mut last) = (0, None);
    if let Some((checkpoint, parts)) = files.checkpoints.range(wanted).next_back() {
        let read = Checkpoint::read(store, parts).await?;
        found.versions.clone_from(&read.versions);
        start = checkpoint + 1;
        last = Some((read, parts.clone()));
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
    let (mut known, mut adds_files) = (None, false);
    for path in files.commits.values() {
        let bytes = store.get(path).await?.bytes().await?;
        let commit = read_commit(&bytes).with_context(|| format!("read commit {path}"))?;
        found.versions.extend(commit.txns);
        known = commit.known.or(known);
        adds_files |= commit.adds_files;
    }
    let Some((checkpoint, parts)) = last else { return Ok(found) };
    let is_complete = found.search(store, start - 1, &checkpoint, &mut known).await?;
    if !is_complete {
        let own = count_own(found.versions.keys());
        found.lost = match known {
            Some(known) => known.saturating_sub(own),
            None => u64::from(own > 0 || adds_files || has_files(store, &parts).await?),
        };
    }
    Ok(found)
}

impl Transactions {
    /// Finds ids that the checkpoint of version `last` lacks, in the commits up to it and in older checkpoints. Says
    /// whether that makes them complete. `known` is how many of silverd's ids there are, if a commit says so: those of
    /// silverd do, since `txns` is in their info.
    ///
    /// | a commit says how many | what is found                                                      | lost           |
    /// |------------------------|--------------------------------------------------------------------|----------------|
    /// | yes                    | as many                                                            | 0              |
    /// | yes                    | fewer, and there is no older commit                                | the difference |
    /// | no                     | a checkpoint with ids, of a table without a retention of `txn`     | 0              |
    /// | no                     | every commit, from the first                                       | 0              |
    /// | no                     | some ids in a checkpoint, of a table with a retention of `txn`     | 1 at least     |
    /// | no                     | some ids, in commits only                                          | 1 at least     |
    /// | no                     | no id, and there are files                                         | 1 at least     |
    /// | no                     | no id, and no file: nothing was ever written                       | 0              |
    ///
    /// The third row is a table that silverd wrote before its commits said how many: only the property
    /// `delta.setTransactionRetentionDuration` allows a checkpoint to leave out a part of the ids, so those that are there
    /// are all. An engine that knows no `txn` at all leaves out every one, which the rows below show. Such a table is
    /// counted from its next commit on.
    async fn search(
        &mut self,
        store: &dyn ObjectStore,
        last: u64,
        checkpoint: &Checkpoint,
        known: &mut Option<u64>,
    ) -> anyhow::Result<bool> {
        if self.is_complete(*known, Some(checkpoint)) {
            return Ok(true);
        }
        let older = list_log(store).await?.checkpoints;
        for version in (0..=last).rev() {
            let checkpoint = match older.get(&version).filter(|_| version < last) {
                Some(parts) => Some(Checkpoint::read(store, parts).await?),
                None => None,
            };
            if let Some(checkpoint) = &checkpoint {
                self.restore(&checkpoint.versions);
            }
            if self.is_complete(*known, checkpoint.as_ref()) {
                return Ok(true);
            }
            let bytes = match store.get(&entry_path(version)).await {
                Ok(found) => found.bytes().await?,
                Err(object_store::Error::NotFound { .. }) => return Ok(false),
                Err(failure) => return Err(failure).with_context(|| format!("read commit {version}")),
            };
            let commit = read_commit(&bytes).with_context(|| format!("read commit {version}"))?;
            *known = known.or(commit.known);
            self.restore(&commit.txns);
        }
        Ok(known.is_none_or(|known| count_own(self.versions.keys()) >= known))
    }

    /// Whether these are all ids, by the number of them that is known or else by a checkpoint after which every commit
    /// was read.
    fn is_complete(&self, known: Option<u64>, checkpoint: Option<&Checkpoint>) -> bool {
        match known {
            Some(known) => count_own(self.versions.keys()) >= known,
            None => checkpoint.is_some_and(Checkpoint::has_every_id),
        }
    }

    /// Adds those of silverd's ids that no later action sets.
    fn restore(&mut self, older: &HashMap<String, i64>) {
        for (id, version) in older.iter().filter(|(id, _)| is_own(id)) {
            if !self.versions.contains_key(id) {
                self.restored.push((id.clone(), *version));
                self.versions.insert(id.clone(), *version);
            }
        }
    }
}

/// What a commit says of application ids.
struct Commit {
    txns: HashMap<String, i64>,
    /// How many of silverd's ids there were after it.
    known: Option<u64>,
    adds_files: bool,
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
    let adds_files = memchr::memmem::find(bytes, b"\"add\"").is_some();
    let mut commit = Commit { txns: HashMap::new(), known: None, adds_files };
    let is_wanted = |line: &&[u8]| needles.iter().any(|needle| needle.find(line).is_some());
    for line in bytes.split(|byte| *byte == b'\n').filter(is_wanted) {
        let line: Line = serde_json::from_slice(line)?;
        commit.txns.extend(line.txn.map(|txn| (txn.app_id, txn.version)));
        commit.known = line.commit_info.and_then(|info| info.silverd?.known).or(commit.known);
    }
    Ok(commit)
}

/// What a checkpoint says of application ids.
#[derive(Default)]
struct Checkpoint {
    versions: HashMap<String, i64>,
    /// The table had the property by which the writer of a checkpoint leaves ids out.
    has_retention: bool,
}

impl Checkpoint {
    async fn read(store: &dyn ObjectStore, parts: &[Path]) -> anyhow::Result<Self> {
        let mut read = Self::default();
        let columns = ["txn.appId", "txn.version", "metaData.configuration"];
        read_checkpoint(store, parts, &columns, |batch| read.add(batch)).await?;
        Ok(read)
    }

    fn add(&mut self, batch: &RecordBatch) -> anyhow::Result<()> {
        self.has_retention |= has_retention(batch)?;
        let Some(txn) = batch.column_by_name("txn").and_then(|column| column.as_struct_opt()) else { return Ok(()) };
        let ids = txn.column_by_name("appId").context("`txn` has no `appId`")?;
        let ids = cast(ids, &DataType::Utf8)?;
        let numbers = txn.column_by_name("version").and_then(|column| column.as_primitive_opt::<Int64Type>());
        let (ids, numbers) = (ids.as_string::<i32>(), numbers.context("`txn` has no `version`")?);
        for row in (0..txn.len()).filter(|row| txn.is_valid(*row) && ids.is_valid(*row)) {
            self.versions.insert(ids.value(row).to_owned(), numbers.value(row));
        }
        Ok(())
    }

    /// Whether it has all of silverd's ids, as far as the protocol goes.
    fn has_every_id(&self) -> bool {
        !self.has_retention && count_own(self.versions.keys()) > 0
    }
}

/// Whether a `metaData` action in a batch of a checkpoint sets a retention of `txn` actions.
fn has_retention(batch: &RecordBatch) -> anyhow::Result<bool> {
    let metadata = batch.column_by_name("metaData").and_then(|column| column.as_struct_opt());
    let properties = metadata.and_then(|metadata| metadata.column_by_name("configuration")?.as_map_opt());
    let (Some(metadata), Some(properties)) = (metadata, properties) else { return Ok(false) };
    for row in (0..metadata.len()).filter(|row| metadata.is_valid(*row) && properties.is_valid(*row)) {
        let names = cast(properties.value(row).column(0), &DataType::Utf8)?;
        if names.as_string::<i32>().iter().flatten().any(|name| name == TXN_RETENTION) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a checkpoint names a data file.
async fn has_files(store: &dyn ObjectStore, parts: &[Path]) -> anyhow::Result<bool> {
    let mut found = false;
    read_checkpoint(store, parts, &["add.path"], |batch| {
        let adds = batch.column_by_name("add").and_then(|column| column.as_struct_opt());
        found |= adds.is_some_and(|adds| adds.null_count() < adds.len());
        Ok(())
    })
    .await?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, MapBuilder, StringArray, StringBuilder, StructArray};
    use arrow::buffer::NullBuffer;
    use arrow::datatypes::Field;
    use object_store::memory::InMemory;
    use parquet::arrow::ArrowWriter;
    use serde_json::json;

    use super::*;

    const A: &str = "silverd:c:t:0";
    const B: &str = "silverd-rejects";

    /// A file of a log: its name, and what is in it.
    type File = (String, Vec<u8>);

    /// A commit that sets ids, adds a file, and says how many ids there are, if `known`.
    fn commit(version: u64, ids: &[(&str, i64)], known: Option<u64>) -> File {
        let info = known.map_or(json!({}), |known| json!({ "silverd": { "txns": known } }));
        let txn = |(id, version): &(&str, i64)| json!({ "txn": { "appId": id, "version": version } });
        let actions = ids.iter().map(txn).chain([json!({ "commitInfo": info }), json!({ "add": { "path": "f" } })]);
        let text: String = actions.map(|action| format!("{action}\n")).collect();
        (format!("{version:020}.json"), text.into_bytes())
    }

    fn nulls(rows: usize, is_valid: impl Fn(usize) -> bool) -> Option<NullBuffer> {
        Some(NullBuffer::from((0..rows).map(is_valid).collect::<Vec<bool>>()))
    }

    /// A checkpoint with these ids. Its first row is the metadata, its second one a file.
    fn checkpoint(version: u64, ids: &[(&str, i64)], has_file: bool, has_retention: bool) -> File {
        let rows = ids.len() + 2;
        let of_id = |row: usize| row.checked_sub(2).map(|at| ids[at]);
        let names: StringArray = (0..rows).map(|row| of_id(row).map(|id| id.0)).collect();
        let numbers: Int64Array = (0..rows).map(|row| of_id(row).map(|id| id.1)).collect();
        let fields = vec![Field::new("appId", DataType::Utf8, true), Field::new("version", DataType::Int64, true)];
        let columns: Vec<ArrayRef> = vec![Arc::new(names), Arc::new(numbers)];
        let txn = StructArray::new(fields.into(), columns, nulls(rows, |row| row >= 2));

        let mut properties = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
        for row in 0..rows {
            if row == 0 && has_retention {
                properties.keys().append_value(TXN_RETENTION);
                properties.values().append_value("interval 1 days");
            }
            properties.append(row == 0).unwrap();
        }
        let properties: ArrayRef = Arc::new(properties.finish());
        let fields = vec![Field::new("configuration", properties.data_type().clone(), true)];
        let metadata = StructArray::new(fields.into(), vec![properties], nulls(rows, |row| row == 0));

        let is_file = |row: usize| row == 1 && has_file;
        let paths: StringArray = (0..rows).map(|row| is_file(row).then_some("f")).collect();
        let fields = vec![Field::new("path", DataType::Utf8, true)];
        let add = StructArray::new(fields.into(), vec![Arc::new(paths) as ArrayRef], nulls(rows, is_file));

        let columns: [(&str, ArrayRef); 3] =
            [("txn", Arc::new(txn) as _), ("metaData", Arc::new(metadata) as _), ("add", Arc::new(add) as _)];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        (format!("{version:020}.checkpoint.parquet"), bytes)
    }

    /// Checks what a log of these files has: the ids, how many of them are restored, and how many are lost.
    async fn check(files: Vec<File>, ids: &[(&str, i64)], restored: usize, lost: u64) {
        let store = InMemory::new();
        for (name, bytes) in files {
            store.put(&Path::from(format!("{LOG_FOLDER}/{name}")), bytes.into()).await.unwrap();
        }
        let found = read_transactions(&store, None).await.unwrap();
        let expected: HashMap<String, i64> = ids.iter().map(|(id, version)| ((*id).to_owned(), *version)).collect();
        assert_eq!((&found.versions, found.restored.len(), found.lost), (&expected, restored, lost), "{found:?}");
    }

    #[tokio::test]
    async fn ids_that_a_commit_counts_are_missed() {
        let counted = || commit(5, &[(A, 9)], Some(2));
        check(vec![checkpoint(5, &[(A, 9), (B, 1)], true, true), counted()], &[(A, 9), (B, 1)], 0, 0).await;
        check(vec![checkpoint(5, &[], true, true), counted(), commit(4, &[(B, 1)], None)], &[(A, 9), (B, 1)], 2, 0)
            .await;
        check(vec![checkpoint(5, &[(A, 9)], true, true), counted()], &[(A, 9)], 0, 1).await;
        check(vec![checkpoint(5, &[], true, false), commit(6, &[(A, 9)], Some(2))], &[(A, 9)], 0, 1).await;
    }

    #[tokio::test]
    async fn ids_that_no_commit_counts_follow_the_truth_table() {
        let ids = [(A, 9), (B, 1)];
        // Written before the commits said how many ids there are.
        check(vec![checkpoint(5, &ids, true, false)], &ids, 0, 0).await;
        check(vec![checkpoint(5, &ids, true, false), commit(6, &[(A, 10)], None)], &[(A, 10), (B, 1)], 0, 0).await;
        // Another engine may have left some of them out.
        check(vec![checkpoint(5, &ids, true, true)], &ids, 0, 1).await;
        check(vec![checkpoint(5, &[], true, false)], &[], 0, 1).await;
        check(vec![checkpoint(5, &[], false, false), commit(6, &[(A, 10)], None)], &[(A, 10)], 0, 1).await;
        check(vec![checkpoint(5, &[], false, false)], &[], 0, 0).await;
        // Every commit is there.
        let all = || vec![commit(0, &[(B, 1)], None), commit(1, &[(A, 9)], None), checkpoint(1, &[], true, true)];
        check(all(), &ids, 2, 0).await;
        check(vec![commit(0, &[], None), checkpoint(0, &[], true, false)], &[], 0, 0).await;
    }

    #[tokio::test]
    async fn ids_are_found_in_an_older_checkpoint() {
        let with = |older: File| {
            vec![older, commit(3, &[], None), commit(4, &[(A, 9)], None), checkpoint(4, &[(A, 9)], true, true)]
        };
        // Commits are missing between the two.
        check(with(checkpoint(1, &[(A, 5), (B, 1)], true, false)), &[(A, 9)], 0, 1).await;
        check(with(checkpoint(2, &[(A, 5), (B, 1)], true, false)), &[(A, 9), (B, 1)], 1, 0).await;
        check(with(checkpoint(3, &[(A, 5), (B, 1)], true, false)), &[(A, 9), (B, 1)], 1, 0).await;
        check(with(checkpoint(3, &[(A, 5), (B, 1)], true, true)), &[(A, 9), (B, 1)], 1, 1).await;
    }
}
