//! The state of the pipeline, as the dashboard, the API and the metrics show it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;
use silverd_core::zone::Zone;

use super::history::{BRONZE, History, QUARANTINE};
use crate::days::LastFinalDay;
use crate::gold::GoldTable;
use crate::maintenance::TableMaintenance;
use crate::pipeline::status::{PartitionProgress, SilverStatus, Status};
use crate::source;
use crate::tables::writer_state::{WriterState, WriterStateCell};
use crate::telemetry::TableStats;

/// What `/api/status` answers. Counts start at 0 when silverd starts.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Health {
    pub at_ms: i64,
    pub started_at_ms: i64,
    pub version: &'static str,
    pub state: PipelineState,
    pub topic: String,
    /// That of the dashboard's times and days.
    pub time_zone: Zone,
    pub events_per_s: f64,
    /// Records in Kafka that are not in Bronze yet.
    pub lag: i64,
    /// Events that match no Silver table.
    pub unrouted: u64,
    pub unrouted_by_reason: BTreeMap<&'static str, u64>,
    /// The newest of them.
    pub unrouted_sample: Option<UnroutedSample>,
    /// Why records are not read. Empty while all are.
    pub source_problems: Vec<SourceProblem>,
    pub memory_bytes: u64,
    pub memory_peak_bytes: u64,
    pub cpu_seconds: f64,
    /// Clients of `/api/stream`.
    pub clients: usize,
    pub partitions: Vec<PartitionHealth>,
    pub tables: Vec<TableHealth>,
    pub plugins: Vec<PluginHealth>,
    pub gold: Vec<GoldTable>,
    pub maintenance: Vec<TableMaintenance>,
    /// The newest final day of each table that has one.
    pub last_final_days: Vec<LastFinalDay>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PipelineState {
    /// The tables are not open yet, or the broker is not connected.
    #[default]
    Starting,
    Running,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct SourceProblem {
    pub text: String,
    /// How long it has lasted.
    pub seconds: u64,
}

/// An event that matches no Silver table.
#[derive(Clone, Debug, Serialize)]
pub(super) struct UnroutedSample {
    /// The beginning of its value, without control characters.
    pub text: String,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub ingested_at_ms: i64,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct PartitionHealth {
    pub cluster: String,
    pub topic: String,
    pub partition: i32,
    /// The end offset in Kafka.
    pub end: i64,
    /// The next offset that Bronze reads.
    pub next: i64,
    pub lag: i64,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct TableHealth {
    pub name: String,
    pub kind: TableKind,
    /// The name of the state; Bronze is `live` or `retrying`, the quarantine always `live`.
    pub state: &'static str,
    /// The state for people, with its reason.
    pub state_text: String,
    /// For how long the table has been in its state.
    pub state_seconds: u64,
    pub is_writing: bool,
    pub events: u64,
    pub rows: u64,
    pub rejected: u64,
    pub dropped: u64,
    pub events_per_s: f64,
    pub lag: i64,
    pub version: u64,
    pub commits: u64,
    pub committed_at_ms: Option<i64>,
    /// When silverd read the newest event with a committed row from Kafka.
    pub newest_at_ms: Option<i64>,
    /// From Kafka to the commit, for the oldest event of the last commit.
    pub ingest_latency_ms: Option<i64>,
    pub commit_ms_last: f64,
    pub commit_ms_mean: f64,
    pub commit_ms_max: f64,
    pub files_written: u64,
    pub bytes_written: u64,
    /// Data files of the newest version. They are listed every half minute while a client is connected.
    pub files: Option<u64>,
    pub bytes: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum TableKind {
    Bronze,
    Silver,
    Quarantine,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct PluginHealth {
    pub table: String,
    pub state: &'static str,
    pub state_text: String,
    pub interface: Option<String>,
    pub digest: Option<String>,
    pub loaded_at_ms: Option<i64>,
    /// When this version replaced another one in the running daemon.
    pub swapped_at_ms: Option<i64>,
    pub swaps: u64,
    /// How long the table paused for a swap.
    pub swap_ms_last: Option<f64>,
    pub swap_ms_max: Option<f64>,
    /// Why the newest version is rejected.
    pub update_rejected: Option<String>,
    /// The result of the version's shadow run.
    pub shadow: Option<String>,
    /// Why the circuit breaker is open.
    pub breaker: Option<String>,
    pub ns_per_event: Option<f64>,
}

/// Data files of the newest version of each table.
pub(super) type TableSizes = BTreeMap<String, TableSize>;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TableSize {
    pub files: u64,
    pub bytes: u64,
}

impl Health {
    /// What is known once the pipeline runs.
    pub fn of_running(status: &Status, history: &History, sizes: &TableSizes) -> Self {
        let table = |kind, name: &str, stats: &TableStats, state: &WriterStateCell, lag: i64| TableHealth {
            events_per_s: history.events_per_s(name),
            lag,
            files: sizes.get(name).map(|size| size.files),
            bytes: sizes.get(name).map(|size| size.bytes),
            ..TableHealth::new(kind, name, stats, state)
        };
        let mut tables = vec![table(TableKind::Bronze, BRONZE, &status.bronze, &status.bronze_state, status.lag())];
        let mut plugins = Vec::new();
        for SilverStatus { name, stats, state, .. } in &status.silver {
            tables.push(table(TableKind::Silver, name, stats, state, stats.lag.load(Relaxed)));
            plugins.push(PluginHealth::new(name, stats, &state.get()));
        }
        let live = WriterStateCell::new(WriterState::Live);
        tables.push(table(TableKind::Quarantine, QUARANTINE, &status.quarantine, &live, 0));
        Self {
            state: PipelineState::Running,
            events_per_s: history.events_per_s(BRONZE),
            lag: status.lag(),
            unrouted: status.unrouted.total(),
            unrouted_by_reason: status.unrouted.by_reason().map(|(reason, count)| (reason.as_str(), count)).collect(),
            unrouted_sample: UnroutedSample::newest(status),
            source_problems: SourceProblem::all(status),
            partitions: status.partitions().into_iter().map(PartitionHealth::from).collect(),
            tables,
            plugins,
            ..Self::default()
        }
    }
}

impl SourceProblem {
    pub fn all(status: &Status) -> Vec<Self> {
        status.source_problems().into_iter().map(Self::from).collect()
    }
}

impl From<source::SourceProblem> for SourceProblem {
    fn from(problem: source::SourceProblem) -> Self {
        Self { text: problem.text, seconds: problem.since.elapsed().as_secs() }
    }
}

impl fmt::Display for SourceProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "for {} s: {}", self.seconds, self.text)
    }
}

impl UnroutedSample {
    fn newest(status: &Status) -> Option<Self> {
        let sample = status.unrouted.sample()?;
        let (partition, offset, ingested_at_ms) = (sample.partition, sample.offset, sample.ingested_at_ms);
        Some(Self { text: sample.text, topic: sample.topic, partition, offset, ingested_at_ms })
    }
}

impl From<PartitionProgress> for PartitionHealth {
    fn from(PartitionProgress { log, end, next }: PartitionProgress) -> Self {
        let (cluster, topic) = (log.cluster.to_string(), log.topic.to_string());
        Self { cluster, topic, partition: log.partition, end, next, lag: end - next }
    }
}

impl TableHealth {
    fn new(kind: TableKind, name: &str, stats: &TableStats, cell: &WriterStateCell) -> Self {
        let state = cell.get();
        let durations = stats.commit_durations();
        let time = |ms: i64| (ms > 0).then_some(ms);
        let newest_at_ms = time(stats.newest_at_ms.load(Relaxed));
        Self {
            name: name.to_owned(),
            kind,
            state: state.name(),
            state_text: state.to_string(),
            state_seconds: cell.lasts().as_secs(),
            is_writing: state.is_writing(),
            events: stats.events.load(Relaxed),
            rows: stats.rows.load(Relaxed),
            rejected: stats.rejected.load(Relaxed),
            dropped: stats.dropped.load(Relaxed),
            events_per_s: 0.0,
            lag: 0,
            version: stats.version.load(Relaxed),
            commits: stats.commits.load(Relaxed),
            committed_at_ms: time(stats.committed_at_ms.load(Relaxed)),
            newest_at_ms,
            ingest_latency_ms: newest_at_ms.map(|_| stats.ingest_latency_ms.load(Relaxed)),
            commit_ms_last: durations.last_seconds * 1000.0,
            commit_ms_mean: durations.mean_seconds() * 1000.0,
            commit_ms_max: durations.max_seconds * 1000.0,
            files_written: stats.files.load(Relaxed),
            bytes_written: stats.bytes.load(Relaxed),
            files: None,
            bytes: None,
        }
    }
}

impl PluginHealth {
    fn new(table: &str, stats: &TableStats, state: &WriterState) -> Self {
        let loaded = stats.plugin();
        let (swaps, events) = (stats.swaps.load(Relaxed), stats.events.load(Relaxed));
        let swap_ms = |micros: u64| (swaps > 0).then_some(micros as f64 / 1000.0);
        let breaker = match state {
            WriterState::Paused { seconds, reason } => {
                Some(format!("open for {seconds} s: {}", reason.lines().next().unwrap_or_default()))
            }
            _ => None,
        };
        Self {
            table: table.to_owned(),
            state: state.name(),
            state_text: state.to_string(),
            interface: loaded.as_ref().map(|plugin| plugin.interface.clone()),
            digest: loaded.as_ref().map(|plugin| plugin.digest.clone()),
            loaded_at_ms: loaded.as_ref().map(|plugin| plugin.loaded_at_ms),
            swapped_at_ms: loaded.as_ref().and_then(|plugin| plugin.swapped_at_ms),
            swaps,
            swap_ms_last: swap_ms(stats.swap_micros_last.load(Relaxed)),
            swap_ms_max: swap_ms(stats.swap_micros_max.load(Relaxed)),
            update_rejected: stats.update_rejection(),
            shadow: loaded.and_then(|plugin| plugin.shadow),
            breaker,
            ns_per_event: (events > 0).then(|| stats.plugin_nanos.load(Relaxed) as f64 / events as f64),
        }
    }
}
