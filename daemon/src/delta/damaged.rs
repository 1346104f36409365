//! Files of a log that cannot be read: checkpoints, and a newest entry that a power cut has left empty, cut off or full of
//! zeros. They are left out.
//!
//! The entries hold what a checkpoint holds, as long as they are there, so reading goes on from an older checkpoint or from the
//! first entry. The protocol makes checkpoints optional.
//!
//! ```text
//!   entry 0 … entry 49 ─ checkpoint 50 ✓ ─ … ─ checkpoint 100 ✗ ─ entry 101 ─ entry 102 ─ entry 103 ✗
//!                                 ◀─────────────── read ────────────────────────────▶
//! ```
//!
//! A newest entry that cannot be read was never acknowledged: silverd says that a commit has succeeded once its entry is on
//! the disk. Its events are read again.
//!
//! Damaged checkpoints stay where they are, and [`LocalStore`](super::local_store::LocalStore) leaves them out. A damaged entry
//! is also left out, and whoever writes the table moves it away.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path as FilePath, PathBuf};

use anyhow::{Context, bail};
use deltalake_core::logstore::LogStoreRef;
use futures::future::BoxFuture;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::RwLock;
use serde::de::IgnoredAny;
use tracing::warn;

use super::checkpoint::verify_parts;
use super::log::{LAST_CHECKPOINT, LOG_FOLDER, LastCheckpoint, entry_path, list_log};
use crate::runtime::file_watch::FileState;

/// Where damaged entries and data files are moved, in the table's folder. Delta ignores folders of this kind.
const DAMAGED_FOLDER: &str = "_damaged";

/// The damaged files, each with its state: a file that is written again is looked at again.
static LEFT_OUT: RwLock<Option<HashMap<PathBuf, FileState>>> = RwLock::new(None);

/// Whether a file of a log is left out, since it is damaged.
pub(super) fn is_left_out(file: &FilePath) -> bool {
    let left_out = LEFT_OUT.read();
    let Some(known) = left_out.as_ref().and_then(|left_out| left_out.get(file)) else { return false };
    FileState::of(file).as_ref() == Some(known)
}

/// The newest version up to this one whose entry is not damaged.
pub(super) fn readable_version(log: &LogStoreRef, version: u64) -> u64 {
    let is_damaged = folder(log).is_ok_and(|folder| is_left_out(&folder.join(entry_path(version).as_ref())));
    if is_damaged { version.saturating_sub(1) } else { version }
}

/// Whether a damaged file of the table's log was found.
pub(super) fn were_found(log: &LogStoreRef) -> bool {
    let Ok(folder) = folder(log) else { return false };
    LEFT_OUT.read().iter().flat_map(HashMap::keys).any(|file| file.starts_with(&folder))
}

/// Moves the damaged entries of the table away, so that the next commit can take their version.
pub(super) fn move_entries_away(log: &LogStoreRef) -> anyhow::Result<()> {
    let folder = folder(log)?;
    let is_entry = |file: &&PathBuf| file.starts_with(&folder) && is_name_of_entry(file);
    let entries: Vec<_> = LEFT_OUT.read().iter().flat_map(HashMap::keys).filter(is_entry).cloned().collect();
    for entry in entries.iter().filter(|entry| is_left_out(entry)) {
        let to = folder.join(DAMAGED_FOLDER);
        let name = entry.file_name().unwrap_or_default();
        std::fs::create_dir_all(&to).with_context(|| format!("create {}", to.display()))?;
        let to = to.join(name);
        let damaged = FileState::of(entry);
        std::fs::rename(entry, &to).with_context(|| format!("move {} away", entry.display()))?;
        if FileState::of(&to) != damaged {
            // Another silverd was faster, and this is its commit.
            std::fs::hard_link(&to, entry).with_context(|| format!("put {} back", entry.display()))?;
            std::fs::remove_file(&to)?;
            continue;
        }
        warn!("moved the damaged {} to {}; its events are read again", entry.display(), to.display());
    }
    Ok(())
}

/// Moves a damaged data file of a table away, which its newest version no longer has. Returns where it is now; `None` if there
/// is no such file.
pub(crate) fn move_data_file_away(log: &LogStoreRef, file: &Path) -> anyhow::Result<Option<PathBuf>> {
    let folder = folder(log)?;
    let (from, to) = (folder.join(file.as_ref()), folder.join(DAMAGED_FOLDER));
    if !from.exists() {
        return Ok(None);
    }
    std::fs::create_dir_all(&to).with_context(|| format!("create {}", to.display()))?;
    let to = to.join(from.file_name().unwrap_or_default());
    std::fs::rename(&from, &to).with_context(|| format!("move {} away", from.display()))?;
    Ok(Some(to))
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
        match is_name_of_entry(FilePath::new(file.as_ref())) {
            true => warn!("{file} is damaged ({fault}): silverd reads the table without it"),
            false => warn!("{file} is damaged ({fault}): silverd reads what it held from the entries of the log"),
        }
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
    let newest = files.commits.last_key_value();
    if let Some((_, entry)) = newest
        && let Some(fault) = entry_fault(&store.get(entry).await?.bytes().await?)
    {
        damaged.insert(entry.clone(), fault);
    }
    let newest = newest.map_or(0, |(version, _)| *version);
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
        left_out.extend(FileState::of(&file).map(|state| (file, state)));
    }
    Ok(damaged)
}

/// Checkpoints may be JSON, too.
fn is_name_of_entry(file: &FilePath) -> bool {
    let name = file.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.ends_with(".json") && !name.contains("checkpoint"))
}

/// What is wrong with an entry: each line has to be an action.
fn entry_fault(bytes: &[u8]) -> Option<String> {
    let mut lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).peekable();
    if lines.peek().is_none() {
        return Some("it has no action".to_owned());
    }
    lines.find_map(|line| serde_json::from_slice::<HashMap<String, IgnoredAny>>(line).err()).map(|e| e.to_string())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_entries_are_found() {
        let good = b"{\"commitInfo\":{}}\n{\"add\":{\"path\":\"a\"}}";
        assert_eq!(entry_fault(good), None);
        assert_eq!(entry_fault(b"{\"commitInfo\":{}}\n\n"), None);
        for bad in [&b""[..], b"\n \n", &[0; 64], &good[..good.len() - 1], &good[..20], b"[1]"] {
            assert!(entry_fault(bad).is_some(), "{}", String::from_utf8_lossy(bad));
        }
        let mut zeros_at_the_end = good.to_vec();
        zeros_at_the_end.extend([0; 8]);
        assert!(entry_fault(&zeros_at_the_end).is_some());
    }
}
