//! Conversions between Arrow schemas, Delta schemas and the column descriptions that schema evolution works with.

use std::sync::Arc;

use anyhow::bail;
use arrow::datatypes::{DataType as Arrow, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use deltalake_core::kernel::{ArrayType, DataType, MetadataValue, PrimitiveType, StructField, StructType};
use silverd_core::schema::evolve::{DeltaType, TableColumn};
use silverd_core::schema::{COMMENT, ENUM};

/// The Delta columns of an Arrow schema, with their comments and the cases of enums.
pub(super) fn columns(schema: &Schema) -> anyhow::Result<Vec<StructField>> {
    schema.fields().iter().map(|field| column(field)).collect()
}

fn column(field: &Field) -> anyhow::Result<StructField> {
    let column = StructField::new(field.name(), data_type(field.data_type())?, field.is_nullable());
    let metadata = [COMMENT, ENUM].into_iter().filter_map(|key| Some((key, field.metadata().get(key)?.as_str())));
    Ok(column.with_metadata(metadata))
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
            return Ok(ArrayType::new(nullable(&data_type(item.data_type())?)?, item.is_nullable()).into());
        }
        Arrow::Struct(fields) => {
            let fields = fields.iter().map(|field| column(field)).collect::<anyhow::Result<Vec<_>>>()?;
            return Ok(StructType::try_new(fields)?.into());
        }
        other => bail!("no Delta type for {other}"),
    }))
}

/// A type within an array, with all its fields nullable: Delta's writers know no other ones there, and Spark refuses every
/// change of a table that has one.
fn nullable(ty: &DataType) -> anyhow::Result<DataType> {
    Ok(match ty {
        DataType::Struct(fields) => {
            let field = |field: &StructField| {
                let within = StructField::new(field.name(), nullable(field.data_type())?, true);
                anyhow::Ok(within.with_metadata(field.metadata.clone()))
            };
            StructType::try_new(fields.fields().map(field).collect::<anyhow::Result<Vec<_>>>()?)?.into()
        }
        DataType::Array(array) => ArrayType::new(nullable(array.element_type())?, true).into(),
        other => other.clone(),
    })
}

/// Whether a table has fields within arrays that are not nullable, as silverd made them before it knew better.
pub(super) fn has_required_within_arrays(table: &StructType) -> anyhow::Result<bool> {
    for field in table.fields() {
        if relaxed(field.data_type())? != *field.data_type() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The type with nullable fields within its arrays.
fn relaxed(ty: &DataType) -> anyhow::Result<DataType> {
    Ok(match ty {
        DataType::Array(array) => ArrayType::new(nullable(array.element_type())?, array.contains_null()).into(),
        DataType::Struct(fields) => {
            let field = |field: &StructField| {
                let ty = relaxed(field.data_type())?;
                anyhow::Ok(
                    StructField::new(field.name(), ty, field.is_nullable()).with_metadata(field.metadata.clone()),
                )
            };
            StructType::try_new(fields.fields().map(field).collect::<anyhow::Result<Vec<_>>>()?)?.into()
        }
        other => other.clone(),
    })
}

/// Delta columns as schema evolution describes them.
pub(super) fn table_columns<'a>(columns: impl IntoIterator<Item = &'a StructField>) -> Vec<TableColumn> {
    columns.into_iter().map(table_column).collect()
}

fn table_column(field: &StructField) -> TableColumn {
    let text = |key: &str| match field.metadata.get(key) {
        Some(MetadataValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    TableColumn {
        name: field.name().clone(),
        ty: delta_type(field.data_type()),
        nullable: field.is_nullable(),
        comment: text(COMMENT),
        cases: text(ENUM).map(|cases| cases.split(',').map(str::to_owned).collect()),
    }
}

fn delta_type(ty: &DataType) -> DeltaType {
    match ty {
        DataType::Primitive(primitive) => match primitive {
            PrimitiveType::Boolean => DeltaType::Boolean,
            PrimitiveType::Byte => DeltaType::Byte,
            PrimitiveType::Short => DeltaType::Short,
            PrimitiveType::Integer => DeltaType::Integer,
            PrimitiveType::Long => DeltaType::Long,
            PrimitiveType::Float => DeltaType::Float,
            PrimitiveType::Double => DeltaType::Double,
            PrimitiveType::String => DeltaType::String,
            PrimitiveType::Binary => DeltaType::Binary,
            PrimitiveType::Date => DeltaType::Date,
            PrimitiveType::Timestamp => DeltaType::Timestamp,
            PrimitiveType::Decimal(decimal) => DeltaType::Decimal(decimal.precision(), decimal.scale()),
            other => DeltaType::Other(other.to_string()),
        },
        DataType::Array(array) => DeltaType::Array(Box::new(TableColumn {
            name: "element".to_owned(),
            // Also where the table requires its fields: its next schema does not.
            ty: nullable(array.element_type()).map_or_else(|_| delta_type(array.element_type()), |ty| delta_type(&ty)),
            nullable: array.contains_null(),
            comment: None,
            cases: None,
        })),
        DataType::Struct(fields) => DeltaType::Struct(table_columns(fields.fields())),
        other => DeltaType::Other(other.to_string()),
    }
}

/// The table's schema after it has evolved to these columns. Column metadata that silverd does not know are kept.
pub(super) fn evolved_schema(table: &StructType, columns: &[TableColumn]) -> anyhow::Result<StructType> {
    let fields = columns.iter().map(|column| evolved_column(table.field(&column.name), column));
    Ok(StructType::try_new(fields.collect::<anyhow::Result<Vec<_>>>()?)?)
}

fn evolved_column(existing: Option<&StructField>, column: &TableColumn) -> anyhow::Result<StructField> {
    let ty = evolved_type(existing.map(StructField::data_type), &column.ty)?;
    let mut metadata = existing.map(|field| field.metadata.clone()).unwrap_or_default();
    let cases = column.cases.as_ref().map(|cases| cases.join(","));
    for (key, value) in [(COMMENT, column.comment.clone()), (ENUM, cases)] {
        metadata.extend(value.map(|value| (key.to_owned(), MetadataValue::String(value))));
    }
    Ok(StructField::new(&column.name, ty, column.nullable).with_metadata(metadata))
}

fn evolved_type(existing: Option<&DataType>, ty: &DeltaType) -> anyhow::Result<DataType> {
    match (existing, ty) {
        (Some(DataType::Struct(table)), DeltaType::Struct(columns)) => Ok(evolved_schema(table, columns)?.into()),
        (Some(DataType::Array(array)), DeltaType::Array(item)) => {
            let element = nullable(&evolved_type(Some(array.element_type()), &item.ty)?)?;
            Ok(ArrayType::new(element, array.contains_null()).into())
        }
        (Some(existing), ty) if delta_type(existing) == *ty => relaxed(existing),
        (_, ty) => data_type(&arrow(ty, None)?),
    }
}

/// The Arrow schema of the files of a table with these columns, for rows of the schema `rows`. A column on which both
/// agree keeps its type in `rows`.
pub(super) fn layout(columns: &[TableColumn], rows: &SchemaRef) -> anyhow::Result<SchemaRef> {
    let wanted = table_columns(&self::columns(rows)?);
    let mut fields: Vec<FieldRef> = Vec::with_capacity(columns.len());
    for column in columns {
        let found = rows.fields().iter().zip(&wanted).find(|(_, wanted)| wanted.name == column.name);
        fields.push(match found {
            Some((field, wanted)) if wanted.to_string() == column.to_string() => field.clone(),
            _ => {
                let like = found.map(|(field, _)| field.data_type());
                Arc::new(Field::new(&column.name, arrow(&column.ty, like)?, column.nullable))
            }
        });
    }
    let unchanged = fields.len() == rows.fields().len() && fields.iter().zip(rows.fields()).all(|(a, b)| a == b);
    Ok(if unchanged { rows.clone() } else { Arc::new(Schema::new(fields)) })
}

/// The Arrow type of a Delta type. Strings that are dictionary-encoded in `like` stay so.
fn arrow(ty: &DeltaType, like: Option<&Arrow>) -> anyhow::Result<Arrow> {
    Ok(match ty {
        DeltaType::Boolean => Arrow::Boolean,
        DeltaType::Byte => Arrow::Int8,
        DeltaType::Short => Arrow::Int16,
        DeltaType::Integer => Arrow::Int32,
        DeltaType::Long => Arrow::Int64,
        DeltaType::Float => Arrow::Float32,
        DeltaType::Double => Arrow::Float64,
        DeltaType::Decimal(precision, scale) => Arrow::Decimal128(*precision, *scale as i8),
        DeltaType::Binary => Arrow::Binary,
        DeltaType::Date => Arrow::Date32,
        DeltaType::Timestamp => Arrow::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DeltaType::String => match like {
            Some(dictionary @ Arrow::Dictionary(_, _)) => dictionary.clone(),
            _ => Arrow::Utf8,
        },
        DeltaType::Array(item) => {
            let like = match like {
                Some(Arrow::List(item)) => Some(item.data_type()),
                _ => None,
            };
            Arrow::List(Arc::new(Field::new("element", arrow(&item.ty, like)?, item.nullable)))
        }
        DeltaType::Struct(columns) => {
            let like_of = |name: &str| match like {
                Some(Arrow::Struct(fields)) => fields.find(name).map(|(_, field)| field.data_type()),
                _ => None,
            };
            let field = |column: &TableColumn| {
                Ok(Field::new(&column.name, arrow(&column.ty, like_of(&column.name))?, column.nullable))
            };
            Arrow::Struct(columns.iter().map(field).collect::<anyhow::Result<Fields>>()?)
        }
        DeltaType::Other(name) => bail!("silverd cannot write columns of type {name}"),
    })
}
