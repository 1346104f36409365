//! Events and the expected rows.

use silverd_plugin::{Config, testing};

use crate::{Channel, Device, PageView, Row, channel};

const CHROME: &str =
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36";

fn check(json: &str, expected: Result<Row, &str>) {
    let plugin: PageView = testing::configured(&Config::new());
    let found = testing::rows(&plugin, json).map_err(|reject| reject.to_string());
    assert_eq!(found, expected.map(|row| vec![row]).map_err(str::to_owned), "{json}");
}

/// The row of an event that has only the required fields.
fn bare_row() -> Row {
    Row {
        event_id: "e1".to_owned(),
        user_id: "user-1".to_owned(),
        ts: 1_755_355_849_401_333,
        url: "/posts".to_owned(),
        referrer: None,
        channel: Channel::Direct,
        browser: None,
        os: None,
        device: Device::Other,
        session_hint: None,
    }
}

#[test]
fn page_view_is_cleaned_and_enriched() {
    let json = format!(
        r#"{{"event_type": "page_view", "event_id": "e1", "user_id": "user-1", "ts": "2025-08-16T16:50:49.401333+02:00",
            "url": "Posts/?page=2", "referrer": " Google ", "ua": "{CHROME}", "session_hint": "s1"}}"#
    );
    let row = Row {
        referrer: Some("Google".to_owned()),
        channel: Channel::Search,
        browser: Some("Chrome".to_owned()),
        os: Some("Windows 10".to_owned()),
        device: Device::Desktop,
        session_hint: Some("s1".to_owned()),
        ..bare_row()
    };
    check(&json, Ok(row));
}

#[test]
fn optional_fields_may_be_absent_null_or_empty() {
    let needed = r#""event_id": " e1 ", "user_id": "user-1", "ts": "2025-08-16T14:50:49.401333""#;
    check(&format!(r#"{{{needed}, "url": "posts"}}"#), Ok(bare_row()));
    let empty = r#""referrer": "", "ua": " ", "session_hint": """#;
    check(&format!(r#"{{{needed}, "url": "posts", {empty}}}"#), Ok(bare_row()));
    let null = r#""referrer": null, "ua": null, "session_hint": null, "more": [{"x": 1}]"#;
    check(&format!(r#"{{{needed}, "url": "posts", {null}}}"#), Ok(bare_row()));
    check(&format!(r#"{{{needed}, "url": ""}}"#), Ok(Row { url: "/".to_owned(), ..bare_row() }));
}

#[test]
fn identifiers_and_times_are_read_in_every_form() {
    let row = || Row { ts: 1_755_355_849_401_000, ..bare_row() };
    for ts in ["1755355849401", r#""1755355849.401""#, r#""2025-08-16 14:50:49.401 UTC""#] {
        check(&format!(r#"{{"event_id": "e1", "user_id": "user-1", "ts": {ts}, "url": "posts"}}"#), Ok(row()));
    }
    let json = r#"{"event_id": 9007199254740993, "user_id": -7, "ts": 1755355849401, "url": "posts"}"#;
    check(json, Ok(Row { event_id: "9007199254740993".to_owned(), user_id: "-7".to_owned(), ..row() }));
}

#[test]
fn missing_or_invalid_required_fields_are_rejected() {
    let rejects = [
        (r#"{"user_id": "u", "ts": "2025-08-16T14:50:49Z", "url": "/"}"#, "missing-field: event_id: absent or empty"),
        (r#"{"event_id": " ", "user_id": "u", "url": "/"}"#, "missing-field: event_id: absent or empty"),
        (r#"{"event_id": "e", "user_id": null, "url": "/"}"#, "missing-field: user_id: absent or empty"),
        (r#"{"event_id": "e", "user_id": "u", "ts": "", "url": "/"}"#, "missing-field: ts: absent or empty"),
        (
            r#"{"event_id": "e", "user_id": "u", "ts": "2025-08-16T14:50:49Z", "url": null}"#,
            "missing-field: url: absent or empty",
        ),
        (
            r#"{"event_id": "e", "user_id": "u", "ts": "2025-02-30T14:50:49Z", "url": "/"}"#,
            "malformed: ts: \"2025-02-30T14:50:49Z\" is not an ISO 8601 timestamp such as 2025-08-16T14:50:49.401Z",
        ),
        (r#"{"event_id": {}}"#, "malformed: event_id: invalid type: map, expected a string at line 1 column 15"),
        (r#"{"event_id": "e""#, "malformed: not JSON: EOF while parsing an object at line 1 column 16"),
        (r#"["e", "u", "2025-08-16T14:50:49Z", "/"]"#, "malformed: not a JSON object"),
        ("", "malformed: not JSON: EOF while parsing a value at line 1 column 0"),
    ];
    for (json, reason) in rejects {
        check(json, Err(reason));
    }
}

#[test]
fn referrers_are_mapped_to_channels() {
    let check = |referrer: Option<&str>, expected: Channel| assert_eq!(channel(referrer), expected, "{referrer:?}");
    for (names, expected) in [
        ("google Bing YAHOO duckduckgo", Channel::Search),
        ("facebook Twitter instagram x", Channel::Social),
        ("newsletter EMAIL", Channel::Email),
        ("affiliate", Channel::Affiliate),
        ("direct Direct", Channel::Direct),
        ("partner googles goo", Channel::Other),
    ] {
        names.split(' ').for_each(|name| check(Some(name), expected));
    }
    check(None, Channel::Direct);
}
