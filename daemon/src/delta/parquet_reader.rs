//! Reading some columns or row groups of a data file without the rest of it.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use deltalake_core::logstore::ObjectStoreRef;
use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::schema::types::SchemaDescriptor;

/// Rows of one batch at most, and about its bytes: rows may be large.
const BATCH_ROWS_MAX: usize = 64 * 1024;
const BATCH_BYTES_MAX: u64 = 32 << 20;

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

/// Some columns of a file, as a stream of batches.
pub struct Columns {
    pub rows: u64,
    pub schema: SchemaRef,
    pub batches: ParquetRecordBatchStream<ObjectReader>,
}

/// Reads some top-level columns of a file, or all of them. Names that the file lacks are ignored.
pub async fn read_columns(
    store: ObjectStoreRef,
    path: Path,
    size: u64,
    names: Option<&[&str]>,
) -> anyhow::Result<Columns> {
    let builder = ParquetRecordBatchStreamBuilder::new(ObjectReader { store, path, size }).await?;
    let rows = builder.metadata().file_metadata().num_rows() as u64;
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
    path: Path,
    size: u64,
    metadata: ArrowReaderMetadata,
    /// The row groups that `read_last_unread` has not returned yet.
    unread: usize,
}

impl RowGroups {
    pub(crate) async fn open(store: ObjectStoreRef, path: Path, size: u64) -> anyhow::Result<Self> {
        let mut reader = ObjectReader { store: store.clone(), path: path.clone(), size };
        let metadata = ArrowReaderMetadata::load_async(&mut reader, ArrowReaderOptions::default()).await?;
        let unread = metadata.metadata().num_row_groups();
        Ok(Self { store, path, size, metadata, unread })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The rows of each row group, and about the memory that they take.
    pub(crate) fn sizes(&self) -> impl ExactSizeIterator<Item = (u64, u64)> {
        let groups = self.metadata.metadata().row_groups().iter();
        groups.map(|group| (group.num_rows() as u64, memory_of(group)))
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
        let builder = builder.with_row_groups(vec![group]).with_projection(mask);
        Ok(builder.with_batch_size(batch_rows).build()?)
    }

    /// Reads the row groups from the last to the first, one per call; `None` after the first one.
    pub(crate) async fn read_last_unread(&mut self) -> anyhow::Result<Option<Vec<RecordBatch>>> {
        let Some(group) = self.unread.checked_sub(1) else { return Ok(None) };
        self.unread = group;
        Ok(Some(self.read(group, None)?.try_collect().await?))
    }

    fn reader(&self) -> ObjectReader {
        ObjectReader { store: self.store.clone(), path: self.path.clone(), size: self.size }
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
