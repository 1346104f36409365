//! Reads one value of the file into one value of the pipeline, and reports what it cannot read.

use std::collections::BTreeMap;
use std::num::IntErrorKind;
use std::ops::RangeInclusive;

use toml::de::{DeInteger, DeValue};

use super::env;
use super::error::ConfigError;
use super::literal::{self, Fault};
use super::pipeline::{Compression, Located, SqlInput, TableName};
use super::place::place_in_string;
use super::renamed;
use super::value::{Key, Value, expected, in_file_order};
use super::walk::Walk;
use crate::input::{InputField, input_wit};
use crate::wit_text::can_be_named;

const NAME_LABEL: &str = "expected a lower-case letter, then lower-case letters, digits and `_`, at most 63 characters";

/// A string that is not empty.
pub(super) fn string(walk: &mut Walk, value: Value) -> Option<String> {
    let text = any_string(walk, value)?;
    not_empty(walk, value, text.to_owned())
}

/// As `string`, with its place.
pub(super) fn located(walk: &mut Walk, value: Value) -> Option<Located<String>> {
    Some(Located::new(string(walk, value)?, value.span()))
}

/// As `string`, with the variables replaced by their values.
pub(super) fn expanded(walk: &mut Walk, value: Value) -> Option<String> {
    let text = any_string(walk, value)?;
    let text = expand(walk, value, text)?;
    not_empty(walk, value, text)
}

pub(super) fn path(walk: &mut Walk, value: Value) -> Option<Located<String>> {
    let path = located(walk, value)?;
    if path.contains("${") {
        let help = "variables work in [source], [source.kafka], [http], [notify] and `settings`: write the path itself";
        let what = "a path cannot contain variables";
        walk.report(ConfigError::new(value.span(), what, "would be a folder of this name", Some(help.to_owned())));
        return None;
    }
    if path.contains("://") {
        let help = "tables are stored in the local file system: write a folder, such as \"data/silver/page_view\"";
        let what = "object stores are not supported yet";
        walk.report(ConfigError::new(value.span(), what, "expected the path of a folder", Some(help.to_owned())));
        return None;
    }
    Some(path)
}

/// A string, with variables, that `parse` understands.
pub(super) fn parsed<T>(parse: impl Fn(&str) -> Result<T, Fault>) -> impl FnOnce(&mut Walk, Value<'_>) -> Option<T> {
    move |walk, value| {
        let text = expanded(walk, value)?;
        parse(&text).map_err(|fault| report_fault(walk, value, fault)).ok()
    }
}

pub(super) fn compression(walk: &mut Walk, value: Value) -> Option<Compression> {
    let text = string(walk, value)?;
    literal::compression(&text).map_err(|fault| report_fault(walk, value, fault)).ok()
}

/// One of a few words.
pub(super) fn choice<T: Copy, const N: usize>(
    key: &'static str,
    choices: [(&'static str, T); N],
) -> impl FnOnce(&mut Walk, Value<'_>) -> Option<T> {
    parsed(move |text| {
        literal::choice(key, text, &choices).map_err(|fault| match renamed::current_word(key, text) {
            Some(word) => Fault { help: Some(format!("`{text}` was renamed to `{word}`")), ..fault },
            None => fault,
        })
    })
}

pub(super) fn count(bounds: RangeInclusive<u64>) -> impl FnOnce(&mut Walk, Value<'_>) -> Option<usize> {
    move |walk, value| integer(walk, value, &bounds).and_then(|count| usize::try_from(count).ok())
}

pub(super) fn boolean(walk: &mut Walk, value: Value) -> Option<bool> {
    let boolean = value.get_ref().as_bool();
    if boolean.is_none() {
        walk.report(expected("true or false", value).with_help("write `true` or `false`, without quotes"));
    }
    boolean
}

/// A size such as `"64MiB"`, in bytes.
pub(super) fn size(bounds: RangeInclusive<u64>) -> impl FnOnce(&mut Walk, Value<'_>) -> Option<usize> {
    move |walk, value| {
        let size = match value.get_ref() {
            DeValue::Integer(integer) => whole(walk, value, integer)?,
            DeValue::String(text) => literal::size(text).map_err(|fault| report_fault(walk, value, fault)).ok()?.into(),
            _ => {
                walk.report(expected(literal::A_SIZE, value).with_help(literal::SIZE_HELP));
                return None;
            }
        };
        let Some(bytes) = u64::try_from(size).ok().filter(|size| bounds.contains(size)) else {
            let (least, most) = (literal::format_size(*bounds.start()), literal::format_size(*bounds.end()));
            let label = format!("expected \"{least}\" to \"{most}\"");
            walk.report(ConfigError::new(value.span(), "this size is out of bounds", label, None));
            return None;
        };
        if let DeValue::Integer(_) = value.get_ref() {
            report_fault(walk, value, literal::size_without_unit(bytes));
            return None;
        }
        usize::try_from(bytes).ok()
    }
}

/// A duration such as `"10m"`, in milliseconds.
pub(super) fn duration(bounds: RangeInclusive<u64>) -> impl FnOnce(&mut Walk, Value<'_>) -> Option<u64> {
    move |walk, value| {
        let parsed = match value.get_ref() {
            DeValue::String(text) => literal::duration(text),
            DeValue::Integer(integer) => match u64::try_from(whole(walk, value, integer)?) {
                Ok(number) => Err(literal::duration_without_unit(&number.to_string())),
                Err(_) => Ok(u64::MAX),
            },
            _ => {
                walk.report(expected(literal::A_DURATION, value).with_help(literal::DURATION_HELP));
                return None;
            }
        };
        let duration = parsed.map_err(|fault| report_fault(walk, value, fault)).ok()?;
        if !bounds.contains(&duration) {
            let (least, most) = (literal::format_duration(*bounds.start()), literal::format_duration(*bounds.end()));
            let label = format!("expected \"{least}\" to \"{most}\"");
            walk.report(ConfigError::new(value.span(), "this duration is out of bounds", label, None));
            return None;
        }
        Some(duration)
    }
}

/// A percentage such as `"5%"`, as a number from 0 to 1.
pub(super) fn percent(walk: &mut Walk, value: Value) -> Option<f64> {
    let Some(text) = value.get_ref().as_str() else {
        walk.report(expected(literal::A_PERCENTAGE, value).with_help(literal::PERCENTAGE_HELP));
        return None;
    };
    literal::percent(text).map_err(|fault| report_fault(walk, value, fault)).ok()
}

/// Names of columns: at least one, none twice.
pub(super) fn names(walk: &mut Walk, value: Value) -> Option<Located<Vec<String>>> {
    let names = list(walk, value, "a list of names", "write a list of column names, such as [\"event_id\"]", string)?;
    Some(Located::new(names, value.span()))
}

/// At least one text, none twice.
pub(super) fn list(
    walk: &mut Walk,
    value: Value,
    wanted: &str,
    help: &str,
    mut read: impl FnMut(&mut Walk, Value<'_>) -> Option<String>,
) -> Option<Vec<String>> {
    let DeValue::Array(items) = value.get_ref() else {
        walk.report(expected(wanted, value).with_help(help));
        return None;
    };
    let mut texts = Vec::new();
    for item in items.iter() {
        let text = read(walk, item)?;
        if texts.contains(&text) {
            walk.report(ConfigError::new(item.span(), format!("`{text}` is listed twice"), "the second time", None));
            return None;
        }
        texts.push(text);
    }
    if texts.is_empty() {
        let label = if wanted == "a list of names" { "expected a name" } else { "expected at least one" };
        walk.report(ConfigError::new(value.span(), "this list is empty", label, Some(help.to_owned())));
        return None;
    }
    Some(texts)
}

/// Strings by name; numbers and booleans become strings as they are written.
pub(super) fn settings(walk: &mut Walk, value: Value) -> Option<BTreeMap<String, String>> {
    let DeValue::Table(table) = value.get_ref() else {
        walk.report(expected("a table", value).with_help("write settings = { name = \"value\" }"));
        return None;
    };
    let mut settings = BTreeMap::new();
    for (key, value) in in_file_order(table) {
        if let Some(text) = scalar(walk, value) {
            settings.insert(key.get_ref().to_string(), text);
        }
    }
    Some(settings)
}

pub(super) fn references(walk: &mut Walk, value: Value) -> Option<BTreeMap<String, Located<String>>> {
    let DeValue::Table(table) = value.get_ref() else {
        walk.report(
            expected("a table", value).with_help("write reference = { products = \"data/reference/products.csv\" }"),
        );
        return None;
    };
    let mut references = BTreeMap::new();
    for (key, value) in in_file_order(table) {
        if let Some(path) = path(walk, value) {
            references.insert(key.get_ref().to_string(), path);
        }
    }
    Some(references)
}

/// The columns of the table `event`: types by key, or the path of a WIT file.
pub(super) fn input(walk: &mut Walk, value: Value) -> Option<Located<SqlInput>> {
    let DeValue::Table(table) = value.get_ref() else {
        if value.get_ref().is_str() {
            let path = path(walk, value)?;
            return Some(Located::new(SqlInput::File(path.value), value.span()));
        }
        let help = "write input = { event_id = \"string\", ts = \"timestamp\" }, or the path of a WIT file";
        walk.report(expected("a table of types", value).with_help(help));
        return None;
    };
    let (mut fields, mut values) = (Vec::new(), Vec::new());
    for (key, value) in in_file_order(table) {
        let name: &str = key.get_ref();
        if !can_be_named(name) {
            let label = "expected a key without quotes, backslashes and control characters";
            let what = "this key cannot be a field of the input";
            let help = "take the object that has it as `json`, or as `map<T>`".to_owned();
            walk.report(ConfigError::new(key.span(), what, label, Some(help)));
            return None;
        }
        fields.push(InputField { key: name, ty: any_string(walk, value)?, comment: comment_after(walk.text, value) });
        values.push(value);
    }
    if fields.is_empty() {
        let help = "name the fields that the SQL needs, such as { event_id = \"string\", ts = \"timestamp\" }";
        walk.report(ConfigError::new(value.span(), "this input is empty", "expected a field", Some(help.to_owned())));
        return None;
    }
    match input_wit(&fields) {
        Ok(wit) => Some(Located::new(SqlInput::Fields(wit), value.span())),
        Err((number, error)) => {
            let place = place_in_string(walk.text, &values[number].span(), &error.at);
            let what = format!("the type of `{}` is not valid", fields[number].key);
            walk.report(ConfigError::new(place, what, format!("expected {}", error.expected), error.help));
            None
        }
    }
}

/// The comment that follows a value on its line.
fn comment_after<'t>(text: &'t str, value: Value) -> Option<&'t str> {
    let line = text.get(value.span().end..)?.lines().next()?;
    let comment = line.trim_start().trim_start_matches(',').trim_start().strip_prefix('#')?.trim();
    (!comment.is_empty() && !comment.starts_with('@')).then_some(comment)
}

/// A string, with variables, or a number or a boolean as text. May be empty.
pub(super) fn scalar(walk: &mut Walk, value: Value) -> Option<String> {
    match value.get_ref() {
        DeValue::String(text) => expand(walk, value, text),
        DeValue::Boolean(boolean) => Some(boolean.to_string()),
        DeValue::Float(float) if float.as_str().parse::<f64>().is_ok() => Some(float.as_str().to_owned()),
        DeValue::Float(_) => not_a_number(walk, value),
        DeValue::Integer(integer) => {
            let number = i64::try_from(whole(walk, value, integer)?).ok();
            if number.is_none() {
                let help = Some("put it in quotes".to_owned());
                walk.report(ConfigError::new(
                    value.span(),
                    "this integer is too large",
                    "expected at most 64 bits",
                    help,
                ));
            }
            number.map(|number| number.to_string())
        }
        _ => {
            walk.report(expected("a string, a number or a boolean", value));
            None
        }
    }
}

pub(super) fn panel_name(walk: &mut Walk, key: Key) -> Option<String> {
    name_of_section(walk, key, "panel name", "the dashboard shows the `title`")
}

pub(super) fn alert_name(walk: &mut Walk, key: Key) -> Option<String> {
    name_of_section(walk, key, "name of an alert", "people see its `summary`")
}

pub(super) fn token_name(walk: &mut Walk, key: Key) -> Option<String> {
    name_of_section(walk, key, "name of a token", "the log shows it with each change")
}

pub(super) fn receiver_name(walk: &mut Walk, key: Key) -> Option<String> {
    name_of_section(walk, key, "name of a receiver", "alerts name it in `notify`")
}

/// A name as that of a table, but no name is reserved.
fn name_of_section(walk: &mut Walk, key: Key, what: &str, usage: &str) -> Option<String> {
    let name = key.get_ref();
    if TableName::is_name(name) {
        return Some(name.to_string());
    }
    let help = format!("use a name such as `{}`; {usage}", literal::as_table_name(name));
    walk.report(ConfigError::new(key.span(), format!("`{name}` is not a valid {what}"), NAME_LABEL, Some(help)));
    None
}

pub(super) fn table_name(walk: &mut Walk, key: Key) -> Option<TableName> {
    let name = TableName::new(key.get_ref());
    if name.is_none() {
        let reserved = TableName::RESERVED.contains(&&**key.get_ref());
        let (label, help) = match reserved {
            true => ("silverd uses this name", format!("use another name, such as `{}_events`", key.get_ref())),
            false => (NAME_LABEL, format!("use a name such as `{}`", literal::as_table_name(key.get_ref()))),
        };
        let what = format!("`{}` is not a valid table name", key.get_ref());
        walk.report(ConfigError::new(key.span(), what, label, Some(help)));
    }
    name
}

fn any_string<'t>(walk: &mut Walk, value: Value<'t>) -> Option<&'t str> {
    let text = value.get_ref().as_str();
    if text.is_none() {
        let error = expected("a string", value);
        let quotable = matches!(value.get_ref(), DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_));
        walk.report(if quotable { error.with_help("put it in quotes") } else { error });
    }
    text
}

fn not_empty(walk: &mut Walk, value: Value, text: String) -> Option<String> {
    if text.trim().is_empty() {
        let from_variable = value.get_ref().as_str().is_some_and(|written| written.contains("${"));
        let (label, help) = match from_variable {
            true => ("is empty after its variables are replaced", "set the variable, or give a default: `${NAME:-…}`"),
            false => ("expected some text", "fill it in, or remove the line if the key has a default"),
        };
        walk.report(ConfigError::new(value.span(), "this string is empty", label, Some(help.to_owned())));
        return None;
    }
    Some(text)
}

fn integer(walk: &mut Walk, value: Value, bounds: &RangeInclusive<u64>) -> Option<u64> {
    let DeValue::Integer(integer) = value.get_ref() else {
        let help = format!("write a number from {} to {}, without quotes", bounds.start(), bounds.end());
        walk.report(expected("an integer", value).with_help(help));
        return None;
    };
    let within = u64::try_from(whole(walk, value, integer)?).ok().filter(|number| bounds.contains(number));
    if within.is_none() {
        let label = format!("expected {} to {}", bounds.start(), bounds.end());
        walk.report(ConfigError::new(value.span(), "this number is out of bounds", label, None));
    }
    within
}

/// A number that is too large for the type is out of all bounds, too. The parser does not check the digits.
fn whole(walk: &mut Walk, value: Value, integer: &DeInteger) -> Option<i128> {
    match i128::from_str_radix(integer.as_str(), integer.radix()).map_err(|error| *error.kind()) {
        Ok(number) => Some(number),
        Err(IntErrorKind::PosOverflow) => Some(i128::MAX),
        Err(IntErrorKind::NegOverflow) => Some(i128::MIN),
        Err(_) => not_a_number(walk, value),
    }
}

fn not_a_number<T>(walk: &mut Walk, value: Value) -> Option<T> {
    let help = "write digits only, or put the value in quotes if it is text".to_owned();
    walk.report(ConfigError::new(value.span(), "this is not a number", "expected digits", Some(help)));
    None
}

fn expand(walk: &mut Walk, value: Value, text: &str) -> Option<String> {
    let faults = match env::expand(text, walk.env) {
        Ok(expanded) => return Some(expanded),
        Err(faults) => faults,
    };
    let span = value.span();
    for fault in faults {
        let place = place_in_string(walk.text, &span, &fault.at);
        walk.report(ConfigError::new(place, fault.message, fault.label, Some(fault.help)));
    }
    None
}

fn report_fault(walk: &mut Walk, value: Value, fault: Fault) {
    walk.report(ConfigError::new(value.span(), fault.message, fault.label, fault.help));
}
