//! Events and the expected rows.

use silverd_plugin::{Config, testing};

use crate::{Channel, Device, Input, PageView, Row, channel};

const CHROME: &str =
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36";

#[track_caller]
fn check(input: Input, expected: Result<Row, &str>) {
    let plugin: PageView = testing::configured(&Config::new());
    let found = testing::rows(&plugin, input).map_err(|reject| reject.to_string());
    assert_eq!(found, expected.map(|row| vec![row]).map_err(str::to_owned));
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// An event that has only the required fields, and its row.
fn bare() -> (Input, Row) {
    let input = Input {
        event_id: "e1".to_owned(),
        user_id: "user-1".to_owned(),
        ts: 1_755_355_849_401_333,
        url: text("posts"),
        referrer: None,
        ua: None,
        session_hint: None,
    };
    let row = Row {
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
    };
    (input, row)
}

#[test]
fn page_view_is_cleaned_and_enriched() {
    let (input, row) = bare();
    let input = Input {
        event_id: " e1 ".to_owned(),
        url: text("Posts/?page=2"),
        referrer: text(" Google "),
        ua: text(CHROME),
        session_hint: text("s1"),
        ..input
    };
    let row = Row {
        referrer: text("Google"),
        channel: Channel::Search,
        browser: text("Chrome"),
        os: text("Windows 10"),
        device: Device::Desktop,
        session_hint: text("s1"),
        ..row
    };
    check(input, Ok(row));
}

#[test]
fn optional_fields_may_be_absent_or_empty() {
    let (input, row) = bare();
    check(input.clone(), Ok(row.clone()));
    let empty = Input { referrer: text(""), ua: text(" "), session_hint: text(""), ..input.clone() };
    check(empty, Ok(row.clone()));
    check(Input { url: text(""), ..input.clone() }, Ok(Row { url: "/".to_owned(), ..row }));
    check(Input { url: None, ..input }, Err("missing-field: url: absent or empty"));
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
