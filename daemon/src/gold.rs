//! Gold: tables that SQL makes of the others, kept up to date by the days that changed.
//!
//! ```text
//!   every `refresh`:  versions of the sources ──▶ days that changed since the table's last commit
//!                                                     │ none: nothing to do
//!                                                     ▼
//!                     the SQL over these days alone ──▶ a file for each day
//!                                                     ▼
//!                     one commit: the days' old files out, the new ones in, and the sources' versions
//! ```

mod model;
mod shape;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use silverd_core::config::{Gold, Pipeline};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::clock;
use crate::spans;
use crate::sql::{Tables, Unanswered};
use model::{Model, Refreshed};

/// A table whose refresh takes long is refreshed less often: it may be at work for a tenth of the time.
const REST_FACTOR: u32 = 9;
/// Failures are tried again no more often than this.
const RETRY: Duration = Duration::from_secs(10);
/// How often it looks whether a table that has no row yet has come.
const NOT_YET: Duration = Duration::from_secs(1);

/// What is to be seen of the Gold tables.
#[derive(Default)]
pub struct Board(Mutex<Vec<Shown>>);

#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    pub name: String,
    pub path: String,
    pub refresh_ms: u64,
    /// `waiting`, `up to date`, `catching up` or `failing`.
    pub state: &'static str,
    /// Why it fails, or what it waits for.
    pub reason: Option<String>,
    pub version: Option<u64>,
    /// Rows of the days that the last refresh made anew, and how many days these were.
    pub rows: u64,
    pub days: usize,
    /// Milliseconds since the epoch; none before the first refresh.
    pub refreshed_at_ms: Option<i64>,
    pub took_ms: u64,
    pub commits: u64,
}

impl Board {
    pub fn new(pipeline: &Pipeline) -> Self {
        let shown = |gold: &Gold| Shown {
            name: gold.name.to_string(),
            path: gold.path.value.clone(),
            refresh_ms: gold.refresh_ms,
            state: "waiting",
            reason: None,
            version: None,
            rows: 0,
            days: 0,
            refreshed_at_ms: None,
            took_ms: 0,
            commits: 0,
        };
        Self(Mutex::new(pipeline.gold.iter().map(shown).collect()))
    }

    pub fn shown(&self) -> Vec<Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, at: usize, change: impl FnOnce(&mut Shown)) {
        if let Some(shown) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(at) {
            change(shown);
        }
    }
}

/// Keeps all Gold tables, one refresh at a time.
pub struct Keeper {
    models: Vec<Kept>,
    tables: Arc<Tables>,
    board: Arc<Board>,
}

struct Kept {
    model: Model,
    refresh: Duration,
    due: Instant,
    /// The last failure that was logged, so that one that stays is told once.
    told: Option<String>,
}

impl Keeper {
    pub fn new(pipeline: &Pipeline, base: &Path, tables: Arc<Tables>, board: Arc<Board>) -> Self {
        let kept = |gold: &Gold| Kept {
            model: Model::new(gold.clone(), base.join(&*gold.path)),
            refresh: Duration::from_millis(gold.refresh_ms),
            due: Instant::now(),
            told: None,
        };
        Self { models: pipeline.gold.iter().map(kept).collect(), tables, board }
    }

    /// Refreshes what is due until it is told to finish; then everything once more.
    pub async fn run(mut self, finish: CancellationToken) {
        while let Some(at) = (0..self.models.len()).min_by_key(|at| self.models[*at].due) {
            tokio::select! {
                () = tokio::time::sleep_until(self.models[at].due.into()) => { self.refresh(at).await; }
                () = finish.cancelled() => break,
            }
        }
        for at in 0..self.models.len() {
            while self.refresh(at).await {}
        }
    }

    /// True if there is more to do at once.
    async fn refresh(&mut self, at: usize) -> bool {
        let kept = &mut self.models[at];
        let begun = Instant::now();
        let span = spans::gold_refresh(&kept.model.name());
        let result = spans::tell(span, kept.model.refresh(&self.tables)).await;
        let took = begun.elapsed();
        let more = matches!(&result, Ok(refreshed) if refreshed.pending > 0);
        let pause = match &result {
            Ok(_) if more => took,
            Ok(_) => kept.refresh.max(took * REST_FACTOR),
            Err(Unanswered::NotYet(_)) => NOT_YET,
            Err(_) => kept.refresh.max(RETRY),
        };
        kept.due = Instant::now() + pause;
        kept.tell(&result);
        self.board.change(at, |shown| shown.update(result, took));
        more
    }
}

impl Kept {
    fn tell(&mut self, result: &Result<Refreshed, Unanswered>) {
        let name = self.model.name();
        match result {
            Ok(refreshed) => {
                if self.told.take().is_some() {
                    info!(table = %name, "made again");
                }
                debug!(table = %name, days = refreshed.days, rows = refreshed.rows, "refreshed");
            }
            Err(Unanswered::NotYet(_)) => {}
            Err(failure) => {
                let text = failure.to_string();
                if self.told.as_ref() != Some(&text) {
                    warn!(table = %name, "make the Gold table: {text}; it is tried again, and nothing waits for it");
                    self.told = Some(text);
                }
            }
        }
    }
}

impl Shown {
    fn update(&mut self, result: Result<Refreshed, Unanswered>, took: Duration) {
        match result {
            Ok(refreshed) => {
                self.state = if refreshed.pending > 0 { "catching up" } else { "up to date" };
                self.reason = (refreshed.pending > 0).then(|| format!("{} days to go", refreshed.pending));
                self.refreshed_at_ms = Some(clock::now_ms());
                if let Some(version) = refreshed.committed {
                    self.version = Some(version);
                    self.commits += 1;
                    (self.rows, self.days) = (refreshed.rows, refreshed.days);
                    self.took_ms = took.as_millis() as u64;
                }
            }
            Err(Unanswered::NotYet(name)) => {
                self.state = "waiting";
                self.reason = Some(format!("nothing was written yet to {name}"));
            }
            Err(Unanswered::Failed(failure)) => {
                self.state = "failing";
                self.reason = Some(format!("{failure:#}"));
            }
        }
    }
}
