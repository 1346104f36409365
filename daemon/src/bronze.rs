//! Bronze: every record as it came, written before anything is made of it, whatever becomes of it later.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::UInt32Array;
use arrow::compute::take_record_batch;
use deltalake_core::logstore::LogStoreRef;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use serde_json::json;
use silverd_core::chunk::{self, Chunk, column};
use silverd_core::config::{self, Compression};
use silverd_core::offsets::{Offsets, Ranges};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, warn};

use crate::delta::{CommitError, Encoder, NewFile, Spec, Table, offsets_of, writer_properties};
use crate::ingest::Resume;
use crate::spans;
use crate::telemetry::{Stage, Stages, TableStats};

/// The raw table, owned by the flow.
pub struct Bronze {
    table: Table,
    encoder: Arc<Encoder>,
    /// Up to where each log partition is committed. Silver follows it.
    head: watch::Sender<Offsets>,
    stats: Arc<TableStats>,
    stages: Arc<Stages>,
}

/// Why a chunk is not in Bronze.
#[derive(Debug, thiserror::Error)]
pub enum NotAppended {
    #[error("another silverd writes these partitions")]
    Fenced,
    #[error("silverd was told to stop")]
    Stopped,
}

const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(15);

pub fn spec(path: PathBuf) -> Spec {
    let doc = Some("Every record of the topic, as it came.".to_owned());
    Spec { name: "bronze".to_owned(), path, schema: chunk::schema(), doc }
}

impl Bronze {
    pub async fn open(base: &Path, config: &config::Bronze, stages: Arc<Stages>) -> anyhow::Result<Self> {
        let table = Table::open(&spec(base.join(&*config.path))).await?;
        let compression = &config.compression;
        let (head, _) = watch::channel(table.offsets());
        let encoder = Arc::new(Encoder::new(chunk::schema(), properties(compression)?, compression));
        Ok(Self { table, encoder, head, stats: Arc::default(), stages })
    }

    pub fn stats(&self) -> Arc<TableStats> {
        self.stats.clone()
    }

    /// Up to where each log partition is committed, now and as it moves.
    pub fn head(&self) -> watch::Receiver<Offsets> {
        self.head.subscribe()
    }

    /// Commits a chunk, however long it takes: while the disk is full or the folder is gone, nothing else can be done.
    pub async fn append(&mut self, chunk: &Chunk, stop: &CancellationToken) -> Result<(), NotAppended> {
        let mut pause = RETRY_FIRST;
        loop {
            let failure = match self.try_append(chunk).await {
                Ok(()) => return Ok(()),
                Err(CommitError::Fenced { version, app_id }) => {
                    warn!(version, app_id, "bronze is fenced: another silverd has committed these partitions");
                    self.reload().await;
                    return Err(NotAppended::Fenced);
                }
                Err(failure) => failure,
            };
            error!("commit bronze: {failure}; trying again in {} ms", pause.as_millis());
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY_MAX),
                () = stop.cancelled() => return Err(NotAppended::Stopped),
            }
            self.reload().await;
            if chunk.ranges.within(&self.table.offsets()) {
                self.publish();
                return Ok(());
            }
        }
    }

    async fn try_append(&mut self, chunk: &Chunk) -> Result<(), CommitError> {
        // What is there already is not written again, whoever wrote it.
        let chunk = chunk.select(&chunk.ranges.beyond(&self.table.offsets()));
        if chunk.ranges.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        let files = self.encode(&chunk).instrument(spans::encode()).await.map_err(CommitError::Unknown)?;
        let bytes: u64 = files.iter().map(NewFile::size).sum();
        let count = files.len();
        let ends = chunk.ranges.ends();
        let progress: Vec<_> = ends.iter().map(|(log, next)| (log.app_id(), *next)).collect();
        let info = json!({ "ranges": ranges_json(&chunk.ranges), "events": chunk.records.num_rows() });
        let append = spans::tell(spans::commit(), self.table.append(files, &progress, info));
        let committed = self.stages.time(Stage::Commit, append).await?;
        self.stats.committed(committed.version, chunk.records.num_rows(), count, bytes, begun.elapsed());
        self.publish();
        Ok(())
    }

    async fn encode(&self, chunk: &Chunk) -> anyhow::Result<Vec<NewFile>> {
        let mut files = Vec::new();
        let days = chunk.days();
        for (day, rows) in &days {
            let encoder = self.encoder.clone();
            let (chunk, rows) = (chunk.clone(), (days.len() > 1).then(|| UInt32Array::from(rows.clone())));
            let (day, stages) = (*day, self.stages.clone());
            let (file, bytes) = tokio::task::spawn_blocking(move || {
                stages.measure(Stage::BronzeEncode, || match rows {
                    None => encoder.encode(day, &[chunk.records]),
                    Some(rows) => encoder.encode(day, &[take_record_batch(&chunk.records, &rows)?]),
                })
            })
            .await??;
            file.put(&self.table.store(), bytes).await?;
            files.push(file);
        }
        Ok(files)
    }

    /// Reads where the table stands; an error shows again at the next commit, which is told.
    async fn reload(&mut self) {
        if let Err(error) = self.table.reload().await {
            warn!("read bronze's log: {error:#}");
        }
        self.publish();
    }

    /// Reads the next offsets as the log has them, for partitions that are assigned anew. Called on a thread that may
    /// wait.
    pub fn resume(&self) -> Resume {
        let (log, runtime) = (self.log(), tokio::runtime::Handle::current());
        Arc::new(move || runtime.block_on(offsets_of(&log)))
    }

    pub fn log(&self) -> LogStoreRef {
        self.table.log()
    }

    fn publish(&self) {
        self.head.send_replace(self.table.offsets());
    }
}

/// Ranges in the words of a commit's info: `{"cluster:topic:0": [0, 10]}`.
pub fn ranges_json(ranges: &Ranges) -> serde_json::Value {
    ranges.iter().map(|(log, range)| (log.to_string(), json!([range.start, range.end]))).collect()
}

/// Dictionaries where values repeat; statistics where they prune. On keys and values both cost more than the encoding.
pub(crate) fn properties(compression: &Compression) -> anyhow::Result<WriterProperties> {
    let mut properties = writer_properties(compression)?.set_dictionary_enabled(false);
    let repeating = [column::CLUSTER_ID, column::TOPIC, column::PARTITION, column::TIMESTAMP_TYPE, column::INGESTED_AT];
    for name in repeating {
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(name), true);
    }
    for name in [column::KEY, column::VALUE] {
        properties = properties.set_column_statistics_enabled(ColumnPath::from(name), EnabledStatistics::None);
    }
    for name in [column::OFFSET, column::TIMESTAMP] {
        properties =
            properties.set_column_encoding(ColumnPath::from(name), parquet::basic::Encoding::DELTA_BINARY_PACKED);
    }
    Ok(properties.build())
}
