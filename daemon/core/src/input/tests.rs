//! Types that are read from WIT, events that fit them, and the reasons of those that do not.

use std::borrow::Cow;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{ArrayRef, RecordBatch};
use proptest::prelude::*;
use wit_parser::Resolve;

use super::*;
use crate::chunk::{Chunk, ChunkBuilder, Record};
use crate::offsets::LogPartition;
use crate::outcome::Code;
use crate::schema::ContractError;

const TYPES: &str = include_str!("../../../../wit/types.wit");

/// The WIT of a table that takes `events`, and has these types.
fn table(types: &str, events: &str) -> String {
    format!(
        "package test:silver@0.1.0;
         interface hits {{
           use silverd:pipeline/types@0.2.0.{{batch, meta, reject, timestamp, date, money, json}};
           {types}
           record row {{ n: u32 }}
           record output {{ rows: list<row>, row-events: list<u32>, rejects: list<reject> }}
           transform: func(events: {events}) -> output;
         }}
         world hits-plugin {{ export hits; }}"
    )
}

fn read(types: &str, events: &str) -> Result<Input, ContractError> {
    let text = table(types, events);
    let mut resolve = Resolve::default();
    resolve.push_str("types.wit", TYPES).expect("the contract");
    let package = resolve.push_str("table.wit", &text).unwrap_or_else(|error| panic!("{error:?}\n{text}"));
    let world = resolve.select_world(&[package], None).expect("one world");
    Input::of_world(&resolve, world, Some(&text))
}

fn typed(types: &str, events: &str) -> EventType {
    match read(types, events).expect("a type") {
        Input::Typed(ty) => ty,
        Input::Raw(version) => panic!("raw records of {version:?}"),
    }
}

fn chunk<'a>(values: impl IntoIterator<Item = Option<&'a [u8]>>) -> Chunk {
    let (mut builder, log) = ChunkBuilder::of(&LogPartition::new("c", "t", 0));
    for (offset, value) in (0..).zip(values) {
        let headers = std::iter::empty::<(Cow<'_, str>, Option<&[u8]>)>();
        builder.push(log, offset, Record { offset, timestamp: None, key: None, value, headers });
    }
    builder.finish(0)
}

fn decode(ty: &EventType, value: Option<&[u8]>) -> Result<Image, Rejection> {
    let (chunk, mut image) = (chunk([value]), Image::default());
    Decoder::default().decode(ty, &Records::new(&chunk), 0, &mut image, 1 << 20)?;
    Ok(image)
}

#[track_caller]
fn check_rejected(ty: &EventType, value: &str, code: Code, reason: &str) {
    let rejection = decode(ty, Some(value.as_bytes())).expect_err(value);
    assert_eq!((rejection.code, rejection.reason.as_str()), (code, reason), "{value}");
}

#[track_caller]
fn check_refused(types: &str, events: &str, expected: &str) {
    let error = read(types, events).expect_err(types).to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn raw_and_typed_events_are_distinguished() {
    assert_eq!(read("", "batch"), Ok(Input::Raw(ContractVersion::V0_2)));
    let alone = typed("record input { n: u32 }", "list<input>");
    assert_eq!((alone.layout, alone.meta), (Layout { size: 4, align: 4 }, None));
    let both = typed("record input { n: u8 } record event { input: input, meta: meta }", "list<event>");
    assert_eq!(both.layout, Layout { size: 64, align: 8 });
    assert_eq!(both.meta.map(|meta| (meta.at, meta.offset, meta.key.at, meta.headers)), Some((8, 16, 32, 44)));
    let tombstones = typed("record input { n: u64 } record event { input: option<input> }", "list<event>");
    assert_eq!((tombstones.input.optional, tombstones.layout), (Some(8), Layout { size: 16, align: 8 }));
}

#[test]
fn types_without_a_form_in_json_are_refused() {
    let check = |field: &str, expected: &str| {
        let types = format!("flags f {{ a, b }} variant v {{ a, b(u8) }} record input {{ {field} }}");
        check_refused(&types, "list<input>", expected);
    };
    check(
        "a: u8, more: list<u8>",
        "field `more` of the input has type `list<u8>`, which silverd cannot read from JSON; JSON",
    );
    check("a: tuple<u8, u8>", "`tuple`");
    check("a: list<tuple<u8, u8>>", "`tuple`");
    check("a: result<u8>", "`result`");
    check("a: v", "`variant`");
    check("a: f", "`flags`");
    check("a: option<option<u8>>", "use one option");
    check("a: u8, /// @name(\"a\")\n b: u8", "have the key `a` in JSON; the second is `b`");
    check("/// @name(a)\n a: u8", "the comment of `input.a` has the line `@name(a)`");
    check_refused("record input { n: u8 }", "input", "expected values, found a field `n`");
    check_refused("", "list<u32>", "a list of records");
    let meta = "record meta2 { topic: string } record input { n: u8 } record event { input: input, meta: meta2 }";
    check_refused(meta, "list<event>", "events[].meta.partition");
}

#[test]
fn names_come_from_the_wit_text() {
    let types = "enum size { small, /// @name(\"XXL\")\n huge } record input { /// The id. \n /// @name(\"eventId\")\n event-id: \
                 string, user-id: string, size: size }";
    let ty = typed(types, "list<input>");
    let Type::Record(fields) = &ty.input.ty else { panic!("a record") };
    assert_eq!(fields.iter().map(|field| &*field.key).collect::<Vec<_>>(), ["eventId", "user_id", "size"]);
    assert!(decode(&ty, Some(br#"{"eventId": "e", "user_id": "u", "size": "xxl"}"#)).is_ok());
    check_rejected(
        &ty,
        r#"{"eventId": "e", "user_id": "u", "size": "huge"}"#,
        Code::OutOfRange,
        "size: expected one of small, XXL, found \"huge\" at byte 41",
    );
}

#[test]
fn events_that_do_not_fit_are_rejected_with_field_and_byte() {
    let types = "record item { sku: string, qty: u32 } record input { id: string, ts: timestamp, items: \
                 option<list<item>>, sizes: option<list<tuple<string, u8>>>, letter: option<char> }";
    let ty = typed(types, "list<input>");
    let check = |value: &str, code, reason: &str| check_rejected(&ty, value, code, reason);
    let ts = r#""ts": "2025-08-16T14:50:49Z""#;
    check("", Code::Malformed, "not JSON: expected a value, found the end of the value at byte 0");
    check("{\"id\": \"e\"", Code::Malformed, "not JSON: expected `,` or `}`, found the end of the value at byte 10");
    check("{\"id\": ?}", Code::Malformed, "not JSON: expected a value, found \"?}\" at byte 7");
    check("[]", Code::Malformed, "not a JSON object");
    check("{}", Code::MissingField, "id: absent or empty");
    check(r#"{"id": null}"#, Code::MissingField, "id: absent or empty");
    check(r#"{"id": " \t"}"#, Code::MissingField, "id: absent or empty");
    check(r#"{"id": []}"#, Code::Malformed, "id: expected a text, found [] at byte 7");
    check(r#"{"id": 7}"#, Code::MissingField, "ts: absent or empty");
    check(r#"{"id": 7, "ts": " "}"#, Code::MissingField, "ts: absent or empty");
    let items = |items: &str| format!("{{\"id\": \"e\", {ts}, \"items\": {items}}}");
    check(&items("{}"), Code::Malformed, "items: expected an array, found {} at byte 51");
    check(&items("[null]"), Code::MissingField, "items[0]: absent or empty");
    check(&items(r#"[{"sku": "a", "qty": 1}, {"qty": 2}]"#), Code::MissingField, "items[1].sku: absent or empty");
    let found = decode(&ty, Some(items(r#"[{"sku": "a", "qty": -1}]"#).as_bytes())).expect_err("no count");
    assert_eq!(found.code, Code::OutOfRange);
    assert!(found.reason.starts_with("items[0].qty: expected ") && found.reason.ends_with(", found -1 at byte 72"));
    let sizes = format!("{{\"id\": \"e\", {ts}, \"sizes\": {{\"a\": 1, \"b\": {{}}}}}}");
    let found = decode(&ty, Some(sizes.as_bytes())).expect_err("no size");
    assert!(found.reason.starts_with("sizes.b: expected "), "{}", found.reason);
    let letter = format!("{{\"id\": \"e\", {ts}, \"letter\": \"ab\"}}");
    check(&letter, Code::Malformed, "letter: expected a text of one character, found \"ab\" at byte 52");
    assert!(decode(&ty, None).expect_err("a tombstone").reason.contains("tombstone"));
}

#[test]
fn a_rejected_event_leaves_nothing_behind() {
    let ty = typed("record input { tags: list<string>, n: u8 }", "list<input>");
    let good = br#"{"tags": ["", "\n"], "n": 1}"#;
    let bad = br#"{"tags": ["a", "\n", "c"], "n": "x"}"#;
    let chunk = chunk([Some(&good[..]), Some(bad), Some(good)]);
    let (records, mut decoder, mut image) = (Records::new(&chunk), Decoder::default(), Image::default());
    let decoded = [0, 1, 2].map(|row| decoder.decode(&ty, &records, row, &mut image, 1 << 20).is_ok());
    assert_eq!(decoded, [true, false, true]);
    assert_eq!((image.len(), image.events().len(), image.blocks().len()), (2, 24, 6));
    assert_eq!(image.nested().len(), 2 * (2 * 8 + 1));
}

#[test]
fn the_first_of_equal_keys_counts_and_escaped_keys_are_found() {
    let ty = typed("record input { n: u8 }", "list<input>");
    let image = decode(&ty, Some(br#"{"\u006e": 1, "n": 2, "n": "x"}"#)).expect("fits");
    assert_eq!(image.events(), [1]);
}

#[test]
fn tombstones_are_none_where_the_table_asks_for_them() {
    let ty = typed("record input { n: u8 } record event { input: option<input> }", "list<event>");
    assert_eq!(decode(&ty, None).expect("a tombstone").events(), [0, 0]);
    assert_eq!(decode(&ty, Some(b"{\"n\": 7}")).expect("a value").events(), [1, 7]);
    check_rejected(&ty, "", Code::Malformed, "not JSON: expected a value, found the end of the value at byte 0");
}

/// Few bytes of JSON may be many bytes of records.
#[test]
fn what_an_event_takes_is_bounded() {
    let names: Vec<String> = (0..20).map(|at| format!("f{}: option<u64>", "x".repeat(at + 1))).collect();
    let types = format!("record wide {{ {} }} record input {{ wide: list<wide> }}", names.join(", "));
    let ty = typed(&types, "list<input>");
    let value = format!("{{\"wide\": [{}]}}", vec!["{}"; 100_000].join(","));
    check_rejected(
        &ty,
        &value,
        Code::OutOfRange,
        "wide: the event takes more than 1048576 bytes in the plugin's memory",
    );
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_rejected(bytes in prop::collection::vec(prop_oneof![3 => prop::sample::select(&b"{}[]\":,\\nid0123ts-. "[..]), 1 => any::<u8>()], 0..80)) {
        let types = "record item { n: s8, d: option<date> } record input { n: option<u8>, i: option<list<item>>, d: \
                     option<json>, s: option<list<tuple<string, item>>> }";
        let ty = typed(types, "list<input>");
        let _ = decode(&ty, Some(&bytes));
    }
}

#[test]
fn decoded_events_become_columns() {
    let fields = [
        ("id", "string"),
        ("eventId", "option<u64>"),
        ("small", "u8"),
        ("qty", "option<s16>"),
        ("on", "bool"),
        ("x", "f64"),
        ("ts", "timestamp"),
        ("day", "option<date>"),
        ("total", "money"),
        ("any", "json"),
        ("letter", "char"),
        ("items", "list<{ sku: string, \"unit price\": option<money>, tags: list<string> }>"),
        ("labels", "map<s32>"),
        ("at", "option<{ city: string, zip: option<string> }>"),
    ];
    let text = interface_wit(
        "silverd:sql",
        "t",
        &input_wit(&fields.map(|(key, ty)| InputField { key, ty, comment: None })).expect("valid types"),
    );
    let (ty, _) = EventType::of_text(&text).expect("valid WIT");
    let events: [&[u8]; 3] = [
        br#"{"id":"a\u00e4","eventId":18446744073709551615,"small":255,"on":true,"x":1.5,"ts":"2026-01-02T03:04:05Z",
            "total":"12.30","any":{"b":[1]},"letter":"\u00e4","items":[],"labels":{},"at":{"city":"B"}}"#,
        br#"{"id":"skipped"}"#,
        br#"{"id":"b","small":0,"qty":-7,"on":false,"x":-1,"ts":1700000000,"day":"2026-01-02","total":-1,"any":null,"letter":"x",
            "items":[{"sku":"s1","unit price":5,"tags":["p","q"]},{"sku":"s2","tags":[]}],"labels":{"k":1,"l":2},"at":null}"#,
    ];
    let chunk = chunk(events.map(Some));
    let (records, mut image, mut decoder) = (Records::new(&chunk), Image::default(), Decoder::default());
    let fits: Vec<_> = (0..3).map(|row| decoder.decode(&ty, &records, row, &mut image, 1 << 20).is_ok()).collect();
    assert_eq!(fits, [true, false, true]);
    let columns = ty.columns(&records, &mut image).expect("columns");
    let schema = Arc::new(arrow_schema::Schema::new(ty.fields()));
    let batch = RecordBatch::try_new(schema, columns).expect("columns of the types that were declared");
    // How a time is shown depends on features of Arrow.
    let shown = |column: &ArrayRef| match column.as_primitive_opt::<TimestampMicrosecondType>() {
        Some(times) => format!("{:?}", times.values()),
        None => format!("{column:?}"),
    };
    let columns = batch.columns().iter().zip(&fields);
    let lines = columns.map(|(column, (name, _))| format!("{name}: {} {}", column.data_type(), shown(column)));
    insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"));
}
