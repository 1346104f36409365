//! Columns of a batch by name.

use anyhow::Context;
use arrow::array::{ArrayRef, RecordBatch};

pub(crate) fn column<'b>(batch: &'b RecordBatch, name: &str) -> anyhow::Result<&'b ArrayRef> {
    batch.column_by_name(name).with_context(|| format!("no column {name}"))
}
