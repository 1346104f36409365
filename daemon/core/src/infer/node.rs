//! What stands at a path of the events of one kind: a tree of counts, which grows with each event.

use std::collections::HashMap;

use serde_json::Value;
use silverd_values::Scalar;

use super::distinct::Distinct;
use super::scalar::{self, Amount, TextForm, TimeForm};
use crate::json::{Json, Kind};
use crate::plain_text::first_chars;

/// Paths that are kept per kind of event.
pub(super) const PATHS_MAX: usize = 2_000;
/// Levels of nesting that are looked at.
const DEPTH_MAX: usize = 16;
/// A nested object with more distinct keys than this is a map.
const RECORD_KEYS_MAX: usize = 100;
const EXAMPLES_MAX: usize = 3;
/// Characters of an example.
const EXAMPLE_LENGTH_MAX: usize = 120;

/// The smallest and the largest of the values.
#[derive(Clone, Debug)]
pub(super) struct Range<T> {
    pub(super) min: T,
    pub(super) max: T,
}

fn widen<T: Clone + PartialOrd>(range: &mut Option<Range<T>>, value: T) {
    match range {
        None => *range = Some(Range { min: value.clone(), max: value }),
        Some(range) if value < range.min => range.min = value,
        Some(range) if value > range.max => range.max = value,
        Some(_) => {}
    }
}

/// What stood at a path.
#[derive(Default)]
pub(super) struct Node {
    /// Values, null among them.
    pub(super) seen: u64,
    pub(super) nulls: u64,
    pub(super) booleans: u64,
    pub(super) integers: u64,
    /// Numbers with a point or an exponent.
    pub(super) decimals: u64,
    pub(super) texts: u64,
    /// Texts of nothing but white space.
    pub(super) blanks: u64,
    pub(super) objects: u64,
    pub(super) arrays: u64,
    pub(super) integer_range: Option<Range<i128>>,
    pub(super) number_range: Option<Range<f64>>,
    /// Integers with more digits than the range can have.
    pub(super) huge: u64,
    /// Characters of texts.
    pub(super) length_range: Option<Range<usize>>,
    /// Items of arrays.
    pub(super) items_range: Option<Range<usize>>,
    /// Values by [`TimeForm::ALL`].
    pub(super) times: [u64; TimeForm::ALL.len()],
    pub(super) time_range: Option<Range<i64>>,
    pub(super) amounts: u64,
    /// Amounts with digits after the point, or with a currency.
    pub(super) amounts_with_cents: u64,
    pub(super) amounts_with_currency: u64,
    pub(super) forms: TextForms,
    pub(super) distinct: Distinct,
    pub(super) examples: Vec<Value>,
    pub(super) members: Members,
    pub(super) items: Option<Box<Node>>,
    /// The number of the object in which the value stood last: of keys that are there twice, the first one counts.
    last_object: u64,
}

/// Texts by their form.
#[derive(Default)]
pub(super) struct TextForms {
    pub(super) uuids: u64,
    pub(super) ids: u64,
    pub(super) ids_with_digit: u64,
    pub(super) emails: u64,
    pub(super) phones: u64,
    pub(super) ips: u64,
}

/// The members of an object, in the order of their first appearance.
#[derive(Default)]
pub(super) struct Members {
    pub(super) list: Vec<(String, Node)>,
    by_key: HashMap<String, usize>,
    /// Set if the object is a map: how many keys it had when it was found to be one.
    pub(super) map_keys: Option<usize>,
}

/// What is shared by all nodes of a kind.
#[derive(Default)]
pub(super) struct Bounds {
    pub(super) paths: usize,
    /// Values at paths that there was no room for.
    pub(super) left_out: u64,
    objects: u64,
}

impl Node {
    /// Adds the value at a node of the tape.
    pub(super) fn add(&mut self, json: Json<'_>, at: usize, depth: usize, bounds: &mut Bounds) {
        self.seen += 1;
        match json.tape.nodes()[at].kind {
            Kind::Null => self.nulls += 1,
            Kind::True | Kind::False => {
                self.booleans += 1;
                self.note(json.raw(at), || Value::Bool(json.raw(at) == "true"));
            }
            Kind::Number => self.add_number(json.raw(at)),
            Kind::Text | Kind::Escaped => self.add_text(&json.content(at)),
            Kind::Object => {
                self.objects += 1;
                self.add_members(json, at, depth, bounds);
            }
            Kind::Array => {
                self.arrays += 1;
                self.add_items(json, at, depth, bounds);
            }
        }
    }

    fn add_members(&mut self, json: Json<'_>, object: usize, depth: usize, bounds: &mut Bounds) {
        bounds.objects += 1;
        let this_object = bounds.objects;
        for (key, value) in json.tape.members(object) {
            if self.members.map_keys.is_some() {
                return;
            }
            let Some(member) = self.members.member(&json.content(key), depth, bounds) else {
                bounds.left_out += 1;
                continue;
            };
            if member.last_object != this_object {
                member.last_object = this_object;
                member.add(json, value, depth + 1, bounds);
            }
        }
        if depth > 0 && self.members.list.len() > RECORD_KEYS_MAX {
            self.members.become_map(bounds);
        }
    }

    fn add_items(&mut self, json: Json<'_>, array: usize, depth: usize, bounds: &mut Bounds) {
        let mut count = 0;
        for item in json.tape.items(array) {
            count += 1;
            if depth >= DEPTH_MAX || (self.items.is_none() && bounds.paths >= PATHS_MAX) {
                bounds.left_out += 1;
                continue;
            }
            let node = self.items.get_or_insert_with(|| {
                bounds.paths += 1;
                Box::default()
            });
            node.add(json, item, depth + 1, bounds);
        }
        widen(&mut self.items_range, count);
    }

    fn add_number(&mut self, number: &str) {
        if scalar::is_integer(number) {
            self.integers += 1;
            match number.parse::<i128>() {
                Ok(integer) => widen(&mut self.integer_range, integer),
                Err(_) => self.huge += 1,
            }
        } else {
            self.decimals += 1;
        }
        if let Ok(number) = number.parse::<f64>()
            && number.is_finite()
        {
            widen(&mut self.number_range, number);
        }
        self.add_typed(Scalar::Number(number));
        self.note(number, || number_value(number));
    }

    fn add_text(&mut self, text: &str) {
        self.texts += 1;
        widen(&mut self.length_range, text.chars().count());
        if text.trim().is_empty() {
            self.blanks += 1;
        } else {
            self.add_typed(Scalar::Text(text));
            self.forms.add(scalar::text_form_of(text));
        }
        self.note(&quoted(text), || Value::String(first_chars(text, EXAMPLE_LENGTH_MAX)));
    }

    /// Counts what silverd reads the value as.
    fn add_typed(&mut self, value: Scalar<'_>) {
        if let Some((form, micros)) = scalar::time(value) {
            self.times[form as usize] += 1;
            widen(&mut self.time_range, micros);
        }
        if let Some(amount) = scalar::amount(value) {
            self.amounts += 1;
            self.amounts_with_cents += u64::from(amount != Amount::Whole);
            self.amounts_with_currency += u64::from(amount == Amount::Currency);
        }
    }

    /// Notes a scalar, by its JSON and as an example.
    fn note(&mut self, written: &str, example: impl FnOnce() -> Value) {
        self.distinct.add(written);
        if self.examples.len() < EXAMPLES_MAX {
            let example = example();
            if !self.examples.contains(&example) {
                self.examples.push(example);
            }
        }
    }

    /// Scalars other than null.
    pub(super) fn scalars(&self) -> u64 {
        self.booleans + self.integers + self.decimals + self.texts
    }

    fn paths(&self) -> usize {
        let of_members: usize = self.members.list.iter().map(|(_, member)| 1 + member.paths()).sum();
        of_members + self.items.as_ref().map_or(0, |items| 1 + items.paths())
    }
}

impl Members {
    /// The member of this key, which is added if there is room for it.
    fn member(&mut self, key: &str, depth: usize, bounds: &mut Bounds) -> Option<&mut Node> {
        if let Some(&at) = self.by_key.get(key) {
            return Some(&mut self.list[at].1);
        }
        if depth >= DEPTH_MAX || bounds.paths >= PATHS_MAX {
            return None;
        }
        bounds.paths += 1;
        self.by_key.insert(key.to_owned(), self.list.len());
        self.list.push((key.to_owned(), Node::default()));
        self.list.last_mut().map(|(_, member)| member)
    }

    /// Forgets the keys: they are data.
    fn become_map(&mut self, bounds: &mut Bounds) {
        self.map_keys = Some(self.list.len());
        bounds.paths -= self.list.iter().map(|(_, member)| 1 + member.paths()).sum::<usize>();
        self.list.clear();
        self.by_key.clear();
    }

    /// How many keys it has, if it is a map: it had too many keys, or its keys look like ids.
    pub(super) fn keys_of_map(&self) -> Option<usize> {
        let looks_like_id = |key: &str| {
            let digits = key.bytes().filter(u8::is_ascii_digit).count();
            matches!(scalar::text_form_of(key), TextForm::Uuid | TextForm::Email)
                || (digits == key.len() && digits > 0)
                || (key.len() >= 8 && digits > 0 && key.bytes().all(|byte| byte.is_ascii_hexdigit()))
        };
        let are_ids = self.list.len() >= 2 && self.list.iter().all(|(key, _)| looks_like_id(key));
        self.map_keys.or(are_ids.then_some(self.list.len()))
    }
}

impl TextForms {
    /// Whether any of the texts, be it a single one, has the form of a person's data.
    pub(super) fn has_personal(&self) -> bool {
        self.emails + self.phones + self.ips > 0
    }

    fn add(&mut self, form: TextForm) {
        match form {
            TextForm::Uuid => self.uuids += 1,
            TextForm::Id { has_digit } => {
                self.ids += 1;
                self.ids_with_digit += u64::from(has_digit);
            }
            TextForm::Email => self.emails += 1,
            TextForm::Phone => self.phones += 1,
            TextForm::Ip => self.ips += 1,
            TextForm::Other => {}
        }
    }
}

/// A text in JSON's quotes.
pub(super) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// A number as JSON has it, or its text if that would not be exact.
pub(super) fn number_value(number: &str) -> Value {
    let is_exact = |value: &Value| !scalar::is_integer(number) || value.is_i64() || value.is_u64();
    serde_json::from_str(number).ok().filter(is_exact).unwrap_or_else(|| Value::from(number))
}
