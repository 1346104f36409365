//! The quarantine: events that could not become rows, whole, with the reason and the plugin that gave it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{
    ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array,
};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde_json::json;
use silverd_core::chunk::{Chunk, day_of};
use silverd_core::config::Compression;
use silverd_core::offsets::{LogPartition, Offsets};
use silverd_core::schema::COMMENT;
use tokio::sync::Mutex;

use crate::delta::{CommitError, Encoder, Spec, Table, writer_properties};
use crate::telemetry::TableStats;
use crate::transform::{Digest, Rejected};

/// The quarantine table, shared by all Silver tables.
pub struct Quarantine {
    table: Mutex<Table>,
    encoder: Encoder,
    stats: Arc<TableStats>,
}

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
        field("quarantined_at", timestamp, false, "When the plugin gave its verdict."),
    ]))
}

pub fn spec(path: PathBuf) -> Spec {
    let doc = Some("Events that could not become rows of a Silver table.".to_owned());
    Spec { name: "quarantine".to_owned(), path, schema: schema(), doc }
}

/// The progress of one Silver table's rejects over one log partition.
fn app_id(table: &str, log: &LogPartition) -> String {
    format!("silverd-quarantine:{table}:{log}")
}

impl Quarantine {
    pub async fn open(path: PathBuf) -> anyhow::Result<Self> {
        let table = Table::open(&spec(path)).await?;
        let compression = Compression::default();
        let encoder = Encoder::new(schema(), writer_properties(&compression)?.build(), &compression);
        Ok(Self { table: Mutex::new(table), encoder, stats: Arc::default() })
    }

    pub fn stats(&self) -> Arc<TableStats> {
        self.stats.clone()
    }

    /// Stores the rejects of a Silver table, once each: those of offsets that a commit before has covered are passed
    /// over, so that a table that repeats a chunk after a crash repeats no reject.
    pub async fn append(
        &self,
        table: &str,
        digest: &Digest,
        chunk: &Chunk,
        rejected: &[Rejected],
    ) -> Result<(), CommitError> {
        let mut quarantine = self.table.lock().await;
        loop {
            let begun = Instant::now();
            let done: Offsets = chunk
                .ranges
                .iter()
                .filter_map(|(log, _)| Some((log.clone(), quarantine.transaction(&app_id(table, log))?)))
                .collect();
            let fresh: Vec<&Rejected> = rejected.iter().filter(|reject| is_new(chunk, reject.record, &done)).collect();
            if fresh.is_empty() {
                return Ok(());
            }
            let rows = rows(table, digest, chunk, &fresh).map_err(CommitError::Unknown)?;
            let day = day_of(crate::clock::now_micros());
            let (file, bytes) = self.encoder.encode(day, &[rows]).map_err(CommitError::Unknown)?;
            file.put(&quarantine.store(), bytes).await.map_err(CommitError::Unknown)?;
            let size = file.size();
            let progress: Vec<_> = chunk.ranges.ends().iter().map(|(log, next)| (app_id(table, log), *next)).collect();
            let info = json!({ "table": table, "plugin": digest.as_str(), "rejected": fresh.len() });
            match quarantine.append(vec![file], &progress, info).await {
                Ok(committed) => {
                    self.stats.committed(committed.version, fresh.len(), 1, size, begun.elapsed());
                    return Ok(());
                }
                Err(CommitError::Fenced { .. }) => quarantine.reload().await.map_err(CommitError::Unknown)?,
                Err(error) => {
                    quarantine.reload().await.map_err(CommitError::Unknown)?;
                    return Err(error);
                }
            }
        }
    }
}

fn is_new(chunk: &Chunk, record: u32, done: &Offsets) -> bool {
    let (partition, offset) = (chunk.partitions()[record as usize], chunk.offsets()[record as usize]);
    !done.iter().any(|(log, next)| log.partition == partition && offset < *next)
}

fn rows(table: &str, digest: &Digest, chunk: &Chunk, rejected: &[&Rejected]) -> anyhow::Result<RecordBatch> {
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
            Arc::new(StringArray::from_iter_values(rejected.iter().map(|reject| &reject.reason))),
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
        ],
    )?)
}
