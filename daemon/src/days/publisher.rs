//! Publishes which days are final, and which are not any more.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use silverd_core::config::Pipeline;
use silverd_core::days::DayState;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::decide::{Due, decide, of_one_publication};
use super::facts::{Facts, ReadFrom, read_from};
use super::status::{DaysStatus, LastFinalDay};
use super::table_log::TableLog;
use crate::day_status::{DayLedger, DayUpdate};
use crate::delta::format_day;
use crate::gold::dependents;
use crate::pipeline::status::RunState;
use crate::runtime::causes;
use crate::runtime::log_once::LogOnce;

/// Between two looks at the facts.
const INTERVAL: Duration = Duration::from_secs(1);
/// Other reasons are published no sooner than this after the last publication.
const REASONS_INTERVAL: Duration = Duration::from_secs(5);
/// The same for figures of days that are not final.
const FIGURES_INTERVAL: Duration = Duration::from_secs(60);
/// How long commits to days that are over may delay that days are finalized; the next round tries it again.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
/// Days that become final in one commit. Commits to days that are over wait for it.
const DAYS_MAX: usize = 100;

/// Looks at the facts until it is stopped.
pub(crate) struct DayPublisher {
    ledger: Arc<DayLedger>,
    facts: Facts,
    /// `None` before the first round.
    read_from: Option<ReadFrom>,
    status: Arc<DaysStatus>,
    published_at: Option<Instant>,
    figures_at: Option<Instant>,
    last_error: LogOnce,
}

impl DayPublisher {
    pub(crate) fn new(
        pipeline: &Pipeline,
        base_dir: &Path,
        ledger: Arc<DayLedger>,
        run_state: watch::Receiver<RunState>,
        status: Arc<DaysStatus>,
    ) -> Self {
        ledger.set(base_dir.join(&*pipeline.days.path), dependents(pipeline));
        let facts = Facts::new(pipeline, base_dir, run_state);
        let last_error = LogOnce::default();
        Self { ledger, facts, read_from: None, status, published_at: None, figures_at: None, last_error }
    }

    /// Runs until `stop`, and looks once more then.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
            self.round_logged().await;
        }
        self.round_logged().await;
    }

    async fn round_logged(&mut self) {
        match self.round().await {
            Ok(()) if self.last_error.clear() => info!("gold.day_status is up to date again"),
            Ok(()) => {}
            Err(failure) => {
                let text = causes(&failure);
                if self.last_error.is_new(&text) {
                    warn!("find out which days are final: {text}; silverd tries again. No day becomes final meanwhile");
                }
            }
        }
    }

    async fn round(&mut self) -> anyhow::Result<()> {
        let from = match self.read_from.take() {
            Some(from) => from,
            None => self.ledger.newest(read_from).await?,
        };
        let read = self.facts.read(&self.ledger, &from).await;
        self.read_from = Some(from);
        read?;
        let is_due = |at: Option<Instant>, interval| at.is_none_or(|at| at.elapsed() >= interval);
        let due = Due {
            reasons: is_due(self.published_at, REASONS_INTERVAL),
            figures: is_due(self.figures_at, FIGURES_INTERVAL),
        };
        let updates = self.decide(due).await?;
        let published = if updates.iter().any(|update| update.state == DayState::Final) {
            self.finalize(updates, due).await?
        } else {
            self.ledger.publish(&updates, None).await?
        };
        if published > 0 {
            self.published_at = Some(Instant::now());
        }
        if due.figures {
            self.figures_at = Some(Instant::now());
        }
        self.note_published().await
    }

    async fn decide(&self, due: Due) -> anyhow::Result<Vec<DayUpdate>> {
        let facts = &self.facts;
        let updates = self.ledger.newest(|rows| decide(facts, rows, due)).await?;
        Ok(of_one_publication(updates, DAYS_MAX))
    }

    /// Decides again while no commit to a day that is over is under way.
    async fn finalize(&mut self, updates: Vec<DayUpdate>, due: Due) -> anyhow::Result<usize> {
        let Some(lock) = self.ledger.lock(LOCK_TIMEOUT).await? else {
            return self.ledger.publish(&updates, None).await;
        };
        self.facts.read(&self.ledger, &ReadFrom::new()).await?;
        let updates = self.decide(due).await?;
        self.ledger.publish(&updates, Some(&lock)).await
    }

    /// What is published counts as late events no more, and is shown.
    async fn note_published(&mut self) -> anyhow::Result<()> {
        // There may be hundreds of tables with years of days.
        let logs: HashMap<&str, &TableLog> =
            self.facts.silver.iter().map(|table| (table.name.as_str(), &table.log)).collect();
        let noted = self.ledger.newest(|rows| {
            let (mut counted, mut last_final) = (Vec::new(), BTreeMap::<&str, i32>::new());
            for row in rows {
                let is_counted = || logs.get(row.table.as_str()).is_some_and(|log| log.has_uncounted(row.day));
                if row.first_final_at.is_some() && is_counted() {
                    counted.push((row.table.clone(), row.day, row.commit_version));
                }
                if row.state == DayState::Final {
                    let last = last_final.entry(&row.table).or_insert(row.day);
                    *last = (*last).max(row.day);
                }
            }
            let last_final = last_final.into_iter().map(|(table, day)| (table.to_owned(), day));
            (counted, last_final.collect::<Vec<_>>())
        });
        let (counted, last_final) = noted.await?;
        let shown = last_final.into_iter().filter_map(|(table, day)| {
            let ended_at_ms = self.facts.zone_of(&table)?.end_of_day(day) / 1_000;
            Some(LastFinalDay { table, event_date: format_day(day), ended_at_ms })
        });
        self.status.set(shown.collect());
        for table in &mut self.facts.silver {
            let version_of = |day: i32| {
                let of_day = counted.iter().find(|(name, of, _)| *name == table.name && *of == day);
                of_day.map(|(_, _, version)| version.unwrap_or(0).unsigned_abs())
            };
            table.log.forget_counted(version_of);
        }
        Ok(())
    }
}
