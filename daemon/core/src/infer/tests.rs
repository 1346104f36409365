//! Looks at small topics: kinds, types, shares, meanings, masks, odd records, bounds, and the output forms.

use serde_json::{Value, json};
use wit_parser::{Resolve, UnresolvedPackageGroup};

use super::*;
use crate::input::Input;

/// Events of one topic, from these values.
fn events(values: impl IntoIterator<Item = impl Into<Vec<u8>>>) -> Vec<Event> {
    let event = |(offset, value): (usize, Vec<u8>)| Event {
        place: Place { topic: Some("shop".to_owned()), partition: Some(0), offset: offset as i64 },
        value: Some(value),
        ..Event::default()
    };
    values.into_iter().map(Into::into).enumerate().map(event).collect()
}

fn look_at(values: impl IntoIterator<Item = Value>) -> Report {
    look(&events(values.into_iter().map(|value| value.to_string())), &By::Auto, Values::Masked)
}

/// The only kind of these events.
#[track_caller]
fn kind(values: impl IntoIterator<Item = Value>) -> KindOfEvent {
    let events = events(values.into_iter().map(|value| value.to_string()));
    let mut report = look(&events, &By::Nothing, Values::Masked);
    assert_eq!(report.kinds.len(), 1);
    report.kinds.remove(0)
}

#[track_caller]
fn field<'k>(kind: &'k KindOfEvent, path: &str) -> &'k Field {
    let paths: Vec<_> = kind.fields.iter().map(|field| &field.path).collect();
    kind.fields.iter().find(|field| field.path == path).unwrap_or_else(|| panic!("{path} in {paths:?}"))
}

/// The field `key` of events with these values of it.
fn field_of(key: &str, values: &[Value]) -> Field {
    field(&kind(values.iter().map(|value| json!({ key: value }))), key).clone()
}

/// The type and what it looks like.
#[track_caller]
fn check(key: &str, values: &[Value], ty: &str, looks_like: Option<&str>) {
    let field = field_of(key, values);
    assert_eq!((field.ty.as_str(), field.looks_like.as_deref()), (ty, looks_like), "{key}: {values:?}");
}

fn shop() -> Vec<Value> {
    let view = |at: usize| json!({ "event_type": "page_view", "event_id": format!("e-{at}"), "ts": "2025-08-16T14:50:49Z", "country": (["de", "fr"][at % 2]), "url": "/" });
    let order = |at: usize| {
        json!({ "event_type": "order_placed", "event_id": format!("o-{at}"), "ts": "2025-08-16T14:50:49Z", "country": (["de", "fr"][at % 2]),
            "total": 19.99, "line_items": [{ "sku": "SKU-1", "qty": 2, "price": 9.5 }, { "sku": "SKU-2", "qty": 1, "price": 0.99 }] })
    };
    (0..30).map(view).chain((0..10).map(order)).collect()
}

#[test]
fn kinds_are_split_by_the_field_that_decides_on_the_keys() {
    let by = |values: Vec<Value>| {
        let report = look_at(values);
        let field = report.kinds[0].field.clone().map(|path| path.join("."));
        let values: Vec<_> = report.kinds.iter().filter_map(|kind| kind.value.clone()).collect();
        (field, values.join(" "))
    };
    let expect = |field: Option<&str>, values: &str| (field.map(str::to_owned), values.to_owned());
    assert_eq!(by(shop()), expect(Some("event_type"), "page_view order_placed"));
    let nested = |at: usize| match at % 2 {
        0 => json!({ "id": at, "meta": { "eventType": "a" }, "x": 1 }),
        _ => json!({ "id": at, "meta": { "eventType": "b" }, "y": 1 }),
    };
    assert_eq!(by((0..20).map(nested).collect()), expect(Some("meta.eventType"), "a b"));
    // No known name, but it decides on the keys.
    let unnamed = |at: usize| match at % 2 {
        0 => json!({ "was": "a", "color": "red", "x": 1 }),
        _ => json!({ "was": "b", "color": (["red", "blue"][at / 2 % 2]), "y": 1 }),
    };
    assert_eq!(by((0..20).map(unnamed).collect()), expect(Some("was"), "a b"));
    // It decides on nothing.
    assert_eq!(by((0..20).map(|at| json!({ "color": (["red", "blue"][at % 2]) })).collect()), expect(None, ""));
    // The names of people.
    assert_eq!(by((0..20).map(|at| json!({ "name": format!("n{at}") })).collect()), expect(None, ""));
    // More than 50 values.
    assert_eq!(by((0..60).map(|at| json!({ "type": format!("t{at}") })).collect()), expect(None, ""));
    // Fewer than 95 % of the events have it.
    let mut some = shop();
    some.extend((0..5).map(|at| json!({ "other": at })));
    assert_eq!(by(some), expect(None, ""));
}

#[test]
fn events_without_the_field_are_a_kind_of_their_own() {
    let mut values = shop();
    values.push(json!({ "other": 1 }));
    let report = look_at(values);
    let last = report.kinds.last().unwrap();
    assert_eq!((last.value.as_deref(), last.events, last.table.as_str()), (None, 1, "shop_others"));
    assert!(toml(&report).contains("match = { field = \"event_type\", exists = false }"));
}

#[test]
fn by_names_the_field_or_none() {
    let values: Vec<_> = shop().iter().map(Value::to_string).collect();
    let report = look(&events(values.clone()), &By::Field(vec!["country".to_owned()]), Values::Masked);
    let kinds: Vec<_> = report.kinds.iter().map(|kind| kind.value.as_deref()).collect();
    assert_eq!(kinds, [Some("de"), Some("fr")]);
    let report = look(&events(values), &By::Nothing, Values::Masked);
    assert_eq!((report.kinds.len(), report.kinds[0].table.as_str()), (1, "shop"));
}

#[test]
fn a_field_is_named_by_its_path() {
    let events = events(["{\"a\": {\"b\": 1}, \"c.d\": \"x\"}"]);
    assert_eq!(field_named("a.b", &events), Some(vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(field_named("c.d", &events), Some(vec!["c.d".to_owned()]));
    assert_eq!(field_named("a", &events), None);
    assert_eq!(field_named("x", &events), None);
}

#[test]
fn the_newest_events_stay() {
    let newest = |count_max, bytes_max| {
        let mut newest = Newest::new(count_max, bytes_max);
        for (time, event) in [3, 1, 2, 3].into_iter().zip(events([vec![0; 1_000], vec![1], vec![2; 1_000], vec![3]])) {
            newest.add(time, event);
        }
        let is_cut = newest.is_cut();
        (newest.into_events().iter().map(|event| event.place.offset).collect::<Vec<_>>(), is_cut)
    };
    assert_eq!(newest(10, 10_000), (vec![1, 2, 0, 3], false));
    assert_eq!(newest(2, 10_000), (vec![0, 3], false));
    assert_eq!(newest(10, 2_000), (vec![0, 3], true));
}

#[test]
fn topics_are_separate() {
    let mut all = events(shop().iter().map(Value::to_string));
    for (offset, event) in all.iter_mut().enumerate() {
        if offset % 2 == 0 {
            event.place.topic = Some("other".to_owned());
        }
    }
    let report = look(&all, &By::Auto, Values::Masked);
    let tables: Vec<_> = report.kinds.iter().map(|kind| kind.table.as_str()).collect();
    assert_eq!(tables, ["other_page_view", "other_order_placed", "shop_page_view", "shop_order_placed"]);
    assert!(toml(&report).contains("match = { topic = \"other\", field = \"event_type\", equals = \"page_view\" }"));
}

#[test]
fn times_are_those_that_silverd_reads() {
    let time = |form: &str| format!("a time ({form})");
    let is_time = |key: &str, value: Value, form: &str| check(key, &[value], "timestamp", Some(&time(form)));
    is_time("x", json!("2025-08-16T14:50:49.401Z"), "ISO 8601");
    is_time("x", json!("2025-08-16T16:50:49+02:00"), "ISO 8601");
    is_time("x", json!("2025-08-16T14:50:49"), "ISO 8601 without a zone: UTC");
    is_time("x", json!("2019-10-01 00:00:00 UTC"), "as 2019-10-01 00:00:00 UTC");
    is_time("x", json!("20250816T145049Z"), "ISO 8601, basic form");
    is_time("x", json!("Sat, 16 Aug 2025 14:50:49 GMT"), "RFC 2822");
    is_time("ts", json!(1_755_355_849), "epoch seconds");
    is_time("createdAt", json!(1_755_355_849_401_i64), "epoch milliseconds");
    is_time("event_time", json!(1_755_355_849_401_333_i64), "epoch microseconds");
    is_time("ts", json!("1755355849"), "epoch seconds");
    check("x", &[json!("2025-08-16")], "date", Some("a date"));
    // Numbers that are no times by their names or their values.
    check("views", &[json!(1_755_355_849)], "s64", None);
    check("ts", &[json!(12)], "u32", None);
    check("x", &[json!("08/07/2025")], "string", None);
    let mixed = [vec![json!("2025-08-16T14:50:49Z"); 19], vec![json!("yesterday")]].concat();
    let field = field_of("ts", &mixed);
    assert_eq!(field.ty, "timestamp");
    assert_eq!(field.remarks, ["silverd cannot read 1 of 20 values so: it rejects their events"]);
    let times = field.times.unwrap();
    assert_eq!((times.min, times.max), (json!("2025-08-16T14:50:49Z"), json!("2025-08-16T14:50:49Z")));
}

#[test]
fn money_needs_cents_and_a_name_or_a_currency() {
    check("price", &[json!(19.99), json!(5)], "money", Some("money"));
    check("total_amount", &[json!("19.99")], "money", Some("money"));
    check("x", &[json!("19.99 EUR"), json!("€5")], "money", Some("money"));
    check("price", &[json!(1999), json!(5)], "u32", None);
    check("price", &[json!(19.999)], "f64", None);
    check("ratio", &[json!(0.25)], "f64", None);
    check("ratio", &[json!("0.25")], "string", None);
}

#[test]
fn ids_are_distinct_or_have_the_form_or_the_name() {
    let many = |value: fn(usize) -> Value| (0..40).map(value).collect::<Vec<_>>();
    check("x", &[json!("ab8d536e-f1ab-42cb-8d06-f72da18b2308")], "string", Some("an id (UUID)"));
    check("order_id", &many(|at| json!(format!("o{at}"))), "string", Some("an id"));
    check("x", &many(|at| json!(format!("SKU-{at}"))), "string", Some("an id"));
    check("userId", &many(|at| json!(format!("u{}", at % 5))), "string", Some("an id that repeats"));
    check("title", &many(|at| json!(format!("a title {at}"))), "string", None);
    check("id", &many(|at| json!(at)), "s64", Some("an id"));
    let large = field_of("id", &[json!(9_007_199_254_740_993_i64)]);
    assert_eq!(large.ty, "s64");
    assert_eq!(large.remarks, ["beyond 2^53: exact here, rounded by readers that take numbers as doubles"]);
}

#[test]
fn types_are_the_smallest_that_are_safe() {
    check("n", &[json!(1), json!(3)], "u32", None);
    check("n", &[json!(-1)], "s64", None);
    check("n", &[json!(5_000_000)], "s64", None);
    check("n", &[json!(u64::MAX)], "u64", None);
    check("n", &[json!(u64::MAX), json!(-1)], "string", None);
    check("n", &[json!(1), json!(1.5)], "f64", None);
    check("n", &[json!("5")], "string", None);
    check("n", &[json!("5"), json!(5)], "string", None);
    check("n", &[json!(true)], "bool", None);
    check("n", &[json!(null)], "option<json>", None);
    check("n", &[json!("a"), json!("")], "option<string>", None);
    check("n", &[json!([])], "list<json>", None);
    check("n", &[json!(["", "a"])], "list<string>", None);
    check("n", &[json!([1, null])], "list<option<u32>>", None);
    check("n", &[json!([[1]])], "list<list<u32>>", None);
    check("n", &[json!({}), json!(1)], "json", None);
    check("n", &[json!({})], "json", None);
    check("n", &[json!({ "a": 1, "b c": "x" }), json!({ "a": 2 })], "{ a: u32, \"b c\": option<string> }", None);
    check("n", &[json!([{ "sku": "x", "qty": 1 }])], "list<{ qty: u32, sku: string }>", None);
    let huge = look(&events(["{\"n\": 123456789012345678901234567890123456789012345}"]), &By::Auto, Values::Masked);
    assert_eq!(field(&huge.kinds[0], "n").ty, "string");
    assert_eq!(field(&huge.kinds[0], "n").examples, [json!("123456789012345678901234567890123456789012345")]);
}

#[test]
fn maps_are_json() {
    let keys = |count: usize, name: fn(usize) -> String| {
        Value::Object((0..count).map(|at| (name(at), json!({ "x": at }))).collect())
    };
    check("m", &[keys(101, |at| format!("key{at}"))], "json", Some("a map"));
    check("m", &[keys(3, |at| format!("{at}"))], "json", Some("a map"));
    assert!(field_of("m", &[keys(100, |at| format!("key{at}"))]).ty.starts_with("{ key0: { x: u32 }, "));
    let map = kind([json!({ "m": keys(101, |at| format!("key{at}")) })]);
    assert_eq!(field(&map, "m").remarks, ["a map: its more than 100 keys are data, not names"]);
    assert_eq!(map.fields.len(), 1);
    // An event with many fields is no map.
    assert_eq!(kind([keys(150, |at| format!("key{at}"))]).fields.len(), 300);
}

#[test]
fn shares_are_of_the_objects_that_have_a_place_for_a_value() {
    let kind = kind([
        json!({ "a": 1, "o": { "x": 1 }, "l": [{ "y": 1 }, { "y": null }, {}] }),
        json!({ "a": null, "l": [] }),
        json!({ "a": "text", "o": {} }),
        json!({ "o": null }),
    ]);
    let of = |path: &str| {
        let field = field(&kind, path);
        let types: Vec<_> = field.json_types.iter().map(|ty| (ty.name, ty.values.count)).collect();
        (types, field.null.count, field.absent.count)
    };
    assert_eq!(of("a"), (vec![("string", 1), ("integer", 1)], 1, 1));
    assert_eq!(field(&kind, "a").null.share, 0.25);
    assert_eq!(of("o.x"), (vec![("integer", 1)], 0, 1));
    assert_eq!(of("l[].y"), (vec![("integer", 1)], 1, 1));
    assert_eq!(of("l"), (vec![("array", 2)], 0, 2));
    assert_eq!(field(&kind, "l").items, Some(report::MinMax { min: json!(0), max: json!(3) }));
}

#[test]
fn of_equal_keys_the_first_counts() {
    let report = look(&events(["{\"a\": 1, \"a\": \"x\", \"b.c\": 1, \"\": 2}"]), &By::Auto, Values::Masked);
    let kind = &report.kinds[0];
    assert_eq!(field(kind, "a").ty, "u32");
    assert_eq!(field(kind, "\"b.c\"").ty, "u32");
    assert_eq!(field(kind, "\"\"").ty, "u32");
}

#[test]
fn small_sets_are_listed_with_their_counts() {
    let field_with = |count: usize| field_of("c", &(0..count * 2).map(|at| json!(at % count)).collect::<Vec<_>>());
    let values = field_with(12).values.unwrap();
    assert_eq!((values.len(), values[0].count), (12, 2));
    let many = field_with(13);
    assert!(many.values.is_none());
    assert_eq!((many.distinct.unwrap().count, many.examples.len()), (13, 3));
    assert!(field_of("c", &(0..1_500).map(|at| json!(at)).collect::<Vec<_>>()).distinct.unwrap().is_at_least);
}

#[test]
fn values_of_persons_are_masked() {
    let event = json!({
        "contact": "ann@example.com", "from": "203.0.113.9", "call": "+49 30 1234567", "phone_number": 4930123,
        "name": "Ann", "product_name": "Tea", "address": { "city": "Berlin", "is_default": true },
        "user_agent": "Mozilla/5.0", "email_id": 7
    });
    let check = |path: &str, expected: Value| {
        let masked = kind([event.clone()]);
        let field = field(&masked, path);
        assert_eq!(field.examples, std::slice::from_ref(&expected), "{path}");
        assert_eq!(field.is_personal, field.values.is_none() && field.numbers.is_none(), "{path}");
    };
    check("contact", json!("a***@e***.com"));
    check("from", json!("2***"));
    check("call", json!("+***"));
    check("phone_number", json!("***"));
    check("name", json!("A***"));
    check("product_name", json!("Tea"));
    check("address.city", json!("B***"));
    check("address.is_default", json!(true));
    check("user_agent", json!("M***"));
    check("email_id", json!(7));

    // One address among other texts is enough.
    let mixed = field_of("x", &[json!("free text"), json!("other text"), json!("ann@example.com")]);
    assert_eq!((mixed.is_personal, &mixed.examples[2]), (true, &json!("a***@e***.com")));

    let events = events([event.to_string()]);
    for output in [text, toml, wit, |report: &Report| serde_json::to_string(report).unwrap()] {
        let masked = output(&look(&events, &By::Auto, Values::Masked));
        for secret in ["ann@", "203.0", "Ann", "Berlin", "Mozilla", "4930123"] {
            assert!(!masked.contains(secret), "{secret} in {masked}");
        }
    }
    assert!(text(&look(&events, &By::Auto, Values::Shown)).contains("ann@example.com"));
}

#[test]
fn what_is_no_object_is_counted_by_reason() {
    let values: [&[u8]; 9] =
        [b"{\"a\": 1}", b"{\"a\": 1", b"", b" \n", b"[1]", b"7", b"\0\0\0\0\x07avro", b"{\"a\": \"\xff\"}", b"\"x\""];
    let mut events = events(values);
    events.push(Event { value: None, has_key: true, headers: vec!["h".to_owned(); 2], ..events[0].clone() });
    let report = look(&events, &By::Auto, Values::Masked);
    let counts: Vec<_> =
        report.not_objects.iter().map(|unread| (unread.reason, unread.count, unread.example.offset)).collect();
    let expected = [
        (NotAnObject::NoValue, 1, 0),
        (NotAnObject::Empty, 2, 2),
        (NotAnObject::NotUtf8, 1, 7),
        (NotAnObject::RegistryFrame, 1, 6),
        (NotAnObject::BrokenJson, 1, 1),
        (NotAnObject::Array, 1, 4),
        (NotAnObject::Scalar, 2, 5),
    ];
    assert_eq!(counts, expected);
    assert_eq!((report.events, report.objects, report.keys.count, report.headers[0].records.count), (10, 1, 1, 1));
}

#[test]
fn looks_are_bounded() {
    let wide = |from: usize| Value::Object((from..from + 1_500).map(|at| (format!("k{at}"), json!(1))).collect());
    let kind_of_wide = kind([wide(0), wide(1_500)]);
    assert_eq!((kind_of_wide.fields.len(), kind_of_wide.values_left_out), (2_000, 1_000));
    let deep = (0..40).fold(json!(1), |inner, _| json!({ "d": inner }));
    let deep = kind([deep]);
    assert_eq!((deep.fields.len(), deep.values_left_out), (16, 1));
    assert_eq!(deep.fields[15].ty, "json");
    let arrays = (0..40).fold(json!(1), |inner, _| json!([inner]));
    assert_eq!(kind([json!({ "a": arrays })]).fields.len(), 16);
    let many: Vec<_> = (0..210).map(|at| json!({ "k": at }).to_string()).collect();
    let report = look(&events(many), &By::Field(vec!["k".to_owned()]), Values::Masked);
    assert_eq!((report.kinds.len(), report.events_of_other_kinds), (200, 10));
}

#[test]
fn tables_have_valid_names_and_each_its_own() {
    let values = ["late", "Order Placed", "order-placed", "OrderPlaced", "2fa", "é", "bronze", &"x".repeat(90)];
    let report = look_at(values.iter().flat_map(|value| vec![json!({ "type": value }); 2]));
    let mut tables: Vec<_> = report.kinds.iter().map(|kind| kind.table.clone()).collect();
    assert!(tables.iter().all(|table| crate::config::TableName::new(table).is_some()), "{tables:?}");
    tables.sort();
    let long = "x".repeat(63);
    let expected = [
        "bronze_events",
        "events",
        "events2fa",
        "late_events",
        "order_placed",
        "order_placed_2",
        "order_placed_3",
        &long,
    ];
    assert_eq!(tables, expected);
}

#[test]
fn toml_can_be_pasted() {
    let report = look_at(shop());
    let text = toml(&report);
    let expected = r#"# 30 events with event_type = "page_view" (75 %)
[silver.page_view]
match = { field = "event_type", equals = "page_view" }
event_time = "ts"
dedup = { by = ["event_id"], within = "10m" }
input = { country = "string", event_id = "string", ts = "timestamp", url = "string" }
sql = """
SELECT
  country,
  event_id,                       -- an id
  ts,                             -- a time (ISO 8601)
  url
FROM event"""

# 10 events with event_type = "order_placed" (25 %)
[silver.order_placed]
match = { field = "event_type", equals = "order_placed" }
event_time = "ts"
dedup = { by = ["event_id"], within = "10m" }
sql = """
SELECT
  country,
  event_id,                       -- an id
  line_items,
  total,                          -- money
  ts                              -- a time (ISO 8601)
FROM event"""

[silver.order_placed.input]
country = "string"
event_id = "string"
line_items = "list<{ price: money, qty: u32, sku: string }>"
total = "money"
ts = "timestamp"
"#;
    assert_eq!(text, expected, "{text}");
    ::toml::from_str::<::toml::Table>(&text).unwrap();
}

#[test]
fn events_without_fields_get_no_table() {
    let check = |values: &[Value], by: &By, tables: &[&str]| {
        let report = look(&events(values.iter().map(Value::to_string)), by, Values::Masked);
        let sections = toml(&report);
        let text = format!("[source]\nbrokers = \"b:1\"\ntopic = \"shop\"\n{sections}");
        let pipeline = crate::config::check(&text, &|_| None)
            .unwrap_or_else(|errors| panic!("{}", errors.render("pipeline.toml", &text, false)));
        let found: Vec<_> = pipeline.silver.iter().map(|table| table.name.to_string()).collect();
        assert_eq!(found, tables, "{sections}");
        sections
    };
    let none = check(&[json!({})], &By::Auto, &[]);
    assert_eq!(none, "# 1 event (100 %)\n# No table: these events have no field.\n");
    let by_kind = By::Field(vec!["kind".to_owned()]);
    let some = check(&[json!({ "kind": "a", "n": 1 }), json!({ "kind": "a", "n": 2 }), json!({})], &by_kind, &["a"]);
    assert!(some.contains("# No table: these events have no field.\n"), "{some}");
}

#[test]
fn toml_quotes_odd_names() {
    let odd = json!({ "eventId": "x", "order": 1, "a\"b\"\"\"c": 2, "back\\slash\n": 3, "O'Neil \"x\"": [{ "odd key": 1 }], "kafka_time": 1, "event_date": 1, "event_id": 2 });
    let report = look(&events([odd.to_string()]), &By::Nothing, Values::Masked);
    let text = toml(&report);
    let table: ::toml::Table = ::toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let section = &table["silver"]["shop"];
    assert_eq!(section["match"].as_str(), Some("everything"));
    assert_eq!(section["event_time"].as_str(), Some("kafka_time_2"));
    assert_eq!(section["input"]["O'Neil \"x\""].as_str(), Some("list<{ \"odd key\": u32 }>"));
    let sql = section["sql"].as_str().unwrap();
    for part in [
        "\"eventId\" AS event_id_2",
        "  event_id,",
        "event_date AS event_date_2",
        "\"order\",",
        "\"a\"\"b\"\"\"\"\"\"c\" AS a_b_c",
        "_timestamp AS kafka_time_2",
    ] {
        assert!(sql.contains(part), "{part} in {sql}");
    }
}

#[test]
fn time_of_the_event_is_never_optional() {
    let with = |missing: usize| {
        let event =
            |at: usize| if at < missing { json!({ "x": 1 }) } else { json!({ "x": 1, "ts": "2025-08-16T14:50:49Z" }) };
        let events: Vec<_> = (0..100).map(event).map(|event| event.to_string()).collect();
        toml(&look(&self::events(events), &By::Nothing, Values::Masked))
    };
    let (few, many) = (with(5), with(6));
    assert!(few.contains("event_time = \"ts\"") && few.contains("ts = \"timestamp\""), "{few}");
    assert!(few.contains("-- a time (ISO 8601); 5 events lack it and are rejected"), "{few}");
    assert!(many.contains("event_time = \"kafka_time\"") && many.contains("ts = \"option<timestamp>\""), "{many}");
}

/// What a component with this interface takes.
fn input_of(interface: &str, name: &str) -> Input {
    let interface = interface.trim_end().strip_suffix('}').unwrap().replace("types@0.2.0.{", "types@0.2.0.{reject, ");
    input_of_table(&format!("{interface}\n  record row {{ x: string }}\n"), name, "input")
}

/// The same, where only `output` and `transform` are missing.
fn input_of_table(interface: &str, name: &str, event: &str) -> Input {
    let mut resolve = Resolve::default();
    let types = include_str!("../../../../wit/types.wit");
    resolve.push_group(UnresolvedPackageGroup::parse("types.wit", types).unwrap()).unwrap();
    let table = format!(
        "package a:b;\n{interface}\n  record output {{ rows: list<row>, row-events: list<u32>, rejects: list<reject> }}\n  \
         transform: func(events: list<{event}>) -> output;\n}}\nworld w {{\n  export silverd:pipeline/plugin@0.2.0;\n  \
         export {name};\n}}\n"
    );
    let parsed = UnresolvedPackageGroup::parse("table.wit", &table);
    let group = parsed.unwrap_or_else(|(text, error)| panic!("{}\n{table}", error.render(&text)));
    let package = resolve.push_group(group).unwrap_or_else(|error| panic!("{error:?}\n{table}"));
    let world = resolve.packages[package].worlds["w"];
    Input::of_world(&resolve, world, Some(&table)).unwrap_or_else(|error| panic!("{error}\n{table}"))
}

#[test]
fn wit_is_a_valid_input() {
    let event = json!({
        "eventId": "x", "type": 1, "order": "o", "2fa": true, "a.b": 1, "a-b": 2, "ts": "2025-08-16T14:50:49Z",
        "price": 1.5, "any": [], "items": [{ "list": [{ "price": "1.50 EUR" }], "unit price": null }], "day": "2025-08-16"
    });
    let report = look(&events([event.to_string()]), &By::Nothing, Values::Masked);
    let text = wit(&report);
    let Input::Typed(ty) = input_of(&text, "shop") else { panic!("{text}") };
    let crate::input::Type::Record(fields) = ty.input.ty else { panic!("{text}") };
    let keys: Vec<_> = fields.iter().map(|field| field.key.as_str()).collect();
    assert_eq!(keys, ["2fa", "a-b", "a.b", "any", "day", "eventId", "items", "order", "price", "ts", "type"]);
    for part in [
        "/// 1 event.\n",
        "  %type: u32,",
        "    /// @name(\"eventId\")\n    event-id: string,",
        "    /// a time (ISO 8601).\n    ts: timestamp,",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn text_is_at_most_100_columns_wide() {
    let mut values = shop();
    values.push(json!({ "event_type": "page_view", "event_id": "x", "ts": "never", "country": "c".repeat(300), "k".repeat(90): "é".repeat(200) }));
    let report = look_at(values);
    let text = text(&report);
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    let expected = [
        "41 events, 41 of them JSON objects",
        "[page_view] 31 events with event_type = \"page_view\" (76 %)",
        "  ts                          timestamp             a time (ISO 8601)",
        "  line_items[].qty            u32",
        "      \"de\" (5), \"fr\" (5)",
    ];
    for line in expected {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
}

#[test]
fn json_has_numbers_as_numbers() {
    let report = serde_json::to_value(look_at(shop())).unwrap();
    let order = &report["kinds"][1];
    assert_eq!((&report["events"], &order["events"], &order["share"]), (&json!(40), &json!(10), &json!(0.25)));
    let total = order["fields"].as_array().unwrap().iter().find(|field| field["path"] == "total").unwrap();
    assert_eq!(total["numbers"], json!({ "min": 19.99, "max": 19.99 }));
    assert_eq!(total["json_types"], json!([{ "type": "number", "count": 10, "share": 1.0 }]));
    assert_eq!((&total["type"], &total["looks_like"]), (&json!("money"), &json!("money")));
}

#[test]
fn a_new_plugin_copies_what_the_events_have() {
    let order = |at: usize| {
        json!({ "event_type": "order", "event_id": format!("o{at}"), "ts": "2025-08-16T14:50:49Z", "event_date": "2025-08-16",
            "type": "x", "email": "ann@example.com", "birthday": "2000-01-02", "phone": 4930123, "items": [{ "n": at }] })
    };
    let events = events((0..30).map(|at| order(at).to_string()));
    let report = look(&events, &By::Field(vec!["event_type".to_owned()]), Values::Masked);
    let parts = PluginParts::of(&report.kinds[0], &events, Values::Masked);
    let columns: Vec<_> =
        parts.columns.iter().map(|(column, field)| (column.as_str(), field.as_deref().unwrap_or_default())).collect();
    let expected = [
        ("birthday", "birthday"),
        ("email", "email"),
        ("event_date_n2", "event_date"),
        ("event_id", "event_id"),
        ("items", "items"),
        ("phone", "phone"),
        ("ts", "ts"),
        ("type", "type"),
    ];
    assert_eq!(columns, expected);
    assert_eq!((parts.event_time.as_str(), parts.takes_meta), ("\"ts\"", false));
    assert_eq!(parts.matching, "{ field = \"event_type\", equals = \"order\" }");
    let interface = format!(
        "interface t {{\n  use silverd:pipeline/types@0.2.0.{{reject, timestamp, date, money, json}};\n{}",
        parts.records
    );
    let Input::Typed(ty) = input_of_table(&interface, "t", "input") else { panic!("{interface}") };
    assert!(ty.meta.is_none());

    let cases: Value = serde_json::from_str(&parts.cases).unwrap();
    assert_eq!(cases.as_array().unwrap().len(), 3);
    let event = &cases[0]["event"];
    assert_eq!((&event["event_id"], &event["items"]), (&json!("o29"), &json!([{ "n": 29 }])));
    let masked = (&event["email"], &event["birthday"], &event["phone"]);
    assert_eq!(masked, (&json!("a***@e***.com"), &json!("1970-01-01"), &json!(0)));
    let shown = PluginParts::of(&report.kinds[0], &events, Values::Shown);
    assert_eq!(serde_json::from_str::<Value>(&shown.cases).unwrap()[0]["event"], order(29));
}

#[test]
fn a_plugin_without_a_time_takes_that_of_kafka() {
    let events = events([json!({ "a": 1 }).to_string()]);
    let parts = PluginParts::of(&look(&events, &By::Auto, Values::Masked).kinds[0], &events, Values::Masked);
    assert_eq!(parts.columns, [("a".to_owned(), Some("a".to_owned())), ("kafka_time".to_owned(), None)]);
    assert_eq!((parts.event_time.as_str(), parts.matching.as_str()), ("\"kafka_time\"", "\"everything\""));
    let interface =
        format!("interface t {{\n  use silverd:pipeline/types@0.2.0.{{reject, timestamp, meta}};\n{}", parts.records);
    let Input::Typed(ty) = input_of_table(&interface, "t", "event") else { panic!("{interface}") };
    assert!(ty.meta.is_some());
}

/// The whole output, as people read it.
#[test]
fn the_text_of_the_shop_says_what_its_events_are() {
    let lines = include_str!("../../../tests/it/fixtures/shop-events.jsonl").lines();
    let report = look(&events(lines.map(str::as_bytes)), &By::Auto, Values::Masked);
    let (found, expected) = (text(&report), include_str!("shop.txt"));
    assert!(found == expected, "{found}");
}
