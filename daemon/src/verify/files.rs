//! The data files that a log names: whether they are there, and whether they can be read and hold the rows that the log
//! says.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::ErrorKind;

use anyhow::{Context, bail};
use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::{cast, max, min};
use arrow::datatypes::{DataType, Int64Type};
use deltalake_core::logstore::LogStoreRef;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::Deserialize;
use silverd_core::chunk::column;
use silverd_core::verify::{AffectedFile, Entry, FileOwner, LogPosition, Problem, Verifier, covered_offsets};

use super::verified::VerifiedTable;
use crate::delta::{DataFile, LOG_FOLDER, caught, entry_path, list_files, list_files_at, list_log, read_columns};

/// Reports the live files that are missing, or have another size than the log says.
pub(super) async fn check_presence<V: Verifier>(table: &mut VerifiedTable<V>, owner: &FileOwner) -> anyhow::Result<()> {
    let Some(log) = &table.log else { return Ok(()) };
    // A log that cannot be read has findings already.
    let Ok(files) = list_files_at(log, table.verifier.version()).await else { return Ok(()) };
    let sizes = list_data(log.object_store(None).as_ref()).await;
    let sizes = sizes.with_context(|| format!("list the files of {}", table.name))?;
    let broken: Vec<(DataFile, Fault)> = files
        .into_iter()
        .filter_map(|file| match sizes.get(&file.path) {
            Some(size) if *size == file.size => None,
            Some(size) => Some((file, Fault::Size(*size))),
            None => Some((file, Fault::Missing)),
        })
        .collect();
    report(table, owner, broken).await;
    Ok(())
}

/// Reports the live files that cannot be read to their end, and those of Bronze that have other rows than the log says:
/// the rows of the other tables are compared with what they must be. Reads all files that were not reported already.
pub(super) async fn check_contents<V: Verifier>(table: &mut VerifiedTable<V>, owner: &FileOwner) {
    let Some(log) = &table.log else { return };
    let Ok(files) = list_files_at(log, table.verifier.version()).await else { return };
    let mut broken = Vec::new();
    for file in files {
        if table.broken_files.contains(&file.path) {
            continue;
        }
        if let Some(fault) = fault_inside(log, &file, owner).await {
            broken.push((file, fault));
        }
    }
    report(table, owner, broken).await;
}

/// A live data file that cannot be read to its end, or of Bronze, that has other rows than the log says.
pub(crate) struct DamagedFile {
    pub(crate) file: DataFile,
    /// What was found, with the day and the offsets of its rows, and what to do.
    pub(crate) problem: Problem,
}

/// Reads all live files of a table to their end, and finds those that are damaged.
///
/// # Errors
///
/// If a file may not be read: that says nothing of what is in it.
pub(crate) async fn damaged_files(log: &LogStoreRef, owner: &FileOwner) -> anyhow::Result<Vec<DamagedFile>> {
    let files = list_files(log).await?;
    let sizes = list_data(log.object_store(None).as_ref()).await.context("list the files")?;
    let mut damaged = Vec::new();
    for file in files {
        let fault = match sizes.get(&file.path) {
            None => Some(Fault::Missing),
            Some(size) if *size != file.size => Some(Fault::Size(*size)),
            Some(_) => fault_inside(log, &file, owner).await,
        };
        if fault.is_some() {
            check_access(log, &file).await?;
        }
        damaged.extend(fault.map(|fault| (file, fault)));
    }
    if damaged.is_empty() {
        return Ok(Vec::new());
    }
    let entries = list_log(log.object_store(None).as_ref()).await.context("list the log")?.commits;
    let newest = entries.last_key_value().map_or(0, |(version, _)| *version);
    let paths = damaged.iter().map(|(file, _)| file.path.clone()).collect();
    let commits = commits_that_added(log, newest, paths).await;
    let problem = |(file, fault): (DataFile, Fault)| {
        let problem = fault.problem(&file, commits.get(&file.path), owner);
        DamagedFile { file, problem }
    };
    Ok(damaged.into_iter().map(problem).collect())
}

/// Fails if a file is there, and this user may not read it.
async fn check_access(log: &LogStoreRef, file: &DataFile) -> anyhow::Result<()> {
    let Err(failure) = log.object_store(None).get(&file.path).await else { return Ok(()) };
    let causes = anyhow::Error::from(failure);
    let is_denied = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::PermissionDenied)
    };
    if causes.chain().any(is_denied) {
        return Err(causes).with_context(|| {
            format!("read {}: expected a file that this user may read; nothing was changed", file.path)
        });
    }
    Ok(())
}

/// What is wrong inside of a file that has the right size.
async fn fault_inside(log: &LogStoreRef, file: &DataFile, owner: &FileOwner) -> Option<Fault> {
    let failure = caught(read(log, file, *owner == FileOwner::Bronze)).await.err()?;
    Some(Fault::Damaged(format!("{failure:#}")))
}

/// What is wrong with a file.
enum Fault {
    Missing,
    /// It has this size, in bytes.
    Size(u64),
    Damaged(String),
}

impl Fault {
    /// The finding. `commit` has added the file, if it is known.
    fn problem(self, file: &DataFile, commit: Option<&Entry>, owner: &FileOwner) -> Problem {
        let name = file.path.to_string();
        let affected = AffectedFile {
            offsets: covered_offsets(&name, commit, file.stats.as_deref()),
            file: name,
            day: file.event_date.clone(),
            owner: owner.clone(),
        };
        match self {
            Self::Missing => Problem::FileMissing { file: affected },
            Self::Size(found) => Problem::FileSize { file: affected, expected: file.size, found },
            Self::Damaged(why) => Problem::FileDamaged { file: affected, why },
        }
    }
}

async fn report<V: Verifier>(table: &mut VerifiedTable<V>, owner: &FileOwner, broken: Vec<(DataFile, Fault)>) {
    let Some(log) = table.log.clone().filter(|_| !broken.is_empty()) else { return };
    let paths = broken.iter().map(|(file, _)| file.path.clone()).collect();
    let commits = commits_that_added(&log, table.verifier.version(), paths).await;
    for (file, fault) in broken {
        let commit = commits.get(&file.path);
        let position = LogPosition { version: commit.map(|entry| entry.version), ..LogPosition::default() };
        table.verifier.report(position, fault.problem(&file, commit, owner));
        table.broken_files.insert(file.path);
    }
}

/// The commits that added these files, as far as the log still has them. Reads it from its end.
async fn commits_that_added(log: &LogStoreRef, newest: u64, mut files: BTreeSet<Path>) -> BTreeMap<Path, Entry> {
    let store = log.object_store(None);
    let mut found = BTreeMap::new();
    for version in (0..=newest).rev() {
        if files.is_empty() {
            break;
        }
        // A commit that is gone or cannot be read has no ranges to report.
        let Ok(entry) = store.get(&entry_path(version)).await else { break };
        let Ok(bytes) = entry.bytes().await else { break };
        let Ok(entry) = Entry::parse(version, &bytes) else { continue };
        for add in &entry.adds {
            if let Some(file) = files.take(&Path::from(add.path.as_str())) {
                found.insert(file, entry.clone());
            }
        }
    }
    found
}

/// The files of a table's folder with their sizes, without those of the log.
async fn list_data(store: &dyn ObjectStore) -> anyhow::Result<HashMap<Path, u64>> {
    let top = store.list_with_delimiter(None).await?;
    let mut found: HashMap<_, _> = top.objects.into_iter().map(|file| (file.location, file.size)).collect();
    for folder in top.common_prefixes.iter().filter(|folder| folder.as_ref() != LOG_FOLDER) {
        let mut files = store.list(Some(folder));
        while let Some(file) = files.try_next().await? {
            found.insert(file.location, file.size);
        }
    }
    Ok(found)
}

/// Reads all columns to the end. With `compare`, also compares the rows' number and positions with the statistics.
async fn read(log: &LogStoreRef, file: &DataFile, compare: bool) -> anyhow::Result<()> {
    let mut columns = read_columns(log.object_store(None), file, None).await?;
    let (mut rows, mut found) = (0, Positions::default());
    while let Some(batch) = columns.batches.try_next().await? {
        rows += batch.num_rows() as u64;
        found.add(&batch)?;
    }
    let stats = file.stats.as_deref().and_then(|stats| serde_json::from_str::<Stats>(stats).ok());
    let Some(stats) = stats.filter(|_| compare && file.deleted.is_none()) else { return Ok(()) };
    if let Some(expected) = stats.num_records.filter(|expected| *expected != rows) {
        bail!("it has {rows} rows instead of {expected}");
    }
    for (name, found) in found.0 {
        let bound = |values: &serde_json::Map<String, serde_json::Value>| values.get(name)?.as_i64();
        if let Some(expected) = bound(&stats.min_values).zip(bound(&stats.max_values)).filter(|bounds| *bounds != found)
        {
            let ((low, high), (min, max)) = (found, expected);
            bail!("its column {name} has values from {low} to {high} instead of {min} to {max}");
        }
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    num_records: Option<u64>,
    #[serde(default)]
    min_values: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    max_values: serde_json::Map<String, serde_json::Value>,
}

/// The lowest and highest values of the columns with the positions of rows, by name.
#[derive(Default)]
struct Positions(BTreeMap<&'static str, (i64, i64)>);

impl Positions {
    fn add(&mut self, batch: &RecordBatch) -> anyhow::Result<()> {
        for name in [column::PARTITION, column::OFFSET] {
            let Some(column) = batch.column_by_name(name) else { continue };
            let values: ArrayRef = cast(column, &DataType::Int64)?;
            let values = values.as_primitive::<Int64Type>();
            if let Some((low, high)) = min(values).zip(max(values)) {
                let bounds = self.0.entry(name).or_insert((low, high));
                *bounds = (bounds.0.min(low), bounds.1.max(high));
            }
        }
        Ok(())
    }
}
