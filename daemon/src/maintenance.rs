//! The care for the tables' files and logs, beside the flow and never in its way.
//!
//! ```text
//!   every ten seconds, a table that has new versions:  small files of a day ──▶ one file, and one commit that changes no row
//!   now and then, each table:     what Silver announced is settled ──▶ files that no version has any more are removed
//!                                                              └────▶ the log's old entries, behind a checkpoint, are removed
//! ```
//!
//! A merge is a commit like any other: if somebody else removed one of its files meanwhile, it is void, and decided anew.

mod merge;
mod room;
mod settle;
mod sweep;
mod table;
mod trim;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use silverd_core::config::Pipeline;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::delta::{Lease, Reader, Table};
use crate::low;
pub use room::{Pace, Stopped};
use settle::settle;
pub use sweep::Swept;
pub use table::{Kept, Kind, Merged, NoRoom, Tails};
pub use trim::Trimmed;

/// How often a table is looked at.
const LOOK: Duration = Duration::from_secs(10);
/// The first look: a daemon that is started has other things to do.
const FIRST_LOOK: Duration = Duration::from_secs(2);
/// So many new versions are worth a look at the files.
const VERSIONS_MIN: u64 = 8;
/// A table that is written more seldom is looked at this often: its days end, too.
const LOOK_ANYWAY: Duration = Duration::from_secs(10 * 60);
/// Files and logs are swept this often, or so many times within the span that files are kept for.
const SWEEP: Duration = Duration::from_secs(3 * 60 * 60);
const SWEEPS_MIN: u64 = 8;
const FIRST_SWEEP: Duration = Duration::from_secs(5 * 60);
const RETRY: Duration = Duration::from_secs(60);

/// What is to be seen of the maintenance.
#[derive(Default)]
pub struct Board(Mutex<Vec<Shown>>);

/// Of one table, since the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Shown {
    pub table: String,
    /// `waiting`, `well`, `paused` or `failing`.
    pub state: &'static str,
    /// Why it is paused, or fails.
    pub reason: Option<String>,
    pub merges: u64,
    pub files_merged: u64,
    pub bytes_merged: u64,
    pub files_removed: u64,
    pub bytes_removed: u64,
    /// Files and entries of the log.
    pub log_files_removed: u64,
}

impl Board {
    pub fn shown(&self) -> Vec<Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, table: &str, change: impl FnOnce(&mut Shown)) {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = shown.iter().position(|shown| shown.table == table).unwrap_or_else(|| {
            shown.push(Shown { table: table.to_owned(), state: "waiting", ..Shown::default() });
            shown.len() - 1
        });
        change(&mut shown[at]);
    }
}

/// Cares for all tables of a pipeline, one after the other.
pub struct Keeper {
    pipeline: Pipeline,
    base: PathBuf,
    tables: Vec<Due>,
    board: Arc<Board>,
    /// The disk was short of room at the last look.
    short: bool,
}

/// A table, and when it is looked at.
struct Due {
    kept: Kept,
    look: Instant,
    sweep: Instant,
    /// The version at the last look at the files, and when that was.
    seen: Option<(u64, Instant)>,
    /// The last failure that was logged, so that one that stays is told once.
    told: Option<String>,
}

impl Keeper {
    pub fn new(pipeline: &Pipeline, base: &Path, board: Arc<Board>) -> Self {
        let now = Instant::now();
        let due = |kept: Kept| Due { kept, look: now + FIRST_LOOK, sweep: now + FIRST_SWEEP, seen: None, told: None };
        let tables: Vec<_> = match pipeline.maintenance.enabled {
            true => Kept::all(pipeline, base).into_iter().map(due).collect(),
            false => Vec::new(),
        };
        tables.iter().for_each(|due| board.change(&due.kept.name, |_| {}));
        Self { pipeline: pipeline.clone(), base: base.to_path_buf(), tables, board, short: false }
    }

    /// Starts the thread that does it, of low priority, until it is told to stop. What comes back tells that it has ended.
    pub fn start(self, stop: CancellationToken) -> anyhow::Result<oneshot::Receiver<()>> {
        let (ends, ended) = oneshot::channel();
        let low = low::handle()?;
        std::thread::Builder::new().name("maintenance".to_owned()).spawn(move || {
            low::step_back();
            low.block_on(self.run(stop));
            let _ = ends.send(());
        })?;
        Ok(ended)
    }

    async fn run(mut self, stop: CancellationToken) {
        let pace = Pace::beside_the_flow(stop.clone());
        while let Some(at) = (0..self.tables.len()).min_by_key(|at| self.tables[*at].look) {
            tokio::select! {
                () = tokio::time::sleep_until(self.tables[at].look.into()) => {}
                () = stop.cancelled() => return,
            }
            let result = self.look(at, &pace).await;
            let due = &mut self.tables[at];
            due.look = Instant::now() + if result.is_ok() { LOOK } else { RETRY };
            self.tell(at, result);
        }
    }

    /// Merges what is to be merged, and sweeps if it is time.
    async fn look(&mut self, at: usize, pace: &Pace) -> anyhow::Result<()> {
        let (config, due) = (self.pipeline.maintenance.clone(), &mut self.tables[at]);
        let Some(reader) = Reader::open(&due.kept.path)? else { return Ok(()) };
        let Some(version) = reader.version().await? else { return Ok(()) };
        let now = Instant::now();
        let sweeps = now >= due.sweep;
        let moved = due.seen.is_none_or(|(seen, when)| {
            version >= seen + VERSIONS_MIN || (version > seen && when.elapsed() > LOOK_ANYWAY)
        });
        if !moved && !sweeps {
            return Ok(());
        }
        let Some(_lease) = Lease::alone(&due.kept.path)? else {
            debug!(table = %due.kept.name, "somebody else is at work");
            return Ok(());
        };
        let Some((mut table, mut files)) = due.kept.open().await? else { return Ok(()) };
        let mut swept = Ok(());
        if sweeps {
            swept = tidy(&self.pipeline, &self.base, &due.kept, &mut table, pace).await.map(|(swept, trimmed)| {
                self.board.change(&due.kept.name, |shown| {
                    shown.files_removed += swept.files;
                    shown.bytes_removed += swept.bytes + trimmed.bytes;
                    shown.log_files_removed += trimmed.entries + trimmed.checkpoints;
                });
            });
            let pause = SWEEP.min(Duration::from_millis(config.retention_ms / SWEEPS_MIN));
            due.sweep = now + if swept.is_ok() { pause } else { RETRY.min(pause) };
            files = table.files().await?;
        }
        let merged = due.kept.merge(&mut table, files, &config, Tails::OfPastDays, pace).await?;
        due.seen = Some((table.version(), Instant::now()));
        self.board.change(&due.kept.name, |shown| {
            shown.merges += merged.merges;
            shown.files_merged += merged.files;
            shown.bytes_merged += merged.bytes;
        });
        if merged.merges > 0 {
            debug!(table = %due.kept.name, files = merged.files, into = merged.merges, "merged small files");
        }
        swept
    }

    fn tell(&mut self, at: usize, result: anyhow::Result<()>) {
        let due = &mut self.tables[at];
        let name = due.kept.name.clone();
        let failure = match result {
            Err(failure) if failure.is::<Stopped>() => return,
            Err(failure) => failure,
            Ok(()) => {
                if due.told.take().is_some() {
                    info!(table = %name, "small files are merged again");
                    self.short = self.tables.iter().any(|due| due.told.is_some());
                }
                return self.board.change(&name, |shown| (shown.state, shown.reason) = ("well", None));
            }
        };
        let text = format!("{failure:#}");
        let short = failure.is::<NoRoom>();
        if short && !self.short {
            warn!(
                "{text}: small files stay as they are until there is more room. Old versions are removed all the same"
            );
        } else if !short && due.told.as_ref() != Some(&text) {
            warn!(table = %name, "care for the table's files: {text}; it is tried again, and nothing waits for it");
        }
        self.short |= short;
        due.told = Some(text.clone());
        self.board.change(&name, |shown| {
            (shown.state, shown.reason) = (if short { "paused" } else { "failing" }, Some(text));
        });
    }
}

/// Removes files that no version has any more, and old entries of the log. What is announced in a log, and waits for its
/// commit, is settled first: neither may go.
pub async fn tidy(
    pipeline: &Pipeline,
    base: &Path,
    kept: &Kept,
    table: &mut Table,
    pace: &Pace,
) -> anyhow::Result<(Swept, Trimmed)> {
    let config = &pipeline.maintenance;
    kept.tell_retention(table, config).await?;
    if matches!(kept.kind(), Kind::Silver | Kind::Side) {
        settle(pipeline, base).await?;
    }
    let swept = kept.sweep(table, config, false, pace).await?;
    let trimmed = kept.trim(table, config, false, pace).await?;
    let log_files = trimmed.entries + trimmed.checkpoints;
    if swept.files + log_files > 0 {
        debug!(table = %kept.name, files = swept.files, log_files, "removed what is old");
    }
    Ok((swept, trimmed))
}
