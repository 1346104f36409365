//! Reads every `txn` action of a Delta log: those of the last checkpoint, then those of the commits after it.
//!
//! delta-rs looks up one application id at a time. A silverd table has one id for each log partition that it ever read,
//! and the ids of a broker that was replaced are only known from the log.

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

use super::log::{LOG_FOLDER, list_log, list_log_tail};

/// The next offset of every log partition that a table holds data of, at its newest version.
pub(crate) async fn read_offsets(log: &LogStoreRef) -> anyhow::Result<Offsets> {
    Ok(offsets_in(&read_transactions(log.object_store(None).as_ref(), None).await?))
}

/// The application ids that name log partitions, as offsets.
pub(super) fn offsets_in(transactions: &HashMap<String, i64>) -> Offsets {
    transactions.iter().filter_map(|(id, version)| Some((LogPartition::from_app_id(id)?, *version))).collect()
}

/// The versions of all application ids, at `version` of the table in `store`, or at its newest.
pub(super) async fn read_transactions(
    store: &dyn ObjectStore,
    version: Option<u64>,
) -> anyhow::Result<HashMap<String, i64>> {
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
    for path in files.commits.values() {
        let bytes = store.get(path).await?.bytes().await?;
        add_commit(&bytes, &mut versions).with_context(|| format!("read commit {path}"))?;
    }
    Ok(versions)
}

#[derive(Deserialize)]
struct Line {
    txn: Option<Txn>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Txn {
    app_id: String,
    version: i64,
}

fn add_commit(bytes: &[u8], versions: &mut HashMap<String, i64>) -> anyhow::Result<()> {
    let needle = memchr::memmem::Finder::new(b"\"txn\"");
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| needle.find(line).is_some()) {
        if let Some(txn) = serde_json::from_slice::<Line>(line)?.txn {
            versions.insert(txn.app_id, txn.version);
        }
    }
    Ok(())
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
