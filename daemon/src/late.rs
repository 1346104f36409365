//! The table of late events: which rows came how long after their time, and from where.

use std::sync::Arc;

use anyhow::Context;
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, UInt32Array, new_null_array};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use silverd_core::config::SilverTable;
use silverd_core::schema::{COMMENT, added};

use crate::side::Kind;
use crate::transform::Verdicts;

pub static KIND: Kind = Kind {
    name: "late",
    doc: "Events that were older than their table's `late_after` when they came. They have their rows all the same.",
    announced: "silverd-late",
    settled: "silverd-late-of",
    key: "late",
    counted: "late",
    schema,
};

/// The column of a Silver table that names the event, where there is one.
const EVENT_ID: &str = "event_id";

fn schema() -> SchemaRef {
    let timestamp = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let field = |name: &str, ty: DataType, nullable, doc: &str| {
        Field::new(name, ty, nullable).with_metadata([(COMMENT.to_owned(), doc.to_owned())].into())
    };
    Arc::new(Schema::new(vec![
        field("table", DataType::Utf8, false, "Silver table that has the event's row."),
        field("event_id", DataType::Utf8, true, "The row's event_id; null where the table has no such column."),
        field("cluster_id", DataType::Utf8, false, "Id of the Kafka cluster."),
        field("topic", DataType::Utf8, false, "Kafka topic."),
        field("partition", DataType::Int32, false, "Kafka partition."),
        field("offset", DataType::Int64, false, "Offset in the partition."),
        field("event_time", timestamp(), false, "When the event happened, by its own account."),
        field("arrived_at", timestamp(), false, "When silverd took the event from Kafka."),
        field("lateness_ms", DataType::Int64, false, "Milliseconds from the one to the other."),
    ]))
}

/// Finds the late events among the rows of a chunk, counts them, and makes the rows of the audit.
pub fn find(config: &SilverTable, verdicts: &mut Verdicts) -> anyhow::Result<Option<RecordBatch>> {
    let Some(late_after_ms) = config.late_after_ms else { return Ok(None) };
    let late_after = i64::try_from(late_after_ms).unwrap_or(i64::MAX).saturating_mul(1000);
    let mut found = Vec::new();
    for batch in &verdicts.rows {
        let late = late_rows(batch, &config.event_date, late_after)?;
        if !late.is_empty() {
            found.push(rows(&config.name, batch, late, &config.event_date)?);
        }
    }
    if found.is_empty() {
        return Ok(None);
    }
    let rows = concat_batches(&schema(), &found)?;
    verdicts.counts.late = rows.num_rows() as u64;
    Ok(Some(rows))
}

/// The first row of each event that came later than `late_after` microseconds.
fn late_rows(batch: &RecordBatch, event_date: &str, late_after: i64) -> anyhow::Result<Vec<u32>> {
    let column = |name: &str| batch.column_by_name(name).with_context(|| format!("no column {name}"));
    let times = column(event_date)?.as_primitive::<TimestampMicrosecondType>().values();
    let arrived = column(added::INGESTED_AT)?.as_primitive::<TimestampMicrosecondType>().values();
    let partitions = column(added::PARTITION)?.as_primitive::<Int32Type>().values();
    let offsets = column(added::OFFSET)?.as_primitive::<Int64Type>().values();
    let first = |row: usize| row == 0 || (partitions[row - 1], offsets[row - 1]) != (partitions[row], offsets[row]);
    let late = (0..times.len()).filter(|row| arrived[*row].saturating_sub(times[*row]) > late_after && first(*row));
    Ok(late.map(|row| row as u32).collect())
}

/// The audit of the rows `late` of a batch of the table's rows.
fn rows(table: &str, batch: &RecordBatch, late: Vec<u32>, event_date: &str) -> anyhow::Result<RecordBatch> {
    let rows = take_record_batch(batch, &UInt32Array::from(late))?;
    let column = |name: &str| rows.column_by_name(name).with_context(|| format!("no column {name}"));
    let text = |name: &str| anyhow::Ok(cast(column(name)?, &DataType::Utf8)?);
    let (times, arrived) = (column(event_date)?, column(added::INGESTED_AT)?);
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
            column(added::PARTITION)?.clone(),
            column(added::OFFSET)?.clone(),
            times.clone(),
            arrived.clone(),
            Arc::new(Int64Array::from_iter_values(lateness.map(|micros| micros / 1000))),
        ],
    )?)
}
