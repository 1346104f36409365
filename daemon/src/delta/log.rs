//! The files of a Delta log: where they are, what their names mean, and the newest version.

use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::Deserialize;

/// The folder of the log, within the table's folder.
pub const LOG_FOLDER: &str = "_delta_log";

/// The file that names the newest checkpoint.
pub(super) const LAST_CHECKPOINT: &str = "_delta_log/_last_checkpoint";

/// What it says.
#[derive(Deserialize)]
pub(super) struct LastCheckpoint {
    pub(super) version: u64,
}

/// The folder of a table's log.
pub fn log_dir(table: &FilePath) -> PathBuf {
    table.join(LOG_FOLDER)
}

/// Whether a folder holds a Delta table.
pub fn is_table(folder: &FilePath) -> bool {
    log_dir(folder).is_dir()
}

/// The files of a log.
#[derive(Debug, Default)]
pub(crate) struct LogFiles {
    pub(crate) commits: BTreeMap<u64, Path>,
    /// Complete checkpoints, each in one part or several.
    pub(crate) checkpoints: BTreeMap<u64, Vec<Path>>,
}

/// Lists the log of the table in `store`. May miss a commit that is written during the listing.
pub(crate) async fn list_log(store: &dyn ObjectStore) -> anyhow::Result<LogFiles> {
    let files: Vec<_> = store.list(Some(&Path::from(LOG_FOLDER))).map_ok(|meta| meta.location).try_collect().await?;
    Ok(LogFiles::from_paths(files.into_iter()))
}

/// Lists what is needed to read the newest version: the last checkpoint and the commits after it, or the whole log if
/// it has no checkpoint.
pub(super) async fn list_log_tail(store: &dyn ObjectStore) -> anyhow::Result<LogFiles> {
    let hint = match store.get(&Path::from(LAST_CHECKPOINT)).await {
        Ok(hint) => serde_json::from_slice::<LastCheckpoint>(&hint.bytes().await?).ok(),
        Err(object_store::Error::NotFound { .. }) => None,
        Err(failure) => return Err(failure.into()),
    };
    let Some(LastCheckpoint { version }) = hint else { return list_log(store).await };
    let offset = Path::from(format!("{LOG_FOLDER}/{version:020}"));
    let files: Vec<_> = store.list_with_offset(Some(&Path::from(LOG_FOLDER)), &offset).try_collect().await?;
    let found = LogFiles::from_paths(files.into_iter().map(|meta| meta.location));
    // The protocol allows `_last_checkpoint` to be stale.
    if found.checkpoints.is_empty() { list_log(store).await } else { Ok(found) }
}

/// The newest version in the log of the table in `store`; `None` if the log is empty.
pub(super) async fn newest_version(store: &dyn ObjectStore) -> anyhow::Result<Option<u64>> {
    let files = list_log_tail(store).await?;
    let commit = files.commits.last_key_value().map(|(version, _)| *version);
    Ok(commit.max(files.checkpoints.last_key_value().map(|(version, _)| *version)))
}

/// The path of a version's commit.
pub(crate) fn entry_path(version: u64) -> Path {
    Path::from(format!("{LOG_FOLDER}/{version:020}.json"))
}

/// The version of a commit's file; `None` if the file is not a commit.
pub(super) fn version_of_commit(path: &Path) -> Option<u64> {
    match parse_name(path.filename()?)? {
        (version, Kind::Commit) => Some(version),
        _ => None,
    }
}

impl LogFiles {
    fn from_paths(files: impl Iterator<Item = Path>) -> Self {
        let mut found = Self::default();
        for path in files {
            match path.filename().and_then(parse_name) {
                Some((version, Kind::Commit)) => drop(found.commits.insert(version, path)),
                Some((version, Kind::Checkpoint)) => found.checkpoints.entry(version).or_default().push(path),
                None => {}
            }
        }
        found.checkpoints.retain(|_, parts| keep_complete(parts));
        found
    }
}

/// Whether a checkpoint has all its parts. Where a version has a checkpoint in one file (with sidecars, perhaps), keeps only
/// that file.
fn keep_complete(parts: &mut Vec<Path>) -> bool {
    let fields = |part: &Path| part.filename().map(|name| name.split('.').map(str::to_owned).collect::<Vec<_>>());
    let fields: Vec<_> = parts.iter().filter_map(fields).collect();
    let in_one_file = [3, 4].map(|count| fields.iter().position(|fields| fields.len() == count));
    if let Some(at) = in_one_file.into_iter().flatten().next() {
        parts.swap(0, at);
        parts.truncate(1);
        return true;
    }
    let count = fields.first().and_then(|fields| fields.get(3)?.parse::<usize>().ok());
    count == Some(parts.len())
}

enum Kind {
    Commit,
    Checkpoint,
}

/// The version and kind of a log file by its name: twenty digits, then `.json`, or `.checkpoint` with what kind of a
/// checkpoint it is.
fn parse_name(name: &str) -> Option<(u64, Kind)> {
    let (digits, rest) = name.split_once('.')?;
    let version = (digits.len() == 20).then(|| digits.parse().ok())??;
    match rest {
        "json" => Some((version, Kind::Commit)),
        _ if rest.starts_with("checkpoint.") && rest.ends_with("parquet") => Some((version, Kind::Checkpoint)),
        // v2: with an id.
        _ if rest.starts_with("checkpoint.") && rest.ends_with("json") => Some((version, Kind::Checkpoint)),
        _ => None,
    }
}
