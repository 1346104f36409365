//! What a plugin makes of the events of its cases.

use std::borrow::Cow;
use std::iter::Empty;

use anyhow::Context;
use arrow::array::RecordBatch;
use arrow::json::writer::{JsonArray, WriterBuilder};
use silverd_core::chunk::{Chunk, ChunkBuilder, Record};
use silverd_core::offsets::LogPartition;
use silverd_core::shadow::{Outcome, Row};

use super::case::Case;
use crate::plugin::Transformer;
use crate::sql::printable_batch;

/// The plugin's outcome for the event of a case.
pub(crate) fn outcome_of(transformer: &mut Transformer, case: &Case) -> anyhow::Result<Outcome> {
    let output = transformer.transform(&chunk_of([case]), &[0])?;
    if transformer.breaker().consecutive_faults() > 0 {
        // The cases are independent: the breaker must not count the fault of one for the next.
        *transformer = Transformer::new(transformer.plugin().clone());
    }
    if let Some(reject) = output.rejected.first() {
        return Ok(Outcome::Rejected { code: reject.code, reason: reject.reason.clone() });
    }
    let columns: Vec<_> = (0..transformer.plugin().schema.columns.len()).collect();
    let mut rows = Vec::new();
    for batch in &output.rows {
        rows.extend(json_rows(&batch.project(&columns)?)?);
    }
    Ok(if rows.is_empty() { Outcome::Dropped } else { Outcome::Rows(rows) })
}

/// A chunk of the cases' events, as if they came from Kafka.
pub(crate) fn chunk_of<'c>(cases: impl IntoIterator<Item = &'c Case>) -> Chunk {
    let (mut builder, log) = ChunkBuilder::of(&LogPartition::new("cases", "cases", 0));
    for (offset, case) in cases.into_iter().enumerate() {
        let headers: Empty<(Cow<str>, Option<&[u8]>)> = std::iter::empty();
        let (key, value) = (case.key.as_deref().map(str::as_bytes), case.value.as_deref());
        let record = Record { offset: offset as i64, timestamp: None, key, value, headers };
        builder.push(log, offset as i64, record);
    }
    builder.finish(0)
}

/// Rows as JSON: times as text, bytes in hex, nulls included.
pub(crate) fn json_rows(batch: &RecordBatch) -> anyhow::Result<Vec<Row>> {
    let mut out = Vec::new();
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(&mut out);
    writer.write(&printable_batch(batch)?)?;
    writer.finish()?;
    if out.is_empty() { Ok(Vec::new()) } else { serde_json::from_slice(&out).context("read rows as JSON") }
}
