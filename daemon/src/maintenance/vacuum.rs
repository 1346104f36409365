//! Vacuum: removes data files that no version within the retention has, such as replaced files and files that were
//! never committed.

use std::path::Path as FilePath;
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::Context;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

use super::error::MaintenanceError;
use super::throttle::Throttle;
use crate::delta::{EVENT_DATE, Table, TableFiles, log_dir};
use crate::runtime::clock;

/// Files of a day that are checked between two pauses: a day may have a million.
const FILES_PER_STEP: usize = 1_000;

/// What was removed, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vacuumed {
    pub files: u64,
    pub bytes: u64,
}

/// Removes data files that are older than `retention`, and that no version within it has.
///
/// A file that a commit is about to add is younger than that: writers store their files and commit them soon after.
/// Those that may take longer (a correction, the widening of a column) hold the [table lock](crate::delta::TableLock).
pub(super) async fn vacuum(
    table: &Table,
    folder: &FilePath,
    retention: Duration,
    dry_run: bool,
    throttle: &Throttle,
) -> Result<Vacuumed, MaintenanceError> {
    let store = table.store();
    let since = clock::now_ms() - i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
    // The log is read before the folder is listed: a file that is committed later is also newer.
    let mut files = TableFiles::read(store.as_ref()).await.context("read the log")?;
    let mut started = Instant::now();
    while files.read_older(store.as_ref(), since).await.context("read the log")? {
        throttle.pause_after(started.elapsed()).await?;
        started = Instant::now();
    }
    let mut vacuum = Vacuum { store: store.as_ref(), files, since, dry_run, removed: Vacuumed::default() };
    let top = store.list_with_delimiter(None).await.context("list the table's folder")?;
    vacuum.remove_unused(top.objects).await?;
    for day in top.common_prefixes {
        // The folder of another table may be within this one's.
        if !is_day(&day) {
            continue;
        }
        let mut found = store.list(Some(&day)).try_chunks(FILES_PER_STEP);
        let mut started = Instant::now();
        while let Some(found) = found.try_next().await.with_context(|| format!("list {day}"))? {
            vacuum.remove_unused(found).await?;
            throttle.pause_after(started.elapsed()).await?;
            started = Instant::now();
        }
        vacuum.remove_partial_uploads(&folder.join(day.as_ref()))?;
    }
    vacuum.remove_partial_uploads(&log_dir(folder))?;
    Ok(vacuum.removed)
}

struct Vacuum<'s> {
    store: &'s dyn ObjectStore,
    files: TableFiles,
    /// The start of the retention, in milliseconds since the epoch.
    since: i64,
    dry_run: bool,
    removed: Vacuumed,
}

impl Vacuum<'_> {
    async fn remove_unused(&mut self, found: Vec<ObjectMeta>) -> anyhow::Result<()> {
        for file in found {
            let is_old = file.last_modified.timestamp_millis() < self.since;
            if !is_old || !is_data_file(&file.location) || self.files.contains_since(&file.location, self.since) {
                continue;
            }
            if !self.dry_run {
                match self.store.delete(&file.location).await {
                    // Another silverd may have removed it.
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(failure) => return Err(failure).with_context(|| format!("remove {}", file.location)),
                }
            }
            self.removed.files += 1;
            self.removed.bytes += file.size;
        }
        Ok(())
    }

    /// Removes files that a killed process did not finish. The store writes them under the name with a `#` and a
    /// number, and does not list them.
    fn remove_partial_uploads(&mut self, folder: &FilePath) -> anyhow::Result<()> {
        let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some((target, number)) = name.to_str().and_then(|name| name.rsplit_once('#')) else { continue };
            let is_ours = target.ends_with(".parquet") || target.ends_with(".json");
            if !is_ours || number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            let Ok(metadata) = entry.metadata() else { continue };
            let modified = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            let modified_ms = modified.and_then(|at| i64::try_from(at.as_millis()).ok());
            if modified_ms.is_none_or(|at| at > self.since) {
                continue;
            }
            if !self.dry_run {
                std::fs::remove_file(entry.path()).with_context(|| format!("remove {}", entry.path().display()))?;
            }
            self.removed.files += 1;
            self.removed.bytes += metadata.len();
        }
        Ok(())
    }
}

fn is_day(folder: &Path) -> bool {
    let name = folder.filename().and_then(|name| name.strip_prefix(EVENT_DATE));
    name.is_some_and(|rest| rest.starts_with('='))
}

fn is_data_file(path: &Path) -> bool {
    path.filename().is_some_and(|name| name.ends_with(".parquet") && !name.starts_with(['_', '.']))
}
