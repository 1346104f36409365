//! How the pipeline is: what the page, the API and the metrics say of it, and how it was in the last minutes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use crate::clock;
use crate::gold;
use crate::silver::StateOf;
use crate::status::Status;
use crate::telemetry::{self, TableStats};

/// Samples that are kept: five minutes, one a second.
const SAMPLES_MAX: usize = 300;
pub const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// Rates are means over so many samples: numbers that people can read.
const RATE_SAMPLES: usize = 5;

#[derive(Clone, Debug, Default, Serialize)]
pub struct Health {
    pub at_ms: i64,
    pub started_at_ms: i64,
    pub version: &'static str,
    /// `starting` or `running`.
    pub state: &'static str,
    pub topic: String,
    pub events_per_s: f64,
    /// Records in Kafka that are not in Bronze.
    pub lag: i64,
    /// Events that no table takes.
    pub unrouted: u64,
    pub memory_bytes: u64,
    pub memory_peak_bytes: u64,
    pub cpu_seconds: f64,
    pub watchers: usize,
    pub partitions: Vec<Partition>,
    pub tables: Vec<Table>,
    pub plugins: Vec<Plugin>,
    pub gold: Vec<gold::Shown>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Partition {
    pub cluster: String,
    pub topic: String,
    pub partition: i32,
    /// Where Kafka ends, and what Bronze has next.
    pub end: i64,
    pub next: i64,
    pub lag: i64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Table {
    pub name: String,
    pub kind: &'static str,
    pub state: String,
    /// False while the table cannot be written.
    pub works: bool,
    /// Since the start of silverd, as all counts here.
    pub events: u64,
    pub rows: u64,
    pub rejected: u64,
    pub dropped: u64,
    pub events_per_s: f64,
    pub lag: i64,
    pub version: u64,
    pub commits: u64,
    pub committed_at_ms: Option<i64>,
    /// When silverd took the newest event that gave a row.
    pub newest_at_ms: Option<i64>,
    /// From Kafka to the commit, of the last commit's oldest event.
    pub delay_ms: Option<i64>,
    pub commit_ms_last: f64,
    pub commit_ms_mean: f64,
    pub commit_ms_max: f64,
    pub files_written: u64,
    pub bytes_written: u64,
    /// As of half a minute ago or so, while somebody watches.
    pub files: Option<u64>,
    pub bytes: Option<u64>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Plugin {
    pub table: String,
    pub state: String,
    pub interface: Option<String>,
    pub digest: Option<String>,
    pub loaded_at_ms: Option<i64>,
    /// When this plugin took another's place in the running daemon.
    pub swapped_at_ms: Option<i64>,
    /// How often that has happened since the start, and for how long the table stood still.
    pub swaps: u64,
    pub swap_ms_last: Option<f64>,
    pub swap_ms_max: Option<f64>,
    /// Why the newest version stays out, if so.
    pub refused: Option<String>,
    /// What its run beside the old plugin showed, before it took its place.
    pub shadow: Option<String>,
    /// Why it is not called any more, if so.
    pub breaker: Option<String>,
    pub ns_per_event: Option<f64>,
}

/// One second of the past.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    pub at_ms: i64,
    pub events_per_s: f64,
    pub lag: i64,
    pub memory_bytes: u64,
    pub delay_ms: i64,
}

/// Files and bytes of the tables as they stand.
pub type Sizes = BTreeMap<String, (u64, u64)>;

/// The last minutes.
#[derive(Default)]
pub struct Past {
    samples: Mutex<VecDeque<Sample>>,
    /// Counts of events, by table: of the last samples.
    counts: Mutex<VecDeque<(i64, BTreeMap<String, u64>)>>,
}

impl Past {
    pub fn sample(&self, status: &Status) {
        let at_ms = clock::now_ms();
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let events = |(name, stats): (&str, &TableStats)| (name.to_owned(), stats.events.load(Relaxed));
        counts.push_back((at_ms, tables(status).map(|(name, stats, ..)| events((name, stats))).collect()));
        if counts.len() > RATE_SAMPLES + 1 {
            counts.pop_front();
        }
        drop(counts);
        let sample = Sample {
            at_ms,
            events_per_s: self.rate("bronze"),
            lag: status.lag(),
            memory_bytes: telemetry::rss_bytes(),
            delay_ms: status.silver.iter().map(|(_, stats, _)| stats.delay_ms.load(Relaxed)).max().unwrap_or(0),
        };
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.push_back(sample);
        if samples.len() > SAMPLES_MAX {
            samples.pop_front();
        }
    }

    pub fn samples(&self) -> Vec<Sample> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn rate(&self, table: &str) -> f64 {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some((since, before)), Some((at, now))) = (counts.front(), counts.back()) else { return 0.0 };
        let count = |counts: &BTreeMap<String, u64>| counts.get(table).copied().unwrap_or(0);
        let events = count(now).saturating_sub(count(before)) as f64;
        if at > since { events * 1000.0 / (at - since) as f64 } else { 0.0 }
    }
}

/// The tables of a pipeline: name, counts, kind and, for Silver, the worker's state.
fn tables(status: &Status) -> impl Iterator<Item = (&str, &TableStats, &'static str, Option<&StateOf>)> {
    let silver = status.silver.iter().map(|(name, stats, state)| (name.as_str(), &**stats, "silver", Some(state)));
    let bronze = std::iter::once(("bronze", &*status.bronze, "bronze", None));
    bronze.chain(silver).chain([("quarantine", &*status.quarantine, "quarantine", None)])
}

impl Health {
    pub fn of(status: &Arc<Status>, past: &Past, sizes: &Sizes) -> Self {
        let partitions = status.partitions().into_iter().map(|(log, end, next)| Partition {
            cluster: log.cluster.to_string(),
            topic: log.topic.to_string(),
            partition: log.partition,
            end,
            next,
            lag: end - next,
        });
        Self {
            state: "running",
            events_per_s: past.rate("bronze"),
            lag: status.lag(),
            unrouted: status.unrouted.load(Relaxed),
            partitions: partitions.collect(),
            tables: tables(status)
                .map(|(name, stats, kind, state)| Table {
                    state: state.map_or_else(|| "live".to_owned(), StateOf::get),
                    works: state.is_none_or(StateOf::works),
                    files: sizes.get(name).map(|(files, _)| *files),
                    bytes: sizes.get(name).map(|(_, bytes)| *bytes),
                    lag: if kind == "bronze" { status.lag() } else { stats.lag.load(Relaxed) },
                    events_per_s: past.rate(name),
                    ..Table::of(name, stats, kind)
                })
                .collect(),
            plugins: status.silver.iter().map(|(name, stats, state)| plugin(name, stats, state)).collect(),
            ..Self::default()
        }
    }
}

impl Table {
    /// What the counts of a table say.
    fn of(name: &str, stats: &TableStats, kind: &'static str) -> Self {
        let commits = stats.commits.load(Relaxed);
        let micros = |count: u64| count as f64 / 1000.0;
        let known = |ms: i64| (ms > 0).then_some(ms);
        let newest_at_ms = known(stats.newest_at_ms.load(Relaxed));
        Self {
            name: name.to_owned(),
            kind,
            events: stats.events.load(Relaxed),
            rows: stats.rows.load(Relaxed),
            rejected: stats.rejected.load(Relaxed),
            dropped: stats.dropped.load(Relaxed),
            version: stats.version.load(Relaxed),
            commits,
            committed_at_ms: known(stats.committed_at_ms.load(Relaxed)),
            newest_at_ms,
            delay_ms: newest_at_ms.map(|_| stats.delay_ms.load(Relaxed)),
            commit_ms_last: micros(stats.commit_micros_last.load(Relaxed)),
            commit_ms_mean: micros(stats.commit_micros_sum.load(Relaxed) / commits.max(1)),
            commit_ms_max: micros(stats.commit_micros_max.load(Relaxed)),
            files_written: stats.files.load(Relaxed),
            bytes_written: stats.bytes.load(Relaxed),
            ..Self::default()
        }
    }
}

fn plugin(table: &str, stats: &TableStats, state: &StateOf) -> Plugin {
    let loaded = stats.plugin();
    let events = stats.events.load(Relaxed);
    let nanos = stats.plugin_nanos.load(Relaxed) as f64;
    let swapped = stats.swaps.load(Relaxed) > 0;
    Plugin {
        table: table.to_owned(),
        state: state.get(),
        interface: loaded.as_ref().map(|plugin| plugin.interface.clone()),
        digest: loaded.as_ref().map(|plugin| plugin.digest.clone()),
        loaded_at_ms: loaded.as_ref().map(|plugin| plugin.loaded_at_ms),
        swapped_at_ms: loaded.as_ref().and_then(|plugin| plugin.swapped_at_ms),
        swaps: stats.swaps.load(Relaxed),
        swap_ms_last: swapped.then(|| stats.swap_micros_last.load(Relaxed) as f64 / 1000.0),
        swap_ms_max: swapped.then(|| stats.swap_micros_max.load(Relaxed) as f64 / 1000.0),
        refused: stats.refusal(),
        shadow: loaded.as_ref().and_then(|plugin| plugin.shadow.clone()),
        breaker: state.get().strip_prefix("paused").map(|why| format!("open{why}")),
        ns_per_event: (events > 0).then(|| nanos / events as f64),
    }
}
