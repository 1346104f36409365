//! The quarantine: events that cannot become rows, complete, with the reason and the plugin that rejected them. If
//! `[quarantine] unrouted` says so, also the events that no table takes.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array,
    new_null_array,
};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use silverd_core::chunk::Chunk;
use silverd_core::config::{Match, SilverTable, Test};
use silverd_core::unrouted::{NO_TABLE, UnroutedReason};

use super::side_output::{SideOutputKind, field, timestamp};
use crate::plugin::{Digest, Rejected};
use crate::runtime::clock;

pub(crate) static KIND: SideOutputKind = SideOutputKind {
    name: "quarantine",
    doc: "Events that could not become rows of a Silver table.",
    announced: "silverd-rejects",
    published: "silverd-quarantine",
    key: "rejects",
    count_key: "rejected",
    schema,
};

/// Longer reasons are cut.
const REASON_BYTES_MAX: usize = 1024;
/// Hexadecimal.
const ROUTING_ID_DIGITS: usize = 16;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        field("table", DataType::Utf8, false, "Silver table that the event was meant for, or `unrouted`: no table."),
        field(
            "code",
            DataType::Utf8,
            false,
            "Kind of fault: malformed, missing-field, out-of-range, other, trap, timeout, memory, invalid-output. Without a \
             table: empty, not-json, not-an-object, no-such-field, other-value.",
        ),
        field("reason", DataType::Utf8, false, "What is wrong, in one sentence."),
        field("plugin_digest", DataType::Utf8, false, "SHA-256 of the plugin's file; empty without a table."),
        field("cluster_id", DataType::Utf8, false, "Id of the Kafka cluster."),
        field("topic", DataType::Utf8, false, "Kafka topic."),
        field("partition", DataType::Int32, false, "Kafka partition."),
        field("offset", DataType::Int64, false, "Offset in the partition."),
        field("timestamp", timestamp(), false, "Timestamp of the record in Kafka."),
        field("key", DataType::Binary, true, "Key of the record, unchanged."),
        field("value", DataType::Binary, true, "Value of the record, unchanged."),
        field("ingested_at", timestamp(), false, "When silverd read the record from Kafka; the same as in Bronze."),
        field("quarantined_at", timestamp(), false, "When the event was rejected."),
        field("resolved_at", timestamp(), true, "When a later plugin version accepted the event; null until then."),
        field("resolution", DataType::Utf8, true, "Outcome of the event then: row, dropped, duplicate."),
    ]))
}

/// An event for the quarantine.
struct Quarantined<'q> {
    /// Its row in the chunk.
    record: u32,
    code: &'static str,
    reason: &'q str,
}

/// The rows of rejected events.
pub(crate) fn rows(table: &str, digest: &Digest, chunk: &Chunk, rejected: &[Rejected]) -> anyhow::Result<RecordBatch> {
    let quarantined = rejected.iter().map(|reject| Quarantined {
        record: reject.record,
        code: reject.code.as_str(),
        reason: &reject.reason,
    });
    rows_of(table, digest.as_str(), chunk, &quarantined.collect::<Vec<_>>())
}

/// The rows of events that no table takes.
pub(crate) fn unrouted_rows(chunk: &Chunk, unrouted: &[(u32, UnroutedReason)]) -> anyhow::Result<RecordBatch> {
    let quarantined = unrouted.iter().map(|(record, reason)| Quarantined {
        record: *record,
        code: reason.as_str(),
        reason: reason.sentence(),
    });
    rows_of(NO_TABLE, "", chunk, &quarantined.collect::<Vec<_>>())
}

fn rows_of(table: &str, digest: &str, chunk: &Chunk, events: &[Quarantined<'_>]) -> anyhow::Result<RecordBatch> {
    let records = UInt32Array::from_iter_values(events.iter().map(|event| event.record));
    let values_of = |values: &[i64]| events.iter().map(|event| values[event.record as usize]).collect::<Vec<_>>();
    // Most often all records are of one topic.
    let text_of = |column: usize| -> anyhow::Result<ArrayRef> {
        Ok(cast(&take(chunk.records.column(column), &records, None)?, &DataType::Utf8)?)
    };
    let repeated = |text: &str| Arc::new(StringArray::from(vec![text; events.len()])) as ArrayRef;
    let partitions = events.iter().map(|event| chunk.partitions()[event.record as usize]);
    let timestamps: Vec<_> = events.iter().map(|event| chunk.timestamp(event.record as usize)).collect();
    let utc = |micros: Vec<i64>| Arc::new(TimestampMicrosecondArray::from(micros).with_timezone("UTC")) as ArrayRef;
    let blobs_of = |blobs: &BinaryArray| take(blobs, &records, None);
    Ok(RecordBatch::try_new(
        schema(),
        vec![
            repeated(table),
            Arc::new(StringArray::from_iter_values(events.iter().map(|event| event.code))),
            Arc::new(StringArray::from_iter_values(events.iter().map(|event| cut(event.reason)))),
            repeated(digest),
            text_of(0)?,
            text_of(1)?,
            Arc::new(Int32Array::from_iter_values(partitions)),
            Arc::new(Int64Array::from(values_of(chunk.offsets()))),
            utc(timestamps),
            blobs_of(chunk.keys())?,
            blobs_of(chunk.values())?,
            utc(values_of(chunk.ingested_at().values())),
            utc(vec![clock::now_micros(); events.len()]),
            new_null_array(&timestamp(), events.len()),
            new_null_array(&DataType::Utf8, events.len()),
        ],
    )?)
}

/// Identifies what tables match on: whether the same events would go to no table.
pub(crate) fn routing_id(tables: &[SilverTable]) -> String {
    let matches: BTreeSet<_> = tables.iter().map(|table| words_of(&table.matches, table.tombstones)).collect();
    let mut bytes = Vec::new();
    for text in matches.iter().flatten() {
        bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    Digest::of(&bytes).as_str().chars().take(ROUTING_ID_DIGITS).collect()
}

/// A `match` as words that tell it from any other. The first of silverd's versions knew only fields with one text.
fn words_of(matches: &Match, tombstones: bool) -> Vec<String> {
    match matches {
        Match::Field(path, Test::OneOf(texts)) if path.len() == 1 && texts.len() == 1 && !tombstones => {
            vec![path[0].clone(), texts[0].clone()]
        }
        matches => vec![matches.to_string(), format!("tombstones = {tombstones}")],
    }
}

fn cut(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)]
}
