//! A report as sections of pipeline.toml: a table per kind of event, which SQL fills.

use serde_json::Value;

use super::proposal::{KAFKA_TIMESTAMP, Proposal, ProposedColumn, toml_string};
use super::report::{KindOfEvent, Report};
use crate::names::is_plain_column;

/// More fields are written one per line.
const INLINE_FIELDS_MAX: usize = 4;
/// The width of the names in the SQL; comments come after them.
const COLUMN_WIDTH: usize = 32;

/// The sections of all kinds.
pub fn toml(report: &Report) -> String {
    report.kinds.iter().map(section).collect::<Vec<_>>().join("\n")
}

fn section(kind: &KindOfEvent) -> String {
    let table = Proposal::of(kind);
    let title = format!("# {} ({:.0} %)", kind.title(), kind.share * 100.0);
    // `input` needs a field.
    if table.columns.is_empty() {
        return format!("{title}\n# No table: these events have no field.\n");
    }
    let mut lines = vec![title, format!("[silver.{}]", kind.table), format!("match = {}", table.matching())];
    if table.event_time.is_none() {
        lines.push("# No field is a time in every event: the time that Kafka has for the record is used.".to_owned());
    }
    lines.push(format!("event_time = {}", toml_string(table.event_time_name())));
    if let Some(id) = table.event_id {
        lines.push(format!("dedup = {{ by = [{}], within = \"10m\" }}", toml_string(&table.columns[id].name)));
    }
    let input: Vec<_> = table.columns.iter().map(input_line).collect();
    let is_inline = input.len() <= INLINE_FIELDS_MAX;
    if is_inline {
        lines.push(format!("input = {{ {} }}", input.join(", ")));
    }
    lines.push(format!("sql = \"\"\"\n{}\"\"\"", multi_line(&sql(&table))));
    if !is_inline {
        lines.push(format!("\n[silver.{}.input]", kind.table));
        lines.extend(input);
    }
    lines.join("\n") + "\n"
}

/// `ts = "timestamp"`
fn input_line(column: &ProposedColumn) -> String {
    let key = &column.field.key;
    let is_bare =
        !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    let key = if is_bare { key.clone() } else { toml_string(key) };
    format!("{key} = {}", toml_string(&column.field.slot.to_string()))
}

fn sql(table: &Proposal<'_>) -> String {
    let mut selected: Vec<(String, Option<String>)> =
        table.columns.iter().enumerate().map(|(at, column)| (selected(column), comment(table, at))).collect();
    if table.event_time.is_none() {
        let column = format!("{KAFKA_TIMESTAMP} AS {}", table.kafka_time);
        selected.push((column, Some("the record's time in Kafka".to_owned())));
    }
    let last = selected.len() - 1;
    let line = |(at, (column, comment)): (usize, (String, Option<String>))| {
        let column = if at == last { column } else { column + "," };
        match comment {
            Some(comment) => format!("  {column:<COLUMN_WIDTH$}-- {comment}"),
            None => format!("  {column}"),
        }
    };
    let lines: Vec<_> = selected.into_iter().enumerate().map(line).collect();
    format!("SELECT\n{}\nFROM event", lines.join("\n"))
}

/// The column as the query selects it.
fn selected(column: &ProposedColumn) -> String {
    let (key, name) = (&column.field.key, &column.name);
    let key_in_sql = if is_plain_column(key) { key.clone() } else { quoted(key) };
    let name_in_sql = if is_plain_column(name) { name.clone() } else { quoted(name) };
    if key == name { key_in_sql } else { format!("{key_in_sql} AS {name_in_sql}") }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn comment(table: &Proposal<'_>, at: usize) -> Option<String> {
    let field = &table.columns[at].field;
    let looks_like = field.looks_like.clone()?;
    Some(match table.event_time == Some(at) && field.missing > 0 {
        true => format!("{looks_like}; {} events lack it and are rejected", field.missing),
        false => looks_like,
    })
}

/// A text between three quotes: all but line breaks is escaped as in a string.
fn multi_line(text: &str) -> String {
    let escaped = |line: &str| {
        let escaped = Value::from(line).to_string().replace('\u{7f}', "\\u007f");
        let escaped = escaped[1..escaped.len() - 1].replace("\\\"", "\"");
        // Two quotes in a row are no end.
        escaped.replace("\"\"\"", "\"\"\\\"")
    };
    text.split('\n').map(escaped).collect::<Vec<_>>().join("\n")
}
