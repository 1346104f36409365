//! A report for a terminal, within 100 columns.

use serde_json::Value;

use super::report::{Count, Field, JsonType, KindOfEvent, MinMax, Report, counted};
use super::{Place, Unread};
use crate::plain_text::cut;

const COLUMNS: usize = 100;
const PATH_COLUMNS: usize = 28;
const TYPE_COLUMNS: usize = 22;
const INDENT: &str = "      ";

/// The report as lines of text.
pub fn text(report: &Report) -> String {
    let mut lines = vec![format!("{}, {} of them JSON objects", counted(report.events), report.objects)];
    lines.extend(report.notes.iter().map(|note| format!("! {note}")));
    lines.extend(report.not_objects.iter().flat_map(not_objects));
    lines.push(format!("keys: {}", of_records(report.keys)));
    for header in &report.headers {
        lines.push(format!("header {}: {}", header.name, of_records(header.records)));
    }
    if report.events_of_other_kinds > 0 {
        let count = counted(report.events_of_other_kinds);
        lines.push(format!("{count} are of further kinds, which were not looked at: choose another field with --by"));
    }
    for kind in &report.kinds {
        lines.push(String::new());
        add_kind(&mut lines, kind);
    }
    let is_masked =
        report.is_masked && report.kinds.iter().flat_map(|kind| &kind.fields).any(|field| field.is_personal);
    if is_masked {
        lines.push(String::new());
        lines.push("What looks like a person's data is masked: --show-values shows it.".to_owned());
    }
    lines.iter().map(|line| cut(line.chars(), COLUMNS) + "\n").collect()
}

fn of_records(count: Count) -> String {
    format!("{} of the records", percent(count.share))
}

fn not_objects(unread: &Unread) -> Vec<String> {
    let first = format!("  {} are {}: the first at {}", unread.count, unread.reason.name(), place(&unread.example));
    let error = unread.error.iter().map(|error| format!("{INDENT}{error}"));
    std::iter::once(first).chain(error).collect()
}

fn place(place: &Place) -> String {
    match (&place.topic, place.partition) {
        (Some(topic), Some(partition)) => format!("{topic}, partition {partition}, offset {}", place.offset),
        _ => format!("line {}", place.offset),
    }
}

fn add_kind(lines: &mut Vec<String>, kind: &KindOfEvent) {
    let percent = percent(kind.share);
    lines.push(format!("[{}] {} ({percent})", kind.table, kind.title()));
    for field in &kind.fields {
        lines.push(first_line(field));
        lines.extend(details(field));
    }
    if kind.values_left_out > 0 {
        let count = kind.values_left_out;
        lines.push(format!("  {count} values were not looked at: too deep, or under too many different keys"));
    }
}

/// Path, type, what it looks like, and how often there is no value.
fn first_line(field: &Field) -> String {
    let mut notes: Vec<String> = field.looks_like.iter().cloned().collect();
    notes.extend(field.is_personal.then(|| "a person's data".to_owned()));
    notes.extend((field.null.count > 0).then(|| format!("{} null", percent(field.null.share))));
    notes.extend((field.absent.count > 0).then(|| format!("{} absent", percent(field.absent.share))));
    let line = format!(
        "  {}{}{}",
        padded(&field.path, PATH_COLUMNS),
        padded(&short_type(&field.ty), TYPE_COLUMNS),
        notes.join(", ")
    );
    line.trim_end().to_owned()
}

fn details(field: &Field) -> Vec<String> {
    let mut facts = Vec::new();
    if field.json_types.len() > 1 {
        let ty = |ty: &JsonType| format!("{} {}", percent(ty.values.share), ty.name);
        facts.push(field.json_types.iter().map(ty).collect::<Vec<_>>().join(" + "));
    }
    let has_values = field.values.is_some() && !is_all_different(field);
    if let Some(distinct) = field.distinct.filter(|_| !has_values) {
        let at_least = if distinct.is_at_least { "at least " } else { "" };
        facts.push(format!("{at_least}{} distinct", distinct.count));
    }
    let range = |range: &MinMax, unit: &str| match range.min == range.max {
        true => format!("{}{unit}", plain(&range.min)),
        false => format!("{} to {}{unit}", plain(&range.min), plain(&range.max)),
    };
    match (&field.times, &field.numbers) {
        (Some(times), _) => facts.push(range(times, "")),
        (None, Some(numbers)) => facts.push(range(numbers, "")),
        (None, None) => facts.extend(field.lengths.as_ref().map(|lengths| range(lengths, " characters"))),
    }
    facts.extend(field.items.as_ref().map(|items| range(items, " items")));
    let mut lines = Vec::new();
    if !facts.is_empty() {
        lines.push(format!("{INDENT}{}", facts.join("; ")));
    }
    match field.values.as_ref().filter(|_| has_values) {
        Some(values) => {
            let values = values.iter().map(|value| format!("{} ({})", value.value, value.count));
            lines.extend(wrapped("", values));
        }
        None => lines.extend(wrapped("e.g. ", field.examples.iter().map(Value::to_string))),
    }
    lines.extend(field.remarks.iter().map(|remark| format!("{INDENT}! {remark}")));
    lines
}

fn is_all_different(field: &Field) -> bool {
    field.values.iter().flatten().all(|value| value.count == 1)
}

/// The items with commas between them, on as many lines as they need.
fn wrapped(title: &str, items: impl Iterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for item in items {
        match lines.last_mut() {
            Some(line) if line.chars().count() + ", ".len() + item.chars().count() < COLUMNS => {
                line.push_str(", ");
                line.push_str(&item);
            }
            Some(line) => {
                line.push(',');
                lines.push(format!("{INDENT}{}{item}", " ".repeat(title.len())));
            }
            None => lines.push(format!("{INDENT}{title}{item}")),
        }
    }
    lines
}

/// The type, without the fields of a record: they have lines of their own.
fn short_type(ty: &str) -> String {
    match (ty.find('{'), ty.rfind('}')) {
        (Some(start), Some(end)) => format!("{}{{…{}", &ty[..start], &ty[end..]),
        _ => ty.to_owned(),
    }
}

/// A text without quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A share that is not 0 or 1 is never shown as such.
fn percent(share: f64) -> String {
    match share * 100.0 {
        percent if percent > 0.0 && percent < 1.0 => "<1 %".to_owned(),
        percent if percent > 99.0 && percent < 100.0 => ">99 %".to_owned(),
        percent => format!("{percent:.0} %"),
    }
}

/// The text in a column, with at least one blank after it.
fn padded(text: &str, columns: usize) -> String {
    let text = cut(text.chars(), columns - 1);
    let blanks = columns - text.chars().count();
    text + &" ".repeat(blanks)
}
