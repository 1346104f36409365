//! The comparison of one table: derives the expected rows with the table's plugins, and reads the rows that the table
//! has.

use anyhow::Context;
use arrow::array::{AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{filter_record_batch, take_record_batch};
use arrow::datatypes::TimestampMicrosecondType;
use deltalake_core::logstore::LogStoreRef;
use futures::TryStreamExt;
use silverd_core::chunk::Chunk;
use silverd_core::config::SilverTable;
use silverd_core::offsets::{LogPartition, OffsetRange, Ranges};
use silverd_core::route::Router;
use silverd_core::verify::{NotComparedReason, Problem, Replay, SilverVerifier, Verifier, Writer};
use silverd_core::zone::Zone;

use super::blocks::{Block, BlockFingerprints, Row, RowDiff, RowSet};
use super::plugins::Plugins;
use crate::delta::{list_files_at, read_columns};
use crate::tables::dedup::Dedup;
use crate::tables::event_set::{Coordinates, EventSet, RECORD_COORDINATES, ROW_COORDINATES};
use crate::verify::fingerprint::RowFingerprinter;
use crate::verify::rejects::Rejects;
use crate::verify::verified::Compared;

pub(super) struct Comparison<'c> {
    pub(super) config: &'c SilverTable,
    /// That of the table's days, whatever pipeline.toml says now.
    pub(super) zone: Zone,
    /// The index of the table in the router.
    pub(super) index: usize,
    pub(super) router: Router,
    pub(super) bronze: LogStoreRef,
    pub(super) verifier: &'c SilverVerifier,
    pub(super) plugins: Plugins,
    pub(super) fingerprinter: RowFingerprinter,
    /// Rows are compared by day, without their origin: after a correction of a table with deduplication, either of two
    /// equal events can be the one with the row.
    pub(super) by_day: bool,
    pub(super) rows_max: usize,
    pub(super) bytes_max: usize,
    /// Events that Bronze is known to have lost: their rows cannot be derived.
    pub(super) lost: &'c EventSet,
    pub(super) rejects: Rejects,
    pub(super) replayed: ReplayedRows,
    pub(super) compared: Compared,
}

/// Rows that a replay made of rejects, and that cannot be compared.
#[derive(Default)]
pub(super) struct ReplayedRows {
    rows: u64,
    events: EventSet,
}

/// Where the rows of a table go.
pub(super) enum Destination<'d> {
    /// All rows are added to the fingerprints of their blocks.
    Fingerprints(&'d mut BlockFingerprints),
    /// The rows of some blocks are compared one by one.
    Diff(&'d mut RowDiff),
}

impl Destination<'_> {
    fn wants(&self, block: &Block) -> bool {
        match self {
            Self::Fingerprints(_) => true,
            Self::Diff(diff) => diff.blocks.contains(block),
        }
    }
}

impl Comparison<'_> {
    /// All offsets with an available plugin.
    pub(super) fn all_spans(&self) -> impl Iterator<Item = (LogPartition, OffsetRange, usize)> {
        let spans = self.verifier.attribution().iter();
        spans.filter_map(move |(log, range, writer)| Some((log.clone(), range, self.plugins.available(writer)?)))
    }

    /// The parts of a range with an available plugin.
    pub(super) fn spans(&self, log: &LogPartition, range: OffsetRange) -> Vec<(LogPartition, OffsetRange, usize)> {
        let parts = self.verifier.attribution().parts(log, range).into_iter();
        parts.filter_map(|(range, writer)| Some((log.clone(), range, self.plugins.available(writer)?))).collect()
    }

    /// The events of available plugins whose rejects were not replayed later, without those that are lost.
    pub(super) fn events_without_replay(&self) -> EventSet {
        let is_wanted = |writer: Writer| {
            matches!(writer, Writer::Plugin { replay: Replay::Never, .. }) && self.plugins.available(writer).is_some()
        };
        let spans = self.verifier.attribution().iter().filter(|(_, _, writer)| is_wanted(*writer));
        let ranges: Vec<Ranges> = spans.map(|(log, range, _)| Ranges::from_iter([(log.clone(), range)])).collect();
        EventSet::of_ranges(&ranges).without(self.lost)
    }

    /// The rows of replayed rejects that were not compared.
    pub(super) fn replayed_rows(&self) -> Option<Problem> {
        let ReplayedRows { rows, events } = &self.replayed;
        let (offsets, reason) = (i64::try_from(events.len()).unwrap_or(i64::MAX), NotComparedReason::Replayed);
        (*rows > 0).then_some(Problem::NotCompared { digest: None, offsets, rows: Some(*rows), reason })
    }

    /// The chunk with only the records of this table.
    pub(super) fn select_routed(&self, chunk: &Chunk) -> anyhow::Result<Chunk> {
        let rows = std::mem::take(&mut self.router.route(chunk).tables[self.index]);
        let records = take_record_batch(&chunk.records, &UInt32Array::from(rows))?;
        Ok(Chunk { records, ranges: chunk.ranges.clone() })
    }

    /// Transforms all records of a chunk with a plugin: its rows are expected in the table, its rejects in the
    /// quarantine.
    pub(super) fn transform(
        &mut self,
        chunk: &Chunk,
        plugin: usize,
        dedup: Option<&mut Dedup>,
        destination: &mut Destination<'_>,
    ) -> anyhow::Result<()> {
        let all: Vec<u32> = (0..chunk.records.num_rows() as u32).collect();
        let transformer = self.plugins.transformers.get_mut(&plugin).context("the plugin is not available")?;
        let mut output = tokio::task::block_in_place(|| transformer.transform(chunk, &all))?;
        self.compared.events += output.counts.events;
        self.rejects.add(&Coordinates::of(&chunk.records, RECORD_COORDINATES)?, &output.rejected);
        if let Some(dedup) = dedup {
            dedup.drop_duplicates(&mut output)?;
        }
        let mut day_of = self.zone.days();
        for batch in &output.rows {
            let times = batch.column_by_name(&self.config.event_time).context("no column of event_time")?;
            let times = times.as_primitive::<TimestampMicrosecondType>().values();
            let days = times.iter().map(|time| day_of.of(*time)).collect();
            self.compared.rows += batch.num_rows() as u64;
            self.add_rows(RowSet::Expected, batch, days, destination)?;
        }
        Ok(())
    }

    /// Reads the rows of the table, at the version whose log was verified.
    pub(super) async fn read_table(
        &mut self,
        log: &LogStoreRef,
        destination: &mut Destination<'_>,
    ) -> anyhow::Result<()> {
        for file in list_files_at(log, self.verifier.version()).await? {
            let store = log.object_store(None);
            let read = async {
                let mut read = read_columns(store, &file, None).await?;
                while let Some(batch) = read.batches.try_next().await? {
                    let days = vec![file.day().unwrap_or(i32::MIN); batch.num_rows()];
                    self.add_rows(RowSet::Found, &batch, days, destination)?;
                }
                anyhow::Ok(())
            };
            read.await.with_context(|| format!("read {}", file.path))?;
        }
        Ok(())
    }

    fn add_rows(
        &mut self,
        set: RowSet,
        batch: &RecordBatch,
        days: Vec<i32>,
        destination: &mut Destination<'_>,
    ) -> anyhow::Result<()> {
        let origins = Coordinates::of(batch, ROW_COORDINATES)?;
        let is_comparable = match set {
            RowSet::Expected => vec![true; batch.num_rows()],
            // The table is read a second time for the differences.
            RowSet::Found => self.comparable_rows(&origins, matches!(destination, Destination::Fingerprints(_))),
        };
        let mut wanted = vec![None; batch.num_rows()];
        for (log, rows) in origins.runs() {
            for row in rows.filter(|row| is_comparable[*row]) {
                let block = match self.by_day {
                    true => Block::Day(days[row]),
                    false => Block::of_offset(&log, origins.offset(row)),
                };
                if destination.wants(&block) {
                    wanted[row] = Some((log.clone(), origins.offset(row), block));
                }
            }
        }
        let rows = self.fingerprinter.normalize(batch, days)?;
        let mask: BooleanArray = wanted.iter().map(|row| Some(row.is_some())).collect();
        let rows = if mask.true_count() < mask.len() { filter_record_batch(&rows, &mask)? } else { rows };
        let hashes = self.fingerprinter.row_hashes(&rows)?;
        for (index, ((log, offset, block), hash)) in wanted.into_iter().flatten().zip(hashes).enumerate() {
            match destination {
                Destination::Fingerprints(fingerprints) => fingerprints.add(set, &block, hash),
                Destination::Diff(diff) => {
                    diff.add(set, self.by_day, &Row { log: &log, offset, hash, batch: &rows, index });
                }
            }
        }
        Ok(())
    }

    /// Which rows of the table can be compared: their plugin is available, their event is not lost, and they are not rows of a
    /// replayed reject. A row of an offset that no commit covers should not exist, and is compared as well. `counts_replayed`:
    /// those rows are counted.
    fn comparable_rows(&mut self, origins: &Coordinates, counts_replayed: bool) -> Vec<bool> {
        let (rejected, lost) = (self.rejects.all().mask(origins), self.lost.mask(origins));
        let mut is_comparable = vec![false; origins.rows()];
        let mut is_replayed = vec![false; origins.rows()];
        for (log, rows) in origins.runs() {
            for row in rows {
                is_comparable[row] = match self.verifier.attribution().writer_of(&log, origins.offset(row)) {
                    _ if lost.value(row) => false,
                    Some(writer) => {
                        let is_available = self.plugins.available(writer).is_some();
                        is_replayed[row] = is_available && self.plugins.may_be_replayed(writer) && rejected.value(row);
                        is_available && !is_replayed[row]
                    }
                    None => true,
                };
            }
        }
        let replayed = BooleanArray::from(is_replayed);
        if counts_replayed && replayed.true_count() > 0 {
            self.replayed.rows += replayed.true_count() as u64;
            self.replayed.events.insert_some(origins, &replayed);
        }
        is_comparable
    }
}
