//! Asks the questions of the page, one at a time, and only while somebody watches: the panels, the newest rejects, and
//! how large the tables are.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use silverd_core::config::{Chart, Panel};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::health::Sizes;
use super::hub::Hub;
use super::rejects;
use crate::clock;
use crate::delta::{Reader, files_of};
use crate::sql::{self, Answer, Cache, Tables, Unanswered};

/// Rows that a panel shows at most.
const ROWS_MAX: usize = 500;
/// A question that takes longer is given up.
const QUESTION_MAX: Duration = Duration::from_secs(20);
/// A question that takes long is asked less often: it may be at work for a fifth of the time.
const REST_FACTOR: u32 = 4;
const REJECTS_INTERVAL: Duration = Duration::from_secs(2);
const SIZES_INTERVAL: Duration = Duration::from_secs(30);
/// How often it looks whether something is due.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// A panel with its newest answer, as the page gets it.
#[derive(Clone, Serialize)]
pub struct Shown {
    pub name: String,
    /// Its place on the page.
    pub place: usize,
    pub title: String,
    pub chart: &'static str,
    pub unit: Option<String>,
    pub width: Option<usize>,
    pub refresh_ms: u64,
    pub sql: String,
    /// `ok`, `waiting` (for a table's first rows) or `failing`.
    pub state: &'static str,
    pub reason: Option<String>,
    #[serde(flatten)]
    pub answer: Answer,
    pub took_ms: u64,
    pub at_ms: i64,
}

pub struct Asker {
    pub hub: Arc<Hub>,
    pub tables: Arc<Tables>,
    pub sizes: Arc<Mutex<Sizes>>,
    cache: Cache,
    panels: Vec<Asked>,
    rejects_due: Instant,
    /// The version of the quarantine that the page knows.
    rejects_known: Option<u64>,
    sizes_due: Instant,
}

struct Asked {
    panel: Panel,
    place: usize,
    due: Instant,
    /// The last failure that was logged, so that one that stays is told once.
    told: Option<String>,
}

impl Asker {
    pub fn new(hub: Arc<Hub>, panels: Vec<Panel>, tables: Arc<Tables>, sizes: Arc<Mutex<Sizes>>) -> Self {
        let now = Instant::now();
        let panels = panels.into_iter().enumerate();
        let panels = panels.map(|(place, panel)| Asked { panel, place, due: now, told: None }).collect();
        let cache = Cache::default();
        Self { hub, tables, sizes, cache, panels, rejects_due: now, rejects_known: None, sizes_due: now }
    }

    pub async fn run(mut self, ended: CancellationToken) {
        loop {
            if !self.hub.is_watched() {
                self.cache = Cache::default(); // nothing is held for nobody
            }
            tokio::select! {
                () = ended.cancelled() => return,
                () = self.hub.watched() => {}
            }
            let turn = async {
                self.ask_what_is_due().await;
                tokio::time::sleep(LOOK_INTERVAL).await;
            };
            tokio::select! { () = ended.cancelled() => return, () = turn => {} }
        }
    }

    async fn ask_what_is_due(&mut self) {
        for at in 0..self.panels.len() {
            if self.panels[at].due <= Instant::now() {
                self.ask(at).await;
            }
        }
        self.look_at_rejects().await;
        self.look_at_sizes().await;
    }

    async fn ask(&mut self, at: usize) {
        let asked = &mut self.panels[at];
        let begun = Instant::now();
        let question = async {
            let frame = sql::plan(&self.tables, &mut self.cache, &asked.panel.sql).await?;
            sql::answer(frame, ROWS_MAX).await
        };
        let result = within(QUESTION_MAX, question).await;
        let took = begun.elapsed();
        asked.due = Instant::now() + Duration::from_millis(asked.panel.refresh_ms).max(took * REST_FACTOR);
        asked.tell(&result);
        self.hub.publish("panel", &asked.panel.name, &asked.shown(result, took));
    }

    /// The quarantine is asked when something came to it, whoever brought it: a replay is another process.
    async fn look_at_rejects(&mut self) {
        if self.rejects_due > Instant::now() {
            return;
        }
        let begun = Instant::now();
        let look = rejects::look(&self.tables, &mut self.cache, self.rejects_known);
        match within(QUESTION_MAX, look).await {
            Ok(Some((version, rejects))) => {
                self.hub.publish("rejects", "", &rejects);
                self.rejects_known = Some(version);
            }
            Ok(None) | Err(Unanswered::NotYet(_)) => {}
            Err(Unanswered::Failed(failure)) => warn!("read the quarantine for the page: {failure:#}"),
        }
        self.rejects_due = Instant::now() + REJECTS_INTERVAL.max(begun.elapsed() * REST_FACTOR);
    }

    async fn look_at_sizes(&mut self) {
        if self.sizes_due > Instant::now() {
            return;
        }
        let begun = Instant::now();
        let mut sizes = Sizes::new();
        for name in self.tables.names() {
            let size = async {
                let reader = Reader::open(self.tables.path(name)?).ok()??;
                let files = files_of(reader.log()).await.ok()?;
                Some((files.len() as u64, files.iter().map(|file| file.size).sum()))
            };
            if let Some(size) = size.await {
                sizes.insert(name.to_owned(), size);
            }
        }
        *self.sizes.lock().unwrap_or_else(PoisonError::into_inner) = sizes;
        self.sizes_due = Instant::now() + SIZES_INTERVAL.max(begun.elapsed() * REST_FACTOR);
    }
}

async fn within<T>(time: Duration, question: impl Future<Output = Result<T, Unanswered>>) -> Result<T, Unanswered> {
    let given_up = |_| Err(anyhow::anyhow!("it took longer than {} s, and was given up", time.as_secs()).into());
    tokio::time::timeout(time, question).await.unwrap_or_else(given_up)
}

impl Asked {
    fn tell(&mut self, result: &Result<Answer, Unanswered>) {
        let name = &self.panel.name;
        match result {
            Ok(_) if self.told.take().is_some() => info!(panel = %name, "answered again"),
            Ok(_) | Err(Unanswered::NotYet(_)) => {}
            Err(failure) => {
                let text = failure.to_string();
                if self.told.as_ref() != Some(&text) {
                    warn!(panel = %name, "ask the question of [panel.{name}]: {text}");
                    self.told = Some(text);
                }
            }
        }
    }

    fn shown(&self, result: Result<Answer, Unanswered>, took: Duration) -> Shown {
        let (state, reason, answer) = match result {
            Ok(answer) => ("ok", None, answer),
            Err(Unanswered::NotYet(name)) => {
                ("waiting", Some(format!("nothing was written yet to {name}")), Answer::default())
            }
            Err(Unanswered::Failed(failure)) => ("failing", Some(format!("{failure:#}")), Answer::default()),
        };
        let panel = &self.panel;
        Shown {
            name: panel.name.clone(),
            place: self.place,
            title: panel.title.clone(),
            chart: chart(panel.chart, &answer),
            unit: panel.unit.clone(),
            width: panel.width,
            refresh_ms: panel.refresh_ms,
            sql: panel.sql.value.clone(),
            state,
            reason,
            answer,
            took_ms: took.as_millis() as u64,
            at_ms: clock::now_ms(),
        }
    }
}

/// The chart's name; where none was chosen, the one that fits the columns.
fn chart(chart: Chart, answer: &Answer) -> &'static str {
    let kinds: Vec<_> = answer.columns.iter().map(|column| column.kind).collect();
    match chart {
        Chart::Number => "number",
        Chart::Line => "line",
        Chart::Bar => "bar",
        Chart::Funnel => "funnel",
        Chart::Table => "table",
        Chart::Ticker => "ticker",
        Chart::Auto => match &kinds[..] {
            ["number"] if answer.rows.len() <= 1 => "number",
            ["time", rest @ ..] if !rest.is_empty() && rest.iter().all(|kind| *kind == "number") => "line",
            ["text", "number"] if answer.rows.len() <= 30 => "bar",
            _ => "table",
        },
    }
}
