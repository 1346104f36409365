//! The counts of one table since the start of silverd.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use silverd_core::counts::Counts;

use super::commit_durations::{CommitDurations, CommitHistogram};
use crate::runtime::clock;

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
    /// Events that the table has still to process: from Bronze for a Silver table, from Kafka for Bronze.
    pub lag: AtomicI64,
    /// Milliseconds since the epoch; 0 before the first commit.
    pub committed_at_ms: AtomicI64,
    commit_durations: CommitHistogram,
    /// When silverd read the newest event with a committed row from Kafka.
    pub newest_at_ms: AtomicI64,
    /// Time from Kafka to the commit for the oldest event of the last commit.
    pub ingest_latency_ms: AtomicI64,
    /// CPU time of the plugin and the lift.
    pub plugin_nanos: AtomicU64,
    /// How often a new plugin version replaced the current one, and how long the table paused for it.
    pub swaps: AtomicU64,
    pub swap_micros_last: AtomicU64,
    pub swap_micros_max: AtomicU64,
    plugin: Mutex<Option<PluginInfo>>,
    update_rejection: Mutex<Option<String>>,
}

/// The plugin that fills a table.
#[derive(Clone, Debug, Serialize)]
pub struct PluginInfo {
    pub interface: String,
    pub digest: String,
    pub loaded_at_ms: i64,
    /// When it replaced another version while silverd was running.
    pub swapped_at_ms: Option<i64>,
    /// The result of its shadow run.
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
        self.commit_durations.observe(took);
    }

    pub fn commit_durations(&self) -> CommitDurations {
        self.commit_durations.read()
    }

    /// Rows were committed whose events silverd read from Kafka between these times, in microseconds since the epoch.
    pub(crate) fn ingested(&self, oldest: i64, newest: i64) {
        self.newest_at_ms.fetch_max(newest / 1000, Relaxed);
        self.ingest_latency_ms.store((clock::now_ms() - oldest / 1000).max(0), Relaxed);
    }

    /// The plugin took this CPU time for a chunk.
    pub(crate) fn plugin_took(&self, cpu: Duration) {
        self.plugin_nanos.fetch_add(cpu.as_nanos() as u64, Relaxed);
    }

    /// The table was opened with a plugin. After an error it is opened again, with the same plugin.
    pub(crate) fn plugin_loaded(&self, interface: &str, digest: &str) {
        let mut plugin = self.plugin.lock();
        if plugin.as_ref().is_some_and(|loaded| loaded.digest == digest) {
            return;
        }
        *plugin = Some(PluginInfo {
            interface: interface.to_owned(),
            digest: digest.to_owned(),
            loaded_at_ms: clock::now_ms(),
            swapped_at_ms: None,
            shadow: None,
        });
    }

    /// A plugin version replaced another one.
    pub(crate) fn plugin_swapped(&self, interface: &str, digest: &str, shadow: Option<String>, pause: Duration) {
        let (micros, at_ms) = (pause.as_micros() as u64, clock::now_ms());
        self.swaps.fetch_add(1, Relaxed);
        self.swap_micros_last.store(micros, Relaxed);
        self.swap_micros_max.fetch_max(micros, Relaxed);
        *self.plugin.lock() = Some(PluginInfo {
            interface: interface.to_owned(),
            digest: digest.to_owned(),
            loaded_at_ms: at_ms,
            swapped_at_ms: Some(at_ms),
            shadow,
        });
    }

    /// Why the newest plugin version does not fill the table; `None` if it does.
    pub(crate) fn plugin_update_rejected(&self, why: Option<String>) {
        *self.update_rejection.lock() = why;
    }

    pub(crate) fn update_rejection(&self) -> Option<String> {
        self.update_rejection.lock().clone()
    }

    pub(crate) fn plugin(&self) -> Option<PluginInfo> {
        self.plugin.lock().clone()
    }

    /// Adds what became of a chunk's events.
    pub(crate) fn count_outcomes(&self, counts: &Counts) {
        self.events.fetch_add(counts.events, Relaxed);
        self.rejected.fetch_add(counts.rejected, Relaxed);
        self.dropped.fetch_add(counts.dropped, Relaxed);
        self.duplicates.fetch_add(counts.duplicates, Relaxed);
        self.late.fetch_add(counts.late, Relaxed);
    }
}
