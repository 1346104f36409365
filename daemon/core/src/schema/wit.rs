//! Reads types of a parsed WIT document.

use wit_parser::{Record, Resolve, Type, TypeDefKind};

/// Follows `type a = b` and `use` to the type itself.
pub(crate) fn resolve_alias(resolve: &Resolve, mut ty: Type) -> Type {
    while let Type::Id(id) = ty
        && let TypeDefKind::Type(next) = resolve.types[id].kind
    {
        ty = next;
    }
    ty
}

pub(crate) fn record_of(resolve: &Resolve, ty: Type) -> Option<&Record> {
    match resolve_alias(resolve, ty) {
        Type::Id(id) => match &resolve.types[id].kind {
            TypeDefKind::Record(record) => Some(record),
            _ => None,
        },
        _ => None,
    }
}

pub(crate) fn list_item(resolve: &Resolve, ty: Type) -> Option<Type> {
    match resolve_alias(resolve, ty) {
        Type::Id(id) => match resolve.types[id].kind {
            TypeDefKind::List(item) => Some(item),
            _ => None,
        },
        _ => None,
    }
}

pub(crate) fn option_item(resolve: &Resolve, ty: Type) -> Option<Type> {
    match resolve_alias(resolve, ty) {
        Type::Id(id) => match resolve.types[id].kind {
            TypeDefKind::Option(item) => Some(item),
            _ => None,
        },
        _ => None,
    }
}

/// A type alias of the contract that says what a number or a text means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContractAlias {
    Timestamp,
    Date,
    Money,
    Json,
}

/// The first alias of the contract among the names of a type.
pub(crate) fn contract_alias(resolve: &Resolve, mut ty: Type) -> Option<ContractAlias> {
    while let Type::Id(id) = ty
        && let TypeDefKind::Type(next) = resolve.types[id].kind
    {
        let alias = match resolve.types[id].name.as_deref() {
            Some("timestamp") => Some((ContractAlias::Timestamp, Type::S64)),
            Some("date") => Some((ContractAlias::Date, Type::S32)),
            Some("money") => Some((ContractAlias::Money, Type::S64)),
            Some("json") => Some((ContractAlias::Json, Type::String)),
            _ => None,
        };
        if let Some((alias, base)) = alias
            && resolve_alias(resolve, ty) == base
        {
            return Some(alias);
        }
        ty = next;
    }
    None
}

/// A type in WIT notation; a record or an enum with the names of its fields or cases.
pub(crate) fn describe(resolve: &Resolve, ty: Type) -> String {
    let Type::Id(id) = resolve_alias(resolve, ty) else { return plain(resolve_alias(resolve, ty)).to_owned() };
    let names = |names: Vec<&str>| names.join(", ");
    let or_none = |ty: Option<Type>| ty.map_or_else(|| "_".to_owned(), |ty| describe(resolve, ty));
    match &resolve.types[id].kind {
        TypeDefKind::Record(record) => {
            format!("record {{ {} }}", names(record.fields.iter().map(|field| &*field.name).collect()))
        }
        TypeDefKind::Enum(cases) => {
            format!("enum {{ {} }}", names(cases.cases.iter().map(|case| &*case.name).collect()))
        }
        TypeDefKind::List(item) => format!("list<{}>", describe(resolve, *item)),
        TypeDefKind::Option(item) => format!("option<{}>", describe(resolve, *item)),
        TypeDefKind::Result(result) => format!("result<{}, {}>", or_none(result.ok), or_none(result.err)),
        TypeDefKind::Tuple(tuple) => {
            let types: Vec<_> = tuple.types.iter().map(|ty| describe(resolve, *ty)).collect();
            format!("tuple<{}>", types.join(", "))
        }
        other => other.as_str().to_owned(),
    }
}

fn plain(ty: Type) -> &'static str {
    match ty {
        Type::Bool => "bool",
        Type::U8 => "u8",
        Type::U16 => "u16",
        Type::U32 => "u32",
        Type::U64 => "u64",
        Type::S8 => "s8",
        Type::S16 => "s16",
        Type::S32 => "s32",
        Type::S64 => "s64",
        Type::F32 => "f32",
        Type::F64 => "f64",
        Type::Char => "char",
        Type::String => "string",
        Type::ErrorContext => "error-context",
        Type::Id(_) => "a type",
    }
}
