//! Parquet's statistics of floats leave NaN out, and in the order of a query NaN is greater than any number, or less if its
//! sign is set. So by these statistics, row groups and pages would be skipped that have rows for a filter: they are not
//! used.

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::{DataType, Fields};
use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::DefaultParquetFileReaderFactory;
use datafusion::error::Result;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::ObjectStore;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::basic::{LogicalType, Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use parquet::file::page_index::column_index::ColumnIndexMetaData;

/// Whether there are floats among the columns, or within them.
pub(super) fn has_floats(fields: &Fields) -> bool {
    fields.iter().any(|field| match field.data_type() {
        DataType::Float16 | DataType::Float32 | DataType::Float64 => true,
        DataType::Struct(fields) => has_floats(fields),
        DataType::List(item) => has_floats(&Fields::from(vec![item.clone()])),
        _ => false,
    })
}

/// Makes readers of files whose floats have no bounds.
#[derive(Debug)]
pub(super) struct FloatBoundsIgnored(DefaultParquetFileReaderFactory);

impl FloatBoundsIgnored {
    pub(super) fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self(DefaultParquetFileReaderFactory::new(store))
    }
}

impl ParquetFileReaderFactory for FloatBoundsIgnored {
    fn create_reader(
        &self,
        partition_index: usize,
        file: PartitionedFile,
        metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let reader = self.0.create_reader(partition_index, file, metadata_size_hint, metrics)?;
        Ok(Box::new(Reader(reader)))
    }
}

struct Reader(Box<dyn AsyncFileReader + Send>);

impl AsyncFileReader for Reader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        self.0.get_bytes(range)
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        self.0.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        async move {
            let metadata = self.0.get_metadata(options).await?;
            Ok(Arc::new(without_float_bounds(Arc::unwrap_or_clone(metadata))?))
        }
        .boxed()
    }
}

/// The metadata without what they say of the values of floats.
fn without_float_bounds(metadata: ParquetMetaData) -> Result<ParquetMetaData, ParquetError> {
    let mut metadata = metadata.into_builder();
    let groups = metadata.take_row_groups().into_iter().map(without_statistics).collect::<Result<Vec<_>, _>>()?;
    let mut pages = metadata.take_column_index();
    for (group, pages) in groups.iter().zip(pages.iter_mut().flatten()) {
        for (column, pages) in group.columns().iter().zip(pages) {
            if is_float(column) {
                *pages = ColumnIndexMetaData::NONE;
            }
        }
    }
    Ok(metadata.set_row_groups(groups).set_column_index(pages).build())
}

fn without_statistics(group: RowGroupMetaData) -> Result<RowGroupMetaData, ParquetError> {
    let mut group = group.into_builder();
    let columns = group.take_columns().into_iter().map(|column| match is_float(&column) {
        // Without the index's place, nobody reads it later.
        true => {
            column.into_builder().clear_statistics().set_column_index_offset(None).set_column_index_length(None).build()
        }
        false => Ok(column),
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    group.set_column_metadata(columns).build()
}

fn is_float(column: &ColumnChunkMetaData) -> bool {
    matches!(column.column_type(), Type::FLOAT | Type::DOUBLE)
        || matches!(column.column_descr().logical_type_ref(), Some(LogicalType::Float16))
}
