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
use silverd_core::schema::COMMENT;
use tokio::sync::Mutex;

use crate::delta::{Encoder, NewFile, Spec, Table, writer_properties};
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

/// The application id under which the quarantine counts a Silver table's commits that had rejects. It holds the table's
/// own id: a table that is made anew begins anew.
fn app_id(table_id: &str) -> String {
    format!("silverd-quarantine:{table_id}")
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

    /// Writes rejects into a file that is in no commit yet.
    pub async fn put(
        &self,
        table: &str,
        digest: &Digest,
        chunk: &Chunk,
        rejected: &[Rejected],
    ) -> anyhow::Result<NewFile> {
        let rows = rows(table, digest, chunk, rejected)?;
        let (file, bytes) = self.encoder.encode(day_of(crate::clock::now_micros()), &[rows])?;
        let store = self.table.lock().await.store();
        file.put(&store, bytes).await?;
        Ok(file)
    }

    /// How many commits with rejects of a Silver table are in.
    pub async fn settled(&self, table_id: &str) -> anyhow::Result<i64> {
        let mut quarantine = self.table.lock().await;
        quarantine.reload().await?;
        Ok(quarantine.transaction(&app_id(table_id)).unwrap_or(0))
    }

    /// The same, as far as this process has seen.
    pub async fn known(&self, table_id: &str) -> i64 {
        self.table.lock().await.transaction(&app_id(table_id)).unwrap_or(0)
    }

    /// True where a file of rejects is in the quarantine's folder.
    pub async fn has(&self, file: &NewFile) -> anyhow::Result<bool> {
        let store = self.table.lock().await.store();
        file.exists(&store).await
    }

    /// Commits the rejects that a Silver table's `number`th commit with rejects has announced. Once: a number that is in
    /// already is passed over.
    pub async fn settle(&self, table: &str, table_id: &str, number: i64, file: NewFile) -> anyhow::Result<()> {
        let (begun, id) = (Instant::now(), app_id(table_id));
        let mut quarantine = self.table.lock().await;
        for _ in 0..SETTLE_TRIES_MAX {
            if quarantine.transaction(&id).unwrap_or(0) >= number {
                return Ok(());
            }
            let (rows, size) = (file.rows(), file.size());
            let info = json!({ "table": table, "rejected": rows });
            match quarantine.append(vec![file.clone()], &[(id.clone(), number)], info).await {
                Ok(committed) => {
                    self.stats.committed(committed.version, rows as usize, 1, size, begun.elapsed());
                    return Ok(());
                }
                Err(failure) => {
                    tracing::debug!("commit the quarantine: {failure}");
                    quarantine.reload().await?;
                }
            }
        }
        anyhow::bail!("the quarantine's log took {SETTLE_TRIES_MAX} commits of others in a row")
    }
}

/// How often a commit that others were faster than is tried again before the table starts over.
const SETTLE_TRIES_MAX: usize = 10;

fn rows(table: &str, digest: &Digest, chunk: &Chunk, rejected: &[Rejected]) -> anyhow::Result<RecordBatch> {
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
        ],
    )?)
}

/// A reason is a sentence; a guest that writes a book is cut short.
fn short(reason: &str) -> &str {
    const REASON_BYTES_MAX: usize = 1024;
    &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)]
}
