//! Which records damaged files of Bronze held: what their statistics and Bronze's log allow, without what other files have and
//! without what is known to be lost.
//!
//! ```text
//!   statistics of the damaged file    ├──────────────────────────────┤
//!   ranges of Bronze's commits      ──────┤ ├────────────────────────────
//!   records of other files            ├──┤          ├───┤
//!   what it held                         ├┤ ├───────┤   ├────────────┤
//! ```
//!
//! There may be offsets without a record among them, as those of transaction markers: Kafka has none there, either.

use std::collections::BTreeSet;

use anyhow::Context;
use deltalake_core::logstore::LogStoreRef;
use futures::TryStreamExt;
use object_store::path::Path;
use silverd_core::offsets::{OffsetRange, Offsets};

use super::commits::BronzeCommits;
use crate::bronze::FileStats;
use crate::delta::{DataFile, list_files, read_columns};
use crate::tables::event_set::{Coordinates, EventSet, RECORD_COORDINATES};
use crate::verify::DamagedFile;

/// The offsets of the records that damaged files held, and the commits that brought them.
pub(super) async fn offsets_held(
    log: &LogStoreRef,
    damaged: &[DamagedFile],
    bronze: &Offsets,
    lost: &EventSet,
) -> anyhow::Result<(EventSet, BronzeCommits)> {
    let mut held = EventSet::default();
    for damaged in damaged {
        let stats = FileStats::of(&damaged.file);
        for (log, next) in bronze {
            let all = OffsetRange::new(0, (*next).max(0));
            let may_have = stats.as_ref().map_or(Some(all), |stats| stats.offsets_of(log));
            if let Some(range) = may_have.filter(|range| range.start < all.end) {
                held.insert_range(log, OffsetRange::new(range.start, range.end.min(all.end)));
            }
        }
    }
    held.remove(lost);
    let is_damaged: BTreeSet<&Path> = damaged.iter().map(|damaged| &damaged.file.path).collect();
    for file in list_files(log).await.context("list bronze files")? {
        let may_overlap = || FileStats::of(&file).is_none_or(|stats| stats.may_overlap(&held.bounds()));
        if !is_damaged.contains(&file.path) && may_overlap() {
            let others = records_of(log, &file).await.with_context(|| format!("read bronze file {}", file.path))?;
            held.remove(&others);
        }
    }
    let commits = BronzeCommits::read(log, &held).await.context("read bronze's log")?;
    held.remove(commits.never_read());
    Ok((held, commits))
}

/// The positions of a file's records.
async fn records_of(log: &LogStoreRef, file: &DataFile) -> anyhow::Result<EventSet> {
    let mut records = EventSet::default();
    let mut columns = read_columns(log.object_store(None), file, Some(&RECORD_COORDINATES)).await?;
    while let Some(batch) = columns.batches.try_next().await? {
        records.insert(&Coordinates::of(&batch, RECORD_COORDINATES)?);
    }
    Ok(records)
}
