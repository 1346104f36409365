//! How long commits take, as a Prometheus histogram with fixed buckets.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The upper bounds of the buckets, inclusive.
const BUCKET_MICROS: [u64; 13] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

/// The durations of a table's commits.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CommitDurations {
    /// Each bucket's upper bound in seconds, and the number of commits that took at most so long. The bucket `+Inf` is
    /// `count`.
    pub buckets: [(f64, u64); BUCKET_MICROS.len()],
    pub sum_seconds: f64,
    pub count: u64,
    pub last_seconds: f64,
    pub max_seconds: f64,
}

impl CommitDurations {
    /// 0 before the first commit.
    pub fn mean_seconds(&self) -> f64 {
        self.sum_seconds / self.count.max(1) as f64
    }
}

/// Counts durations without a lock.
#[derive(Debug, Default)]
pub(super) struct CommitHistogram {
    /// Not cumulative. The last one counts the durations above every bound.
    buckets: [AtomicU64; BUCKET_MICROS.len() + 1],
    micros_sum: AtomicU64,
    micros_last: AtomicU64,
    micros_max: AtomicU64,
}

impl CommitHistogram {
    pub(super) fn observe(&self, took: Duration) {
        let micros = took.as_micros() as u64;
        let bucket = BUCKET_MICROS.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.micros_sum.fetch_add(micros, Relaxed);
        self.micros_last.store(micros, Relaxed);
        self.micros_max.fetch_max(micros, Relaxed);
    }

    pub(super) fn read(&self) -> CommitDurations {
        let seconds = |micros: u64| micros as f64 / 1e6;
        let mut count = 0;
        let buckets = array::from_fn(|bucket| {
            count += self.buckets[bucket].load(Relaxed);
            (seconds(BUCKET_MICROS[bucket]), count)
        });
        CommitDurations {
            buckets,
            sum_seconds: seconds(self.micros_sum.load(Relaxed)),
            count: count + self.buckets[BUCKET_MICROS.len()].load(Relaxed),
            last_seconds: seconds(self.micros_last.load(Relaxed)),
            max_seconds: seconds(self.micros_max.load(Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_their_bounds_inclusive() {
        let histogram = CommitHistogram::default();
        for micros in [1_000, 1_001, 30_000, 20_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let durations = histogram.read();
        assert_eq!(durations.buckets[..6], [(0.001, 1), (0.0025, 2), (0.005, 2), (0.01, 2), (0.025, 2), (0.05, 3)]);
        assert_eq!(durations.buckets[12], (10.0, 3));
        assert_eq!((durations.count, durations.last_seconds, durations.max_seconds), (4, 20.0, 20.0));
        assert!((durations.sum_seconds - 20.032_001).abs() < 1e-9);
        assert!((durations.mean_seconds() - durations.sum_seconds / 4.0).abs() < 1e-9);
    }

    #[test]
    fn without_commits_everything_is_zero() {
        let durations = CommitHistogram::default().read();
        assert_eq!((durations.count, durations.sum_seconds, durations.mean_seconds()), (0, 0.0, 0.0));
    }
}
