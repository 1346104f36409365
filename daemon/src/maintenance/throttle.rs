//! Limits of maintenance: the CPU time that it takes, and the disk space that it leaves.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use super::error::MaintenanceError;

/// On a busy machine a step takes long because it gets little CPU time: a pause in proportion would then be far too
/// long.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How much CPU time maintenance takes.
pub struct Throttle {
    /// The pause after a step, as a multiple of the step's duration.
    pause_factor: u32,
    stop: CancellationToken,
}

impl Throttle {
    /// At most a quarter of a core.
    pub(crate) fn background(stop: CancellationToken) -> Self {
        Self { pause_factor: 3, stop }
    }

    /// Without pauses.
    pub fn unlimited(stop: CancellationToken) -> Self {
        Self { pause_factor: 0, stop }
    }

    /// Pauses after a step of work; an error if silverd is shutting down.
    pub(super) async fn pause_after(&self, worked: Duration) -> Result<(), MaintenanceError> {
        if self.pause_factor > 0 {
            tokio::select! {
                () = tokio::time::sleep((worked * self.pause_factor).min(PAUSE_MAX)) => {}
                () = self.stop.cancelled() => {}
            }
        }
        if self.stop.is_cancelled() { Err(MaintenanceError::Stopped) } else { Ok(()) }
    }
}

/// Bytes that an unprivileged process can still write to the disk of a folder.
pub(crate) fn free_bytes(folder: &Path) -> anyhow::Result<u64> {
    Ok(disk_space(folder)?.free_bytes)
}

/// The size of a disk.
pub(crate) struct DiskSpace {
    /// What this user may still write.
    pub(crate) free_bytes: u64,
    pub(crate) total_bytes: u64,
}

pub(crate) fn disk_space(folder: &Path) -> anyhow::Result<DiskSpace> {
    let path = CString::new(folder.as_os_str().as_bytes()).context("the path has a zero byte")?;
    // SAFETY: an all-zero statvfs is valid, it outlives the call that fills it, and the path ends with a zero byte.
    let (result, filesystem) = unsafe {
        let mut filesystem: libc::statvfs = std::mem::zeroed();
        (libc::statvfs(path.as_ptr(), &raw mut filesystem), filesystem)
    };
    if result != 0 {
        return Err(std::io::Error::last_os_error())
            .with_context(|| format!("read the free space of {}", folder.display()));
    }
    // The fields' types depend on the platform.
    #[allow(clippy::unnecessary_cast)]
    let (free, total, block) = (filesystem.f_bavail as u64, filesystem.f_blocks as u64, filesystem.f_frsize as u64);
    Ok(DiskSpace { free_bytes: free.saturating_mul(block), total_bytes: total.saturating_mul(block) })
}
