//! Arrow schemas as Delta schemas, and whether a table that stands there can take what is to be written.

use anyhow::bail;
use arrow::datatypes::{DataType as Arrow, Field, Schema};
use deltalake_core::kernel::{ArrayType, DataType, PrimitiveType, StructField, StructType};
use silverd_core::schema::COMMENT;

/// The Delta columns of an Arrow schema. Comments come along.
pub fn columns(schema: &Schema) -> anyhow::Result<Vec<StructField>> {
    schema.fields().iter().map(|field| column(field)).collect()
}

fn column(field: &Field) -> anyhow::Result<StructField> {
    let mut column = StructField::new(field.name(), data_type(field.data_type())?, field.is_nullable());
    if let Some(comment) = field.metadata().get(COMMENT) {
        column = column.with_metadata([(COMMENT, comment.as_str())]);
    }
    Ok(column)
}

fn data_type(arrow: &Arrow) -> anyhow::Result<DataType> {
    Ok(DataType::Primitive(match arrow {
        Arrow::Boolean => PrimitiveType::Boolean,
        Arrow::Int8 => PrimitiveType::Byte,
        Arrow::Int16 => PrimitiveType::Short,
        Arrow::Int32 => PrimitiveType::Integer,
        Arrow::Int64 => PrimitiveType::Long,
        Arrow::Float32 => PrimitiveType::Float,
        Arrow::Float64 => PrimitiveType::Double,
        Arrow::Utf8 => PrimitiveType::String,
        Arrow::Binary => PrimitiveType::Binary,
        Arrow::Date32 => PrimitiveType::Date,
        Arrow::Timestamp(_, Some(_)) => PrimitiveType::Timestamp,
        Arrow::Decimal128(precision, scale) => PrimitiveType::decimal(*precision, *scale as u8)?,
        Arrow::Dictionary(_, value) => return data_type(value),
        Arrow::List(item) => {
            return Ok(ArrayType::new(data_type(item.data_type())?, item.is_nullable()).into());
        }
        Arrow::Struct(fields) => {
            let fields = fields.iter().map(|field| column(field)).collect::<anyhow::Result<Vec<_>>>()?;
            return Ok(StructType::try_new(fields)?.into());
        }
        other => bail!("no Delta type for {other}"),
    }))
}

/// The ways in which a table's columns differ from those that are to be written. Columns that the table has beside them
/// are no difference, as long as they may be null.
pub fn differences(table: &StructType, wanted: &[StructField]) -> Vec<String> {
    let mut differences = Vec::new();
    for column in wanted {
        match table.field(column.name()) {
            None => differences.push(format!("column `{}`: the table has none", column.name())),
            Some(found) => compare(column.name(), found, column, &mut differences),
        }
    }
    for column in table.fields() {
        if !column.is_nullable() && !wanted.iter().any(|wanted| wanted.name() == column.name()) {
            differences.push(format!("column `{}`: the table requires it, and nothing gives it", column.name()));
        }
    }
    differences
}

fn compare(name: &str, found: &StructField, wanted: &StructField, differences: &mut Vec<String>) {
    if shape(found.data_type()) != shape(wanted.data_type()) {
        let (found, wanted) = (shape(found.data_type()), shape(wanted.data_type()));
        differences.push(format!("column `{name}`: the table has {found}, to be written is {wanted}"));
    } else if !found.is_nullable() && wanted.is_nullable() {
        differences
            .push(format!("column `{name}`: the table has it never null, to be written is one that may be null"));
    }
}

/// A type as people read it, without comments.
fn shape(ty: &DataType) -> String {
    match ty {
        DataType::Array(array) => format!("array<{}>", shape(array.element_type())),
        DataType::Struct(fields) => {
            let fields: Vec<_> = fields.fields().map(|f| format!("{}: {}", f.name(), shape(f.data_type()))).collect();
            format!("struct<{}>", fields.join(", "))
        }
        other => other.to_string(),
    }
}
