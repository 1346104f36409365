//! Compares a component's own types with the contract in wit/types.wit, field by field.

use std::sync::LazyLock;

use wit_parser::{Function, PackageName, Resolve, Type, TypeDefKind, TypeId, WorldId, WorldItem};

use super::wit::{describe, list_item, record_of, resolve_alias};
use super::{CONTRACT, ContractError};
use crate::input::ContractVersion;

/// The contract of this version of silverd, and the one before, which components may still have.
pub(crate) const TEXT: &str = include_str!("../../../../wit/types.wit");
const TEXT_0_1: &str = include_str!("../../../../wit/v0.1/types.wit");
/// The interface and the function that pass settings to a plugin.
const PLUGIN: &str = "plugin";
const CONFIGURE: &str = "configure";

static CONTRACT_0_2: LazyLock<Option<Resolve>> = LazyLock::new(|| parse(TEXT));
static CONTRACT_0_1: LazyLock<Option<Resolve>> = LazyLock::new(|| parse(TEXT_0_1));

fn parse(text: &str) -> Option<Resolve> {
    let mut resolve = Resolve::default();
    resolve.push_str("types.wit", text).ok().map(|_| resolve)
}

fn contract(version: ContractVersion) -> Option<&'static Resolve> {
    match version {
        ContractVersion::V0_1 => CONTRACT_0_1.as_ref(),
        ContractVersion::V0_2 => CONTRACT_0_2.as_ref(),
    }
}

/// The version of the contract that a component was built with.
pub(crate) fn version_of(resolve: &Resolve) -> Result<ContractVersion, Mismatch> {
    let ours = |name: &PackageName| format!("{}:{}", name.namespace, name.name) == CONTRACT;
    let version = resolve.packages.iter().find(|(_, package)| ours(&package.name));
    let version = version.and_then(|(_, package)| package.name.version.as_ref());
    match version.map(|version| (version.major, version.minor)) {
        Some((0, 2)) => Ok(ContractVersion::V0_2),
        Some((0, 1)) | None => Ok(ContractVersion::V0_1),
        Some((major, minor)) => Err(Mismatch::new(CONTRACT, "version 0.1 or 0.2", format!("version {major}.{minor}"))),
    }
}

/// A difference between a component and the contract.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    pub field: String,
    pub expected: String,
    pub found: String,
}

impl Mismatch {
    pub(crate) fn new(field: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { field: field.into(), expected: expected.into(), found: found.into() }
    }

    /// As an error of this interface.
    pub(crate) fn of(self, interface: &str) -> ContractError {
        let Mismatch { field, expected, found } = self;
        ContractError::Signature { interface: interface.to_owned(), field, expected, found }
    }
}

/// Checks the output of a `transform` function, and returns the type of its rows.
pub(super) fn row_type(version: ContractVersion, resolve: &Resolve, transform: &Function) -> Result<TypeId, Mismatch> {
    let output = transform.result.and_then(|ty| record_of(resolve, ty));
    let Some(output) = output else {
        let found = transform.result.map_or_else(|| "nothing".to_owned(), |ty| describe(resolve, ty));
        return Err(Mismatch::new("the result of transform", "record output", found));
    };
    let names = |names: &[&str]| format!("record {{ {} }}", names.join(", "));
    let found: Vec<_> = output.fields.iter().map(|field| field.name.as_str()).collect();
    let expected = ["rows", "row-events", "rejects"];
    let [rows, row_events, rejects] = &output.fields[..] else {
        return Err(Mismatch::new("output", names(&expected), names(&found)));
    };
    if found != expected {
        return Err(Mismatch::new("output", names(&expected), names(&found)));
    }
    if list_item(resolve, row_events.ty) != Some(Type::U32) {
        return Err(Mismatch::new("output.row-events", "list<u32>", describe(resolve, row_events.ty)));
    }
    match list_item(resolve, rejects.ty) {
        Some(item) => compare_to_contract(version, "reject", resolve, item, "output.rejects[]")?,
        None => return Err(Mismatch::new("output.rejects", "list<reject>", describe(resolve, rejects.ty))),
    }
    match list_item(resolve, rows.ty).map(|item| resolve_alias(resolve, item)) {
        Some(Type::Id(id)) if matches!(resolve.types[id].kind, TypeDefKind::Record(_)) => Ok(id),
        _ => Err(Mismatch::new("output.rows", "a list of records", describe(resolve, rows.ty))),
    }
}

/// Checks the `configure` function of a world, if it exports one.
pub(super) fn check_configure(version: ContractVersion, resolve: &Resolve, world: WorldId) -> Result<(), Mismatch> {
    let Some(contract) = contract(version) else { return Ok(()) };
    let Some(expected) = exported(contract, None) else { return Ok(()) };
    let Some(found) = exported(resolve, Some(world)) else { return Ok(()) };
    let signature = |resolve: &Resolve, function: &Function| {
        let params: Vec<_> = function.params.iter().map(|param| describe(resolve, param.ty)).collect();
        let result = function.result.map_or_else(String::new, |ty| format!(" -> {}", describe(resolve, ty)));
        format!("func({}){result}", params.join(", "))
    };
    let mismatch = || Mismatch::new(CONFIGURE, signature(contract, expected), signature(resolve, found));
    if found.params.len() != expected.params.len() || found.result.is_some() != expected.result.is_some() {
        return Err(mismatch());
    }
    for (expected, found) in expected.params.iter().zip(&found.params) {
        compare(contract, expected.ty, resolve, found.ty, "config")?;
    }
    match (expected.result, found.result) {
        (Some(expected), Some(found)) => compare(contract, expected, resolve, found, "the result of configure"),
        _ => Ok(()),
    }
}

/// The `configure` function of the contract, or of a world that exports it.
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

/// Compares a type with the type of that name in the contract.
pub(crate) fn compare_to_contract(
    version: ContractVersion,
    name: &str,
    resolve: &Resolve,
    ty: Type,
    path: &str,
) -> Result<(), Mismatch> {
    let Some(contract) = contract(version) else { return Ok(()) };
    let named = contract.types.iter().find(|(_, def)| def.name.as_deref() == Some(name)).map(|(id, _)| Type::Id(id));
    named.map_or(Ok(()), |expected| compare(contract, expected, resolve, ty, path))
}

fn compare(contract: &Resolve, expected: Type, resolve: &Resolve, found: Type, path: &str) -> Result<(), Mismatch> {
    let (expected, found) = (resolve_alias(contract, expected), resolve_alias(resolve, found));
    let mismatch = || Mismatch::new(path, describe(contract, expected), describe(resolve, found));
    let (Type::Id(expected_id), Type::Id(found_id)) = (expected, found) else {
        return if expected == found { Ok(()) } else { Err(mismatch()) };
    };
    match (&contract.types[expected_id].kind, &resolve.types[found_id].kind) {
        (TypeDefKind::Record(expected), TypeDefKind::Record(found)) => {
            for (at, field) in expected.fields.iter().enumerate() {
                let path = format!("{path}.{}", field.name);
                match found.fields.get(at) {
                    Some(same) if same.name == field.name => compare(contract, field.ty, resolve, same.ty, &path)?,
                    Some(other) => return Err(Mismatch::new(path, &field.name, format!("a field `{}`", other.name))),
                    None => return Err(Mismatch::new(path, describe(contract, field.ty), "nothing")),
                }
            }
            match found.fields.get(expected.fields.len()) {
                Some(more) => {
                    Err(Mismatch::new(format!("{path}.{}", more.name), "nothing", describe(resolve, more.ty)))
                }
                None => Ok(()),
            }
        }
        (TypeDefKind::Enum(a), TypeDefKind::Enum(b)) => {
            let same = a.cases.iter().map(|case| &case.name).eq(b.cases.iter().map(|case| &case.name));
            if same { Ok(()) } else { Err(mismatch()) }
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
            _ => Err(mismatch()),
        },
        _ => Err(mismatch()),
    }
}
