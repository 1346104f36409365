//! The tape, compared with serde_json's parser.

use proptest::prelude::*;
use serde_json::{Map, Value};

use super::*;

/// The value on the tape, as serde_json has it. Numbers as text, since the tape does not read them.
fn value(tape: &Tape, text: &[u8], node: usize) -> Value {
    let Node { kind, start, end, .. } = tape.nodes()[node];
    let raw = &text[start as usize..end as usize];
    match kind {
        Kind::Null => Value::Null,
        Kind::True => Value::Bool(true),
        Kind::False => Value::Bool(false),
        Kind::Number => serde_json::from_slice(raw).unwrap(),
        Kind::Text => Value::String(String::from_utf8(raw.to_vec()).unwrap()),
        Kind::Escaped => {
            let mut content = Vec::new();
            unescape(raw, &mut content);
            Value::String(String::from_utf8(content).unwrap())
        }
        Kind::Array => tape.items(node).map(|item| value(tape, text, item)).collect(),
        Kind::Object => {
            let mut members = Map::new();
            for (key, member) in tape.members(node) {
                let Value::String(key) = value(tape, text, key) else { panic!("a key is a text") };
                // serde_json keeps the last of equal keys.
                members.insert(key, value(tape, text, member));
            }
            Value::Object(members)
        }
    }
}

fn read(text: &[u8]) -> Result<Value, JsonError> {
    let mut tape = Tape::default();
    tape.read(text).map(|()| value(&tape, text, 0))
}

/// Both parsers take the text, with the same value, or neither does.
#[track_caller]
fn check(text: &[u8]) {
    let (ours, theirs) = (read(text), serde_json::from_slice::<Value>(text));
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => assert_eq!(ours, theirs, "{}", String::from_utf8_lossy(text)),
        (Err(_), Err(_)) => {}
        (Ok(_), Err(error)) => panic!("{error}: {}", String::from_utf8_lossy(text)),
        (Err(error), Ok(_)) => panic!("{error}: {}", String::from_utf8_lossy(text)),
    }
}

#[test]
fn the_same_texts_are_valid_as_for_serde() {
    let texts: &[&[u8]] = &[
        b"",
        b" ",
        b"{",
        b"}",
        b"[",
        b"]",
        b"[]",
        b"{}",
        b"[,]",
        b"[1,]",
        b"[,1]",
        b"[1 2]",
        b"{,}",
        b"{\"a\"}",
        b"{\"a\":}",
        b"{\"a\":1,}",
        b"{\"a\" 1}",
        b"{a:1}",
        b"{'a':1}",
        b"{1:1}",
        b"{\"a\":1}}",
        b"{\"a\":1}x",
        b"{} {}",
        b"[]]",
        b"[}",
        b"{]",
        b"[[]",
        b"{\"a\":[}",
        b"nul",
        b"nulll",
        b"null",
        b"true",
        b"tru",
        b"True",
        b"false",
        b"fals",
        b"falsey",
        b"0",
        b"-0",
        b"-",
        b"01",
        b"-01",
        b"1.",
        b".1",
        b"1.5",
        b"1e",
        b"1e+",
        b"1e5",
        b"1E-5",
        b"1.e5",
        b"+1",
        b"0x10",
        b"1_000",
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"1 ",
        b"\t1\r\n",
        b"\x0b1",
        b"\xc2\xa01",
        b"\"",
        b"\"\"",
        b"\"a",
        b"\"\\\"",
        b"\"\\\\\"",
        b"\"\\x\"",
        b"\"\\u12\"",
        b"\"\\u123g\"",
        b"\"\\u00e9\"",
        b"\"\\u\"",
        b"\"\\",
        b"\"\\ud83d\\ude00\"",
        b"\"\\ud83d\"",
        b"\"\\ude00\"",
        b"\"\\ud83d\\u0041\"",
        b"\"\\ud83dx\"",
        b"\"\\ud83d\\",
        b"\"\n\"",
        b"\"\0\"",
        b"\"\x1f\"",
        b"\"\x7f\"",
        b"\"\xff\"",
        b"\"\xc3\"",
        b"\"\xed\xa0\x80\"",
        b"\"\xf4\x90\x80\x80\"",
        b"{\"a\xff\":1}",
        b"[1,\xff]",
        b"\xff",
        b"\"\xe2\x82\xac\"",
        b"// x\n1",
        b"/* */ 1",
        b"[1, /* x */ 2]",
        b"{\"a\":1,\"a\":2}",
        b"{\"\":0}",
        b"{\"\\u0061\":1}",
        b"{\"a\":{\"b\":[{\"c\":null}]}}",
        b"[[[[[[1]]]]]]",
    ];
    for text in texts {
        check(text);
    }
}

#[test]
fn numbers_keep_their_text() {
    for number in ["12345678901234567890123456789", "-0.10", "1.50e3", "18446744073709551616", "1e999"] {
        let mut tape = Tape::default();
        tape.read(number.as_bytes()).unwrap();
        let Node { kind, start, end, .. } = tape.nodes()[0];
        assert_eq!((kind, start, end as usize), (Kind::Number, 0, number.len()));
    }
}

#[test]
fn nesting_is_limited() {
    let nested = |depth| ["[".repeat(depth), "]".repeat(depth)].concat();
    assert!(read(nested(DEPTH_MAX).as_bytes()).is_ok());
    let error = read(nested(DEPTH_MAX + 1).as_bytes()).unwrap_err();
    assert_eq!((error.at, error.expected), (DEPTH_MAX, "at most 128 levels of nesting"));
    assert!(read("[".repeat(10_000_000).as_bytes()).is_err());
    assert!(read("{\"a\":".repeat(10_000_000).as_bytes()).is_err());
}

#[test]
fn errors_say_where_and_what() {
    let check = |text: &[u8], at: usize, expected: &str| {
        let error = read(text).unwrap_err();
        assert_eq!((error.at, error.expected), (at, expected), "{}", String::from_utf8_lossy(text));
    };
    check(b"", 0, "a value");
    check(b"{\"a\": 1 \"b\": 2}", 8, "`,` or `}`");
    check(b"[1 2]", 3, "`,` or `]`");
    check(b"{\"a\": nil}", 6, "a value");
    check(b"{\"a\" 1}", 5, "`:`");
    check(b"{\"a\": 1, }", 9, "a key in quotes");
    check(b"{a: 1}", 1, "a key in quotes or `}`");
    check(b"{\"a\": \"x", 8, "a closing quote");
    check(b"{\"a\": \"x\ny\"}", 8, "a control character as an escape, such as \\n");
    check(b"{\"a\": 1}{\"a\": 2}", 8, "the end of the value");
    check(b"{\"a\": \"\xff\"}", 7, "UTF-8");
    check(b"{\"a\": ?, \"b\": \"\xff\"}", 6, "a value");
    check(b"{\"a\": -x}", 7, "a digit");
}

#[test]
fn complete_members_before_an_error_are_found() {
    let check = |text: &[u8], expected: &[&str]| {
        let mut tape = Tape::default();
        tape.read(text).unwrap_err();
        let keys: Vec<_> = if tape.nodes().is_empty() { Vec::new() } else { tape.members(0).collect() };
        let keys: Vec<_> = keys.into_iter().map(|(key, _)| value(&tape, text, key)).collect();
        assert_eq!(keys, expected, "{}", String::from_utf8_lossy(text));
    };
    check(b"{\"a\": 1, \"b\": [2, 3], \"c\": \"cut o", &["a", "b"]);
    check(b"{\"a\": 1, \"b\": [2, {\"x\": 3", &["a"]);
    check(b"{\"a\": 1, \"b\"", &["a"]);
    check(b"{\"a\": 1, \"b\": \"\xff\", \"c\": 1}", &["a"]);
    check(b"{\"a\": 1} x", &["a"]);
    check(b"{\"a", &[]);
    check(b"[1, 2", &[]);
    check(b"\"x", &[]);
    check(b"", &[]);
}

#[test]
fn a_byte_order_mark_is_skipped() {
    assert_eq!(read(b"\xef\xbb\xbf{\"a\": 1}"), Ok(serde_json::json!({ "a": 1 })));
    assert!(read(b"\xef\xbb\xbf").is_err());
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|number| Value::from(f64::from(number) / 8.0)),
        "\\PC{0,40}".prop_map(Value::from),
        "[\\x00-\\x22\\\\]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("\\PC{0,6}", inner, 0..6).prop_map(|map| Value::Object(Map::from_iter(map))),
        ]
    })
}

proptest! {
    #[test]
    fn every_value_is_read_back(value in json(), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) }.unwrap();
        prop_assert_eq!(read(&text), Ok(value));
    }

    /// Changing, removing or adding a byte gives a text that both parsers take, or neither.
    #[test]
    fn the_same_damaged_texts_are_valid_as_for_serde(value in json(), at in any::<prop::sample::Index>(), byte in any::<u8>(), how in 0..4) {
        let mut text = serde_json::to_vec(&value).unwrap();
        let at = at.index(text.len());
        match how {
            0 => text[at] = byte,
            1 => drop(text.remove(at)),
            2 => text.insert(at, byte),
            _ => text.truncate(at),
        }
        let theirs = serde_json::from_slice::<Value>(&text);
        let out_of_range = theirs.as_ref().is_err_and(|error| error.to_string().starts_with("number out of range"));
        prop_assert!(out_of_range || read(&text).is_ok() == theirs.is_ok(), "{:?}: {:?}", theirs, String::from_utf8_lossy(&text));
    }

    #[test]
    fn bytes_never_panic(bytes in prop::collection::vec(prop_oneof![3 => prop::sample::select(&b"{}[]\":,\\u0d1e-. tn"[..]), 1 => any::<u8>()], 0..60)) {
        let mut tape = Tape::default();
        let _ = tape.read(&bytes);
        for node in 0..tape.nodes().len() {
            let _ = value(&tape, &bytes, node);
        }
    }
}
