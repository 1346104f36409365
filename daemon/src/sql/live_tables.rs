//! `live.<name>` in the process that runs the dashboard's queries: a copy of the daemon's newest rows, which gets each
//! batch once.

use std::collections::{BTreeMap, VecDeque};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};

use crate::sql_engine::batches;
use crate::tables::recent_rows::NewRows;

/// What has changed of a table's newest rows. The batches are an attachment, if there are any.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LiveUpdate {
    table: String,
    /// The oldest batch that is kept.
    first: u64,
    has_batches: bool,
}

/// The newest rows of all tables.
#[derive(Default)]
pub(super) struct LiveTables(BTreeMap<String, VecDeque<(u64, RecordBatch)>>);

/// An update, and the batches that it brings.
pub(super) fn update(table: &str, rows: &NewRows) -> anyhow::Result<(LiveUpdate, Option<Vec<u8>>)> {
    let attachment = batches::encode(&rows.batches)?;
    Ok((LiveUpdate { table: table.to_owned(), first: rows.first, has_batches: attachment.is_some() }, attachment))
}

impl LiveTables {
    /// Takes in updates, in the order of their attachments.
    pub(super) fn apply(&mut self, updates: Vec<LiveUpdate>, attachments: Vec<Vec<u8>>) -> anyhow::Result<()> {
        let mut attachments = attachments.into_iter();
        for update in updates {
            let kept = self.0.entry(update.table).or_default();
            while kept.front().is_some_and(|(number, _)| *number < update.first) {
                kept.pop_front();
            }
            if !update.has_batches {
                continue;
            }
            let bytes = attachments.next().unwrap_or_default();
            for batch in batches::decode(&bytes)? {
                let number = kept.back().map_or(update.first, |(number, _)| number + 1);
                kept.push_back((number, batch));
            }
        }
        Ok(())
    }

    /// The columns of a table and its newest rows; `None` before its first row.
    pub(super) fn of(&self, table: &str) -> Option<(SchemaRef, Vec<RecordBatch>)> {
        let kept = self.0.get(table)?;
        let schema = kept.front()?.1.schema();
        Some((schema, kept.iter().map(|(_, batch)| batch.clone()).collect()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use arrow::array::Int64Array;

    use super::*;

    fn batch(name: &str, value: i64) -> RecordBatch {
        RecordBatch::try_from_iter([(name, Arc::new(Int64Array::from(vec![value])) as _)]).unwrap()
    }

    fn send(tables: &mut LiveTables, first: u64, batches: &[RecordBatch]) {
        let (update, attachment) = update("t", &NewRows { first, batches: batches.to_vec() }).unwrap();
        tables.apply(vec![update], attachment.into_iter().collect()).unwrap();
    }

    #[test]
    fn each_batch_is_sent_once_and_old_ones_leave() {
        let mut tables = LiveTables::default();
        assert!(tables.of("t").is_none());
        send(&mut tables, 3, &[batch("a", 3), batch("a", 4)]);
        send(&mut tables, 3, &[]);
        send(&mut tables, 4, &[batch("a", 5)]);
        assert_eq!(tables.of("t").unwrap().1, [batch("a", 4), batch("a", 5)]);
        // Other columns: all older rows leave.
        send(&mut tables, 6, &[batch("b", 6)]);
        assert_eq!(tables.of("t").unwrap(), (batch("b", 0).schema(), vec![batch("b", 6)]));
    }
}
