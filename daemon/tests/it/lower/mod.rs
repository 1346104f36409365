//! silverd's lowering of typed events equals wasmtime's, for every type that an input can have.
//!
//! The guest returns the bytes that it received; wasmtime reads them. So what wasmtime finds must be the event that the
//! JSON was written from.

mod as_json;
mod random;

use std::borrow::Cow;

use proptest::test_runner::{Config, TestRunner};
use silverd::plugin::{Rooms, TypedEvents};
use silverd_core::chunk::{Chunk, ChunkBuilder, Record, TimestampType};
use silverd_core::input::{Decoder, EventType, Image, Records};
use silverd_core::offsets::LogPartition;
use wasmtime::component::{Component, Linker, TypedFunc};
use wasmtime::{Engine, Store};
use wit_component::StringEncoding;

use self::echo::exports::test::lower::events::{Colour, Event, Input, Item, Numbers, Options};
use self::echo::silverd::pipeline::types::{Header, Meta};
use crate::harness::guest;

mod echo {
    wasmtime::component::bindgen!({
        path: ["../wit/types.wit", "tests/it/fixtures/lower.wit"],
        world: "test:lower/lower",
        additional_derives: [Clone, PartialEq],
    });
}

const WIT: &str = include_str!("../fixtures/lower.wit");

const FUNCTION: &str = "test:lower/events@0.1.0#transform";

/// The code of a guest's `cabi_realloc`, and what it says of it.
struct Allocator {
    code: String,
    rooms: Rooms,
}

impl Allocator {
    fn good(rooms: Rooms) -> Self {
        Self { code: guest::REALLOC.to_owned(), rooms }
    }

    /// One that always gives this answer.
    fn hostile(rooms: Rooms, answer: &str) -> Self {
        let code = format!(r#"(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) {answer})"#);
        Self { code, rooms }
    }
}

struct Echo {
    rooms: Rooms,
    ty: EventType,
    store: Store<()>,
    transform: TypedFunc<(TypedEvents<'static>,), (Vec<Event>,)>,
}

impl Echo {
    fn new(allocator: &Allocator) -> Self {
        let code = [guest::ALLOCATOR, &allocator.code, &guest::echo(FUNCTION)].concat();
        let module = guest::module(&code, guest::TYPES, WIT, "lower", StringEncoding::UTF8);
        let engine = Engine::default();
        let component = Component::from_binary(&engine, &guest::component(&module)).unwrap();
        let mut store = Store::new(&engine, ());
        store.set_hostcall_fuel(1 << 30);
        let instance = Linker::new(&engine).instantiate(&mut store, &component).unwrap();
        let events = instance.get_export_index(&mut store, None, "test:lower/events@0.1.0").unwrap();
        let transform = instance.get_export_index(&mut store, Some(&events), "transform").unwrap();
        let transform = instance.get_typed_func(&mut store, transform).unwrap();
        Self { rooms: allocator.rooms, ty: guest::event_type(WIT), store, transform }
    }

    /// Events, read from the chunk by silverd and from the guest's memory by wasmtime.
    fn events(&mut self, chunk: &Chunk) -> wasmtime::Result<Vec<Event>> {
        let records = Records::new(chunk);
        let (mut decoder, mut image) = (Decoder::default(), Image::default());
        for row in 0..chunk.records.num_rows() {
            decoder.decode(&self.ty, &records, row, &mut image, 64 << 20).unwrap_or_else(|rejection| {
                panic!("{}: {}", rejection.reason, String::from_utf8_lossy(chunk.values().value(row)))
            });
        }
        // SAFETY: as in the daemon, the borrow ends with the call.
        let transform =
            unsafe { TypedFunc::<(TypedEvents<'_>,), (Vec<Event>,)>::new_unchecked(*self.transform.func()) };
        let (events,) =
            transform.call(&mut self.store, (TypedEvents::new(&records, &self.ty, self.rooms, &mut image),))?;
        Ok(events)
    }
}

/// A chunk of these events, each with its own JSON.
fn chunk(events: &[Event]) -> Chunk {
    let mut builder = ChunkBuilder::default();
    for Event { input, meta } in events {
        let value = as_json::input(input).to_string();
        let headers = meta.headers.iter().map(|header| (Cow::Borrowed(&*header.name), header.value.as_deref()));
        let log = builder.log(&LogPartition::new("cluster", "the topic", meta.partition));
        builder.push(
            log,
            meta.offset,
            Record {
                offset: meta.offset,
                timestamp: Some((meta.timestamp / 1000, TimestampType::CreateTime)),
                key: meta.key.as_deref(),
                value: Some(value.as_bytes()),
                headers: headers.collect::<Vec<_>>().into_iter(),
            },
        );
    }
    builder.finish(0)
}

#[track_caller]
fn check(events: &[Event]) {
    for rooms in [Rooms::Each, Rooms::OneBlock] {
        let found = Echo::new(&Allocator::good(rooms)).events(&chunk(events)).unwrap();
        assert_eq!(found.len(), events.len());
        for (found, event) in found.iter().zip(events) {
            assert!(found == event, "{rooms:?}: found {found:#?}\nof {event:#?}");
        }
    }
}

#[test]
fn random_events_are_equal() {
    let echo = |rooms| std::cell::RefCell::new(Echo::new(&Allocator::good(rooms)));
    let echoes = [echo(Rooms::Each), echo(Rooms::OneBlock)];
    let config = Config { cases: 300, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&random::events(), |events| {
        for echo in &echoes {
            let found = echo.borrow_mut().events(&chunk(&events)).unwrap();
            proptest::prop_assert_eq!(format!("{found:?}"), format!("{events:?}"));
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn none_one_and_many_events_are_equal() {
    check(&[]);
    check(&[plain()]);
    let event = |at: usize| {
        let Event { input, meta } = plain();
        Event { input: Input { text: format!("text {at}"), last: at as u8, ..input }, meta }
    };
    check(&(0..5_000).map(event).collect::<Vec<_>>());
}

#[test]
fn large_values_are_equal() {
    let Event { input, meta } = plain();
    let text = "0123é€𝄞\n".chars().cycle().take(1 << 20).collect();
    let tags = vec!["x".repeat(1 << 20), "y".to_owned(), "é".repeat(1 << 20)];
    check(&[plain(), Event { input: Input { text, tags, ..input }, meta }, plain()]);
}

#[test]
fn a_hostile_allocator_is_an_error() {
    let check = |answer: &str, expected: &str| {
        for rooms in [Rooms::Each, Rooms::OneBlock] {
            let mut echo = Echo::new(&Allocator::hostile(rooms, answer));
            let error = echo.events(&chunk(&[plain()])).expect_err(answer);
            assert!(format!("{error:#}").contains(expected), "{rooms:?}, {answer}: {error:#}");
        }
    };
    check("(i32.const -65536)", "realloc return: beyond end of memory");
    check("(i32.const 1)", "realloc return: result not aligned");
    check("(unreachable)", "wasm trap");
    // Overlapping answers damage only what the guest itself reads.
    let overlapping = Allocator::hostile(Rooms::Each, "(i32.const 1024)");
    let _ = Echo::new(&overlapping).events(&chunk(&[plain(), plain()]));
}

/// An event with only the required values.
fn plain() -> Event {
    let options = Options {
        yes: None,
        long: None,
        byte: None,
        letter: None,
        double: None,
        unsigned_int: None,
        when: None,
        day: None,
        price: None,
        colour: None,
        rest: None,
    };
    let input = Input {
        flag: true,
        text: "plain".to_owned(),
        numbers: item().size,
        colour: Colour::DarkGreen,
        options,
        maybe_text: None,
        when: 1_755_355_849_401_333,
        day: 20_316,
        price: 1_999,
        rest: "null".to_owned(),
        tags: Vec::new(),
        maybe_tags: None,
        switches: vec![true, false],
        holes: Vec::new(),
        items: Vec::new(),
        maybe_items: None,
        item: item(),
        maybe_item: None,
        counts: Vec::new(),
        maybe_sizes: None,
        last: 7,
    };
    let headers = vec![Header { name: "h".to_owned(), value: None }];
    let meta = Meta { topic: "the topic".to_owned(), partition: 3, offset: 17, timestamp: 1_000, key: None, headers };
    Event { input, meta }
}

fn item() -> Item {
    let size = Numbers {
        yes: true,
        long: i64::MIN,
        byte: -128,
        short: i16::MAX,
        unsigned_byte: 255,
        int: i32::MIN,
        unsigned_short: 65_535,
        unsigned_long: u64::MAX,
        letter: 'ß',
        double: 0.1,
        unsigned_int: u32::MAX,
        single: 1e-20,
    };
    Item { note: None, colour: Colour::Red, amount: None, tags: Vec::new(), grid: Vec::new(), size }
}
