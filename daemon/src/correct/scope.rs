//! What a correction judges anew, and what that means for a table as it stands: which files go, and which rows of them
//! stay.
//!
//! | an event                                    | everything | events in a set | some days                             |
//! |---------------------------------------------|------------|-----------------|---------------------------------------|
//! | has rows in the scope                       | anew       | anew            | anew, all its rows, on whatever day   |
//! | has rows, none in the scope                 | –          | stays           | stays                                 |
//! | has none (rejected, dropped, a duplicate)   | anew       | anew if in it   | anew, if all its rows are of the days |

use std::ops::RangeInclusive;

use anyhow::Context;
use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, not};
use futures::TryStreamExt;
use silverd_core::chunk::column;
use silverd_core::schema::added;

use super::places::{Coordinates, Names, Places};
use crate::delta::{DataFile, Encoder, NewFile, Table, columns, writer_properties};

/// Where the rows of a Silver table tell where they came from; and where Bronze's records do.
pub const OF_ROWS: Names = [added::CLUSTER_ID, added::TOPIC, added::PARTITION, added::OFFSET];
pub const OF_RECORDS: Names = [column::CLUSTER_ID, column::TOPIC, column::PARTITION, column::OFFSET];

/// The events that a correction judges anew.
pub enum Scope {
    Everything,
    Events(Places),
    /// Days since the epoch, UTC, of the rows.
    Days(RangeInclusive<i32>),
}

/// What a scope means for a table at one version.
#[derive(Default)]
pub struct Plan {
    /// Events whose rows go, if they have any.
    pub gone: Places,
    /// Those that have.
    pub hit: Places,
    /// Events whose rows stand, and that are left alone.
    pub standing: Places,
    pub removes: Vec<DataFile>,
    /// Files with those rows of the removed ones that stay.
    pub adds: Vec<NewFile>,
    /// Rows of the removed files, and how many of them stand in `adds`.
    pub removed: u64,
    pub kept: u64,
}

impl Scope {
    /// Works out the plan, and writes the rows that stay in files that are in no commit yet.
    pub async fn plan(&self, table: &Table, files: &[DataFile]) -> anyhow::Result<Plan> {
        let mut plan = Plan::default();
        match self {
            Scope::Everything => {
                for file in files {
                    plan.removed += each(table, file, |at| plan.hit.insert(at)).await?;
                    plan.removes.push(file.clone());
                }
                plan.gone = plan.hit.clone();
            }
            Scope::Events(events) => {
                for file in files {
                    plan.take_out(table, file, events).await?;
                }
                plan.gone = events.clone();
            }
            Scope::Days(days) => {
                let of_days = |file: &&DataFile| file.day().is_some_and(|day| days.contains(&day));
                let (inside, outside): (Vec<_>, Vec<_>) = files.iter().partition(of_days);
                for file in inside {
                    plan.removed += each(table, file, |at| plan.hit.insert(at)).await?;
                    plan.removes.push(file.clone());
                }
                plan.gone = plan.hit.clone();
                let gone = plan.gone.clone();
                for file in outside {
                    plan.take_out(table, file, &gone).await?;
                }
            }
        }
        Ok(plan)
    }

    /// The records of Bronze that are to be judged.
    pub fn mask(&self, plan: &Plan, records: &Coordinates) -> anyhow::Result<Option<BooleanArray>> {
        Ok(match self {
            Scope::Everything => None,
            Scope::Events(events) => Some(events.mask(records)),
            Scope::Days(_) => Some(not(&plan.standing.mask(records))?),
        })
    }
}

impl Plan {
    /// Takes the rows of some events out of a file, if it has any; the others stand, in a file of their own if need be.
    async fn take_out(&mut self, table: &Table, file: &DataFile, events: &Places) -> anyhow::Result<()> {
        let (mut hit, mut standing) = (0, Places::default());
        let rows = each(table, file, |at| {
            let mask = events.mask(at);
            hit += mask.true_count() as u64;
            self.hit.insert_some(at, &mask);
            if let Ok(others) = not(&mask) {
                standing.insert_some(at, &others);
            }
        })
        .await?;
        self.standing.merge(standing);
        if hit == 0 {
            return Ok(());
        }
        if hit < rows {
            self.adds.push(rest_of(table, file, events).await?);
            self.kept += rows - hit;
        }
        self.removed += rows;
        self.removes.push(file.clone());
        Ok(())
    }
}

/// Shows the coordinates of a file's rows, and tells how many rows there are.
pub async fn each(table: &Table, file: &DataFile, mut show: impl FnMut(&Coordinates)) -> anyhow::Result<u64> {
    let read = async {
        let mut read = columns(table.store(), file.path.clone(), file.size, Some(&OF_ROWS)).await?;
        while let Some(batch) = read.batches.try_next().await? {
            show(&Coordinates::of(&batch, OF_ROWS)?);
        }
        anyhow::Ok(read.rows)
    };
    read.await.with_context(|| format!("read the coordinates in {}", file.path))
}

/// A file's rows without those of some events, as a file of the same day and columns.
async fn rest_of(table: &Table, file: &DataFile, events: &Places) -> anyhow::Result<NewFile> {
    let stays = |batch: &RecordBatch| {
        let stays = not(&events.mask(&Coordinates::of(batch, OF_ROWS)?))?;
        anyhow::Ok(filter_record_batch(batch, &stays)?)
    };
    rewrite(table, file, stays).await
}

/// A file made of another one's rows, with the same columns and of the same day.
pub async fn rewrite(
    table: &Table,
    file: &DataFile,
    make: impl Fn(&RecordBatch) -> anyhow::Result<RecordBatch>,
) -> anyhow::Result<NewFile> {
    let mut read = columns(table.store(), file.path.clone(), file.size, None).await?;
    let mut made = Vec::new();
    while let Some(batch) = read.batches.try_next().await? {
        made.push(make(&batch)?);
    }
    let compression = Default::default();
    let encoder = Encoder::new(read.schema.clone(), writer_properties(&compression)?.build(), &compression);
    let day = file.day().with_context(|| format!("{} is of no day", file.path))?;
    let (new, bytes) = encoder.encode(day, &made)?;
    new.put(&table.store(), bytes).await?;
    Ok(new)
}
