//! Lines of WIT, as silverd writes them for people and reads them itself.

use std::collections::BTreeSet;

use crate::names::{in_wit, key_of_wit};

/// The types of the contract that a field can have.
const CONTRACT_TYPES: [&str; 4] = ["date", "json", "money", "timestamp"];

/// The type of the contract with this name.
pub(crate) fn contract_type(name: &str) -> Option<&'static str> {
    CONTRACT_TYPES.into_iter().find(|known| *known == name)
}

/// The line with which an interface uses types of the contract; empty if it uses none.
pub(crate) fn use_line(types: &BTreeSet<&'static str>) -> String {
    if types.is_empty() {
        return String::new();
    }
    let types: Vec<_> = types.iter().copied().collect();
    format!("  use silverd:pipeline/types@0.2.0.{{{}}};\n\n", types.join(", "))
}

/// A comment, line by line.
pub(crate) fn comment(indent: &str, text: &str) -> String {
    text.lines().map(|line| format!("{indent}/// {line}\n")).collect()
}

/// A field of a record, with its comment, and with its key if the name does not say it. The name has no `%`.
pub(crate) fn field(name: &str, key: &str, ty: &str, doc: Option<&str>) -> String {
    let doc = doc.map(|doc| comment("    ", doc)).unwrap_or_default();
    let key = if key_of_wit(name) == key { String::new() } else { format!("    /// @name(\"{key}\")\n") };
    format!("{doc}{key}    {}: {ty},\n", in_wit(name))
}

/// Whether a line `@name` can have the key.
pub(crate) fn can_be_named(key: &str) -> bool {
    !key.is_empty() && !key.contains(['"', '\\']) && !key.chars().any(char::is_control)
}
