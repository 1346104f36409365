//! Schema evolution: whether a plugin's row fits an existing table, and how the table changes.
//!
//! | the table has         | the plugin declares       | result |
//! |-----------------------|---------------------------|--------|
//! | nothing               | `option<T>`               | the column is added; existing rows read as null |
//! | nothing               | `T`                       | refused: existing rows have no value |
//! | `T`                   | `T`, another doc comment  | the comment is changed |
//! | `T`, nullable         | `T`, nullable             | no change |
//! | `T`                   | `T`, nullable             | refused: Delta readers rely on the column being non-null |
//! | `T`, nullable         | `T`                       | the column stays nullable, with a notice |
//! | `T`, nullable         | nothing                   | the column stays, and is null in new rows, with a notice |
//! | `T`                   | nothing                   | refused: a non-null column cannot be omitted |
//! | a wider `T`           | a narrower one            | values are widened when they are written, with a notice |
//! | a narrower `T`        | a wider one               | the column is widened, and the table's files are rewritten: many readers lack Delta's type widening in place |
//! | enum, cases a, b      | enum, cases a, b, c       | the case is added to the metadata |
//! | enum, cases a, b      | enum, case a              | no change, with a notice |
//! | enum, cases a, b      | enum, cases a, c          | refused: it looks like a renamed case, which would split the rows in two |
//!
//! The same rules hold for the fields of a record and the items of a list. Every plugin that fitted a table before
//! still fits it after a change, so going back to an earlier plugin is always possible.

mod display;

use super::{Column, Kind, MONEY_PRECISION, MONEY_SCALE, TableSchema};

/// A column of a Delta table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableColumn {
    pub name: String,
    pub ty: DeltaType,
    pub nullable: bool,
    pub comment: Option<String>,
    /// The cases of its enum, as far as the table's metadata has them.
    pub cases: Option<Vec<String>>,
}

/// The Delta types that silverd writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeltaType {
    Boolean,
    Byte,
    Short,
    Integer,
    Long,
    Float,
    Double,
    /// Precision and scale.
    Decimal(u8, u8),
    String,
    Binary,
    Date,
    Timestamp,
    Array(Box<TableColumn>),
    Struct(Vec<TableColumn>),
    /// A type that silverd never writes.
    Other(String),
}

/// How a plugin's rows fit into an existing table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fit {
    /// The columns of the table from the next rows on: the existing ones in their order, then new ones.
    pub columns: Vec<TableColumn>,
    /// The changes of the table's metadata.
    pub changes: Vec<Change>,
    /// Facts worth knowing that need no action.
    pub notices: Vec<Notice>,
}

impl Fit {
    /// Whether the existing files must be rewritten first.
    pub fn widens(&self) -> bool {
        self.changes.iter().any(|change| matches!(change, Change::Widened { .. }))
    }
}

/// A change of a table's metadata. A field of a record is named with a dot: `item.sku`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Added {
        field: String,
        ty: DeltaType,
    },
    /// The existing files must be rewritten before the first row of the wider type.
    Widened {
        field: String,
        from: DeltaType,
        to: DeltaType,
    },
    Comment {
        field: String,
    },
    Cases {
        field: String,
        added: Vec<String>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    StaysNull { field: String },
    StaysNullable { field: String },
    Widened { field: String, from: DeltaType, to: DeltaType },
    CasesGone { field: String, gone: Vec<String> },
}

/// A field that prevents a plugin from filling a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub field: String,
    /// The type in the table.
    pub has: String,
    /// The type that the plugin declares.
    pub declares: String,
    /// The edit of the WIT file that helps.
    pub help: String,
}

/// All fields that prevent a plugin from filling a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncompatibleSchema(pub Vec<Difference>);

/// Decides whether rows with these columns can be written to a table, and how the table changes.
pub fn evolve(table: &[TableColumn], wanted: &[TableColumn]) -> Result<Fit, IncompatibleSchema> {
    let mut walk = Walk::default();
    let columns = walk.columns("", table, wanted);
    let Walk { changes, notices, differences } = walk;
    if differences.is_empty() { Ok(Fit { columns, changes, notices }) } else { Err(IncompatibleSchema(differences)) }
}

#[derive(Default)]
struct Walk {
    changes: Vec<Change>,
    notices: Vec<Notice>,
    differences: Vec<Difference>,
}

impl Walk {
    fn columns(&mut self, path: &str, table: &[TableColumn], wanted: &[TableColumn]) -> Vec<TableColumn> {
        let mut columns = Vec::with_capacity(table.len());
        for has in table {
            let field = join(path, &has.name);
            match wanted.iter().find(|wanted| wanted.name == has.name) {
                Some(wanted) => columns.push(self.column(&field, has, wanted)),
                None => {
                    self.omitted(field, has);
                    columns.push(has.clone());
                }
            }
        }
        for wanted in wanted.iter().filter(|wanted| !table.iter().any(|has| has.name == wanted.name)) {
            self.added(join(path, &wanted.name), wanted);
            columns.push(wanted.clone());
        }
        columns
    }

    fn omitted(&mut self, field: String, has: &TableColumn) {
        if has.nullable {
            return self.notices.push(Notice::StaysNull { field });
        }
        let help = "a non-null column cannot be omitted: keep the field".to_owned();
        self.differ(field, has.to_string(), "nothing".to_owned(), help);
    }

    fn added(&mut self, field: String, wanted: &TableColumn) {
        if wanted.nullable {
            return self.changes.push(Change::Added { field, ty: wanted.ty.clone() });
        }
        let help = "existing rows have no value for it: declare it as `option<…>`".to_owned();
        self.differ(field, "nothing".to_owned(), wanted.to_string(), help);
    }

    fn column(&mut self, field: &str, has: &TableColumn, wanted: &TableColumn) -> TableColumn {
        let ty = self.ty(field, has, wanted);
        match (has.nullable, wanted.nullable) {
            (true, false) => self.notices.push(Notice::StaysNullable { field: field.to_owned() }),
            (false, true) => {
                let help = "readers of the table rely on it being non-null: declare it without `option`".to_owned();
                self.differ(field.to_owned(), has.to_string(), wanted.to_string(), help);
            }
            (true, true) | (false, false) => {}
        }
        let comment = match &wanted.comment {
            Some(comment) if has.comment.as_ref() != Some(comment) => {
                self.changes.push(Change::Comment { field: field.to_owned() });
                Some(comment.clone())
            }
            _ => has.comment.clone(),
        };
        let cases = match (&has.cases, &wanted.cases) {
            (Some(has), Some(wanted)) => Some(self.cases(field, has, wanted)),
            (None, Some(wanted)) => {
                self.changes.push(Change::Cases { field: field.to_owned(), added: wanted.clone() });
                Some(wanted.clone())
            }
            (has, None) => has.clone(),
        };
        TableColumn { name: has.name.clone(), ty, nullable: has.nullable, comment, cases }
    }

    fn ty(&mut self, field: &str, has: &TableColumn, wanted: &TableColumn) -> DeltaType {
        match (&has.ty, &wanted.ty) {
            (DeltaType::Array(has), DeltaType::Array(wanted)) => {
                DeltaType::Array(Box::new(self.column(&format!("{field}[]"), has, wanted)))
            }
            (DeltaType::Struct(has), DeltaType::Struct(wanted)) => DeltaType::Struct(self.columns(field, has, wanted)),
            (to, from) if to == from => to.clone(),
            (to, from) if to.covers(from) => {
                let (from, to) = (from.clone(), to.clone());
                self.notices.push(Notice::Widened { field: field.to_owned(), from, to: to.clone() });
                to
            }
            (from, to) if to.covers(from) => {
                let (from, to) = (from.clone(), to.clone());
                self.changes.push(Change::Widened { field: field.to_owned(), from, to: to.clone() });
                to
            }
            (ty, _) => {
                let help = format!(
                    "the type of a column cannot change: declare it as `{}`, or give the new field another name",
                    ty.wit()
                );
                self.differ(field.to_owned(), has.to_string(), wanted.to_string(), help);
                ty.clone()
            }
        }
    }

    /// The cases of an enum from now on: all cases that it ever had, in the order in which they were added.
    fn cases(&mut self, field: &str, has: &[String], wanted: &[String]) -> Vec<String> {
        let beyond = |these: &[String], those: &[String]| -> Vec<String> {
            these.iter().filter(|case| !those.contains(case)).cloned().collect()
        };
        let (gone, added) = (beyond(has, wanted), beyond(wanted, has));
        match (gone.is_empty(), added.is_empty()) {
            (true, true) => {}
            (true, false) => self.changes.push(Change::Cases { field: field.to_owned(), added: added.clone() }),
            (false, true) => self.notices.push(Notice::CasesGone { field: field.to_owned(), gone }),
            (false, false) => {
                let help =
                    "renaming a case would split the rows in two: keep the old cases and add the new ones".to_owned();
                let (has, wanted) = (format!("enum {}", list(has)), format!("enum {}", list(wanted)));
                self.differ(field.to_owned(), has, wanted, help);
            }
        }
        has.iter().cloned().chain(added).collect()
    }

    fn differ(&mut self, field: String, has: String, declares: String, help: String) {
        self.differences.push(Difference { field, has, declares, help });
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn list(names: &[String]) -> String {
    names.join(", ")
}

impl DeltaType {
    /// Whether this type can hold every value of the other type without loss.
    pub fn covers(&self, other: &DeltaType) -> bool {
        use DeltaType::*;
        match (self, other) {
            (a, b) if a == b => true,
            (Decimal(precision, scale), Decimal(of, behind)) => scale >= behind && precision - scale >= of - behind,
            (Decimal(precision, scale), integer) => integer.digits().is_some_and(|digits| precision - scale >= digits),
            (Double, Float | Byte | Short | Integer) | (Float, Byte | Short) => true,
            (Long | Integer | Short | Byte, _) => match (self.digits(), other.digits()) {
                (Some(mine), Some(theirs)) => mine > theirs,
                _ => false,
            },
            _ => false,
        }
    }

    /// The WIT type for a column of this type.
    fn wit(&self) -> String {
        let word = match self {
            DeltaType::Boolean => "bool",
            DeltaType::Byte => "s8",
            DeltaType::Short => "s16",
            DeltaType::Integer => "s32",
            DeltaType::Long => "s64",
            DeltaType::Float => "f32",
            DeltaType::Double => "f64",
            DeltaType::Decimal(20, 0) => "u64",
            DeltaType::Decimal(..) => "money",
            DeltaType::String => "string",
            DeltaType::Binary => "list<u8>",
            DeltaType::Date => "date",
            DeltaType::Timestamp => "timestamp",
            DeltaType::Array(item) => return format!("list<{}>", item.ty.wit()),
            DeltaType::Struct(_) => "record",
            DeltaType::Other(name) => name,
        };
        word.to_owned()
    }

    /// The decimal digits of the largest value of an integer type.
    fn digits(&self) -> Option<u8> {
        match self {
            DeltaType::Byte => Some(3),
            DeltaType::Short => Some(5),
            DeltaType::Integer => Some(10),
            DeltaType::Long => Some(19),
            _ => None,
        }
    }
}

impl std::error::Error for IncompatibleSchema {}

impl TableSchema {
    /// The columns that the plugin declares, as a table has them.
    pub fn table_columns(&self) -> Vec<TableColumn> {
        self.columns.iter().map(TableColumn::from).collect()
    }
}

impl From<&Column> for TableColumn {
    fn from(column: &Column) -> Self {
        let cases = match &column.kind {
            Kind::Enum(cases) => Some(cases.clone()),
            _ => None,
        };
        let (name, comment) = (column.name.clone(), column.doc.clone());
        Self { name, ty: DeltaType::from(&column.kind), nullable: column.nullable, comment, cases }
    }
}

impl From<&Kind> for DeltaType {
    fn from(kind: &Kind) -> Self {
        match kind {
            Kind::Bool => DeltaType::Boolean,
            Kind::Int8 => DeltaType::Byte,
            Kind::Int16 | Kind::UInt8 => DeltaType::Short,
            Kind::Int32 | Kind::UInt16 => DeltaType::Integer,
            Kind::Int64 | Kind::UInt32 => DeltaType::Long,
            Kind::UInt64 => DeltaType::Decimal(20, 0),
            Kind::Float32 => DeltaType::Float,
            Kind::Float64 => DeltaType::Double,
            Kind::Utf8 | Kind::Char | Kind::Enum(_) => DeltaType::String,
            Kind::Timestamp => DeltaType::Timestamp,
            Kind::Date => DeltaType::Date,
            Kind::Money => DeltaType::Decimal(MONEY_PRECISION, MONEY_SCALE as u8),
            Kind::Binary => DeltaType::Binary,
            // Delta has no metadata for the items of a list.
            Kind::List(item) => {
                DeltaType::Array(Box::new(TableColumn { comment: None, cases: None, ..(&**item).into() }))
            }
            Kind::Struct(columns) => DeltaType::Struct(columns.iter().map(TableColumn::from).collect()),
        }
    }
}

#[cfg(test)]
mod tests;
