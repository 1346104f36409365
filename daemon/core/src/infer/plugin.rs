//! What a new plugin has for a kind of event: the records of its WIT, the row that it makes of the input, and its cases.

use serde_json::Value;

use super::kinds::kind_of;
use super::proposal::{Proposal, toml_string};
use super::report::KindOfEvent;
use super::unread::read_object;
use super::wit::InputRecords;
use super::{Event, Values, personal};
use crate::json::{Json, Tape};
use crate::names::{Unique, key_of_wit};
use crate::schema::added;

/// Events that become cases.
const CASES_MAX: usize = 3;
/// A larger event is no example.
const CASE_BYTES_MAX: usize = 16 << 10;

/// The parts of a plugin that copies the fields of an event into a row.
#[derive(Debug)]
pub struct PluginParts {
    /// The records of its WIT: `input`, `row`, and `event` if it needs the time that Kafka has.
    pub records: String,
    /// Whether it takes the records `event`: `input` and `meta`.
    pub takes_meta: bool,
    /// The columns of its row, each with the field of the input that it comes from, in snake case. A column without a field
    /// is the time that Kafka has.
    pub columns: Vec<(String, Option<String>)>,
    /// The column with the time of the event, and `match` of the table, as they stand in pipeline.toml.
    pub event_time: String,
    pub matching: String,
    /// The text of a file of cases, for which no outcome is expected yet.
    pub cases: String,
}

impl PluginParts {
    /// The parts for a kind of event. The cases are made of `events`, from the newest on.
    pub fn of(kind: &KindOfEvent, events: &[Event], values: Values) -> Self {
        let table = Proposal::of(kind);
        let fields: Vec<_> = table.columns.iter().map(|column| column.field.clone()).collect();
        let input = InputRecords::of(&fields);
        let mut names = Unique::without(&added::ALL);
        let (mut row, mut columns) = (String::new(), Vec::new());
        for field in &input.fields {
            let name = names.wit(&field.name);
            row.push_str(&field.in_row(&name));
            columns.push((key_of_wit(&name), Some(key_of_wit(&field.name))));
        }
        let takes_meta = table.event_time.is_none();
        let event_time = match table.event_time.map(|at| &table.columns[at].field.key) {
            Some(key) => input.fields.iter().position(|field| field.key == *key).map(|at| columns[at].0.clone()),
            None => None,
        };
        let event_time = event_time.unwrap_or_else(|| {
            let name = names.wit(&table.kafka_time);
            row.push_str(&format!("    /// The time that Kafka has for the record.\n    {name}: timestamp,\n"));
            columns.push((key_of_wit(&name), None));
            key_of_wit(&name)
        });
        let event = if takes_meta { "\n  record event {\n    input: input,\n    meta: meta,\n  }\n" } else { "" };
        let kind_line = format!("  /// {}.\n", kind.title());
        Self {
            records: format!("{}{event}\n{kind_line}  record row {{\n{row}  }}\n", input.text),
            takes_meta,
            columns,
            event_time: toml_string(&event_time),
            matching: table.matching(),
            cases: cases(kind, events, values),
        }
    }
}

fn cases(kind: &KindOfEvent, events: &[Event], values: Values) -> String {
    let mut tape = Tape::default();
    let mut cases = Vec::new();
    for event in events.iter().rev() {
        let value = event.value.as_deref().unwrap_or_default();
        if cases.len() == CASES_MAX {
            break;
        }
        if event.place.topic != kind.topic
            || value.len() > CASE_BYTES_MAX
            || read_object(Some(value), &mut tape).is_err()
        {
            continue;
        }
        let json = Json { text: value, tape: &tape };
        if kind.field.as_ref().is_some_and(|field| kind_of(json, field) != kind.value) {
            continue;
        }
        let event = match values {
            Values::Masked => personal::masked_event(json, kind.field.as_ref()),
            Values::Shown => String::from_utf8_lossy(value).into_owned(),
        };
        let name = Value::from(format!("event {}", cases.len() + 1));
        cases
            .push(format!("{{\n  \"name\": {name},\n  \"event\": {}\n}}", event.trim_start_matches('\u{feff}').trim()));
    }
    format!("[\n{}\n]\n", cases.join(",\n"))
}
