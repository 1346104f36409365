//! Delta's per-file statistics.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type, SchemaRef, TimeUnit};
use chrono::{DateTime, Datelike};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::statistics::Statistics;
use serde_json::{Map, Value, json};

use super::day::format_day;

/// The days that Delta's statistics can express: years of four digits.
const DAYS: RangeInclusive<i32> = -719_162..=2_932_896;

/// The columns with a NaN. Parquet's statistics leave it out, and to most engines it is greater than any number: such a
/// column has no bounds.
#[derive(Default)]
pub(super) struct NanColumns(BTreeSet<String>);

impl NanColumns {
    pub(super) fn add(&mut self, batch: &RecordBatch) {
        for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
            let has_nan = match field.data_type() {
                DataType::Float32 => column.as_primitive::<Float32Type>().iter().flatten().any(f32::is_nan),
                DataType::Float64 => column.as_primitive::<Float64Type>().iter().flatten().any(f64::is_nan),
                _ => false,
            };
            if has_nan {
                self.0.insert(field.name().clone());
            }
        }
    }
}

/// Delta's statistics (protocol, "Per-file Statistics") from those of the Parquet file, for top-level columns of
/// primitive types.
pub(super) fn stats(schema: &SchemaRef, metadata: &ParquetMetaData, nans: &NanColumns) -> Value {
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
        let rows = metadata.row_groups().iter().map(|group| group.num_rows().unsigned_abs());
        let Some(bounds) = bounds_of_groups(field.data_type(), chunks.iter().copied().zip(rows)) else { continue };
        if nans.0.contains(name) {
            continue;
        }
        let low = bounds.iter().map(|(low, _)| low.clone()).reduce(|a, b| if is_less(&b, &a) { b } else { a });
        let high = bounds.into_iter().map(|(_, high)| high).reduce(|a, b| if is_less(&a, &b) { b } else { a });
        if let (Some(low), Some(high)) = (low, high) {
            lowest.insert(name.clone(), render(field.data_type(), low));
            highest.insert(name.clone(), render(field.data_type(), high));
        }
    }
    let rows = metadata.file_metadata().num_rows();
    json!({ "numRecords": rows, "minValues": lowest, "maxValues": highest, "nullCount": nulls })
}

/// The bounds of each row group that has values; `None` if those of one are unknown.
fn bounds_of_groups<'m>(
    ty: &DataType,
    groups: impl Iterator<Item = (&'m Statistics, u64)>,
) -> Option<Vec<(Bound, Bound)>> {
    let mut all = Vec::new();
    for (chunk, rows) in groups {
        match bounds(ty, chunk) {
            Some(bounds) => all.push(bounds),
            None if chunk.null_count_opt() == Some(rows) => {}
            None => return None,
        }
    }
    Some(all)
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

fn is_less(a: &Bound, b: &Bound) -> bool {
    match (a, b) {
        (Bound::Int(a), Bound::Int(b)) => a < b,
        (Bound::Float(a), Bound::Float(b)) => a < b,
        (Bound::Text(a), Bound::Text(b)) => a < b,
        _ => false,
    }
}

fn bounds(ty: &DataType, chunk: &Statistics) -> Option<(Bound, Bound)> {
    Some(match (ty, chunk) {
        // Parquet has decimals of up to 18 digits as integers, Delta's statistics have them as decimal fractions.
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
        (DataType::Date32, Bound::Int(day)) if DAYS.contains(&(day as i32)) => json!(format_day(day as i32)),
        (DataType::Date32, _) => Value::Null,
        (_, Bound::Int(value)) => json!(value),
        (_, Bound::Float(value)) => json!(value),
        (_, Bound::Text(value)) => json!(value),
    }
}
