//! The statistics of a table's data files, by which a query skips files.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Date32Array, Int64Array, RecordBatch, StructArray};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Int64Type, Schema, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{Column, ScalarValue};

use crate::delta::{DataFile, EVENT_DATE};

/// Delta's names of the statistics.
const ROWS: &str = "numRecords";
const MIN: &str = "minValues";
const MAX: &str = "maxValues";
const NULLS: &str = "nullCount";

/// Some writers cut the microseconds of a time off: the greatest time of a file may be greater by this.
const TIME_ERROR_MICROS: i64 = 999;

/// The statistics of files: a row for each, in the shape that they have in the log. What is not known of a file is
/// null.
pub(super) struct FileStats {
    batch: RecordBatch,
    /// Of the rows that the statistics count.
    deleted: Vec<i64>,
}

impl FileStats {
    /// The rows, days and bounds of some columns. Statistics that cannot be read count as unknown.
    pub(super) fn read(files: &[&DataFile], columns: &Schema) -> Result<Self, ArrowError> {
        let schema = Arc::new(stats_schema(columns));
        let texts: Vec<_> = files.iter().map(|file| file.stats.as_deref().unwrap_or("{}")).collect();
        let batch = decode(&texts, &schema).or_else(|_| {
            let is_readable = |text: &str| decode(&[text], &schema).is_ok();
            let texts: Vec<_> = texts.iter().map(|text| if is_readable(text) { text } else { "{}" }).collect();
            decode(&texts, &schema)
        })?;
        let days: Date32Array = files.iter().map(|file| file.day()).collect();
        let day = Field::new(EVENT_DATE, DataType::Date32, true);
        let fields: Vec<FieldRef> = batch.schema().fields().iter().cloned().chain([Arc::new(day)]).collect();
        let columns = batch.columns().iter().cloned().chain([Arc::new(days) as ArrayRef]).collect();
        let deleted = files.iter().map(|file| file.deleted.as_ref().map_or(0, |deleted| deleted.count() as i64));
        Ok(Self { batch: RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?, deleted: deleted.collect() })
    }

    /// Those of the files that are kept.
    pub(super) fn filter(&self, kept: &[bool]) -> Result<Self, ArrowError> {
        let deleted = self.deleted.iter().zip(kept).filter(|(_, kept)| **kept).map(|(deleted, _)| *deleted).collect();
        Ok(Self { batch: filter_record_batch(&self.batch, &BooleanArray::from(kept.to_vec()))?, deleted })
    }

    /// The rows of a file.
    pub(super) fn rows_of(&self, file: usize) -> Precision<usize> {
        let rows = self.row_array().filter(|rows| rows.is_valid(file)).map(|rows| rows.value(file));
        let deleted = self.deleted.get(file).copied().unwrap_or(0);
        let rows = rows.and_then(|rows| rows.checked_sub(deleted));
        rows.and_then(|rows| usize::try_from(rows).ok()).map_or(Precision::Absent, Precision::Exact)
    }

    /// The rows of all files.
    pub(super) fn rows(&self) -> Precision<usize> {
        (0..self.batch.num_rows()).map(|file| self.rows_of(file)).fold(Precision::Exact(0), |sum, rows| sum.add(&rows))
    }

    fn row_array(&self) -> Option<&Int64Array> {
        self.batch.column_by_name(ROWS)?.as_primitive_opt::<Int64Type>()
    }

    fn of_column(&self, kind: &str, column: &Column) -> Option<ArrayRef> {
        let stats: &StructArray = self.batch.column_by_name(kind)?.as_struct_opt()?;
        stats.column_by_name(column.name()).cloned()
    }

    fn days(&self, column: &Column) -> Option<ArrayRef> {
        (column.name() == EVENT_DATE).then(|| self.batch.column_by_name(EVENT_DATE).cloned()).flatten()
    }
}

impl PruningStatistics for FileStats {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.days(column).or_else(|| self.of_column(MIN, column))
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        let max = self.days(column).or_else(|| self.of_column(MAX, column))?;
        Some(match max.as_primitive_opt::<TimestampMicrosecondType>() {
            Some(times) => {
                let of_millis =
                    |time: i64| if time % 1000 == 0 { time.saturating_add(TIME_ERROR_MICROS) } else { time };
                let zone = match max.data_type() {
                    DataType::Timestamp(_, zone) => zone.clone(),
                    _ => None,
                };
                Arc::new(times.unary::<_, TimestampMicrosecondType>(of_millis).with_timezone_opt(zone))
            }
            None => max,
        })
    }

    fn num_containers(&self) -> usize {
        self.batch.num_rows()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        cast(&self.of_column(NULLS, column)?, &DataType::UInt64).ok()
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        cast(self.row_array()?, &DataType::UInt64).ok()
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

/// The statistics that are read, for some of a table's columns.
fn stats_schema(columns: &Schema) -> Schema {
    let bounded = columns.fields().iter().filter(|field| has_bounds(field.data_type()));
    let bounds: Fields = bounded.map(|field| Field::new(field.name(), in_log(field.data_type()), true)).collect();
    let nulls: Fields = bounds.iter().map(|field| Arc::new(Field::new(field.name(), DataType::Int64, true))).collect();
    let mut fields = vec![Field::new(ROWS, DataType::Int64, true)];
    if !bounds.is_empty() {
        fields.extend(
            [(MIN, bounds.clone()), (MAX, bounds), (NULLS, nulls)]
                .map(|(name, fields)| Field::new(name, DataType::Struct(fields), true)),
        );
    }
    Schema::new(fields)
}

/// The type of a column's bounds: a time that some writer left without a zone is UTC, whatever zone the table has.
fn in_log(ty: &DataType) -> DataType {
    match ty {
        DataType::Timestamp(unit, Some(_)) => DataType::Timestamp(*unit, Some("UTC".into())),
        other => other.clone(),
    }
}

/// Whether a column's least and greatest values can be read from JSON. `event_date` is not in the statistics. Those of
/// floats leave NaN out, which has its place in the order of a query.
fn has_bounds(ty: &DataType) -> bool {
    use DataType::{Date32, Decimal128, Int8, Int16, Int32, Int64, Timestamp, Utf8View};
    matches!(
        ty,
        Int8 | Int16 | Int32 | Int64 | Decimal128(..) | Date32 | Utf8View | Timestamp(TimeUnit::Microsecond, _)
    )
}

/// Reads JSON objects as rows.
fn decode(texts: &[&str], schema: &Arc<Schema>) -> Result<RecordBatch, ArrowError> {
    let builder = ReaderBuilder::new(schema.clone()).with_batch_size(texts.len().max(1));
    let mut decoder = builder.with_ignore_type_conflicts(true).build_decoder()?;
    for text in texts {
        // A broken object must not run into the next one.
        if decoder.decode(text.as_bytes())? < text.len() || decoder.has_partial_record() {
            return Err(ArrowError::JsonError("the statistics are not one JSON object".to_owned()));
        }
    }
    let batch = decoder.flush()?.unwrap_or_else(|| RecordBatch::new_empty(schema.clone()));
    if batch.num_rows() != texts.len() {
        return Err(ArrowError::JsonError("the statistics of a file are not one JSON object".to_owned()));
    }
    Ok(batch)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use arrow::datatypes::Date32Type;
    use object_store::path::Path;

    use super::*;

    fn file(stats: Option<&str>) -> DataFile {
        let event_date = Some("1970-01-02".to_owned());
        DataFile {
            path: Path::from("a.parquet"),
            event_date,
            size: 1,
            modified_ms: 0,
            stats: stats.map(str::to_owned),
            deleted: None,
        }
    }

    fn columns() -> Schema {
        let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        Schema::new(vec![
            Field::new("at", time, true),
            Field::new("price", DataType::Decimal128(18, 2), true),
            Field::new("tags", DataType::new_list(DataType::Utf8View, true), true),
        ])
    }

    #[test]
    fn what_cannot_be_read_is_unknown() {
        let good = r#"{"numRecords":3,"minValues":{"price":1.25},"maxValues":{"price":2.5},"nullCount":{"price":1}}"#;
        let texts = [
            Some(good),
            None,
            Some("{"),
            Some("]"),
            Some("{}{}"),
            Some("7"),
            Some(r#"{"numRecords":"x"}"#),
            Some(good),
        ];
        let files: Vec<_> = texts.into_iter().map(file).collect();
        let stats = FileStats::read(&files.iter().collect::<Vec<_>>(), &columns()).unwrap();
        let known: Vec<_> = (0..files.len()).map(|at| stats.rows_of(at) == Precision::Exact(3)).collect();
        assert_eq!(known, [true, false, false, false, false, false, false, true]);
        assert_eq!(stats.rows(), Precision::Absent);
        let least = stats.min_values(&Column::from_name("price")).unwrap();
        assert_eq!((least.len(), least.null_count()), (files.len(), files.len() - 2));
        assert!(stats.min_values(&Column::from_name("tags")).is_none());
        let days = stats.max_values(&Column::from_name(EVENT_DATE)).unwrap();
        assert_eq!(days.as_primitive::<Date32Type>().value(2), 1);
        let kept = stats.filter(&[true, false, false, false, false, false, false, true]).unwrap();
        assert_eq!(kept.rows(), Precision::Exact(6));
    }

    #[test]
    fn bounds_without_a_zone_are_utc() {
        let local = DataType::Timestamp(TimeUnit::Microsecond, Some("Asia/Kolkata".into()));
        let columns = Schema::new(vec![Field::new("at", local, true)]);
        let file = file(Some(r#"{"minValues":{"at":"1970-01-01T00:00:01"}}"#));
        let stats = FileStats::read(&[&file], &columns).unwrap();
        let least = stats.min_values(&Column::from_name("at")).unwrap();
        assert_eq!(least.as_primitive::<TimestampMicrosecondType>().values(), &[1_000_000]);
    }

    /// Spark writes the greatest time in whole milliseconds, rounded down.
    #[test]
    fn the_greatest_time_may_be_cut_off() {
        let files = ["2025-01-02T03:04:05.123Z", "2025-01-02T03:04:05.123456Z"];
        let files = files.map(|at| file(Some(&format!(r#"{{"maxValues":{{"at":"{at}"}}}}"#))));
        let stats = FileStats::read(&files.iter().collect::<Vec<_>>(), &columns()).unwrap();
        let greatest = stats.max_values(&Column::from_name("at")).unwrap();
        let micros = greatest.as_primitive::<TimestampMicrosecondType>();
        assert_eq!((micros.value(0) % 1_000_000, micros.value(1) % 1_000_000), (123_999, 123_456));
    }
}
