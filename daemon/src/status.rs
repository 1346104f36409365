//! What a running pipeline shows of itself: a line for each table on a terminal, one log line elsewhere.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use silverd_core::chunk::Chunk;
use silverd_core::offsets::{LogPartition, Offsets};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::bronze::Bronze;
use crate::clock;
use crate::ingest::High;
use crate::side::SideTable;
use crate::silver::{StateOf, Worker};
use crate::telemetry::{Stages, TableStats};

/// The counts of a pipeline, shared with whoever shows them.
pub struct Status {
    pub bronze: Arc<TableStats>,
    pub silver: Vec<(String, Arc<TableStats>, StateOf)>,
    pub quarantine: Arc<TableStats>,
    /// Events that no table takes.
    pub unrouted: Arc<AtomicU64>,
    pub stages: Arc<Stages>,
    head: watch::Receiver<Offsets>,
    high: Arc<High>,
}

impl Status {
    pub fn new(
        bronze: &Bronze,
        quarantine: &SideTable,
        workers: &[Worker],
        high: Arc<High>,
        stages: Arc<Stages>,
        unrouted: Arc<AtomicU64>,
    ) -> Self {
        Self {
            bronze: bronze.stats(),
            silver: workers.iter().map(|w| (w.name.to_string(), w.stats.clone(), w.state_of())).collect(),
            quarantine: quarantine.stats(),
            unrouted,
            stages,
            head: bronze.head(),
            high,
        }
    }

    /// A chunk has come from Kafka.
    pub fn arrived(&self, chunk: &Chunk, unrouted: usize) {
        self.bronze.events.fetch_add(chunk.records.num_rows() as u64, Relaxed);
        self.unrouted.fetch_add(unrouted as u64, Relaxed);
    }

    /// Offsets that Kafka has and Bronze has not, as far as Kafka has told: its ends are known a second late.
    pub fn lag(&self) -> i64 {
        self.high.lag(&self.head.borrow())
    }

    /// Each log partition: its end in Kafka, as far as it has told, and up to where Bronze has it.
    pub fn partitions(&self) -> Vec<(LogPartition, i64, i64)> {
        let (ends, head) = (self.high.ends(), self.head.borrow());
        let of = |(log, end): (LogPartition, i64)| {
            let next = head.get(&log).copied().unwrap_or(0);
            (log, end.max(next), next)
        };
        ends.into_iter().map(of).collect()
    }

    /// One line for each table, under a header.
    pub fn table(&self, rates: &mut Rates) -> String {
        let mut text = String::new();
        let header = ["table", "events in", "/s", "rows", "quarantined", "lag", "last commit", ""];
        line(&mut text, &header.map(String::from));
        let lag = self.lag();
        let bronze = self.bronze.events.load(Relaxed);
        let cell = |stats: &TableStats, name: &str, events: u64, rate: u64, lag: i64, state: String| {
            let quarantined = if name == "bronze" { "-".to_owned() } else { stats.rejected.load(Relaxed).to_string() };
            let rows = stats.rows.load(Relaxed).to_string();
            [
                name.to_owned(),
                events.to_string(),
                rate.to_string(),
                rows,
                quarantined,
                lag.to_string(),
                last_commit(stats),
                state,
            ]
        };
        let unrouted = match self.unrouted.load(Relaxed) {
            0 => String::new(),
            unrouted => format!("{unrouted} of no table"),
        };
        line(&mut text, &cell(&self.bronze, "bronze", bronze, rates.of("bronze", bronze), lag, unrouted));
        for (name, stats, state) in &self.silver {
            let events = stats.events.load(Relaxed);
            let lag = stats.lag.load(Relaxed);
            line(&mut text, &cell(stats, name, events, rates.of(name, events), lag, state.get()));
        }
        text
    }

    fn log(&self, rates: &mut Rates) {
        let bronze = self.bronze.events.load(Relaxed);
        let mut silver = String::new();
        for (name, stats, state) in &self.silver {
            let (rows, rejected) = (stats.rows.load(Relaxed), stats.rejected.load(Relaxed));
            let state = state.get();
            let state = if state == "live" { String::new() } else { format!(" ({state})") };
            let _ = write!(silver, " {name}={rows}+{rejected}{state}");
        }
        info!(
            events = bronze,
            per_second = rates.of("bronze", bronze),
            lag = self.lag(),
            unrouted = self.unrouted.load(Relaxed),
            "bronze; silver rows+quarantined:{silver}"
        );
    }
}

fn line(text: &mut String, cells: &[String; 8]) {
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

/// Turns counts into rates, from one look to the next.
#[derive(Default)]
pub struct Rates(BTreeMap<String, (Instant, u64)>);

impl Rates {
    fn of(&mut self, name: &str, count: u64) -> u64 {
        let now = Instant::now();
        let Some((at, before)) = self.0.insert(name.to_owned(), (now, count)) else { return 0 };
        let seconds = now.duration_since(at).as_secs_f64().max(1e-3);
        (count.saturating_sub(before) as f64 / seconds).round() as u64
    }
}

const LIVE_INTERVAL: Duration = Duration::from_secs(1);
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// Shows the status until the pipeline ends.
pub async fn show(mut status: watch::Receiver<Option<Arc<Status>>>, ended: CancellationToken) {
    let live = std::io::stdout().is_terminal();
    let (mut rates, mut drawn, mut over) = (Rates::default(), 0, false);
    let interval = if live { LIVE_INTERVAL } else { LOG_INTERVAL };
    while !over {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = ended.cancelled() => over = true, // once more, for the last commits
        }
        let Some(status) = status.borrow_and_update().clone() else { continue };
        if live {
            let table = status.table(&mut rates);
            let mut out = std::io::stdout().lock();
            // Over the lines of the last time; what a log line pushed away stays above.
            let up = if drawn > 0 { format!("\x1b[{drawn}A\x1b[J") } else { String::new() };
            drawn = table.lines().count();
            let _ = write!(out, "{up}{table}");
            let _ = out.flush();
        } else {
            status.log(&mut rates);
        }
    }
}
