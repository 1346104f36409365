//! Looks at events one after the other, and keeps counts.

use std::collections::{BTreeMap, HashMap};

use super::kinds::{By, FieldPath, KindFinder, kind_of};
use super::node::{Bounds, Node};
use super::report::Report;
use super::unread::{NotAnObject, Unread, read_object};
use super::{Event, Values};
use crate::json::{Json, Tape};

/// Kinds of events that are looked at.
const KINDS_MAX: usize = 200;
/// Names of headers that are counted.
const HEADERS_MAX: usize = 100;

/// What was seen so far.
pub struct Look {
    /// The field that splits the events of each topic into kinds.
    by: HashMap<Option<String>, Option<FieldPath>>,
    tape: Tape,
    pub(super) events: u64,
    pub(super) with_key: u64,
    pub(super) headers: BTreeMap<String, u64>,
    pub(super) unread: BTreeMap<NotAnObject, Unread>,
    pub(super) kinds: Vec<KindSeen>,
    by_kind: HashMap<KindName, usize>,
    /// Events of kinds that there was no room for.
    pub(super) events_of_other_kinds: u64,
}

/// What names a kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct KindName {
    pub(super) topic: Option<String>,
    /// The field that splits the topic's events, if one does.
    pub(super) field: Option<FieldPath>,
    /// Its value; `None` where an event lacks the field.
    pub(super) value: Option<String>,
}

/// The events of a kind.
pub(super) struct KindSeen {
    pub(super) name: KindName,
    pub(super) root: Node,
    pub(super) bounds: Bounds,
}

impl Look {
    /// A look at events of these topics. `sample`: the events that decide what splits them into kinds.
    pub fn new(by: &By, sample: &[Event]) -> Self {
        let by = match by {
            By::Auto => find_fields(sample),
            By::Field(_) | By::Nothing => {
                let field = if let By::Field(path) = by { Some(path.clone()) } else { None };
                sample.iter().map(|event| (event.place.topic.clone(), field.clone())).collect()
            }
        };
        Self {
            by,
            tape: Tape::default(),
            events: 0,
            with_key: 0,
            headers: BTreeMap::new(),
            unread: BTreeMap::new(),
            kinds: Vec::new(),
            by_kind: HashMap::new(),
            events_of_other_kinds: 0,
        }
    }

    pub fn add(&mut self, event: &Event) {
        self.events += 1;
        self.with_key += u64::from(event.has_key);
        self.add_headers(&event.headers);
        let value = event.value.as_deref();
        if let Err((reason, error)) = read_object(value, &mut self.tape) {
            let first = || Unread { reason, count: 0, example: event.place.clone(), error };
            self.unread.entry(reason).or_insert_with(first).count += 1;
            return;
        }
        let tape = std::mem::take(&mut self.tape);
        let json = Json { text: value.unwrap_or_default(), tape: &tape };
        match self.kind(json, event) {
            Some(kind) => kind.root.add(json, 0, 0, &mut kind.bounds),
            None => self.events_of_other_kinds += 1,
        }
        self.tape = tape;
    }

    /// What was seen, as people read it.
    pub fn finish(self, values: Values) -> Report {
        Report::of(self, values)
    }

    fn add_headers(&mut self, names: &[String]) {
        for (at, name) in names.iter().enumerate() {
            let is_first = !names[..at].contains(name);
            if is_first && (self.headers.len() < HEADERS_MAX || self.headers.contains_key(name)) {
                *self.headers.entry(name.clone()).or_default() += 1;
            }
        }
    }

    fn kind(&mut self, json: Json<'_>, event: &Event) -> Option<&mut KindSeen> {
        let topic = event.place.topic.clone();
        let field = self.by.get(&topic).cloned().flatten();
        let value = field.as_ref().and_then(|field| kind_of(json, field));
        let name = KindName { topic, field, value };
        let at = match self.by_kind.get(&name) {
            Some(at) => *at,
            None if self.kinds.len() >= KINDS_MAX => return None,
            None => {
                self.by_kind.insert(name.clone(), self.kinds.len());
                self.kinds.push(KindSeen { name, root: Node::default(), bounds: Bounds::default() });
                self.kinds.len() - 1
            }
        };
        self.kinds.get_mut(at)
    }
}

/// The field for each topic.
fn find_fields(sample: &[Event]) -> HashMap<Option<String>, Option<FieldPath>> {
    let mut finders = HashMap::<Option<String>, KindFinder>::new();
    let mut tape = Tape::default();
    for event in sample {
        let value = event.value.as_deref();
        if read_object(value, &mut tape).is_ok() {
            let json = Json { text: value.unwrap_or_default(), tape: &tape };
            finders.entry(event.place.topic.clone()).or_default().add(json);
        }
    }
    finders.into_iter().map(|(topic, finder)| (topic, finder.finish())).collect()
}
