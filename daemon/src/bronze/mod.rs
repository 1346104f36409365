//! Bronze: the raw table. It stores every record unchanged, before Silver processes it.

mod file_part;
pub(crate) mod newest_events;
mod read_plan;
mod read_window;
pub(crate) mod replay;
pub(crate) mod replay_clusters;
mod written_files;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use arrow::array::UInt32Array;
use arrow::compute::take_record_batch;
use deltalake_core::logstore::LogStoreRef;
use parking_lot::Mutex;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use serde_json::json;
use silverd_core::chunk::{self, Chunk, column};
use silverd_core::config::{self, Compression};
use silverd_core::offsets::{OffsetRange, Offsets, Ranges, TopicIds, TopicName};
use silverd_core::zone::Zone;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info, warn};

use crate::delta::{CommitError, Encoder, NewFile, Table, TableSpec, list_files, writer_properties};
use crate::runtime::causes;
use crate::runtime::log_once::LogOnce;
use crate::source::Resume;
use crate::tables::writer_state::{WriterState, WriterStateCell};
use crate::telemetry::{Stage, Stages, TableStats, spans};

pub(crate) use file_part::Stats as FileStats;
use written_files::WrittenFiles;

const RETRY_INTERVAL_MIN: Duration = Duration::from_millis(250);
const RETRY_INTERVAL_MAX: Duration = Duration::from_secs(15);
/// Files of a commit, one for each day: each takes time, whatever its size, and a place in every list of files.
const FILES_MAX: usize = 128;

/// The writer of the raw table. The pipeline owns it.
pub struct Bronze {
    table: Table,
    encoder: Arc<Encoder>,
    /// The next offset of each log partition. The Silver workers follow it.
    committed_offsets: watch::Sender<Offsets>,
    /// The files of a chunk that is not committed.
    written: WrittenFiles,
    topic_ids: Arc<Mutex<TopicIds>>,
    /// The last chunk had as many days as a commit may have files.
    has_many_days: bool,
    stats: Arc<TableStats>,
    state: WriterStateCell,
    last_error: LogOnce,
    stages: Arc<Stages>,
}

/// Why a chunk was not appended.
#[derive(Debug, thiserror::Error)]
pub enum NotAppended {
    #[error("another silverd writes these partitions")]
    Fenced,
    #[error("silverd is stopping")]
    Stopped,
    #[error("it was interrupted between two tries")]
    Interrupted,
}

impl Bronze {
    pub async fn open(base_dir: &Path, config: &config::Bronze, stages: Arc<Stages>) -> anyhow::Result<Self> {
        let mut table = Table::open(&table_spec(base_dir.join(&*config.path))).await?;
        replay::restore_offsets(&mut table).await?;
        let compression = &config.compression;
        let (committed_offsets, _) = watch::channel(table.offsets());
        let encoder = Arc::new(Encoder::new(chunk::schema(), properties(compression)?, compression));
        let state = WriterStateCell::new(WriterState::Live);
        Ok(Self {
            table,
            encoder,
            committed_offsets,
            written: WrittenFiles::default(),
            topic_ids: Arc::default(),
            has_many_days: false,
            stats: Arc::default(),
            state,
            last_error: LogOnce::default(),
            stages,
        })
    }

    pub(crate) fn stats(&self) -> Arc<TableStats> {
        self.stats.clone()
    }

    /// `Live`, or `Retrying` while commits fail.
    pub(crate) fn state(&self) -> WriterStateCell {
        self.state.clone()
    }

    /// The next offset of each log partition, now and after each commit.
    pub fn committed_offsets(&self) -> watch::Receiver<Offsets> {
        self.committed_offsets.subscribe()
    }

    /// Commits a chunk. Retries until it succeeds: while the disk is full or the folder is missing, the pipeline must
    /// wait.
    ///
    /// Between two tries, `interrupt` ends it. The next call with the same chunk goes on.
    pub async fn append(
        &mut self,
        chunk: &Chunk,
        stop: &CancellationToken,
        interrupt: impl Future<Output = ()>,
    ) -> Result<(), NotAppended> {
        let (mut pause, mut reload_error, mut interrupt) = (RETRY_INTERVAL_MIN, None, pin!(interrupt));
        loop {
            let failure = match self.try_append(chunk).await {
                Ok(()) => {
                    self.report_live();
                    return Ok(());
                }
                Err(CommitError::Fenced { version, app_id }) => {
                    warn!(version, app_id, "bronze is fenced: another silverd has committed to these partitions");
                    self.remove_written().await;
                    // The next append finds out if this fails.
                    let _ = self.reload().await;
                    return Err(NotAppended::Fenced);
                }
                Err(failure) => failure,
            };
            if matches!(failure, CommitError::MetadataChanged(_)) && reload_error.is_none() {
                info!("bronze: {failure}; reading its log again");
            } else {
                // Why the table cannot be read is the cause of why it cannot be written.
                self.report_retrying(reload_error.take().unwrap_or_else(|| failure.to_string()), pause);
                tokio::select! {
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY_INTERVAL_MAX),
                    () = stop.cancelled() => {
                        self.remove_written().await;
                        return Err(NotAppended::Stopped);
                    }
                    () = &mut interrupt => return Err(NotAppended::Interrupted),
                }
            }
            reload_error = self.reload().await.err().as_ref().map(causes);
            if chunk.ranges.within(&self.table.offsets()) {
                // The commit that failed is there.
                self.written = WrittenFiles::default();
                self.publish();
                self.report_live();
                return Ok(());
            }
        }
    }

    /// A reason that lasts is logged once.
    fn report_retrying(&mut self, reason: String, pause: Duration) {
        let seconds = RETRY_INTERVAL_MAX.as_secs();
        if self.last_error.is_new(&reason) {
            error!("append to bronze: {reason}. Retrying at least every {seconds} s");
        } else {
            debug!("append to bronze: {reason}; next try in {pause:?}");
        }
        self.state.set(WriterState::Retrying { reason });
    }

    fn report_live(&mut self) {
        if self.last_error.clear() {
            info!("bronze can be written again, after {} s", self.state.lasts().as_secs());
        }
        self.state.set(WriterState::Live);
    }

    async fn try_append(&mut self, chunk: &Chunk) -> Result<(), CommitError> {
        if self.table.lost_transactions() > 0 {
            return Err(CommitError::Unknown(anyhow!(
                "bronze's log has lost the offsets up to which bronze has records"
            )));
        }
        // Offsets that are in the table already are not written again, even if another process wrote them.
        let chunk = chunk.select(&chunk.ranges.beyond(&self.table.offsets()));
        if chunk.ranges.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        if !self.written.are_of(&chunk) {
            // The table's version stays the one by which the chunk was cut: what others commit after it fences the commit.
            self.remove_written().await;
            self.written = WrittenFiles::of(&chunk);
        }
        self.encode(&chunk).instrument(spans::encode()).await.map_err(CommitError::Unknown)?;
        let files = self.written.files().to_vec();
        let bytes: u64 = files.iter().map(NewFile::size).sum();
        let count = files.len();
        let ends = chunk.ranges.ends();
        let mut progress: Vec<_> = ends.iter().map(|(log, next)| (log.app_id(), *next)).collect();
        progress.extend(self.new_topic_ids(&chunk.ranges));
        let info = json!({ "ranges": ranges_json(&chunk.ranges), "events": chunk.records.num_rows() });
        let append = spans::record(spans::commit(), self.table.append(files, &progress, info));
        let committed = self.stages.time(Stage::Commit, append).await?;
        self.written = WrittenFiles::default();
        self.stats.committed(committed.version, chunk.records.num_rows(), count, bytes, started.elapsed());
        self.publish();
        Ok(())
    }

    /// Writes the files of records that were read again. The caller commits them, or removes them.
    pub(crate) async fn write_again(&mut self, chunk: &Chunk) -> anyhow::Result<Vec<NewFile>> {
        self.remove_written().await;
        self.written = WrittenFiles::of(chunk);
        if let Err(failure) = self.encode(chunk).await {
            self.remove_written().await;
            return Err(failure);
        }
        Ok(std::mem::take(&mut self.written).files().to_vec())
    }

    pub(crate) fn table_mut(&mut self) -> &mut Table {
        &mut self.table
    }

    /// Removes the files of a chunk that is given up. A commit that failed may be in the log all the same: what it names stays,
    /// and so does everything while the log cannot be read.
    async fn remove_written(&mut self) {
        let written = std::mem::take(&mut self.written);
        if written.files().is_empty() {
            return;
        }
        match list_files(&self.log()).await {
            Ok(named) => written.remove(&self.table.store(), &named).await,
            Err(failure) => warn!("files that bronze does not need any more are left behind: {failure:#}"),
        }
    }

    /// The ids of the topics of which the log does not know one.
    fn new_topic_ids(&self, ranges: &Ranges) -> Vec<(String, i64)> {
        let known = self.topic_ids.lock();
        let names: BTreeSet<_> = ranges.iter().map(|(log, _)| log.topic_name()).collect();
        let of_name = |name: TopicName| Some(name.app_id(known.get(&name)?));
        let app_ids = names.into_iter().filter_map(of_name);
        app_ids.filter(|app_id| self.table.transaction(app_id).is_none()).map(|app_id| (app_id, 1)).collect()
    }

    /// Writes the files of a chunk, one for each day, except for those that an earlier try has written.
    async fn encode(&mut self, chunk: &Chunk) -> anyhow::Result<()> {
        let mut days = chunk.days();
        let has_many_days = days.len() > FILES_MAX;
        if has_many_days && !self.has_many_days {
            warn!(
                days = days.len(),
                "the records of a chunk have more than {FILES_MAX} days by their timestamps: those of the days with the \
                 fewest records are stored under the day on which silverd read them. Is the clock of a producer right?"
            );
        }
        self.has_many_days = has_many_days;
        if has_many_days {
            days = chunk.days_at_most(FILES_MAX);
        }
        for (day, rows) in days.iter().skip(self.written.files().len()) {
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
            self.written.push(file);
        }
        Ok(())
    }

    /// Reads the newest version of the table. If that fails, the next commit fails with the same error.
    async fn reload(&mut self) -> anyhow::Result<()> {
        let mut reloaded = self.table.reload().await;
        if reloaded.is_ok() {
            reloaded = replay::restore_offsets(&mut self.table).await;
        }
        self.publish();
        reloaded
    }

    /// Reads from the log how far Bronze is, for partitions that are assigned. For a thread that may block.
    pub(crate) fn resume(&self) -> Resume {
        let (log, runtime) = (self.log(), tokio::runtime::Handle::current());
        Arc::new(move || runtime.block_on(replay::progress(&log)))
    }

    /// The ids that topics have now. Who knows them sets them, and the log keeps the first one of each.
    pub(crate) fn topic_ids(&self) -> Arc<Mutex<TopicIds>> {
        self.topic_ids.clone()
    }

    pub(crate) fn log(&self) -> LogStoreRef {
        self.table.log()
    }

    fn publish(&self) {
        self.committed_offsets.send_replace(self.table.offsets());
    }
}

pub(crate) fn table_spec(path: PathBuf) -> TableSpec {
    let doc = Some("Every record of the topic, unchanged.".to_owned());
    TableSpec { name: "bronze".to_owned(), path, schema: chunk::schema(), doc, time_zone: Zone::UTC }
}

/// Ranges as the commit info has them: `{"cluster:topic:0": [0, 10]}`.
pub fn ranges_json(ranges: &Ranges) -> serde_json::Value {
    ranges.iter().map(|(log, range)| (log.to_string(), json!([range.start, range.end]))).collect()
}

/// The reverse of [`ranges_json`]. What is no range is left out.
pub(crate) fn read_ranges(json: &serde_json::Value) -> Ranges {
    let parse = |(log, range): (&String, &serde_json::Value)| {
        let (start, end) = (range[0].as_i64()?, range[1].as_i64()?);
        Some((log.parse().ok()?, OffsetRange::new(start, end)))
    };
    json.as_object().into_iter().flatten().filter_map(parse).collect()
}

/// Dictionaries for columns whose values repeat, statistics for columns that prune files. For keys and values both
/// would take longer than the encoding itself.
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
