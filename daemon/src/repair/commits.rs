//! What Bronze's log says of the records of damaged files: which offsets its commits covered, and when silverd took their
//! records from Kafka. A record that is read again keeps that time, so that rows of Silver are equal to those before.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use arrow::array::{RecordBatch, TimestampMicrosecondArray};
use chrono::DateTime;
use deltalake_core::logstore::LogStoreRef;
use object_store::ObjectStoreExt;
use serde::Deserialize;
use serde_json::Value;
use silverd_core::chunk::{Chunk, column};
use silverd_core::offsets::{LogPartition, OffsetRange};

use crate::bronze::read_ranges;
use crate::delta::{DataFile, list_log};
use crate::tables::event_set::{Coordinates, EventSet, RECORD_COORDINATES};

/// The commits to Bronze that covered some offsets.
pub(super) struct BronzeCommits {
    /// When the records of ranges were taken from Kafka, in microseconds. The ranges are in order.
    ingested_at: BTreeMap<LogPartition, Vec<(OffsetRange, i64)>>,
    /// Offsets that no commit covers.
    never_read: EventSet,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    add: Option<Add>,
    commit_info: Option<CommitInfo>,
}

#[derive(Deserialize)]
struct Add {
    stats: Option<String>,
}

#[derive(Deserialize)]
struct CommitInfo {
    #[serde(default)]
    silverd: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    min_values: Times,
    max_values: Times,
}

#[derive(Deserialize)]
struct Times {
    ingested_at: String,
}

impl BronzeCommits {
    /// Reads Bronze's log from its end, until it has found the commits of all these offsets.
    pub(super) async fn read(log: &LogStoreRef, offsets: &EventSet) -> anyhow::Result<Self> {
        let store = log.object_store(None);
        let (mut missing, mut ingested_at) = (offsets.clone(), BTreeMap::<_, Vec<_>>::new());
        let commits = list_log(store.as_ref()).await?.commits;
        for (version, path) in commits.iter().rev() {
            if missing.is_empty() {
                break;
            }
            let read = async { anyhow::Ok(store.get(path).await?.bytes().await?) };
            let entry = read.await.with_context(|| format!("read commit {version}"))?;
            let (ranges, time) = parse(&entry).with_context(|| format!("read commit {version}"))?;
            for (log, range) in read_ranges(&ranges).iter() {
                if missing.remove_range(log, range) > 0
                    && let Some(time) = time
                {
                    ingested_at.entry(log.clone()).or_default().push((range, time));
                }
            }
        }
        // What entries covered that were cleaned up, is unknown.
        let is_complete = commits.contains_key(&0);
        ingested_at.values_mut().for_each(|ranges| ranges.sort_by_key(|(range, _)| range.start));
        Ok(Self { ingested_at, never_read: if is_complete { missing } else { EventSet::default() } })
    }

    /// Offsets that no commit covers.
    pub(super) fn never_read(&self) -> &EventSet {
        &self.never_read
    }

    /// The chunk with the times at which its records were first taken from Kafka: where the log does not say it, with
    /// `otherwise`.
    pub(super) fn with_ingestion(&self, chunk: Chunk, otherwise: i64) -> anyhow::Result<Chunk> {
        let records = Coordinates::of(&chunk.records, RECORD_COORDINATES)?;
        let mut times = vec![otherwise; records.rows()];
        for (log, rows) in records.runs() {
            for row in rows {
                if let Some(time) = self.ingested_at(&log, records.offset(row)) {
                    times[row] = time;
                }
            }
        }
        let schema = chunk.records.schema();
        let mut columns = chunk.records.columns().to_vec();
        columns[schema.index_of(column::INGESTED_AT)?] =
            Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"));
        Ok(Chunk { records: RecordBatch::try_new(schema, columns)?, ranges: chunk.ranges })
    }

    fn ingested_at(&self, log: &LogPartition, offset: i64) -> Option<i64> {
        let ranges = self.ingested_at.get(log)?;
        let after = ranges.partition_point(|(range, _)| range.start <= offset);
        let (range, time) = ranges.get(after.checked_sub(1)?)?;
        range.contains(offset).then_some(*time)
    }
}

/// The newest time at which silverd took a record of a file from Kafka, in microseconds, if its statistics say it.
pub(super) fn newest_ingestion(file: &DataFile) -> Option<i64> {
    times_of(file.stats.as_deref()).map(|(_, newest)| newest)
}

/// The ranges of a commit, and the time at which all its records were taken from Kafka, if it is one.
fn parse(entry: &[u8]) -> anyhow::Result<(Value, Option<i64>)> {
    let (mut ranges, mut times) = (Value::Null, Vec::new());
    for line in entry.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
        let line: Line = serde_json::from_slice(line)?;
        times.extend(line.add.map(|add| times_of(add.stats.as_deref())));
        if let Some(mut info) = line.commit_info {
            ranges = info.silverd.get_mut("ranges").map(Value::take).unwrap_or_default();
        }
    }
    let first = times.first().copied().flatten();
    let is_one = |time: &Option<(i64, i64)>| *time == first;
    let time = first.filter(|(oldest, newest)| oldest == newest && times.iter().all(is_one));
    Ok((ranges, time.map(|(time, _)| time)))
}

fn times_of(stats: Option<&str>) -> Option<(i64, i64)> {
    let Stats { min_values, max_values } = serde_json::from_str(stats?).ok()?;
    let micros = |time: &str| DateTime::parse_from_rfc3339(time).ok().map(|time| time.timestamp_micros());
    Some((micros(&min_values.ingested_at)?, micros(&max_values.ingested_at)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn add(from: &str, to: &str) -> String {
        let stats = json!({ "minValues": { "ingested_at": from, "offset": 1 }, "maxValues": { "ingested_at": to } });
        json!({ "add": { "path": "f", "stats": stats.to_string() } }).to_string()
    }

    #[track_caller]
    fn check(adds: &[String], expected: Option<i64>) {
        let info = json!({ "commitInfo": { "silverd": { "ranges": { "c:t:0": [0, 10] } } } }).to_string();
        let entry = [std::slice::from_ref(&info), adds].concat().join("\n");
        let (ranges, time) = parse(entry.as_bytes()).unwrap();
        assert_eq!((ranges, time), (json!({ "c:t:0": [0, 10] }), expected));
    }

    #[test]
    fn the_time_of_a_commit_is_that_of_all_its_files() {
        let (first, second) = ("1970-01-01T00:00:01.000002Z", "1970-01-01T00:00:02.000000Z");
        check(&[], None);
        check(&[add(first, first)], Some(1_000_002));
        check(&[add(first, first), add(first, first)], Some(1_000_002));
        check(&[add(first, first), add(second, second)], None);
        check(&[add(first, second)], None);
        check(&[json!({ "add": { "path": "f" } }).to_string()], None);
        assert_eq!(parse(br#"{"commitInfo":{}}"#).unwrap(), (Value::Null, None));
    }
}
