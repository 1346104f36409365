//! Locks in the folder of `gold.day_status`. The kernel unlocks them when a process ends, however it ends.
//!
//! ```text
//!   a commit                             finalizing
//!   gate, shared ─▶ commits, shared      gate, exclusive: the next commits wait
//!   gate: unlock                         commits, exclusive: those under way have ended
//!   …                                    …
//!   commits: unlock                      both: unlock
//! ```
//!
//! Without the gate, commits that overlap would keep days from being finalized for as long as a backfill takes.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;

/// Delta readers and vacuum ignore names that begin with a dot.
const COMMITS: &str = ".silverd-days.lock";
const GATE: &str = ".silverd-days-gate.lock";
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The lock that commits to days that are over share, and that excludes them all. Held until it is dropped.
pub(crate) struct FolderLock {
    _commits: File,
    _gate: Option<File>,
}

/// A correction of a table is under way. Held until it is dropped.
pub(crate) struct CorrectionMark {
    _file: File,
}

impl FolderLock {
    /// For a commit. Waits while days are being finalized.
    pub(super) async fn shared(folder: &Path) -> anyhow::Result<Self> {
        let _gate = shared(&folder.join(GATE)).await?;
        Ok(Self { _commits: shared(&folder.join(COMMITS)).await?, _gate: None })
    }

    /// For finalizing; `None` if commits hold the lock for longer than `timeout`.
    pub(crate) async fn exclusive(folder: &Path, timeout: Duration) -> anyhow::Result<Option<Self>> {
        let until = Instant::now() + timeout;
        let Some(gate) = exclusive(&folder.join(GATE), until).await? else { return Ok(None) };
        let commits = exclusive(&folder.join(COMMITS), until).await?;
        Ok(commits.map(|commits| Self { _commits: commits, _gate: Some(gate) }))
    }
}

impl CorrectionMark {
    pub(super) async fn set(folder: &Path, table: &str) -> anyhow::Result<Self> {
        Ok(Self { _file: shared(&mark_of(folder, table)).await? })
    }

    /// Whether a correction of the table is under way, in whatever process.
    pub(super) fn is_set(folder: &Path, table: &str) -> anyhow::Result<bool> {
        let path = mark_of(folder, table);
        if !path.exists() {
            return Ok(false);
        }
        match open(&path)?.try_lock() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(failure)) => Err(failure).with_context(|| format!("lock {}", path.display())),
        }
    }
}

fn mark_of(folder: &Path, table: &str) -> PathBuf {
    folder.join(format!(".silverd-correcting-{table}.lock"))
}

async fn shared(path: &Path) -> anyhow::Result<File> {
    let file = open(path)?;
    loop {
        match file.try_lock_shared() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(failure)) => {
                return Err(failure).with_context(|| format!("lock {}", path.display()));
            }
            Err(TryLockError::WouldBlock) => tokio::time::sleep(POLL_INTERVAL).await,
        }
    }
}

/// `None` if others hold the lock until then.
async fn exclusive(path: &Path, until: Instant) -> anyhow::Result<Option<File>> {
    let file = open(path)?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::Error(failure)) => {
                return Err(failure).with_context(|| format!("lock {}", path.display()));
            }
            Err(TryLockError::WouldBlock) if Instant::now() >= until => return Ok(None),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(POLL_INTERVAL).await,
        }
    }
}

/// Opens a lock file, in a folder that is created if it does not exist.
fn open(path: &Path) -> anyhow::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("create folder {}", folder.display()))?;
    }
    let file = File::options().create(true).truncate(false).write(true).open(path);
    file.with_context(|| format!("open {}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn commits_share_the_lock_and_finalizing_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("day_status");
        let at_once = Duration::ZERO;
        let (one, two) = (FolderLock::shared(&path).await.unwrap(), FolderLock::shared(&path).await.unwrap());
        assert!(FolderLock::exclusive(&path, at_once).await.unwrap().is_none());
        drop(one);
        assert!(FolderLock::exclusive(&path, at_once).await.unwrap().is_none());
        drop(two);
        assert!(FolderLock::exclusive(&path, at_once).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn commits_that_overlap_do_not_keep_days_from_being_finalized() {
        let folder = tempfile::tempdir().unwrap();
        let commits = async |begin: Duration| {
            tokio::time::sleep(begin).await;
            for _ in 0..10_000 {
                let _held = FolderLock::shared(folder.path()).await.unwrap();
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        };
        let finalizing = FolderLock::exclusive(folder.path(), Duration::from_secs(60));
        tokio::select! {
            _ = futures::future::join(commits(Duration::ZERO), commits(POLL_INTERVAL / 2)) => panic!("all commits were first"),
            locked = finalizing => assert!(locked.unwrap().is_some()),
        }
    }

    #[tokio::test]
    async fn a_correction_is_seen_until_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let is_set = || CorrectionMark::is_set(folder.path(), "t").unwrap();
        assert!(!is_set());
        let (one, two) = (CorrectionMark::set(folder.path(), "t").await, CorrectionMark::set(folder.path(), "t").await);
        assert!(is_set());
        drop(one.unwrap());
        assert!(is_set());
        drop(two.unwrap());
        assert!(!is_set());
        assert!(!CorrectionMark::is_set(folder.path(), "u").unwrap());
    }
}
