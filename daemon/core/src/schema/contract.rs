//! The contract of wit/types.wit, held against what a component says of itself, field by field.

use std::sync::LazyLock;

use wit_parser::{Function, Resolve, Type, TypeDefKind, TypeId, WorldId, WorldItem};

use super::{CONTRACT, list_item, record_of, resolve_alias};

/// The contract that this silverd speaks.
const TEXT: &str = include_str!("../../../../wit/types.wit");
/// The interface and the function by which a plugin takes its settings.
const PLUGIN: &str = "plugin";
const CONFIGURE: &str = "configure";

static RESOLVE: LazyLock<Option<Resolve>> = LazyLock::new(|| {
    let mut resolve = Resolve::default();
    resolve.push_str("types.wit", TEXT).ok().map(|_| resolve)
});

/// Where a component departs from the contract: which field, what the contract has there, and what the component has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Departure {
    pub field: String,
    pub expected: String,
    pub found: String,
}

impl Departure {
    fn new(field: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { field: field.into(), expected: expected.into(), found: found.into() }
    }
}

/// Checks a `transform`, and gives the type of its rows.
pub(super) fn row_type(resolve: &Resolve, transform: &Function) -> Result<TypeId, Departure> {
    let [param] = &transform.params[..] else {
        let found = format!("{} parameters", transform.params.len());
        return Err(Departure::new("transform", "one parameter, `events: batch`", found));
    };
    against("batch", resolve, param.ty, "events")?;
    let output = transform.result.and_then(|ty| record_of(resolve, ty));
    let Some(output) = output else {
        let found = transform.result.map_or_else(|| "nothing".to_owned(), |ty| shown(resolve, ty));
        return Err(Departure::new("the result of transform", "record output", found));
    };
    let names = |names: &[&str]| format!("record {{ {} }}", names.join(", "));
    let found: Vec<_> = output.fields.iter().map(|field| field.name.as_str()).collect();
    let expected = ["rows", "row-events", "rejects"];
    let [rows, row_events, rejects] = &output.fields[..] else {
        return Err(Departure::new("output", names(&expected), names(&found)));
    };
    if found != expected {
        return Err(Departure::new("output", names(&expected), names(&found)));
    }
    if list_item(resolve, row_events.ty) != Some(Type::U32) {
        return Err(Departure::new("output.row-events", "list<u32>", shown(resolve, row_events.ty)));
    }
    match list_item(resolve, rejects.ty) {
        Some(item) => against("reject", resolve, item, "output.rejects[]")?,
        None => return Err(Departure::new("output.rejects", "list<reject>", shown(resolve, rejects.ty))),
    }
    match list_item(resolve, rows.ty).map(|item| resolve_alias(resolve, item)) {
        Some(Type::Id(id)) if matches!(resolve.types[id].kind, TypeDefKind::Record(_)) => Ok(id),
        _ => Err(Departure::new("output.rows", "a list of records", shown(resolve, rows.ty))),
    }
}

/// Checks the `configure` of a world that has one.
pub(super) fn check_configure(resolve: &Resolve, world: WorldId) -> Result<(), Departure> {
    let Some(contract) = &*RESOLVE else { return Ok(()) };
    let Some(expected) = exported(contract, None) else { return Ok(()) };
    let Some(found) = exported(resolve, Some(world)) else { return Ok(()) };
    let shown = |resolve: &Resolve, function: &Function| {
        let params: Vec<_> = function.params.iter().map(|param| shown(resolve, param.ty)).collect();
        let result = function.result.map_or_else(String::new, |ty| format!(" -> {}", shown(resolve, ty)));
        format!("func({}){result}", params.join(", "))
    };
    let departure = || Departure::new(CONFIGURE, shown(contract, expected), shown(resolve, found));
    if found.params.len() != expected.params.len() || found.result.is_some() != expected.result.is_some() {
        return Err(departure());
    }
    for (expected, found) in expected.params.iter().zip(&found.params) {
        compare(contract, expected.ty, resolve, found.ty, "config")?;
    }
    match (expected.result, found.result) {
        (Some(expected), Some(found)) => compare(contract, expected, resolve, found, "the result of configure"),
        _ => Ok(()),
    }
}

/// The `configure` of the contract itself, or of a world that exports it.
fn exported(resolve: &Resolve, world: Option<WorldId>) -> Option<&Function> {
    let ours = |id| {
        let interface = &resolve.interfaces[id];
        let package = &resolve.packages[interface.package?].name;
        let named = interface.name.as_deref() == Some(PLUGIN);
        (named && format!("{}:{}", package.namespace, package.name) == CONTRACT).then_some(interface)
    };
    let interface = match world {
        None => resolve.interfaces.iter().find_map(|(id, _)| ours(id)),
        Some(world) => resolve.worlds[world].exports.values().find_map(|item| match item {
            WorldItem::Interface { id, .. } => ours(*id),
            _ => None,
        }),
    };
    interface?.functions.get(CONFIGURE)
}

/// Holds a type against the one of that name in the contract.
fn against(name: &str, resolve: &Resolve, ty: Type, path: &str) -> Result<(), Departure> {
    let Some(contract) = &*RESOLVE else { return Ok(()) };
    let named = contract.types.iter().find(|(_, def)| def.name.as_deref() == Some(name)).map(|(id, _)| Type::Id(id));
    named.map_or(Ok(()), |expected| compare(contract, expected, resolve, ty, path))
}

fn compare(contract: &Resolve, expected: Type, resolve: &Resolve, found: Type, path: &str) -> Result<(), Departure> {
    let (expected, found) = (resolve_alias(contract, expected), resolve_alias(resolve, found));
    let departure = || Departure::new(path, shown(contract, expected), shown(resolve, found));
    let (Type::Id(expected_id), Type::Id(found_id)) = (expected, found) else {
        return if expected == found { Ok(()) } else { Err(departure()) };
    };
    match (&contract.types[expected_id].kind, &resolve.types[found_id].kind) {
        (TypeDefKind::Record(expected), TypeDefKind::Record(found)) => {
            for (at, field) in expected.fields.iter().enumerate() {
                let path = format!("{path}.{}", field.name);
                match found.fields.get(at) {
                    Some(same) if same.name == field.name => compare(contract, field.ty, resolve, same.ty, &path)?,
                    Some(other) => return Err(Departure::new(path, &field.name, format!("a field `{}`", other.name))),
                    None => return Err(Departure::new(path, shown(contract, field.ty), "nothing")),
                }
            }
            match found.fields.get(expected.fields.len()) {
                Some(more) => Err(Departure::new(format!("{path}.{}", more.name), "nothing", shown(resolve, more.ty))),
                None => Ok(()),
            }
        }
        (TypeDefKind::Enum(a), TypeDefKind::Enum(b)) => {
            let same = a.cases.iter().map(|case| &case.name).eq(b.cases.iter().map(|case| &case.name));
            if same { Ok(()) } else { Err(departure()) }
        }
        (TypeDefKind::List(a), TypeDefKind::List(b)) | (TypeDefKind::Option(a), TypeDefKind::Option(b)) => {
            compare(contract, *a, resolve, *b, &format!("{path}[]"))
        }
        (TypeDefKind::Tuple(a), TypeDefKind::Tuple(b)) if a.types.len() == b.types.len() => {
            let mut pairs = a.types.iter().zip(&b.types);
            pairs.try_for_each(|(a, b)| compare(contract, *a, resolve, *b, path))
        }
        (TypeDefKind::Result(a), TypeDefKind::Result(b)) => match ((a.ok, b.ok), (a.err, b.err)) {
            ((None, None), (Some(a), Some(b))) => compare(contract, a, resolve, b, path),
            _ => Err(departure()),
        },
        _ => Err(departure()),
    }
}

/// A type, as WIT writes it, with its fields where it has a few.
fn shown(resolve: &Resolve, ty: Type) -> String {
    let Type::Id(id) = resolve_alias(resolve, ty) else { return plain(resolve_alias(resolve, ty)).to_owned() };
    let names = |names: Vec<&str>| names.join(", ");
    let or_none = |ty: Option<Type>| ty.map_or_else(|| "_".to_owned(), |ty| shown(resolve, ty));
    match &resolve.types[id].kind {
        TypeDefKind::Record(record) => {
            format!("record {{ {} }}", names(record.fields.iter().map(|field| &*field.name).collect()))
        }
        TypeDefKind::Enum(cases) => {
            format!("enum {{ {} }}", names(cases.cases.iter().map(|case| &*case.name).collect()))
        }
        TypeDefKind::List(item) => format!("list<{}>", shown(resolve, *item)),
        TypeDefKind::Option(item) => format!("option<{}>", shown(resolve, *item)),
        TypeDefKind::Result(result) => format!("result<{}, {}>", or_none(result.ok), or_none(result.err)),
        TypeDefKind::Tuple(tuple) => {
            let types: Vec<_> = tuple.types.iter().map(|ty| shown(resolve, *ty)).collect();
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
