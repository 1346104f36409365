//! Who works on a whole table: a correction, which replaces files that it read long before, or the merging and sweeping of
//! files, which would be in its way. What makes either right is the fence in the log; this keeps them from working in vain.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use tracing::info;

/// Delta's readers and sweepers pass over a name with a dot.
const FILE: &str = ".silverd.lock";
const LOOK: Duration = Duration::from_millis(50);

/// Held until it is dropped, or the process ends in whatever way: the lock is the kernel's.
pub struct Lease {
    _file: File,
}

impl Lease {
    /// For maintenance; `None` while somebody else is at work.
    pub fn alone(folder: &Path) -> anyhow::Result<Option<Self>> {
        let file = open(folder)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(failure)) => Err(failure).context("lock the table"),
        }
    }

    /// For corrections, of which there may be several. Waits until the maintenance at work has ended.
    pub async fn with_others(folder: &Path, table: &str) -> anyhow::Result<Self> {
        let (file, mut told) = (open(folder)?, false);
        loop {
            match file.try_lock_shared() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::Error(failure)) => return Err(failure).context("lock the table"),
                Err(TryLockError::WouldBlock) if !told => {
                    info!(table, "waiting until the merge of small files that is at work has ended");
                    told = true;
                }
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOOK).await,
            }
        }
    }
}

fn open(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join(FILE);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    file.with_context(|| format!("open {}", path.display()))
}
