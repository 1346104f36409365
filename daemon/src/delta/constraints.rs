//! CHECK constraints and invariants that another engine gave a table: a commit whose rows violate one is refused, as that
//! engine does it.

use std::sync::Arc;

use anyhow::{Context, bail};
use arrow::array::{Array, AsArray, Date32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::DFSchema;
use datafusion::prelude::SessionContext;
use deltalake_core::logstore::ObjectStoreRef;
use futures::TryStreamExt;

use super::data_file::DataFile;
use super::day::EVENT_DATE;
use super::features::Constraint;
use super::file::NewFile;
use super::parquet_reader::read_columns;

/// Fails if a row of the files violates a constraint.
pub(super) async fn check(constraints: &[Constraint], store: &ObjectStoreRef, files: &[NewFile]) -> anyhow::Result<()> {
    let session = SessionContext::new();
    for file in files {
        let file = DataFile::from(file);
        let mut read = read_columns(store.clone(), &file, None).await?;
        while let Some(batch) = read.batches.try_next().await? {
            let batch = with_day(&batch, file.day())?;
            for constraint in constraints {
                check_batch(&session, constraint, &batch)?;
            }
        }
    }
    Ok(())
}

fn with_day(batch: &RecordBatch, day: Option<i32>) -> anyhow::Result<RecordBatch> {
    let mut fields: Vec<_> = batch.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(EVENT_DATE, DataType::Date32, true)));
    let mut columns = batch.columns().to_vec();
    columns.push(Arc::new(Date32Array::from(vec![day; batch.num_rows()])));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

fn check_batch(session: &SessionContext, constraint: &Constraint, batch: &RecordBatch) -> anyhow::Result<()> {
    let Constraint { name, sql } = constraint;
    let holds = || {
        let schema = DFSchema::try_from(batch.schema())?;
        let condition = session.create_physical_expr(session.parse_sql_expr(sql, &schema)?, &schema)?;
        condition.evaluate(batch)?.into_array(batch.num_rows())
    };
    let holds = holds().with_context(|| {
        format!(
            "another engine gave the table the constraint `{name}` ({sql}), which silverd cannot check. Drop it there (in \
             Spark: ALTER TABLE … DROP CONSTRAINT {name})"
        )
    })?;
    let holds = holds.as_boolean_opt().context("the constraint is no condition")?;
    // As in Spark, a row for which it is null violates it.
    let violations: Vec<_> = (0..holds.len()).filter(|row| !(holds.is_valid(*row) && holds.value(*row))).collect();
    let Some(first) = violations.first() else { return Ok(()) };
    bail!(
        "{} of {} rows violate the constraint `{name}` ({sql}) that another engine gave the table; the first is {}. silverd \
         commits none of them. Mend the plugin or the SQL of the table, or drop the constraint there (in Spark: ALTER TABLE … \
         DROP CONSTRAINT {name})",
        violations.len(),
        holds.len(),
        position(batch, *first)
    )
}

/// Which event a row is of.
fn position(batch: &RecordBatch, row: usize) -> String {
    let text = |names: [&str; 2]| {
        let column = names.into_iter().find_map(|name| batch.column_by_name(name))?;
        arrow::util::display::array_value_to_string(column, row).ok()
    };
    let parts = [["_topic", "topic"], ["_partition", "partition"], ["_offset", "offset"]].map(text);
    match parts {
        [Some(topic), Some(partition), Some(offset)] => format!("of {topic}, partition {partition}, offset {offset}"),
        _ => format!("row {row}"),
    }
}
