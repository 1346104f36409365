//! The quarantine: events that could not become rows, whole, with the reason and the plugin that gave it.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array,
    new_null_array,
};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use silverd_core::chunk::Chunk;
use silverd_core::schema::COMMENT;

use crate::side::Kind;
use crate::transform::{Digest, Rejected};

pub static KIND: Kind = Kind {
    name: "quarantine",
    doc: "Events that could not become rows of a Silver table.",
    announced: "silverd-rejects",
    settled: "silverd-quarantine",
    key: "rejects",
    counted: "rejected",
    schema,
};

fn schema() -> SchemaRef {
    let timestamp = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let field = |name: &str, ty: DataType, nullable, doc: &str| {
        Field::new(name, ty, nullable).with_metadata([(COMMENT.to_owned(), doc.to_owned())].into())
    };
    Arc::new(Schema::new(vec![
        field("table", DataType::Utf8, false, "Silver table that the event was meant for."),
        field(
            "code",
            DataType::Utf8,
            false,
            "Kind of fault: malformed, missing-field, out-of-range, other, trap, timeout, memory, invalid-output.",
        ),
        field("reason", DataType::Utf8, false, "What is wrong, in a sentence."),
        field("plugin_digest", DataType::Utf8, false, "SHA-256 of the plugin's file."),
        field("cluster_id", DataType::Utf8, false, "Id of the Kafka cluster."),
        field("topic", DataType::Utf8, false, "Kafka topic."),
        field("partition", DataType::Int32, false, "Kafka partition."),
        field("offset", DataType::Int64, false, "Offset in the partition."),
        field("timestamp", timestamp.clone(), false, "Time that Kafka has for the record."),
        field("key", DataType::Binary, true, "Key of the record, as it came."),
        field("value", DataType::Binary, true, "Value of the record, as it came."),
        field(
            "ingested_at",
            timestamp.clone(),
            false,
            "When silverd took the record from Kafka; the same as in Bronze.",
        ),
        field("quarantined_at", timestamp.clone(), false, "When the plugin gave its verdict."),
        field("resolved_at", timestamp, true, "When a later plugin took the event; null while it waits here."),
        field("resolution", DataType::Utf8, true, "What that plugin made of it: row, dropped, duplicate."),
    ]))
}

/// The rows of rejected events.
pub fn rows(table: &str, digest: &Digest, chunk: &Chunk, rejected: &[Rejected]) -> anyhow::Result<RecordBatch> {
    let records = UInt32Array::from_iter_values(rejected.iter().map(|reject| reject.record));
    let of = |values: &[i64]| rejected.iter().map(|reject| values[reject.record as usize]).collect::<Vec<_>>();
    let (cluster, topic) =
        chunk.ranges.iter().next().map(|(log, _)| (log.cluster.to_string(), log.topic.to_string())).unwrap_or_default();
    let repeated = |text: &str| Arc::new(StringArray::from(vec![text; rejected.len()])) as ArrayRef;
    let partitions = rejected.iter().map(|reject| chunk.partitions()[reject.record as usize]);
    let timestamps: Vec<_> = rejected.iter().map(|reject| chunk.timestamp(reject.record as usize)).collect();
    let utc = |micros: Vec<i64>| Arc::new(TimestampMicrosecondArray::from(micros).with_timezone("UTC")) as ArrayRef;
    let blobs = |blobs: &BinaryArray| take(blobs, &records, None);
    Ok(RecordBatch::try_new(
        schema(),
        vec![
            repeated(table),
            Arc::new(StringArray::from_iter_values(rejected.iter().map(|reject| reject.code.as_str()))),
            Arc::new(StringArray::from_iter_values(rejected.iter().map(|reject| short(&reject.reason)))),
            repeated(digest.as_str()),
            repeated(&cluster),
            repeated(&topic),
            Arc::new(Int32Array::from_iter_values(partitions)),
            Arc::new(Int64Array::from(of(chunk.offsets()))),
            utc(timestamps),
            blobs(chunk.keys())?,
            blobs(chunk.values())?,
            utc(of(chunk.ingested_at().values())),
            utc(vec![crate::clock::now_micros(); rejected.len()]),
            new_null_array(schema().field(13).data_type(), rejected.len()),
            new_null_array(&DataType::Utf8, rejected.len()),
        ],
    )?)
}

/// A reason is a sentence; a guest that writes a book is cut short.
fn short(reason: &str) -> &str {
    const REASON_BYTES_MAX: usize = 1024;
    &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)]
}
