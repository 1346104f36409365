//! A Silver table's schema, learnt from the WIT that a plugin carries: the record `row` *is* the schema.

mod contract;
pub mod evolve;
mod words;

use std::collections::HashMap;
use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef, Fields, Schema, TimeUnit};
use wit_parser::{
    Function, InterfaceId, Resolve, Type, TypeDefKind, TypeId, UnresolvedPackageGroup, WorldId, WorldItem,
};

use contract::{Departure, check_configure, row_type};

/// The package whose types every plugin speaks.
pub const CONTRACT: &str = "silverd:pipeline";
/// The metadata key of a column's comment, in Arrow as in Delta.
pub const COMMENT: &str = "comment";
/// The metadata key of the cases of the enum that fills a column, parted by commas: so a renamed case can be told.
pub const ENUM: &str = "silverd.enum";
/// The function of a table's interface.
pub const TRANSFORM: &str = "transform";
/// `decimal(18,2)`: the digits of the alias `money`, and those behind its point.
pub const MONEY_PRECISION: u8 = 18;
pub const MONEY_SCALE: i8 = 2;

/// A table as a plugin declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSchema {
    /// The exported interface that has the `transform`, e.g. `shop:silver/page-view@0.1.0`.
    pub interface: String,
    pub doc: Option<String>,
    pub columns: Vec<Column>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// As the table has it: `event_id` for WIT's `event-id`.
    pub name: String,
    pub kind: Kind,
    pub nullable: bool,
    pub doc: Option<String>,
}

/// What a WIT type becomes:
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

/// Why a component cannot fill a table. Each says what was found, and where.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContractError {
    #[error(
        "it exports no interface with a `{TRANSFORM}` function; its world exports {found}. Expected a world such as \
         `world page-view-plugin {{ export {CONTRACT}/plugin@0.1.0; export page-view; }}` (see wit/silver/)"
    )]
    NoTransform { found: String },
    #[error("it exports `{TRANSFORM}` in more than one interface ({0}); a plugin fills one table")]
    ManyTransforms(String),
    #[error(
        "`{interface}` does not keep the contract: `{field}`: expected {expected}, found {found}. Take silverd's own \
         wit/types.wit and the SDK that lies with it, leave `output` and `transform` of the table's WIT file as in \
         wit/silver/page-view.wit, and build the plugin anew: `cargo build --release --target wasm32-unknown-unknown`"
    )]
    Signature { interface: String, field: String, expected: String, found: String },
    #[error("field `{field}` of the row has type `{found}`, which has no column type; {help}")]
    NoMapping { field: String, found: String, help: &'static str },
    #[error("the row has two columns named `{0}`")]
    TwoColumns(String),
    #[error("the row has a field `{0}`, a name that silverd keeps for its own columns")]
    Reserved(String),
    #[error("the row has no fields")]
    Empty,
}

/// The columns that silverd adds to each Silver table, behind the plugin's own.
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
    /// Reads the schema from a component's own type, `world` of `resolve`; `docs` is the WIT text of the table, if the
    /// component carries it.
    pub fn of_world(resolve: &Resolve, world: WorldId, docs: Option<&str>) -> Result<Self, ContractError> {
        let (interface_id, transform) = find_transform(resolve, world)?;
        let interface = resolve.id_of(interface_id).unwrap_or_else(|| TRANSFORM.to_owned());
        let departs = |interface: &str, departure: Departure| {
            let Departure { field, expected, found } = departure;
            ContractError::Signature { interface: interface.to_owned(), field, expected, found }
        };
        let row = row_type(resolve, transform).map_err(|departure| departs(&interface, departure))?;
        check_configure(resolve, world).map_err(|departure| departs(&format!("{CONTRACT}/plugin"), departure))?;
        let mut columns = columns_of(resolve, row, "")?;
        if columns.is_empty() {
            return Err(ContractError::Empty);
        }
        for (at, column) in columns.iter().enumerate() {
            if added::ALL.contains(&column.name.as_str()) {
                return Err(ContractError::Reserved(column.name.clone()));
            }
            if columns[..at].iter().any(|earlier| earlier.name == column.name) {
                return Err(ContractError::TwoColumns(column.name.clone()));
            }
        }
        let mut doc = None;
        if let Some(text) = docs {
            let name = resolve.interfaces[interface_id].name.as_deref().unwrap_or_default();
            doc = add_docs(&mut columns, name, row_name(resolve, row), text);
        }
        Ok(Self { interface, doc, columns })
    }

    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The Arrow schema of the plugin's own columns.
    pub fn arrow(&self) -> Schema {
        Schema::new(self.columns.iter().map(Column::arrow).collect::<Vec<_>>())
    }
}

impl Column {
    /// The Arrow field; the doc and an enum's cases come along as metadata, under [`COMMENT`] and [`ENUM`].
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

/// The integer that the component model tells `cases` cases apart by, which is the key of the column's dictionary.
fn discriminant(cases: usize) -> DataType {
    match cases {
        0..=0x100 => DataType::UInt8,
        0x101..=0x1_0000 => DataType::UInt16,
        _ => DataType::UInt32,
    }
}

/// The exported interface that has a `transform`, and that function.
fn find_transform(resolve: &Resolve, world: WorldId) -> Result<(InterfaceId, &Function), ContractError> {
    let exports = &resolve.worlds[world].exports;
    let mut found = Vec::new();
    for item in exports.values() {
        if let WorldItem::Interface { id, .. } = item
            && let Some(function) = resolve.interfaces[*id].functions.get(TRANSFORM)
        {
            found.push((*id, function));
        }
    }
    match found[..] {
        [one] => Ok(one),
        [] => {
            let names: Vec<_> = exports.keys().map(|key| format!("`{}`", resolve.name_world_key(key))).collect();
            let found = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
            Err(ContractError::NoTransform { found })
        }
        _ => {
            let names: Vec<_> = found.iter().filter_map(|(id, _)| resolve.id_of(*id)).collect();
            Err(ContractError::ManyTransforms(names.join(", ")))
        }
    }
}

fn record_of(resolve: &Resolve, ty: Type) -> Option<&wit_parser::Record> {
    match resolve_alias(resolve, ty) {
        Type::Id(id) => match &resolve.types[id].kind {
            TypeDefKind::Record(record) => Some(record),
            _ => None,
        },
        _ => None,
    }
}

fn list_item(resolve: &Resolve, ty: Type) -> Option<Type> {
    match resolve_alias(resolve, ty) {
        Type::Id(id) => match resolve.types[id].kind {
            TypeDefKind::List(item) => Some(item),
            _ => None,
        },
        _ => None,
    }
}

/// Follows `type a = b` and `use` to the type behind.
fn resolve_alias(resolve: &Resolve, mut ty: Type) -> Type {
    while let Type::Id(id) = ty
        && let TypeDefKind::Type(next) = resolve.types[id].kind
    {
        ty = next;
    }
    ty
}

/// The first name on the way through the aliases that means something to a table.
fn meaning(resolve: &Resolve, mut ty: Type) -> Option<Kind> {
    while let Type::Id(id) = ty
        && let TypeDefKind::Type(next) = resolve.types[id].kind
    {
        let kind = match resolve.types[id].name.as_deref() {
            Some("timestamp") => Some((Kind::Timestamp, Type::S64)),
            Some("date") => Some((Kind::Date, Type::S32)),
            Some("money") => Some((Kind::Money, Type::S64)),
            _ => None,
        };
        if let Some((kind, base)) = kind
            && resolve_alias(resolve, ty) == base
        {
            return Some(kind);
        }
        ty = next;
    }
    None
}

fn row_name(resolve: &Resolve, row: TypeId) -> &str {
    resolve.types[row].name.as_deref().unwrap_or("row")
}

fn columns_of(resolve: &Resolve, record: TypeId, path: &str) -> Result<Vec<Column>, ContractError> {
    let TypeDefKind::Record(record) = &resolve.types[record].kind else { return Ok(Vec::new()) };
    record.fields.iter().map(|field| column_of(resolve, &field.name, field.ty, path)).collect()
}

fn column_of(resolve: &Resolve, name: &str, ty: Type, path: &str) -> Result<Column, ContractError> {
    let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    let (ty, nullable) = match option_item(resolve, ty) {
        Some(item) => (item, true),
        None => (ty, false),
    };
    if nullable && option_item(resolve, ty).is_some() {
        let help = "a column is null or it is not: use one option";
        return Err(ContractError::NoMapping { field: path, found: "option<option<…>>".to_owned(), help });
    }
    let kind = kind_of(resolve, ty, &path)?;
    Ok(Column { name: name.replace('-', "_"), kind, nullable, doc: None })
}

fn option_item(resolve: &Resolve, ty: Type) -> Option<Type> {
    match resolve_alias(resolve, ty) {
        Type::Id(id) => match resolve.types[id].kind {
            TypeDefKind::Option(item) => Some(item),
            _ => None,
        },
        _ => None,
    }
}

fn kind_of(resolve: &Resolve, ty: Type, path: &str) -> Result<Kind, ContractError> {
    if let Some(kind) = meaning(resolve, ty) {
        return Ok(kind);
    }
    let no_mapping =
        |found: &str, help| ContractError::NoMapping { field: path.to_owned(), found: found.to_owned(), help };
    Ok(match resolve_alias(resolve, ty) {
        Type::Bool => Kind::Bool,
        Type::S8 => Kind::Int8,
        Type::S16 => Kind::Int16,
        Type::S32 => Kind::Int32,
        Type::S64 => Kind::Int64,
        Type::U8 => Kind::UInt8,
        Type::U16 => Kind::UInt16,
        Type::U32 => Kind::UInt32,
        Type::U64 => Kind::UInt64,
        Type::F32 => Kind::Float32,
        Type::F64 => Kind::Float64,
        Type::Char => Kind::Char,
        Type::String => Kind::Utf8,
        Type::ErrorContext => return Err(no_mapping("error-context", "use a string")),
        Type::Id(id) => match &resolve.types[id].kind {
            TypeDefKind::Enum(cases) => Kind::Enum(cases.cases.iter().map(|case| case.name.clone()).collect()),
            TypeDefKind::Record(_) => Kind::Struct(columns_of(resolve, id, path)?),
            TypeDefKind::List(item) if resolve_alias(resolve, *item) == Type::U8 => Kind::Binary,
            TypeDefKind::List(item) => Kind::List(Box::new(column_of(resolve, "element", *item, path)?)),
            TypeDefKind::Tuple(_) => return Err(no_mapping("tuple", "use a record, whose fields have names")),
            TypeDefKind::Variant(_) => {
                return Err(no_mapping("variant", "use an enum for the case and an option for each payload"));
            }
            TypeDefKind::Result(_) => return Err(no_mapping("result", "use an option, and a reject for the error")),
            TypeDefKind::Flags(_) => return Err(no_mapping("flags", "use one bool for each flag")),
            other => return Err(no_mapping(other.as_str(), "see the table of column types in the README")),
        },
    })
}

/// Takes the columns' docs from the WIT text of the table, and gives that of its row. Docs are a courtesy: a text that
/// does not parse, or tells of other types, leaves the columns as they are.
fn add_docs(columns: &mut [Column], interface: &str, row: &str, text: &str) -> Option<String> {
    let group = UnresolvedPackageGroup::parse("table.wit", text).ok()?;
    let package = group.main;
    let (_, interface) = package.interfaces.iter().find(|(_, found)| found.name.as_deref() == Some(interface))?;
    let doc = document(&package, columns, *interface.types.get(row)?);
    doc.or_else(|| interface.docs.contents.clone()).map(|doc| one_line(&doc))
}

fn document(package: &wit_parser::UnresolvedPackage, columns: &mut [Column], record: TypeId) -> Option<String> {
    let TypeDefKind::Record(fields) = &package.types[record].kind else { return None };
    for column in columns {
        let Some(field) = fields.fields.iter().find(|field| field.name.replace('-', "_") == column.name) else {
            continue;
        };
        column.doc = field.docs.contents.as_deref().map(one_line);
        if let Some((nested, record)) = nested_record(package, &mut column.kind, field.ty) {
            document(package, nested, record);
        }
    }
    package.types[record].docs.contents.clone()
}

/// The record inside of a column of records or of lists of them.
fn nested_record<'a>(
    package: &wit_parser::UnresolvedPackage,
    kind: &'a mut Kind,
    ty: Type,
) -> Option<(&'a mut [Column], TypeId)> {
    let Type::Id(id) = ty else { return None };
    match &package.types[id].kind {
        TypeDefKind::Option(item) | TypeDefKind::Type(item) => nested_record(package, kind, *item),
        TypeDefKind::List(item) => match kind {
            Kind::List(element) => nested_record(package, &mut element.kind, *item),
            _ => None,
        },
        TypeDefKind::Record(_) => match kind {
            Kind::Struct(columns) => Some((columns, id)),
            _ => None,
        },
        _ => None,
    }
}

fn one_line(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
