//! A value of the parsed file, with its place.

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::error::ConfigError;

pub(super) type Key<'t> = &'t Spanned<DeString<'t>>;
pub(super) type Value<'t> = &'t Spanned<DeValue<'t>>;

/// The parser sorts the keys by name; people expect the order of the file.
pub(super) fn in_file_order<'t>(table: &'t DeTable<'t>) -> Vec<(Key<'t>, Value<'t>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// The error about a section or another named value that has the wrong type.
pub(super) fn wrong_type(title: &str, wanted: &str, value: Value) -> ConfigError {
    let mut error = expected(wanted, value);
    error.message = format!("[{title}] is {}, not {wanted}", kind(value));
    error
}

pub(super) fn kind(value: Value) -> &'static str {
    match value.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

pub(super) fn expected(wanted: &str, value: Value) -> ConfigError {
    let what = format!("expected {wanted}, found {}", kind(value));
    ConfigError::new(value.span(), what, format!("expected {wanted}"), None)
}
