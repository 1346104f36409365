//! Checkpoints that cannot be read. The entries of the log hold the same, as long as they are there, so reading goes on
//! from an older checkpoint or from the first entry. The protocol makes checkpoints optional.
//!
//! ```text
//!   entry 0 … entry 49 ─ checkpoint 50 ✓ ─ … ─ checkpoint 100 ✗ ─ entry 101 ─ entry 102
//!                                 ◀─────────────── read ────────────────────────────▶
//! ```
//!
//! What is damaged stays where it is, and [`LocalStore`](super::local_store::LocalStore) leaves it out.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path as FilePath, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, bail};
use deltalake_core::logstore::LogStoreRef;
use futures::future::BoxFuture;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::RwLock;
use tracing::warn;

use super::checkpoint::verify_parts;
use super::log::{LAST_CHECKPOINT, LOG_FOLDER, LastCheckpoint, list_log};

/// The damaged files, each with its length and modification time: a file that is written again is looked at again.
static LEFT_OUT: RwLock<Option<HashMap<PathBuf, Stamp>>> = RwLock::new(None);

type Stamp = (u64, Option<SystemTime>);

/// Whether a file of a log is left out, since it is damaged.
pub(super) fn is_left_out(file: &FilePath) -> bool {
    let left_out = LEFT_OUT.read();
    let Some(known) = left_out.as_ref().and_then(|left_out| left_out.get(file)) else { return false };
    stamp(file).as_ref() == Some(known)
}

/// Whether a damaged checkpoint of the table was found.
pub(super) fn were_found(log: &LogStoreRef) -> bool {
    let Ok(folder) = folder(log) else { return false };
    LEFT_OUT.read().iter().flat_map(HashMap::keys).any(|file| file.starts_with(&folder))
}

/// Removes a `_last_checkpoint` that is damaged, so that a good one takes its place: the writer of checkpoints leaves one
/// alone that names a newer version. Readers need none.
pub(super) async fn remove_hint(log: &LogStoreRef) -> anyhow::Result<()> {
    if is_left_out(&folder(log)?.join(LAST_CHECKPOINT)) {
        log.object_store(None).delete(&Path::from(LAST_CHECKPOINT)).await?;
    }
    Ok(())
}

/// Reads a log. If that fails, leaves out its damaged checkpoints, and reads it again.
pub(super) async fn read_past<T>(
    log: &LogStoreRef,
    read: impl Fn(LogStoreRef) -> BoxFuture<'static, anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let failure = match read(log.clone()).await {
        Ok(found) => return Ok(found),
        Err(failure) => failure,
    };
    let damaged = match leave_out_damaged(log).await {
        Ok(damaged) if damaged.is_empty() => return Err(failure),
        Ok(damaged) => damaged,
        Err(reason) => return Err(reason),
    };
    for (file, fault) in &damaged {
        warn!("{file} is damaged ({fault}): silverd reads what it held from the entries of the log");
    }
    read(log.clone()).await
}

/// Finds the damaged checkpoints that would be read, and what is wrong with them. Fails if the log does not hold what
/// they held.
async fn leave_out_damaged(log: &LogStoreRef) -> anyhow::Result<BTreeMap<Path, String>> {
    let store = log.object_store(None);
    let folder = folder(log)?;
    let files = list_log(&store).await?;
    let mut damaged = BTreeMap::new();
    let mut start = 0;
    for (version, parts) in files.checkpoints.iter().rev() {
        match verify_parts(&store, parts).await {
            Ok(()) => {
                start = version + 1;
                break;
            }
            Err(fault) => damaged.extend(parts.iter().map(|part| (part.clone(), format!("{fault:#}")))),
        }
    }
    let good = files.checkpoints.keys().rfind(|version| **version < start);
    if let Some(fault) = hint_fault(&store, good.copied()).await? {
        damaged.insert(Path::from(LAST_CHECKPOINT), fault);
    }
    let newest = files.commits.last_key_value().map_or(0, |(version, _)| *version);
    let missing = (start..=newest).find(|version| !files.commits.contains_key(version));
    if let (Some((file, fault)), Some(missing)) = (damaged.first_key_value(), missing) {
        bail!(
            "{file} is damaged ({fault}), and entry {missing} of {LOG_FOLDER}/ is gone, so that the table's files are not \
             known. Restore {LOG_FOLDER}/ from a backup. Of a Silver table you can also move the folder {} away: silverd \
             makes its rows again from bronze",
            folder.display()
        );
    }
    let mut left_out = LEFT_OUT.write();
    let left_out = left_out.get_or_insert_default();
    for file in damaged.keys() {
        let file = folder.join(file.as_ref());
        left_out.extend(stamp(&file).map(|stamp| (file, stamp)));
    }
    Ok(damaged)
}

/// What is wrong with `_last_checkpoint`, if the newest good checkpoint is that of this version.
async fn hint_fault(store: &dyn ObjectStore, good: Option<u64>) -> anyhow::Result<Option<String>> {
    let bytes = match store.get(&Path::from(LAST_CHECKPOINT)).await {
        Ok(found) => found.bytes().await?,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(failure) => return Err(failure).context("read _last_checkpoint"),
    };
    Ok(match serde_json::from_slice::<LastCheckpoint>(&bytes) {
        Err(error) => Some(error.to_string()),
        Ok(hint) if Some(hint.version) != good => Some(format!("it names the checkpoint of version {}", hint.version)),
        Ok(_) => None,
    })
}

/// The table's folder.
fn folder(log: &LogStoreRef) -> anyhow::Result<PathBuf> {
    log.root_url().to_file_path().map_err(|()| anyhow::anyhow!("{} is not a local folder", log.root_url()))
}

fn stamp(file: &FilePath) -> Option<Stamp> {
    let metadata = file.metadata().ok()?;
    Some((metadata.len(), metadata.modified().ok()))
}
