//! What a power cut leaves of a commit: all of it, or nothing that a reader sees. Each step is on the disk before the next
//! one begins:
//!
//! ```text
//!   data file ─▶ its folder ─▶ entry of the log ─▶ folder of the log ─▶ committed
//! ```
//!
//! Of several data files, the whole file system is synchronized at once. Without `fsync` in `[commit]`, the operating system
//! writes all this when it likes, in any order.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::file::NewFile;
use super::log::log_dir;

static IS_ON: AtomicBool = AtomicBool::new(true);
static SYNCS: AtomicU64 = AtomicU64::new(0);
static NANOS: AtomicU64 = AtomicU64::new(0);
/// The mean of the last ones.
static RECENT_NANOS: AtomicU64 = AtomicU64::new(0);

/// Waits of a commit, at most.
const SYNCS_PER_COMMIT: u32 = 4;
/// They take at most this fraction of the time between two commits.
const SHARE_OF_INTERVAL: u32 = 10;
const INTERVAL_MIN_MAX: Duration = Duration::from_secs(5);

/// Whether commits wait until they are on the disk, in this process.
pub(crate) fn set_fsync(is_on: bool) {
    IS_ON.store(is_on, Relaxed);
}

/// The number of synchronizations of this process, and the seconds that they took.
pub(crate) fn sync_times() -> (u64, f64) {
    (SYNCS.load(Relaxed), NANOS.load(Relaxed) as f64 / 1e9)
}

/// The interval at which the waits of commits take a small part of the time, however slow the disk is.
pub(crate) fn commit_interval_min() -> Duration {
    if !IS_ON.load(Relaxed) {
        return Duration::ZERO;
    }
    let recent = Duration::from_nanos(RECENT_NANOS.load(Relaxed));
    (recent * SYNCS_PER_COMMIT * SHARE_OF_INTERVAL).min(INTERVAL_MIN_MAX)
}

/// Synchronizes files that the next entry of the log will name.
pub(super) async fn sync_files(table: &Path, files: &[NewFile]) -> anyhow::Result<()> {
    let (table, paths) = (table.to_path_buf(), files.iter().map(|file| table.join(&file.path)).collect::<Vec<_>>());
    in_background(move || match &paths[..] {
        [] => Ok(()),
        [file] if !is_alone(file)? => sync(file).and_then(|()| sync(parent(file))),
        // The folder of a new day is an entry of the table's folder.
        _ => sync_file_system(&table),
    })
    .await
    .context("write the data files to the disk")
}

/// Synchronizes a new entry of the log.
pub(super) async fn sync_entry(table: &Path, version: u64) -> anyhow::Result<()> {
    let log = log_dir(table);
    in_background(move || sync(&log.join(format!("{version:020}.json"))).and_then(|()| sync(&log)))
        .await
        .with_context(|| format!("write entry {version} of the log to the disk"))
}

/// Synchronizes a file of the log before others that it makes superfluous are removed.
pub(crate) async fn sync_file(file: PathBuf) -> anyhow::Result<()> {
    let text = file.display().to_string();
    in_background(move || sync(&file).and_then(|()| sync(parent(&file))))
        .await
        .with_context(|| format!("write {text} to the disk"))
}

async fn in_background(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> anyhow::Result<()> {
    if !IS_ON.load(Relaxed) {
        return Ok(());
    }
    Ok(tokio::task::spawn_blocking(work).await??)
}

fn parent(file: &Path) -> &Path {
    file.parent().unwrap_or(file)
}

/// Whether a file is the only one in its folder, which is new then.
fn is_alone(file: &Path) -> io::Result<bool> {
    Ok(std::fs::read_dir(parent(file))?.take(2).count() < 2)
}

/// A file, or the entries of a folder.
fn sync(path: &Path) -> io::Result<()> {
    timed(|| File::open(path)?.sync_all())
}

#[cfg(target_os = "linux")]
fn sync_file_system(folder: &Path) -> io::Result<()> {
    let folder = File::open(folder)?;
    timed(|| {
        // SAFETY: the descriptor is open while the call lasts.
        match unsafe { libc::syncfs(folder.as_raw_fd()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    })
}

#[cfg(not(target_os = "linux"))]
fn sync_file_system(folder: &Path) -> io::Result<()> {
    let _ = folder.as_os_str();
    // SAFETY: it takes nothing, and cannot fail.
    timed(|| Ok(unsafe { libc::sync() }))
}

fn timed(sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let started = Instant::now();
    let result = sync();
    let nanos = started.elapsed().as_nanos() as u64;
    SYNCS.fetch_add(1, Relaxed);
    NANOS.fetch_add(nanos, Relaxed);
    let _ = RECENT_NANOS.fetch_update(Relaxed, Relaxed, |recent| Some((recent * 15 + nanos) / 16));
    result
}
