//! The tables of `docs/values.md`: every example gives the result that the page names.

use std::collections::BTreeMap;

use silverd_values::{Mismatch, MismatchKind, Scalar, boolean, date, float, money, signed, text, timestamp, unsigned};

use super::format;

const PAGE: &str = include_str!("../../../../docs/values.md");

/// The sections whose tables have examples, and how many examples each has at least: a table that this test does not find
/// must not pass.
const SECTIONS: [(&str, usize); 7] = [
    ("Timestamps", 60),
    ("Dates", 13),
    ("Amounts of money", 50),
    ("Integers", 25),
    ("Floating-point numbers", 12),
    ("Booleans", 25),
    ("Text", 5),
];

#[test]
fn every_example_gives_its_result() {
    let (mut examples, mut wrong) = (BTreeMap::<&str, usize>::new(), Vec::new());
    for Row { line, section, column, values, expected } in rows(PAGE) {
        for value in values {
            let found = read(section, column, scalar(value)).unwrap_or_else(|mismatch| kind(&mismatch).to_owned());
            if found != expected {
                wrong.push(format!("docs/values.md:{line}: {value} gives {found}, not {expected}"));
            }
            *examples.entry(section).or_default() += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (section, at_least) in SECTIONS {
        let found = examples.get(section).copied().unwrap_or_default();
        assert!(found >= at_least, "{section}: {found} examples, expected {at_least} or more");
    }
}

/// A row of a table with examples.
struct Row<'a> {
    line: usize,
    section: &'a str,
    /// The type of the column, where the table names it.
    column: &'a str,
    values: Vec<&'a str>,
    expected: &'a str,
}

fn rows(page: &str) -> Vec<Row<'_>> {
    let (mut section, mut header, mut rows) = ("", Vec::new(), Vec::new());
    for (index, line) in page.lines().enumerate() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title;
        }
        let Some(line) = line.strip_prefix('|') else {
            header.clear();
            continue;
        };
        if line.starts_with("---") {
            continue;
        }
        let cells: Vec<&str> = line.trim_end_matches('|').split('|').collect();
        if header.is_empty() {
            header = cells.iter().map(|cell| cell.trim()).collect();
            continue;
        }
        let cell = |name: &str| header.iter().position(|title| *title == name).map(|at| cells[at]);
        let (Some(example), Some(result)) = (cell("example"), cell("result")) else { continue };
        let [expected] = code_spans(result)[..] else { panic!("line {}: one result", index + 1) };
        let column = cell("column").map_or("", |cell| code_spans(cell)[0]);
        rows.push(Row { line: index + 1, section, column, values: code_spans(example), expected });
    }
    rows
}

/// The texts between backticks.
fn code_spans(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// The scalar that a JSON text without escapes is.
fn scalar(json: &str) -> Scalar<'_> {
    match json {
        "null" => Scalar::Null,
        "true" => Scalar::Bool(true),
        "false" => Scalar::Bool(false),
        _ => match json.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
            Some(text) => Scalar::Text(text),
            None => Scalar::Number(json),
        },
    }
}

fn read(section: &str, column: &str, value: Scalar<'_>) -> Result<String, Mismatch> {
    match section {
        "Timestamps" => timestamp(value).map(format::timestamp),
        "Dates" => date(value).map(|days| format::date(days.into())),
        "Amounts of money" => money(value).map(|hundredths| format::money(hundredths.into())),
        "Integers" => match column {
            "s8" => signed(value, i8::MIN.into(), i8::MAX.into()).map(|number| number.to_string()),
            "s32" => signed(value, i32::MIN.into(), i32::MAX.into()).map(|number| number.to_string()),
            "s64" => signed(value, i64::MIN, i64::MAX).map(|number| number.to_string()),
            "u8" => unsigned(value, u8::MAX.into()).map(|number| number.to_string()),
            "u32" => unsigned(value, u32::MAX.into()).map(|number| number.to_string()),
            "u64" => unsigned(value, u64::MAX).map(|number| number.to_string()),
            other => panic!("no such column type: {other}"),
        },
        "Floating-point numbers" => float(value).map(|number| number.to_string()),
        "Booleans" => boolean(value).map(|value| value.to_string()),
        "Text" => text(value).map(str::to_owned),
        other => panic!("examples in the section {other:?}, which this test does not know"),
    }
}

fn kind(mismatch: &Mismatch) -> &'static str {
    match mismatch.kind {
        MismatchKind::Malformed => "malformed",
        MismatchKind::OutOfRange => "out-of-range",
    }
}
