//! An answer as JSON can hold it: columns with a kind, and rows of plain values.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, SchemaRef, TimeUnit, TimestampMillisecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::dataframe::DataFrame;
use serde::Serialize;
use serde_json::{Number, Value};

use super::Unanswered;

/// Characters of one value that are shown.
const TEXT_MAX: usize = 4096;

#[derive(Clone, Debug, Default, Serialize)]
pub struct Answer {
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Value>>,
    /// There were more rows than anyone wants to see.
    pub truncated: bool,
}

#[derive(Clone, Debug, Serialize)]
pub struct Column {
    pub name: String,
    /// `number`, `time` (milliseconds since the epoch), `bool` or `text`.
    pub kind: &'static str,
}

/// The first `rows_max` rows of a question's answer.
pub async fn answer(frame: DataFrame, rows_max: usize) -> Result<Answer, Unanswered> {
    let schema: SchemaRef = std::sync::Arc::new(frame.schema().as_arrow().clone());
    let batches = frame.limit(0, Some(rows_max + 1))?.collect().await?;
    let columns = schema.fields().iter();
    let columns = columns.map(|field| Column { name: field.name().clone(), kind: kind(field.data_type()) }).collect();
    let mut answer = Answer { columns, ..Answer::default() };
    for batch in &batches {
        add(&mut answer.rows, batch)?;
    }
    answer.truncated = answer.rows.len() > rows_max;
    answer.rows.truncate(rows_max);
    Ok(answer)
}

fn kind(ty: &DataType) -> &'static str {
    match ty {
        DataType::Dictionary(_, value) => kind(value),
        DataType::Timestamp(..) => "time",
        DataType::Boolean => "bool",
        ty if ty.is_numeric() => "number",
        _ => "text",
    }
}

fn add(rows: &mut Vec<Vec<Value>>, batch: &RecordBatch) -> Result<(), Unanswered> {
    let columns = batch.columns().iter().map(plain).collect::<Result<Vec<_>, _>>()?;
    let mut columns: Vec<_> = columns.into_iter().map(Vec::into_iter).collect();
    rows.extend((0..batch.num_rows()).map(|_| columns.iter_mut().filter_map(Iterator::next).collect::<Vec<_>>()));
    Ok(())
}

fn plain(array: &ArrayRef) -> Result<Vec<Value>, Unanswered> {
    let unpacked = |ty| cast(array, ty).map_err(anyhow::Error::from);
    let cells = 0..array.len();
    Ok(match array.data_type() {
        DataType::Dictionary(_, value) => return plain(&unpacked(value)?),
        ty if ty.is_integer() && *ty != DataType::UInt64 => {
            let numbers = unpacked(&DataType::Int64)?;
            let numbers = numbers.as_primitive::<Int64Type>();
            cells.map(|cell| or_null(array, cell, || numbers.value(cell).into())).collect()
        }
        ty if ty.is_numeric() => {
            let numbers = unpacked(&DataType::Float64)?;
            let numbers = numbers.as_primitive::<Float64Type>();
            let number = |cell| Number::from_f64(numbers.value(cell)).map_or(Value::Null, Value::Number);
            cells.map(|cell| or_null(array, cell, || number(cell))).collect()
        }
        DataType::Timestamp(_, zone) => {
            let times = unpacked(&DataType::Timestamp(TimeUnit::Millisecond, zone.clone()))?;
            let times = times.as_primitive::<TimestampMillisecondType>();
            cells.map(|cell| or_null(array, cell, || times.value(cell).into())).collect()
        }
        DataType::Boolean => {
            let flags = array.as_boolean();
            cells.map(|cell| or_null(array, cell, || flags.value(cell).into())).collect()
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            let bytes = unpacked(&DataType::Binary)?;
            let bytes = bytes.as_binary::<i32>();
            let text = |cell| shortened(&String::from_utf8_lossy(bytes.value(cell)));
            cells.map(|cell| or_null(array, cell, || text(cell).into())).collect()
        }
        _ => {
            let options = FormatOptions::default();
            let formatter = ArrayFormatter::try_new(array, &options).map_err(anyhow::Error::from)?;
            cells.map(|cell| or_null(array, cell, || shortened(&formatter.value(cell).to_string()).into())).collect()
        }
    })
}

fn or_null(array: &ArrayRef, cell: usize, value: impl FnOnce() -> Value) -> Value {
    if array.is_null(cell) { Value::Null } else { value() }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
