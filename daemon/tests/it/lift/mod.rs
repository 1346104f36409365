//! The daemon's lift equals wasmtime's, for every type that a column can have.
//!
//! The guest returns the bytes that it received, so both lifts read the same memory.

mod cells;
mod random;

use std::cell::RefCell;

use arrow::array::Array;
use proptest::test_runner::{Config, TestRunner};
use serde_json::Value;
use silverd::plugin::Rows;
use wasmtime::component::{Component, Linker, TypedFunc};
use wasmtime::{Engine, Store};
use wit_component::StringEncoding;

use self::cells::Cell;
use self::echo::exports::test::lift::rows::{Few, Item, Many, Numbers, Options, Row};
use crate::harness::guest;

mod echo {
    wasmtime::component::bindgen!({ path: "tests/it/fixtures/lift.wit", additional_derives: [Clone] });
}

/// The guest, with its output read by both lifts.
struct Echo {
    store: Store<()>,
    theirs: TypedFunc<(Vec<Row>,), (Vec<Row>,)>,
    ours: TypedFunc<(Vec<Row>,), (Rows,)>,
}

impl Echo {
    fn new() -> Self {
        let code = [guest::ALLOCATOR, guest::REALLOC, &guest::echo("test:lift/rows@0.1.0#echo")].concat();
        let wit = include_str!("../fixtures/lift.wit");
        let module = guest::module(&code, guest::TYPES, wit, "lift", StringEncoding::UTF8);
        let engine = Engine::default();
        let component = Component::from_binary(&engine, &guest::component(&module)).unwrap();
        let mut store = Store::new(&engine, ());
        store.set_hostcall_fuel(1 << 30);
        let instance = Linker::new(&engine).instantiate(&mut store, &component).unwrap();
        let rows = instance.get_export_index(&mut store, None, "test:lift/rows@0.1.0").unwrap();
        let echo = instance.get_export_index(&mut store, Some(&rows), "echo").unwrap();
        let theirs = instance.get_typed_func(&mut store, echo).unwrap();
        let ours = instance.get_typed_func(&mut store, echo).unwrap();
        Self { store, theirs, ours }
    }

    /// These rows, read by both lifts, as JSON.
    fn lift(&mut self, rows: &[Row]) -> (Vec<Value>, Vec<Value>) {
        let (theirs,) = self.theirs.call(&mut self.store, (rows.to_vec(),)).unwrap();
        let (ours,) = self.ours.call(&mut self.store, (rows.to_vec(),)).unwrap();
        for column in &ours.columns {
            assert_eq!(column.len(), ours.len);
            column.to_data().validate_full().unwrap();
        }
        let row = |row| ours.columns.iter().map(|column| cells::of_array(column, row)).collect();
        (theirs.iter().map(Cell::json).collect(), (0..ours.len).map(row).collect())
    }
}

#[track_caller]
fn check(rows: &[Row]) {
    let (theirs, ours) = Echo::new().lift(rows);
    assert_eq!(theirs.len(), rows.len());
    assert!(theirs == ours, "theirs: {theirs:#?}\nours: {ours:#?}");
}

#[test]
fn random_rows_are_equal() {
    let echo = RefCell::new(Echo::new());
    let config = Config { cases: 300, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&random::rows(), |rows| {
        let (theirs, ours) = echo.borrow_mut().lift(&rows);
        proptest::prop_assert_eq!(theirs, ours);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn none_one_and_many_rows_are_equal() {
    check(&[]);
    check(&[plain()]);
    let many: Vec<Row> = (0..5_000).map(|at| Row { text: at.to_string(), last: at as u8, ..plain() }).collect();
    check(&many);
}

#[test]
fn extreme_numbers_are_equal() {
    let low = Numbers {
        yes: false,
        long: i64::MIN,
        byte: i8::MIN,
        short: i16::MIN,
        unsigned_byte: 0,
        int: i32::MIN,
        unsigned_short: 0,
        unsigned_long: 0,
        letter: '\0',
        double: f64::NEG_INFINITY,
        unsigned_int: 0,
        single: -0.0,
    };
    let high = Numbers {
        yes: true,
        long: i64::MAX,
        byte: i8::MAX,
        short: i16::MAX,
        unsigned_byte: u8::MAX,
        int: i32::MAX,
        unsigned_short: u16::MAX,
        unsigned_long: u64::MAX,
        letter: char::MAX,
        double: f64::MAX,
        unsigned_int: u32::MAX,
        single: f32::INFINITY,
    };
    let odd = Numbers { single: f32::NAN, double: -f64::NAN, letter: '\u{d7ff}', ..low };
    let tiny = Numbers { single: f32::from_bits(1), double: -0.0, letter: '\u{e000}', ..high };
    let rows = [low, high, odd, tiny].map(|numbers| Row { numbers, item: Item { size: numbers, ..item() }, ..plain() });
    check(&rows);
}

#[test]
fn text_of_every_width_is_equal() {
    let texts = [
        "",
        "a",
        "\0",
        "é",
        "€",
        "𝄞",
        "e\u{301}",
        "日本語のテキスト",
        "👩\u{200d}👩",
        "\u{10ffff}",
        "a𝄞é€\u{7f}\u{80}",
    ];
    let rows: Vec<Row> = texts
        .map(|text| Row {
            text: text.to_owned(),
            maybe_text: Some(text.to_owned()),
            bytes: text.as_bytes().to_vec(),
            tags: texts.iter().map(|tag| [text, tag].concat()).collect(),
            maybe_tags: Some(vec![text.to_owned(); 3]),
            item: Item { note: Some(text.to_owned()), tags: vec![text.to_owned()], ..item() },
            ..plain()
        })
        .into();
    check(&rows);
}

#[test]
fn large_values_are_equal() {
    let len = 8 << 20;
    let text = "0123é€𝄞".chars().cycle().take(len / 2).collect();
    let bytes = (0..len).map(|at| (at % 251) as u8).collect();
    let tags = vec!["x".repeat(len / 8), String::new(), "é".repeat(len / 8)];
    check(&[plain(), Row { text, maybe_bytes: Some(bytes), tags, ..plain() }, plain()]);
}

#[test]
fn every_case_of_an_enum_is_equal() {
    let rows: Vec<Row> = (0..300)
        .map(|case| {
            // SAFETY: `many` has 300 cases, whose discriminant is a u16.
            let many: Many = unsafe { std::mem::transmute(case as u16) };
            let few = [Few::Red, Few::Green, Few::Blue][case % 3];
            let maybe_few = [None, Some(few)][case % 2];
            Row { few, many, maybe_few, maybe_many: Some(many), kinds: vec![many, Many::C0, Many::C299], ..plain() }
        })
        .collect();
    check(&rows);
}

#[test]
fn options_are_equal() {
    let options = Options {
        yes: Some(false),
        long: Some(0),
        byte: Some(0),
        short: Some(-1),
        unsigned_byte: Some(0),
        int: Some(0),
        unsigned_short: Some(0),
        unsigned_long: Some(u64::MAX),
        letter: Some('\0'),
        double: Some(0.0),
        unsigned_int: Some(0),
        single: Some(f32::NAN),
    };
    let full = Row {
        options,
        maybe_text: Some(String::new()),
        maybe_few: Some(Few::Red),
        maybe_many: Some(Many::C256),
        maybe_bytes: Some(Vec::new()),
        maybe_tags: Some(Vec::new()),
        holes: vec![None, Some(0), None, Some(-1)],
        maybe_items: Some(Vec::new()),
        maybe_item: Some(Item { note: Some("here".to_owned()), amount: Some(1), ..item() }),
        ..plain()
    };
    // In both orders: a value that is none must not be read as that of the row before.
    check(&[plain(), full.clone(), plain(), full.clone()]);
    check(&[full.clone(), plain(), full, plain()]);
}

#[test]
fn lists_in_records_in_lists_are_equal() {
    let inner = |n: usize| Item {
        note: n.is_multiple_of(2).then(|| "n".repeat(n)),
        colour: [Few::Red, Few::Green, Few::Blue][n % 3],
        amount: n.is_multiple_of(3).then_some(n as u64),
        tags: (0..n).map(|at| "t".repeat(at)).collect(),
        grid: (0..n).map(|len| (0..len as u16).collect()).collect(),
        size: item().size,
    };
    let items = |n: usize| (0..n).map(inner).collect::<Vec<_>>();
    let rows: Vec<Row> = (0..7)
        .map(|n| Row {
            items: items(n),
            maybe_items: (n != 3).then(|| items(7 - n)),
            maybe_item: (n % 2 == 1).then(|| inner(n)),
            item: inner(n + 1),
            switches: (0..n * 5).map(|at| at % 3 == 0).collect(),
            ..plain()
        })
        .collect();
    check(&rows);
}

/// A row with only the required values.
fn plain() -> Row {
    Row {
        flag: true,
        text: "plain".to_owned(),
        numbers: item().size,
        few: Few::Blue,
        options: Options {
            yes: None,
            long: None,
            byte: None,
            short: None,
            unsigned_byte: None,
            int: None,
            unsigned_short: None,
            unsigned_long: None,
            letter: None,
            double: None,
            unsigned_int: None,
            single: None,
        },
        many: Many::C257,
        maybe_text: None,
        bytes: vec![0, 255],
        maybe_few: None,
        maybe_many: None,
        maybe_bytes: None,
        tags: Vec::new(),
        maybe_tags: None,
        switches: vec![true, false],
        holes: Vec::new(),
        kinds: Vec::new(),
        items: Vec::new(),
        maybe_items: None,
        item: item(),
        maybe_item: None,
        last: 7,
    }
}

fn item() -> Item {
    let size = Numbers {
        yes: true,
        long: 1 << 40,
        byte: -2,
        short: -3,
        unsigned_byte: 200,
        int: -4,
        unsigned_short: 60_000,
        unsigned_long: 1 << 63,
        letter: 'ß',
        double: 0.1,
        unsigned_int: 4_000_000_000,
        single: 1e-20,
    };
    Item { note: None, colour: Few::Green, amount: None, tags: Vec::new(), grid: Vec::new(), size }
}
