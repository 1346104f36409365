//! The JSON of events: the tape, routing, decoding, and what `silverd infer` makes of it.

use std::borrow::Cow;
use std::sync::LazyLock;

use serde_json::Value;
use silverd_core::chunk::{Chunk, ChunkBuilder, Record, TimestampType};
use silverd_core::config;
use silverd_core::infer::{self, By, Event, Values};
use silverd_core::input::{Decoder, EventType, Image, Records};
use silverd_core::json::{Json, Kind, Tape};
use silverd_core::offsets::LogPartition;
use silverd_core::route::Router;

use super::{guest, planted};

pub(super) const INPUT: &str = include_str!("../../../tests/it/fixtures/lower.wit");
pub(super) const TOPIC: &str = "events";
/// Bytes that an event may take in a plugin's memory.
pub(super) const EVENT_BYTES_MAX: usize = 1 << 20;

/// The tape takes what serde_json takes, with the same values.
pub fn tape(text: &[u8]) {
    let mut tape = Tape::default();
    let read = tape.read(text);
    let theirs = serde_json::from_slice::<Value>(text);
    if let (Err(error), Ok(theirs)) = (&read, &theirs) {
        panic!("the tape refuses what serde_json takes: {error:?}, {theirs}");
    }
    let Ok(()) = read else { return };
    let text = std::str::from_utf8(text).expect("the tape takes UTF-8 only");
    let json = Json { text: text.as_bytes(), tape: &tape };
    let mut numbers = 0;
    for (at, node) in tape.nodes().iter().enumerate() {
        assert!(node.start <= node.end && node.end as usize <= text.len() && (node.next as usize) > at);
        assert!(json.raw(at).len() <= text.len() && json.json(at).len() <= text.len());
        match node.kind {
            Kind::Text | Kind::Escaped => {
                let _ = json.content(at).chars().count();
            }
            Kind::Object => assert!(tape.members(at).all(|(key, value)| key < value)),
            Kind::Array => assert!(tape.items(at).all(|item| item > at)),
            Kind::Number => numbers += 1,
            Kind::Null | Kind::True | Kind::False => {}
        }
    }
    // Of an object, the tape finds the first of equal keys, serde_json the last: without equal ones they agree.
    if let (Ok(Value::Object(members)), Some(Kind::Object)) = (&theirs, tape.nodes().first().map(|node| node.kind)) {
        assert!(tape.members(0).count() >= members.len());
        for (key, value) in members.iter().filter(|_| tape.members(0).count() == members.len()) {
            let found = tape.member(text.as_bytes(), 0, key).expect("a key that serde_json has");
            assert!(!value.is_string() || json.content(found) == value.as_str().unwrap_or_default());
        }
    }
    let escaped = tape.nodes().iter().filter(|node| node.kind == Kind::Escaped).count();
    planted(|| numbers >= 4 && escaped >= 3);
}

/// The tables of many kinds of `match`.
static ROUTER: LazyLock<Router> = LazyLock::new(|| {
    let matches = [
        r#"{ field = "event_type", equals = "page_view" }"#,
        r#"{ field = "event_type", in = ["add_to_cart", "7", "true"] }"#,
        r#"{ field = ["payload", "op"], equals = "d" }"#,
        r#"{ field = "kind", exists = true, not = { field = "kind", equals = "x" } }"#,
        r#"{ header = "ce_type", equals = "sign-up" }"#,
        r#"{ key = ["a", "b"] }"#,
        r#"{ or = [{ key = false }, { topic = "other" }] }"#,
        r#"{ and = [{ topic = "events" }, { field = ["a", "b", "c"], exists = false }] }"#,
        r#""everything""#,
    ];
    let tables = matches.iter().enumerate().map(|(at, matches)| {
        format!(
            "[silver.t{at}]\nplugin = \"p\"\nevent_time = \"ts\"\ntombstones = {}\nmatch = {matches}\n",
            at % 2 == 0
        )
    });
    let text = "[source]\nbrokers = \"b:1\"\ntopic = \"events\"\n".to_owned() + &tables.collect::<String>();
    Router::new(&config::check(&text, &|_| None).expect("a valid pipeline").silver)
});

/// A chunk of records with these values, all with the same key.
pub(super) fn chunk_of(key: Option<&[u8]>, values: &[&[u8]]) -> Chunk {
    let (mut builder, log) = ChunkBuilder::of(&LogPartition::new("cluster", TOPIC, 0));
    for (offset, value) in (0..).zip(values) {
        let headers = std::iter::empty::<(Cow<'_, str>, Option<&[u8]>)>();
        builder.push(log, offset, Record { offset, timestamp: None, key, value: Some(value), headers });
    }
    builder.finish(0)
}

/// A chunk of records, whose parts are separated by bytes that are not UTF-8: `key FE value FE header FF next record`. An empty
/// part is absent.
fn chunk(bytes: &[u8]) -> Chunk {
    let (mut builder, log) = ChunkBuilder::of(&LogPartition::new("cluster", TOPIC, 0));
    for (offset, record) in bytes.split(|byte| *byte == 0xff).enumerate().take(64) {
        let mut parts = record.split(|byte| *byte == 0xfe).map(|part| (!part.is_empty()).then_some(part));
        let (key, value, header) = (parts.next().flatten(), parts.next().flatten(), parts.next().flatten());
        let offset = offset as i64;
        let headers = header.map(|value| (Cow::Borrowed("ce_type"), Some(value))).into_iter();
        let timestamp = Some((offset, TimestampType::CreateTime));
        builder.push(log, offset, Record { offset, timestamp, key, value, headers });
    }
    builder.finish(0)
}

/// Each event is routed as if it were alone, and is in a table or unrouted.
pub fn route(bytes: &[u8]) {
    let all = ROUTER.route(&chunk(bytes));
    let mut routed = 0;
    for (row, record) in bytes.split(|byte| *byte == 0xff).enumerate().take(64) {
        let alone = ROUTER.route(&chunk(record));
        for (table, rows) in alone.tables.iter().enumerate() {
            assert_eq!(!rows.is_empty(), all.tables[table].contains(&(row as u32)), "row {row} of table {table}");
        }
        routed += usize::from(alone.tables.iter().any(|rows| !rows.is_empty()));
    }
    planted(|| routed >= 4 && all.tables[2].len() >= 2 && !all.tables[5].is_empty());
}

static EVENT_TYPE: LazyLock<EventType> = LazyLock::new(|| guest::event_type(INPUT));

/// An event that fits [`EVENT_TYPE`] in the corpus, and its neighbours.
pub fn decode(value: &[u8]) {
    let image_of = |values: &[&[u8]]| {
        let chunk = chunk_of(None, values);
        let records = Records::new(&chunk);
        let (mut decoder, mut image) = (Decoder::default(), Image::default());
        let decode = |row| decoder.decode(&EVENT_TYPE, &records, row, &mut image, EVENT_BYTES_MAX);
        let outcomes: Vec<_> = (0..values.len()).map(decode).collect();
        let sizes = (image.len(), image.events().len(), image.nested().len(), image.blocks().len());
        (outcomes, sizes, image.bytes())
    };
    let (alone, sizes, bytes) = image_of(&[value]);
    assert!(bytes <= 2 * EVENT_BYTES_MAX, "an event takes {bytes} bytes");
    let (twice, sizes_of_both, _) = image_of(&[value, value]);
    assert_eq!(alone[0].is_ok(), twice[0].is_ok());
    assert_eq!(alone[0].is_ok(), twice[1].is_ok());
    match &alone[0] {
        Ok(()) => assert_eq!((sizes.0 * 2, sizes.1 * 2), (sizes_of_both.0, sizes_of_both.1)),
        // What does not fit leaves nothing behind.
        Err(rejection) => {
            assert_eq!((sizes, sizes_of_both), ((0, 0, 0, 0), (0, 0, 0, 0)));
            assert!(!rejection.reason.is_empty() && rejection.reason.len() < 4_096, "{}", rejection.reason);
        }
    }
    planted(|| alone[0].is_ok() && sizes.3 > 100);
}

/// What is proposed for events is a valid pipeline.
pub fn infer(bytes: &[u8]) {
    let event = |value: &[u8]| Event { value: Some(value.to_vec()), ..Event::default() };
    let events: Vec<Event> = bytes.split(|byte| *byte == b'\n').take(64).map(event).collect();
    let report = infer::look(&events, &By::Auto, Values::Masked);
    let _ = infer::text(&report);
    let _ = infer::wit(&report);
    let sections = infer::toml(&report);
    let text = format!("[source]\nbrokers = \"b:1\"\ntopic = \"events\"\n{sections}");
    if let Err(errors) = config::check(&text, &|_| None) {
        panic!("{}", errors.render("pipeline.toml", &text, false));
    }
    planted(|| sections.matches("[silver.").count() >= 3 && sections.contains("list<"));
}
