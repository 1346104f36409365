//! Reads a table's schema from the WIT that a plugin carries: the record `row` is the schema.

use wit_parser::{
    Function, InterfaceId, Resolve, Type, TypeDefKind, TypeId, UnresolvedPackage, UnresolvedPackageGroup, WorldId,
    WorldItem,
};

use super::contract::{check_configure, row_type, version_of};
use super::wit::{ContractAlias, contract_alias, option_item, resolve_alias};
use super::{COLUMNS_MAX, CONTRACT, Column, ContractError, Kind, TRANSFORM, TableSchema, added};

impl TableSchema {
    /// Reads the schema from a component's own type, `world` of `resolve`. `docs` is the WIT text of the table, if
    /// there is one: the comments of the columns come from there.
    pub fn of_world(resolve: &Resolve, world: WorldId, docs: Option<&str>) -> Result<Self, ContractError> {
        let (interface_id, transform) = find_transform(resolve, world)?;
        let interface = resolve.id_of(interface_id).unwrap_or_else(|| TRANSFORM.to_owned());
        let version = version_of(resolve).map_err(|mismatch| mismatch.of(&interface))?;
        let row = row_type(version, resolve, transform).map_err(|mismatch| mismatch.of(&interface))?;
        check_configure(version, resolve, world).map_err(|mismatch| mismatch.of(&format!("{CONTRACT}/plugin")))?;
        if count_columns(resolve, Type::Id(row), COLUMNS_MAX) > COLUMNS_MAX {
            return Err(ContractError::TooManyColumns);
        }
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
}

/// The exported interface with a `transform` function, and that function.
pub(crate) fn find_transform(resolve: &Resolve, world: WorldId) -> Result<(InterfaceId, &Function), ContractError> {
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

/// The columns of a type with those inside of it, or more than `max`. A few records within each other describe millions, so
/// it stops counting there.
pub(crate) fn count_columns(resolve: &Resolve, ty: Type, max: usize) -> usize {
    let Type::Id(id) = ty else { return 1 };
    match &resolve.types[id].kind {
        TypeDefKind::Record(record) => record.fields.iter().fold(0, |count, field| {
            if count > max { count } else { count + count_columns(resolve, field.ty, max - count) }
        }),
        TypeDefKind::Tuple(tuple) => tuple.types.iter().fold(0, |count, item| {
            if count > max { count } else { count + count_columns(resolve, *item, max - count) }
        }),
        TypeDefKind::Type(item) | TypeDefKind::Option(item) | TypeDefKind::List(item) => {
            count_columns(resolve, *item, max)
        }
        _ => 1,
    }
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
        let help = "a column is either nullable or not: use one option";
        return Err(ContractError::NoMapping { field: path, found: "option<option<…>>".to_owned(), help });
    }
    let kind = kind_of(resolve, ty, &path)?;
    Ok(Column { name: name.replace('-', "_"), kind, nullable, doc: None })
}

fn kind_of(resolve: &Resolve, ty: Type, path: &str) -> Result<Kind, ContractError> {
    match contract_alias(resolve, ty) {
        Some(ContractAlias::Timestamp) => return Ok(Kind::Timestamp),
        Some(ContractAlias::Date) => return Ok(Kind::Date),
        Some(ContractAlias::Money) => return Ok(Kind::Money),
        Some(ContractAlias::Json) | None => {}
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
            other => return Err(no_mapping(other.as_str(), "see the column types in docs/plugins/contract.md")),
        },
    })
}

/// Takes the comments of the columns from the WIT text of the table, and returns the comment of the row. Comments are
/// optional: a text that does not parse, or describes other types, leaves the columns unchanged.
fn add_docs(columns: &mut [Column], interface: &str, row: &str, text: &str) -> Option<String> {
    let group = UnresolvedPackageGroup::parse("table.wit", text).ok()?;
    let package = group.main;
    let (_, interface) = package.interfaces.iter().find(|(_, found)| found.name.as_deref() == Some(interface))?;
    let doc = document(&package, columns, *interface.types.get(row)?);
    doc.or_else(|| interface.docs.contents.clone()).map(|doc| one_line(&doc))
}

fn document(package: &UnresolvedPackage, columns: &mut [Column], record: TypeId) -> Option<String> {
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

/// The record type and the columns of a column that is a record or a list of records.
fn nested_record<'a>(package: &UnresolvedPackage, kind: &'a mut Kind, ty: Type) -> Option<(&'a mut [Column], TypeId)> {
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
