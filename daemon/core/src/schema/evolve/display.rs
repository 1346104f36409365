//! The texts of schema changes, notices and differences.

use std::fmt;

use super::{Change, DeltaType, Difference, IncompatibleSchema, Notice, TableColumn, list};

impl fmt::Display for DeltaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self {
            DeltaType::Boolean => "boolean",
            DeltaType::Byte => "byte",
            DeltaType::Short => "short",
            DeltaType::Integer => "integer",
            DeltaType::Long => "long",
            DeltaType::Float => "float",
            DeltaType::Double => "double",
            DeltaType::String => "string",
            DeltaType::Binary => "binary",
            DeltaType::Date => "date",
            DeltaType::Timestamp => "timestamp",
            DeltaType::Decimal(precision, scale) => return write!(f, "decimal({precision},{scale})"),
            DeltaType::Array(item) => return write!(f, "array<{item}>"),
            DeltaType::Struct(fields) => {
                f.write_str("struct<")?;
                for (at, field) in fields.iter().enumerate() {
                    let comma = if at == 0 { "" } else { ", " };
                    write!(f, "{comma}{}: {field}", field.name)?;
                }
                return f.write_str(">");
            }
            DeltaType::Other(name) => name,
        };
        f.write_str(word)
    }
}

impl fmt::Display for TableColumn {
    /// The type of the column.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.ty, if self.nullable { " or null" } else { "" })
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Added { field, ty } => write!(f, "field `{field}`: added, {ty} or null"),
            Change::Widened { field, from, to } => {
                write!(f, "field `{field}`: widened from {from} to {to}; the table's files are rewritten")
            }
            Change::Comment { field } => write!(f, "field `{field}`: comment changed"),
            Change::Cases { field, added } => write!(f, "field `{field}`: cases added: {}", list(added)),
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::StaysNull { field } => {
                write!(f, "field `{field}`: the plugin no longer returns it; the column stays, and is null in new rows")
            }
            Notice::StaysNullable { field } => {
                write!(f, "field `{field}`: the plugin always returns it; the column stays nullable")
            }
            Notice::Widened { field, from, to } => {
                write!(f, "field `{field}`: the plugin's {from} is written as the table's {to}")
            }
            Notice::CasesGone { field, gone } => {
                write!(f, "field `{field}`: the plugin no longer has the case {}; existing rows keep it", list(gone))
            }
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { field, has, declares, help } = self;
        write!(f, "field `{field}`: the table has {has}, the plugin declares {declares}; {help}")
    }
}

impl fmt::Display for IncompatibleSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the plugin's row does not fit the existing table:")?;
        for difference in &self.0 {
            write!(f, "\n  {difference}")?;
        }
        f.write_str(
            "\nChange the plugin as described, or let silverd rebuild the table from Bronze: set another `path` in \
             pipeline.toml, or remove the table's folder while silverd is stopped",
        )
    }
}
