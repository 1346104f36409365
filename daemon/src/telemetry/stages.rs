//! The CPU time of each stage of the data path.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::process::thread_cpu;

/// The stages of the data path whose CPU time is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Poll,
    Route,
    BronzeEncode,
    BronzeRead,
    Decode,
    Plugin,
    Lift,
    Dedup,
    SilverEncode,
    Commit,
}

/// All stages in the order of [`Stage`], with their names in metrics and reports.
pub const STAGES: [(Stage, &str); 10] = [
    (Stage::Poll, "poll"),
    (Stage::Route, "route"),
    (Stage::BronzeEncode, "bronze encode"),
    (Stage::BronzeRead, "bronze read"),
    (Stage::Decode, "decode"),
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
    pub(crate) fn measure<T>(&self, stage: Stage, work: impl FnOnce() -> T) -> T {
        let before = thread_cpu();
        let result = work();
        self.add(stage, thread_cpu().saturating_sub(before));
        result
    }

    /// Awaits work of a stage that mostly waits, and adds its wall-clock time.
    pub(crate) async fn time<T>(&self, stage: Stage, work: impl Future<Output = T>) -> T {
        let before = Instant::now();
        let result = work.await;
        self.add(stage, before.elapsed());
        result
    }

    pub(crate) fn add(&self, stage: Stage, spent: Duration) {
        self.0[stage as usize].fetch_add(spent.as_nanos() as u64, Relaxed);
    }

    pub fn seconds(&self, stage: Stage) -> f64 {
        self.0[stage as usize].load(Relaxed) as f64 / 1e9
    }
}
