//! The last minutes of the pipeline, one sample per second.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;

use crate::pipeline::status::Status;
use crate::runtime::clock;
use crate::telemetry;

/// The names of the tables that pipeline.toml does not name.
pub(super) const BRONZE: &str = "bronze";
pub(super) const QUARANTINE: &str = "quarantine";

pub(super) const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// Five minutes.
const SAMPLES_MAX: usize = 300;
/// Rates are means over this many intervals, so that the numbers do not flicker.
const RATE_INTERVALS: usize = 5;

#[derive(Default)]
pub(super) struct History {
    samples: Mutex<VecDeque<Sample>>,
    /// The newest counts of events, from which rates follow.
    event_counts: Mutex<VecDeque<EventCounts>>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Sample {
    pub at_ms: i64,
    pub events_per_s: f64,
    pub lag: i64,
    pub memory_bytes: u64,
    pub ingest_latency_ms: i64,
}

struct EventCounts {
    at_ms: i64,
    by_table: BTreeMap<String, u64>,
}

impl History {
    /// Adds a sample.
    pub fn sample(&self, status: &Status) {
        let at_ms = clock::now_ms();
        let silver = status.silver.iter().map(|silver| (silver.name.as_str(), &silver.stats));
        let tables = [(BRONZE, &status.bronze), (QUARANTINE, &status.quarantine)].into_iter().chain(silver);
        let by_table = tables.map(|(name, stats)| (name.to_owned(), stats.events.load(Relaxed))).collect();
        push_bounded(&mut self.event_counts.lock(), EventCounts { at_ms, by_table }, RATE_INTERVALS + 1);
        let latencies = status.silver.iter().map(|silver| silver.stats.ingest_latency_ms.load(Relaxed));
        let sample = Sample {
            at_ms,
            events_per_s: self.events_per_s(BRONZE),
            lag: status.lag(),
            memory_bytes: telemetry::rss_bytes(),
            ingest_latency_ms: latencies.max().unwrap_or(0),
        };
        push_bounded(&mut self.samples.lock(), sample, SAMPLES_MAX);
    }

    /// Oldest first.
    pub fn samples(&self) -> Vec<Sample> {
        self.samples.lock().iter().cloned().collect()
    }

    pub fn events_per_s(&self, table: &str) -> f64 {
        let counts = self.event_counts.lock();
        let (Some(first), Some(last)) = (counts.front(), counts.back()) else { return 0.0 };
        let events = |counts: &EventCounts| counts.by_table.get(table).copied().unwrap_or(0);
        let (ms, events) = (last.at_ms - first.at_ms, events(last).saturating_sub(events(first)));
        if ms > 0 { events as f64 * 1000.0 / ms as f64 } else { 0.0 }
    }
}

fn push_bounded<T>(queue: &mut VecDeque<T>, item: T, max: usize) {
    queue.push_back(item);
    if queue.len() > max {
        queue.pop_front();
    }
}
