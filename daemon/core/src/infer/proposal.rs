//! What a table of a kind of event would be: which events it takes, its input, its columns, and the time of its events.

use serde_json::Value;

use super::input::{InputField, InputType};
use super::report::{Count, KindOfEvent};
use crate::names::{Unique, is_plain_column, words};

/// The column of `event` with the time that Kafka has for a record.
pub(super) const KAFKA_TIMESTAMP: &str = "_timestamp";
/// What a table calls that time.
const KAFKA_TIME: &str = "kafka_time";
/// Events that lack the time of the event are rejected, if they are this share of all at most.
const WITHOUT_TIME_MAX: f64 = 0.05;

/// A table of a kind of event.
pub(super) struct Proposal<'k> {
    pub(super) kind: &'k KindOfEvent,
    pub(super) columns: Vec<ProposedColumn>,
    /// The column that says when an event was; `None`: the time that Kafka has.
    pub(super) event_time: Option<usize>,
    /// The column that identifies an event.
    pub(super) event_id: Option<usize>,
    /// What the time that Kafka has is called: no column has this name.
    pub(super) kafka_time: String,
}

/// A column, and the field that it comes from.
pub(super) struct ProposedColumn {
    pub(super) field: InputField,
    pub(super) name: String,
}

impl<'k> Proposal<'k> {
    pub(super) fn of(kind: &'k KindOfEvent) -> Self {
        let mut names = Unique::default();
        let mut columns = columns(&kind.input, &mut names);
        let event_time = event_time(kind.events, &columns);
        if let Some(at) = event_time {
            columns[at].field.slot.optional = false;
        }
        let event_id = columns.iter().position(ProposedColumn::identifies_its_event);
        Self { kind, columns, event_time, event_id, kafka_time: names.column(KAFKA_TIME) }
    }

    /// The column with the time of the event.
    pub(super) fn event_time_name(&self) -> &str {
        self.event_time.map_or(&self.kafka_time, |at| &self.columns[at].name)
    }

    /// `match` of the table.
    pub(super) fn matching(&self) -> String {
        let mut conditions = Vec::new();
        if let Some(topic) = self.kind.topic.as_ref().filter(|_| self.kind.is_of_several_topics) {
            conditions.push(format!("topic = {}", toml_string(topic)));
        }
        if let Some(field) = &self.kind.field {
            let field = match &field[..] {
                [name] => toml_string(name),
                names => format!("[{}]", names.iter().map(|name| toml_string(name)).collect::<Vec<_>>().join(", ")),
            };
            let equals = |value: &String| format!("equals = {}", toml_string(value));
            let test = self.kind.value.as_ref().map_or("exists = false".to_owned(), equals);
            conditions.push(format!("field = {field}, {test}"));
        }
        match conditions.is_empty() {
            true => toml_string("everything"),
            false => format!("{{ {} }}", conditions.join(", ")),
        }
    }
}

/// The columns in the order of the fields. Keys that are names keep them.
fn columns(input: &[InputField], names: &mut Unique) -> Vec<ProposedColumn> {
    let mut given: Vec<Option<String>> =
        input.iter().map(|field| is_plain_column(&field.key).then(|| names.column(&field.key))).collect();
    let column = |(field, name): (&InputField, &mut Option<String>)| ProposedColumn {
        field: field.clone(),
        name: name.take().unwrap_or_else(|| names.column(&field.key)),
    };
    input.iter().zip(&mut given).map(column).collect()
}

/// The likeliest column of those that are there in all events, or else in almost all.
fn event_time(events: u64, columns: &[ProposedColumn]) -> Option<usize> {
    let is_time = |column: &ProposedColumn| {
        column.field.slot.ty == InputType::Timestamp
            && Count::of(column.field.missing, events).share <= WITHOUT_TIME_MAX
    };
    let times = columns.iter().enumerate().filter(|(_, column)| is_time(column));
    // Of equal ones the first.
    times.min_by_key(|(_, column)| (column.field.slot.optional, column.event_time_rank())).map(|(at, _)| at)
}

impl ProposedColumn {
    /// The name of an event's own id, mostly distinct, and there in every event.
    fn identifies_its_event(&self) -> bool {
        const NAMES: [&str; 9] =
            ["eventid", "eventuuid", "guid", "id", "messageid", "messageuuid", "msgid", "recordid", "uuid"];
        let name = words(&self.field.key).concat();
        let is_id = self.field.is_distinct_id && matches!(self.field.slot.ty, InputType::Text | InputType::S64);
        is_id && !self.field.slot.optional && NAMES.contains(&name.as_str())
    }

    /// How likely the column is the time of the event: the smaller, the likelier.
    fn event_time_rank(&self) -> usize {
        const NAMES: [&str; 12] = [
            "eventtime",
            "eventtimestamp",
            "ts",
            "timestamp",
            "time",
            "occurredat",
            "happenedat",
            "createdat",
            "created",
            "datetime",
            "updatedat",
            "sentat",
        ];
        let name = words(&self.field.key).concat();
        NAMES.iter().position(|known| *known == name).unwrap_or(NAMES.len())
    }
}

/// A string of TOML. One with quotes is a literal one, if it can be.
pub(super) fn toml_string(text: &str) -> String {
    let is_literal = text.contains(['"', '\\']) && !text.contains('\'') && !text.chars().any(char::is_control);
    // JSON leaves DEL as it is, and TOML does not.
    if is_literal { format!("'{text}'") } else { Value::from(text).to_string().replace('\u{7f}', "\\u007f") }
}
