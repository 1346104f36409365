//! Replay: reads ranges of offsets from Bronze in chunks of bounded size. The files may be small or compacted, and hold
//! one partition or several.

use std::collections::VecDeque;

use anyhow::Context;
use bytes::Bytes;
use deltalake_core::logstore::LogStoreRef;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use silverd_core::chunk::Chunk;
use silverd_core::offsets::{Offsets, Ranges, advance};
use tracing::warn;

use super::file_part::{FilePart, overlaps_any, unreadable};
use super::read_plan::ReadPlan;
use super::read_window::ReadWindow;
use crate::delta::{
    DeletionVector, LogOffsets, RowGroups, Table, batch_rows, caught, list_files, read_offsets, with_microseconds,
};
use crate::source::Progress;

/// Large files that stay open between two row groups.
const OPENED_MAX: usize = 8;

/// The offsets of one cluster that are still to be read, and the files that hold them.
pub(crate) struct Replay {
    log: LogStoreRef,
    plan: ReadPlan,
    bytes_max: usize,
    /// The large files from which row groups were read last, the newest first.
    opened: VecDeque<RowGroups>,
}

impl Replay {
    /// Finds the files. If `missing` has several clusters, only the first is read; plan again for the others.
    ///
    /// A chunk has about `rows_max` records and `bytes_max` bytes at most, twice as many if otherwise a file had to be read
    /// again, and never more than four times the bytes, unless it is a single record.
    pub(crate) async fn plan(
        log: LogStoreRef,
        missing: &Ranges,
        rows_max: usize,
        bytes_max: usize,
    ) -> anyhow::Result<Self> {
        let (wanted, _) = first_cluster(missing);
        let mut files = Vec::new();
        if !wanted.is_empty() {
            let mut candidates = list_files(&log).await.context("list bronze files")?;
            candidates.sort_by(|a, b| (a.modified_ms, &a.path).cmp(&(b.modified_ms, &b.path)));
            for file in candidates {
                files.extend(FilePart::of_file(&log, &file, &wanted).await?);
            }
        }
        let plan = ReadPlan::new(wanted, files, rows_max, bytes_max);
        Ok(Self { log, plan, bytes_max, opened: VecDeque::new() })
    }

    /// The next chunk, or `None` at the end. Its ranges continue those of the previous chunk without a gap.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Chunk>> {
        if self.plan.is_finished() {
            return Ok(None);
        }
        let (count, ranges) = self.plan.window();
        let mut window = ReadWindow::new(ranges, self.bytes_max);
        // The fewest files after which the window can end, known once there is reason to.
        let mut first_complete: Option<(usize, usize)> = None;
        for at in 0..count {
            if overlaps_any(&self.plan.file(at).offsets, window.ranges()) {
                let read = caught(self.read(at, window)).await;
                window = read.with_context(|| unreadable("read", &self.plan.file(at).file))?;
            }
            if window.bytes() < self.bytes_max || at + 1 == count {
                continue;
            }
            let logs = window.ranges().len();
            if first_complete.is_none_or(|(of, _)| of != logs) {
                first_complete = Some((logs, self.plan.first_complete(window.ranges())));
            }
            if first_complete.is_some_and(|(_, first)| first <= at + 1) {
                let complete = self.plan.complete(at + 1, window.ranges());
                if !complete.is_empty() {
                    window.shorten(complete)?;
                    break;
                }
            }
        }
        let chunk = window.into_chunk()?;
        self.plan.finish(&chunk.ranges);
        Ok(Some(chunk))
    }

    /// Adds the records of a file to the window.
    async fn read(&mut self, at: usize, mut window: ReadWindow) -> anyhow::Result<ReadWindow> {
        let file = self.plan.file(at);
        let Some(group) = file.group else {
            let store = self.log.object_store(None);
            let bytes = store.get(&file.file.path).await?.bytes().await?;
            let deleted = file.file.deleted.clone();
            let read = tokio::task::spawn_blocking(move || decode(bytes, deleted.as_deref(), window)).await?;
            return read.context("decode it");
        };
        let file = &file.file;
        let opened = match self.opened.iter().position(|opened| *opened.path() == file.path) {
            Some(at) => self.opened.remove(at),
            None => Some(RowGroups::open(self.log.object_store(None), file.clone()).await?),
        };
        let opened = opened.context("no file is open")?;
        let mut batches = opened.read(group, None)?;
        while let Some(batch) = batches.try_next().await? {
            window.push(&batch)?;
        }
        drop(batches);
        self.opened.push_front(opened);
        self.opened.truncate(OPENED_MAX);
        Ok(window)
    }
}

/// The ranges of one cluster, and those of the others.
pub(super) fn first_cluster(ranges: &Ranges) -> (Ranges, Ranges) {
    match ranges.iter().next() {
        Some((first, _)) => ranges.split_cluster(&first.cluster),
        None => Default::default(),
    }
}

/// How far Bronze is, by its log. If that has lost offsets, those of the rows count, too.
pub(crate) async fn progress(log: &LogStoreRef) -> anyhow::Result<Progress> {
    let LogOffsets { mut offsets, topic_ids, lost } = read_offsets(log).await?;
    if lost > 0 {
        warn!("bronze's log has lost the offsets up to which bronze has records: reading them from the records");
        advance(&mut offsets, &offsets_of_rows(log).await?);
    }
    Ok(Progress { offsets, topic_ids })
}

/// Sets Bronze's next offsets again, if its log has lost some.
pub(super) async fn restore_offsets(table: &mut Table) -> anyhow::Result<()> {
    if table.lost_transactions() == 0 {
        return Ok(());
    }
    let next = progress(&table.log()).await?;
    table.set_offsets(&next.offsets).await.context("set bronze's offsets again")
}

/// The next offset of each log partition of which Bronze has rows, from the rows themselves. Reads every file.
async fn offsets_of_rows(log: &LogStoreRef) -> anyhow::Result<Offsets> {
    let mut offsets = Offsets::new();
    for file in list_files(log).await.context("list bronze files")? {
        let parts = FilePart::read(log, &file).await.with_context(|| format!("read offsets of {}", file.path))?;
        for part in parts {
            let ends = part.offsets.into_iter().map(|(log, range)| (log, range.end)).collect();
            advance(&mut offsets, &ends);
        }
    }
    Ok(offsets)
}

/// Adds the records of a whole file to the window.
fn decode(bytes: Bytes, deleted: Option<&DeletionVector>, mut window: ReadWindow) -> anyhow::Result<ReadWindow> {
    let metadata = with_microseconds(ArrowReaderMetadata::load(&bytes, ArrowReaderOptions::default())?)?;
    let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, metadata);
    if let Some(deleted) = deleted {
        let rows = builder.metadata().file_metadata().num_rows() as u64;
        builder = builder.with_row_selection(deleted.selection(0..rows));
    }
    let batch_rows = batch_rows(builder.metadata().row_groups());
    for batch in builder.with_batch_size(batch_rows).build()? {
        window.push(&batch?)?;
    }
    Ok(window)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use std::iter::empty;

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use serde_json::json;
    use silverd_core::chunk::{self, ChunkBuilder, Record, TimestampType};
    use silverd_core::config::Compression;
    use silverd_core::offsets::{LogPartition, OffsetRange};

    use super::*;
    use crate::bronze::{properties, table_spec};
    use crate::delta::{Encoder, entry_path};

    const EVENTS: i64 = 40;
    const EVENT_BYTES: usize = 300 << 10;

    /// One compacted file of large events, each in a row group of its own, as those are that come one a commit.
    async fn compacted(folder: &std::path::Path, value: impl Fn(i64) -> Vec<u8>) -> Table {
        let mut table = Table::open(&table_spec(folder.to_path_buf())).await.unwrap();
        let compression = Compression::default();
        let encoder = Encoder::new(chunk::schema(), properties(&compression).unwrap(), &compression);
        let mut writer = encoder.file_writer(table.store(), "2025-01-01").unwrap();
        for offset in 0..EVENTS {
            let mut builder = ChunkBuilder::default();
            let log = builder.log(&LogPartition::new("c", "t", 0));
            let (value, timestamp) = (value(offset), Some((1_735_689_600_000, TimestampType::CreateTime)));
            let (key, headers) = (None, empty());
            builder.push(log, offset, Record { offset, timestamp, key, value: Some(&value), headers });
            writer.write_row_group(&builder.finish(0).records).await.unwrap();
        }
        let file = writer.finish(0).await.unwrap();
        table.append(vec![file], &[], json!({})).await.unwrap();
        table
    }

    async fn check(value: impl Fn(i64) -> Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let table = compacted(folder.path(), &value).await;
        let missing = Ranges::from_iter([(LogPartition::new("c", "t", 0), OffsetRange::new(0, EVENTS))]);
        let mut replay = Replay::plan(table.log(), &missing, 100_000, EVENT_BYTES).await.unwrap();
        let (mut next, mut chunks) = (0, 0);
        while let Some(chunk) = replay.next().await.unwrap() {
            for (row, offset) in chunk.offsets().iter().enumerate() {
                assert_eq!(*offset, next);
                assert!(chunk.values().value(row) == value(next), "the value at offset {next}");
                next += 1;
            }
            let rows = chunk.records.num_rows();
            assert!(rows <= 4, "{rows} events in a chunk");
            chunks += 1;
        }
        assert_eq!(next, EVENTS);
        assert!(chunks >= EVENTS / 4, "{chunks} chunks");
    }

    /// A file that is as large as its events is read by row groups.
    #[tokio::test(flavor = "multi_thread")]
    async fn large_events_of_a_compacted_file_come_in_several_chunks() {
        check(|offset| {
            let mut rng = StdRng::seed_from_u64(offset as u64);
            (0..EVENT_BYTES).map(|_| rng.random::<u8>()).collect()
        })
        .await;
    }

    /// A small file is read as a whole, and its size says nothing of its events.
    #[tokio::test(flavor = "multi_thread")]
    async fn large_events_that_compress_well_come_in_several_chunks() {
        check(|offset| vec![offset as u8; EVENT_BYTES]).await;
    }

    /// Offsets that no file has, as those of lost events and of transaction markers, are passed.
    #[tokio::test(flavor = "multi_thread")]
    async fn offsets_without_records_are_passed() {
        let folder = tempfile::tempdir().unwrap();
        let table = compacted(folder.path(), |offset| vec![offset as u8; 8]).await;
        let ranges = [(0, 0, EVENTS + 7), (1, 0, 5)];
        let missing = ranges
            .map(|(partition, start, end)| (LogPartition::new("c", "t", partition), OffsetRange::new(start, end)));
        let missing = Ranges::from_iter(missing);
        let mut replay = Replay::plan(table.log(), &missing, 100_000, EVENT_BYTES).await.unwrap();
        let (mut next, mut events) = (Offsets::new(), 0);
        while let Some(chunk) = replay.next().await.unwrap() {
            events += chunk.records.num_rows();
            assert!(chunk.ranges.new_and_gap(&next).1.is_empty());
            advance(&mut next, &chunk.ranges.ends());
        }
        assert_eq!((events as i64, next), (EVENTS, missing.ends()));
    }

    /// Another engine's checkpoint has left out the offsets, and the commits that set them are gone.
    #[tokio::test(flavor = "multi_thread")]
    async fn offsets_that_the_log_has_lost_are_those_of_the_rows() {
        let folder = tempfile::tempdir().unwrap();
        let mut table = compacted(folder.path(), |offset| vec![offset as u8; 8]).await;
        let mut snapshot = deltalake_core::DeltaTable::new(table.log());
        snapshot.load().await.unwrap();
        deltalake_core::checkpoints::create_checkpoint(&snapshot, None).await.unwrap();
        for version in 0..=table.version() {
            table.store().delete(&entry_path(version)).await.unwrap();
        }
        let expected = Offsets::from([(LogPartition::new("c", "t", 0), EVENTS)]);
        assert_eq!(progress(&table.log()).await.unwrap().offsets, expected);
        table.reload().await.unwrap();
        assert_eq!((table.lost_transactions(), table.offsets()), (1, Offsets::new()));
        restore_offsets(&mut table).await.unwrap();
        assert_eq!((table.lost_transactions(), table.offsets()), (0, expected.clone()));
        table.reload().await.unwrap();
        assert_eq!((table.lost_transactions(), table.offsets()), (0, expected));
    }
}
