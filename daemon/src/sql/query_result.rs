//! A query's result as JSON values: columns with a kind, and rows.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, SchemaRef, TimeUnit, TimestampMillisecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::dataframe::DataFrame;
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use super::error::QueryError;

/// Characters of one value. The rest is cut off.
const TEXT_MAX: usize = 4096;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct QueryResult {
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Value>>,
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
    Number,
    /// Milliseconds since the epoch.
    Time,
    Bool,
    Text,
}

/// Runs a query for its first `rows_max` rows.
pub(crate) async fn collect_rows(frame: DataFrame, rows_max: usize) -> Result<QueryResult, QueryError> {
    let schema: SchemaRef = std::sync::Arc::new(frame.schema().as_arrow().clone());
    let batches = frame.limit(0, Some(rows_max + 1))?.collect().await?;
    let columns = schema.fields().iter();
    let columns = columns.map(|field| Column { name: field.name().clone(), kind: kind(field.data_type()) }).collect();
    let mut result = QueryResult { columns, ..QueryResult::default() };
    for batch in &batches {
        add_rows(&mut result.rows, batch)?;
    }
    result.truncated = result.rows.len() > rows_max;
    result.rows.truncate(rows_max);
    Ok(result)
}

fn kind(ty: &DataType) -> ColumnKind {
    match ty {
        DataType::Dictionary(_, value) => kind(value),
        DataType::Timestamp(..) => ColumnKind::Time,
        DataType::Boolean => ColumnKind::Bool,
        ty if ty.is_numeric() => ColumnKind::Number,
        _ => ColumnKind::Text,
    }
}

fn add_rows(rows: &mut Vec<Vec<Value>>, batch: &RecordBatch) -> Result<(), QueryError> {
    let columns = batch.columns().iter().map(json_values).collect::<Result<Vec<_>, _>>()?;
    let mut columns: Vec<_> = columns.into_iter().map(Vec::into_iter).collect();
    rows.extend((0..batch.num_rows()).map(|_| columns.iter_mut().filter_map(Iterator::next).collect::<Vec<_>>()));
    Ok(())
}

fn json_values(array: &ArrayRef) -> Result<Vec<Value>, QueryError> {
    let cast_to = |ty| cast(array, ty).map_err(anyhow::Error::from);
    let cells = 0..array.len();
    Ok(match array.data_type() {
        DataType::Dictionary(_, value) => return json_values(&cast_to(value)?),
        ty if ty.is_integer() && *ty != DataType::UInt64 => {
            let numbers = cast_to(&DataType::Int64)?;
            let numbers = numbers.as_primitive::<Int64Type>();
            cells.map(|cell| or_null(array, cell, || numbers.value(cell).into())).collect()
        }
        ty if ty.is_numeric() => {
            let numbers = cast_to(&DataType::Float64)?;
            let numbers = numbers.as_primitive::<Float64Type>();
            let number = |cell| Number::from_f64(numbers.value(cell)).map_or(Value::Null, Value::Number);
            cells.map(|cell| or_null(array, cell, || number(cell))).collect()
        }
        DataType::Timestamp(_, zone) => {
            let times = cast_to(&DataType::Timestamp(TimeUnit::Millisecond, zone.clone()))?;
            let times = times.as_primitive::<TimestampMillisecondType>();
            cells.map(|cell| or_null(array, cell, || times.value(cell).into())).collect()
        }
        DataType::Boolean => {
            let flags = array.as_boolean();
            cells.map(|cell| or_null(array, cell, || flags.value(cell).into())).collect()
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            let bytes = cast_to(&DataType::Binary)?;
            let bytes = bytes.as_binary::<i32>();
            let text = |cell| truncate(&String::from_utf8_lossy(bytes.value(cell)));
            cells.map(|cell| or_null(array, cell, || text(cell).into())).collect()
        }
        _ => {
            let options = FormatOptions::default();
            let formatter = ArrayFormatter::try_new(array, &options).map_err(anyhow::Error::from)?;
            cells.map(|cell| or_null(array, cell, || truncate(&formatter.value(cell).to_string()).into())).collect()
        }
    })
}

fn or_null(array: &ArrayRef, cell: usize, value: impl FnOnce() -> Value) -> Value {
    if array.is_null(cell) { Value::Null } else { value() }
}

fn truncate(text: &str) -> String {
    match text.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
