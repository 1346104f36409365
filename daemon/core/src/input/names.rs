//! The names that JSON has for fields and cases whose WIT names differ: lines `/// @name("eventId")` in the table's WIT
//! text. A component's own types keep no comments, so they are held against the text.

use std::collections::HashMap;

use wit_parser::{InterfaceId, Resolve, TypeDefKind, UnresolvedPackageGroup};

use crate::schema::ContractError;

/// How a line with a name begins.
pub const NAME_LINE: &str = "@name(";

/// The names by type and field.
#[derive(Debug, Default)]
pub(super) struct Names(HashMap<(String, String), String>);

impl Names {
    /// The names in the WIT text of a table, whose types the component has in this interface.
    pub(super) fn of(text: Option<&str>, resolve: &Resolve, interface: InterfaceId) -> Result<Self, ContractError> {
        let mut names = HashMap::new();
        let Some(text) = text.filter(|text| text.contains(NAME_LINE)) else { return Ok(Self(names)) };
        let package = UnresolvedPackageGroup::parse("table.wit", text)
            .map_err(|(text, error)| ContractError::Wit(error.render(&text)))?
            .main;
        let interface = &resolve.interfaces[interface];
        let found = package.interfaces.iter().find(|(_, found)| found.name == interface.name);
        let Some((_, found)) = found else {
            return Err(ContractError::WitInterface(interface.name.clone().unwrap_or_default()));
        };
        let has = |name: &str, member: &str| {
            let kind = interface.types.get(name).map(|id| &resolve.types[*id].kind);
            match kind {
                Some(TypeDefKind::Record(record)) => record.fields.iter().any(|field| field.name == member),
                Some(TypeDefKind::Enum(cases)) => cases.cases.iter().any(|case| case.name == member),
                _ => false,
            }
        };
        for (name, id) in &found.types {
            let members: Vec<_> = match &package.types[*id].kind {
                TypeDefKind::Record(record) => record.fields.iter().map(|field| (&field.name, &field.docs)).collect(),
                TypeDefKind::Enum(cases) => cases.cases.iter().map(|case| (&case.name, &case.docs)).collect(),
                _ => Vec::new(),
            };
            for (member, docs) in members {
                let lines = docs.contents.iter().flat_map(|docs| docs.lines()).map(str::trim);
                for line in lines.filter(|line| line.starts_with("@name")) {
                    let given = line.strip_prefix("@name(\"").and_then(|rest| rest.strip_suffix("\")"));
                    let Some(given) = given.filter(|given| !given.is_empty() && !given.contains(['"', '\\'])) else {
                        let (field, line) = (format!("{name}.{member}"), line.to_owned());
                        return Err(ContractError::Name { field, line });
                    };
                    if !has(name, member) {
                        return Err(ContractError::NameOfNothing(format!("{name}.{member}")));
                    }
                    names.insert((name.clone(), member.clone()), given.to_owned());
                }
            }
        }
        Ok(Self(names))
    }

    pub(super) fn of_field(&self, record: &str, field: &str) -> Option<&str> {
        self.0.get(&(record.to_owned(), field.to_owned())).map(String::as_str)
    }
}
