//! The shadow run: transforms a table's newest events with the current and the new plugin version, and compares the
//! outcomes. It writes nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use silverd_core::chunk::{Chunk, column};
use silverd_core::schema::added;
use silverd_core::shadow::{EventOutcomes, Outcome, Row, Shadow};

use crate::cases::json_rows;
use crate::plugin::{Plugin, TransformError, TransformOutput, Transformer};
use crate::telemetry::thread_cpu;

/// Compares two versions on some events; `None` if the old one fails on all of them.
///
/// # Errors
///
/// If the new one fails on all of them.
pub(crate) fn shadow_run(old: &Arc<Plugin>, new: &Arc<Plugin>, events: &Chunk) -> anyhow::Result<Option<Shadow>> {
    let (new_output, new_took) = transform(new, events)?;
    let (old_output, old_took) = match transform(old, events) {
        Ok(result) => result,
        Err(TransformError::Tripped(_)) => return Ok(None),
        Err(TransformError::Failed(failure)) => return Err(failure.context("run the current version")),
    };
    let old_outcomes = outcomes(events, &old_output)?.into_iter();
    let new_outcomes = outcomes(events, &new_output)?.into_iter();
    let pairs: Vec<_> = old_outcomes
        .zip(new_outcomes)
        .map(|((position, old), (_, new))| EventOutcomes { position, old, new })
        .collect();
    Ok(Some(Shadow::compare(&pairs, old_took, new_took)))
}

/// A version's output, and the CPU time that it took without its start.
fn transform(plugin: &Arc<Plugin>, events: &Chunk) -> Result<(TransformOutput, Duration), TransformError> {
    let records: Vec<u32> = (0..events.records.num_rows() as u32).collect();
    let mut transformer = Transformer::new(plugin.clone());
    transformer.start()?;
    let before = thread_cpu();
    let output = transformer.transform(events, &records)?;
    Ok((output, thread_cpu().saturating_sub(before)))
}

/// The position and the outcome of each event of a chunk, in the order of the events.
fn outcomes(events: &Chunk, output: &TransformOutput) -> anyhow::Result<Vec<(String, Outcome)>> {
    let mut rows = HashMap::<String, Vec<Row>>::new();
    for batch in &output.rows {
        let positions = positions(batch, [added::TOPIC, added::PARTITION, added::OFFSET])?;
        let batch = without_added_columns(batch)?;
        for (position, row) in positions.into_iter().zip(json_rows(&batch)?) {
            rows.entry(position).or_default().push(row);
        }
    }
    let mut rejected: HashMap<u32, Outcome> = HashMap::new();
    for reject in &output.rejected {
        let outcome = Outcome::Rejected { code: reject.code, reason: reject.reason.clone() };
        rejected.insert(reject.record, outcome);
    }
    let positions = positions(&events.records, [column::TOPIC, column::PARTITION, column::OFFSET])?;
    let outcome = |(record, position): (usize, String)| {
        let outcome = match (rejected.remove(&(record as u32)), rows.remove(&position)) {
            (Some(reject), _) => reject,
            (None, Some(rows)) => Outcome::Rows(rows),
            (None, None) => Outcome::Dropped,
        };
        (position, outcome)
    };
    Ok(positions.into_iter().enumerate().map(outcome).collect())
}

/// The columns that silverd adds to each row: they do not depend on the plugin version.
const ADDED_COLUMNS: [&str; 5] = [added::CLUSTER_ID, added::TOPIC, added::PARTITION, added::OFFSET, added::INGESTED_AT];

fn without_added_columns(batch: &RecordBatch) -> anyhow::Result<RecordBatch> {
    let schema = batch.schema();
    let fields = schema.fields().iter().enumerate();
    let kept = fields.filter(|(_, field)| !ADDED_COLUMNS.contains(&field.name().as_str())).map(|(index, _)| index);
    Ok(batch.project(&kept.collect::<Vec<_>>())?)
}

/// `topic/partition:offset` of each row.
fn positions(batch: &RecordBatch, names: [&str; 3]) -> anyhow::Result<Vec<String>> {
    let [topics, partitions, offsets] =
        names.map(|name| batch.column_by_name(name).with_context(|| format!("find column `{name}`")));
    let topics = cast(topics?, &DataType::Utf8)?;
    let (topics, partitions, offsets) =
        (topics.as_string::<i32>(), partitions?.as_primitive::<Int32Type>(), offsets?.as_primitive::<Int64Type>());
    let position = |row| format!("{}/{}:{}", topics.value(row), partitions.value(row), offsets.value(row));
    Ok((0..batch.num_rows()).map(position).collect())
}
