//! Reads every `txn` action of a Delta log: the last checkpoint's, then those of the commits behind it.
//!
//! delta-rs answers for one application id at a time; a table of silverd has one id for each log partition that it ever
//! read, and after a broker was set up anew nobody else knows the old ones.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, bail};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Deserialize;

pub(super) const LOG: &str = "_delta_log";

/// The files of a log.
#[derive(Debug, Default)]
pub struct LogFiles {
    pub commits: BTreeMap<u64, Path>,
    /// Each in one part or several.
    pub checkpoints: BTreeMap<u64, Vec<Path>>,
}

/// Lists the log of the table in `store`. A commit that lands meanwhile may be missing.
pub async fn list(store: &dyn ObjectStore) -> anyhow::Result<LogFiles> {
    let files: Vec<_> = store.list(Some(&Path::from(LOG))).map_ok(|meta| meta.location).try_collect().await?;
    Ok(LogFiles::of(files.into_iter()))
}

/// The last checkpoint and what stands behind it, or a whole log that has none: what is needed to read the newest version.
pub async fn tail(store: &dyn ObjectStore) -> anyhow::Result<LogFiles> {
    #[derive(Deserialize)]
    struct Hint {
        version: u64,
    }
    let hint = match store.get(&Path::from(format!("{LOG}/_last_checkpoint"))).await {
        Ok(hint) => serde_json::from_slice::<Hint>(&hint.bytes().await?).ok(),
        Err(object_store::Error::NotFound { .. }) => None,
        Err(failure) => return Err(failure.into()),
    };
    let Some(Hint { version }) = hint else { return list(store).await };
    let offset = Path::from(format!("{LOG}/{version:020}"));
    let files: Vec<_> = store.list_with_offset(Some(&Path::from(LOG)), &offset).try_collect().await?;
    let found = LogFiles::of(files.into_iter().map(|meta| meta.location));
    // The hint is no more than one.
    if found.checkpoints.is_empty() { list(store).await } else { Ok(found) }
}

impl LogFiles {
    fn of(files: impl Iterator<Item = Path>) -> Self {
        let mut found = Self::default();
        for path in files {
            match path.filename().and_then(parse_name) {
                Some((version, Kind::Commit)) => drop(found.commits.insert(version, path)),
                Some((version, Kind::Checkpoint)) => found.checkpoints.entry(version).or_default().push(path),
                None => {}
            }
        }
        found.checkpoints.retain(|_, parts| whole(parts));
        found
    }
}

/// Whether a checkpoint is there with all its parts, of which one that is in one file has no need.
fn whole(parts: &mut Vec<Path>) -> bool {
    let fields = |part: &Path| part.filename().map(|name| name.split('.').map(str::to_owned).collect::<Vec<_>>());
    let fields: Vec<_> = parts.iter().filter_map(fields).collect();
    if let Some(at) = fields.iter().position(|fields| fields.len() == 3) {
        parts.swap(0, at);
        parts.truncate(1);
        return true;
    }
    let of = fields.first().and_then(|fields| fields.get(3)?.parse::<usize>().ok());
    of == Some(parts.len())
}

/// Where the entry of a version stands.
pub fn entry_path(version: u64) -> Path {
    Path::from(format!("{LOG}/{version:020}.json"))
}

/// The versions of all application ids, as of `version` of the table in `store`, or of its newest.
pub async fn transactions(store: &dyn ObjectStore, version: Option<u64>) -> anyhow::Result<HashMap<String, i64>> {
    let wanted = ..=version.unwrap_or(u64::MAX);
    let mut files = tail(store).await?;
    if files.checkpoints.range(wanted).next().is_none() {
        files = list(store).await?;
    }
    let mut versions = HashMap::new();
    let mut start = 0;
    if let Some((of, parts)) = files.checkpoints.range(wanted).next_back() {
        for part in parts {
            read_checkpoint(store, part, &mut versions).await.with_context(|| format!("read checkpoint {part}"))?;
        }
        start = of + 1;
    }
    files.commits.retain(|of, _| wanted.contains(of) && *of >= start);
    let newest = files.commits.last_key_value().map(|(of, _)| *of).max(start.checked_sub(1));
    let version = version.or(newest).context("there is no log")?;
    let complete = files.commits.keys().copied().eq(start..=version);
    if !complete {
        bail!(
            "the log in {LOG}/ lacks commits between version {start} and {version}: was it cleaned without a checkpoint?"
        );
    }
    for path in files.commits.values() {
        let bytes = store.get(path).await?.bytes().await?;
        read_commit(&bytes, &mut versions).with_context(|| format!("read commit {path}"))?;
    }
    Ok(versions)
}

/// The newest version in the log of the table in `store`.
pub async fn newest_version(store: &dyn ObjectStore) -> anyhow::Result<Option<u64>> {
    let files = tail(store).await?;
    let commit = files.commits.last_key_value().map(|(version, _)| *version);
    Ok(commit.max(files.checkpoints.last_key_value().map(|(version, _)| *version)))
}

enum Kind {
    Commit,
    Checkpoint,
}

/// The version of a commit's file; `None` if it is something else.
pub(super) fn version_of_commit(path: &Path) -> Option<u64> {
    match parse_name(path.filename()?)? {
        (version, Kind::Commit) => Some(version),
        _ => None,
    }
}

/// The version and kind of a log file by its name: twenty digits, then `.json` or `.checkpoint…parquet`.
fn parse_name(name: &str) -> Option<(u64, Kind)> {
    let (digits, rest) = name.split_once('.')?;
    let version = (digits.len() == 20).then(|| digits.parse().ok())??;
    match rest {
        "json" => Some((version, Kind::Commit)),
        _ if rest.starts_with("checkpoint") && rest.ends_with("parquet") => Some((version, Kind::Checkpoint)),
        _ => None,
    }
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

fn read_commit(bytes: &[u8], versions: &mut HashMap<String, i64>) -> anyhow::Result<()> {
    let needle = memchr::memmem::Finder::new(b"\"txn\"");
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| needle.find(line).is_some()) {
        if let Some(txn) = serde_json::from_slice::<Line>(line)?.txn {
            versions.insert(txn.app_id, txn.version);
        }
    }
    Ok(())
}

async fn read_checkpoint(
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

/// Reads a checkpoint in one file to its end: it must tell of a table.
pub async fn read_whole_checkpoint(store: &dyn ObjectStore, path: &Path) -> anyhow::Result<()> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(store.get(path).await?.bytes().await?)?;
    let columns = ["add.path", "add.size", "txn.appId", "txn.version", "metaData.id", "protocol.minReaderVersion"];
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns);
    let (mut tables, mut protocols) = (0, 0);
    for batch in builder.with_projection(mask).build()? {
        let batch = batch?;
        tables += texts(&batch, "metaData", "id")?.iter().flatten().count();
        protocols += texts(&batch, "protocol", "minReaderVersion")?.iter().flatten().count();
    }
    anyhow::ensure!(tables == 1 && protocols == 1, "it tells of {tables} tables and {protocols} protocols, not of one");
    Ok(())
}

/// The texts of a field of an action in a checkpoint; none where it lacks the field, or the row is another action.
pub fn texts(batch: &RecordBatch, action: &str, field: &str) -> anyhow::Result<Vec<Option<String>>> {
    let Some(action) = batch.column_by_name(action).and_then(|column| column.as_struct_opt()) else {
        return Ok(Vec::new());
    };
    let Some(column) = action.column_by_name(field) else { return Ok(Vec::new()) };
    let column = cast(column, &DataType::Utf8)?;
    let texts = column.as_string::<i32>();
    Ok((0..texts.len())
        .map(|row| (action.is_valid(row) && texts.is_valid(row)).then(|| texts.value(row).to_owned()))
        .collect())
}
