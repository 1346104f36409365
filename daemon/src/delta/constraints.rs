//! CHECK constraints and invariants that another engine gave a table: a commit whose rows violate one is refused, as that
//! engine does it.

use std::sync::Arc;

use anyhow::{Context, bail};
use arrow::array::{AsArray, Date32Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::prelude::{SessionConfig, SessionContext};
use deltalake_core::logstore::ObjectStoreRef;
use futures::TryStreamExt;

use super::data_file::DataFile;
use super::day::EVENT_DATE;
use super::features::Constraint;
use super::file::NewFile;
use super::parquet_reader::read_columns;
use crate::sql_engine::{bounded_context, read_only};

/// The name of the rows in the query.
const ROWS: &str = "silverd_rows";
const MEMORY_BYTES_MAX: usize = 64 << 20;

/// Fails if a row of the files violates a constraint.
pub(super) async fn check(constraints: &[Constraint], store: &ObjectStoreRef, files: &[NewFile]) -> anyhow::Result<()> {
    let session = bounded_context(MEMORY_BYTES_MAX, SessionConfig::new().with_target_partitions(1))?;
    for file in files {
        let file = DataFile::from(file);
        let mut read = read_columns(store.clone(), &file, None).await?;
        while let Some(batch) = read.batches.try_next().await? {
            if batch.num_rows() == 0 {
                continue;
            }
            let batch = with_day(&batch, file.day())?;
            session.register_batch(ROWS, batch.clone())?;
            for constraint in constraints {
                check_batch(&session, constraint, &batch).await?;
            }
            session.deregister_table(ROWS)?;
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

async fn check_batch(session: &SessionContext, constraint: &Constraint, batch: &RecordBatch) -> anyhow::Result<()> {
    let Constraint { name, sql } = constraint;
    let holds = async {
        // As in Spark, a row for which it is null violates it.
        let query = format!("SELECT coalesce(({sql}), false) AS holds FROM {ROWS}");
        let found = session.sql_with_options(&query, read_only()).await?.collect().await?;
        let schema = found.first().context("no row")?.schema();
        let found = concat_batches(&schema, &found)?;
        found.column(0).as_boolean_opt().cloned().context("it is no condition")
    };
    let holds = holds.await.with_context(|| {
        format!(
            "another engine gave the table the constraint `{name}` ({sql}), which silverd cannot check. Drop it there (in \
             Spark: ALTER TABLE … DROP CONSTRAINT {name})"
        )
    })?;
    let violations: Vec<_> = (0..holds.len()).filter(|row| !holds.value(*row)).collect();
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
