//! The generator gives the right shapes, shares and exact totals, and the same events for the same seed.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// 2025-08-16T14:50:00 UTC.
const NOW: i64 = 1_755_355_800 * MICROS_PER_SECOND;

/// `count` events, a hundred a second.
fn events(options: &Options, count: i64) -> Vec<Generated> {
    let mut generator = Generator::new(options.clone());
    (0..count).map(|i| generator.next(NOW + i * 10_000)).collect()
}

fn parse(event: &Generated) -> Value {
    serde_json::from_slice(&event.value).expect("an event is JSON")
}

fn text<'a>(event: &'a Value, field: &str) -> &'a str {
    event[field].as_str().unwrap_or_else(|| panic!("{field} is a string in {event}"))
}

fn whole(event: &Value, field: &str) -> u64 {
    event[field].as_u64().unwrap_or_else(|| panic!("{field} is a whole number in {event}"))
}

/// Hundredths, read from the digits as they were written.
fn cents(event: &Generated, field: &str) -> Vec<u64> {
    let value = std::str::from_utf8(&event.value).expect("UTF-8");
    let label = format!("\"{field}\": ");
    let numbers = value.split(&label).skip(1).map(|rest| {
        let digits = rest.split([',', '}']).next().expect("a number");
        assert_eq!(digits.split_once('.').expect("decimals").1.len(), 2, "{digits}");
        digits.replace('.', "").parse().expect("digits")
    });
    numbers.collect()
}

fn check_uuid(id: &str) {
    let matches = id.char_indices().all(|(i, c)| match i {
        8 | 13 | 18 | 23 => c == '-',
        14 => c == '4',
        19 => "89ab".contains(c),
        _ => c.is_ascii_digit() || ('a'..='f').contains(&c),
    });
    assert!(matches && id.len() == 36, "not a UUID of version 4: {id}");
}

fn check_item(item: &Value) {
    let sku: u32 = text(item, "sku").strip_prefix("SKU-").expect("a prefix").parse().expect("a number");
    assert!((1..=500).contains(&sku) && text(item, "sku").len() == 9, "{item}");
    assert!((1..=3).contains(&whole(item, "qty")), "{item}");
    assert!((5.0..=200.0).contains(&item["price"].as_f64().expect("a price")), "{item}");
}

fn check_shape(event: &Generated, users: u32) {
    let json = parse(event);
    let fields: BTreeSet<&str> = json.as_object().expect("an object").keys().map(String::as_str).collect();
    let own: &[&str] = match text(&json, "event_type") {
        "page_view" => &["url", "referrer", "ua", "session_hint"],
        "add_to_cart" => &["sku", "qty", "price"],
        "order_placed" => &["order_id", "total", "line_items"],
        other => panic!("an unknown event type: {other}"),
    };
    let expected = ["event_type", "event_id", "user_id", "ts"].iter().chain(own).copied().collect();
    assert_eq!(fields, expected);

    assert_eq!(text(&json, "event_id"), event.key);
    check_uuid(&event.key);
    let user: u32 = text(&json, "user_id").strip_prefix("user-").expect("a prefix").parse().expect("a number");
    assert!((1..=users).contains(&user), "{user}");
    match text(&json, "event_type") {
        "page_view" => {
            check_uuid(text(&json, "session_hint"));
            assert!(REFERRERS.contains(&text(&json, "referrer")));
            assert!(text(&json, "url").split('/').all(|word| PATH_WORDS.contains(&word)));
            assert!(!text(&json, "ua").contains(['{', '}']), "{}", text(&json, "ua"));
        }
        "add_to_cart" => check_item(&json),
        _ => {
            check_uuid(text(&json, "order_id"));
            let items = json["line_items"].as_array().expect("a list");
            assert!((1..=CART_ITEMS_MAX).contains(&items.len()));
            items.iter().for_each(check_item);
            let quantities = items.iter().map(|item| whole(item, "qty"));
            let total: u64 = quantities.zip(cents(event, "price")).map(|(quantity, price)| quantity * price).sum();
            assert_eq!(cents(event, "total"), [total], "{json}");
        }
    }
}

fn shares(events: &[Generated]) -> BTreeMap<String, f64> {
    let originals: Vec<_> = events.iter().filter(|event| !event.duplicate).collect();
    let mut shares = BTreeMap::new();
    for event in &originals {
        *shares.entry(text(&parse(event), "event_type").to_owned()).or_default() += 100.0 / originals.len() as f64;
    }
    shares
}

#[test]
fn events_have_the_right_shapes_and_shares() {
    let events = events(&Options { seed: 7, ..Options::default() }, 20_000);
    events.iter().for_each(|event| check_shape(event, 200));
    for (event_type, expected, tolerance) in
        [("page_view", 75.0, 1.0), ("add_to_cart", 20.0, 1.0), ("order_placed", 5.0, 0.5)]
    {
        let share = shares(&events)[event_type];
        assert!((share - expected).abs() < tolerance, "{event_type}: {share} %");
    }
    let duplicates = events.iter().filter(|event| event.duplicate).count() as f64;
    let percent = 100.0 * duplicates / (20_000.0 - duplicates);
    assert!((percent - 1.5).abs() < 0.3, "{percent} % were sent twice");
}

#[test]
fn visitors_vary_and_keep_their_browser_during_a_visit() {
    let events = events(&Options { seed: 7, ..Options::default() }, 20_000);
    let pages: Vec<_> = events.iter().map(parse).filter(|event| text(event, "event_type") == "page_view").collect();
    let mut visits = BTreeMap::new();
    for page in &pages {
        let visit = (text(page, "user_id"), text(page, "ua"));
        assert_eq!(*visits.entry(text(page, "session_hint")).or_insert(visit), visit);
    }
    // 200 seconds: every user has one visit, and a few have begun a second one.
    assert!((200..=240).contains(&visits.len()), "{} visits", visits.len());
    let agents: BTreeSet<_> = visits.values().map(|visit| visit.1).collect();
    assert!(agents.len() > 100, "{} user agents", agents.len());
    assert!(agents.iter().any(|ua| ua.contains("bot")) && agents.iter().any(|ua| ua.contains("iPad")));
    assert_eq!(pages.iter().map(|page| text(page, "referrer")).collect::<BTreeSet<_>>().len(), 6);
}

#[test]
fn user_agents_follow_zipfs_law() {
    let (ranks, mut random) = (Ranks::new(40_000), Random::new(1));
    let mut seen = BTreeMap::<u64, u32>::new();
    for _ in 0..1_500_000 {
        *seen.entry(ranks.draw(&mut random)).or_default() += 1;
    }
    assert!(seen.len() >= 20_000, "{} user agents", seen.len());
    let share = f64::from(seen[&0]) / f64::from(seen[&9]);
    assert!((share - 10.0).abs() < 0.5, "the first is seen {share} times as often as the tenth");
    for (user_agents, least) in [(UserAgents::Distinct, 7_000), (UserAgents::Zipf(40_000), 2_000)] {
        let events = events(&Options { seed: 7, user_agents, dup_pct: 0.0, ..Options::default() }, 10_000);
        let pages: Vec<_> = events.iter().map(parse).filter(|event| text(event, "event_type") == "page_view").collect();
        let agents: BTreeSet<_> = pages.iter().map(|page| text(page, "ua")).collect();
        assert!(agents.len() >= least, "{} user agents", agents.len());
    }
}

#[test]
fn an_order_has_the_items_of_its_cart() {
    let mut carts: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let events = events(&Options { seed: 3, users: 20, ..Options::default() }, 20_000);
    for event in events.iter().filter(|event| !event.duplicate).map(parse) {
        let cart = carts.entry(text(&event, "user_id").to_owned()).or_default();
        match text(&event, "event_type") {
            "add_to_cart" => {
                cart.push(serde_json::json!({"sku": event["sku"], "qty": event["qty"], "price": event["price"]}));
                cart.drain(..cart.len().saturating_sub(CART_ITEMS_MAX));
            }
            "order_placed" => assert_eq!(event["line_items"], Value::Array(std::mem::take(cart))),
            _ => {}
        }
    }
}

#[test]
fn a_duplicate_repeats_a_recent_event() {
    let events = events(&Options { seed: 5, dup_pct: 30.0, ..Options::default() }, 5_000);
    for (i, event) in events.iter().enumerate() {
        let before = &events[i.saturating_sub(60)..i];
        let first = before.iter().any(|other| other.value == event.value && !other.duplicate);
        assert_eq!(first, event.duplicate, "event {i}");
    }
}

#[test]
fn times_are_around_now_and_some_have_an_offset() {
    let events = events(&Options { seed: 1, skew_seconds: 60, ..Options::default() }, 1_000);
    let times: Vec<_> = events.iter().map(|event| text(&parse(event), "ts").to_owned()).collect();
    for time in &times {
        assert!(("2025-08-16T14:49:00.000000".."2025-08-16T14:51:10.000001").contains(&&time[..26]), "{time}");
    }
    for offset in ["", "+00:00", "Z"] {
        assert!(times.iter().any(|time| &time[26..] == offset), "none ends in {offset:?}");
    }
}

#[test]
fn backdated_events_keep_the_time_of_day() {
    // 19417 days: 2023-03-01, so that the skew reaches into another month.
    let now = NOW - NOW.rem_euclid(MICROS_PER_DAY) + 30 * MICROS_PER_SECOND;
    let mut generator = Generator::new(Options { backdate: Some(19_417), ..Options::default() });
    let days: BTreeSet<String> =
        (0..1_000).map(|_| text(&parse(&generator.next(now)), "ts")[..13].to_owned()).collect();
    assert_eq!(days, BTreeSet::from(["2023-02-28T23".to_owned(), "2023-03-01T00".to_owned()]));
}

#[test]
fn times_are_formatted_as_iso_8601() {
    for (micros, expected) in [
        (0, "1970-01-01T00:00:00.000000"),
        (-1, "1969-12-31T23:59:59.999999"),
        (951_782_400 * MICROS_PER_SECOND, "2000-02-29T00:00:00.000000"),
        (4_107_542_400 * MICROS_PER_SECOND, "2100-03-01T00:00:00.000000"),
        (1_755_355_849_401_333, "2025-08-16T14:50:49.401333"),
    ] {
        assert_eq!(Iso(micros).to_string(), expected);
    }
}

/// A backfill with the same seed must give the same events after an upgrade.
#[test]
fn a_seed_gives_the_same_events_in_every_version() {
    let events = events(&Options { seed: 42, ..Options::default() }, 100);
    let first = |event_type: &str| {
        let found = events.iter().find(|event| text(&parse(event), "event_type") == event_type);
        String::from_utf8(found.expect("one of each type").value.clone()).expect("an event is UTF-8")
    };
    insta::assert_snapshot!(first("page_view"), @r#"{"event_type": "page_view", "event_id": "d0764d4f-4476-489f-919e-4174576f3791", "user_id": "user-159", "ts": "2025-08-16T14:54:50.336501+00:00", "url": "categories/search", "referrer": "newsletter", "ua": "Mozilla/5.0 (iPhone; CPU iPhone OS 17_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/133.0.3977.155 Mobile/15E148 Safari/604.1", "session_hint": "e0487b00-39b1-4e0e-947c-581a22414866"}"#);
    insta::assert_snapshot!(first("add_to_cart"), @r#"{"event_type": "add_to_cart", "event_id": "320670d6-4982-40ae-981e-3a20ec59d29f", "user_id": "user-185", "ts": "2025-08-16T14:54:31.709404", "sku": "SKU-00054", "qty": 2, "price": 153.41}"#);
    insta::assert_snapshot!(first("order_placed"), @r#"{"event_type": "order_placed", "event_id": "a82710b3-a71f-4883-8a68-eb10509164da", "user_id": "user-185", "order_id": "caf62f1d-b0d7-4783-817e-c5add2d2ba4d", "ts": "2025-08-16T14:49:54.830555", "total": 306.82, "line_items": [{"sku": "SKU-00054", "qty": 2, "price": 153.41}]}"#);
}

#[test]
fn extreme_options_do_not_panic() {
    let options =
        Options { users: 0, dup_pct: f64::NAN, skew_seconds: u32::MAX, backdate: Some(i32::MAX), ..Options::default() };
    for now in [i64::MIN, -1, 0, i64::MAX] {
        Generator::new(options.clone()).next(now);
        Generator::new(Options { backdate: None, ..options.clone() }).next(now);
    }
}

#[test]
fn carts_stay_bounded() {
    let options = Options { users: u32::MAX, seed: 9, ..Options::default() };
    let mut generator = Generator::new(options);
    for i in 0..100_000 {
        generator.next(NOW + i);
    }
    assert_eq!(generator.carts.open.len(), OPEN_CARTS_MAX);
    assert_eq!(generator.carts.index.len(), OPEN_CARTS_MAX);
    assert!(generator.carts.open.iter().all(|cart| cart.items.len() <= CART_ITEMS_MAX));
}

proptest! {
    #[test]
    fn any_seed_gives_valid_events_reproducibly(
        seed: u64,
        users in 1_u32..50,
        dup_pct in 0.0..=100.0,
        skew_seconds in 0_u32..1_000_000,
        backdate in proptest::option::of(-25_000_i32..60_000),
    ) {
        let options =
            Options { users, dup_pct, skew_seconds, seed, backdate, user_agents: UserAgents::Browsers };
        let first = events(&options, 200);
        first.iter().for_each(|event| check_shape(event, users));
        prop_assert_eq!(first, events(&options, 200));
    }

    #[test]
    fn pending_duplicates_stay_bounded(seed: u64) {
        let mut generator = Generator::new(Options { seed, dup_pct: 100.0, ..Options::default() });
        for i in 0..1_000 {
            generator.next(NOW + i);
            prop_assert!(generator.resends.len() as u64 <= RESEND_WITHIN_EVENTS + 1);
        }
    }
}
