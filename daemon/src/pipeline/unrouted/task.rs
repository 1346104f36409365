//! The writer's task: it quarantines the unrouted events of one chunk after the other. Like the worker of a Silver table
//! it takes chunks that follow on, and reads what it missed from Bronze.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use deltalake_core::logstore::LogStoreRef;
use serde_json::json;
use silverd_core::chunk::Chunk;
use silverd_core::offsets::{LogPartition, Offsets, Ranges, advance, missing};
use silverd_core::unrouted::{NO_TABLE, UnroutedEvents, progress_id};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::routing::Routing;
use super::switch::{Quarantined, switch_off};
use super::writer::UnroutedChunk;
use crate::bronze::ranges_json;
use crate::bronze::replay::Replay;
use crate::runtime::causes;
use crate::runtime::log_once::LogOnce;
use crate::silver::BronzeCommit;
use crate::tables::quarantine;
use crate::tables::side_output::{Moved, SideOutput};
use crate::telemetry::{Stage, Stages};

/// Progress without events is committed this seldom; after a crash it is found again in Bronze.
const IDLE_COMMIT_INTERVAL: Duration = Duration::from_secs(30);
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// How often a step that fails is tried again after the pipeline has stopped.
const RETRIES_AFTER_STOP_MAX: u32 = 2;

pub(super) struct UnroutedTask {
    pub(super) quarantine: Arc<SideOutput>,
    pub(super) bronze: LogStoreRef,
    /// Up to where Bronze has committed each log partition.
    pub(super) committed_offsets: watch::Receiver<Offsets>,
    pub(super) routing: watch::Receiver<Arc<Routing>>,
    pub(super) chunks: mpsc::Receiver<UnroutedChunk>,
    pub(super) shutdown_now: CancellationToken,
    /// Quarantine the events up to these offsets, and then switch off.
    pub(super) until: Option<Offsets>,
    pub(super) rows_max: usize,
    pub(super) bytes_max: usize,
    pub(super) stages: Arc<Stages>,
}

/// How far the quarantine is, since it was read last.
struct Progress {
    /// The next offsets that it says it has.
    committed: Offsets,
    /// The next offsets, with those of chunks without unrouted events.
    next: Offsets,
    /// What the events between the two were routed by.
    routing: Arc<Routing>,
    committed_at: Instant,
    replay: Option<Replay>,
}

enum Step {
    Continue,
    /// Another daemon has committed: read the quarantine again.
    OtherWriter,
    Finished,
}

impl UnroutedTask {
    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        let (mut progress, mut pause, mut retries_after_stop) = (None, RETRY_FIRST, 0);
        let mut last_error = LogOnce::default();
        loop {
            let failure = match self.step(&mut progress).await {
                Ok(Step::Continue) => {
                    if last_error.clear() {
                        info!("unrouted events can be quarantined again");
                    }
                    pause = RETRY_FIRST;
                    continue;
                }
                Ok(Step::OtherWriter) => {
                    progress = None;
                    continue;
                }
                Ok(Step::Finished) => return Ok(()),
                Err(failure) => failure,
            };
            progress = None;
            let has_stopped = self.until.is_none() && self.chunks.is_closed();
            retries_after_stop += u32::from(has_stopped);
            if retries_after_stop > RETRIES_AFTER_STOP_MAX || self.shutdown_now.is_cancelled() {
                return Err(failure);
            }
            let reason = causes(&failure);
            if last_error.is_new(&reason) {
                let seconds = RETRY_MAX.as_secs();
                error!(
                    "quarantine unrouted events: {reason}. Retrying at least every {seconds} s; bronze is still written"
                );
            }
            self.wait_to_retry(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// No chunk stays in memory meanwhile.
    async fn wait_to_retry(&mut self, pause: Duration) {
        let shutdown_now = self.shutdown_now.clone();
        let discard_chunks = async {
            while self.chunks.recv().await.is_some() {}
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown_now.cancelled() => {}
            () = discard_chunks => {}
        }
    }

    async fn step(&mut self, kept: &mut Option<Progress>) -> anyhow::Result<Step> {
        let mut progress = match kept.take() {
            Some(progress) => progress,
            None => self.read_progress().await?,
        };
        let step = match self.chunks.try_recv() {
            Ok(chunk) => self.write_live(&mut progress, chunk).await,
            Err(mpsc::error::TryRecvError::Disconnected) => self.finish(&mut progress).await,
            Err(mpsc::error::TryRecvError::Empty) if !self.missing(&progress).is_empty() => {
                self.catch_up(&mut progress).await
            }
            Err(mpsc::error::TryRecvError::Empty) => self.wait(&mut progress).await,
        }?;
        *kept = Some(progress);
        Ok(step)
    }

    async fn read_progress(&mut self) -> anyhow::Result<Progress> {
        let Quarantined { next, .. } = Quarantined::read(&self.quarantine).await.context("read the quarantine")?;
        let routing = self.routing.borrow_and_update().clone();
        Ok(Progress { committed: next.clone(), next, routing, committed_at: Instant::now(), replay: None })
    }

    async fn wait(&mut self, progress: &mut Progress) -> anyhow::Result<Step> {
        let idle = IDLE_COMMIT_INTERVAL.saturating_sub(progress.committed_at.elapsed());
        tokio::select! {
            biased;
            chunk = self.chunks.recv() => match chunk {
                Some(chunk) => self.write_live(progress, chunk).await,
                None => Ok(Step::Continue),
            },
            Ok(()) = self.committed_offsets.changed() => Ok(Step::Continue),
            () = tokio::time::sleep(idle) => self.commit(progress, None).await,
        }
    }

    /// The pipeline has stopped, or it is switched off: reads Bronze to its end, unless `shutdown_now` says to end.
    async fn finish(&mut self, progress: &mut Progress) -> anyhow::Result<Step> {
        if !self.missing(progress).is_empty() && !self.shutdown_now.is_cancelled() {
            return self.catch_up(progress).await;
        }
        let step = self.commit(progress, None).await?;
        if matches!(step, Step::OtherWriter) {
            return Ok(step);
        }
        if self.until.is_some() && self.missing(progress).is_empty() {
            switch_off(&self.quarantine).await?;
            info!("[quarantine] unrouted = \"count\": unrouted events are no longer quarantined");
        }
        Ok(Step::Finished)
    }

    /// What Bronze has and the quarantine does not.
    fn missing(&self, progress: &Progress) -> Ranges {
        match &self.until {
            Some(until) => missing(&progress.next, until),
            None => missing(&progress.next, &self.committed_offsets.borrow()),
        }
    }

    /// Quarantines the events of a chunk from Kafka. One that leaves a gap is skipped: it is read from Bronze.
    async fn write_live(&mut self, progress: &mut Progress, live: UnroutedChunk) -> anyhow::Result<Step> {
        let UnroutedChunk { chunk, events, routing, mut bronze_commit } = live;
        let (new, gap) = chunk.ranges.new_and_gap(&progress.next);
        if !gap.is_empty() || new.is_empty() {
            return Ok(Step::Continue);
        }
        // The quarantine never runs ahead of Bronze.
        let committed = tokio::select! {
            decided = bronze_commit.wait_for(|commit| *commit != BronzeCommit::Pending) => {
                decided.is_ok_and(|commit| *commit == BronzeCommit::Committed)
            }
            () = self.shutdown_now.cancelled() => false,
        };
        if !committed {
            return Ok(Step::Continue);
        }
        progress.replay = None;
        if new == chunk.ranges {
            return self.write(progress, &routing, &chunk, &events).await;
        }
        let part = chunk.select(&new);
        let events = self.route(&routing, &part);
        self.write(progress, &routing, &part, &events).await
    }

    /// Quarantines the events of the next window of what is missing, read from Bronze.
    async fn catch_up(&mut self, progress: &mut Progress) -> anyhow::Result<Step> {
        let mut replay = match progress.replay.take() {
            Some(replay) => replay,
            None => Replay::plan(self.bronze.clone(), &self.missing(progress), self.rows_max, self.bytes_max).await?,
        };
        let read = self.stages.time(Stage::BronzeRead, replay.next());
        let Some(chunk) = read.await.context("read bronze")? else { return Ok(Step::Continue) };
        let routing = self.routing.borrow_and_update().clone();
        let events = self.route(&routing, &chunk);
        let step = self.write(progress, &routing, &chunk, &events).await?;
        progress.replay = Some(replay);
        Ok(step)
    }

    fn route(&self, routing: &Routing, chunk: &Chunk) -> UnroutedEvents {
        self.stages.measure(Stage::Route, || routing.router.route(chunk).unrouted)
    }

    /// Commits the events of a chunk, if there are any.
    async fn write(
        &self,
        progress: &mut Progress,
        routing: &Arc<Routing>,
        chunk: &Chunk,
        events: &UnroutedEvents,
    ) -> anyhow::Result<Step> {
        if progress.routing.id != routing.id {
            // A commit is by one routing.
            let step = self.commit(progress, None).await?;
            if matches!(step, Step::OtherWriter) {
                return Ok(step);
            }
            progress.routing = routing.clone();
        }
        advance(&mut progress.next, &chunk.ranges.ends());
        match events.total() {
            0 => Ok(Step::Continue),
            _ => self.commit(progress, Some((chunk, events))).await,
        }
    }

    /// Commits all progress since the last commit, with the rows of these events.
    async fn commit(&self, progress: &mut Progress, events: Option<(&Chunk, &UnroutedEvents)>) -> anyhow::Result<Step> {
        progress.committed_at = Instant::now();
        let ranges = missing(&progress.committed, &progress.next);
        if ranges.is_empty() {
            return Ok(Step::Continue);
        }
        let rows = match events {
            Some((chunk, events)) => Some(quarantine::unrouted_rows(chunk, &events.in_order())?),
            None => None,
        };
        let info = json!({
            "table": NO_TABLE,
            "rejected": rows.as_ref().map_or(0, |rows| rows.num_rows()),
            "ranges": ranges_json(&ranges),
            "routing": progress.routing.id,
        });
        let moved = |(log, next): (LogPartition, i64)| Moved {
            id: progress_id(&log),
            before: progress.committed.get(&log).copied(),
            after: next,
        };
        let moved: Vec<_> = ranges.ends().into_iter().map(moved).collect();
        if !self.quarantine.append(rows, &moved, info).await? {
            return Ok(Step::OtherWriter);
        }
        progress.committed = progress.next.clone();
        Ok(Step::Continue)
    }
}
