//! How much room a disk has, and how much of a core the maintenance may take.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

/// Bytes that an unprivileged process may still write on the disk of a folder.
pub fn free_bytes(folder: &Path) -> anyhow::Result<u64> {
    let path = CString::new(folder.as_os_str().as_bytes()).context("the path has a zero byte")?;
    // SAFETY: all of a statvfs may be zero; it lives here while it is written, and the path ends with a zero byte.
    let (result, told) = unsafe {
        let mut told: libc::statvfs = std::mem::zeroed();
        (libc::statvfs(path.as_ptr(), &raw mut told), told)
    };
    if result != 0 {
        return Err(std::io::Error::last_os_error())
            .with_context(|| format!("ask for the room at {}", folder.display()));
    }
    // Both are of the platform's own width.
    #[allow(clippy::unnecessary_cast)]
    Ok((told.f_bavail as u64).saturating_mul(told.f_frsize as u64))
}

/// Told to stop amid the work; what was not committed leaves nothing.
#[derive(Debug, thiserror::Error)]
#[error("silverd was told to stop")]
pub struct Stopped;

/// Work that takes long on a busy machine got little of the cores anyway: to rest for longer would be to do nothing.
const REST_MAX: Duration = Duration::from_secs(2);

/// How fast to work.
pub struct Pace {
    /// Rests so many times as long as it worked.
    rest: u32,
    stop: CancellationToken,
}

impl Pace {
    /// A quarter of a core at most.
    pub fn beside_the_flow(stop: CancellationToken) -> Self {
        Self { rest: 3, stop }
    }

    /// As fast as it goes.
    pub fn at_once(stop: CancellationToken) -> Self {
        Self { rest: 0, stop }
    }

    pub async fn rest(&self, worked: Duration) -> Result<(), Stopped> {
        if self.rest > 0 {
            tokio::select! {
                () = tokio::time::sleep((worked * self.rest).min(REST_MAX)) => {}
                () = self.stop.cancelled() => {}
            }
        }
        if self.stop.is_cancelled() { Err(Stopped) } else { Ok(()) }
    }
}
