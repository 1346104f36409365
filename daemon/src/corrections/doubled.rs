//! Rows of a table that a side output has twice. While a Silver table's log had lost its progress unnoticed, silverd processed
//! events a second time, and listed their rejects and late events again. A rebuild of everything removes the second rows, in a
//! commit of the side output.
//!
//! | rows of an event in         | one of several stays                                            |
//! |-----------------------------|-----------------------------------------------------------------|
//! | the table of late events    | the first                                                       |
//! | the quarantine, unresolved  | the first                                                       |
//! | the quarantine, resolved    | all: an event may be rejected again after it was resolved       |

use anyhow::Context;
use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use futures::TryStreamExt;
use serde_json::json;

use super::Correction;
use super::commit::commit_change;
use super::quarantined::unresolved;
use super::scope::rewrite;
use crate::delta::{Change, DataFile, Table, is_table, read_columns};
use crate::tables::event_set::{Coordinates, EventSet, RECORD_COORDINATES};
use crate::tables::side_output::SideOutput;

impl Correction {
    /// Removes the table's rows that a side output has twice. Returns how many these are, for each that had some.
    pub(super) async fn remove_doubled(&self, dry_run: bool) -> anyhow::Result<Vec<(&'static str, u64)>> {
        let mut removed = Vec::new();
        for (kind, path) in self.side_outputs.iter().filter(|(_, path)| is_table(path)) {
            let output = SideOutput::open(kind, path.clone()).await?;
            // Nothing is committed to one that has lost its progress, which opening it has logged.
            if output.check_progress().await.is_err() {
                continue;
            }
            let rows = remove_second_rows(&output, &self.config.name, dry_run).await;
            let rows = rows.with_context(|| format!("remove rows that the table {} has twice", kind.name))?;
            if rows > 0 {
                removed.push((kind.name, rows));
            }
        }
        Ok(removed)
    }
}

async fn remove_second_rows(output: &SideOutput, table: &str, dry_run: bool) -> anyhow::Result<u64> {
    let mut guard = output.table().await;
    commit_change(&mut guard, async |guard| {
        let mut files = guard.files().await?;
        files.sort_by(|a, b| (a.modified_ms, &a.path).cmp(&(b.modified_ms, &b.path)));
        let (mut seen, mut change, mut doubled) = (EventSet::default(), Change::default(), 0);
        for file in files {
            let second = second_rows(guard, &file, table, &mut seen).await?;
            let count = second.iter().filter(|is_second| **is_second).count();
            doubled += count as u64;
            if count == 0 || dry_run {
                continue;
            }
            if count < second.len() {
                let mut at = 0;
                let without_second = |batch: &RecordBatch| {
                    let of_batch = &second[at..at + batch.num_rows()];
                    at += batch.num_rows();
                    let kept: BooleanArray = of_batch.iter().map(|is_second| Some(!*is_second)).collect();
                    anyhow::Ok(filter_record_batch(batch, &kept)?)
                };
                change.adds.push(rewrite(guard, &file, without_second).await?);
            }
            change.removes.push(file);
        }
        change.info = json!({ "table": table, "doubled": doubled });
        Ok((change, doubled))
    })
    .await
}

/// For each row of a file, whether it is one more of an event that was `seen`.
async fn second_rows(
    side_output: &Table,
    file: &DataFile,
    table: &str,
    seen: &mut EventSet,
) -> anyhow::Result<Vec<bool>> {
    let names = ["table", "resolved_at"].into_iter().chain(RECORD_COORDINATES).collect::<Vec<_>>();
    let mut read = read_columns(side_output.store(), file, Some(&names)).await?;
    let mut second = Vec::new();
    while let Some(batch) = read.batches.try_next().await? {
        let coordinates = Coordinates::of(&batch, RECORD_COORDINATES)?;
        second.extend(seen.insert_again(&coordinates, &unresolved(&batch, table)?));
    }
    Ok(second)
}
