//! The names that JSON has for fields and cases whose WIT names differ: lines `/// @name("eventId")` in the table's WIT
//! text. A component's own types keep no comments.

use std::collections::HashMap;

use wit_parser::{TypeDefKind, UnresolvedPackageGroup};

use crate::schema::ContractError;

/// The names by type and field.
#[derive(Debug, Default)]
pub(super) struct Names(HashMap<(String, String), String>);

impl Names {
    /// The names in the WIT text of a table. A text that does not parse, or has no such interface, has none.
    pub(super) fn of(text: Option<&str>, interface: &str) -> Result<Self, ContractError> {
        let mut names = HashMap::new();
        let package =
            text.and_then(|text| UnresolvedPackageGroup::parse("table.wit", text).ok()).map(|group| group.main);
        let Some(package) = package else { return Ok(Self(names)) };
        let found = package.interfaces.iter().find(|(_, found)| found.name.as_deref() == Some(interface));
        for (name, id) in found.iter().flat_map(|(_, interface)| &interface.types) {
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
