//! What is told of a case that failed.

use serde_json::Value;

use super::case::{Fate, Row};

/// The ways in which a fate is not the expected one; none if it is.
pub fn differences(expected: &Fate, found: &Fate, columns: &[String]) -> Vec<String> {
    match (expected, found) {
        (Fate::Dropped, Fate::Dropped) => Vec::new(),
        (Fate::Rejected { code, reason }, Fate::Rejected { code: found, reason: given })
            if code == found && given.contains(reason) =>
        {
            Vec::new()
        }
        (Fate::Rows(expected), Fate::Rows(found)) => rows(expected, found, columns),
        (expected, found) => vec![format!("expected {}", told(expected)), format!("found    {}", told(found))],
    }
}

fn rows(expected: &[Row], found: &[Row], columns: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    if expected.len() != found.len() {
        lines.push(format!("expected {} rows, found {}", expected.len(), found.len()));
    }
    for (at, (expected, found)) in expected.iter().zip(found).enumerate() {
        let which = if found.len() > 1 { format!("row {}, ", at + 1) } else { String::new() };
        for column in columns {
            let (wanted, given) = (cell(expected, column), cell(found, column));
            if wanted != given {
                let indent = " ".repeat(which.len() + column.len() + 2);
                lines.push(format!("{which}`{column}` expected {wanted}"));
                lines.push(format!("{indent} found    {given}"));
            }
        }
        for column in expected.keys().filter(|column| !columns.contains(column)) {
            lines.push(format!("{which}`{column}` is no column of the table, which has {}", columns.join(", ")));
        }
    }
    lines.extend(found.iter().skip(expected.len()).map(|row| format!("unexpected {}", Value::Object(row.clone()))));
    lines.extend(expected.iter().skip(found.len()).map(|row| format!("missing {}", Value::Object(row.clone()))));
    lines
}

fn cell(row: &Row, column: &str) -> Value {
    row.get(column).cloned().unwrap_or_default()
}

fn told(fate: &Fate) -> String {
    match fate {
        Fate::Dropped => "no row: dropped".to_owned(),
        Fate::Rejected { code, reason } => format!("a reject, {code}: {reason}"),
        Fate::Rows(rows) => {
            let rows: Vec<_> = rows.iter().map(|row| Value::Object(row.clone()).to_string()).collect();
            format!("{}: {}", super::counted(rows.len() as u64, "row"), rows.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn fate(text: &str) -> Fate {
        match text {
            "dropped" => Fate::Dropped,
            text if text.starts_with('[') => Fate::Rows(serde_json::from_str(text).unwrap()),
            text => {
                let (code, reason) = text.split_once(": ").unwrap();
                Fate::Rejected { code: code.to_owned(), reason: reason.to_owned() }
            }
        }
    }

    #[track_caller]
    fn check(expected: &str, found: &str, told: &[&str]) {
        let columns = ["id".to_owned(), "price".to_owned()];
        assert_eq!(differences(&fate(expected), &fate(found), &columns), told);
    }

    #[test]
    fn what_is_told_of_a_case() {
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
        check(
            "dropped",
            "malformed: not JSON",
            &["expected no row: dropped", "found    a reject, malformed: not JSON"],
        );
        check("other: x", "malformed: x", &["expected a reject, other: x", "found    a reject, malformed: x"]);
        check(r#"[{"prize": 1}]"#, r#"[{}]"#, &["`prize` is no column of the table, which has id, price"]);
    }
}
