//! `match` of a Silver table: which events the table takes.

use std::fmt;

use toml::de::DeValue;

use super::error::ConfigError;
use super::read;
use super::section::{self, Section};
use super::value::{Value, expected, wrong_type};
use super::walk::Walk;

/// The events that a table takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    Everything,
    /// The event is of one of these topics.
    Topic(Vec<String>),
    /// The event's key is one of these texts, or there is a key or none.
    Key(Test),
    /// The same of the first header of that name.
    Header(String, Test),
    /// The same of a field of the JSON value: the names lead from the value's object to the field. Numbers and booleans
    /// count as they are written; null is no value.
    Field(Vec<String>, Test),
    And(Vec<Match>),
    Or(Vec<Match>),
    Not(Box<Match>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    OneOf(Vec<String>),
    Exists(bool),
}

impl Match {
    /// The events in which a field of the value's object has this text.
    pub fn field(name: impl Into<String>, equals: impl Into<String>) -> Self {
        Self::Field(vec![name.into()], Test::OneOf(vec![equals.into()]))
    }

    /// Whether it depends on the topic.
    pub fn reads_topic(&self) -> bool {
        self.any(&|part| matches!(part, Self::Topic(_)))
    }

    /// Whether it depends on headers.
    pub fn reads_headers(&self) -> bool {
        self.any(&|part| matches!(part, Self::Header(..)))
    }

    fn any(&self, is: &dyn Fn(&Self) -> bool) -> bool {
        is(self)
            || match self {
                Self::And(parts) | Self::Or(parts) => parts.iter().any(|part| part.any(is)),
                Self::Not(part) => part.any(is),
                _ => false,
            }
    }

    /// The first field of the value's object that it names.
    pub fn first_field(&self) -> Option<&str> {
        match self {
            Self::Field(path, _) => path.first().map(String::as_str),
            Self::And(parts) | Self::Or(parts) => parts.iter().find_map(Self::first_field),
            Self::Not(part) => part.first_field(),
            Self::Everything | Self::Topic(_) | Self::Key(_) | Self::Header(..) => None,
        }
    }
}

/// As in pipeline.toml.
impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |parts: &[Match]| parts.iter().map(|part| format!("{{ {part} }}")).collect::<Vec<_>>().join(", ");
        match self {
            Self::Everything => f.write_str("everything"),
            Self::Topic(topics) => write!(f, "topic = {topics:?}"),
            Self::Key(Test::OneOf(keys)) => write!(f, "key = {keys:?}"),
            Self::Key(Test::Exists(exists)) => write!(f, "key = {exists}"),
            Self::Header(name, test) => write!(f, "header = {name:?}, {test}"),
            Self::Field(path, test) => write!(f, "field = {path:?}, {test}"),
            Self::And(parts) => write!(f, "and = [{}]", list(parts)),
            Self::Or(parts) => write!(f, "or = [{}]", list(parts)),
            Self::Not(part) => write!(f, "not = {{ {part} }}"),
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneOf(texts) => write!(f, "in = {texts:?}"),
            Self::Exists(exists) => write!(f, "exists = {exists}"),
        }
    }
}

pub(super) const EXAMPLE: &str = "match = { field = \"event_type\", equals = \"page_view\" }";
const TESTS: [&str; 3] = ["equals", "in", "exists"];
/// `not` in `not` and so on: the router evaluates it by recursion.
const DEPTH_MAX: usize = 32;

pub(super) fn matches(walk: &mut Walk, parent: &Section, value: Value) -> Option<Match> {
    match value.get_ref() {
        DeValue::String(text) if text == "everything" => Some(Match::Everything),
        DeValue::String(_) => {
            let error = expected("\"everything\", or a table of conditions", value);
            walk.report(error.with_help(format!("write {EXAMPLE}")));
            None
        }
        _ => condition(walk, &format!("{}.match", parent.title()), value, 0),
    }
}

/// The parts of a table, which must all hold.
fn condition(walk: &mut Walk, title: &str, value: Value, depth: usize) -> Option<Match> {
    let section = Section::open(walk, title, section::MATCH, value)?;
    if depth > DEPTH_MAX {
        let what = format!("conditions are nested more than {DEPTH_MAX} deep");
        walk.report(ConfigError::new(value.span(), what, "expected a simpler condition", None));
        return None;
    }
    let (mut parts, mut is_whole) = (Vec::new(), true);
    let mut add = |has: bool, part: Option<Match>| match part {
        Some(part) => parts.push(part),
        None => is_whole &= !has,
    };
    add(section.has("topic"), section.optional(walk, "topic", texts).map(Match::Topic));
    add(section.has("key"), section.optional(walk, "key", key).map(Match::Key));
    let subjects = ["field", "header"].into_iter().filter(|subject| section.has(subject)).collect::<Vec<_>>();
    match subjects[..] {
        [] => {
            if let Some(stray) = TESTS.into_iter().find(|test| section.has(test)) {
                let help = format!("say what it is compared with: {EXAMPLE}");
                missing(walk, &section, value, &format!("`{stray}` needs `field` or `header`"), help);
                return None;
            }
        }
        ["field"] => {
            let path = section.optional(walk, "field", path);
            let test = test(walk, &section, value);
            add(true, path.zip(test).map(|(path, test)| Match::Field(path, test)));
        }
        ["header"] => {
            let name = section.optional(walk, "header", read::string);
            let test = test(walk, &section, value);
            add(true, name.zip(test).map(|(name, test)| Match::Header(name, test)));
        }
        _ => {
            let help = "write and = [{ field = …, equals = … }, { header = …, equals = … }]".to_owned();
            missing(walk, &section, value, "`field` and `header` stand in one condition", help);
            return None;
        }
    }
    let all = |walk: &mut Walk, value: Value<'_>| conditions(walk, title, value, depth);
    add(section.has("and"), section.optional(walk, "and", all).map(Match::And));
    add(section.has("or"), section.optional(walk, "or", all).map(Match::Or));
    let not = section.optional(walk, "not", |walk, value| condition(walk, title, value, depth + 1));
    add(section.has("not"), not.map(|part| Match::Not(Box::new(part))));
    if !is_whole {
        return None;
    }
    match parts.len() {
        0 => {
            let help = format!("write {EXAMPLE}, or match = \"everything\"");
            missing(walk, &section, value, "this condition is empty", help);
            None
        }
        1 => parts.pop(),
        _ => Some(Match::And(parts)),
    }
}

/// Exactly one of `equals`, `in` and `exists`.
fn test(walk: &mut Walk, section: &Section, value: Value) -> Option<Test> {
    let given: Vec<_> = TESTS.into_iter().filter(|test| section.has(test)).collect();
    match given[..] {
        ["equals"] => section.optional(walk, "equals", read::string).map(|text| Test::OneOf(vec![text])),
        ["in"] => section.optional(walk, "in", texts).map(Test::OneOf),
        ["exists"] => section.optional(walk, "exists", read::boolean).map(Test::Exists),
        [] => {
            section.required(walk, "equals", "equals = \"page_view\"", read::string);
            None
        }
        _ => {
            let help = "keep one of `equals`, `in` and `exists`".to_owned();
            missing(walk, section, value, &format!("`{}` and `{}` stand in one condition", given[0], given[1]), help);
            None
        }
    }
}

/// A text, or a list of them.
fn texts(walk: &mut Walk, value: Value) -> Option<Vec<String>> {
    match value.get_ref() {
        DeValue::Array(_) => {
            read::list(walk, value, "a list of texts", "write a list such as [\"a\", \"b\"]", read::string)
        }
        _ => Some(vec![read::string(walk, value)?]),
    }
}

/// `true` and `false`: whether there is a key.
fn key(walk: &mut Walk, value: Value) -> Option<Test> {
    match value.get_ref() {
        DeValue::Boolean(exists) => Some(Test::Exists(*exists)),
        _ => texts(walk, value).map(Test::OneOf),
    }
}

/// A name, or the names that lead to a nested field.
fn path(walk: &mut Walk, value: Value) -> Option<Vec<String>> {
    match value.get_ref() {
        DeValue::Array(items) => {
            let names: Option<Vec<_>> = items.iter().map(|item| read::string(walk, item)).collect();
            let names = names?;
            if names.is_empty() {
                walk.report(wrong_type("field", "the names that lead to a field", value));
                return None;
            }
            Some(names)
        }
        _ => Some(vec![read::string(walk, value)?]),
    }
}

fn conditions(walk: &mut Walk, title: &str, value: Value, depth: usize) -> Option<Vec<Match>> {
    let DeValue::Array(items) = value.get_ref() else {
        walk.report(expected("a list of conditions", value).with_help("write [{ topic = \"a\" }, { topic = \"b\" }]"));
        return None;
    };
    let parts: Vec<_> = items.iter().map(|item| condition(walk, title, item, depth + 1)).collect();
    if parts.is_empty() {
        walk.report(ConfigError::new(value.span(), "this list is empty", "expected a condition", None));
        return None;
    }
    parts.into_iter().collect()
}

fn missing(walk: &mut Walk, section: &Section, value: Value, what: &str, help: String) {
    let what = format!("{what} in [{}]", section.title());
    walk.report(ConfigError::new(value.span(), what, "cannot be read as a condition", Some(help)));
}
