//! Repair of Bronze: what a damaged data file held is read again from Kafka, and what Kafka no longer has is recorded as lost.
//!
//! ```text
//!   damaged files ─▶ held: the offsets that they had ─▶ what Kafka still has of them ─▶ files that are not committed yet
//!      ─▶ one commit { removed damaged files, added files, txn silverd-lost:… }
//!      ─▶ the damaged files are moved to _damaged/
//! ```
//!
//! | a record of a damaged file                                   | is                                  |
//! |--------------------------------------------------------------|-------------------------------------|
//! | in Kafka                                                     | read again                          |
//! | before the first offset that Kafka has, or compacted away    | recorded as lost                    |
//! | of a log that Kafka no longer has, or of one that was cut    | refused, or lost if that is accepted |
//!
//! Bronze's progress stays as it is, so that a running daemon and a repair do not conflict: two repairs of one file do. A table
//! that still has to read the offsets of lost events passes them, as it does those of transaction markers.

mod commits;
mod held;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use deltalake_core::logstore::LogStoreRef;
use serde_json::{Map, Value, json};
use silverd_core::config::Pipeline;
use silverd_core::lost::{self, LOST_EVENTS};
use silverd_core::offsets::{LogPartition, OffsetRange};
use silverd_core::verify::FileOwner;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use self::commits::{BronzeCommits, newest_ingestion};
use crate::bronze::{Bronze, replay};
use crate::delta::{
    Change, LostEvents, NewFile, TableLock, list_files, move_data_file_away, open_log, read_lost_events,
};
use crate::runtime::clock;
use crate::source::{ChunkSize, OffsetRanges, StillInKafka};
use crate::tables::event_set::{Coordinates, EventSet, RECORD_COORDINATES};
use crate::verify::{DamagedFile, damaged_files};

/// How a repair is named in Bronze's log.
const OPERATION: &str = "REPAIR";
/// The most ranges that a commit names as read again, and as lost.
const RANGES_MAX: usize = 1_000;

pub(crate) struct RepairOptions<'o> {
    /// Give up records of which no log in Kafka is left, instead of refusing.
    pub(crate) accept_loss: bool,
    /// Read from Kafka, and change nothing.
    pub(crate) dry_run: bool,
    pub(crate) stop: &'o CancellationToken,
}

/// What a repair has found and changed, or would change.
#[derive(Default)]
pub(crate) struct Repaired {
    pub(crate) damaged: Vec<DamagedFile>,
    /// Events that were read again, and the offsets among which they are.
    pub(crate) read_events: u64,
    pub(crate) read: Vec<(LogPartition, OffsetRange)>,
    /// Events that are lost, and the offsets among which they were.
    pub(crate) lost_events: u64,
    pub(crate) lost: Vec<(LogPartition, OffsetRange)>,
    /// Why logs could not be read at all, whose events are lost for that reason.
    pub(crate) unreadable: Vec<String>,
    /// Where the damaged files are now.
    pub(crate) moved_to: Vec<PathBuf>,
}

/// What was read from Kafka.
#[derive(Default)]
struct ReadAgain {
    events: EventSet,
    /// They are not committed yet.
    files: Vec<NewFile>,
}

/// Repairs Bronze; `None` if nothing was written to it yet.
pub(crate) async fn repair_bronze(
    pipeline: &Pipeline,
    base_dir: &Path,
    options: &RepairOptions<'_>,
) -> anyhow::Result<Option<Repaired>> {
    let path = base_dir.join(&*pipeline.bronze.path);
    let Some(log) = open_log(&path)? else { return Ok(None) };
    // Keeps maintenance from compacting the files, and from removing those that are not committed yet.
    let _lock = if options.dry_run { None } else { Some(TableLock::shared(&path, "bronze").await?) };
    let damaged = damaged_files(&log, &FileOwner::Bronze).await?;
    if damaged.is_empty() {
        return Ok(Some(Repaired::default()));
    }
    let progress = replay::progress(&log).await.context("read bronze's offsets")?;
    let LostEvents { offsets, events: lost_before } = read_lost_events(&log).await?;
    let mut lost = EventSet::default();
    offsets.iter().for_each(|(log, range)| lost.insert_range(log, *range));
    let (held, commits) = held::offsets_held(&log, &damaged, &progress.offsets, &lost).await?;

    let wanted = ranges_by_log(&held);
    let find = || StillInKafka::find(&pipeline.source, &wanted, &progress);
    let found = tokio::task::block_in_place(find);
    let (kafka, unreadable) = match found {
        Ok(kafka) => {
            let text = |(log, reason): &(LogPartition, String)| format!("{log}: {reason}");
            let unreadable: Vec<String> = kafka.unreadable.iter().map(text).collect();
            (Some(kafka), unreadable)
        }
        Err(failure) => (None, vec![format!("{failure:#}")]),
    };
    if !unreadable.is_empty() && !options.accept_loss {
        bail!(
            "Kafka cannot be asked for all events of the damaged files:\n  {}\nNothing was changed. Expected the cluster and \
             the topics that bronze was read from: correct [source] in pipeline.toml, or restore the files from a backup. If \
             they are gone for good, `silverd repair --accept-loss bronze` records as lost what cannot be read",
            unreadable.join("\n  ")
        );
    }
    let mut bronze = match options.dry_run {
        true => None,
        false => Some(Bronze::open(base_dir, &pipeline.bronze, Arc::default()).await?),
    };
    let mut read = ReadAgain::default();
    let outcome = async {
        if let Some(kafka) = &kafka {
            let size = ChunkSize { rows_max: pipeline.commit.rows_max, bytes_max: pipeline.commit.bytes_max };
            read.read(kafka, size, &damaged, &commits, bronze.as_mut(), options.stop)?;
        }
        read.check_count(&damaged, bronze.as_ref(), options.accept_loss).await
    }
    .await;
    if let Err(failure) = outcome {
        read.remove_files(bronze.as_ref()).await;
        return Err(failure.context("read the events of damaged files again; nothing was changed"));
    }
    let lost = LostNow::of(&held, &read.events, &damaged, kafka.as_ref());
    let mut repaired = Repaired {
        read_events: read.events.len(),
        read: at_most(read.events.ranges(), RANGES_MAX),
        lost_events: lost.events,
        lost: at_most(lost.offsets.ranges(), RANGES_MAX),
        unreadable,
        moved_to: Vec::new(),
        damaged,
    };
    if let Some(bronze) = &mut bronze {
        commit(bronze, &log, std::mem::take(&mut read.files), &repaired, lost_before).await?;
        for damaged in &repaired.damaged {
            repaired.moved_to.extend(move_data_file_away(&log, &damaged.file.path)?);
        }
    }
    Ok(Some(repaired))
}

impl ReadAgain {
    /// Reads what Kafka has, and writes it into files, unless it is a dry run.
    fn read(
        &mut self,
        kafka: &StillInKafka,
        size: ChunkSize,
        damaged: &[DamagedFile],
        commits: &BronzeCommits,
        mut bronze: Option<&mut Bronze>,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let newest = damaged.iter().filter_map(|damaged| newest_ingestion(&damaged.file)).max();
        let otherwise = newest.unwrap_or_else(clock::now_micros);
        let runtime = Handle::current();
        tokio::task::block_in_place(|| {
            kafka.read(size, stop, |chunk| {
                let chunk = commits.with_ingestion(chunk, otherwise)?;
                self.events.insert(&Coordinates::of(&chunk.records, RECORD_COORDINATES)?);
                if let Some(bronze) = bronze.as_deref_mut() {
                    self.files.extend(runtime.block_on(bronze.write_again(&chunk))?);
                }
                Ok(())
            })
        })
    }

    /// Refuses records that the damaged files did not have: another engine may have deleted them on purpose.
    async fn check_count(
        &mut self,
        damaged: &[DamagedFile],
        bronze: Option<&Bronze>,
        accept_loss: bool,
    ) -> anyhow::Result<()> {
        let Some(held) = rows_of(damaged).filter(|held| *held < self.events.len()) else { return Ok(()) };
        if accept_loss {
            self.remove_files(bronze).await;
            self.events = EventSet::default();
            return Ok(());
        }
        Err(anyhow!(
            "Kafka has {} events at the offsets of the damaged files, and they had {held}: another engine has deleted the \
             others, perhaps because somebody asked for it, and nobody knows any more which ones. Restore the files from a \
             backup, or give up all their events with `silverd repair --accept-loss bronze`",
            self.events.len()
        ))
    }

    /// Removes the files, which are in no commit.
    async fn remove_files(&mut self, bronze: Option<&Bronze>) {
        let Some(bronze) = bronze else { return };
        let store = bronze.log().object_store(None);
        for file in std::mem::take(&mut self.files) {
            // What is left behind is removed by vacuum.
            let _ = file.remove(&store).await;
        }
    }
}

/// What is lost of damaged files.
struct LostNow {
    events: u64,
    /// The offsets among which these events were.
    offsets: EventSet,
}

impl LostNow {
    /// | the files had as many events as were read | Kafka lacks offsets that they had | lost offsets       |
    /// |-------------------------------------------|-----------------------------------|--------------------|
    /// | yes                                       |                                   | none               |
    /// | no                                        | yes                               | these              |
    /// | no, or unknown                            | no                                | all without record |
    fn of(held: &EventSet, read: &EventSet, damaged: &[DamagedFile], kafka: Option<&StillInKafka>) -> Self {
        let unread = held.without(read);
        let mut gone = EventSet::default();
        for (log, range) in unread.ranges() {
            let has = |offset: i64| kafka.is_some_and(|kafka| kafka.has(&log, offset));
            match (has(range.start), has(range.end - 1)) {
                (false, false) => gone.insert_range(&log, range),
                (true, true) => {}
                // Kafka has what follows its first offset.
                _ => {
                    let first = (range.start..range.end).find(|offset| has(*offset)).unwrap_or(range.end);
                    gone.insert_range(&log, OffsetRange::new(range.start, first));
                }
            }
        }
        match rows_of(damaged) {
            Some(rows) if rows <= read.len() => Self { events: 0, offsets: EventSet::default() },
            Some(rows) => {
                let offsets = if gone.is_empty() { unread } else { gone };
                Self { events: rows - read.len(), offsets }
            }
            None => Self { events: gone.len(), offsets: gone },
        }
    }
}

/// The records that damaged files had, without the deleted ones, if the log says it of all of them.
fn rows_of(damaged: &[DamagedFile]) -> Option<u64> {
    damaged.iter().map(|damaged| damaged.file.rows()).sum()
}

/// Commits the files that were read again in the place of the damaged ones.
async fn commit(
    bronze: &mut Bronze,
    log: &LogStoreRef,
    files: Vec<NewFile>,
    repaired: &Repaired,
    lost_before: i64,
) -> anyhow::Result<()> {
    let damaged = &repaired.damaged;
    // Files that are sorted by age are in the order of their records, most often.
    let age = damaged.iter().map(|damaged| damaged.file.modified_ms).max().unwrap_or_default();
    let files: Vec<NewFile> = files.into_iter().map(|file| file.with_age(age)).collect();
    let mut progress: Vec<(String, i64)> =
        repaired.lost.iter().map(|(log, range)| (lost::app_id(log, range.start), range.end)).collect();
    if repaired.lost_events > 0 {
        let lost_events = i64::try_from(repaired.lost_events).unwrap_or(i64::MAX);
        progress.push((LOST_EVENTS.to_owned(), lost_before.saturating_add(lost_events)));
    }
    let removed: u64 = damaged.iter().map(|damaged| damaged.file.all_rows().unwrap_or(0)).sum();
    let info = json!({ "repair": {
        "files": damaged.iter().map(|damaged| damaged.file.path.to_string()).collect::<Vec<_>>(),
        "events": repaired.read_events,
        "removed": removed,
        "read_again": ranges_json(&repaired.read),
        "lost_events": repaired.lost_events,
        "lost": ranges_json(&repaired.lost),
    } });
    let change = Change {
        adds: files.clone(),
        removes: damaged.iter().map(|damaged| damaged.file.clone()).collect(),
        progress,
        info,
        operation: Some(OPERATION),
        ..Change::default()
    };
    let Err(failure) = bronze.table_mut().commit(change).await else { return Ok(()) };
    // It may be in the log all the same.
    let live = list_files(log).await.context("read bronze's log after a commit that failed")?;
    let is_live = |path: &str| live.iter().any(|file| file.path.as_ref() == path);
    let is_committed = files.iter().all(|file| is_live(file.path()))
        && !damaged.iter().any(|damaged| is_live(damaged.file.path.as_ref()));
    if is_committed && !files.is_empty() {
        return Ok(());
    }
    for file in files.iter().filter(|file| !is_live(file.path())) {
        let _ = file.remove(&log.object_store(None)).await;
    }
    Err(anyhow!(failure)).context("commit the repair of bronze (run the command again)")
}

fn ranges_by_log(events: &EventSet) -> OffsetRanges {
    let mut ranges = OffsetRanges::new();
    for (log, range) in events.ranges() {
        ranges.entry(log).or_default().push(range);
    }
    ranges
}

/// Ranges as the commit info has them: `{"cluster:topic:0": [[0, 10], [12, 20]]}`.
fn ranges_json(ranges: &[(LogPartition, OffsetRange)]) -> Value {
    let mut json = Map::new();
    for (log, range) in ranges {
        let of_log = json.entry(log.to_string()).or_insert_with(|| json!([]));
        if let Some(of_log) = of_log.as_array_mut() {
            of_log.push(json!([range.start, range.end]));
        }
    }
    Value::Object(json)
}

/// At most so many ranges with the same offsets: those with the fewest offsets between them are joined. Each log partition keeps
/// one at least.
fn at_most(mut ranges: Vec<(LogPartition, OffsetRange)>, count_max: usize) -> Vec<(LogPartition, OffsetRange)> {
    let mut gap = 1;
    while ranges.len() > count_max && gap < i64::MAX / 2 {
        let mut joined: Vec<(LogPartition, OffsetRange)> = Vec::new();
        for (log, range) in ranges {
            match joined.last_mut() {
                Some((last, before)) if *last == log && range.start - before.end <= gap => before.end = range.end,
                _ => joined.push((log, range)),
            }
        }
        ranges = joined;
        gap *= 2;
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_ranges_are_joined() {
        let logs = [0, 1].map(|partition| LogPartition::new("c", "t", partition));
        let ranges = |of: &[(usize, i64, i64)]| -> Vec<_> {
            of.iter().map(|(log, start, end)| (logs[*log].clone(), OffsetRange::new(*start, *end))).collect()
        };
        let all = ranges(&[(0, 0, 1), (0, 2, 3), (0, 50, 60), (1, 60, 61)]);
        assert_eq!(at_most(all.clone(), 4), all);
        assert_eq!(at_most(all.clone(), 3), ranges(&[(0, 0, 3), (0, 50, 60), (1, 60, 61)]));
        assert_eq!(at_most(all, 1), ranges(&[(0, 0, 60), (1, 60, 61)]));
    }
}
