//! Results that can be printed: a time outside of the calendar, as confused producers send it, is shown as its number.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::DateTime;

/// The same rows, with text for columns that have such times.
pub(crate) fn printable(batches: &[RecordBatch]) -> Result<Vec<RecordBatch>, ArrowError> {
    let Some(first) = batches.first() else { return Ok(Vec::new()) };
    let columns = first.num_columns();
    let has_odd = |at: &usize| batches.iter().any(|batch| has_odd_time(batch.column(*at)));
    let odd: Vec<usize> = (0..columns).filter(has_odd).collect();
    if odd.is_empty() {
        return Ok(batches.to_vec());
    }
    let field = |(at, field): (usize, &FieldRef)| match odd.contains(&at) {
        true => Arc::new(Field::new(field.name(), DataType::Utf8, true)),
        false => field.clone(),
    };
    let schema = Arc::new(Schema::new(first.schema().fields().iter().enumerate().map(field).collect::<Vec<_>>()));
    let rows = |batch: &RecordBatch| {
        let column =
            |(at, column): (usize, &ArrayRef)| if odd.contains(&at) { as_text(column) } else { Ok(column.clone()) };
        let columns = batch.columns().iter().enumerate().map(column).collect::<Result<_, _>>()?;
        RecordBatch::try_new(schema.clone(), columns)
    };
    batches.iter().map(rows).collect()
}

fn micros(column: &ArrayRef) -> Option<ArrayRef> {
    match column.data_type() {
        DataType::Timestamp(_, zone) => cast(column, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone())).ok(),
        _ => None,
    }
}

fn is_odd(micros: i64) -> bool {
    DateTime::from_timestamp_micros(micros).is_none()
}

fn has_odd_time(column: &ArrayRef) -> bool {
    let Some(micros) = micros(column) else { return false };
    micros.as_primitive::<TimestampMicrosecondType>().iter().flatten().any(is_odd)
}

fn as_text(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(column, &options)?;
    let micros = micros(column).unwrap_or_else(|| column.clone());
    let micros = micros.as_primitive::<TimestampMicrosecondType>();
    let text = |row: usize| match micros.is_valid(row).then(|| micros.value(row)) {
        None => None,
        Some(micros) if is_odd(micros) => Some(format!("{micros} \u{b5}s")),
        Some(_) => Some(formatter.value(row).to_string()),
    };
    Ok(Arc::new((0..column.len()).map(text).collect::<StringArray>()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use arrow::array::{Int64Array, TimestampMicrosecondArray};

    use super::*;

    #[test]
    fn a_time_outside_of_the_calendar_is_a_number() {
        let times = TimestampMicrosecondArray::from(vec![Some(0), None, Some(i64::MAX)]).with_timezone("UTC");
        let columns: [(_, ArrayRef); 2] = [("at", Arc::new(times)), ("n", Arc::new(Int64Array::from(vec![1, 2, 3])))];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let shown = printable(std::slice::from_ref(&batch)).unwrap();
        let text = shown[0].column(0).as_string::<i32>();
        assert_eq!((text.value(0), text.is_null(1)), ("1970-01-01T00:00:00Z", true));
        assert_eq!(text.value(2), format!("{} \u{b5}s", i64::MAX));
        let usual = batch.slice(0, 2);
        assert_eq!(printable(std::slice::from_ref(&usual)).unwrap(), [usual]);
    }
}
