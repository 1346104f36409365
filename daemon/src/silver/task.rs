//! The worker's task: one turn after the other, each of which leaves the table right.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use futures::FutureExt;
use serde_json::json;
use silverd_core::breaker::Breaker;
use silverd_core::chunk::Chunk;
use silverd_core::config::SilverTable;
use silverd_core::offsets::{Ranges, advance, missing};
use silverd_core::route::Router;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info};

use super::open::Open;
use super::swap::{Arriving, RolledBack, Trial};
use super::table::by_day;
use super::{Landing, Offer, Shared, StateOf};
use crate::bronze::ranges_json;
use crate::delta::{Change, CommitError, NewFile};
use crate::reload::Desk;
use crate::replay::Replay;
use crate::side::{self, Announced};
use crate::spans;
use crate::telemetry::{Stage, TableStats, thread_cpu};
use crate::transform::{Plugin, Tripped, Verdicts};
use crate::{clock, late, quarantine};

const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// How often a table that fails is tried again once the flow is over.
const LAST_TRIES_MAX: u32 = 2;
/// Progress over events of other tables alone is committed this seldom; after a crash it is found again from Bronze.
const IDLE_COMMIT_INTERVAL: Duration = Duration::from_secs(30);

pub(super) struct Task {
    pub(super) config: SilverTable,
    /// Finds the records that are this table's, where they are read from Bronze.
    pub(super) router: Router,
    pub(super) shared: Shared,
    /// Where new versions of the plugin lie.
    pub(super) desk: Arc<Desk>,
    pub(super) offers: mpsc::Receiver<Offer>,
    pub(super) stats: Arc<TableStats>,
    pub(super) state: StateOf,
    /// The table follows the live flow, and is worth a wait.
    pub(super) keeps_up: Arc<AtomicBool>,
    pub(super) hurry: CancellationToken,
    /// Loaded once: what lies on the disk later comes by the desk.
    pub(super) plugin: Option<Arc<Plugin>>,
    /// While a new version is not trusted yet.
    pub(super) trial: Option<Trial>,
    pub(super) arriving: Option<Arriving>,
    pub(super) open: Option<Open>,
    /// What is remembered of the plugin's faults, over openings.
    pub(super) breaker: Breaker,
    /// The last failure that was logged, so that one that stays is told once.
    pub(super) told: Option<String>,
}

/// The rows were judged as if those of this chunk were in the table, and they are not.
#[derive(Debug, thiserror::Error)]
#[error("the chunk is not in bronze: another silverd writes its partitions")]
struct Undone;

enum Step {
    Go,
    Finished,
}

impl Task {
    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        let (mut pause, mut last_tries) = (RETRY_FIRST, 0);
        loop {
            let step = AssertUnwindSafe(self.step()).catch_unwind().await;
            match step.unwrap_or_else(|_| Err(anyhow!("the worker panicked; please report this"))) {
                Ok(Step::Go) => pause = RETRY_FIRST,
                Ok(Step::Finished) => return Ok(()),
                Err(failure) if failure.is::<RolledBack>() => {
                    if let Some(failure) = failure.downcast_ref() {
                        let span = spans::plugin_rollback(&self.config.name);
                        self.roll_back(failure).instrument(span).await;
                    }
                }
                Err(failure) => {
                    self.open = None;
                    self.keeps_up.store(false, Relaxed);
                    let tripped = failure.is::<Tripped>();
                    last_tries += u32::from(self.offers.is_closed());
                    if last_tries > LAST_TRIES_MAX || self.hurry.is_cancelled() || (tripped && self.offers.is_closed())
                    {
                        return Err(failure);
                    }
                    if tripped {
                        self.pause_table(&failure).await;
                        continue;
                    }
                    self.tell(&failure, pause);
                    let (hurry, desk) = (self.hurry.clone(), self.desk.clone());
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = hurry.cancelled() => {}
                        () = desk.filled() => {}
                        () = self.let_offers_go() => {}
                    }
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
    }

    /// While the table cannot be written, nothing may wait for it in memory. Ends when the flow does.
    async fn let_offers_go(&mut self) {
        while self.offers.recv().await.is_some() {}
        // The flow is over: what is left to do is bounded by the hurry.
        std::future::pending::<()>().await;
    }

    /// The plugin fails on everything: waits for another version of it, or for the backoff to pass.
    async fn pause_table(&mut self, failure: &anyhow::Error) {
        let now = clock::now_ms().unsigned_abs();
        let pause = Duration::from_millis(self.breaker.open(now).saturating_sub(now));
        let reason = format!("{failure:#}");
        let (table, seconds) = (&self.config.name, pause.as_secs());
        error!(%table, "{reason}. The table is paused, bronze goes on; trying again in {seconds} s, or when the plugin changes");
        self.state.set(format!("paused for {seconds} s: {}", reason.lines().next().unwrap_or_default()));
        self.told = Some(reason);
        let (hurry, desk) = (self.hurry.clone(), self.desk.clone());
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = desk.filled() => {}
            () = hurry.cancelled() => {}
            () = async { while self.offers.recv().await.is_some() {} } => {} // the flow is over: once more, and no more
        }
    }

    fn tell(&mut self, failure: &anyhow::Error, pause: Duration) {
        if let Some(CommitError::Fenced { version, .. }) = failure.downcast_ref() {
            info!(table = %self.config.name, version, "another silverd has written these offsets; going on behind it");
            return;
        }
        if let Some(CommitError::Overtaken(version)) = failure.downcast_ref() {
            info!(table = %self.config.name, version, "another writer has added rows: looking for duplicates anew");
            return;
        }
        if failure.is::<Undone>() {
            info!(table = %self.config.name, "another silverd writes these partitions; looking for duplicates anew");
            return;
        }
        let text = format!("{failure:#}");
        self.state.set(format!("waiting: {}", text.lines().next().unwrap_or_default()));
        if self.told.as_ref() != Some(&text) {
            error!(table = %self.config.name, "{text}; bronze goes on, and this table is tried again every {} s at most", RETRY_MAX.as_secs());
            self.told = Some(text);
        } else {
            tracing::debug!(table = %self.config.name, "{text}; next try in {pause:?}");
        }
    }

    /// One turn: a live chunk, a window from Bronze, or a wait for either.
    async fn step(&mut self) -> anyhow::Result<Step> {
        self.take_version();
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.open_up().await?,
        };
        let step = match self.offers.try_recv() {
            Ok(offer) => self.live(&mut open, offer).await.map(|()| Step::Go),
            Err(mpsc::error::TryRecvError::Disconnected) => self.wind_up(&mut open).await,
            Err(mpsc::error::TryRecvError::Empty) if self.behind(&open) => {
                let span = spans::silver_turn(None, &self.config.name);
                spans::tell(span, self.catch_up(&mut open)).await.map(|()| Step::Go)
            }
            Err(mpsc::error::TryRecvError::Empty) => self.wait(&mut open).await.map(|()| Step::Go),
        }?;
        self.update_lag(&open);
        self.open = Some(open);
        Ok(step)
    }

    async fn wait(&mut self, open: &mut Open) -> anyhow::Result<()> {
        self.state.set("live");
        self.keeps_up.store(true, Relaxed);
        let desk = self.desk.clone();
        let idle = IDLE_COMMIT_INTERVAL.saturating_sub(open.committed_at.elapsed());
        tokio::select! {
            biased;
            offer = self.offers.recv() => match offer {
                Some(offer) => self.live(open, offer).await,
                None => Ok(()),
            },
            _ = self.shared.head.changed() => Ok(()),
            () = desk.filled() => Ok(()),
            () = tokio::time::sleep(idle) => {
                open.committed_at = Instant::now();
                self.commit(open, Vec::new(), Vec::new(), &Verdicts::default()).await
            }
        }
    }

    /// The flow has ended: comes to Bronze's end, unless time runs out.
    async fn wind_up(&mut self, open: &mut Open) -> anyhow::Result<Step> {
        if self.behind(open) && !self.hurry.is_cancelled() {
            self.catch_up(open).await?;
            return Ok(Step::Go);
        }
        self.commit(open, Vec::new(), Vec::new(), &Verdicts::default()).await?;
        self.state.set("ended");
        Ok(Step::Finished)
    }

    fn behind(&self, open: &Open) -> bool {
        !missing(&open.next, &self.shared.head.borrow()).is_empty()
    }

    fn update_lag(&self, open: &Open) {
        let lag: i64 =
            missing(&open.next, &self.shared.head.borrow()).iter().map(|(_, range)| range.end - range.start).sum();
        self.stats.lag.store(lag, Relaxed);
    }

    async fn live(&mut self, open: &mut Open, offer: Offer) -> anyhow::Result<()> {
        let (take, gap) = offer.chunk.ranges.against(&open.next);
        if !gap.is_empty() || take.is_empty() {
            return Ok(());
        }
        open.replay = None;
        let span = spans::silver_turn(Some(&offer.span), &self.config.name);
        if take == offer.chunk.ranges {
            return spans::tell(span, self.process(open, &offer.chunk, &offer.records, offer.landing)).await;
        }
        let part = offer.chunk.select(&take);
        let records = self.route(&part);
        spans::tell(span, self.process(open, &part, &records, offer.landing)).await
    }

    /// Reads the next window of what is missing from Bronze.
    async fn catch_up(&mut self, open: &mut Open) -> anyhow::Result<()> {
        self.state.set("catching up from bronze");
        self.keeps_up.store(false, Relaxed);
        let mut replay = match open.replay.take() {
            Some(replay) => replay,
            None => {
                let missing = missing(&open.next, &self.shared.head.borrow());
                Replay::plan(self.shared.bronze.clone(), &missing, self.shared.rows_max, self.shared.bytes_max).await?
            }
        };
        let read = replay.next().instrument(spans::bronze_read());
        let next = self.shared.stages.time(Stage::BronzeRead, read).await?;
        let Some(chunk) = next else { return Ok(()) };
        let records = self.route(&chunk);
        let (_, landed) = watch::channel(Landing::Landed);
        open.passed = false;
        self.process(open, &chunk, &records, landed).await?;
        open.replay = (!open.passed).then_some(replay);
        Ok(())
    }

    /// The records of a chunk that are this table's.
    fn route(&self, chunk: &Chunk) -> Vec<u32> {
        self.shared.stages.measure(Stage::Route, || {
            let mut routes = self.router.route(chunk.values().iter());
            routes.tables.pop().unwrap_or_default()
        })
    }

    async fn process(
        &mut self,
        open: &mut Open,
        chunk: &Chunk,
        records: &[u32],
        mut landing: watch::Receiver<Landing>,
    ) -> anyhow::Result<()> {
        // A guest's WASI may wait, which the runtime allows only in here.
        let verdicts = tokio::task::block_in_place(|| {
            let stats = self.stats.clone();
            let before = thread_cpu();
            let span = spans::transform(open.transformer.plugin().digest.as_str(), records.len());
            let verdicts = stats.plugin_time(|| span.in_scope(|| self.judge(open, chunk, records)));
            let lift = verdicts.as_ref().map_or(Duration::ZERO, |verdicts| verdicts.lift);
            self.shared.stages.add(Stage::Lift, lift);
            self.shared.stages.add(Stage::Plugin, thread_cpu().saturating_sub(before + lift));
            verdicts
        });
        let mut verdicts = verdicts?;
        if let Some(dedup) = &mut open.dedup {
            dedup.look_up(&verdicts.rows).await?;
            self.shared.stages.measure(Stage::Dedup, || dedup.judge(&mut verdicts))?;
        }
        let late = late::find(&self.config, &mut verdicts)?;
        let encoder = open.encoder.clone();
        let files = self.shared.stages.measure(Stage::SilverEncode, || {
            let _span = spans::encode().entered();
            let days = by_day(&verdicts.rows, &self.config.event_date)?;
            days.iter().map(|(day, rows)| encoder.encode(*day, rows)).collect::<anyhow::Result<Vec<_>>>()
        })?;
        // Silver never runs ahead of Bronze: what Bronze has not got may never be read again.
        let landed = landing.wait_for(|landing| *landing != Landing::Pending).await;
        if landed.map_or(true, |landing| *landing == Landing::Abandoned) {
            anyhow::ensure!(open.dedup.is_none(), Undone);
            return Ok(());
        }
        let mut put = Vec::with_capacity(files.len());
        for (file, bytes) in files {
            file.put(&open.table.store(), bytes).await?;
            put.push(file);
        }
        let mut announced = Vec::new();
        if !verdicts.rejected.is_empty() {
            let digest = &open.transformer.plugin().digest;
            let rows = quarantine::rows(&self.config.name, digest, chunk, &verdicts.rejected)?;
            announced.push(self.shared.quarantine.put(rows).await.context("write rejects")?);
        }
        if let (Some(rows), Some(side)) = (late, &self.shared.late) {
            announced.push(side.put(rows).await.context("write the list of late events")?);
        }
        advance(&mut open.next, &chunk.ranges.ends());
        if verdicts.counts.events == 0 {
            return Ok(());
        }
        self.commit(open, put, announced, &verdicts).await
    }

    /// Commits rows, counts and all progress since the last commit. What goes to the side tables is announced in the same
    /// commit, and committed there afterwards; after a crash between the two, `open_up` finds it.
    async fn commit(
        &mut self,
        open: &mut Open,
        adds: Vec<NewFile>,
        announced: Vec<Announced>,
        verdicts: &Verdicts,
    ) -> anyhow::Result<()> {
        let ranges: Ranges = missing(&open.table.offsets(), &open.next);
        if ranges.is_empty() {
            anyhow::ensure!(adds.is_empty() && announced.is_empty(), "there are rows without progress");
            return Ok(());
        }
        let begun = Instant::now();
        let mut progress: Vec<_> = ranges.ends().iter().map(|(log, next)| (log.app_id(), *next)).collect();
        let plugin = open.transformer.plugin();
        let mut info = json!({
            "ranges": ranges_json(&ranges),
            "counts": verdicts.counts,
            "plugin": { "interface": plugin.schema.interface, "digest": plugin.digest.as_str(), "given": plugin.given.as_str() },
        });
        let announced = side::announce(announced, &open.table, &mut progress, &mut info)?;
        let (count, bytes) = (adds.len(), adds.iter().map(NewFile::size).sum());
        let decided_by_rows = open.dedup.is_some();
        let change = Change { adds, progress, info, decided_by_rows, ..Change::default() };
        let committing = spans::tell(spans::commit(), open.table.commit(change));
        let committed = self.shared.stages.time(Stage::Commit, committing).await.map_err(anyhow::Error::new)?;
        open.committed_at = Instant::now();
        self.stats.judged(&verdicts.counts);
        let rows = verdicts.counts.rows as usize;
        self.stats.committed(committed.version, rows, count, bytes, begun.elapsed());
        self.shared.fresh.push(&self.config.name, &verdicts.rows, &self.stats);
        self.has_committed(&ranges, rows);
        side::follow(announced, &open.table).await?;
        if !missing(&open.next, &open.table.offsets()).is_empty() {
            // Another silverd has made progress that was passed on the way; what was planned before it is void.
            advance(&mut open.next, &open.table.offsets());
            open.replay = None;
            open.passed = true;
        }
        Ok(())
    }
}
