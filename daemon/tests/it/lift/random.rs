//! Random rows.

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use super::echo::exports::test::lift::rows::{Few, Item, Many, Numbers, Options, Row};

pub fn rows() -> impl Strategy<Value = Vec<Row>> {
    vec(row(), 0..12)
}

fn row() -> impl Strategy<Value = Row> {
    let scalars = (any::<bool>(), text(), numbers(), few(), options(), many(), of(text()), bytes(), any::<u8>());
    let lists = (of(few()), of(many()), of(bytes()), texts(), of(texts()), vec(any::<bool>(), 0..20));
    let nested = (vec(of(any::<i16>()), 0..5), vec(many(), 0..5), items(), of(items()), item(), of(item()));
    (scalars, lists, nested).prop_map(|(scalars, lists, nested)| {
        let (flag, text, numbers, few, options, many, maybe_text, bytes, last) = scalars;
        let (maybe_few, maybe_many, maybe_bytes, tags, maybe_tags, switches) = lists;
        let (holes, kinds, items, maybe_items, item, maybe_item) = nested;
        Row {
            flag,
            text,
            numbers,
            few,
            options,
            many,
            maybe_text,
            bytes,
            maybe_few,
            maybe_many,
            maybe_bytes,
            tags,
            maybe_tags,
            switches,
            holes,
            kinds,
            items,
            maybe_items,
            item,
            maybe_item,
            last,
        }
    })
}

fn items() -> impl Strategy<Value = Vec<Item>> {
    vec(item(), 0..4)
}

fn item() -> impl Strategy<Value = Item> {
    let grid = vec(vec(any::<u16>(), 0..4), 0..4);
    (of(text()), few(), of(any::<u64>()), texts(), grid, numbers())
        .prop_map(|(note, colour, amount, tags, grid, size)| Item { note, colour, amount, tags, grid, size })
}

fn numbers() -> impl Strategy<Value = Numbers> {
    let signed = (any::<i64>(), any::<i8>(), any::<i16>(), any::<i32>());
    let unsigned = (any::<u8>(), any::<u16>(), any::<u32>(), any::<u64>());
    let others = (any::<bool>(), any::<char>(), single(), double());
    (signed, unsigned, others).prop_map(|(signed, unsigned, others)| {
        let (long, byte, short, int) = signed;
        let (unsigned_byte, unsigned_short, unsigned_int, unsigned_long) = unsigned;
        let (yes, letter, single, double) = others;
        Numbers {
            yes,
            long,
            byte,
            short,
            unsigned_byte,
            int,
            unsigned_short,
            unsigned_long,
            letter,
            double,
            unsigned_int,
            single,
        }
    })
}

fn options() -> impl Strategy<Value = Options> {
    (numbers(), any::<u16>()).prop_map(|(of, present)| {
        let has = |field: u32| present & (1 << field) != 0;
        Options {
            yes: has(0).then_some(of.yes),
            long: has(1).then_some(of.long),
            byte: has(2).then_some(of.byte),
            short: has(3).then_some(of.short),
            unsigned_byte: has(4).then_some(of.unsigned_byte),
            int: has(5).then_some(of.int),
            unsigned_short: has(6).then_some(of.unsigned_short),
            unsigned_long: has(7).then_some(of.unsigned_long),
            letter: has(8).then_some(of.letter),
            double: has(9).then_some(of.double),
            unsigned_int: has(10).then_some(of.unsigned_int),
            single: has(11).then_some(of.single),
        }
    })
}

/// Any bits: all the numbers that are none, too.
fn single() -> impl Strategy<Value = f32> {
    any::<u32>().prop_map(f32::from_bits)
}

fn double() -> impl Strategy<Value = f64> {
    any::<u64>().prop_map(f64::from_bits)
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-z]{0,20}", any::<String>()]
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    vec(text(), 0..5)
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..30)
}

fn few() -> impl Strategy<Value = Few> {
    prop_oneof![Just(Few::Red), Just(Few::Green), Just(Few::Blue)]
}

fn many() -> impl Strategy<Value = Many> {
    prop_oneof![Just(Many::C0), Just(Many::C1), Just(Many::C255), Just(Many::C256), Just(Many::C257), Just(Many::C299)]
}
