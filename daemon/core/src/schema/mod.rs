//! The schema of a Silver table, as its plugin declares it: the WIT record `row` is the schema.

mod contract;
pub mod evolve;
mod from_wit;
mod to_wit;
pub(crate) mod wit;

use std::collections::HashMap;
use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef, Fields, Schema, TimeUnit};

pub use crate::names::is_wit_keyword;
pub(crate) use contract::{Mismatch, TEXT as CONTRACT_TEXT, compare_to_contract, version_of};
pub(crate) use from_wit::{count_columns, find_transform};
pub use to_wit::table_wit;

/// The WIT package with the types that every plugin uses.
pub const CONTRACT: &str = "silverd:pipeline";
/// The metadata key of a column's comment, in Arrow and in Delta.
pub const COMMENT: &str = "comment";
/// The metadata key of the cases of the enum of a column, separated by commas: they show whether a case was renamed.
pub const ENUM: &str = "silverd.enum";
/// The function in the interface of a table.
pub const TRANSFORM: &str = "transform";
/// The alias `money` is `decimal(18,2)`.
pub const MONEY_PRECISION: u8 = 18;
pub const MONEY_SCALE: i8 = 2;

/// The columns of a row, with those inside of records: each costs memory, in the daemon and in every reader.
pub const COLUMNS_MAX: usize = 10_000;

/// The schema of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSchema {
    /// The exported interface with the `transform` function, e.g. `shop:silver/page-view@0.1.0`.
    pub interface: String,
    pub doc: Option<String>,
    pub columns: Vec<Column>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The name in the table: `event_id` for WIT's `event-id`.
    pub name: String,
    pub kind: Kind,
    pub nullable: bool,
    pub doc: Option<String>,
}

/// The column type of a WIT type:
///
/// | WIT                    | Arrow                 | Delta           |
/// |------------------------|-----------------------|-----------------|
/// | `bool`                 | Boolean               | boolean         |
/// | `s8` `s16` `s32` `s64` | Int8 … Int64          | byte short integer long |
/// | `u8` `u16` `u32`       | Int16 Int32 Int64     | short integer long |
/// | `u64`                  | Decimal128(20, 0)     | decimal(20,0)   |
/// | `f32` `f64`            | Float32 Float64       | float double    |
/// | `string` `char`        | Utf8                  | string          |
/// | `timestamp`            | Timestamp(µs, UTC)    | timestamp       |
/// | `date`                 | Date32                | date            |
/// | `money`                | Decimal128(18, 2)     | decimal(18,2)   |
/// | `enum`                 | Dictionary of Utf8    | string          |
/// | `list<u8>`             | Binary                | binary          |
/// | `list<T>`              | List                  | array           |
/// | `record`               | Struct                | struct          |
/// | `option<T>`            | T, nullable           | T, nullable     |
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Int8,
    Int16,
    Int32,
    Int64,
    UInt8,
    UInt16,
    UInt32,
    UInt64,
    Float32,
    Float64,
    Utf8,
    Char,
    Timestamp,
    Date,
    Money,
    Enum(Vec<String>),
    Binary,
    List(Box<Column>),
    Struct(Vec<Column>),
}

/// Why a component cannot fill a table.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContractError {
    #[error(
        "the component exports no interface with a `{TRANSFORM}` function; its world exports {found}. Expected a world \
         such as `world page-view-plugin {{ export {CONTRACT}/plugin@0.2.0; export page-view; }}` (see wit/silver/)"
    )]
    NoTransform { found: String },
    #[error("the component exports `{TRANSFORM}` in more than one interface ({0}); a plugin fills one table")]
    ManyTransforms(String),
    #[error(
        "`{interface}` does not match the contract: `{field}`: expected {expected}, found {found}. Use wit/types.wit \
         and the SDK of this silverd, keep `output` and `transform` of the table's WIT file as in \
         wit/silver/page-view.wit, and build the plugin again: `cargo build --release --target wasm32-unknown-unknown`"
    )]
    Signature { interface: String, field: String, expected: String, found: String },
    #[error("field `{field}` of the row has type `{found}`, which has no column type; {help}")]
    NoMapping { field: String, found: String, help: &'static str },
    #[error("field `{field}` of the input has type `{found}`, which silverd cannot read from JSON; {help}")]
    NoInput { field: String, found: String, help: &'static str },
    #[error(
        "two fields of an input of `{interface}` have the key `{key}` in JSON; the second is `{field}`. Give it another \
         one with a line `/// @name(\"…\")` before it"
    )]
    TwoFields { interface: String, field: String, key: String },
    #[error("the comment of `{field}` has the line `{line}`; expected `@name(\"key\")`, with the key that JSON has")]
    Name { field: String, line: String },
    #[error(
        "`{0}` has a `@name` in the WIT text of the table, and the component has no such field: build it from this text"
    )]
    NameOfNothing(String),
    #[error("the WIT text of the table, which has lines with `@name`, does not parse: {0}")]
    Wit(String),
    #[error(
        "the WIT text of the table, which has lines with `@name`, has no interface `{0}`, which the component exports"
    )]
    WitInterface(String),
    #[error(
        "the WIT text has {0} interfaces with a record `input`; expected one interface with `record input {{ … }}`, whose \
         fields silverd reads from an event's JSON"
    )]
    Inputs(usize),
    #[error("the row has two columns named `{0}`")]
    TwoColumns(String),
    #[error("the row has a field `{0}`, a name that silverd reserves for its own columns")]
    Reserved(String),
    #[error(
        "the row has more than {COLUMNS_MAX} columns, counting those inside of records. Leave some out, or put a part of \
         them into one string as JSON"
    )]
    TooManyColumns,
    #[error(
        "the input has more than {COLUMNS_MAX} fields, counting those inside of records. Leave some out, or take a part of \
         the event as `json`"
    )]
    TooManyFields,
    #[error("the row has no fields")]
    Empty,
}

/// The columns that silverd adds to each Silver table, after the plugin's own.
pub mod added {
    pub const CLUSTER_ID: &str = "_cluster_id";
    pub const TOPIC: &str = "_topic";
    pub const PARTITION: &str = "_partition";
    pub const OFFSET: &str = "_offset";
    pub const INGESTED_AT: &str = "ingested_at";
    pub const EVENT_DATE: &str = "event_date";
    pub const ALL: [&str; 6] = [CLUSTER_ID, TOPIC, PARTITION, OFFSET, INGESTED_AT, EVENT_DATE];
}

impl TableSchema {
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The Arrow schema of the plugin's columns.
    pub fn arrow(&self) -> Schema {
        Schema::new(self.columns.iter().map(Column::arrow).collect::<Vec<_>>())
    }
}

impl Column {
    /// The Arrow field, with the comment and the cases of an enum as metadata, under [`COMMENT`] and [`ENUM`].
    pub fn arrow(&self) -> FieldRef {
        let mut metadata = HashMap::new();
        if let Some(doc) = &self.doc {
            metadata.insert(COMMENT.to_owned(), doc.clone());
        }
        if let Kind::Enum(cases) = &self.kind {
            metadata.insert(ENUM.to_owned(), cases.join(","));
        }
        Arc::new(Field::new(&self.name, self.kind.arrow(), self.nullable).with_metadata(metadata))
    }
}

impl Kind {
    pub fn arrow(&self) -> DataType {
        match self {
            Kind::Bool => DataType::Boolean,
            Kind::Int8 => DataType::Int8,
            Kind::Int16 | Kind::UInt8 => DataType::Int16,
            Kind::Int32 | Kind::UInt16 => DataType::Int32,
            Kind::Int64 | Kind::UInt32 => DataType::Int64,
            Kind::UInt64 => DataType::Decimal128(20, 0),
            Kind::Float32 => DataType::Float32,
            Kind::Float64 => DataType::Float64,
            Kind::Utf8 | Kind::Char => DataType::Utf8,
            Kind::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Kind::Date => DataType::Date32,
            Kind::Money => DataType::Decimal128(MONEY_PRECISION, MONEY_SCALE),
            Kind::Enum(cases) => DataType::Dictionary(Box::new(discriminant(cases.len())), Box::new(DataType::Utf8)),
            Kind::Binary => DataType::Binary,
            Kind::List(item) => DataType::List(item.arrow()),
            Kind::Struct(columns) => DataType::Struct(columns.iter().map(Column::arrow).collect::<Fields>()),
        }
    }
}

/// The integer type of the component model for an enum of so many cases: the key type of the column's dictionary.
fn discriminant(cases: usize) -> DataType {
    match discriminant_bytes(cases) {
        1 => DataType::UInt8,
        2 => DataType::UInt16,
        _ => DataType::UInt32,
    }
}

/// The size of that type.
pub(crate) fn discriminant_bytes(cases: usize) -> u8 {
    match cases {
        0..=0x100 => 1,
        0x101..=0x1_0000 => 2,
        _ => 4,
    }
}

#[cfg(test)]
mod tests;
