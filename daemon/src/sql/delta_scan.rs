//! A version of a Delta table as a DataFusion table. A query reads the files that its filters may match, by their day
//! and their statistics; DataFusion's Parquet reader skips row groups and pages within them.

use std::sync::Arc;

use arrow::array::{AsArray, Date32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::config::TableParquetOptions;
use datafusion::common::{DFSchema, ScalarValue, Statistics};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::object_store::ObjectStoreUrl;
use datafusion::datasource::physical_plan::parquet::ParquetRowSelection;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::TableProviderFilterPushDown;
use datafusion::logical_expr::utils::conjunction;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::prelude::Expr;
use uuid::Uuid;

use super::file_stats::FileStats;
use super::float_bounds::{FloatBoundsIgnored, has_floats};
use super::zoned::zoned_field;
use crate::delta::{DataFile, EVENT_DATE, Snapshot, TableReader};

/// A version of a table, for queries.
#[derive(Debug)]
pub(crate) struct DeltaScan {
    /// All columns, in the table's order. Timestamps have the zone of the table's days.
    schema: SchemaRef,
    /// The columns of the files, then the day.
    source_schema: TableSchema,
    snapshot: Snapshot,
    /// The name of the table's store among those of a session.
    store_url: ObjectStoreUrl,
}

impl DeltaScan {
    /// The table that `reader` reads, at a version.
    pub(crate) async fn open(reader: &TableReader, version: u64) -> anyhow::Result<Arc<dyn TableProvider>> {
        Ok(Arc::new(Self::new(reader.snapshot_at(version).await?)?))
    }

    fn new(snapshot: Snapshot) -> anyhow::Result<Self> {
        let as_queried = |field: &FieldRef| zoned_field(&as_view(field), snapshot.time_zone);
        let schema = Schema::new(snapshot.schema.fields().iter().map(as_queried).collect::<Vec<_>>());
        let (days, columns): (Vec<_>, Vec<FieldRef>) =
            schema.fields().iter().cloned().partition(|field| field.name() == EVENT_DATE);
        let in_files = |field: FieldRef| match snapshot.physical_name(field.name()) {
            Some(name) => Arc::new(Field::clone(&field).with_name(name)),
            None => field,
        };
        let columns: Vec<_> = columns.into_iter().map(in_files).collect();
        let source_schema =
            TableSchema::builder(Arc::new(Schema::new(columns))).with_table_partition_cols(days).build();
        let store_url = ObjectStoreUrl::parse(format!("table://{}/", Uuid::new_v4().simple()))?;
        Ok(Self { schema: Arc::new(schema), source_schema, snapshot, store_url })
    }

    /// The files that may have rows for the filters, with their statistics.
    fn matching_files(&self, state: &dyn Session, filters: &[Expr]) -> Result<(Vec<&DataFile>, FileStats)> {
        let (of_day, of_columns): (Vec<_>, Vec<_>) = filters.iter().cloned().partition(is_of_day);
        let mut files: Vec<_> = self.snapshot.files.iter().collect();
        if let Some(filter) = conjunction(of_day) {
            let days: Date32Array = files.iter().map(|file| file.day()).collect();
            let schema = Arc::new(Schema::new(self.source_schema.table_partition_cols().clone()));
            let days = RecordBatch::try_new(schema.clone(), vec![Arc::new(days)])?;
            let filter = state.create_physical_expr(filter, &DFSchema::try_from(schema)?)?;
            let matches = filter.evaluate(&days)?.into_array(files.len())?;
            let matches = matches.as_boolean();
            retain(&mut files, matches.iter().map(|matches| matches == Some(true)));
        }
        // The statistics of renamed columns have their names in the files, which the filter does not use.
        let filter = conjunction(of_columns).filter(|_| self.snapshot.physical_names.is_none());
        let Some(filter) = filter else {
            let stats = FileStats::read(&files, &Schema::empty())?;
            return Ok((files, stats));
        };
        let schema = self.source_schema.table_schema();
        let names = filter.column_refs();
        let wanted = schema.fields().iter().filter(|field| names.iter().any(|column| column.name() == field.name()));
        let stats = FileStats::read(&files, &Schema::new(wanted.cloned().collect::<Vec<_>>()))?;
        let filter = state.create_physical_expr(filter, &DFSchema::try_from(schema.clone())?)?;
        let matches =
            PruningPredicateBuilder::new().with_file_schema(schema.clone()).try_build(filter)?.prune(&stats)?;
        retain(&mut files, matches.iter().copied());
        Ok((files, stats.filter(&matches)?))
    }

    /// Positions in the table's order, as positions in `source_schema`.
    fn source_projection(&self, projection: Option<&Vec<usize>>) -> Result<Vec<usize>> {
        let source = self.source_schema.table_schema();
        let all = (0..self.schema.fields().len()).collect();
        let columns = projection.unwrap_or(&all).iter();
        let name = |at: &usize| {
            let logical = self.schema.field(*at).name();
            self.snapshot.physical_name(logical).unwrap_or(logical)
        };
        columns.map(|at| Ok(source.index_of(name(at))?)).collect()
    }

    /// Gives columns that were renamed their names in the table.
    fn renamed(&self, scan: Arc<dyn ExecutionPlan>, projection: Option<&Vec<usize>>) -> Result<Arc<dyn ExecutionPlan>> {
        if self.snapshot.physical_names.is_none() {
            return Ok(scan);
        }
        let schema = match projection {
            Some(projection) => self.schema.project(projection)?,
            None => self.schema.as_ref().clone(),
        };
        let scanned = scan.schema();
        let columns = schema.fields().iter().zip(scanned.fields()).enumerate();
        let columns = columns.map(|(at, (logical, physical))| {
            let expr: Arc<dyn PhysicalExpr> = Arc::new(Column::new(physical.name(), at));
            (expr, logical.name().clone())
        });
        Ok(Arc::new(ProjectionExec::try_new(columns.collect::<Vec<_>>(), scan)?))
    }
}

#[async_trait]
impl TableProvider for DeltaScan {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// All rows of a file have one day. Other filters are checked again on the rows that were read.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let of = |filter: &&Expr| match is_of_day(filter) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Inexact,
        };
        Ok(filters.iter().map(of).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (files, stats) = self.matching_files(state, filters)?;
        let columns = projection;
        let projection = self.source_projection(columns)?;
        if files.is_empty() {
            let schema = self.source_schema.table_schema().project(&projection)?;
            return self.renamed(Arc::new(EmptyExec::new(Arc::new(schema))), columns);
        }
        let mut total = Statistics::new_unknown(self.source_schema.table_schema());
        total.num_rows = stats.rows();
        let files = files.iter().enumerate().map(|(at, file)| {
            let mut known = Statistics::new_unknown(self.source_schema.file_schema());
            known.num_rows = stats.rows_of(at);
            let day = ScalarValue::Date32(file.day());
            let mut partitioned = PartitionedFile::new("", file.size).with_partition_values(vec![day]);
            // The path is one of the store already, and must not be encoded again.
            partitioned.object_meta.location = file.path.clone();
            if let Some(left) = file.without_deleted().map_err(|error| DataFusionError::External(error.into()))? {
                partitioned = partitioned.with_extension(ParquetRowSelection::new(left));
            }
            Ok(partitioned.with_statistics(Arc::new(known)))
        });
        let groups = FileGroup::new(files.collect::<Result<_>>()?).split_files(state.config().target_partitions());
        state.runtime_env().register_object_store(self.store_url.as_ref(), self.snapshot.store.clone());
        let mut options = TableParquetOptions::default();
        // Of times that Spark wrote.
        options.global.coerce_int96 = Some("us".to_owned());
        options.global.coerce_int96_tz = Some("UTC".to_owned());
        let mut source = ParquetSource::new(self.source_schema.clone()).with_table_parquet_options(options);
        if has_floats(self.source_schema.file_schema().fields()) {
            let readers = FloatBoundsIgnored::new(self.snapshot.store.clone());
            source = source.with_parquet_file_reader_factory(Arc::new(readers));
        }
        let source = Arc::new(source);
        let scan = FileScanConfigBuilder::new(self.store_url.clone(), source)
            .with_file_groups(groups)
            .with_statistics(total)
            .with_projection_indices(Some(projection))?
            .with_limit(limit);
        self.renamed(DataSourceExec::from_data_source(scan.build()), columns)
    }
}

/// Whether a filter needs nothing but the day.
fn is_of_day(filter: &Expr) -> bool {
    let columns = filter.column_refs();
    !columns.is_empty() && columns.iter().all(|column| column.name() == EVENT_DATE) && !filter.is_volatile()
}

fn retain<T>(items: &mut Vec<T>, keep: impl IntoIterator<Item = bool>) {
    let mut keep = keep.into_iter();
    items.retain(|_| keep.next().unwrap_or(true));
}

/// A column whose texts and bytes are read as views, which saves copies.
fn as_view(field: &FieldRef) -> FieldRef {
    let ty = match field.data_type() {
        DataType::Utf8 => DataType::Utf8View,
        DataType::Binary => DataType::BinaryView,
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(as_view).collect()),
        DataType::List(item) => DataType::List(as_view(item)),
        _ => return field.clone(),
    };
    Arc::new(Field::clone(field).with_data_type(ty))
}
