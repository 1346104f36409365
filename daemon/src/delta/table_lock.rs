//! The lock on a table's folder, which keeps maintenance and corrections apart.
//!
//! A correction replaces files that it read long before, and compaction may replace the same ones. Commit conflicts
//! keep both correct; the lock avoids work that would be discarded.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use tracing::info;

/// Delta readers and vacuum ignore names that begin with a dot.
const LOCK_FILE: &str = ".silverd.lock";
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Held until it is dropped. The kernel releases the lock when the process ends, however it ends.
pub struct TableLock {
    _file: File,
}

impl TableLock {
    /// For maintenance; `None` while another process or task holds the lock.
    pub fn exclusive(folder: &Path) -> anyhow::Result<Option<Self>> {
        let file = open(folder)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(failure)) => Err(failure).context("lock the table"),
        }
    }

    /// For corrections, of which several may run. Waits until the maintenance in progress has ended.
    pub async fn shared(folder: &Path, table: &str) -> anyhow::Result<Self> {
        let (file, mut reported) = (open(folder)?, false);
        loop {
            match file.try_lock_shared() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::Error(failure)) => return Err(failure).context("lock the table"),
                Err(TryLockError::WouldBlock) if !reported => {
                    info!(table, "waiting for the running maintenance of the table");
                    reported = true;
                }
                Err(TryLockError::WouldBlock) => tokio::time::sleep(POLL_INTERVAL).await,
            }
        }
    }
}

fn open(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join(LOCK_FILE);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    file.with_context(|| format!("open {}", path.display()))
}
