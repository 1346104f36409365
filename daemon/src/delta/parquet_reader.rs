//! Reading some columns or row groups of a data file without the rest of it.

use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use anyhow::anyhow;
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use deltalake_core::logstore::ObjectStoreRef;
use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};
use parquet::basic::Type as PhysicalType;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::schema::types::SchemaDescriptor;

use super::data_file::DataFile;
use super::deletion_vector::FileToRead;

/// Rows of one batch at most, and about its bytes: rows may be large.
const BATCH_ROWS_MAX: usize = 64 * 1024;
const BATCH_BYTES_MAX: u64 = 32 << 20;

/// Reads a file that may be damaged: the Parquet reader panics on some of these.
pub(crate) async fn caught<T>(read: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    AssertUnwindSafe(read).catch_unwind().await.unwrap_or_else(|_| Err(anyhow!("its reader panicked")))
}

/// The rows of a batch of these row groups, so that it takes about [`BATCH_BYTES_MAX`] of memory.
pub(crate) fn batch_rows(groups: &[RowGroupMetaData]) -> usize {
    let largest = groups.iter().map(|group| memory_of(group) / (group.num_rows() as u64).max(1)).max();
    let rows = BATCH_BYTES_MAX / largest.unwrap_or(0).max(1);
    (rows as usize).clamp(1, BATCH_ROWS_MAX)
}

/// About the memory that the rows of a row group take.
fn memory_of(group: &RowGroupMetaData) -> u64 {
    let bytes_of = |column: &ColumnChunkMetaData| {
        column.uncompressed_size().max(column.unencoded_byte_array_data_bytes().unwrap_or(0)).max(0) as u64
    };
    group.columns().iter().map(bytes_of).sum()
}

async fn read_metadata(reader: &mut ObjectReader) -> anyhow::Result<ArrowReaderMetadata> {
    let metadata = ArrowReaderMetadata::load_async(reader, ArrowReaderOptions::default()).await?;
    Ok(with_microseconds(metadata)?)
}

/// Spark writes times as INT96, which Arrow takes for nanoseconds: too narrow for the years that Delta's microseconds have.
pub(crate) fn with_microseconds(metadata: ArrowReaderMetadata) -> Result<ArrowReaderMetadata, ParquetError> {
    let leaves = metadata.parquet_schema().columns();
    if !leaves.iter().any(|leaf| leaf.physical_type() == PhysicalType::INT96) {
        return Ok(metadata);
    }
    let fields = metadata.schema().fields().iter().map(of_microseconds).collect::<Vec<_>>();
    let options = ArrowReaderOptions::new().with_schema(Arc::new(Schema::new(fields)));
    ArrowReaderMetadata::try_new(metadata.metadata().clone(), options)
}

fn of_microseconds(field: &FieldRef) -> FieldRef {
    let ty = match field.data_type() {
        DataType::Timestamp(TimeUnit::Nanosecond, None) => {
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
        }
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(of_microseconds).collect()),
        DataType::List(item) => DataType::List(of_microseconds(item)),
        DataType::Map(entries, is_sorted) => DataType::Map(of_microseconds(entries), *is_sorted),
        _ => return field.clone(),
    };
    Arc::new(Field::clone(field).with_data_type(ty))
}

/// Some columns of a file, as a stream of batches.
pub struct Columns {
    /// Without the deleted ones.
    pub rows: u64,
    pub schema: SchemaRef,
    pub batches: ParquetRecordBatchStream<ObjectReader>,
}

/// Reads some top-level columns of a file, or all of them. Names that the file lacks are ignored.
pub async fn read_columns(store: ObjectStoreRef, file: &DataFile, names: Option<&[&str]>) -> anyhow::Result<Columns> {
    let mut reader = ObjectReader { store, path: file.path.clone(), size: file.size };
    let metadata = read_metadata(&mut reader).await?;
    let mut builder = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, metadata);
    let mut rows = builder.metadata().file_metadata().num_rows() as u64;
    if let Some(deleted) = &file.deleted {
        builder = builder.with_row_selection(deleted.selection(0..rows));
        rows -= deleted.count_in(0..rows);
    }
    let mask = mask(builder.parquet_schema(), names);
    let batch_rows = batch_rows(builder.metadata().row_groups());
    let batches = builder.with_projection(mask).with_batch_size(batch_rows).build()?;
    Ok(Columns { rows, schema: batches.schema().clone(), batches })
}

fn mask(schema: &SchemaDescriptor, names: Option<&[&str]>) -> ProjectionMask {
    let Some(names) = names else { return ProjectionMask::all() };
    let fields = schema.root_schema().get_fields().iter().enumerate();
    let wanted = fields.filter(|(_, field)| names.contains(&field.name())).map(|(at, _)| at);
    ProjectionMask::roots(schema, wanted.collect::<Vec<_>>())
}

/// A file that is read row group by row group.
pub(crate) struct RowGroups {
    store: ObjectStoreRef,
    file: FileToRead,
    metadata: ArrowReaderMetadata,
    /// The row groups that `read_last_unread` has not returned yet.
    unread: usize,
}

impl RowGroups {
    pub(crate) async fn open(store: ObjectStoreRef, file: FileToRead) -> anyhow::Result<Self> {
        let mut reader = ObjectReader { store: store.clone(), path: file.path.clone(), size: file.size };
        let metadata = read_metadata(&mut reader).await?;
        let unread = metadata.metadata().num_row_groups();
        Ok(Self { store, file, metadata, unread })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.file.path
    }

    /// The rows of each row group, without the deleted ones, and about the memory that all of them take.
    pub(crate) fn sizes(&self) -> impl ExactSizeIterator<Item = (u64, u64)> {
        let groups = self.metadata.metadata().row_groups();
        let deleted = |group| self.file.deleted.as_ref().map_or(0, |deleted| deleted.count_in(self.rows_of(group)));
        let sizes = groups.iter().enumerate();
        sizes.map(move |(at, group)| (group.num_rows() as u64 - deleted(at), memory_of(group)))
    }

    /// The positions of a row group's rows in the file.
    fn rows_of(&self, group: usize) -> Range<u64> {
        let groups = self.metadata.metadata().row_groups();
        let start = groups[..group].iter().map(|group| group.num_rows() as u64).sum();
        start..start + groups[group].num_rows() as u64
    }

    /// Some top-level columns of a row group, or all of them.
    pub(crate) fn read(
        &self,
        group: usize,
        names: Option<&[&str]>,
    ) -> anyhow::Result<ParquetRecordBatchStream<ObjectReader>> {
        let builder = ParquetRecordBatchStreamBuilder::new_with_metadata(self.reader(), self.metadata.clone());
        let mask = mask(builder.parquet_schema(), names);
        let batch_rows = batch_rows(&self.metadata.metadata().row_groups()[group..=group]);
        let mut builder = builder.with_row_groups(vec![group]).with_projection(mask);
        if let Some(deleted) = &self.file.deleted {
            builder = builder.with_row_selection(deleted.selection(self.rows_of(group)));
        }
        Ok(builder.with_batch_size(batch_rows).build()?)
    }

    /// Reads the row groups from the last to the first, one per call; `None` after the first one.
    pub(crate) async fn read_last_unread(&mut self) -> anyhow::Result<Option<Vec<RecordBatch>>> {
        let Some(group) = self.unread.checked_sub(1) else { return Ok(None) };
        self.unread = group;
        Ok(Some(self.read(group, None)?.try_collect().await?))
    }

    fn reader(&self) -> ObjectReader {
        ObjectReader { store: self.store.clone(), path: self.file.path.clone(), size: self.file.size }
    }
}

/// Reads byte ranges of a file from an object store.
pub struct ObjectReader {
    store: ObjectStoreRef,
    path: Path,
    size: u64,
}

impl AsyncFileReader for ObjectReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        async move { Ok(self.store.get_range(&self.path, range).await?) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        let size = self.size;
        async move { Ok(Arc::new(ParquetMetaDataReader::new().load_and_finish(self, size).await?)) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use arrow::array::AsArray;
    use arrow::datatypes::TimestampMicrosecondType;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use parquet::data_type::{Int96, Int96Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::*;

    const JULIAN_DAY_OF_EPOCH: i64 = 2_440_588;
    const DAY_MICROS: i64 = 86_400_000_000;

    /// As Spark writes times by default.
    fn file_of_int96(days: &[i64]) -> Bytes {
        let schema = Arc::new(parse_message_type("message rows { required int96 ts; }").unwrap());
        let mut bytes = Vec::new();
        let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::new(WriterProperties::default())).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let one_second = 1_000_000_000_u32;
        let values = days.iter().map(|day| Int96::from(vec![one_second, 0, (JULIAN_DAY_OF_EPOCH + day) as u32]));
        column.typed::<Int96Type>().write_batch(&values.collect::<Vec<_>>(), None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
        bytes.into()
    }

    #[test]
    fn times_of_spark_are_microseconds() {
        // Days of 1970, 2025, 9999 and 1582: nanoseconds reach from 1677 to 2262.
        let days = [0, 20_090, 2_932_000, -141_428];
        let bytes = file_of_int96(&days);
        let metadata = ArrowReaderMetadata::load(&bytes, ArrowReaderOptions::default()).unwrap();
        let metadata = with_microseconds(metadata).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, metadata).build().unwrap();
        let batches: Vec<_> = reader.map(Result::unwrap).collect();
        let times = batches[0].column(0).as_primitive::<TimestampMicrosecondType>();
        assert_eq!(times.timezone(), Some("UTC"));
        let expected: Vec<_> = days.iter().map(|day| day * DAY_MICROS + 1_000_000).collect();
        assert_eq!(times.values().to_vec(), expected);
    }
}
