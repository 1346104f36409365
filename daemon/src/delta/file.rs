//! Parquet files: encoded in memory, put into the table's folder in one go, and described for the Delta log.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context;
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use bytes::Bytes;
use chrono::{DateTime, Datelike, Days, NaiveDate};
use deltalake_core::kernel::Add;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression as Codec, ZstdLevel};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::file::statistics::Statistics;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use silverd_core::config::Compression;
use uuid::Uuid;

use super::conform::conform;

/// Rows of a row group: what a reader of a part of a file has to decode at least.
pub const ROW_GROUP_ROWS_MAX: usize = 128 * 1024;

/// A file that lies in the table's folder and is in no commit yet.
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

/// The writer's properties for a compression; statistics of whole column chunks, for pruning by Delta's readers.
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
        // The types are Delta's to tell; the Arrow schema in the file would say "dictionary" where the table says string.
        let options = ArrowWriterOptions::new().with_properties(self.properties.clone()).with_skip_arrow_metadata(true);
        let mut writer = ArrowWriter::try_new_with_options(&mut bytes, self.schema.clone(), options)?;
        for batch in batches {
            writer.write(&conform(batch, &self.schema)?)?;
        }
        let metadata = writer.close()?;
        let date = date(day);
        let file = NewFile {
            path: format!("event_date={date}/part-{}.{}", Uuid::new_v4(), self.extension),
            event_date: Some(date),
            rows: metadata.file_metadata().num_rows() as u64,
            size: bytes.len() as u64,
            stats: stats(&self.schema, &metadata).to_string(),
            modified_ms: crate::clock::now_ms(),
        };
        Ok((file, Bytes::from(bytes)))
    }
}

impl Encoder {
    /// The columns of the files.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }
}

impl NewFile {
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Puts the file into the table's folder.
    pub async fn put(&self, store: &Arc<dyn ObjectStore>, bytes: Bytes) -> anyhow::Result<()> {
        let path = Path::parse(&self.path)?;
        store.put(&path, bytes.into()).await.with_context(|| format!("write {path}"))?;
        Ok(())
    }

    pub async fn exists(&self, store: &Arc<dyn ObjectStore>) -> anyhow::Result<bool> {
        match store.head(&Path::parse(&self.path)?).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(failure) => Err(failure.into()),
        }
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
            partition_values: HashMap::from([("event_date".to_owned(), file.event_date)]),
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

/// A day since the epoch, as Delta writes dates.
fn date(day: i32) -> String {
    let epoch = NaiveDate::default();
    let days = Days::new(u64::from(day.unsigned_abs()));
    let date = if day < 0 { epoch.checked_sub_days(days) } else { epoch.checked_add_days(days) };
    date.unwrap_or(epoch).format("%Y-%m-%d").to_string()
}

/// The days and times that Delta's statistics can say: years of four digits.
const DAYS: std::ops::RangeInclusive<i32> = -719_162..=2_932_896;

/// Delta's statistics (protocol, "Per-file Statistics"), from the file's own: of its top-level columns of plain types.
pub(super) fn stats(schema: &SchemaRef, metadata: &ParquetMetaData) -> Value {
    let (mut lowest, mut highest, mut nulls) = (Map::new(), Map::new(), Map::new());
    for field in schema.fields() {
        let name = field.name();
        let chunks: Vec<_> = metadata.row_groups().iter().filter_map(|group| statistics(group, name)).collect();
        if chunks.is_empty() || chunks.len() < metadata.num_row_groups() {
            continue;
        }
        let null_counts: Option<u64> = chunks.iter().map(|chunk| chunk.null_count_opt()).sum();
        if let Some(count) = null_counts {
            nulls.insert(name.clone(), json!(count));
        }
        let bounds: Vec<_> = chunks.iter().filter_map(|chunk| bounds(field.data_type(), chunk)).collect();
        let low = bounds.iter().map(|(low, _)| low.clone()).reduce(|a, b| if less(&b, &a) { b } else { a });
        let high = bounds.into_iter().map(|(_, high)| high).reduce(|a, b| if less(&a, &b) { b } else { a });
        if let (Some(low), Some(high)) = (low, high) {
            lowest.insert(name.clone(), render(field.data_type(), low));
            highest.insert(name.clone(), render(field.data_type(), high));
        }
    }
    let rows = metadata.file_metadata().num_rows();
    json!({ "numRecords": rows, "minValues": lowest, "maxValues": highest, "nullCount": nulls })
}

fn statistics<'m>(group: &'m RowGroupMetaData, column: &str) -> Option<&'m Statistics> {
    group.columns().iter().find(|chunk| chunk.column_path().parts() == [column])?.statistics()
}

#[derive(Clone)]
enum Bound {
    Int(i64),
    Float(f64),
    Text(String),
}

fn less(a: &Bound, b: &Bound) -> bool {
    match (a, b) {
        (Bound::Int(a), Bound::Int(b)) => a < b,
        (Bound::Float(a), Bound::Float(b)) => a < b,
        (Bound::Text(a), Bound::Text(b)) => a < b,
        _ => false,
    }
}

fn bounds(ty: &DataType, chunk: &Statistics) -> Option<(Bound, Bound)> {
    Some(match (ty, chunk) {
        // Decimals of up to 18 digits are integers in the file, and numbers with a point in the statistics.
        (DataType::Decimal128(..), _) => return None,
        (_, Statistics::Int32(s)) => (Bound::Int(i64::from(*s.min_opt()?)), Bound::Int(i64::from(*s.max_opt()?))),
        (_, Statistics::Int64(s)) => (Bound::Int(*s.min_opt()?), Bound::Int(*s.max_opt()?)),
        (_, Statistics::Double(s)) => (Bound::Float(*s.min_opt()?), Bound::Float(*s.max_opt()?)),
        (_, Statistics::Float(s)) => (Bound::Float(f64::from(*s.min_opt()?)), Bound::Float(f64::from(*s.max_opt()?))),
        (DataType::Utf8 | DataType::Dictionary(..), Statistics::ByteArray(s)) => {
            let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(|text| Bound::Text(text.to_owned()));
            (text(s.min_opt()?.data())?, text(s.max_opt()?.data())?)
        }
        _ => return None,
    })
}

fn render(ty: &DataType, bound: Bound) -> Value {
    match (ty, bound) {
        (DataType::Timestamp(TimeUnit::Microsecond, _), Bound::Int(micros)) => {
            match DateTime::from_timestamp_micros(micros) {
                Some(time) if (1..=9999).contains(&time.year()) => {
                    json!(time.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string())
                }
                _ => Value::Null,
            }
        }
        (DataType::Date32, Bound::Int(day)) if DAYS.contains(&(day as i32)) => json!(date(day as i32)),
        (DataType::Date32, _) => Value::Null,
        (_, Bound::Int(value)) => json!(value),
        (_, Bound::Float(value)) => json!(value),
        (_, Bound::Text(value)) => json!(value),
    }
}
