//! What SQL gives, in the columns and files of a Gold table.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, bail};
use arrow::array::{Array, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Date32Type, Field, FieldRef, Schema, SchemaRef, TimeUnit};

const EVENT_DATE: &str = "event_date";

/// The columns of the table's files: those of the SQL in types that Delta has. `event_date` stands in the path.
pub fn file_schema(answer: &Schema) -> anyhow::Result<SchemaRef> {
    let Ok(date) = answer.field_with_name(EVENT_DATE) else {
        let names: Vec<_> = answer.fields().iter().map(|field| field.name().as_str()).collect();
        bail!(
            "its SQL gives no column `event_date`, by whose days the table is made; it gives {}. Add it to the SELECT, and to \
             the GROUP BY where there is one",
            names.join(", ")
        );
    };
    if plain(date.data_type()) != DataType::Date32 {
        bail!("its SQL gives an `event_date` that is no date: write CAST(… AS DATE) AS event_date");
    }
    let mut fields: Vec<FieldRef> = Vec::new();
    for field in answer.fields().iter().filter(|field| field.name() != EVENT_DATE) {
        if fields.iter().any(|other| other.name().eq_ignore_ascii_case(field.name())) {
            bail!("its SQL gives the column `{}` twice: name one of them otherwise, with AS", field.name());
        }
        fields.push(Arc::new(Field::new(field.name(), plain(field.data_type()), true)));
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// The type of Delta's that holds the values of an Arrow type.
fn plain(ty: &DataType) -> DataType {
    match ty {
        DataType::Utf8View | DataType::LargeUtf8 | DataType::Null => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Float16 => DataType::Float32,
        DataType::Date64 => DataType::Date32,
        DataType::Timestamp(..) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Dictionary(_, value) => plain(value),
        DataType::List(item) | DataType::LargeList(item) => {
            DataType::List(Arc::new(Field::new("item", plain(item.data_type()), true)))
        }
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|field| Field::new(field.name(), plain(field.data_type()), true));
            DataType::Struct(fields.collect())
        }
        other => other.clone(),
    }
}

/// The rows of each day (days since the epoch), with the columns of the table's files.
pub fn by_day(batches: &[RecordBatch], schema: &SchemaRef) -> anyhow::Result<BTreeMap<i32, Vec<RecordBatch>>> {
    let mut days = BTreeMap::<i32, Vec<RecordBatch>>::new();
    for batch in batches {
        let dates = cast(batch.column_by_name(EVENT_DATE).context("no column event_date")?, &DataType::Date32)?;
        let dates = dates.as_primitive::<Date32Type>();
        let columns = schema.fields().iter().map(|field| {
            let column = batch.column_by_name(field.name()).with_context(|| format!("no column {}", field.name()))?;
            anyhow::Ok(cast(column, field.data_type())?)
        });
        let rows = RecordBatch::try_new(schema.clone(), columns.collect::<anyhow::Result<_>>()?)?;
        let mut of_day = BTreeMap::<i32, Vec<u32>>::new();
        for row in (0..batch.num_rows()).filter(|row| dates.is_valid(*row)) {
            of_day.entry(dates.value(row)).or_default().push(row as u32);
        }
        for (day, of_day) in of_day {
            days.entry(day).or_default().push(take_record_batch(&rows, &UInt32Array::from(of_day))?);
        }
    }
    Ok(days)
}
