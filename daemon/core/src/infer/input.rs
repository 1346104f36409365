//! The type that a path would have in a table's `input`.

use std::fmt;

use super::meaning::{Meaning, names_an_id, unreadable};
use super::node::{Members, Node, Range, quoted};
use crate::names::words;

/// A type of WIT, or of silverd:pipeline/types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InputType {
    Bool,
    U32,
    S64,
    U64,
    F64,
    Text,
    Timestamp,
    Date,
    Money,
    Json,
    List(Box<Slot>),
    Record(Vec<InputField>),
}

/// A type, and whether there may be no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    pub optional: bool,
    pub ty: InputType,
}

/// A member of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputField {
    pub key: String,
    pub slot: Slot,
    /// What it looks like, in a few words.
    pub looks_like: Option<String>,
    /// Whether its values are ids, and hardly one is there twice.
    pub is_distinct_id: bool,
    /// The objects in which it is absent, null or blank.
    pub missing: u64,
}

impl InputType {
    /// The name of a scalar's type in WIT and in pipeline.toml; `None` for lists and records.
    pub(super) fn scalar_name(&self) -> Option<&'static str> {
        Some(match self {
            Self::Bool => "bool",
            Self::U32 => "u32",
            Self::S64 => "s64",
            Self::U64 => "u64",
            Self::F64 => "f64",
            Self::Text => "string",
            Self::Timestamp => "timestamp",
            Self::Date => "date",
            Self::Money => "money",
            Self::Json => "json",
            Self::List(_) | Self::Record(_) => return None,
        })
    }
}

/// As in `input` of pipeline.toml: `option<list<{ sku: string, "unit price": money }>>`.
impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.optional { write!(f, "option<{}>", self.ty) } else { self.ty.fmt(f) }
    }
}

impl fmt::Display for InputType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(item) => write!(f, "list<{item}>"),
            Self::Record(fields) => {
                let member = |field: &InputField| format!("{}: {}", key_text(&field.key), field.slot);
                write!(f, "{{ {} }}", fields.iter().map(member).collect::<Vec<_>>().join(", "))
            }
            scalar => f.write_str(scalar.scalar_name().unwrap_or_default()),
        }
    }
}

/// A key of a record: in quotes unless it is a name.
fn key_text(key: &str) -> String {
    let is_name = key.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_name { key.to_owned() } else { quoted(key) }
}

/// Integers up to this become `u32`: a thousandth of its range leaves room for larger ones than those that were seen.
const U32_SEEN_MAX: i128 = 4_000_000;
/// Every integer up to here is exact in JavaScript, and in a JSON reader that takes numbers as doubles.
const F64_EXACT_MAX: u128 = 1 << 53;

/// The members of the objects at a node. `objects`: how often a member could have been there.
pub(super) fn fields(members: &Members, objects: u64) -> Vec<InputField> {
    let field = |(key, node): &(String, Node)| InputField {
        key: key.clone(),
        slot: member(key, node, objects),
        looks_like: looks_like(key, node),
        is_distinct_id: matches!(Meaning::of(key, node), Some(Meaning::Id | Meaning::Uuid))
            && node.distinct.is_mostly_distinct(),
        missing: missing(node, objects),
    };
    members.list.iter().map(field).collect()
}

/// A member of objects. There may be none where it is absent, null or blank: blank text is no value in a field.
pub(super) fn member(key: &str, node: &Node, objects: u64) -> Slot {
    Slot { optional: missing(node, objects) > 0, ty: type_of(key, node) }
}

fn missing(node: &Node, objects: u64) -> u64 {
    objects.saturating_sub(node.seen) + node.nulls + node.blanks
}

/// An item of arrays. Text in a list may be blank.
pub(super) fn item(key: &str, node: &Node) -> Slot {
    let ty = type_of(key, node);
    Slot { optional: node.nulls > 0 || (node.blanks > 0 && ty != InputType::Text), ty }
}

/// The type of what stands at a key.
fn type_of(key: &str, node: &Node) -> InputType {
    match Meaning::of(key, node) {
        Some(Meaning::Time(_)) => return InputType::Timestamp,
        Some(Meaning::Date) => return InputType::Date,
        Some(Meaning::Money) => return InputType::Money,
        _ => {}
    }
    let values = node.seen - node.nulls;
    if values > 0 && node.objects == values {
        return record_of(node);
    }
    if values > 0 && node.arrays == values {
        let unknown = Slot { optional: false, ty: InputType::Json };
        return InputType::List(Box::new(node.items.as_ref().map_or(unknown, |items| item(key, items))));
    }
    if values == 0 || node.objects + node.arrays > 0 {
        return InputType::Json;
    }
    if node.booleans == values {
        return InputType::Bool;
    }
    if node.integers == values {
        return integer_of(key, node);
    }
    // Text takes numbers and booleans as they are written.
    if node.integers + node.decimals == values { InputType::F64 } else { InputType::Text }
}

fn record_of(node: &Node) -> InputType {
    match node.members.list.is_empty() || node.members.keys_of_map().is_some() {
        true => InputType::Json,
        false => InputType::Record(fields(&node.members, node.objects)),
    }
}

fn integer_of(key: &str, node: &Node) -> InputType {
    let Some(range) = node.integer_range.as_ref().filter(|_| node.huge == 0) else { return InputType::Text };
    let is_id = names_an_id(&words(key));
    match (range.min, range.max) {
        (0.., ..=U32_SEEN_MAX) if !is_id => InputType::U32,
        (min, max) if min >= i64::MIN.into() && max <= i64::MAX.into() => InputType::S64,
        (0.., max) if max <= u64::MAX.into() => InputType::U64,
        _ => InputType::Text,
    }
}

/// What a field looks like, in a few words.
pub(super) fn looks_like(key: &str, node: &Node) -> Option<String> {
    if node.seen > node.nulls && node.objects == node.seen - node.nulls && node.members.keys_of_map().is_some() {
        return Some("a map".to_owned());
    }
    Meaning::of(key, node).map(Meaning::name)
}

/// What somebody should know who reads this path with that type.
pub(super) fn remarks(key: &str, node: &Node) -> Vec<String> {
    let mut remarks = Vec::new();
    let values = node.seen - node.nulls;
    if let Some(meaning) = Meaning::of(key, node) {
        let count = unreadable(meaning, node);
        if count > 0 {
            remarks.push(format!("silverd cannot read {count} of {values} values so: it rejects their events"));
        }
    }
    if let Some(keys) = node.members.keys_of_map() {
        let keys = if node.members.map_keys.is_some() { format!("more than {}", keys - 1) } else { keys.to_string() };
        remarks.push(format!("a map: its {keys} keys are data, not names"));
    }
    let magnitude = |range: &Range<i128>| range.min.unsigned_abs().max(range.max.unsigned_abs());
    let beyond_53 = node.integer_range.as_ref().is_some_and(|range| magnitude(range) > F64_EXACT_MAX);
    if beyond_53 || node.huge > 0 {
        remarks.push("beyond 2^53: exact here, rounded by readers that take numbers as doubles".to_owned());
    }
    let has_scalars = node.scalars() > 0;
    if usize::from(node.objects > 0) + usize::from(node.arrays > 0) + usize::from(has_scalars) > 1 {
        remarks.push("a mixture of objects, arrays or scalars".to_owned());
    }
    remarks
}
