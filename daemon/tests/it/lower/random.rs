//! Random events.

use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;

use super::{Colour, Event, Header, Input, Item, Meta, Numbers, Options};

pub fn events() -> impl Strategy<Value = Vec<Event>> {
    vec((input(), meta()).prop_map(|(input, meta)| Event { input, meta }), 0..8).prop_map(|mut events| {
        // The offsets of a partition ascend.
        (0..).zip(&mut events).for_each(|(at, event)| event.meta.offset = at * 3);
        events
    })
}

fn meta() -> impl Strategy<Value = Meta> {
    let bytes = || of(vec(any::<u8>(), 0..20));
    let header = (".{0,8}", bytes()).prop_map(|(name, value)| Header { name, value });
    (0..4, 0..4_000_000_000_000i64, bytes(), vec(header, 0..4)).prop_map(|(partition, millis, key, headers)| Meta {
        topic: "the topic".to_owned(),
        partition,
        offset: 0,
        timestamp: millis * 1000,
        key,
        headers,
    })
}

fn input() -> impl Strategy<Value = Input> {
    let scalars = (any::<bool>(), text(), numbers(), colour(), options(), of("\\PC{0,9}"), any::<u8>());
    let values = (when(), 0..50_000, any::<i32>(), rest());
    let lists = (texts(), of(texts()), vec(any::<bool>(), 0..9), vec(of(any::<i16>()), 0..5));
    let items = (vec(item(), 0..3), of(vec(item(), 0..3)), item(), of(item()));
    let maps = (btree_map(".{0,5}", any::<u16>(), 0..4), of(btree_map(".{0,5}", of(-1e9..1e9), 0..4)));
    (scalars, values, lists, items, maps).prop_map(|(scalars, values, lists, items, maps)| {
        let (flag, text, numbers, colour, options, maybe_text, last) = scalars;
        let (when, day, cents, rest) = values;
        let (tags, maybe_tags, switches, holes) = lists;
        let (items, maybe_items, item, maybe_item) = items;
        let (counts, sizes) = maps;
        Input {
            flag,
            text,
            numbers,
            colour,
            options,
            maybe_text,
            when,
            day,
            price: cents.into(),
            rest,
            tags,
            maybe_tags,
            switches,
            holes,
            items,
            maybe_items,
            item,
            maybe_item,
            counts: counts.into_iter().collect(),
            maybe_sizes: sizes.map(|sizes| sizes.into_iter().collect()),
            last,
        }
    })
}

/// A text that is not blank, as a required one must not be; with characters that JSON escapes.
fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]\\PC{0,12}", "[a-z][\"\\\\\\n\\x01é𝄞/]{0,6}"]
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    vec(text(), 0..4)
}

fn when() -> impl Strategy<Value = i64> {
    -62_135_596_800_000_000..253_402_300_799_999_999i64
}

fn rest() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("null".to_owned()),
        any::<i32>().prop_map(|number| number.to_string()),
        Just(r#"{"a":[1,"x",null]}"#.to_owned()),
        Just(r#""text""#.to_owned()),
    ]
}

fn colour() -> impl Strategy<Value = Colour> {
    prop_oneof![Just(Colour::Red), Just(Colour::DarkGreen), Just(Colour::Other)]
}

fn item() -> impl Strategy<Value = Item> {
    let grid = vec(vec(any::<u16>(), 0..4), 0..4);
    (of(text()), colour(), of(any::<u64>()), texts(), grid, numbers())
        .prop_map(|(note, colour, amount, tags, grid, size)| Item { note, colour, amount, tags, grid, size })
}

fn numbers() -> impl Strategy<Value = Numbers> {
    let signed = (any::<i64>(), any::<i8>(), any::<i16>(), any::<i32>());
    let unsigned = (any::<u8>(), any::<u16>(), any::<u32>(), any::<u64>());
    let others = (any::<bool>(), any::<char>(), -1e300..1e300, -1e30f32..1e30f32);
    (signed, unsigned, others).prop_map(|(signed, unsigned, others)| {
        let (long, byte, short, int) = signed;
        let (unsigned_byte, unsigned_short, unsigned_int, unsigned_long) = unsigned;
        let (yes, letter, double, single) = others;
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
    let numbers = (of(any::<bool>()), of(any::<i64>()), of(any::<i8>()), of(any::<char>()), of(-1e9..1e9));
    let others = (of(any::<u32>()), of(when()), of(0..50_000), of(any::<i32>()), of(colour()));
    // JSON's null and a value that is absent are the same for an optional field.
    let rest = of(rest().prop_filter("null is no value", |rest| rest != "null"));
    (numbers, others, rest).prop_map(|(numbers, others, rest)| {
        let (yes, long, byte, letter, double) = numbers;
        let (unsigned_int, when, day, cents, colour) = others;
        Options { yes, long, byte, letter, double, unsigned_int, when, day, price: cents.map(i64::from), colour, rest }
    })
}
