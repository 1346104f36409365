//! Texts that people write, pipeline.toml and WIT; and the scalars of events.

use fuzzed_values::{Scalar, boolean, date, float, money, signed, text, timestamp, trim, unsigned};
use silverd_core::config;
use silverd_core::input::{EventType, Input};
use silverd_core::schema::TableSchema;
use wit_parser::Resolve;

use super::planted;

const TYPES: &str = include_str!("../../../../wit/types.wit");

/// What silverd fixes keeps its meaning, and errors can be shown.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let env = |name: &str| name.starts_with('A').then(|| name.to_lowercase());
    let checked = config::check(text, &env);
    let fixed = config::fix(text);
    match &checked {
        Ok(pipeline) => {
            let again = config::check(&fixed.text, &env);
            assert!(again.is_ok_and(|again| again == *pipeline), "a fix changes a pipeline without errors");
        }
        Err(errors) => {
            let shown = errors.render("pipeline.toml", text, false);
            assert!(shown.contains("error"), "{shown}");
        }
    }
    planted(|| checked.is_ok_and(|pipeline| !pipeline.silver.is_empty() && pipeline.commit.rows_max < 10));
}

/// The schema and the input of a table's WIT.
pub fn wit(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut resolve = Resolve::default();
    resolve.push_str("types.wit", TYPES).expect("the contract's types");
    let of_text = EventType::of_text(text);
    let Ok(package) = resolve.push_str("table.wit", text) else { return };
    let Ok(world) = resolve.select_world(&[package], None) else { return };
    let (schema, input) =
        (TableSchema::of_world(&resolve, world, Some(text)), Input::of_world(&resolve, world, Some(text)));
    let Ok(schema) = schema else { return };
    let arrow = schema.arrow();
    assert_eq!(arrow.fields().len(), schema.columns.len());
    assert_eq!(schema.table_columns().len(), schema.columns.len());
    planted(|| schema.columns.len() == 5 && input.is_ok() && of_text.is_ok());
}

/// Values stay within their bounds, whatever the text.
pub fn values(bytes: &[u8]) {
    let Ok(value) = std::str::from_utf8(bytes) else { return };
    let is_number = serde_json::from_str::<serde_json::Number>(value).is_ok();
    let mut scalars = vec![Scalar::Text(value)];
    scalars.extend(is_number.then_some(Scalar::Number(value)));
    for scalar in scalars {
        let _ = (boolean(scalar), date(scalar), float(scalar), text(scalar));
        let time = timestamp(scalar);
        let small = signed(scalar, -7, 7);
        assert!(small.as_ref().map_or(true, |value| (-7..=7).contains(value)));
        assert!(unsigned(scalar, 300).map_or(true, |value| value <= 300));
        let wide = signed(scalar, i64::MIN, i64::MAX);
        assert!(small.is_err() || wide == small, "a wider range reads another value");
        if let Ok(amount) = money(scalar) {
            let written = format!("{}.{:02}", amount / 100, (amount % 100).abs());
            let sign = if amount < 0 && amount > -100 { "-" } else { "" };
            assert_eq!(money(Scalar::Text(&format!("{sign}{written}"))), Ok(amount), "{value}");
        }
        planted(|| time == Ok(1_234_567_891_000_000) && value.contains('T'));
    }
    assert!(trim(value).len() <= value.len());
}
