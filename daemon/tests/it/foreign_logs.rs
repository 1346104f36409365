//! Logs as other systems write them, sent as their users would: a shop log of the REES46 data sets, the calls of Segment's
//! trackers, CloudEvents, and JSON that is broken in all the ways in which JSON breaks. Each event is a row, a reject or an
//! unrouted event, exactly once, and spoils none of its neighbours.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use silverd::plugin::build;

use crate::harness::{PARTITIONS, Project, root, rows};

/// A project whose tables are filled by plugins of `plugins/fixtures`: (table, plugin, field and value of the events, column
/// of the event time).
fn project(name: &str, tables: &[(&str, &str, [&str; 2], &str)]) -> Project {
    let mut sections = "[commit]\ninterval = \"200ms\"\n\n".to_owned();
    for (table, plugin, [field, value], time) in tables {
        let root = root().display();
        sections += &format!(
            "[silver.{table}]\nplugin = \"{root}/plugins/fixtures/{plugin}\"\n\
             match = {{ field = \"{field}\", equals = \"{value}\" }}\nevent_time = \"{time}\"\n\n"
        );
    }
    let project = Project::with_sections(name, &(sections + "[quarantine]\nunrouted = \"quarantine\"\n"));
    project.build_plugins();
    project.broker.create_topic(&project.topic, PARTITIONS);
    project
}

fn send(project: &Project, events: impl IntoIterator<Item = Value>) {
    let values: Vec<Vec<u8>> = events.into_iter().map(|event| event.to_string().into_bytes()).collect();
    project.send_values(&values);
}

/// Reads the topic to its end, and verifies what came of it.
#[track_caller]
fn drain(project: &Project) {
    project.silverd(&["run", "--drain"]);
    project.silverd(&["verify", "--deep", "--strict"]);
}

/// The rows of a table by a column, without the columns that silverd adds.
fn rows_by(project: &Project, table: &str, column: &str) -> BTreeMap<String, Value> {
    let own = ["_cluster_id", "_topic", "_partition", "_offset", "ingested_at", "event_date"];
    let mut found = BTreeMap::new();
    for mut row in rows(&project.path(table)) {
        own.iter().for_each(|column| drop(row.remove(*column)));
        let by = row[column].as_str().unwrap_or_else(|| panic!("{row:?}")).to_owned();
        assert!(found.insert(by, Value::Object(row)).is_none(), "a row is there twice");
    }
    found
}

/// Code and reason of what is in the quarantine, by table.
fn rejects(project: &Project) -> Vec<(String, String, String)> {
    let text = |row: &serde_json::Map<String, Value>, key: &str| row[key].as_str().unwrap().to_owned();
    let mut rejects: Vec<_> = rows(&project.path("quarantine"))
        .iter()
        .map(|row| (text(row, "table"), text(row, "code"), text(row, "reason")))
        .collect();
    rejects.sort();
    rejects
}

/// The columns come typed, or all as text, as tools write them that make JSON of CSV; empty cells are null, "" or absent.
#[test]
fn a_shop_log_of_rees46() {
    let tables = [
        ("views", "rees46", ["event_type", "view"], "ts"),
        ("removals", "rees46", ["event_type", "remove_from_cart"], "ts"),
    ];
    let project = project("rees46", &tables);
    const CATEGORY: u64 = 2_053_013_555_631_882_655;
    const START: i64 = 1_569_888_000;
    let event = |number: u64| {
        let (time, kind) = (format!("2019-10-01 00:{:02}:{:02} UTC", number / 60, number % 60), number % 3);
        let visit = format!("72d76fde-8bb3-4e00-8c23-{number:012}");
        let event_type = if number % 5 == 4 { "remove_from_cart" } else { "view" };
        match kind {
            0 => json!({"event_time": time, "event_type": event_type, "product_id": 1_000_000 + number,
                "category_id": CATEGORY + number, "category_code": "electronics.smartphone", "brand": "acme",
                "price": 489.07, "user_id": 500_000_000 + number, "user_session": visit}),
            1 => json!({"event_time": time, "event_type": event_type, "product_id": (1_000_000 + number).to_string(),
                "category_id": (CATEGORY + number).to_string(), "category_code": "", "brand": "", "price": "489.07",
                "user_id": (500_000_000 + number).to_string(), "user_session": visit}),
            // As pandas writes columns with empty cells: the other numbers of the column have decimals.
            _ => json!({"event_time": time, "event_type": event_type, "product_id": 1_000_000 + number,
                "category_id": null, "category_code": null, "price": 489.0, "user_id": (500_000_000 + number) as f64,
                "user_session": visit}),
        }
    };
    let expected = |number: u64| {
        let kind = number % 3;
        let text = |text: &str| if kind == 0 { json!(text) } else { Value::Null };
        json!({"ts": (START + number as i64) * 1_000_000, "product_id": 1_000_000 + number,
            "action": if number % 5 == 4 { "remove-from-cart" } else { "view" },
            "category_id": if kind == 2 { Value::Null } else { json!(CATEGORY + number) },
            "category": text("electronics.smartphone"), "brand": text("acme"),
            "price": if kind == 2 { 48_900 } else { 48_907 }, "user_id": 500_000_000 + number,
            "visit": format!("72d76fde-8bb3-4e00-8c23-{number:012}")})
    };
    send(&project, (0..600).map(event));
    // Python's `json` writes NaN for a missing number, which is not JSON.
    project.send_values(&[
        event(1000).to_string().replace("\"489.07\"", "NaN").into_bytes(),
        event(1001).to_string().replace("UTC", "CET").into_bytes(),
        event(1002).to_string().replace("view", "wishlist").into_bytes(),
    ]);
    drain(&project);
    let mut found = rows_by(&project, "views", "visit");
    found.append(&mut rows_by(&project, "removals", "visit"));
    let expected: BTreeMap<_, _> =
        (0..600).map(expected).map(|row| (row["visit"].as_str().unwrap().to_owned(), row)).collect();
    assert_eq!(found, expected);
    assert_eq!(rows(&project.path("removals")).len(), 120);
    let rejects = rejects(&project);
    let found: Vec<_> = rejects.iter().map(|(table, code, _)| (table.as_str(), code.as_str())).collect();
    assert_eq!(found, [("unrouted", "other-value"), ("views", "malformed"), ("views", "malformed")], "{rejects:?}");
    let reason = "event_time: expected a timestamp";
    assert!(rejects.iter().any(|reject| reject.2.contains(reason) && reject.2.contains("CET")), "{rejects:?}");
}

#[test]
fn calls_of_segment() {
    let project = project("segment", &[("calls", "segment", ["type", "track"], "ts")]);
    check_calls(&project);
}

/// A component of another language carries no WIT text: the names of its fields come from the table's file in `wit/silver`.
#[test]
fn names_come_from_the_file_of_the_table() {
    let project = project("wit-file", &[("calls", "segment", ["type", "track"], "ts")]);
    let fixture = root().join("plugins/fixtures/segment");
    let wasm = std::fs::read(build::wasm_of(&fixture).unwrap()).unwrap();
    std::fs::write(project.folder.path().join("calls.wasm"), without_section(&wasm, "silverd:wit")).unwrap();
    project.use_plugin_file("fixtures/segment", "calls.wasm");
    let wit = project.folder.path().join("wit/silver");
    std::fs::create_dir_all(&wit).unwrap();
    let text = std::fs::read_to_string(fixture.join("segment.wit")).unwrap();
    for (from, to, error) in [
        ("anonymous-id:", "anonymous:", "`input.anonymous` has a `@name` in the WIT text of the table"),
        (" calls", " phone-calls", "has no interface `calls`"),
        ("record input {", "record input", "does not parse"),
    ] {
        std::fs::write(wit.join("calls.wit"), text.replace(from, to)).unwrap();
        let errors = project.silverd_fails(&["check"], 2);
        assert!(errors.contains(error), "{errors}");
    }
    std::fs::write(wit.join("calls.wit"), &text).unwrap();
    check_calls(&project);
    // The rows depend on the file.
    std::fs::remove_file(wit.join("calls.wit")).unwrap();
    project.silverd(&["verify", "--deep", "--strict"]);
}

/// A core module without a custom section.
fn without_section(module: &[u8], name: &str) -> Vec<u8> {
    let mut kept = module[..8].to_vec();
    let mut rest = &module[8..];
    while let [id, after @ ..] = rest {
        let (size, length) = leb128(after);
        let end = 1 + length + size;
        let content = &rest[1 + length..end];
        let is_named = *id == 0 && content.get(1..=name.len()) == Some(name.as_bytes());
        if !is_named {
            kept.extend_from_slice(&rest[..end]);
        }
        rest = &rest[end..];
    }
    assert!(kept.len() < module.len(), "the module has no section {name}");
    kept
}

/// A number, and how many bytes it takes.
fn leb128(bytes: &[u8]) -> (usize, usize) {
    let length = bytes.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
    let number = bytes[..length].iter().rev().fold(0, |number, byte| number << 7 | usize::from(byte & 0x7f));
    (number, length)
}

/// Sends calls, and checks what becomes of them.
fn check_calls(project: &Project) {
    let track = json!({"type": "track", "messageId": "ajs-1", "anonymousId": "507f191e-810c", "userId": "97980cfea0067",
        "event": "Order Completed", "timestamp": "2015-02-23T22:28:55.111Z", "sentAt": "2015-02-23T22:28:55.387Z",
        "receivedAt": "2015-02-23T22:28:55.495Z", "version": 2, "channel": "browser",
        "properties": {"order_id": "50314b8e9bcf000000000000", "revenue": 25, "shipping": 3.0, "currency": "USD",
            "products": [
                {"product_id": "507f1f77bcf86cd799439011", "sku": "45790-32", "price": 19, "quantity": 1, "tags": []},
                {"product_id": "505bd76785ebb509fc183733", "price": "3.00", "quantity": 2.0},
                {"product_id": 7}]},
        "context": {"active": true, "ip": "8.8.8.8", "userAgent": "Mozilla/5.0", "locale": "en-US",
            "library": {"name": "analytics.js", "version": "2.11.1"}, "traits": {},
            "page": {"path": "/academy/", "referrer": "", "search": "", "title": "Academy", "url": "https://x.test/academy/"}},
        "traits": {"plan": "pro", "seats": 3, "nested": {"deep": [1, 2.50, null]}},
        "integrations": {"All": true, "Mixpanel": false, "Sales force": "false"}});
    let anonymous = json!({"type": "track", "messageId": "srv-2", "userId": null, "anonymousId": "anon", "event": "Pinged",
        "timestamp": "2015-02-23T22:28:55Z"});
    let nobody = json!({"type": "track", "messageId": "srv-3", "event": "Pinged", "timestamp": "2015-02-23T22:28:55Z"});
    let free = json!({"type": "track", "messageId": "srv-4", "userId": "u", "timestamp": "2015-02-23T22:28:55Z",
        "properties": {"revenue": "free"}});
    let page = json!({"type": "page", "messageId": "ajs-5", "userId": "u", "timestamp": "2015-02-23T22:28:55Z"});
    send(project, [track, anonymous, nobody, free, page]);
    drain(project);
    let found = rows_by(project, "calls", "message_id");
    let order = json!({"message_id": "ajs-1", "ts": 1_424_730_535_111_000_i64, "visitor": "97980cfea0067",
        "event": "Order Completed", "revenue": 2_500, "pieces": 4, "path": "/academy/", "library": "analytics.js",
        "traits": "{\"nested\":{\"deep\":[1,2.5,null]},\"plan\":\"pro\",\"seats\":3}",
        "excluded": ["Mixpanel", "Sales force"]});
    let ping = json!({"message_id": "srv-2", "ts": 1_424_730_535_000_000_i64, "visitor": "anon", "event": "Pinged",
        "revenue": null, "pieces": 0, "path": null, "library": null, "traits": null, "excluded": []});
    assert_eq!(found, [("ajs-1".to_owned(), order), ("srv-2".to_owned(), ping)].into());
    let rejects = rejects(project);
    let [(_, malformed, free), (_, missing, nobody), (_, other, _)] = &rejects[..] else { panic!("{rejects:?}") };
    assert_eq!([malformed, missing, other].map(|code| code.as_str()), ["malformed", "missing-field", "other-value"]);
    assert_eq!(nobody, "userId: absent or empty");
    assert!(free.starts_with("properties.revenue: expected ") && free.contains("\"free\" at byte "), "{free}");
}

#[test]
fn cloud_events_in_structured_mode() {
    let project = project("cloudevents", &[("orders", "cloudevents", ["type", "com.shop.order.placed"], "ts")]);
    let event = |id: &str, time: Value, data: Value| {
        json!({"specversion": "1.0", "type": "com.shop.order.placed", "source": "/shop/eu", "id": id, "time": time,
            "datacontenttype": "application/json", "partitionkey": "eu", "traceparent": "00-0af7651916cd43dd-00", "data": data})
    };
    let data = json!({"orderId": 9_007_199_254_740_993_u64, "total": "12.50 EUR", "notes": ["gift", {"wrap": true}]});
    send(
        &project,
        [
            event("1", json!("2018-04-05T17:31:00Z"), data.clone()),
            event("2", json!("2018-04-05T19:31:00.5+02:00"), json!({"orderId": "2", "total": 3})),
            // The time is optional there, and required by the table.
            event("3", Value::Null, data),
            // Data that is no JSON comes as text in another attribute.
            json!({"specversion": "1.0", "type": "com.shop.order.placed", "source": "/shop/eu", "id": "4",
                "time": "2018-04-05T17:31:00Z", "data_base64": "AAEC"}),
        ],
    );
    drain(&project);
    let row = |id: &str, ts: i64, order: u64, total: i64, notes: Value| {
        let id = format!("/shop/eu#{id}");
        let kind = "com.shop.order.placed";
        (id.clone(), json!({"event_id": id, "ts": ts, "kind": kind, "order_id": order, "total": total, "notes": notes}))
    };
    let expected = [
        row("1", 1_522_949_460_000_000, 9_007_199_254_740_993, 1_250, json!("[\"gift\",{\"wrap\":true}]")),
        row("2", 1_522_949_460_500_000, 2, 300, Value::Null),
    ];
    assert_eq!(rows_by(&project, "orders", "event_id"), expected.into());
    let reasons: Vec<_> = rejects(&project).into_iter().map(|(_, code, reason)| (code, reason)).collect();
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert_eq!(reasons[0], ("missing-field".to_owned(), "data: absent or empty".to_owned()));
    assert_eq!(reasons[1], ("missing-field".to_owned(), "time: absent or empty".to_owned()));
}

/// What no JSON parser may accept, as the value of a field that no table reads.
const BROKEN: [&[u8]; 108] = [
    b"[1 true]",
    b"[\"\": 1]",
    b"[\"\"],",
    b"[,1]",
    b"[1,,2]",
    b"[\"x\",,]",
    b"[\"x\"]]",
    b"[\"\",]",
    b"[\"x\"",
    b"[x",
    b"[3[4]]",
    b"[1:2]",
    b"[,]",
    b"[-]",
    b"[   , \"\"]",
    b"[*]",
    b"[1,]",
    b"[1,\n1\n,1",
    b"[\"\",",
    b"[{}",
    b"[nul]",
    b"[tru]",
    b"[fals]",
    b"nan",
    b"[++1234]",
    b"[+1]",
    b"[+Inf]",
    b"[-01]",
    b"[-1.0.]",
    b"[-2.]",
    b"[-NaN]",
    b"[.-1]",
    b"[.2e-3]",
    b"[0.1.2]",
    b"[0.3e+]",
    b"[0.3e]",
    b"[0.e1]",
    b"[0E+]",
    b"[0E]",
    b"[1.0e-]",
    b"[1.0e]",
    b"[1 000.0]",
    b"[1eE2]",
    b"[2.e+3]",
    b"[2.e3]",
    b"[9.e+]",
    b"[Inf]",
    b"[NaN]",
    b"[Infinity]",
    b"[-Infinity]",
    b"[0x1]",
    b"[0x42]",
    b"[1+2]",
    b"[-foo]",
    b"[- 1]",
    b"[-012]",
    b"[012]",
    b"[-.123]",
    b"[-1x]",
    b"[1ea]",
    b"[1a]",
    "[１]".as_bytes(),
    b"[1e1\xe5]",
    b"[.123]",
    b"[1.2a-3]",
    b"{[: \"x\"}",
    b"{\"x\", null}",
    b"{\"x\"::\"b\"}",
    "{🇨🇭}".as_bytes(),
    b"{\"a\":\"a\" 123}",
    b"{key: \"v\"}",
    b"{:\"b\"}",
    b"{\"a\" \"b\"}",
    b"{\"a\":",
    b"{\"a\"",
    b"{1:1}",
    b"{9999E9999:1}",
    b"{null:null,null:null}",
    b"{\"id\":0,,,,,}",
    b"{'a':0}",
    b"{\"id\":0,}",
    b"{\"a\":\"b\"}/**/",
    b"{\"a\":\"b\"}//",
    b"{\"a\":\"b\",,\"c\":\"d\"}",
    b"{a: \"b\"}",
    b"{\"a\":\"a",
    b"[\"\\uD800\\\"]",
    b"[\"\\uD800\\u\"]",
    b"[\"\\uD800\\u1x\"]",
    b"[\"\\x00\"]",
    b"[\"\\\\\\\"]",
    b"[\"\\\t\"]",
    b"[\"\\a\"]",
    b"[\"\\uqqqq\"]",
    b"['single']",
    b"abc",
    b"[\"a\x00a\"]",
    b"[\"new\nline\"]",
    b"[\"\t\"]",
    b"[\"\\u00A\"]",
    b"[\xff]",
    b"[\"\xed\xa0\x80\"]",
    b"[\"\xc0\xaf\"]",
    b"[\"\x80\"]",
    b"[\x0c]",
    b"[\xe2\x81\xa0]",
    b"[True]",
    b"[<null>]",
];

/// What every JSON parser must accept there.
const VALID: [&[u8]; 42] = [
    b"[[]   ]",
    b"[\"\"]",
    b"[]",
    b"[\"a\"]",
    b"[false]",
    b"[null, 1, \"1\", {}]",
    b"[null]",
    b"[1\n]",
    b" [1]",
    b"[1,null,null,null,2]",
    b"[2] ",
    b"[123e65]",
    b"[0e+1]",
    b"[0e1]",
    b"[ 4]",
    b"[-0.0000000000000000000000000000001]",
    b"[20e1]",
    b"[-0]",
    b"[-123]",
    b"[1E22]",
    b"[1E-2]",
    b"[1E+2]",
    b"[123.456e78]",
    b"[123.456789]",
    b"{\"asd\":\"sdf\", \"dfg\":\"fgh\"}",
    b"{\"a\":\"b\",\"a\":\"c\"}",
    b"{}",
    b"{\"\":0}",
    b"{\"foo\\u0000bar\": 42}",
    b"{ \"min\": -1.0e+28, \"max\": 1.0e+28 }",
    b"[\"\\u0060\\u012a\\u12AB\"]",
    b"[\"\\uD801\\udc37\"]",
    b"[\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"]",
    b"[\"\\\\u0000\"]",
    b"[\"a/*b*/c/*d//e\"]",
    b"[\"\\u0012\"]",
    b"[\"\\uDBFF\\uDFFF\"]",
    b"[\"\x7f\"]",
    "[\"\u{10ffff}\u{2028}\u{fdd0}\"]".as_bytes(),
    "[\"π\"]".as_bytes(),
    b"\"\\uA66D\"",
    b"  null  ",
];

/// Each case stands before and after the fields that the table needs. What is broken is no row, and in the quarantine once;
/// what is valid is a row.
#[test]
fn broken_json_spoils_nothing() {
    let project = project("broken", &[("calls", "segment", ["type", "track"], "ts")]);
    let needed = |id: &str| {
        format!("\"type\": \"track\", \"messageId\": \"{id}\", \"userId\": \"u\", \"timestamp\": 1424730535")
            .into_bytes()
    };
    let mut events: Vec<Vec<u8>> = Vec::new();
    let deep = [vec![b'['; 100_000], b"{\"a\":".repeat(50_000)];
    for (kind, cases) in [("valid", &VALID[..]), ("broken", &BROKEN[..]), ("broken-deep", &[&deep[0], &deep[1]])] {
        for (number, case) in cases.iter().enumerate() {
            let ids = [format!("{kind}-{number}-after"), format!("{kind}-{number}-before")];
            events.push([b"{", &needed(&ids[0])[..], b", \"x\": ", case, b"}"].concat());
            events.push([b"{\"x\": ", *case, b", ", &needed(&ids[1]), b"}"].concat());
        }
    }
    // The whole value.
    let whole: [&[u8]; 12] = [
        b"",
        b" ",
        b"]",
        b"{",
        b"[",
        b"{}}",
        b"\"type\"",
        b"<?xml version=\"1.0\"?>",
        b"type=track&messageId=1",
        b"{\"\":",
        b"\xfe\xff\x00{\x00}",
        b"{\"type\": \"track\" \"x\"",
    ];
    events.extend(whole.map(<[u8]>::to_vec));
    let is_broken = |event: &[u8]| serde_json::from_slice::<Value>(event).is_err();
    let broken = events.iter().filter(|event| is_broken(event)).count();
    project.send_values(&events);
    drain(&project);
    let found = rows_by(&project, "calls", "message_id");
    let expected: Vec<String> =
        (0..VALID.len()).flat_map(|number| ["after", "before"].map(|at| format!("valid-{number}-{at}"))).collect();
    let mut unexpected: Vec<_> = found.keys().filter(|id| !expected.contains(id)).collect();
    unexpected.extend(expected.iter().filter(|id| !found.contains_key(*id)));
    assert!(unexpected.is_empty(), "a row too much or too few: {unexpected:?}");
    assert_eq!(rows(&project.path("bronze")).len(), events.len());
    let rejects = rejects(&project);
    // `"type"` alone is JSON, and no object.
    assert_eq!(rejects.len(), broken + 1);
    assert!(rejects.iter().all(|(table, code, _)| table == "unrouted" || code == "malformed"), "{rejects:?}");
}
