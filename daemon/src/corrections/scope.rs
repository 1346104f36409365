//! The scope of a correction: which events it transforms again, and what that means for the table's files and rows.
//!
//! | an event                                   | everything  | a set of events      | some days                         |
//! |--------------------------------------------|-------------|----------------------|-----------------------------------|
//! | has rows in the scope                      | replaced    | replaced             | replaced, also rows on other days |
//! | has rows, but none in the scope            | –           | kept                 | kept                              |
//! | has no rows (rejected, dropped, duplicate) | transformed | transformed if in it | added if all rows are on the days |

use std::ops::RangeInclusive;

use anyhow::Context;
use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, not};
use deltalake_core::logstore::ObjectStoreRef;
use futures::TryStreamExt;
use object_store::path::Path;
use tracing::warn;

use crate::delta::{DataFile, Encoder, NewFile, Table, read_columns, writer_properties};
use crate::tables::event_set::{Coordinates, EventSet, ROW_COORDINATES};

/// The events that a correction transforms again.
pub(crate) enum Scope {
    Everything,
    Events(EventSet),
    /// The events with rows on these days of the table: days since the epoch.
    Days(RangeInclusive<i32>),
}

/// What a scope means for a table at one version.
#[derive(Default)]
pub(super) struct Plan {
    /// Events whose rows are removed, if they have any.
    pub(super) removed_events: EventSet,
    /// The removed events that have rows.
    pub(super) events_with_rows: EventSet,
    /// Events outside of the scope that have rows.
    pub(super) kept_events: EventSet,
    pub(super) removes: Vec<DataFile>,
    /// Files with those rows of the removed files that are kept.
    pub(super) adds: Vec<NewFile>,
    /// The rows of the removed files, and how many of them are in `adds` again.
    pub(super) rows_removed: u64,
    pub(super) rows_kept: u64,
    /// The removed files none of whose rows are kept. They need not be readable.
    pub(super) removed_whole: Vec<Path>,
}

impl Scope {
    /// Computes the plan, and writes the rows that are kept to files that are not committed yet.
    pub(super) async fn plan(&self, table: &Table, files: &[DataFile]) -> anyhow::Result<Plan> {
        let mut plan = Plan::default();
        match self {
            Scope::Everything => {
                for file in files {
                    plan.remove_file(table, file).await?;
                }
                plan.removed_events = plan.events_with_rows.clone();
            }
            Scope::Events(events) => {
                for file in files {
                    plan.remove_rows(table, file, events).await?;
                }
                plan.removed_events = events.clone();
            }
            Scope::Days(days) => {
                let is_inside = |file: &&DataFile| file.day().is_some_and(|day| days.contains(&day));
                let (inside, outside): (Vec<_>, Vec<_>) = files.iter().partition(is_inside);
                for file in inside {
                    plan.remove_file(table, file).await?;
                }
                let removed = plan.events_with_rows.clone();
                for file in outside {
                    plan.remove_rows_of_other_day(table, file, &removed).await?;
                }
                plan.removed_events = removed;
            }
        }
        Ok(plan)
    }

    /// Which records of Bronze are transformed; `None` for all.
    pub(super) fn mask(&self, plan: &Plan, records: &Coordinates) -> anyhow::Result<Option<BooleanArray>> {
        Ok(match self {
            Scope::Everything => None,
            Scope::Events(events) => Some(events.mask(records)),
            Scope::Days(_) => Some(not(&plan.kept_events.mask(records))?),
        })
    }
}

impl Plan {
    /// Removes all rows of a file. One that cannot be read is removed, too: its events, as others without a row, become
    /// rows again if these are in the scope.
    async fn remove_file(&mut self, table: &Table, file: &DataFile) -> anyhow::Result<()> {
        match read_coordinates(table.store(), file, |rows| self.events_with_rows.insert(rows)).await {
            Ok(rows) => self.rows_removed += rows,
            Err(failure) => {
                warn!(table = %table.name, "{failure:#}. It is removed, and its rows are derived from bronze again");
                self.rows_removed +=
                    file.rows().with_context(|| format!("{} has no row count in the log", file.path))?;
            }
        }
        self.removed_whole.push(file.path.clone());
        self.removes.push(file.clone());
        Ok(())
    }

    /// Removes the rows of some events from a file. If other rows are left, writes them to a new file.
    async fn remove_rows(&mut self, table: &Table, file: &DataFile, events: &EventSet) -> anyhow::Result<()> {
        let found = find_rows(table, file, events).await?;
        self.remove_found(table, file, events, found).await
    }

    /// The same for a file of another day than those of the scope. One that cannot be read is left for the correction of
    /// its own day.
    async fn remove_rows_of_other_day(
        &mut self,
        table: &Table,
        file: &DataFile,
        events: &EventSet,
    ) -> anyhow::Result<()> {
        match find_rows(table, file, events).await {
            Ok(found) => self.remove_found(table, file, events, found).await,
            Err(failure) => {
                let day = file.event_date.as_deref().unwrap_or("its day");
                warn!(table = %table.name, "{failure:#}. It is left as it is; rebuild {day}, too");
                Ok(())
            }
        }
    }

    async fn remove_found(
        &mut self,
        table: &Table,
        file: &DataFile,
        events: &EventSet,
        found: FoundRows,
    ) -> anyhow::Result<()> {
        let FoundRows { rows, removed, removed_events, kept_events } = found;
        self.events_with_rows.merge(&removed_events);
        self.kept_events.merge(&kept_events);
        if removed == 0 {
            return Ok(());
        }
        if removed < rows {
            self.adds.push(rewrite_without(table, file, events).await?);
            self.rows_kept += rows - removed;
        }
        self.rows_removed += rows;
        self.removes.push(file.clone());
        Ok(())
    }
}

/// What a file has of some events.
struct FoundRows {
    rows: u64,
    /// The rows of these events.
    removed: u64,
    /// Those of the events that have rows, and the other events that have.
    removed_events: EventSet,
    kept_events: EventSet,
}

async fn find_rows(table: &Table, file: &DataFile, events: &EventSet) -> anyhow::Result<FoundRows> {
    let (mut removed, mut removed_events, mut kept_events) = (0, EventSet::default(), EventSet::default());
    let rows = read_coordinates(table.store(), file, |rows| {
        let mask = events.mask(rows);
        removed += mask.true_count() as u64;
        removed_events.insert_some(rows, &mask);
        if let Ok(others) = not(&mask) {
            kept_events.insert_some(rows, &others);
        }
    })
    .await?;
    Ok(FoundRows { rows, removed, removed_events, kept_events })
}

/// Passes the coordinates of a file's rows to `visit`. Returns the number of rows.
pub(super) async fn read_coordinates(
    store: ObjectStoreRef,
    file: &DataFile,
    mut visit: impl FnMut(&Coordinates),
) -> anyhow::Result<u64> {
    let read = async {
        let mut read = read_columns(store, file, Some(&ROW_COORDINATES)).await?;
        while let Some(batch) = read.batches.try_next().await? {
            visit(&Coordinates::of(&batch, ROW_COORDINATES)?);
        }
        anyhow::Ok(read.rows)
    };
    read.await.with_context(|| format!("read the coordinates in {}", file.path))
}

/// A file with the rows of another file, without those of some events.
async fn rewrite_without(table: &Table, file: &DataFile, events: &EventSet) -> anyhow::Result<NewFile> {
    let without_events = |batch: &RecordBatch| {
        let kept = not(&events.mask(&Coordinates::of(batch, ROW_COORDINATES)?))?;
        anyhow::Ok(filter_record_batch(batch, &kept)?)
    };
    rewrite(table, file, without_events).await
}

/// A new file with the changed batches of another file. It has the same columns and the same day.
pub(super) async fn rewrite(
    table: &Table,
    file: &DataFile,
    mut change: impl FnMut(&RecordBatch) -> anyhow::Result<RecordBatch>,
) -> anyhow::Result<NewFile> {
    let mut read = read_columns(table.store(), file, None).await?;
    let mut batches = Vec::new();
    while let Some(batch) = read.batches.try_next().await? {
        batches.push(change(&batch)?);
    }
    let compression = Default::default();
    let encoder = Encoder::new(read.schema.clone(), writer_properties(&compression)?.build(), &compression);
    let day = file.day().with_context(|| format!("{} is in no partition of a day", file.path))?;
    let (new, bytes) = encoder.encode(day, &batches)?;
    new.put(&table.store(), bytes).await?;
    Ok(new)
}
