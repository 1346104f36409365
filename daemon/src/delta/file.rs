//! Parquet files: encoded in memory, stored in the table's folder as a whole, and described for the Delta log.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use deltalake_core::kernel::Add;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression as Codec, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use serde::{Deserialize, Serialize};
use silverd_core::config::Compression;

use super::conform::conform;
use super::day::{EVENT_DATE, day_number, format_day, new_file_path};
use super::stats::{NanColumns, stats};
use crate::runtime::clock;

/// Rows of a row group, the least that a reader of a part of a file has to decode.
pub(crate) const ROW_GROUP_ROWS_MAX: usize = 128 * 1024;

/// A file in the table's folder that is not committed yet.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewFile {
    pub(super) path: String,
    pub(super) rows: u64,
    pub(super) event_date: Option<String>,
    pub(super) size: u64,
    pub(super) stats: String,
    pub(super) modified_ms: i64,
}

/// Encodes files of one schema.
pub struct Encoder {
    pub(super) schema: SchemaRef,
    pub(super) properties: WriterProperties,
    pub(super) extension: &'static str,
}

/// The writer's properties for a compression, with statistics per column chunk, by which Delta readers prune files.
pub fn writer_properties(compression: &Compression) -> anyhow::Result<WriterPropertiesBuilder> {
    let codec = match compression {
        Compression::Zstd(level) => Codec::ZSTD(ZstdLevel::try_new(*level)?),
        Compression::Snappy => Codec::SNAPPY,
        Compression::Lz4 => Codec::LZ4_RAW,
        Compression::Uncompressed => Codec::UNCOMPRESSED,
    };
    Ok(WriterProperties::builder()
        .set_compression(codec)
        .set_created_by(concat!("silverd ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS_MAX)))
}

impl Encoder {
    pub fn new(schema: SchemaRef, properties: WriterProperties, compression: &Compression) -> Self {
        let extension = match compression {
            Compression::Zstd(_) => "zstd.parquet",
            Compression::Snappy => "snappy.parquet",
            Compression::Lz4 => "lz4.parquet",
            Compression::Uncompressed => "parquet",
        };
        Self { schema, properties, extension }
    }

    /// Encodes the rows of one day (days since the epoch).
    pub fn encode(&self, day: i32, batches: &[RecordBatch]) -> anyhow::Result<(NewFile, Bytes)> {
        let mut bytes = Vec::new();
        // The types are the Delta schema's. An embedded Arrow schema would say "dictionary" where the table says
        // string.
        let options = ArrowWriterOptions::new().with_properties(self.properties.clone()).with_skip_arrow_metadata(true);
        let mut writer = ArrowWriter::try_new_with_options(&mut bytes, self.schema.clone(), options)?;
        let mut nans = NanColumns::default();
        for batch in batches {
            let batch = conform(batch, &self.schema)?;
            nans.add(&batch);
            writer.write(&batch)?;
        }
        let metadata = writer.close()?;
        let date = format_day(day);
        let file = NewFile {
            path: new_file_path(&date, self.extension),
            event_date: Some(date),
            rows: metadata.file_metadata().num_rows() as u64,
            size: bytes.len() as u64,
            stats: stats(&self.schema, &metadata, &nans).to_string(),
            modified_ms: clock::now_ms(),
        };
        Ok((file, Bytes::from(bytes)))
    }

    /// The columns of the files.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }
}

impl NewFile {
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Writes the file into the table's folder.
    pub async fn put(&self, store: &Arc<dyn ObjectStore>, bytes: Bytes) -> anyhow::Result<()> {
        let path = Path::parse(&self.path)?;
        store.put(&path, bytes.into()).await.with_context(|| format!("write {path}"))?;
        Ok(())
    }

    /// Removes the file, which must not be committed.
    pub(crate) async fn remove(&self, store: &Arc<dyn ObjectStore>) -> anyhow::Result<()> {
        let path = Path::parse(&self.path)?;
        store.delete(&path).await.with_context(|| format!("remove {path}"))
    }

    pub(crate) async fn exists(&self, store: &Arc<dyn ObjectStore>) -> anyhow::Result<bool> {
        match store.head(&Path::parse(&self.path)?).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(failure) => Err(failure.into()),
        }
    }

    /// The file with the age of one that it replaces, so that files sorted by age are in the order of their rows.
    pub(crate) fn with_age(self, modified_ms: i64) -> Self {
        Self { modified_ms, ..self }
    }

    /// The day of the file's rows, in days since the epoch.
    pub(crate) fn day(&self) -> Option<i32> {
        day_number(self.event_date.as_deref()?)
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }
}

impl From<NewFile> for Add {
    fn from(file: NewFile) -> Self {
        Add {
            path: file.path,
            partition_values: HashMap::from([(EVENT_DATE.to_owned(), file.event_date)]),
            size: file.size as i64,
            modification_time: file.modified_ms,
            data_change: true,
            stats: Some(file.stats),
            tags: None,
            deletion_vector: None,
            base_row_id: None,
            default_row_commit_version: None,
            clustering_provider: None,
        }
    }
}
