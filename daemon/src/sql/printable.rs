//! Values that can be printed: a time outside of the calendar, as confused producers send it, is shown as its number and
//! unit. Arrow prints an error in its place.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringArray, make_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, TimeUnit};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

const DAY_SECONDS: i64 = 86_400;
/// What Arrow prints for a duration that it cannot convert.
const INVALID_DURATION: &str = "<invalid>";

/// The same rows, with text for columns that have such times.
pub(crate) fn printable(batches: &[RecordBatch]) -> Result<Vec<RecordBatch>, ArrowError> {
    batches.iter().map(printable_batch).collect()
}

pub(crate) fn printable_batch(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().map(printable_column).collect::<Result<Vec<_>, _>>()?;
    let schema = batch.schema();
    let fields = schema.fields().iter().zip(&columns).map(|(field, column)| of_type(field, column.data_type()));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema, columns, &rows)
}

/// The same values, also those within lists, maps and records.
pub(crate) fn printable_column(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    if column.data_type().is_temporal() {
        return printable_times(column);
    }
    let data = column.to_data();
    let children = data.child_data().iter().map(|child| printable_column(&make_array(child.clone())));
    let children = children.collect::<Result<Vec<_>, _>>()?;
    let ty = of_children(column.data_type(), &children);
    if ty == *column.data_type() {
        return Ok(column.clone());
    }
    let children = children.iter().map(|child| child.to_data()).collect();
    Ok(make_array(data.into_builder().data_type(ty).child_data(children).build()?))
}

fn printable_times(times: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let outside = outside_of_calendar(times)?;
    if outside.iter().all(Option::is_none) {
        return Ok(times.clone());
    }
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(times, &options)?;
    let text = |(row, outside): (usize, Option<String>)| {
        outside.or_else(|| times.is_valid(row).then(|| formatter.value(row).to_string()))
    };
    Ok(Arc::new(outside.into_iter().enumerate().map(text).collect::<StringArray>()))
}

/// For each of some times, dates or durations the number and unit, if the calendar does not have it.
pub(super) fn outside_of_calendar(times: &ArrayRef) -> Result<Vec<Option<String>>, ArrowError> {
    let ty = times.data_type();
    let (unit, per_day) = match ty {
        DataType::Interval(_) => return Ok(vec![None; times.len()]),
        DataType::Date32 => ("days", 1),
        DataType::Timestamp(unit, _) | DataType::Time32(unit) | DataType::Time64(unit) | DataType::Duration(unit) => {
            match unit {
                TimeUnit::Second => ("s", DAY_SECONDS),
                TimeUnit::Millisecond => ("ms", DAY_SECONDS * 1_000),
                TimeUnit::Microsecond => ("\u{b5}s", DAY_SECONDS * 1_000_000),
                TimeUnit::Nanosecond => ("ns", DAY_SECONDS * 1_000_000_000),
            }
        }
        _ => ("ms", DAY_SECONDS * 1_000),
    };
    let numbers = cast(times, &DataType::Int64)?;
    let numbers = numbers.as_primitive::<Int64Type>();
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(times, &options)?;
    let is_outside = |row: usize| match ty {
        // Arrow takes some that are longer than a day for others.
        DataType::Time32(_) | DataType::Time64(_) => !(0..per_day).contains(&numbers.value(row)),
        _ => formatter.value(row).try_to_string().map_or(true, |text| text == INVALID_DURATION),
    };
    let number = |row: usize| format!("{} {unit}", numbers.value(row));
    Ok((0..times.len()).map(|row| (times.is_valid(row) && is_outside(row)).then(|| number(row))).collect())
}

/// A nested type with the types that its children have now.
fn of_children(ty: &DataType, children: &[ArrayRef]) -> DataType {
    let child = |at: usize, field: &FieldRef| of_type(field, children[at].data_type());
    match ty {
        DataType::List(item) => DataType::List(child(0, item)),
        DataType::LargeList(item) => DataType::LargeList(child(0, item)),
        DataType::ListView(item) => DataType::ListView(child(0, item)),
        DataType::LargeListView(item) => DataType::LargeListView(child(0, item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(child(0, item), *size),
        DataType::Map(entries, is_sorted) => DataType::Map(child(0, entries), *is_sorted),
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().enumerate().map(|(at, field)| child(at, field)).collect())
        }
        DataType::Dictionary(key, _) => DataType::Dictionary(key.clone(), Box::new(children[0].data_type().clone())),
        DataType::RunEndEncoded(ends, values) => DataType::RunEndEncoded(ends.clone(), child(1, values)),
        other => other.clone(),
    }
}

fn of_type(field: &FieldRef, ty: &DataType) -> FieldRef {
    Arc::new(Field::clone(field).with_data_type(ty.clone()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use arrow::array::{Int64Array, TimestampMicrosecondArray};
    use arrow::json::writer::{JsonArray, WriterBuilder};
    use arrow::util::pretty::pretty_format_batches;
    use datafusion::prelude::SessionConfig;

    use super::*;
    use crate::sql::bounded_context;

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

    /// Checks what is printed for values of these types.
    fn check(numbers: [i64; 2], types: &[(DataType, &str)]) {
        for (ty, expected) in types {
            let narrow = match ty {
                DataType::Date32 | DataType::Time32(_) => DataType::Int32,
                _ => DataType::Int64,
            };
            let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(numbers[0]), None, Some(numbers[1])]));
            let times = cast(&cast(&numbers, &narrow).unwrap(), ty).unwrap();
            let shown = printable_column(&times).unwrap();
            let shown: Vec<_> = shown.as_string::<i32>().iter().collect();
            assert_eq!((shown[1], shown[2]), (None, Some(*expected)), "{ty}");
            assert!(
                shown[0].is_some_and(|text| !text.contains("ERROR") && text != INVALID_DURATION),
                "{ty}: {shown:?}"
            );
        }
    }

    #[test]
    fn every_unit_has_its_number() {
        use DataType::{Date32, Date64, Duration, Time32, Time64, Timestamp};
        use TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
        let zone = || Some("+02:00".into());
        check(
            [0, i64::MAX],
            &[
                (Timestamp(Second, None), "9223372036854775807 s"),
                (Timestamp(Second, zone()), "9223372036854775807 s"),
                (Timestamp(Millisecond, None), "9223372036854775807 ms"),
                (Timestamp(Millisecond, zone()), "9223372036854775807 ms"),
                (Timestamp(Microsecond, None), "9223372036854775807 \u{b5}s"),
                (Timestamp(Microsecond, zone()), "9223372036854775807 \u{b5}s"),
                (Date64, "9223372036854775807 ms"),
                (Time64(Microsecond), "9223372036854775807 \u{b5}s"),
                (Time64(Nanosecond), "9223372036854775807 ns"),
                (Duration(Second), "9223372036854775807 s"),
            ],
        );
        check(
            [0, i64::from(i32::MAX)],
            &[(Date32, "2147483647 days"), (Time32(Second), "2147483647 s"), (Time32(Millisecond), "2147483647 ms")],
        );
        check([0, i64::MIN], &[(Timestamp(Second, None), "-9223372036854775808 s")]);
        check([0, -1], &[(Time32(Second), "-1 s"), (Time64(Nanosecond), "-1 ns")]);
        check([86_399, 86_400], &[(Time32(Second), "86400 s")]);
        check([1, (1 << 32) * 1_000_000], &[(Time64(Microsecond), "4294967296000000 \u{b5}s")]);
    }

    #[tokio::test]
    async fn no_error_is_printed_in_place_of_a_value() {
        let context = bounded_context(64 << 20, SessionConfig::new()).unwrap();
        let sql = "SELECT t, [t] AS a, [[t]] AS b, named_struct('t', t) AS c, map(['k'], [t]) AS d, \
                   [named_struct('ts', [t])] AS e \
                   FROM (SELECT from_unixtime(n) AS t FROM (VALUES (0), (9223372036854775807), (NULL)) AS v(n))";
        let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
        let shown = printable(&batches).unwrap();
        let table = pretty_format_batches(&shown).unwrap().to_string();
        let mut json = Vec::new();
        let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(&mut json);
        writer.write_batches(&shown.iter().collect::<Vec<_>>()).unwrap();
        writer.finish().unwrap();
        let json = String::from_utf8(json).unwrap();
        for text in [&table, &json] {
            assert!(!text.contains("ERROR") && !text.contains(INVALID_DURATION), "{text}");
            assert_eq!(text.matches("9223372036854775807 s").count(), 6, "{text}");
            assert!(text.contains("1970-01-01T00:00:00"), "{text}");
        }
    }
}
