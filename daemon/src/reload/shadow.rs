//! The shadow run: the old and the new version on the table's newest events. Writes nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use arrow::json::writer::{JsonArray, WriterBuilder};
use silverd_core::chunk::{Chunk, column};
use silverd_core::schema::added;
use silverd_core::shadow::{Fate, Judged, Row, Shadow};

use crate::telemetry::thread_cpu;
use crate::transform::{Plugin, Transformer, Tripped, Verdicts};

/// Compares two versions on some events; `None` if the old one gives no verdicts on them.
///
/// # Errors
///
/// If the new one fails on everything.
pub fn run(old: &Arc<Plugin>, new: &Arc<Plugin>, events: &Chunk) -> anyhow::Result<Option<Shadow>> {
    let (after, new_took) = judge(new, events)?;
    let (before, old_took) = match judge(old, events) {
        Ok(judged) => judged,
        Err(failure) if failure.is::<Tripped>() => return Ok(None),
        Err(failure) => return Err(failure.context("run the version that serves")),
    };
    let after = fates(events, &after)?.into_iter();
    let judged =
        fates(events, &before)?.into_iter().zip(after).map(|((place, old), (_, new))| Judged { place, old, new });
    Ok(Some(Shadow::compare(&judged.collect::<Vec<_>>(), old_took, new_took)))
}

/// A version's verdicts, and the CPU time that it took over them, once it is warm.
fn judge(plugin: &Arc<Plugin>, events: &Chunk) -> anyhow::Result<(Verdicts, Duration)> {
    let records: Vec<u32> = (0..events.records.num_rows() as u32).collect();
    let mut transformer = Transformer::new(plugin.clone());
    transformer.start()?;
    let before = thread_cpu();
    let verdicts = transformer.transform(events, &records)?;
    Ok((verdicts, thread_cpu().saturating_sub(before)))
}

/// What became of each event of a chunk, with its place, in the order of the events.
pub fn fates(events: &Chunk, verdicts: &Verdicts) -> anyhow::Result<Vec<(String, Fate)>> {
    let mut rows = HashMap::<String, Vec<Row>>::new();
    for batch in &verdicts.rows {
        let places = places(batch, [added::TOPIC, added::PARTITION, added::OFFSET])?;
        let own: Vec<_> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
        let own = own.iter().enumerate().filter(|(_, name)| !ADDED.contains(&name.as_str())).map(|(at, _)| at);
        let batch = batch.project(&own.collect::<Vec<_>>())?;
        for (place, row) in places.into_iter().zip(json_rows(&batch)?) {
            rows.entry(place).or_default().push(row);
        }
    }
    let mut rejected: HashMap<u32, Fate> = HashMap::new();
    for reject in &verdicts.rejected {
        let fate = Fate::Rejected { code: reject.code.as_str().to_owned(), reason: reject.reason.clone() };
        rejected.insert(reject.record, fate);
    }
    let places = places(&events.records, [column::TOPIC, column::PARTITION, column::OFFSET])?;
    let fate = |(record, place): (usize, String)| {
        let fate = match (rejected.remove(&(record as u32)), rows.remove(&place)) {
            (Some(reject), _) => reject,
            (None, Some(rows)) => Fate::Rows(rows),
            (None, None) => Fate::Dropped,
        };
        (place, fate)
    };
    Ok(places.into_iter().enumerate().map(fate).collect())
}

/// The columns that are the same whatever version made the row.
const ADDED: [&str; 5] = [added::CLUSTER_ID, added::TOPIC, added::PARTITION, added::OFFSET, added::INGESTED_AT];

/// `topic/partition:offset` of each row.
fn places(batch: &RecordBatch, names: [&str; 3]) -> anyhow::Result<Vec<String>> {
    let [topics, partitions, offsets] = names.map(|name| batch.column_by_name(name).context("no column of origin"));
    let topics = cast(topics?, &DataType::Utf8)?;
    let (topics, partitions, offsets) =
        (topics.as_string::<i32>(), partitions?.as_primitive::<Int32Type>(), offsets?.as_primitive::<Int64Type>());
    let of = |row| format!("{}/{}:{}", topics.value(row), partitions.value(row), offsets.value(row));
    Ok((0..batch.num_rows()).map(of).collect())
}

/// Rows as JSON: times as text, bytes in hex, nulls written out.
pub fn json_rows(batch: &RecordBatch) -> anyhow::Result<Vec<Row>> {
    let mut out = Vec::new();
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(&mut out);
    writer.write(batch)?;
    writer.finish()?;
    if out.is_empty() { Ok(Vec::new()) } else { serde_json::from_slice(&out).context("read rows as JSON") }
}
