//! The late events: which rows arrived how long after their event time, and from where.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, UInt32Array, new_null_array};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Schema, SchemaRef, TimestampMicrosecondType};
use silverd_core::config::SilverTable;
use silverd_core::schema::added;

use super::column::column;
use super::event_set::{Coordinates, ROW_COORDINATES};
use super::side_output::{SideOutputKind, field, timestamp};
use crate::plugin::TransformOutput;

pub(crate) static KIND: SideOutputKind = SideOutputKind {
    name: "late",
    doc: "Events that were older than their table's `late_after` when they arrived. Their rows are in the table, too.",
    announced: "silverd-late",
    published: "silverd-late-of",
    key: "late",
    count_key: "late",
    schema,
};

/// The column with the event's id, which a Silver table may have.
const EVENT_ID: &str = "event_id";

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        field("table", DataType::Utf8, false, "Silver table that has the event's row."),
        field("event_id", DataType::Utf8, true, "The row's event_id; null if the table has no such column."),
        field("cluster_id", DataType::Utf8, false, "Id of the Kafka cluster."),
        field("topic", DataType::Utf8, false, "Kafka topic."),
        field("partition", DataType::Int32, false, "Kafka partition."),
        field("offset", DataType::Int64, false, "Offset in the partition."),
        field("event_time", timestamp(), false, "Event time of the row."),
        field("arrived_at", timestamp(), false, "When silverd read the event from Kafka."),
        field("lateness_ms", DataType::Int64, false, "Milliseconds from event_time to arrived_at."),
    ]))
}

/// Finds the late events among the rows of a chunk, counts them, and returns the rows for the side output.
pub(crate) fn find(config: &SilverTable, output: &mut TransformOutput) -> anyhow::Result<Option<RecordBatch>> {
    let Some(late_after_ms) = config.late_after_ms else { return Ok(None) };
    let late_after = i64::try_from(late_after_ms).unwrap_or(i64::MAX).saturating_mul(1000);
    let mut found = Vec::new();
    for batch in &output.rows {
        let late = late_rows(batch, &config.event_time, late_after)?;
        if !late.is_empty() {
            found.push(side_output_rows(&config.name, batch, late, &config.event_time)?);
        }
    }
    if found.is_empty() {
        return Ok(None);
    }
    let rows = concat_batches(&schema(), &found)?;
    output.counts.late = rows.num_rows() as u64;
    Ok(Some(rows))
}

/// The first row of each event that arrived more than `late_after` microseconds after its event time.
fn late_rows(batch: &RecordBatch, event_time: &str, late_after: i64) -> anyhow::Result<Vec<u32>> {
    let times = column(batch, event_time)?.as_primitive::<TimestampMicrosecondType>().values();
    let arrived = column(batch, added::INGESTED_AT)?.as_primitive::<TimestampMicrosecondType>().values();
    let mut late: Vec<usize> =
        (0..times.len()).filter(|row| arrived[*row].saturating_sub(times[*row]) > late_after).collect();
    if !late.is_empty() {
        let coordinates = Coordinates::of(batch, ROW_COORDINATES)?;
        late.retain(|row| *row == 0 || !coordinates.are_equal(*row - 1, *row));
    }
    Ok(late.into_iter().map(|row| row as u32).collect())
}

/// The side output's rows for the rows `late` of a batch of the Silver table.
fn side_output_rows(table: &str, batch: &RecordBatch, late: Vec<u32>, event_time: &str) -> anyhow::Result<RecordBatch> {
    let rows = take_record_batch(batch, &UInt32Array::from(late))?;
    let text = |name: &str| anyhow::Ok(cast(column(&rows, name)?, &DataType::Utf8)?);
    let (times, arrived) = (column(&rows, event_time)?, column(&rows, added::INGESTED_AT)?);
    let micros = |array: &ArrayRef| array.as_primitive::<TimestampMicrosecondType>().values().to_vec();
    let lateness = micros(times).into_iter().zip(micros(arrived)).map(|(time, arrived)| arrived.saturating_sub(time));
    let event_id = match rows.column_by_name(EVENT_ID) {
        Some(ids) if ids.data_type() == &DataType::Utf8 => ids.clone(),
        _ => new_null_array(&DataType::Utf8, rows.num_rows()),
    };
    Ok(RecordBatch::try_new(
        schema(),
        vec![
            Arc::new(StringArray::from(vec![table; rows.num_rows()])),
            event_id,
            text(added::CLUSTER_ID)?,
            text(added::TOPIC)?,
            column(&rows, added::PARTITION)?.clone(),
            column(&rows, added::OFFSET)?.clone(),
            times.clone(),
            arrived.clone(),
            Arc::new(Int64Array::from_iter_values(lateness.map(|micros| micros / 1000))),
        ],
    )?)
}
