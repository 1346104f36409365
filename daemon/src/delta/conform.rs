//! Converts a plugin's rows to the columns of its table's files: columns that the plugin lacks become null, and
//! narrower types are widened. Rows that have the right columns are not copied.

use std::sync::Arc;

use anyhow::Context;
use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, StructArray, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, SchemaRef};

/// The rows with the columns of `layout`.
pub(crate) fn conform(rows: &RecordBatch, layout: &SchemaRef) -> anyhow::Result<RecordBatch> {
    if Arc::ptr_eq(rows.schema_ref(), layout) || rows.schema_ref() == layout {
        return Ok(rows.clone());
    }
    let columns = layout.fields().iter().map(|field| {
        let column = match rows.column_by_name(field.name()) {
            Some(column) => conform_array(column, field.data_type()),
            None => Ok(new_null_array(field.data_type(), rows.num_rows())),
        };
        column.with_context(|| format!("write column {}", field.name()))
    });
    Ok(RecordBatch::try_new(layout.clone(), columns.collect::<anyhow::Result<_>>()?)?)
}

fn conform_array(from: &ArrayRef, to: &DataType) -> anyhow::Result<ArrayRef> {
    Ok(match (from.data_type(), to) {
        (same, to) if same == to => from.clone(),
        (DataType::Struct(_), DataType::Struct(fields)) => {
            let from = from.as_struct();
            let columns = fields.iter().map(|field| match from.column_by_name(field.name()) {
                Some(column) => conform_array(column, field.data_type()),
                None => Ok(new_null_array(field.data_type(), from.len())),
            });
            let columns = columns.collect::<anyhow::Result<_>>()?;
            Arc::new(StructArray::try_new_with_length(fields.clone(), columns, from.nulls().cloned(), from.len())?)
        }
        (DataType::List(_), DataType::List(item)) => {
            let from = from.as_list::<i32>();
            let items = conform_array(from.values(), item.data_type())?;
            Arc::new(ListArray::try_new(item.clone(), from.offsets().clone(), items, from.nulls().cloned())?)
        }
        (_, to) => cast_with_options(from, to, &CastOptions { safe: false, ..CastOptions::default() })?,
    })
}
