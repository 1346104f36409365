//! What was seen, as people and programs read it. All output forms are made of it, so that a mask holds in each of them.

use std::collections::BTreeSet;

use arrow_array::temporal_conversions::timestamp_us_to_datetime;
use serde::Serialize;
use serde_json::Value;

use super::input::{self, InputField, Slot};
use super::look::{KindName, KindSeen, Look};
use super::meaning::Meaning;
use super::node::{Node, Range, number_value};
use super::unread::Unread;
use super::{FieldPath, Values, personal};
use crate::names::Unique;

/// What was seen in all events.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The records that were looked at.
    pub events: u64,
    /// Those whose value is a JSON object.
    pub objects: u64,
    pub not_objects: Vec<Unread>,
    /// Records with a key.
    pub keys: Count,
    pub headers: Vec<Header>,
    /// The most frequent first, topic by topic.
    pub kinds: Vec<KindOfEvent>,
    /// Events of kinds that there was no room for.
    pub events_of_other_kinds: u64,
    /// What looks like a person's data is masked.
    pub is_masked: bool,
    /// Why fewer events were looked at than there are; whoever read them says so.
    pub notes: Vec<String>,
}

/// How many there are, and their share of those that there could be, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Count {
    pub count: u64,
    pub share: f64,
}

impl Count {
    pub(super) fn of(count: u64, all: u64) -> Self {
        Self { count, share: if all == 0 { 0.0 } else { count as f64 / all as f64 } }
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct Header {
    pub name: String,
    #[serde(flatten)]
    pub records: Count,
}

/// The events of a kind.
#[derive(Clone, Debug, Serialize)]
pub struct KindOfEvent {
    pub topic: Option<String>,
    /// Whether there are events of other topics, too.
    #[serde(skip)]
    pub is_of_several_topics: bool,
    /// The field that splits the topic's events into kinds, and its value here; no value where events lack the field.
    pub field: Option<FieldPath>,
    pub value: Option<String>,
    /// A name for a table of this kind.
    pub table: String,
    pub events: u64,
    /// Of all events that are JSON objects.
    pub share: f64,
    pub fields: Vec<Field>,
    /// Values that were not looked at, since they are nested too deeply, or under too many different keys.
    pub values_left_out: u64,
    /// The record `input` of such a table.
    #[serde(skip)]
    pub input: Vec<InputField>,
}

/// What stands at a path. Shares are of the objects or arrays in which it could stand.
#[derive(Clone, Debug, Serialize)]
pub struct Field {
    /// `line_items[].sku`
    pub path: String,
    /// The JSON types other than null.
    pub json_types: Vec<JsonType>,
    pub null: Count,
    pub absent: Count,
    /// The type in `input`.
    #[serde(rename = "type")]
    pub ty: String,
    pub looks_like: Option<String>,
    pub is_personal: bool,
    pub numbers: Option<MinMax>,
    pub times: Option<MinMax>,
    /// Characters of texts.
    pub lengths: Option<MinMax>,
    /// Items of arrays.
    pub items: Option<MinMax>,
    pub distinct: Option<DistinctCount>,
    /// All distinct scalars, if they are few: the most frequent first.
    pub values: Option<Vec<ValueCount>>,
    pub examples: Vec<Value>,
    pub remarks: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct JsonType {
    #[serde(rename = "type")]
    pub name: &'static str,
    #[serde(flatten)]
    pub values: Count,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MinMax {
    pub min: Value,
    pub max: Value,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct DistinctCount {
    pub count: u64,
    /// There may be more than were counted.
    pub is_at_least: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ValueCount {
    pub value: Value,
    pub count: u64,
}

impl Report {
    pub(super) fn of(look: Look, values: Values) -> Self {
        let mut seen = look.kinds;
        let order = |kind: &KindSeen| {
            (
                kind.name.topic.clone(),
                kind.name.value.is_none(),
                std::cmp::Reverse(kind.root.seen),
                kind.name.value.clone(),
            )
        };
        seen.sort_by_key(order);
        let is_of_several_topics = seen.iter().map(|kind| &kind.name.topic).collect::<BTreeSet<_>>().len() > 1;
        let not_objects: Vec<_> = look.unread.into_values().collect();
        let objects = look.events - not_objects.iter().map(|unread| unread.count).sum::<u64>();
        let mut tables = Unique::default();
        let kind = |seen: KindSeen| {
            let table = tables.table(&table_name(&seen.name, is_of_several_topics));
            KindOfEvent::of(seen, table, is_of_several_topics, objects, values)
        };
        Self {
            events: look.events,
            objects,
            not_objects,
            keys: Count::of(look.with_key, look.events),
            headers: look
                .headers
                .into_iter()
                .map(|(name, count)| Header { name, records: Count::of(count, look.events) })
                .collect(),
            kinds: seen.into_iter().map(kind).collect(),
            events_of_other_kinds: look.events_of_other_kinds,
            is_masked: values == Values::Masked,
            notes: Vec::new(),
        }
    }
}

/// What a table of a kind may be called, before it is made a valid name.
fn table_name(name: &KindName, with_topic: bool) -> String {
    let topic = name.topic.as_deref().unwrap_or("events");
    match (&name.field, &name.value) {
        (None, _) => topic.to_owned(),
        (Some(_), Some(value)) if with_topic => format!("{topic}_{value}"),
        (Some(_), Some(value)) => value.clone(),
        (Some(_), None) => format!("{topic}_others"),
    }
}

impl KindOfEvent {
    fn of(seen: KindSeen, table: String, is_of_several_topics: bool, objects: u64, values: Values) -> Self {
        let KindSeen { name, root, bounds } = seen;
        let mut walk = Walk { fields: Vec::new(), values, kind_field: name.field.clone() };
        walk.members(&root, &[], false);
        let mut input = input::fields(&root.members, root.objects);
        // What decides on the kind is the same in all of its events.
        if let (Some([field]), Some(_)) = (name.field.as_deref(), &name.value) {
            input.retain(|input| input.key != *field);
        }
        Self {
            topic: name.topic,
            is_of_several_topics,
            field: name.field,
            value: name.value,
            table,
            events: root.seen,
            share: Count::of(root.seen, objects).share,
            fields: walk.fields,
            values_left_out: bounds.left_out,
            input,
        }
    }

    /// Which events these are, on one line: `30 events with event_type = "view"`.
    pub(super) fn title(&self) -> String {
        let topic = match &self.topic {
            Some(topic) if self.is_of_several_topics => format!(" of topic {topic}"),
            _ => String::new(),
        };
        let kind = match (&self.field, &self.value) {
            (None, _) => String::new(),
            (Some(field), Some(value)) => format!(" with {} = {}", field.join("."), Value::from(value.as_str())),
            (Some(field), None) => format!(" without {}", field.join(".")),
        };
        format!("{}{topic}{kind}", counted(self.events)).replace(char::is_control, " ")
    }
}

/// `1 event`, `2 events`.
pub(super) fn counted(events: u64) -> String {
    if events == 1 { "1 event".to_owned() } else { format!("{events} events") }
}

/// Lists the paths of a tree.
struct Walk {
    fields: Vec<Field>,
    values: Values,
    kind_field: Option<FieldPath>,
}

impl Walk {
    fn members(&mut self, object: &Node, path: &[Part<'_>], is_personal: bool) {
        if object.members.keys_of_map().is_some() && !path.is_empty() {
            return;
        }
        for (key, node) in &object.members.list {
            let slot = input::member(key, node, object.objects);
            let path = [path, &[Part::Key(key)]].concat();
            let seen = Seen { key, node, parents: object.objects, slot, path: &path };
            self.add(seen, is_personal || personal::is_personal_key(key));
        }
    }

    fn add(&mut self, seen: Seen<'_>, is_personal: bool) {
        let Seen { key, node, path, .. } = seen;
        let is_personal = is_personal || node.forms.has_personal();
        // The names of kinds are shown wherever they are.
        let is_kind = self
            .kind_field
            .as_ref()
            .is_some_and(|field| path.iter().map(Part::key).eq(field.iter().map(|name| Some(name.as_str()))));
        self.fields.push(Field::of(&seen, is_personal && !is_kind, self.values));
        self.members(node, path, is_personal);
        if let Some(items) = &node.items {
            let path = [path, &[Part::Items]].concat();
            let slot = input::item(key, items);
            self.add(Seen { key, node: items, parents: items.seen, slot, path: &path }, is_personal);
        }
    }
}

/// A path, and what was seen there.
struct Seen<'n> {
    /// The last key of the path.
    key: &'n str,
    node: &'n Node,
    /// The objects or arrays that have a place for it.
    parents: u64,
    slot: Slot,
    path: &'n [Part<'n>],
}

/// A part of a path.
#[derive(Clone, Copy)]
enum Part<'k> {
    Key(&'k str),
    Items,
}

impl Part<'_> {
    fn key(&self) -> Option<&str> {
        match self {
            Self::Key(key) => Some(key),
            Self::Items => None,
        }
    }
}

fn path_text(path: &[Part<'_>]) -> String {
    let mut text = String::new();
    for part in path {
        match part {
            Part::Items => text.push_str("[]"),
            Part::Key(key) => {
                let is_plain = !key.is_empty() && !key.contains(['.', '[', ']', '"', '\\']) && key.trim() == *key;
                text.push_str(if text.is_empty() { "" } else { "." });
                text.push_str(&if is_plain { (*key).to_owned() } else { Value::from(*key).to_string() });
            }
        }
    }
    text
}

impl Field {
    fn of(seen: &Seen<'_>, is_personal: bool, values: Values) -> Self {
        let Seen { key, node, parents, path, .. } = *seen;
        let is_masked = is_personal && values == Values::Masked;
        let distinct = &node.distinct;
        let value = |(written, count): (&str, u64)| ValueCount {
            value: serde_json::from_str(written).unwrap_or_else(|_| Value::from(written)),
            count,
        };
        let values = distinct.listed().map(|values| values.into_iter().map(value).collect());
        let examples = &node.examples;
        Self {
            path: path_text(path),
            json_types: json_types(node, parents),
            null: Count::of(node.nulls, parents),
            absent: Count::of(parents.saturating_sub(node.seen), parents),
            ty: seen.slot.to_string(),
            looks_like: input::looks_like(key, node),
            is_personal,
            numbers: numbers(node).filter(|_| !is_masked),
            times: times(key, node).filter(|_| !is_masked),
            lengths: node.length_range.as_ref().map(|range| min_max(range, |length| Value::from(*length))),
            items: node.items_range.as_ref().map(|range| min_max(range, |items| Value::from(*items))),
            distinct: (node.scalars() > 0)
                .then(|| DistinctCount { count: distinct.count(), is_at_least: distinct.is_full() }),
            values: values.filter(|_| !is_masked),
            examples: examples
                .iter()
                .map(|example| if is_masked { personal::masked(example) } else { example.clone() })
                .collect(),
            remarks: input::remarks(key, node),
        }
    }
}

fn json_types(node: &Node, parents: u64) -> Vec<JsonType> {
    let counts = [
        ("string", node.texts),
        ("integer", node.integers),
        ("number", node.decimals),
        ("boolean", node.booleans),
        ("object", node.objects),
        ("array", node.arrays),
    ];
    let mut types: Vec<_> = counts
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| JsonType { name, values: Count::of(count, parents) })
        .collect();
    types.sort_by_key(|ty| std::cmp::Reverse(ty.values.count));
    types
}

fn min_max<T>(range: &Range<T>, value: impl Fn(&T) -> Value) -> MinMax {
    MinMax { min: value(&range.min), max: value(&range.max) }
}

fn numbers(node: &Node) -> Option<MinMax> {
    match &node.integer_range {
        Some(range) if node.decimals + node.huge == 0 => {
            Some(min_max(range, |integer| number_value(&integer.to_string())))
        }
        _ => node.number_range.as_ref().map(|range| min_max(range, |number| Value::from(*number))),
    }
}

fn times(key: &str, node: &Node) -> Option<MinMax> {
    let is_time = matches!(Meaning::of(key, node), Some(Meaning::Time(_) | Meaning::Date));
    let range = node.time_range.as_ref().filter(|_| is_time)?;
    Some(min_max(range, |micros| {
        let time = timestamp_us_to_datetime(*micros);
        time.map_or(Value::Null, |time| Value::from(time.format("%Y-%m-%dT%H:%M:%S%.fZ").to_string()))
    }))
}
