//! Routing: an event goes to each Silver table whose `match` it meets. Most tables match on a field of the value's object:
//! then nothing else is parsed.

use std::collections::BTreeMap;

use arrow_array::Array;
use memchr::memchr2;

use crate::chunk::{Chunk, Headers};
use crate::config::{Match, SilverTable, Test};
use crate::json::BYTE_ORDER_MARK;
use crate::unrouted::{UnroutedEvents, UnroutedReason};

/// Routes events to the tables of a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Router {
    tables: Vec<TableMatch>,
}

#[derive(Debug, Clone, PartialEq)]
struct TableMatch {
    matches: Match,
    tombstones: bool,
}

/// The events of a chunk by table, as ascending row numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Routes {
    pub tables: Vec<Vec<u32>>,
    /// The events that no table gets.
    pub unrouted: UnroutedEvents,
}

/// An event, as far as tables can match on it.
#[derive(Debug, Clone, Copy)]
pub struct Event<'e> {
    pub topic: &'e str,
    pub key: Option<&'e [u8]>,
    pub value: Option<&'e [u8]>,
    pub headers: EventHeaders<'e>,
}

/// The headers of an event.
#[derive(Debug, Clone, Copy)]
pub enum EventHeaders<'e> {
    /// They are not known: whoever asks has only part of the event.
    Unknown,
    OfRow(Headers<'e>, usize),
}

impl Router {
    pub fn new(tables: &[SilverTable]) -> Self {
        Self::of(tables.iter().map(|table| (table.matches.clone(), table.tombstones)))
    }

    /// Table `i` gets the events that meet `tables[i].0`; those without a value if `tables[i].1`.
    pub fn of(tables: impl IntoIterator<Item = (Match, bool)>) -> Self {
        Self { tables: tables.into_iter().map(|(matches, tombstones)| TableMatch { matches, tombstones }).collect() }
    }

    /// Whether any event of a topic can go to a table.
    pub fn takes(&self, table: usize, topic: &str) -> bool {
        let matches = &self.tables[table].matches;
        !matches.reads_topic() || Condition::of(matches, topic) != Condition::Never
    }

    /// Whether the headers of an event decide on whether it goes to a table.
    pub fn reads_headers(&self, table: usize) -> bool {
        self.tables[table].matches.reads_headers()
    }

    /// Routes the events of a chunk.
    pub fn route(&self, chunk: &Chunk) -> Routes {
        let topics: Vec<TopicRoutes> =
            chunk.topics().iter().map(|topic| TopicRoutes::new(&self.tables, topic.unwrap_or_default())).collect();
        let (keys, values, headers) = (chunk.keys(), chunk.values(), chunk.headers());
        let mut routes = self.no_routes();
        for row in 0..values.len() {
            let (key, value) =
                (keys.is_valid(row).then(|| keys.value(row)), values.is_valid(row).then(|| values.value(row)));
            let (at, headers) = (chunk.topic_of(row), EventHeaders::OfRow(headers, row));
            // The topic is part of the condition.
            topics[at].route(row as u32, &Event { topic: "", key, value, headers }, &mut routes);
        }
        routes
    }

    /// Routes events of which only parts are known.
    pub fn route_events<'e>(&self, events: impl IntoIterator<Item = Event<'e>>) -> Routes {
        let (mut topics, mut routes) = (BTreeMap::new(), self.no_routes());
        for (row, event) in events.into_iter().enumerate() {
            let topic = topics.entry(event.topic).or_insert_with(|| TopicRoutes::new(&self.tables, event.topic));
            topic.route(row as u32, &event, &mut routes);
        }
        routes
    }

    fn no_routes(&self) -> Routes {
        Routes { tables: vec![Vec::new(); self.tables.len()], unrouted: UnroutedEvents::default() }
    }
}

/// How the events of one topic are routed.
#[derive(Debug, PartialEq)]
struct TopicRoutes {
    /// Each field of the value's object that tables match on and on nothing else, with the tables of each text.
    fields: Vec<RoutedField>,
    /// The other tables that events with a value can go to.
    others: Vec<(usize, Condition)>,
    /// The tables that events without a value can go to.
    tombstones: Vec<(usize, Condition)>,
}

#[derive(Debug, Clone, PartialEq)]
struct RoutedField {
    name: String,
    values: Vec<(String, Vec<usize>)>,
}

/// What is left of a `match` once the topic is known.
#[derive(Debug, Clone, PartialEq)]
enum Condition {
    Always,
    Never,
    Key(Test),
    Header(String, Test),
    Field(Vec<String>, Test),
    And(Vec<Condition>),
    Or(Vec<Condition>),
    Not(Box<Condition>),
}

impl Condition {
    fn of(matches: &Match, topic: &str) -> Self {
        match matches {
            Match::Everything => Self::Always,
            Match::Topic(topics) if topics.iter().any(|one| one == topic) => Self::Always,
            Match::Topic(_) => Self::Never,
            Match::Key(test) => Self::Key(test.clone()),
            Match::Header(name, test) => Self::Header(name.clone(), test.clone()),
            Match::Field(path, test) => Self::Field(path.clone(), test.clone()),
            Match::And(parts) => {
                let mut parts: Vec<_> = parts.iter().map(|part| Self::of(part, topic)).collect();
                parts.retain(|part| *part != Self::Always);
                match parts.len() {
                    0 => Self::Always,
                    1 => parts.remove(0),
                    _ if parts.contains(&Self::Never) => Self::Never,
                    _ => Self::And(parts),
                }
            }
            Match::Or(parts) => {
                let mut parts: Vec<_> = parts.iter().map(|part| Self::of(part, topic)).collect();
                parts.retain(|part| *part != Self::Never);
                match parts.len() {
                    0 => Self::Never,
                    1 => parts.remove(0),
                    _ if parts.contains(&Self::Always) => Self::Always,
                    _ => Self::Or(parts),
                }
            }
            Match::Not(part) => match Self::of(part, topic) {
                Self::Always => Self::Never,
                Self::Never => Self::Always,
                part => Self::Not(Box::new(part)),
            },
        }
    }

    /// Whether an event meets it. If not, `reason` becomes what says the most.
    fn holds(&self, event: &Event<'_>, reason: &mut UnroutedReason) -> bool {
        let mut fails = |why: UnroutedReason| {
            *reason = (*reason).max(why);
            false
        };
        match self {
            Self::Always => true,
            Self::Never => fails(UnroutedReason::OtherValue),
            Self::Key(test) => test.holds(event.key) || fails(UnroutedReason::OtherValue),
            Self::Header(name, test) => match event.headers {
                EventHeaders::Unknown => fails(UnroutedReason::OtherValue),
                EventHeaders::OfRow(headers, row) => {
                    test.holds(header(headers, row, name)) || fails(UnroutedReason::OtherValue)
                }
            },
            Self::Field(path, test) => match field(event.value.unwrap_or_default(), path) {
                Ok(value) if test.holds_for(value) => true,
                Ok(_) => fails(UnroutedReason::OtherValue),
                Err(UnroutedReason::NoSuchField) if *test == Test::Exists(false) => true,
                Err(why) => fails(why),
            },
            Self::And(parts) => parts.iter().all(|part| part.holds(event, reason)),
            Self::Or(parts) => parts.iter().any(|part| part.holds(event, reason)),
            Self::Not(part) => !part.holds(event, &mut UnroutedReason::Empty) || fails(UnroutedReason::OtherValue),
        }
    }
}

impl Test {
    fn holds(&self, text: Option<&[u8]>) -> bool {
        match self {
            Self::OneOf(texts) => text.is_some_and(|text| texts.iter().any(|one| one.as_bytes() == text)),
            Self::Exists(exists) => text.is_some() == *exists,
        }
    }

    /// The same for a JSON value, as it is written. Null is no value.
    fn holds_for(&self, value: &[u8]) -> bool {
        match self {
            Self::Exists(exists) => (value != b"null") == *exists,
            Self::OneOf(texts) => match scalar(value) {
                None => false,
                Some(Scalar::Plain(text)) => texts.iter().any(|one| one.as_bytes() == text),
                Some(Scalar::Escaped(text)) => {
                    let text = serde_json::from_slice::<String>(text).ok();
                    texts.iter().any(|one| Some(one) == text.as_ref())
                }
            },
        }
    }
}

/// The value of the first header of that name.
fn header<'e>(headers: Headers<'e>, row: usize, name: &str) -> Option<&'e [u8]> {
    let (start, end) = (headers.ends[row] as usize, headers.ends[row + 1] as usize);
    let at = (start..end).find(|at| headers.names.value(*at) == name)?;
    headers.values.is_valid(at).then(|| headers.values.value(at))
}

impl TopicRoutes {
    fn new(tables: &[TableMatch], topic: &str) -> Self {
        let mut routes = Self { fields: Vec::new(), others: Vec::new(), tombstones: Vec::new() };
        for (table, TableMatch { matches, tombstones }) in tables.iter().enumerate() {
            let condition = Condition::of(matches, topic);
            if *tombstones && condition != Condition::Never {
                routes.tombstones.push((table, condition.clone()));
            }
            match condition {
                Condition::Never => {}
                Condition::Field(path, Test::OneOf(texts)) if path.len() == 1 => {
                    routes.add_field(table, &path[0], texts)
                }
                condition => routes.others.push((table, condition)),
            }
        }
        routes
    }

    fn add_field(&mut self, table: usize, name: &str, texts: Vec<String>) {
        let at = self.fields.iter().position(|field| field.name == name).unwrap_or_else(|| {
            self.fields.push(RoutedField { name: name.to_owned(), values: Vec::new() });
            self.fields.len() - 1
        });
        let values = &mut self.fields[at].values;
        for text in texts {
            match values.iter_mut().find(|(value, _)| *value == text) {
                Some((_, tables)) => tables.push(table),
                None => values.push((text, vec![table])),
            }
        }
    }

    fn route(&self, row: u32, event: &Event<'_>, routes: &mut Routes) {
        let (mut is_routed, mut reason) = (false, UnroutedReason::Empty);
        let others = match event.value {
            Some(value) => {
                for field in &self.fields {
                    match field.tables(value) {
                        Ok(tables) => {
                            tables.iter().for_each(|table| routes.tables[*table].push(row));
                            is_routed = true;
                        }
                        // Of several fields, the one that was found says the most.
                        Err(why) => reason = reason.max(why),
                    }
                }
                if self.fields.is_empty() && self.others.is_empty() {
                    reason = UnroutedReason::OtherValue;
                }
                &self.others
            }
            None => &self.tombstones,
        };
        for (table, condition) in others {
            if condition.holds(event, &mut reason) {
                routes.tables[*table].push(row);
                is_routed = true;
            }
        }
        if !is_routed {
            let reason = if event.value.is_none() { UnroutedReason::Empty } else { reason };
            routes.unrouted.add(row, reason);
        }
    }
}

impl RoutedField {
    fn tables(&self, event: &[u8]) -> Result<&[usize], UnroutedReason> {
        let found = match top_level_field(event, &self.name)? {
            Scalar::Plain(text) => self.values.iter().find(|(value, _)| value.as_bytes() == text),
            Scalar::Escaped(text) => {
                let text = serde_json::from_slice::<String>(text).ok();
                self.values.iter().find(|(value, _)| Some(value) == text.as_ref())
            }
        };
        found.map(|(_, tables)| tables.as_slice()).ok_or(UnroutedReason::OtherValue)
    }
}

/// A JSON scalar, as written in the text.
#[derive(Debug, PartialEq, Eq)]
pub enum Scalar<'a> {
    /// The content of a string, a number, `true`, `false` or `null`.
    Plain(&'a [u8]),
    /// A string with escapes, including its quotes.
    Escaped(&'a [u8]),
}

/// The first top-level field of that name, if the text is a JSON object up to there and the field is a scalar.
///
/// It reads no further than the field: an event that is cut off after it is still routed, and the plugin reports what
/// is wrong with it.
pub fn top_level_field<'a>(json: &'a [u8], name: &str) -> Result<Scalar<'a>, UnroutedReason> {
    scalar(member_of(json.strip_prefix(BYTE_ORDER_MARK).unwrap_or(json), name)?).ok_or(UnroutedReason::OtherValue)
}

/// The value of a nested field, as it is written. An object on the way that is none has no such field.
fn field<'a>(json: &'a [u8], path: &[String]) -> Result<&'a [u8], UnroutedReason> {
    let mut value = json.strip_prefix(BYTE_ORDER_MARK).unwrap_or(json);
    for (depth, name) in path.iter().enumerate() {
        if depth > 0 && value.first() != Some(&b'{') {
            return Err(UnroutedReason::NoSuchField);
        }
        value = member_of(value, name)?;
    }
    Ok(value)
}

/// The value of the first member of that name.
fn member_of<'a>(json: &'a [u8], name: &str) -> Result<&'a [u8], UnroutedReason> {
    let mut at = skip_space(json, 0);
    if json.get(at) != Some(&b'{') {
        return Err(reason_without_object(json));
    }
    at = skip_space(json, at + 1);
    while json.get(at) != Some(&b'}') {
        let (key, value, next) = member(json, at).ok_or(UnroutedReason::NotJson)?;
        if is_key(key, name) {
            return Ok(value);
        }
        at = skip_space(json, next);
        match json.get(at) {
            Some(b',') => at = skip_space(json, at + 1),
            Some(b'}') => {}
            _ => return Err(UnroutedReason::NotJson),
        }
    }
    Err(UnroutedReason::NoSuchField)
}

/// The member of an object that starts at `at`: its key with the quotes, its value, and where it ends.
fn member(json: &[u8], at: usize) -> Option<(&[u8], &[u8], usize)> {
    let key_end = string_end(json, at)?;
    let colon = skip_space(json, key_end);
    if json.get(colon) != Some(&b':') {
        return None;
    }
    let start = skip_space(json, colon + 1);
    let end = value_end(json, start)?;
    Some((&json[at..key_end], &json[start..end], end))
}

/// Whether a key, with its quotes, is this name. Escapes in keys are rare, and only then cost a copy.
fn is_key(key: &[u8], name: &str) -> bool {
    let inner = &key[1..key.len() - 1];
    inner == name.as_bytes()
        || (inner.contains(&b'\\') && serde_json::from_slice::<String>(key).is_ok_and(|key| key == name))
}

fn reason_without_object(json: &[u8]) -> UnroutedReason {
    if json.is_empty() {
        UnroutedReason::Empty
    } else if serde_json::from_slice::<serde::de::IgnoredAny>(json).is_ok() {
        UnroutedReason::NotAnObject
    } else {
        UnroutedReason::NotJson
    }
}

fn scalar(text: &[u8]) -> Option<Scalar<'_>> {
    match text {
        [b'{' | b'[', ..] | [] => None,
        [b'"', inner @ .., b'"'] if !inner.contains(&b'\\') => Some(Scalar::Plain(inner)),
        [b'"', ..] => Some(Scalar::Escaped(text)),
        _ => Some(Scalar::Plain(text)),
    }
}

fn skip_space(json: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = json.get(at) {
        at += 1;
    }
    at
}

/// The end of the string that starts at `at`, after its closing quote.
fn string_end(json: &[u8], at: usize) -> Option<usize> {
    if json.get(at) != Some(&b'"') {
        return None;
    }
    let mut at = at + 1;
    loop {
        at += memchr2(b'"', b'\\', json.get(at..)?)?;
        match json[at] {
            b'"' => return Some(at + 1),
            _ => at += 2,
        }
    }
}

/// The end of the value that starts at `at`. Objects and arrays are skipped by counting brackets, without recursion.
fn value_end(json: &[u8], at: usize) -> Option<usize> {
    match json.get(at)? {
        b'"' => string_end(json, at),
        b'{' | b'[' => {
            let (mut at, mut depth) = (at, 0usize);
            loop {
                match json.get(at)? {
                    b'"' => at = string_end(json, at)? - 1,
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                at += 1;
                if depth == 0 {
                    return Some(at);
                }
            }
        }
        _ => {
            let length = json[at..]
                .iter()
                .position(|b| matches!(b, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t'))
                .unwrap_or(json.len() - at);
            (length > 0).then_some(at + length)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use crate::chunk::{ChunkBuilder, Record};
    use crate::offsets::LogPartition;

    fn by_field(name: &str, text: &str) -> (Match, bool) {
        (Match::field(name, text), false)
    }

    /// Events of the topic "t" with these values.
    fn route<'e>(router: &Router, values: impl IntoIterator<Item = Option<&'e [u8]>>) -> Routes {
        let event = |value| Event { topic: "t", key: None, value, headers: EventHeaders::Unknown };
        router.route_events(values.into_iter().map(event))
    }

    #[track_caller]
    fn check(json: &str, expected: Option<&str>) {
        let found = top_level_field(json.as_bytes(), "event_type").ok().map(|scalar| match scalar {
            Scalar::Plain(text) => String::from_utf8_lossy(text).into_owned(),
            Scalar::Escaped(text) => serde_json::from_slice(text).expect("an escaped string"),
        });
        assert_eq!(found.as_deref(), expected, "{json}");
    }

    #[test]
    fn only_the_top_level_field_is_found() {
        check(r#"{"event_type":"page_view","x":1}"#, Some("page_view"));
        check(r#" { "x" : [1, {"event_type": "no"}] , "event_type" : "yes" } "#, Some("yes"));
        check(r#"{"x":{"event_type":"no"}}"#, None);
        check(r#"{"x":"\"event_type\":\"no\"","event_type":"yes"}"#, Some("yes"));
        check(r#"{"x":"event_type","y":1.5e3,"event_type":7}"#, Some("7"));
        check(r#"{"event_type":true}"#, Some("true"));
        check(r#"{"event_type":"pa\u0067e"}"#, Some("page"));
        check(r#"{"event_type":{"a":1}}"#, None);
        check(r#"{"x":"\\","event_type":"yes"}"#, Some("yes"));
        check("\u{feff}{\"event_type\":\"yes\"}", Some("yes"));
        check(r#"{"event\u005ftype":"yes"}"#, Some("yes"));
        check(r#"{"event_type":"first","event_type":"second"}"#, Some("first"));
    }

    #[test]
    fn unrouted_events_have_a_reason() {
        let router = Router::of([by_field("t", "a"), by_field("u", "b")]);
        let utf16: Vec<u8> = "\u{feff}{\"t\":\"a\"}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for (value, reason) in [
            (&b""[..], UnroutedReason::Empty),
            (b"not json", UnroutedReason::NotJson),
            (&utf16, UnroutedReason::NotJson),
            (b"\0\0\0\0*{\"t\":\"a\"}", UnroutedReason::NotJson),
            (b"\x1f\x8b\x08\0", UnroutedReason::NotJson),
            (b"{\"x\":1", UnroutedReason::NotJson),
            (b"{\"t\"}", UnroutedReason::NotJson),
            (b"[{\"t\":\"a\"}]", UnroutedReason::NotAnObject),
            (b" 7 ", UnroutedReason::NotAnObject),
            (b"{}", UnroutedReason::NoSuchField),
            (b"{\"payload\":{\"t\":\"a\"}}", UnroutedReason::NoSuchField),
            (b"{\"t\":\"c\"}", UnroutedReason::OtherValue),
            (b"{\"u\":{\"b\":1}}", UnroutedReason::OtherValue),
        ] {
            let unrouted = route(&router, [Some(&b"{\"t\":\"a\"}"[..]), Some(value)]).unrouted;
            assert_eq!((unrouted.get(reason), unrouted.total()), (1, 1), "{}", String::from_utf8_lossy(value));
            assert_eq!(unrouted.first_row(), Some(1));
        }
        assert_eq!(route(&router, [None]).unrouted.get(UnroutedReason::Empty), 1);
        assert_eq!(route(&Router::of([]), [Some(&b"{}"[..])]).unrouted.total(), 1);
    }

    #[test]
    fn broken_events_are_routed_as_far_as_they_can_be_read() {
        check(r#"{"event_type":"page_view","url":"cut of"#, Some("page_view"));
        check(r#"{"event_type":"page_vi"#, None);
        check(r#"["event_type"]"#, None);
        check("", None);
        check("{", None);
        check("{}", None);
        check(r#"{"event_type"}"#, None);
        check(r#"{"a":}"#, None);
        check(r#"{"a":]]]]"#, None);
    }

    #[test]
    fn an_event_goes_to_every_matching_table() {
        let router = Router::of([by_field("t", "a"), by_field("t", "b"), by_field("u", "a"), by_field("t", "a")]);
        let events: [Option<&[u8]>; 5] = [
            Some(br#"{"t":"a","u":"a"}"#),
            Some(br#"{"t":"b"}"#),
            None,
            Some(br#"{"t":"c"}"#),
            Some(br#"{"u":"a","t":"a"}"#),
        ];
        let routes = route(&router, events);
        assert_eq!(routes.tables, vec![vec![0, 4], vec![1], vec![0, 4], vec![0, 4]]);
        assert_eq!(routes.unrouted.total(), 2);
    }

    /// Topic, key, value, header.
    type Given = (&'static str, Option<&'static str>, Option<&'static str>, Option<(&'static str, &'static str)>);

    const RECORDS: [Given; 8] = [
        (
            "orders",
            Some("k1"),
            Some(r#"{"type":"new","payload":{"op":"c","after":{"id":1}}}"#),
            Some(("kind", "order")),
        ),
        ("orders", None, Some(r#"{"type":"paid","payload":{"op":"u","after":null}}"#), None),
        ("orders", Some("k1"), None, None),
        ("carts", Some("k2"), Some(r#"{"type":"new","payload":7}"#), Some(("kind", "cart"))),
        ("carts", None, None, Some(("kind", "order"))),
        ("carts", None, Some("not JSON"), None),
        ("carts", None, Some(""), None),
        ("carts", None, Some(r#"{"n":7,"yes":true}"#), None),
    ];

    fn records() -> Chunk {
        let mut builder = ChunkBuilder::default();
        for (offset, (topic, key, value, header)) in (0..).zip(RECORDS) {
            let log = builder.log(&LogPartition::new("c", topic, 0));
            let headers = header.map(|(name, value)| (std::borrow::Cow::Borrowed(name), Some(value.as_bytes())));
            let (key, value) = (key.map(str::as_bytes), value.map(str::as_bytes));
            builder.push(log, offset, Record { offset, timestamp: None, key, value, headers: headers.into_iter() });
        }
        builder.finish(0)
    }

    /// The rows that meet a `match` of pipeline.toml.
    #[track_caller]
    fn check_match(matches: &str, tombstones: bool, expected: &[u32]) {
        let text = format!(
            "[source]\nbrokers = \"b:1\"\ntopics = [\"orders\", \"carts\"]\n[silver.t]\nplugin = \"p\"\n\
             match = {matches}\nevent_time = \"ts\"\ntombstones = {tombstones}\n"
        );
        let pipeline = crate::config::check(&text, &|_| None).unwrap_or_else(|errors| panic!("{matches}: {errors}"));
        let routes = Router::new(&pipeline.silver).route(&records());
        assert_eq!(routes.tables, [expected], "{matches}");
        assert_eq!(routes.unrouted.total(), (RECORDS.len() - expected.len()) as u64, "{matches}");
    }

    #[test]
    fn conditions() {
        for (matches, expected) in [
            ("\"everything\"", &[0, 1, 3, 5, 6, 7][..]),
            ("{ topic = \"orders\" }", &[0, 1]),
            ("{ topic = [\"orders\", \"other\"] }", &[0, 1]),
            ("{ topic = \"other\" }", &[]),
            ("{ key = \"k1\" }", &[0]),
            ("{ key = [\"k1\", \"k2\"] }", &[0, 3]),
            ("{ key = true }", &[0, 3]),
            ("{ key = false }", &[1, 5, 6, 7]),
            ("{ header = \"kind\", equals = \"order\" }", &[0]),
            ("{ header = \"kind\", exists = false }", &[1, 5, 6, 7]),
            ("{ field = \"type\", in = [\"new\", \"paid\"] }", &[0, 1, 3]),
            ("{ field = \"type\", exists = true }", &[0, 1, 3]),
            ("{ field = \"type\", exists = false }", &[7]),
            ("{ field = \"n\", equals = \"7\" }", &[7]),
            ("{ field = \"yes\", equals = \"true\" }", &[7]),
            ("{ field = [\"payload\", \"op\"], equals = \"u\" }", &[1]),
            ("{ field = [\"payload\", \"after\"], exists = true }", &[0]),
            ("{ field = [\"payload\", \"after\", \"id\"], exists = false }", &[1, 3, 7]),
            ("{ topic = \"carts\", field = \"type\", equals = \"new\" }", &[3]),
            ("{ or = [{ topic = \"orders\" }, { field = \"n\", exists = true }] }", &[0, 1, 7]),
            ("{ topic = \"orders\", not = { field = \"type\", equals = \"new\" } }", &[1]),
            ("{ not = { or = [{ topic = \"orders\" }, { key = true }] } }", &[5, 6, 7]),
            ("{ and = [{ header = \"kind\", exists = true }, { field = \"type\", equals = \"new\" }] }", &[0, 3]),
        ] {
            check_match(matches, false, expected);
        }
    }

    #[test]
    fn tombstones_go_to_the_tables_that_ask_for_them() {
        check_match("\"everything\"", true, &[0, 1, 2, 3, 4, 5, 6, 7]);
        check_match("{ topic = \"orders\" }", true, &[0, 1, 2]);
        check_match("{ header = \"kind\", equals = \"order\" }", true, &[0, 4]);
        check_match("{ field = \"type\", equals = \"new\" }", true, &[0, 3]);
    }

    #[test]
    fn a_table_takes_topics() {
        let router = Router::of([
            (Match::Topic(vec!["a".to_owned()]), false),
            (Match::Not(Box::new(Match::Topic(vec!["a".to_owned()]))), false),
            (Match::And(vec![Match::Topic(vec!["b".to_owned()]), Match::field("t", "x")]), false),
            by_field("t", "x"),
        ]);
        let takes = |topic| [0, 1, 2, 3].map(|table| router.takes(table, topic));
        assert_eq!(takes("a"), [true, false, false, true]);
        assert_eq!(takes("b"), [false, true, true, true]);
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-z\"\\\\{}\\[\\]:,é]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-c]{1,2}", inner, 0..4)
                    .prop_map(|map| Value::Object(Map::from_iter(map))),
            ]
        })
    }

    proptest! {
        #[test]
        fn routing_agrees_with_a_full_parser(fields in prop::collection::btree_map("[a-c]{1,2}", json(), 0..6), pretty in any::<bool>()) {
            let object = Value::Object(Map::from_iter(fields));
            let text = if pretty { serde_json::to_string_pretty(&object) } else { serde_json::to_string(&object) };
            let text = text.expect("JSON");
            for name in ["a", "b", "c", "ab"] {
                let found = top_level_field(text.as_bytes(), name).ok();
                match object.get(name) {
                    None | Some(Value::Object(_) | Value::Array(_)) => prop_assert_eq!(found, None),
                    Some(Value::String(expected)) => match found {
                        Some(Scalar::Plain(text)) => prop_assert_eq!(text, expected.as_bytes()),
                        Some(Scalar::Escaped(text)) => {
                            prop_assert_eq!(&serde_json::from_slice::<String>(text).expect("a string"), expected)
                        }
                        None => prop_assert!(false, "{} not found in {}", name, text),
                    },
                    Some(other) => {
                        let expected = other.to_string();
                        prop_assert_eq!(found, Some(Scalar::Plain(expected.as_bytes())));
                    }
                }
            }
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(prop_oneof![Just(b'{'), Just(b'"'), Just(b':'), Just(b','), Just(b'\\'), Just(b']'), Just(b'['), Just(b'}'), Just(b'a')], 0..40)) {
            let _ = top_level_field(&bytes, "a");
        }
    }
}
