//! What a new plugin consists of besides its names: an example that its author replaces, or what real events have.

use silverd_core::infer::PluginParts;

use super::scaffold::Names;

/// The parts of the templates that depend on the events.
pub(super) struct Content {
    /// The records of the WIT.
    records: String,
    /// Whether the plugin takes the record `event`: the input, and where the event comes from.
    takes_meta: bool,
    /// The fields of the row, each with the expression that gives it.
    assignments: Vec<(String, String)>,
    /// What the expressions need of the SDK.
    helpers: &'static str,
    /// The text of the file of cases.
    pub(super) cases: String,
    /// `match` and `event_time`, as they stand in pipeline.toml.
    pub(super) matching: String,
    pub(super) event_time: String,
}

/// The keywords to which wit-bindgen adds a `_`.
pub(super) const RUST_KEYWORDS: [&str; 50] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn", "else",
    "enum", "extern", "false", "final", "fn", "for", "if", "impl", "in", "let", "loop", "macro", "match", "mod",
    "move", "mut", "override", "priv", "pub", "ref", "return", "self", "static", "struct", "super", "trait", "true",
    "try", "type", "typeof", "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
];

impl Content {
    /// An event with an id, a time and a user.
    pub(super) fn example(names: &Names<'_>) -> Self {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let assignments =
            [("event_id", "trimmed(input.event_id)"), ("ts", "input.ts"), ("user_id", "not_blank(input.user_id)")];
        Self {
            records: names.fill(include_str!("template/records.wit.txt")),
            takes_meta: false,
            assignments: assignments.map(|(column, value)| (column.to_owned(), value.to_owned())).into(),
            helpers: ", not_blank, trimmed",
            cases: names.fill(include_str!("template/cases.json.txt")),
            matching: format!("{{ field = {}, equals = {} }}", quoted(names.field), quoted(names.event_type)),
            event_time: "\"ts\"".to_owned(),
        }
    }

    /// What real events have: the row has the fields of the input.
    pub(super) fn of_events(parts: PluginParts) -> Self {
        let input = if parts.takes_meta { "event.input" } else { "input" };
        let assignment = |(column, field): (String, Option<String>)| {
            let value = match field {
                Some(field) => format!("{input}.{}", in_rust(&field)),
                None => "event.meta.timestamp".to_owned(),
            };
            (in_rust(&column), value)
        };
        Self {
            records: parts.records,
            takes_meta: parts.takes_meta,
            assignments: parts.columns.into_iter().map(assignment).collect(),
            helpers: "",
            cases: parts.cases,
            matching: parts.matching,
            event_time: parts.event_time,
        }
    }

    /// The template with this content. The texts of events come last: what they have is no place of a template.
    pub(super) fn fill(&self, template: &str) -> String {
        let (event, types, meta) = match self.takes_meta {
            true => ("event", "Event, Row", ", meta"),
            false => ("input", "Input, Row", ""),
        };
        let assignments: String =
            self.assignments.iter().map(|(column, value)| format!("            {column}: {value},\n")).collect();
        template
            .replace("{helpers}", self.helpers)
            .replace("{types}", types)
            .replace("{meta}", meta)
            .replace("{event}", event)
            .replace("{Event}", if self.takes_meta { "Event" } else { "Input" })
            .replace("{assignments}", &assignments)
            .replace("{records}", &self.records)
    }
}

fn in_rust(name: &str) -> String {
    if RUST_KEYWORDS.contains(&name) { format!("{name}_") } else { name.to_owned() }
}
