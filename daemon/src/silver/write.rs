//! From a chunk to a commit: transform, drop duplicates, encode, wait for Bronze, commit.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::Context;
use bytes::Bytes;
use serde_json::json;
use silverd_core::chunk::Chunk;
use silverd_core::offsets::{advance, missing};
use tokio::sync::watch;

use super::BronzeCommit;
use super::open_table::OpenTable;
use super::step_error::StepError;
use super::worker_task::WorkerTask;
use crate::bronze::ranges_json;
use crate::delta::{Change, NewFile};
use crate::plugin::TransformOutput;
use crate::runtime::machine::block_in_place;
use crate::tables::side_output::{self, Announced};
use crate::tables::silver::RowsByDay;
use crate::tables::{late, quarantine};
use crate::telemetry::{Stage, spans, thread_cpu};

/// Files that are encoded while Bronze writes the chunk. Those of further days are encoded one by one after that, so that
/// rows of many days need no more memory.
const FILES_AHEAD_MAX: usize = 64;

impl WorkerTask {
    /// Writes a chunk's rows, once Bronze has the chunk.
    pub(super) async fn write_chunk(
        &mut self,
        table: &mut OpenTable,
        chunk: &Chunk,
        records: &[u32],
        mut bronze_commit: watch::Receiver<BronzeCommit>,
    ) -> Result<(), StepError> {
        let mut output = self.transform(table, chunk, records)?;
        if let Some(dedup) = &mut table.dedup {
            dedup.load_keys_for(&output.rows).await?;
            self.context.stages.measure(Stage::Dedup, || dedup.drop_duplicates(&mut output))?;
        }
        let late = late::find(&self.config, &mut output)?;
        let by_day = RowsByDay::split(&output.rows, &self.config.event_time, self.config.time_zone)?;
        let days: Vec<i32> = by_day.days().collect();
        let (ahead, later) = days.split_at(days.len().min(FILES_AHEAD_MAX));
        let encode = |day: &i32| self.encode(table, &by_day, *day);
        let encoded: Vec<_> = ahead.iter().map(encode).collect::<anyhow::Result<_>>()?;
        // Silver never runs ahead of Bronze: a chunk that Bronze does not get may never be read again.
        let decided = tokio::select! {
            decided = bronze_commit.wait_for(|commit| *commit != BronzeCommit::Pending) => decided.map(|commit| *commit),
            // Bronze may retry for a long time; another worker takes over the table, and reads the chunk from there.
            () = self.inbox.shutdown_now.cancelled() => return Ok(()),
        };
        if decided.map_or(true, |commit| commit == BronzeCommit::Aborted) {
            return match table.dedup {
                Some(_) => Err(StepError::ChunkNotInBronze),
                None => Ok(()),
            };
        }
        let mut files = Vec::with_capacity(encoded.len() + later.len());
        for (file, bytes) in encoded {
            file.put(&table.table.store(), bytes).await?;
            files.push(file);
        }
        for day in later {
            let (file, bytes) = self.encode(table, &by_day, *day)?;
            file.put(&table.table.store(), bytes).await?;
            files.push(file);
        }
        let mut announced = Vec::new();
        if !output.rejected.is_empty() {
            let digest = &table.transformer.plugin().digest;
            let rows = quarantine::rows(&self.config.name, digest, chunk, &output.rejected)?;
            announced.push(self.context.quarantine.put(rows).await.context("write quarantined events")?);
        }
        if let (Some(rows), Some(side)) = (late, &self.context.late) {
            announced.push(side.put(rows).await.context("write late events")?);
        }
        advance(&mut table.next, &chunk.ranges.ends());
        if output.counts.events > 0 {
            self.commit(table, files, announced, &output).await?;
        }
        self.report.progress.processed(&chunk.ranges.ends(), &chunk.last_timestamps());
        Ok(())
    }

    /// Runs the plugin on this thread. A guest's WASI may wait, which the runtime allows only there.
    fn transform(
        &mut self,
        table: &mut OpenTable,
        chunk: &Chunk,
        records: &[u32],
    ) -> Result<TransformOutput, StepError> {
        block_in_place(|| {
            let before = thread_cpu();
            let span = spans::transform(table.transformer.plugin().digest.as_str(), records.len());
            let output = span.in_scope(|| self.transform_checked(table, chunk, records));
            let took = |output: &TransformOutput| (output.decode, output.lift, output.other_threads);
            let (decode, lift, other_threads) = output.as_ref().map_or_else(|_| <_>::default(), took);
            let cpu = thread_cpu().saturating_sub(before) + other_threads;
            self.report.stats.plugin_took(cpu);
            self.context.stages.add(Stage::Decode, decode);
            self.context.stages.add(Stage::Lift, lift);
            self.context.stages.add(Stage::Plugin, cpu.saturating_sub(decode + lift));
            output
        })
    }

    /// The Parquet file of one day of the rows.
    fn encode(&self, table: &OpenTable, by_day: &RowsByDay<'_>, day: i32) -> anyhow::Result<(NewFile, Bytes)> {
        self.context.stages.measure(Stage::SilverEncode, || {
            let _span = spans::encode().entered();
            table.encoder.encode(day, &by_day.rows(day)?)
        })
    }

    /// Commits rows, counts and all progress since the last commit. Side outputs are announced in the same commit and
    /// published after it; after a crash between the two, `open_table` publishes them.
    pub(super) async fn commit(
        &mut self,
        table: &mut OpenTable,
        adds: Vec<NewFile>,
        announced: Vec<Announced>,
        output: &TransformOutput,
    ) -> Result<(), StepError> {
        let ranges = missing(&table.table.offsets(), &table.next);
        if ranges.is_empty() {
            return match adds.is_empty() && announced.is_empty() {
                true => Ok(()),
                false => Err(StepError::Failed(anyhow::anyhow!("there are rows without progress"))),
            };
        }
        let begun = Instant::now();
        let mut progress: Vec<_> = ranges.ends().iter().map(|(log, next)| (log.app_id(), *next)).collect();
        let plugin = table.transformer.plugin();
        let mut info = json!({
            "ranges": ranges_json(&ranges),
            "counts": output.counts,
            "plugin": plugin.commit_info(),
        });
        let announced = side_output::announce(announced, &table.table, &mut progress, &mut info)?;
        let (count, bytes) = (adds.len(), adds.iter().map(NewFile::size).sum());
        let decided_by_rows = table.dedup.is_some();
        // Until it is dropped, no day of these rows is called final.
        let mut hold = match &self.context.days {
            Some(ledger) => {
                let days: BTreeSet<i32> = adds.iter().filter_map(NewFile::day).collect();
                ledger.hold_past(&self.config.name, self.config.time_zone, &days).await?
            }
            None => None,
        };
        let change = Change { adds, progress, info, decided_by_rows, ..Change::default() };
        let commit = spans::record(spans::commit(), table.table.commit(change));
        let commit = self.context.stages.time(Stage::Commit, commit);
        let committed = match &mut hold {
            Some(hold) => hold.commit(commit).await?,
            None => commit.await?,
        };
        table.committed_at = Instant::now();
        self.report.stats.count_outcomes(&output.counts);
        let rows = output.counts.rows as usize;
        self.report.stats.committed(committed.version, rows, count, bytes, begun.elapsed());
        self.context.recent_rows.push(&self.config.name, &output.rows, &self.report.stats);
        self.plugin.committed(&self.config.name, &ranges, rows);
        side_output::publish(announced, &table.table).await?;
        if !missing(&table.next, &table.table.offsets()).is_empty() {
            // Another silverd has committed offsets beyond ours: the planned replay is out of date.
            advance(&mut table.next, &table.table.offsets());
            table.replay = None;
            table.overtook_replay = true;
        }
        Ok(())
    }
}
