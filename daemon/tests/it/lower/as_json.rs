//! An event as the JSON that a producer would write.

use chrono::{DateTime, Days, NaiveDate};
use serde_json::{Map, Value, json};

use super::{Colour, Input, Item, Numbers, Options};

pub fn input(input: &Input) -> Value {
    let items = |items: &[Item]| items.iter().map(item).collect::<Value>();
    let sizes = |sizes: &[(String, Option<f64>)]| sizes.iter().map(|(key, size)| (key.clone(), json!(size))).collect();
    // In another order than in the record, and with members that no field takes.
    json!({
        "more": { "text": "not this one", "deep": [[[{}]]] },
        "last": input.last,
        "maybe_sizes": input.maybe_sizes.as_deref().map(|pairs| Value::Object(sizes(pairs))),
        "flag": input.flag,
        "text": input.text,
        "numbers": numbers(&input.numbers),
        "colour": colour(input.colour),
        "options": options(&input.options),
        "maybe_text": input.maybe_text,
        "when": when(input.when),
        "day": day(input.day),
        "price": money(input.price),
        "rest": rest(&input.rest),
        "tags": input.tags,
        "maybe_tags": input.maybe_tags,
        "switches": input.switches,
        "holes": input.holes,
        "items": items(&input.items),
        "maybe_items": input.maybe_items.as_deref().map(items),
        "item": item(&input.item),
        "maybe_item": input.maybe_item.as_ref().map(item),
        "counts": input.counts.iter().map(|(key, count)| (key.clone(), json!(count))).collect::<Map<_, _>>(),
    })
}

fn item(item: &Item) -> Value {
    json!({
        "note": item.note, "colour": colour(item.colour), "amount": item.amount, "tags": item.tags, "grid": item.grid,
        "size": numbers(&item.size),
    })
}

fn numbers(numbers: &Numbers) -> Value {
    json!({
        "yes": numbers.yes, "long": numbers.long, "byte": numbers.byte, "short": numbers.short,
        "unsigned_byte": numbers.unsigned_byte, "int": numbers.int, "unsigned_short": numbers.unsigned_short,
        "unsigned_long": numbers.unsigned_long, "letter": numbers.letter, "double": numbers.double,
        "unsigned_int": numbers.unsigned_int, "single": numbers.single,
    })
}

fn options(options: &Options) -> Value {
    json!({
        "yes": options.yes, "long": options.long, "byte": options.byte, "letter": options.letter,
        "double": options.double, "unsigned_int": options.unsigned_int, "when": options.when.map(when),
        "day": options.day.map(day), "price": options.price.map(money), "colour": options.colour.map(colour),
        "rest": options.rest.as_deref().map(rest),
    })
}

fn colour(colour: Colour) -> &'static str {
    match colour {
        Colour::Red => "red",
        Colour::DarkGreen => "Dark_Green",
        Colour::Other => "neither red nor green",
    }
}

fn when(micros: i64) -> String {
    DateTime::from_timestamp_micros(micros).unwrap().to_rfc3339()
}

fn day(days: i32) -> String {
    let day = NaiveDate::from_ymd_opt(1970, 1, 1).unwrap().checked_add_days(Days::new(days as u64)).unwrap();
    day.to_string()
}

fn money(cents: i64) -> Value {
    let sign = if cents < 0 { "-" } else { "" };
    json!(format!("{sign}{}.{:02}", cents.unsigned_abs() / 100, cents.unsigned_abs() % 100))
}

fn rest(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}
