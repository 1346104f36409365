//! Routing: an event goes to each Silver table whose top-level JSON field has the configured value. Nothing else is
//! parsed.

use memchr::memchr2;

use crate::config::SilverTable;
use crate::json::BYTE_ORDER_MARK;
use crate::unrouted::{UnroutedEvents, UnroutedReason};

/// Routes events to the tables of a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Router {
    /// Each field that any table matches on, with the values and the tables of each value.
    fields: Vec<RoutedField>,
    tables: usize,
}

#[derive(Debug, Clone, PartialEq)]
struct RoutedField {
    name: String,
    values: Vec<(String, Vec<usize>)>,
}

/// The events of a chunk by table, as ascending row numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Routes {
    pub tables: Vec<Vec<u32>>,
    /// The events that no table gets.
    pub unrouted: UnroutedEvents,
}

impl Router {
    pub fn new(tables: &[SilverTable]) -> Self {
        Self::of(tables.iter().map(|table| (table.matches.field.as_str(), table.matches.equals.as_str())))
    }

    /// Table `i` gets the events in which field `tables[i].0` equals `tables[i].1`.
    pub fn of<'a>(tables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut router = Self { fields: Vec::new(), tables: 0 };
        for (field, value) in tables {
            let at = router.fields.iter().position(|f| f.name == field).unwrap_or_else(|| {
                router.fields.push(RoutedField { name: field.to_owned(), values: Vec::new() });
                router.fields.len() - 1
            });
            let values = &mut router.fields[at].values;
            match values.iter_mut().find(|(v, _)| v == value) {
                Some((_, tables)) => tables.push(router.tables),
                None => values.push((value.to_owned(), vec![router.tables])),
            }
            router.tables += 1;
        }
        router
    }

    /// Routes the events with these values; an event without a value goes to no table.
    pub fn route<'a>(&self, values: impl IntoIterator<Item = Option<&'a [u8]>>) -> Routes {
        let mut routes = Routes { tables: vec![Vec::new(); self.tables], unrouted: UnroutedEvents::default() };
        for (row, value) in values.into_iter().enumerate() {
            let (mut is_routed, mut reason) = (false, UnroutedReason::Empty);
            for field in &self.fields {
                match value.ok_or(UnroutedReason::Empty).and_then(|value| field.tables(value)) {
                    Ok(tables) => {
                        tables.iter().for_each(|table| routes.tables[*table].push(row as u32));
                        is_routed = true;
                    }
                    // Of several fields, the one that was found says the most.
                    Err(why) => reason = reason.max(why),
                }
            }
            if !is_routed {
                routes.unrouted.add(row as u32, reason);
            }
        }
        routes
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
    let json = json.strip_prefix(BYTE_ORDER_MARK).unwrap_or(json);
    let mut at = skip_space(json, 0);
    if json.get(at) != Some(&b'{') {
        return Err(reason_without_object(json));
    }
    at = skip_space(json, at + 1);
    while json.get(at) != Some(&b'}') {
        let (key, value, next) = member(json, at).ok_or(UnroutedReason::NotJson)?;
        if is_key(key, name) {
            return scalar(value).ok_or(UnroutedReason::OtherValue);
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
        let router = Router::of([("t", "a"), ("u", "b")]);
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
            let unrouted = router.route([Some(&b"{\"t\":\"a\"}"[..]), Some(value)]).unrouted;
            assert_eq!((unrouted.get(reason), unrouted.total()), (1, 1), "{}", String::from_utf8_lossy(value));
            assert_eq!(unrouted.first_row(), Some(1));
        }
        assert_eq!(router.route([None]).unrouted.get(UnroutedReason::Empty), 1);
        assert_eq!(Router::of([]).route([Some(&b"{}"[..])]).unrouted.total(), 1);
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
        let router = Router::of([("t", "a"), ("t", "b"), ("u", "a"), ("t", "a")]);
        let events: [Option<&[u8]>; 5] = [
            Some(br#"{"t":"a","u":"a"}"#),
            Some(br#"{"t":"b"}"#),
            None,
            Some(br#"{"t":"c"}"#),
            Some(br#"{"u":"a","t":"a"}"#),
        ];
        let routes = router.route(events);
        assert_eq!(routes.tables, vec![vec![0, 4], vec![1], vec![0, 4], vec![0, 4]]);
        assert_eq!(routes.unrouted.total(), 2);
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
