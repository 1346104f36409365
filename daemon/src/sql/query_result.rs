//! A query's result as JSON: columns with a kind, and rows.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, SchemaRef, TimeUnit, TimestampMillisecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::dataframe::DataFrame;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use silverd_core::plain_text::first_chars;

use super::error::QueryError;
use super::printable::{outside_of_calendar, printable_column};

/// What is kept of a result.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct ResultLimits {
    pub rows: usize,
    /// Characters of one value. The rest is cut off.
    pub characters: usize,
}

/// A value in JSON.
pub(crate) type Cell = Box<RawValue>;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct QueryResult {
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Cell>>,
    /// The query has more rows than were asked for.
    pub truncated: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Column {
    pub name: String,
    pub kind: ColumnKind,
}

/// What the values of a column are in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ColumnKind {
    /// Text: all digits, which a number of JavaScript cannot hold.
    Integer,
    /// Text, too.
    Decimal,
    /// A float.
    Number,
    /// Milliseconds since the epoch, or text for a time outside of the calendar: its number and unit.
    Time,
    Bool,
    Text,
}

impl ColumnKind {
    pub(crate) fn is_numeric(self) -> bool {
        matches!(self, Self::Integer | Self::Decimal | Self::Number)
    }
}

/// Runs a query for its first rows.
pub(crate) async fn collect_rows(frame: DataFrame, limits: ResultLimits) -> Result<QueryResult, QueryError> {
    let schema: SchemaRef = std::sync::Arc::new(frame.schema().as_arrow().clone());
    let batches = frame.limit(0, Some(limits.rows + 1))?.collect().await?;
    let columns = schema.fields().iter();
    let columns = columns.map(|field| Column { name: field.name().clone(), kind: kind(field.data_type()) }).collect();
    let mut result = QueryResult { columns, ..QueryResult::default() };
    for batch in &batches {
        add_rows(&mut result.rows, batch, limits.characters)?;
    }
    result.truncated = result.rows.len() > limits.rows;
    result.rows.truncate(limits.rows);
    Ok(result)
}

fn kind(ty: &DataType) -> ColumnKind {
    match ty {
        DataType::Dictionary(_, value) => kind(value),
        DataType::Timestamp(..) => ColumnKind::Time,
        DataType::Boolean => ColumnKind::Bool,
        ty if ty.is_integer() => ColumnKind::Integer,
        ty if ty.is_decimal() => ColumnKind::Decimal,
        ty if ty.is_numeric() => ColumnKind::Number,
        _ => ColumnKind::Text,
    }
}

fn add_rows(rows: &mut Vec<Vec<Cell>>, batch: &RecordBatch, characters_max: usize) -> Result<(), QueryError> {
    let columns = batch.columns().iter().map(|column| cells(column, characters_max));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let mut columns: Vec<_> = columns.into_iter().map(Vec::into_iter).collect();
    rows.extend((0..batch.num_rows()).map(|_| columns.iter_mut().filter_map(Iterator::next).collect::<Vec<_>>()));
    Ok(())
}

fn cells(array: &ArrayRef, characters_max: usize) -> Result<Vec<Cell>, QueryError> {
    let cast_to = |ty| cast(array, ty).map_err(anyhow::Error::from);
    match array.data_type() {
        DataType::Dictionary(_, value) => cells(&cast_to(value)?, characters_max),
        ty if ty.is_integer() || ty.is_decimal() => {
            let options = FormatOptions::default();
            let digits = ArrayFormatter::try_new(array, &options).map_err(anyhow::Error::from)?;
            json(array, |row| to_raw_value(&digits.value(row).to_string()))
        }
        ty if ty.is_numeric() => {
            let numbers = cast_to(&DataType::Float64)?;
            let numbers = numbers.as_primitive::<Float64Type>();
            json(array, |row| to_raw_value(&numbers.value(row))) // null for infinity and NaN
        }
        DataType::Timestamp(_, zone) => {
            let times = cast_to(&DataType::Timestamp(TimeUnit::Millisecond, zone.clone()))?;
            let times = times.as_primitive::<TimestampMillisecondType>();
            let outside = outside_of_calendar(array).map_err(anyhow::Error::from)?;
            json(array, |row| match &outside[row] {
                Some(number) => to_raw_value(number),
                None => to_raw_value(&times.value(row)),
            })
        }
        DataType::Boolean => {
            let flags = array.as_boolean();
            json(array, |row| to_raw_value(&flags.value(row)))
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            let bytes = cast_to(&DataType::Binary)?;
            let bytes = bytes.as_binary::<i32>();
            json(array, |row| to_raw_value(&first_chars(&String::from_utf8_lossy(bytes.value(row)), characters_max)))
        }
        _ => {
            let options = FormatOptions::default();
            let shown = printable_column(array).map_err(anyhow::Error::from)?;
            let formatter = ArrayFormatter::try_new(&shown, &options).map_err(anyhow::Error::from)?;
            json(array, |row| to_raw_value(&first_chars(&formatter.value(row).to_string(), characters_max)))
        }
    }
}

fn json(array: &ArrayRef, value: impl Fn(usize) -> serde_json::Result<Cell>) -> Result<Vec<Cell>, QueryError> {
    let cell = |row| if array.is_null(row) { to_raw_value(&()) } else { value(row) };
    let cells: serde_json::Result<Vec<_>> = (0..array.len()).map(cell).collect();
    Ok(cells.map_err(anyhow::Error::from)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use arrow::array::{
        Date32Array, Decimal128Array, DurationSecondArray, Float64Array, Int64Array, TimestampSecondArray, UInt64Array,
    };

    use super::*;

    fn check(array: ArrayRef, expected: &str) {
        let mut rows = Vec::new();
        add_rows(&mut rows, &RecordBatch::try_from_iter([("n", array)]).unwrap(), 100).unwrap();
        assert_eq!(serde_json::to_string(&rows).unwrap(), expected);
        // On their way from the process for SQL, too.
        let again: Vec<Vec<Cell>> = serde_json::from_str(expected).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), expected);
    }

    fn decimal(values: Vec<Option<i128>>, precision: u8, scale: i8) -> ArrayRef {
        Arc::new(Decimal128Array::from(values).with_precision_and_scale(precision, scale).unwrap())
    }

    #[test]
    fn numbers_keep_their_digits() {
        check(Arc::new(Int64Array::from(vec![Some(i64::MIN), None])), r#"[["-9223372036854775808"],[null]]"#);
        check(Arc::new(UInt64Array::from(vec![u64::MAX])), r#"[["18446744073709551615"]]"#);
        check(decimal(vec![Some(12_345_678_901_234_567_890), None], 38, 2), r#"[["123456789012345678.90"],[null]]"#);
        check(decimal(vec![Some(-5), Some(0)], 18, 2), r#"[["-0.05"],["0.00"]]"#);
        check(decimal(vec![Some(10i128.pow(38) - 1)], 38, 0), r#"[["99999999999999999999999999999999999999"]]"#);
        check(Arc::new(Float64Array::from(vec![0.1, f64::NAN, f64::INFINITY])), "[[0.1],[null],[null]]");
    }

    #[test]
    fn times_outside_of_the_calendar_are_their_numbers() {
        let times = || TimestampSecondArray::from(vec![Some(2), None, Some(i64::MAX)]);
        check(Arc::new(times()), "[[2000],[null],[\"9223372036854775807 s\"]]");
        check(Arc::new(times().with_timezone("UTC")), "[[2000],[null],[\"9223372036854775807 s\"]]");
        check(Arc::new(Date32Array::from(vec![1, i32::MAX])), "[[\"1970-01-02\"],[\"2147483647 days\"]]");
        check(Arc::new(DurationSecondArray::from(vec![1, i64::MAX])), "[[\"PT1S\"],[\"9223372036854775807 s\"]]");
    }
}
