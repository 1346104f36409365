//! When a disk will be full, if it goes on as in the last week.

use serde::{Deserialize, Serialize};

const HOUR_MS: i64 = 60 * 60 * 1_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// Samples that are kept: of one week, and one for each hour.
const SAMPLES_MAX: usize = 7 * 24;
/// The samples must be of at least this time: the first hours of a new pipeline are no week.
const SPAN_MIN_MS: i64 = 6 * HOUR_MS;
/// And so many: two moments are no growth, whatever is between them.
const SAMPLES_MIN: usize = 6;

/// Free bytes at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSample {
    pub at_ms: i64,
    pub free_bytes: u64,
    #[serde(default)]
    pub total_bytes: u64,
}

impl DiskSample {
    /// Whether it is of a disk of another size. File systems that share their space vary a little.
    fn is_of_other_size(&self, other: &DiskSample) -> bool {
        self.total_bytes.abs_diff(other.total_bytes) > self.total_bytes / 20
    }
}

/// The free bytes of one disk over a week, one sample an hour.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskForecast {
    /// Oldest first.
    samples: Vec<DiskSample>,
}

impl DiskForecast {
    /// Takes a sample in, and says whether it is kept: the one before it is an hour old.
    pub fn add(&mut self, sample: DiskSample) -> bool {
        // The clock was set back: samples of the future would be of no use for a week.
        let before = self.samples.len();
        self.samples.retain(|kept| kept.at_ms <= sample.at_ms);
        // The disk was made larger, or replaced: its free bytes say nothing of how it filled.
        if self.samples.last().is_some_and(|last| last.is_of_other_size(&sample)) {
            self.samples.clear();
        }
        let is_due = self.samples.last().is_none_or(|last| sample.at_ms - last.at_ms >= HOUR_MS);
        if is_due {
            self.samples.push(sample);
        }
        self.samples.retain(|kept| sample.at_ms - kept.at_ms <= 7 * DAY_MS);
        let excess = self.samples.len().saturating_sub(SAMPLES_MAX);
        self.samples.drain(..excess);
        is_due || self.samples.len() != before
    }

    /// In how many days no byte is free, by a straight line through the samples (least squares) from what is free now.
    /// `None` if the disk does not fill, or too little is known.
    pub fn full_in_days(&self, now: DiskSample) -> Option<f64> {
        let all: Vec<_> = self.samples.iter().copied().chain([now]).collect();
        let first = all.first()?.at_ms;
        if !self.is_known(now.at_ms) {
            return None;
        }
        let days = |at_ms: i64| (at_ms - first) as f64 / DAY_MS as f64;
        let count = all.len() as f64;
        let mean_day = all.iter().map(|sample| days(sample.at_ms)).sum::<f64>() / count;
        let mean_free = all.iter().map(|sample| sample.free_bytes as f64).sum::<f64>() / count;
        let (mut covariance, mut variance) = (0.0, 0.0);
        for sample in &all {
            let day = days(sample.at_ms) - mean_day;
            covariance += day * (sample.free_bytes as f64 - mean_free);
            variance += day * day;
        }
        if variance <= 0.0 {
            return None;
        }
        let bytes_a_day = -covariance / variance;
        (bytes_a_day > 0.0).then(|| now.free_bytes as f64 / bytes_a_day)
    }

    /// Whether the samples are of so long that a forecast can be made.
    pub fn is_known(&self, now_ms: i64) -> bool {
        self.samples.len() >= SAMPLES_MIN
            && self.samples.first().is_some_and(|first| now_ms - first.at_ms >= SPAN_MIN_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn sample(hour: i64, free_bytes: u64) -> DiskSample {
        DiskSample { at_ms: hour * HOUR_MS, free_bytes, total_bytes: 1_000 * GIB }
    }

    /// One sample an hour, of a disk that has 100 GiB at first.
    fn filled(hours: i64, bytes_an_hour: i64) -> DiskForecast {
        let mut forecast = DiskForecast::default();
        for hour in 0..hours {
            forecast.add(sample(hour, (100 * GIB).saturating_add_signed(-hour * bytes_an_hour)));
        }
        forecast
    }

    #[test]
    fn a_disk_that_fills_steadily_is_full_when_it_should_be() {
        let gib = GIB as i64;
        let check = |hours: i64, bytes_an_hour: i64, free: u64, expected: Option<f64>| {
            let days = filled(hours, bytes_an_hour).full_in_days(sample(hours, free));
            let is_near = match (days, expected) {
                (Some(days), Some(expected)) => (days - expected).abs() < 0.01,
                (days, expected) => days.is_none() && expected.is_none(),
            };
            assert!(is_near, "{days:?} is not {expected:?}");
        };
        // 1 GiB an hour: 24 GiB a day, and 90 GiB left.
        check(10, gib, 90 * GIB, Some(90.0 / 24.0));
        check(10, 0, 100 * GIB, None);
        check(10, -gib, 110 * GIB, None);
        // Too little is known.
        check(5, gib, 95 * GIB, None);
        check(0, gib, 100 * GIB, None);
    }

    #[test]
    fn a_disk_of_another_size_begins_again() {
        let mut forecast = filled(10, GIB as i64);
        let larger = |hour: i64, free_bytes| DiskSample { total_bytes: 2_000 * GIB, ..sample(hour, free_bytes) };
        assert!(forecast.is_known(10 * HOUR_MS) && forecast.add(larger(10, 1_090 * GIB)));
        assert!(!forecast.is_known(16 * HOUR_MS));
        for hour in 11..17 {
            forecast.add(larger(hour, (1_100 - hour as u64) * GIB));
        }
        let days = forecast.full_in_days(larger(17, 1_083 * GIB));
        assert!(days.is_some_and(|days| (days - 1_083.0 / 24.0).abs() < 0.01), "{days:?}");
    }

    #[test]
    fn two_moments_are_no_growth() {
        let mut forecast = DiskForecast::default();
        forecast.add(sample(0, 100 * GIB));
        assert_eq!((forecast.is_known(48 * HOUR_MS), forecast.full_in_days(sample(48, 50 * GIB))), (false, None));
    }

    #[test]
    fn samples_are_an_hour_apart_and_of_one_week() {
        let mut forecast = DiskForecast::default();
        assert!(forecast.add(sample(0, GIB)));
        assert!(!forecast.add(DiskSample { at_ms: HOUR_MS - 1, ..sample(0, GIB) }));
        assert!(forecast.add(sample(1, GIB)));
        for hour in 2..1_000 {
            forecast.add(sample(hour, GIB));
        }
        assert_eq!(forecast.samples.len(), SAMPLES_MAX);
        assert_eq!(forecast.samples.last(), Some(&sample(999, GIB)));
        // The clock was set back.
        assert!(forecast.add(sample(900, GIB)));
        assert!(forecast.samples.iter().all(|kept| kept.at_ms <= 900 * HOUR_MS));
        assert!(forecast.is_known(900 * HOUR_MS));
    }
}
