//! What is said of a table that grows with its plugin, or cannot.

use std::fmt;

use super::evolve::{Change, DeltaType, Difference, Notice, Refused, TableColumn, list};

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
    /// Its type.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.ty, if self.nullable { " or null" } else { "" })
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Added { field, ty } => write!(f, "field `{field}`: added, {ty} or null"),
            Change::Widened { field, from, to } => {
                write!(f, "field `{field}`: widened from {from} to {to}; the table's files are written anew")
            }
            Change::Comment { field } => write!(f, "field `{field}`: another comment"),
            Change::Cases { field, added } => write!(f, "field `{field}`: takes the cases {}", list(added)),
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::StaysNull { field } => {
                write!(f, "field `{field}`: the plugin no longer gives it; it stays in the table, null in new rows")
            }
            Notice::Widened { field, from, to } => {
                write!(f, "field `{field}`: the plugin's {from} is written as the table's {to}")
            }
            Notice::CasesGone { field, gone } => {
                write!(f, "field `{field}`: no new row has the case {}; rows that stand there keep it", list(gone))
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

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the plugin's row does not fit the table that stands there:")?;
        for difference in &self.0 {
            write!(f, "\n  {difference}")?;
        }
        f.write_str(
            "\nChange the plugin as said, or let the table be made anew from Bronze: under another `path` in \
             pipeline.toml, beside the old one, or in its place, by removing its folder while silverd is stopped",
        )
    }
}
