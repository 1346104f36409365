//! What a running pipeline shows of itself: a line for each table on a terminal, one log line elsewhere.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use silverd_core::chunk::Chunk;
use silverd_core::days::End;
use silverd_core::offsets::{LogPartition, Offsets};
use silverd_core::unrouted::UnroutedEvents;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::unrouted::Unrouted;
use crate::bronze::Bronze;
use crate::runtime::clock;
use crate::silver::Worker;
use crate::source::{HighWatermarks, SourceProblem, SourceProblems};
use crate::tables::event_progress::EventProgress;
use crate::tables::side_output::SideOutput;
use crate::tables::writer_state::{WriterState, WriterStateCell};
use crate::telemetry::{Stages, TableStats};

/// How far a pipeline is.
#[derive(Clone, Default)]
pub enum RunState {
    /// The tables are being opened, or the broker is not connected.
    #[default]
    Starting,
    /// A table cannot be opened, so no record is read.
    Waiting(SourceProblem),
    Running(Arc<Status>),
}

impl RunState {
    /// What a running pipeline shows.
    pub fn running(&self) -> Option<Arc<Status>> {
        match self {
            Self::Running(status) => Some(status.clone()),
            Self::Starting | Self::Waiting(_) => None,
        }
    }
}

/// The counts of a pipeline, shared with whoever shows them.
pub struct Status {
    pub bronze: Arc<TableStats>,
    pub bronze_state: WriterStateCell,
    pub silver: Vec<SilverStatus>,
    pub quarantine: Arc<TableStats>,
    /// Events that match no Silver table.
    pub(crate) unrouted: Arc<Unrouted>,
    pub stages: Arc<Stages>,
    committed_offsets: watch::Receiver<Offsets>,
    high_watermarks: Arc<HighWatermarks>,
    source_problems: Arc<SourceProblems>,
}

pub struct SilverStatus {
    pub name: String,
    pub stats: Arc<TableStats>,
    pub state: WriterStateCell,
    pub progress: EventProgress,
}

/// How far a log partition was read.
pub struct PartitionProgress {
    pub log: LogPartition,
    /// Its end in Kafka, as far as the broker has said.
    pub end: i64,
    /// The next offset that Bronze reads.
    pub next: i64,
}

impl Status {
    pub(super) fn new(
        bronze: &Bronze,
        quarantine: &SideOutput,
        workers: &[Worker],
        high_watermarks: Arc<HighWatermarks>,
        source_problems: Arc<SourceProblems>,
        stages: Arc<Stages>,
        unrouted: Arc<Unrouted>,
    ) -> Self {
        let status_of = |worker: &Worker| SilverStatus {
            name: worker.name.to_string(),
            stats: worker.stats.clone(),
            state: worker.state.clone(),
            progress: worker.progress.clone(),
        };
        Self {
            bronze: bronze.stats(),
            bronze_state: bronze.state(),
            silver: workers.iter().map(status_of).collect(),
            quarantine: quarantine.stats(),
            unrouted,
            stages,
            committed_offsets: bronze.committed_offsets(),
            high_watermarks,
            source_problems,
        }
    }

    /// Why records are not read. Empty while all are.
    pub(crate) fn source_problems(&self) -> Vec<SourceProblem> {
        self.source_problems.list()
    }

    /// Counts a chunk that came from Kafka.
    pub(super) fn count_chunk(&self, chunk: &Chunk, unrouted: &UnroutedEvents) {
        self.bronze.events.fetch_add(chunk.records.num_rows() as u64, Relaxed);
        self.unrouted.count(chunk, unrouted);
    }

    /// Offsets that Kafka has and Bronze does not. The high watermarks are up to a second old.
    pub fn lag(&self) -> i64 {
        self.high_watermarks.lag(&self.committed_offsets.borrow())
    }

    /// All partitions of the topics, with their ends where this process knows them.
    pub(crate) fn log_partitions(&self) -> Vec<(LogPartition, Option<End>)> {
        self.high_watermarks.partitions()
    }

    /// The next offset of a table that has processed nothing of a partition.
    pub(crate) fn begin_of(&self, log: &LogPartition) -> i64 {
        self.high_watermarks.begin_of(log)
    }

    pub fn partitions(&self) -> Vec<PartitionProgress> {
        let (ends, committed) = (self.high_watermarks.ends(), self.committed_offsets.borrow());
        let progress_of = |(log, end): (LogPartition, i64)| {
            let next = committed.get(&log).copied().unwrap_or(0);
            PartitionProgress { log, end: end.max(next), next }
        };
        ends.into_iter().map(progress_of).collect()
    }

    /// One line for each table, under a header.
    fn text_table(&self, rates: &mut Rates) -> String {
        let mut text = String::new();
        let header = ["table", "events in", "/s", "rows", "quarantined", "lag", "last commit", ""];
        push_line(&mut text, &header.map(String::from));
        let events = self.bronze.events.load(Relaxed);
        let unrouted = self.unrouted.total();
        let note = match self.bronze_state.get() {
            WriterState::Live if unrouted == 0 => String::new(),
            WriterState::Live => format!("{unrouted} match no table"),
            state => state.to_string(),
        };
        let rate = rates.next("bronze", events);
        let counts = [events, rate, self.bronze.rows.load(Relaxed)].map(|count| count.to_string());
        push_line(&mut text, &cells("bronze", counts, "-".to_owned(), self.lag(), &self.bronze, note));
        for SilverStatus { name, stats, state, .. } in &self.silver {
            let events = stats.events.load(Relaxed);
            let counts = [events, rates.next(name, events), stats.rows.load(Relaxed)].map(|count| count.to_string());
            let (quarantined, lag) = (stats.rejected.load(Relaxed).to_string(), stats.lag.load(Relaxed));
            push_line(&mut text, &cells(name, counts, quarantined, lag, stats, state.get().to_string()));
        }
        text
    }

    fn log_line(&self, rates: &mut Rates) {
        let bronze = self.bronze.events.load(Relaxed);
        let mut silver = String::new();
        for SilverStatus { name, stats, state, .. } in &self.silver {
            let (rows, rejected) = (stats.rows.load(Relaxed), stats.rejected.load(Relaxed));
            let state = match state.get() {
                WriterState::Live => String::new(),
                state => format!(" ({state})"),
            };
            let _ = write!(silver, " {name}={rows}+{rejected}{state}");
        }
        info!(
            events = bronze,
            per_second = rates.next("bronze", bronze),
            lag = self.lag(),
            unrouted = self.unrouted.total(),
            "progress; rows+quarantined by Silver table:{silver}"
        );
    }
}

fn cells(
    name: &str,
    [events, rate, rows]: [String; 3],
    quarantined: String,
    lag: i64,
    stats: &TableStats,
    state: String,
) -> [String; 8] {
    [name.to_owned(), events, rate, rows, quarantined, lag.to_string(), last_commit(stats), state]
}

fn push_line(text: &mut String, cells: &[String; 8]) {
    let [name, events, rate, rows, quarantined, lag, commit, state] = cells;
    let _ =
        writeln!(text, "{name:<16} {events:>12} {rate:>8} {rows:>12} {quarantined:>12} {lag:>9}  {commit:<18} {state}");
}

fn last_commit(stats: &TableStats) -> String {
    match stats.committed_at_ms.load(Relaxed) {
        0 => "none yet".to_owned(),
        at => format!("v{}, {:.1} s ago", stats.version.load(Relaxed), (clock::now_ms() - at).max(0) as f64 / 1000.0),
    }
}

/// Turns counts into rates since the last time.
#[derive(Default)]
struct Rates(BTreeMap<String, (Instant, u64)>);

impl Rates {
    fn next(&mut self, name: &str, count: u64) -> u64 {
        let now = Instant::now();
        let Some((at, before)) = self.0.insert(name.to_owned(), (now, count)) else { return 0 };
        let seconds = now.duration_since(at).as_secs_f64().max(1e-3);
        (count.saturating_sub(before) as f64 / seconds).round() as u64
    }
}

const TERMINAL_INTERVAL: Duration = Duration::from_secs(1);
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// Shows the status until the pipeline ends.
pub async fn show(mut status: watch::Receiver<RunState>, ended: CancellationToken) {
    let terminal = std::io::stdout().is_terminal();
    let (mut rates, mut lines_drawn, mut is_last) = (Rates::default(), 0, false);
    let interval = if terminal { TERMINAL_INTERVAL } else { LOG_INTERVAL };
    while !is_last {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = ended.cancelled() => is_last = true, // once more, for the last commits
        }
        let Some(status) = status.borrow_and_update().running() else { continue };
        if terminal {
            let table = status.text_table(&mut rates);
            let mut out = std::io::stdout().lock();
            // Over the lines of the last time; log lines that came between stay above.
            let up = if lines_drawn > 0 { format!("\x1b[{lines_drawn}A\x1b[J") } else { String::new() };
            lines_drawn = table.lines().count();
            let _ = write!(out, "{up}{table}");
            let _ = out.flush();
        } else {
            status.log_line(&mut rates);
        }
    }
}
