//! From one value of the tree to one value of the pipeline; what cannot be read is told to the walk.

use std::collections::BTreeMap;
use std::num::IntErrorKind;
use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeInteger, DeValue};

use super::env;
use super::literal::{self, Fault};
use super::mistake::Mistake;
use super::pipeline::{Compression, Located, TableName};
use super::section::{Key, in_file_order};
use super::walk::Walk;

pub(super) type Value<'t> = &'t Spanned<DeValue<'t>>;

/// A string with something in it.
pub(super) fn string(walk: &mut Walk, value: Value) -> Option<String> {
    let text = any_string(walk, value)?;
    not_empty(walk, value, text.to_owned())
}

/// As `string`, with the place.
pub(super) fn located(walk: &mut Walk, value: Value) -> Option<Located<String>> {
    Some(Located::new(string(walk, value)?, value.span()))
}

/// As `string`, with the variables' values put in.
pub(super) fn expanded(walk: &mut Walk, value: Value) -> Option<String> {
    let text = any_string(walk, value)?;
    let text = expand(walk, value, text)?;
    not_empty(walk, value, text)
}

pub(super) fn path(walk: &mut Walk, value: Value) -> Option<Located<String>> {
    let path = located(walk, value)?;
    if path.contains("${") {
        let help = "only [source], [source.kafka] and settings take variables: write the path itself";
        let what = "a path takes no variables";
        walk.tell(Mistake::new(value.span(), what, "would be a folder of this name", Some(help.to_owned())));
        return None;
    }
    if path.contains("://") {
        let help =
            "tables live on a file system that this machine has: name a folder, such as \"data/silver/page_view\"";
        let what = "object stores are not supported yet";
        walk.tell(Mistake::new(value.span(), what, "expected a path of a folder", Some(help.to_owned())));
        return None;
    }
    Some(path)
}

/// A string of the environment's or the file's, in a form that `parse` understands.
pub(super) fn parsed<T>(parse: impl Fn(&str) -> Result<T, Fault>) -> impl FnOnce(&mut Walk, Value<'_>) -> Option<T> {
    move |walk, value| {
        let text = expanded(walk, value)?;
        parse(&text).map_err(|fault| tell(walk, value, fault)).ok()
    }
}

pub(super) fn compression(walk: &mut Walk, value: Value) -> Option<Compression> {
    let text = string(walk, value)?;
    literal::compression(&text).map_err(|fault| tell(walk, value, fault)).ok()
}

/// One of a few words.
pub(super) fn choice<T: Copy, const N: usize>(
    key: &'static str,
    choices: [(&'static str, T); N],
) -> impl FnOnce(&mut Walk, Value<'_>) -> Option<T> {
    parsed(move |text| literal::choice(key, text, &choices))
}

pub(super) fn milliseconds(bounds: RangeInclusive<u64>) -> impl FnOnce(&mut Walk, Value<'_>) -> Option<u64> {
    move |walk, value| integer(walk, value, &bounds, " milliseconds")
}

pub(super) fn count(bounds: RangeInclusive<u64>) -> impl FnOnce(&mut Walk, Value<'_>) -> Option<usize> {
    move |walk, value| integer(walk, value, &bounds, "").and_then(|count| usize::try_from(count).ok())
}

/// Bytes: an integer, or a string such as `"64MiB"`.
pub(super) fn size(bounds: RangeInclusive<u64>) -> impl FnOnce(&mut Walk, Value<'_>) -> Option<usize> {
    move |walk, value| {
        let size = match value.get_ref() {
            DeValue::Integer(integer) => whole(walk, value, integer)?,
            DeValue::String(text) => literal::size(text).map_err(|fault| tell(walk, value, fault)).ok()?.into(),
            _ => {
                walk.tell(
                    expected("a size", value).with_help("write a number of bytes, or a string such as \"64MiB\""),
                );
                return None;
            }
        };
        let within = u64::try_from(size).ok().filter(|size| bounds.contains(size));
        if within.is_none() {
            let (least, most) = (literal::format_size(*bounds.start()), literal::format_size(*bounds.end()));
            let label = format!("expected {least} to {most}");
            walk.tell(Mistake::new(value.span(), "this size is out of bounds", label, None));
        }
        usize::try_from(within?).ok()
    }
}

/// A span of time such as `"10m"`, in milliseconds.
pub(super) fn duration(bounds: RangeInclusive<u64>) -> impl FnOnce(&mut Walk, Value<'_>) -> Option<u64> {
    move |walk, value| {
        let Some(text) = value.get_ref().as_str() else {
            walk.tell(expected("a span of time", value).with_help("write a string such as \"10m\""));
            return None;
        };
        let span = literal::duration(text).map_err(|fault| tell(walk, value, fault)).ok()?;
        if !bounds.contains(&span) {
            let (least, most) = (literal::format_duration(*bounds.start()), literal::format_duration(*bounds.end()));
            let label = format!("expected {least} to {most}");
            walk.tell(Mistake::new(value.span(), "this span of time is out of bounds", label, None));
            return None;
        }
        Some(span)
    }
}

/// A share such as `"5%"`, as a number up to one.
pub(super) fn percent(walk: &mut Walk, value: Value) -> Option<f64> {
    let Some(text) = value.get_ref().as_str() else {
        walk.tell(expected("a share", value).with_help("write a string such as \"5%\""));
        return None;
    };
    literal::percent(text).map_err(|fault| tell(walk, value, fault)).ok()
}

/// At least one name, none twice.
pub(super) fn names(walk: &mut Walk, value: Value) -> Option<Located<Vec<String>>> {
    let help = "write a list of column names, such as [\"event_id\"]";
    let DeValue::Array(items) = value.get_ref() else {
        walk.tell(expected("a list of names", value).with_help(help));
        return None;
    };
    let mut names = Vec::new();
    for item in items.iter() {
        let name = string(walk, item)?;
        if names.contains(&name) {
            walk.tell(Mistake::new(item.span(), format!("`{name}` stands here twice"), "the second", None));
            return None;
        }
        names.push(name);
    }
    if names.is_empty() {
        walk.tell(Mistake::new(value.span(), "this list is empty", "expected a name", Some(help.to_owned())));
        return None;
    }
    Some(Located::new(names, value.span()))
}

/// Names with strings; numbers and booleans are taken as they are written.
pub(super) fn settings(walk: &mut Walk, value: Value) -> Option<BTreeMap<String, String>> {
    let DeValue::Table(table) = value.get_ref() else {
        walk.tell(expected("a table", value).with_help("write settings = { name = \"value\" }"));
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
        walk.tell(
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
                walk.tell(Mistake::new(value.span(), "this integer is too large", "expected 64 bits", help));
            }
            number.map(|number| number.to_string())
        }
        _ => {
            walk.tell(expected("a string, a number or a boolean", value));
            None
        }
    }
}

/// Panels have names of the same letters as tables, and may have those that tables may not.
pub(super) fn panel_name(walk: &mut Walk, key: Key) -> Option<String> {
    let name = key.get_ref();
    if TableName::is_name(name) {
        return Some(name.to_string());
    }
    let help = format!("a name like `{}` would do; people see the `title`", literal::as_table_name(name));
    let label = "expected a small letter, then small letters, digits and `_`, 63 at most";
    walk.tell(Mistake::new(key.span(), format!("`{name}` cannot be the name of a panel"), label, Some(help)));
    None
}

pub(super) fn table_name(walk: &mut Walk, key: Key) -> Option<TableName> {
    let name = TableName::new(key.get_ref());
    if name.is_none() {
        let reserved = TableName::RESERVED.contains(&&**key.get_ref());
        let (label, help) = match reserved {
            true => ("silverd uses this name itself", format!("take another, such as `{}_events`", key.get_ref())),
            false => (
                "expected a small letter, then small letters, digits and `_`, 63 at most",
                format!("a name like `{}` would do", literal::as_table_name(key.get_ref())),
            ),
        };
        let what = format!("`{}` cannot be the name of a table", key.get_ref());
        walk.tell(Mistake::new(key.span(), what, label, Some(help)));
    }
    name
}

/// The mistake of a section, or another named thing, that is of another type.
pub(super) fn wrong_type(title: &str, wanted: &str, value: Value) -> Mistake {
    let mut mistake = expected(wanted, value);
    mistake.message = format!("[{title}] is {}, not {wanted}", kind(value));
    mistake
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

fn expected(wanted: &str, value: Value) -> Mistake {
    let what = format!("expected {wanted}, found {}", kind(value));
    Mistake::new(value.span(), what, format!("expected {wanted}"), None)
}

fn any_string<'t>(walk: &mut Walk, value: Value<'t>) -> Option<&'t str> {
    let text = value.get_ref().as_str();
    if text.is_none() {
        let mistake = expected("a string", value);
        let quotable = matches!(value.get_ref(), DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_));
        walk.tell(if quotable { mistake.with_help("put it in quotes") } else { mistake });
    }
    text
}

fn not_empty(walk: &mut Walk, value: Value, text: String) -> Option<String> {
    if text.trim().is_empty() {
        let from_variable = value.get_ref().as_str().is_some_and(|written| written.contains("${"));
        let (label, help) = match from_variable {
            true => ("is empty once its variables are put in", "set the variable, or give a default: `${NAME:-…}`"),
            false => ("expected some text", "fill it in, or take the line out if the key has a default"),
        };
        walk.tell(Mistake::new(value.span(), "this string is empty", label, Some(help.to_owned())));
        return None;
    }
    Some(text)
}

fn integer(walk: &mut Walk, value: Value, bounds: &RangeInclusive<u64>, unit: &str) -> Option<u64> {
    let DeValue::Integer(integer) = value.get_ref() else {
        let help = format!("write a number from {} to {}{unit}, without quotes", bounds.start(), bounds.end());
        walk.tell(expected("an integer", value).with_help(help));
        return None;
    };
    let within = u64::try_from(whole(walk, value, integer)?).ok().filter(|number| bounds.contains(number));
    if within.is_none() {
        let label = format!("expected {} to {}{unit}", bounds.start(), bounds.end());
        walk.tell(Mistake::new(value.span(), "this number is out of bounds", label, None));
    }
    within
}

/// What is too large for the type is out of all bounds, too; the parser leaves it to us to look at the digits.
fn whole(walk: &mut Walk, value: Value, integer: &DeInteger) -> Option<i128> {
    match i128::from_str_radix(integer.as_str(), integer.radix()).map_err(|error| *error.kind()) {
        Ok(number) => Some(number),
        Err(IntErrorKind::PosOverflow) => Some(i128::MAX),
        Err(IntErrorKind::NegOverflow) => Some(i128::MIN),
        Err(_) => not_a_number(walk, value),
    }
}

fn not_a_number<T>(walk: &mut Walk, value: Value) -> Option<T> {
    let help = "write digits only, or put the value in quotes if it is a text".to_owned();
    walk.tell(Mistake::new(value.span(), "this is not a number", "expected digits", Some(help)));
    None
}

fn expand(walk: &mut Walk, value: Value, text: &str) -> Option<String> {
    let faults = match env::expand(text, walk.env) {
        Ok(expanded) => return Some(expanded),
        Err(faults) => faults,
    };
    let span = value.span();
    // Bytes of the string are bytes of the text only where the string was written without escapes.
    let start = walk.text.get(span.clone()).and_then(|raw| raw.find(text)).map(|quotes| span.start + quotes);
    for fault in faults {
        let place = start.map_or(span.clone(), |start| start + fault.at.start..start + fault.at.end);
        walk.tell(Mistake::new(place, fault.message, fault.label, Some(fault.help)));
    }
    None
}

fn tell(walk: &mut Walk, value: Value, fault: Fault) {
    walk.tell(Mistake::new(value.span(), fault.message, fault.label, fault.help));
}
