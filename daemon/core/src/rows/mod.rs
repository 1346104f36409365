//! The rows of a table: gives the arrays that were lifted from a guest their column types (timestamps, money, enums),
//! and adds the columns with the origin of each row.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Int32Type, Int64Type, TimestampMicrosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, Decimal128Array, DictionaryArray, Int16Array, Int32Array, Int64Array,
    ListArray, PrimitiveArray, RecordBatch, StringArray, StructArray, TimestampMicrosecondArray, UInt32Array,
};
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use arrow_select::take::take;

use crate::chunk::{self, Chunk, column};
use crate::schema::{COMMENT, Column, Kind, MONEY_PRECISION, MONEY_SCALE, TableSchema, added};

/// The largest amount of `decimal(18,2)`, in hundredths.
const MONEY_MAX: i64 = 999_999_999_999_999_999;

/// A value from a guest that does not fit its column type.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    #[error("column `{column}` has {value}, which is no valid {expected}")]
    OutOfRange { column: String, value: String, expected: &'static str },
    #[error("the rows do not fit their schema: {0}")]
    Misfit(String),
}

impl From<ArrowError> for RowError {
    fn from(error: ArrowError) -> Self {
        RowError::Misfit(error.to_string())
    }
}

/// The Arrow schema of a Silver file: the plugin's columns, then the [`added`] ones. `event_date` is in the path.
pub fn file_schema(table: &TableSchema) -> SchemaRef {
    let timestamp = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let mut fields: Vec<FieldRef> = table.columns.iter().map(Column::arrow).collect();
    let mut add = |name: &str, ty, doc: &str| {
        let field = Field::new(name, ty, false).with_metadata([(COMMENT.to_owned(), doc.to_owned())].into());
        fields.push(Arc::new(field));
    };
    let of_chunk = |name| chunk::schema().field_with_name(name).expect("a chunk has it").data_type().clone();
    add(added::CLUSTER_ID, of_chunk(column::CLUSTER_ID), "Id of the Kafka cluster of the event that gave this row.");
    add(added::TOPIC, of_chunk(column::TOPIC), "Kafka topic of the event that gave this row.");
    add(added::PARTITION, DataType::Int32, "Kafka partition of the event that gave this row.");
    add(added::OFFSET, DataType::Int64, "Offset of the event that gave this row.");
    add(added::INGESTED_AT, timestamp, "When silverd took the event from Kafka; the same as in Bronze.");
    Arc::new(Schema::new(fields))
}

/// Adds the origin to the rows of a table: row `i` is derived from record `origins[i]` of the chunk.
pub fn with_origin(
    schema: &SchemaRef,
    columns: Vec<ArrayRef>,
    chunk: &Chunk,
    origins: &[u32],
) -> Result<RecordBatch, RowError> {
    let rows = UInt32Array::from(origins.to_vec());
    let (cluster, topic) = (chunk.records.column(0), chunk.records.column(1));
    let (partitions, offsets, ingested) = (chunk.partitions(), chunk.offsets(), chunk.ingested_at().values());
    let of = |values: &[i64]| origins.iter().map(|row| values[*row as usize]).collect::<Vec<_>>();
    let mut columns = columns;
    columns.push(take(cluster, &rows, None)?);
    columns.push(take(topic, &rows, None)?);
    columns.push(Arc::new(Int32Array::from_iter_values(origins.iter().map(|row| partitions[*row as usize]))));
    columns.push(Arc::new(Int64Array::from(of(offsets))));
    columns.push(Arc::new(TimestampMicrosecondArray::from(of(ingested)).with_timezone("UTC")));
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

/// Converts an array that was lifted by its WIT layout alone to the type of its column in the table.
pub fn typed(array: ArrayRef, column: &Column) -> Result<ArrayRef, RowError> {
    Ok(match &column.kind {
        Kind::UInt8 => widen::<UInt8Type, Int16Array>(&array),
        Kind::UInt16 => widen::<UInt16Type, Int32Array>(&array),
        Kind::UInt32 => widen::<UInt32Type, Int64Array>(&array),
        Kind::UInt64 => {
            let values = array.as_primitive::<UInt64Type>();
            Arc::new(values.unary::<_, arrow_array::types::Decimal128Type>(i128::from).with_precision_and_scale(20, 0)?)
        }
        Kind::Timestamp => Arc::new(
            array.as_primitive::<Int64Type>().reinterpret_cast::<TimestampMicrosecondType>().with_timezone("UTC"),
        ),
        Kind::Date => Arc::new(array.as_primitive::<Int32Type>().reinterpret_cast::<Date32Type>()),
        Kind::Money => money(array.as_primitive(), column)?,
        Kind::Char => chars(array.as_primitive(), column)?,
        Kind::Enum(cases) => enumeration(&array, cases, column)?,
        Kind::List(item) => {
            let list = array.as_list::<i32>();
            let values = typed(list.values().clone(), item)?;
            Arc::new(ListArray::try_new(item.arrow(), list.offsets().clone(), values, list.nulls().cloned())?)
        }
        Kind::Struct(columns) => {
            let record = array.as_struct();
            let values = record.columns().iter().zip(columns).map(|(array, column)| typed(array.clone(), column));
            let fields = columns.iter().map(Column::arrow).collect::<Fields>();
            Arc::new(StructArray::try_new(fields, values.collect::<Result<_, _>>()?, record.nulls().cloned())?)
        }
        Kind::Bool
        | Kind::Int8
        | Kind::Int16
        | Kind::Int32
        | Kind::Int64
        | Kind::Float32
        | Kind::Float64
        | Kind::Utf8
        | Kind::Binary => array,
    })
}

fn widen<From, To>(array: &ArrayRef) -> ArrayRef
where
    From: ArrowPrimitiveType,
    To: Array + 'static,
    To: WidenFrom<From>,
{
    Arc::new(To::widen(array.as_primitive::<From>()))
}

/// An array of signed integers of a type that holds every value of the unsigned type `T`.
trait WidenFrom<T: ArrowPrimitiveType> {
    fn widen(array: &PrimitiveArray<T>) -> Self;
}

impl<T, W> WidenFrom<T> for PrimitiveArray<W>
where
    T: ArrowPrimitiveType,
    W: ArrowPrimitiveType,
    W::Native: From<T::Native>,
{
    fn widen(array: &PrimitiveArray<T>) -> Self {
        array.unary(W::Native::from)
    }
}

fn money(cents: &Int64Array, column: &Column) -> Result<ArrayRef, RowError> {
    if let Some(beyond) = cents.iter().flatten().find(|value| !(-MONEY_MAX..=MONEY_MAX).contains(value)) {
        return Err(out_of_range(column, beyond, "decimal(18,2)"));
    }
    let values: Decimal128Array = cents.unary(i128::from);
    Ok(Arc::new(values.with_precision_and_scale(MONEY_PRECISION, MONEY_SCALE)?))
}

fn chars(codes: &PrimitiveArray<UInt32Type>, column: &Column) -> Result<ArrayRef, RowError> {
    let text =
        |code: u32| char::from_u32(code).map(String::from).ok_or_else(|| out_of_range(column, code, "character"));
    let texts: Vec<Option<String>> = codes.iter().map(|code| code.map(text).transpose()).collect::<Result<_, _>>()?;
    Ok(Arc::new(StringArray::from(texts)))
}

fn enumeration(array: &ArrayRef, cases: &[String], column: &Column) -> Result<ArrayRef, RowError> {
    let names = Arc::new(StringArray::from_iter_values(cases));
    match array.data_type() {
        DataType::UInt8 => dictionary::<UInt8Type>(array, names, column),
        DataType::UInt16 => dictionary::<UInt16Type>(array, names, column),
        _ => dictionary::<UInt32Type>(array, names, column),
    }
}

fn dictionary<K>(array: &ArrayRef, names: Arc<StringArray>, column: &Column) -> Result<ArrayRef, RowError>
where
    K: arrow_array::types::ArrowDictionaryKeyType,
    K::Native: Into<u64>,
{
    let keys = array.as_primitive::<K>();
    let beyond = keys.iter().flatten().map(Into::<u64>::into).find(|key| *key >= names.len() as u64);
    if let Some(beyond) = beyond {
        return Err(out_of_range(column, format!("discriminant {beyond}"), "case of its enum"));
    }
    Ok(Arc::new(DictionaryArray::<K>::try_new(keys.clone(), names)?))
}

fn out_of_range(column: &Column, value: impl std::fmt::Display, expected: &'static str) -> RowError {
    RowError::OutOfRange { column: column.name.clone(), value: value.to_string(), expected }
}

#[cfg(test)]
mod tests;
