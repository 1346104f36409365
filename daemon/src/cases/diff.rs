//! How the outcome of a case differs from the expected one.

use serde_json::Value;
use silverd_core::shadow::{Outcome, Row};

/// A line or two for each difference; none if the outcome is the expected one.
pub(crate) fn differences(expected: &Outcome, found: &Outcome, columns: &[String]) -> Vec<String> {
    match (expected, found) {
        (Outcome::Dropped, Outcome::Dropped) => Vec::new(),
        (Outcome::Rejected { code, reason }, Outcome::Rejected { code: found, reason: given })
            if code == found && given.contains(reason) =>
        {
            Vec::new()
        }
        (Outcome::Rows(expected), Outcome::Rows(found)) => rows(expected, found, columns),
        (expected, found) => vec![format!("expected {}", describe(expected)), format!("found    {}", describe(found))],
    }
}

fn rows(expected: &[Row], found: &[Row], columns: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    if expected.len() != found.len() {
        lines.push(format!("expected {} rows, found {}", expected.len(), found.len()));
    }
    let several = found.len() > 1;
    for (at, (expected, found)) in expected.iter().zip(found).enumerate() {
        let which = if several { format!("row {}, ", at + 1) } else { String::new() };
        for column in columns {
            let (wanted, given) = (cell(expected, column), cell(found, column));
            if !same(&wanted, &given) {
                let indent = " ".repeat(which.len() + column.len() + 2);
                lines.push(format!("{which}`{column}` expected {wanted}"));
                lines.push(format!("{indent} found    {given}"));
            }
        }
        for column in expected.keys().filter(|column| !columns.contains(column)) {
            lines.push(format!("{which}`{column}` is not a column of the table, which has {}", columns.join(", ")));
        }
    }
    lines.extend(found.iter().skip(expected.len()).map(|row| format!("unexpected {}", Value::Object(row.clone()))));
    lines.extend(expected.iter().skip(found.len()).map(|row| format!("missing {}", Value::Object(row.clone()))));
    lines
}

/// Equal, with 5 equal to 5.0: an author need not know which columns are floats.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

fn cell(row: &Row, column: &str) -> Value {
    row.get(column).cloned().unwrap_or_default()
}

fn describe(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Dropped => "no row: dropped".to_owned(),
        Outcome::Rejected { code, reason } => format!("a reject, {}: {reason}", code.as_str()),
        Outcome::Rows(rows) => {
            let rows: Vec<_> = rows.iter().map(|row| Value::Object(row.clone()).to_string()).collect();
            let plural = if rows.len() == 1 { "row" } else { "rows" };
            format!("{} {plural}: {}", rows.len(), rows.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use silverd_core::outcome::Code;

    use super::*;

    fn outcome(text: &str) -> Outcome {
        match text {
            "dropped" => Outcome::Dropped,
            text if text.starts_with('[') => Outcome::Rows(serde_json::from_str(text).unwrap()),
            text => {
                let (code, reason) = text.split_once(": ").unwrap();
                Outcome::Rejected { code: Code::parse(code).unwrap(), reason: reason.to_owned() }
            }
        }
    }

    #[track_caller]
    fn check(expected: &str, found: &str, lines: &[&str]) {
        let columns = ["id".to_owned(), "price".to_owned()];
        assert_eq!(differences(&outcome(expected), &outcome(found), &columns), lines);
    }

    #[test]
    fn differences_name_column_expected_and_found() {
        check("dropped", "dropped", &[]);
        check("malformed: no @", "malformed: email: there is no @ in it", &[]);
        check(r#"[{"id": "a", "price": null}]"#, r#"[{"id": "a"}]"#, &[]);
        check(
            r#"[{"id": "a", "price": 5.0}]"#,
            r#"[{"id": "a", "price": 4.99}]"#,
            &["`price` expected 5.0", "        found    4.99"],
        );
        check(
            r#"[{"id": "a"}, {"id": "b"}]"#,
            r#"[{"id": "a"}, {"id": "c"}, {"id": "d"}]"#,
            &[
                "expected 2 rows, found 3",
                "row 2, `id` expected \"b\"",
                "            found    \"c\"",
                "unexpected {\"id\":\"d\"}",
            ],
        );
        check(r#"[{"id": [{"a": 5}]}]"#, r#"[{"id": [{"a": 5.0}]}]"#, &[]);
        check(
            "dropped",
            "malformed: not JSON",
            &["expected no row: dropped", "found    a reject, malformed: not JSON"],
        );
        check("other: x", "malformed: x", &["expected a reject, other: x", "found    a reject, malformed: x"]);
        check(r#"[{"prize": 1}]"#, r#"[{}]"#, &["`prize` is not a column of the table, which has id, price"]);
    }
}
