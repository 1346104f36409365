//! What happens, in numbers: the counts of each table, and the CPU time of each stage.

use std::future::Future;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use silverd_core::account::Counts;

use crate::clock;

/// The stages of the data's way whose CPU time is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Poll,
    Route,
    BronzeEncode,
    BronzeRead,
    Plugin,
    Lift,
    Dedup,
    SilverEncode,
    Commit,
}

pub const STAGES: [(Stage, &str); 9] = [
    (Stage::Poll, "poll"),
    (Stage::Route, "route"),
    (Stage::BronzeEncode, "bronze encode"),
    (Stage::BronzeRead, "bronze read"),
    (Stage::Plugin, "plugin"),
    (Stage::Lift, "lift"),
    (Stage::Dedup, "dedup"),
    (Stage::SilverEncode, "silver encode"),
    (Stage::Commit, "commit (wall)"),
];

/// Nanoseconds of each stage.
#[derive(Debug, Default)]
pub struct Stages([AtomicU64; STAGES.len()]);

impl Stages {
    /// Runs work of a stage, and adds the CPU time that this thread spent on it.
    pub fn measure<T>(&self, stage: Stage, work: impl FnOnce() -> T) -> T {
        let before = thread_cpu();
        let result = work();
        self.add(stage, thread_cpu().saturating_sub(before));
        result
    }

    /// Awaits work of a stage that mostly waits, and adds the time by the clock on the wall.
    pub async fn time<T>(&self, stage: Stage, work: impl Future<Output = T>) -> T {
        let before = std::time::Instant::now();
        let result = work.await;
        self.add(stage, before.elapsed());
        result
    }

    pub fn add(&self, stage: Stage, spent: Duration) {
        self.0[stage as usize].fetch_add(spent.as_nanos() as u64, Relaxed);
    }

    pub fn seconds(&self, stage: Stage) -> f64 {
        self.0[stage as usize].load(Relaxed) as f64 / 1e9
    }
}

/// CPU time of the calling thread.
pub fn thread_cpu() -> Duration {
    cpu_time(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// CPU time of the whole process, user and system.
pub fn process_cpu() -> Duration {
    cpu_time(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn cpu_time(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the timespec that it is given, which lives here.
    let result = unsafe { libc::clock_gettime(clock, &mut time) };
    if result == 0 { Duration::new(time.tv_sec as u64, time.tv_nsec as u32) } else { Duration::ZERO }
}

/// The largest resident set that the process had, in bytes; 0 where the system does not tell.
pub fn peak_rss_bytes() -> u64 {
    memory("VmHWM:")
}

/// The resident set of the process, in bytes; 0 where the system does not tell.
pub fn rss_bytes() -> u64 {
    memory("VmRSS:")
}

fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// The counts of one table since the start.
#[derive(Debug, Default)]
pub struct TableStats {
    pub events: AtomicU64,
    pub rows: AtomicU64,
    pub rejected: AtomicU64,
    pub dropped: AtomicU64,
    pub duplicates: AtomicU64,
    pub late: AtomicU64,
    pub commits: AtomicU64,
    pub files: AtomicU64,
    pub bytes: AtomicU64,
    pub version: AtomicU64,
    /// Events that are in Kafka or in Bronze, and not here yet.
    pub lag: AtomicI64,
    /// Milliseconds since the epoch; 0 before the first commit.
    pub committed_at_ms: AtomicI64,
    pub commit_micros_last: AtomicU64,
    pub commit_micros_max: AtomicU64,
    pub commit_micros_sum: AtomicU64,
    /// When silverd took the newest event that gave a row here, and how long it took from there to the commit.
    pub newest_at_ms: AtomicI64,
    pub delay_ms: AtomicI64,
    /// CPU time of the plugin and the lift.
    pub plugin_nanos: AtomicU64,
    /// How often a new version took the place of another, and how long the table stood still for it.
    pub swaps: AtomicU64,
    pub swap_micros_last: AtomicU64,
    pub swap_micros_max: AtomicU64,
    plugin: Mutex<Option<PluginShown>>,
    refused: Mutex<Option<String>>,
}

/// The plugin that fills a table.
#[derive(Clone, Debug, Serialize)]
pub struct PluginShown {
    pub interface: String,
    pub digest: String,
    pub loaded_at_ms: i64,
    /// When it took another's place in the running daemon.
    pub swapped_at_ms: Option<i64>,
    /// What its run beside the other one showed.
    pub shadow: Option<String>,
}

impl TableStats {
    pub fn committed(&self, version: u64, rows: usize, files: usize, bytes: u64, took: Duration) {
        self.rows.fetch_add(rows as u64, Relaxed);
        self.commits.fetch_add(1, Relaxed);
        self.files.fetch_add(files as u64, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
        self.version.store(version, Relaxed);
        self.committed_at_ms.store(clock::now_ms(), Relaxed);
        let micros = took.as_micros() as u64;
        self.commit_micros_last.store(micros, Relaxed);
        self.commit_micros_max.fetch_max(micros, Relaxed);
        self.commit_micros_sum.fetch_add(micros, Relaxed);
    }

    /// Rows have been committed that silverd took from Kafka between these times, in microseconds.
    pub fn ingested(&self, oldest: i64, newest: i64) {
        self.newest_at_ms.fetch_max(newest / 1000, Relaxed);
        self.delay_ms.store((clock::now_ms() - oldest / 1000).max(0), Relaxed);
    }

    /// Runs work of the plugin, and adds the CPU time that this thread spent on it.
    pub fn plugin_time<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = thread_cpu();
        let result = work();
        self.plugin_nanos.fetch_add(thread_cpu().saturating_sub(before).as_nanos() as u64, Relaxed);
        result
    }

    /// A table has been opened with a plugin, maybe once more.
    pub fn plugin_loaded(&self, interface: &str, digest: &str) {
        let mut plugin = self.plugin.lock().unwrap_or_else(PoisonError::into_inner);
        if plugin.as_ref().is_some_and(|shown| shown.digest == digest) {
            return;
        }
        *plugin = Some(PluginShown {
            interface: interface.to_owned(),
            digest: digest.to_owned(),
            loaded_at_ms: clock::now_ms(),
            swapped_at_ms: None,
            shadow: None,
        });
    }

    /// A version has taken the place of another.
    pub fn plugin_swapped(&self, interface: &str, digest: &str, shadow: Option<String>, pause: Duration) {
        let (micros, at_ms) = (pause.as_micros() as u64, clock::now_ms());
        self.swaps.fetch_add(1, Relaxed);
        self.swap_micros_last.store(micros, Relaxed);
        self.swap_micros_max.fetch_max(micros, Relaxed);
        *self.plugin.lock().unwrap_or_else(PoisonError::into_inner) = Some(PluginShown {
            interface: interface.to_owned(),
            digest: digest.to_owned(),
            loaded_at_ms: at_ms,
            swapped_at_ms: Some(at_ms),
            shadow,
        });
    }

    /// Why what lies in the plugin's place does not fill the table, if so.
    pub fn plugin_refused(&self, why: Option<String>) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    pub fn refusal(&self) -> Option<String> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn plugin(&self) -> Option<PluginShown> {
        self.plugin.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn judged(&self, counts: &Counts) {
        self.events.fetch_add(counts.events, Relaxed);
        self.rejected.fetch_add(counts.rejected, Relaxed);
        self.dropped.fetch_add(counts.dropped, Relaxed);
        self.duplicates.fetch_add(counts.duplicates, Relaxed);
        self.late.fetch_add(counts.late, Relaxed);
    }
}
