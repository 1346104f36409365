//! Which field splits events into kinds: the one whose values say best which keys an event has.
//!
//! ```text
//!   {"event": "view", "country": "de", "url": …}       event:    each value has one set of keys      ◀── chosen
//!   {"event": "view", "country": "fr", "url": …}       country:  each value has both sets of keys
//!   {"event": "buy",  "country": "de", "total": …}
//! ```
//!
//! The measure is the share of the entropy of the sets of keys that is gone once the value is known.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::Event;
use super::unread::read_object;
use crate::json::{Json, Kind, Tape};
use crate::names::words;

/// Where a field is: the names that lead to it from the event's object.
pub type FieldPath = Vec<String>;

/// What splits events into kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// The best field, or none.
    Auto,
    Field(FieldPath),
    /// All events are of one kind.
    Nothing,
}

/// Kinds that a field may have.
const VALUES_MAX: usize = 50;
/// The share of events that must have the field.
const PRESENT: f64 = 0.95;
/// What a field needs to be chosen by its values alone.
const SEPARATION_MIN: f64 = 0.5;
/// Fields that are considered.
const CANDIDATES_MAX: usize = 200;
/// Sets of keys that are distinguished; the others count as one.
const SHAPES_MAX: usize = 500;
/// A longer text names no kind.
const VALUE_BYTES_MAX: usize = 100;

/// Names that producers give the field, the most telling first; without `_` and in lower case.
const NAMES: [&str; 14] = [
    "eventtype",
    "type",
    "event",
    "eventname",
    "kind",
    "action",
    "eventkind",
    "recordtype",
    "messagetype",
    "msgtype",
    "op",
    "operation",
    "objecttype",
    "name",
];

/// Finds the field for the events of one topic.
#[derive(Default)]
pub(super) struct KindFinder {
    events: u64,
    candidates: BTreeMap<FieldPath, Candidate>,
    shapes: HashMap<u64, u64>,
}

/// A field that has been text in every event that had it.
#[derive(Default)]
struct Candidate {
    present: u64,
    /// For each value, how many events have which set of keys; empty if the field is out.
    values: HashMap<String, HashMap<u64, u64>>,
    is_out: bool,
}

impl KindFinder {
    /// Adds the object at the root of an event.
    pub(super) fn add(&mut self, json: Json<'_>) {
        self.events += 1;
        let shape = self.shape(json);
        for (key, value) in json.tape.members(0) {
            let key = json.content(key);
            self.add_field(json, vec![key.clone().into_owned()], value, shape);
            if json.tape.nodes()[value].kind == Kind::Object {
                for (inner, value) in json.tape.members(value) {
                    let path = vec![key.clone().into_owned(), json.content(inner).into_owned()];
                    self.add_field(json, path, value, shape);
                }
            }
        }
    }

    /// Identifies the event's set of keys: those of its object, and of the objects in it.
    fn shape(&mut self, json: Json<'_>) -> u64 {
        let mut keys = Vec::new();
        for (key, value) in json.tape.members(0) {
            keys.push((json.content(key), None));
            if json.tape.nodes()[value].kind == Kind::Object {
                keys.extend(json.tape.members(value).map(|(inner, _)| (json.content(key), Some(json.content(inner)))));
            }
        }
        keys.sort();
        keys.dedup();
        let mut hasher = DefaultHasher::new();
        keys.hash(&mut hasher);
        let shape = hasher.finish();
        let shape = if self.shapes.len() < SHAPES_MAX || self.shapes.contains_key(&shape) { shape } else { 0 };
        *self.shapes.entry(shape).or_default() += 1;
        shape
    }

    fn add_field(&mut self, json: Json<'_>, path: FieldPath, value: usize, shape: u64) {
        let kind = json.tape.nodes()[value].kind;
        if !self.candidates.contains_key(&path) && (self.candidates.len() >= CANDIDATES_MAX || kind == Kind::Object) {
            return;
        }
        let candidate = self.candidates.entry(path).or_default();
        candidate.present += 1;
        if !matches!(kind, Kind::Text | Kind::Escaped) {
            candidate.is_out |= kind != Kind::Null;
            candidate.present -= u64::from(kind == Kind::Null);
            return;
        }
        let value = json.content(value);
        candidate.is_out |= value.trim().is_empty() || value.len() > VALUE_BYTES_MAX;
        if candidate.is_out {
            candidate.values.clear();
            return;
        }
        *candidate.values.entry(value.into_owned()).or_default().entry(shape).or_default() += 1;
        candidate.is_out |= candidate.values.len() > VALUES_MAX;
    }

    /// The best field, if there is one.
    pub(super) fn finish(self) -> Option<FieldPath> {
        let (events, all) = (self.events, entropy(&self.shapes));
        let scored = self.candidates.iter().filter_map(|(path, candidate)| {
            let score = candidate.score(path, events, all)?;
            Some((score, path))
        });
        // Of equal ones the first in the alphabet, so that the same events always give the same answer.
        let best = scored.max_by(|(a, first), (b, second)| a.total_cmp(b).then_with(|| second.cmp(first)));
        best.map(|(_, path)| path.clone())
    }
}

impl Candidate {
    /// How well the field splits the events; `None` if it does not.
    fn score(&self, path: &FieldPath, events: u64, entropy_of_all: f64) -> Option<f64> {
        let values = self.values.len();
        if self.is_out || values == 0 || (self.present as f64) < PRESENT * events as f64 {
            return None;
        }
        let name = path.last().map(|name| words(name).concat()).unwrap_or_default();
        let rank = NAMES.iter().position(|known| *known == name);
        // `name` may be a person's, and other fields may be anything: their values must be there more than once.
        let needs_repeats = rank.is_none_or(|rank| rank + 1 == NAMES.len());
        if needs_repeats && (values < 2 || values as u64 * 2 > events) {
            return None;
        }
        let separation = match entropy_of_all > 0.0 {
            true => 1.0 - self.remaining_entropy() / entropy_of_all,
            false => 0.0,
        };
        if needs_repeats && separation < SEPARATION_MIN {
            return None;
        }
        let by_name = rank.map_or(0.0, |rank| 1.0 - 0.05 * rank as f64);
        let is_split = if values > 1 { 0.5 } else { 0.0 };
        Some(separation + by_name + is_split - 0.005 * values as f64 - 0.1 * path.len() as f64)
    }

    /// The entropy of the sets of keys that is left when the value is known.
    fn remaining_entropy(&self) -> f64 {
        let of = |shapes: &HashMap<u64, u64>| shapes.values().sum::<u64>() as f64 * entropy(shapes);
        self.values.values().map(of).sum::<f64>() / self.present as f64
    }
}

/// Shannon's entropy of the counts, in bits.
fn entropy(counts: &HashMap<u64, u64>) -> f64 {
    let total: u64 = counts.values().sum();
    // In the order of the counts, so that the sum is always the same.
    let mut counts: Vec<u64> = counts.values().copied().collect();
    counts.sort_unstable();
    counts.into_iter().map(|count| count as f64 / total as f64).map(|share| -share * share.log2()).sum()
}

/// The text of a field of an event, where the field is a scalar.
pub(super) fn kind_of(json: Json<'_>, path: &FieldPath) -> Option<String> {
    let mut node = 0;
    for name in path {
        node = Some(node)
            .filter(|node| is_object(json.tape, *node))
            .and_then(|object| json.tape.member(json.text, object, name))?;
    }
    json.scalar_text(node).map(|text| text.into_owned())
}

/// The field that a person names: `event_type`, `meta.type`, or a key that has a dot itself. `None` if no event has it.
pub fn field_named(name: &str, events: &[Event]) -> Option<FieldPath> {
    let mut tape = Tape::default();
    let mut is_there = |path: &FieldPath| {
        events.iter().any(|event| {
            let value = event.value.as_deref();
            read_object(value, &mut tape).is_ok()
                && kind_of(Json { text: value.unwrap_or_default(), tape: &tape }, path).is_some()
        })
    };
    let whole = vec![name.to_owned()];
    let split = name.split('.').map(str::to_owned).collect();
    [whole, split].into_iter().find(|path| is_there(path))
}

fn is_object(tape: &Tape, node: usize) -> bool {
    tape.nodes().get(node).is_some_and(|node| node.kind == Kind::Object)
}
