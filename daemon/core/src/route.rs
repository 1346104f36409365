//! Routing: an event goes to each Silver table whose top-level JSON field has the configured value. Nothing else is
//! parsed.

use memchr::memchr2;

use crate::config::SilverTable;

/// Routes events to the tables of a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Router {
    /// Each field that any table matches on, with the values and the tables of each value.
    fields: Vec<RoutedField>,
    tables: usize,
}

#[derive(Debug, Clone, PartialEq)]
struct RoutedField {
    /// As written between the quotes in JSON; a name that needs escapes is never found.
    name: String,
    values: Vec<(String, Vec<usize>)>,
}

/// The events of a chunk by table, as ascending row numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Routes {
    pub tables: Vec<Vec<u32>>,
    /// The number of events that no table gets.
    pub unrouted: usize,
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
        let mut routes = Routes { tables: vec![Vec::new(); self.tables], unrouted: 0 };
        for (row, value) in values.into_iter().enumerate() {
            let mut routed = false;
            for field in &self.fields {
                for table in value.map_or(&[][..], |value| field.tables(value)) {
                    routes.tables[*table].push(row as u32);
                    routed = true;
                }
            }
            routes.unrouted += usize::from(!routed);
        }
        routes
    }
}

impl RoutedField {
    fn tables(&self, event: &[u8]) -> &[usize] {
        let Some(found) = top_level_field(event, &self.name) else { return &[] };
        let found = match found {
            Scalar::Plain(text) => self.values.iter().find(|(value, _)| value.as_bytes() == text),
            Scalar::Escaped(text) => {
                let text = serde_json::from_slice::<String>(text).ok();
                self.values.iter().find(|(value, _)| Some(value) == text.as_ref())
            }
        };
        found.map_or(&[], |(_, tables)| tables)
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
/// is wrong with it. A key that is written with escapes is not found.
pub fn top_level_field<'a>(json: &'a [u8], name: &str) -> Option<Scalar<'a>> {
    let mut at = skip_space(json, 0);
    if json.get(at) != Some(&b'{') {
        return None;
    }
    at = skip_space(json, at + 1);
    loop {
        let key_end = string_end(json, at)?;
        let key = &json[at + 1..key_end - 1];
        at = skip_space(json, key_end);
        if json.get(at) != Some(&b':') {
            return None;
        }
        at = skip_space(json, at + 1);
        let end = value_end(json, at)?;
        if key == name.as_bytes() {
            return scalar(&json[at..end]);
        }
        at = skip_space(json, end);
        if json.get(at) != Some(&b',') {
            return None;
        }
        at = skip_space(json, at + 1);
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
        let found = top_level_field(json.as_bytes(), "event_type").map(|scalar| match scalar {
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
        assert_eq!(routes.unrouted, 2);
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
                let found = top_level_field(text.as_bytes(), name);
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
