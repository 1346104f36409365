//! Reading some columns of a data file, without the rest of it.

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
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

/// Rows of one read.
const BATCH_ROWS: usize = 64 * 1024;

/// Some columns of a file, as a stream of batches.
pub struct Columns {
    pub rows: u64,
    pub schema: SchemaRef,
    pub batches: ParquetRecordBatchStream<ObjectReader>,
}

/// Opens a file for some of its top-level columns, or for all of them. A name that it does not have is passed over.
pub async fn columns(store: ObjectStoreRef, path: Path, size: u64, names: Option<&[&str]>) -> anyhow::Result<Columns> {
    let builder = ParquetRecordBatchStreamBuilder::new(ObjectReader { store, path, size }).await?;
    let rows = builder.metadata().file_metadata().num_rows() as u64;
    let mask = match names {
        Some(names) => {
            let fields = builder.parquet_schema().root_schema().get_fields().iter().enumerate();
            let wanted = fields.filter(|(_, field)| names.contains(&field.name())).map(|(at, _)| at);
            ProjectionMask::roots(builder.parquet_schema(), wanted.collect::<Vec<_>>())
        }
        None => ProjectionMask::all(),
    };
    let batches = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build()?;
    Ok(Columns { rows, schema: batches.schema().clone(), batches })
}

/// A file, read row group by row group, from its end.
pub struct RowGroups {
    store: ObjectStoreRef,
    path: Path,
    size: u64,
    left: usize,
}

impl RowGroups {
    pub async fn open(store: ObjectStoreRef, path: Path, size: u64) -> anyhow::Result<Self> {
        let mut groups = Self { store, path, size, left: 0 };
        groups.left = groups.reader().get_metadata(None).await?.num_row_groups();
        Ok(groups)
    }

    /// The last row group that was not read yet.
    pub async fn last(&mut self) -> anyhow::Result<Option<Vec<RecordBatch>>> {
        let Some(group) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = group;
        let builder = ParquetRecordBatchStreamBuilder::new(self.reader()).await?;
        let batches = builder.with_row_groups(vec![group]).with_batch_size(BATCH_ROWS).build()?;
        Ok(Some(batches.try_collect().await?))
    }

    fn reader(&self) -> ObjectReader {
        ObjectReader { store: self.store.clone(), path: self.path.clone(), size: self.size }
    }
}

/// Reads the parts of a file that a reader of some columns asks for.
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
