//! Converts the result of a Gold table's SQL to the columns and days of the table's files.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, bail};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{CastOptions, cast, cast_with_options, take_record_batch};
use arrow::datatypes::{DataType, Date32Type, Field, FieldRef, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use silverd_core::zone::{AtLocal, Zone};

use crate::delta::EVENT_DATE;

/// The columns of the table's files: those of the SQL, in types that Delta has. `event_date` is in the files' paths.
pub(super) fn file_schema(result: &Schema) -> anyhow::Result<SchemaRef> {
    let Ok(date) = result.field_with_name(EVENT_DATE) else {
        let names: Vec<_> = result.fields().iter().map(|field| field.name().as_str()).collect();
        bail!(
            "its SQL gives no column `event_date`, by which silverd updates the table; it gives {}. Add it to the \
             SELECT, and to the GROUP BY if there is one",
            names.join(", ")
        );
    };
    if delta_type(date.data_type()) != DataType::Date32 {
        bail!("its SQL gives an `event_date` that is not a date: write CAST(… AS DATE) AS event_date");
    }
    let mut fields: Vec<FieldRef> = Vec::new();
    for field in result.fields().iter().filter(|field| field.name() != EVENT_DATE) {
        if fields.iter().any(|other| other.name().eq_ignore_ascii_case(field.name())) {
            bail!("its SQL gives the column `{}` twice: rename one of them with AS", field.name());
        }
        fields.push(Arc::new(Field::new(field.name(), delta_type(field.data_type()), true)));
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// A type that Delta has, for the values of an Arrow type.
fn delta_type(ty: &DataType) -> DataType {
    match ty {
        DataType::Utf8View | DataType::LargeUtf8 | DataType::Null => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Float16 => DataType::Float32,
        DataType::Date64 => DataType::Date32,
        DataType::Timestamp(..) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Dictionary(_, value) => delta_type(value),
        DataType::List(item) | DataType::LargeList(item) => {
            DataType::List(Arc::new(Field::new("item", delta_type(item.data_type()), true)))
        }
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|field| Field::new(field.name(), delta_type(field.data_type()), true));
            DataType::Struct(fields.collect())
        }
        other => other.clone(),
    }
}

/// The rows of each day (days since the epoch), with the columns of the table's files. Times without a zone are those
/// that clocks show in the table's zone.
pub(super) fn split_by_day(
    batch: &RecordBatch,
    schema: &SchemaRef,
    zone: Zone,
) -> anyhow::Result<BTreeMap<i32, RecordBatch>> {
    let dates = cast(batch.column_by_name(EVENT_DATE).context("no column event_date")?, &DataType::Date32)?;
    let dates = dates.as_primitive::<Date32Type>();
    let columns = schema.fields().iter().map(|field| {
        let column = batch.column_by_name(field.name()).with_context(|| format!("no column {}", field.name()))?;
        // A number that the column cannot hold is an error, not a null.
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let cast = match column.data_type() {
            DataType::Timestamp(_, None) if !zone.is_utc() => instants(column, zone, &options),
            _ => cast_with_options(column, field.data_type(), &options),
        };
        cast.with_context(|| format!("store column {}", field.name()))
    });
    let rows = RecordBatch::try_new(schema.clone(), columns.collect::<anyhow::Result<_>>()?)?;
    let mut of_days = BTreeMap::<i32, Vec<u32>>::new();
    for row in (0..batch.num_rows()).filter(|row| dates.is_valid(*row)) {
        of_days.entry(dates.value(row)).or_default().push(row as u32);
    }
    let of_day = |(day, of_day)| Ok((day, take_record_batch(&rows, &UInt32Array::from(of_day))?));
    of_days.into_iter().map(of_day).collect()
}

/// When clocks showed these times; of two instants the first. A time that clocks skipped is the instant at which they
/// did.
fn instants(times: &ArrayRef, zone: Zone, options: &CastOptions<'_>) -> Result<ArrayRef, ArrowError> {
    const SECOND: i64 = 1_000_000;
    let micros = cast_with_options(times, &DataType::Timestamp(TimeUnit::Microsecond, None), options)?;
    let instant = |time: i64| match zone.at_local(time.div_euclid(SECOND)) {
        AtLocal::Once(seconds) | AtLocal::Twice(seconds, _) => {
            seconds.saturating_mul(SECOND).saturating_add(time.rem_euclid(SECOND))
        }
        AtLocal::Never(seconds) => seconds * SECOND,
    };
    let instants = micros.as_primitive::<TimestampMicrosecondType>().unary::<_, TimestampMicrosecondType>(instant);
    Ok(Arc::new(instants.with_timezone("UTC")))
}
