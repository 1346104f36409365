//! Evaluates the SQL of alerts, one at a time, in a process with the limits of panels.

use chrono::{DateTime, SecondsFormat};
use serde::Serialize;
use serde_json::{Map, Value};
use silverd_core::config::Alert;
use silverd_core::plain_text::first_chars;
use silverd_core::zone::Zone;

use crate::runtime::inert::inert_line;
use crate::sql::{
    Cell, ColumnKind, PanelQueries, QueryError, QueryResult, ResultLimits, Tables, check_query, is_query,
};

/// Rows of a result that are looked at.
const ROWS_MAX: usize = 1_000;
const LIMITS: ResultLimits = ResultLimits { rows: ROWS_MAX, characters: 1_024 };
/// Characters of a value in a summary.
const VALUE_CHARS_MAX: usize = 200;
/// Characters of a summary.
const SUMMARY_CHARS_MAX: usize = 500;
/// Values that a summary lists where the alert has no `summary`.
const LISTED_MAX: usize = 4;
/// The column that says whether `when` is true for a row.
const FIRES: &str = "silverd_fires";

/// What the SQL of an alert says.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Evaluation {
    /// Whether `when` is true for a row.
    pub(crate) fires: bool,
    /// That row, or else the first one; empty if the result has no row.
    pub(crate) values: Map<String, Value>,
}

/// The query whose result has `when` as its last column. `when` and `sql` end with a line break, for a comment may be the
/// last of them.
pub(crate) fn statement(alert: &Alert) -> String {
    let (sql, when) = (alert.sql.trim().trim_end_matches(';'), &*alert.when);
    format!("SELECT *, (\n{when}\n) AS {FIRES} FROM (\n{sql}\n) AS alert")
}

/// Which of an alert's two texts is not valid.
#[derive(Debug)]
pub(crate) enum InvalidAlert {
    Sql(QueryError),
    When(QueryError),
}

/// Checks that an alert's SQL parses, and names tables that the pipeline has.
pub(crate) fn check_alert(tables: &Tables, alert: &Alert) -> Result<(), InvalidAlert> {
    check_query(tables, &alert.sql, false).map_err(InvalidAlert::Sql)?;
    if !is_query(&alert.sql) {
        let failure = anyhow::anyhow!("expected a query: SELECT …");
        return Err(InvalidAlert::Sql(failure.into()));
    }
    check_query(tables, &statement(alert), false).map_err(InvalidAlert::When)
}

/// Runs an alert's statement. Times in its row are written in the zone.
pub(crate) async fn evaluate(
    queries: &mut PanelQueries,
    statement: &str,
    zone: Zone,
) -> Result<Evaluation, QueryError> {
    evaluation(queries.rows(statement, LIMITS).await?, zone)
}

fn evaluation(result: QueryResult, zone: Zone) -> Result<Evaluation, QueryError> {
    let Some((fires, columns)) = result.columns.split_last() else { return Ok(Evaluation::default()) };
    if fires.kind != ColumnKind::Bool {
        let kind = serde_json::to_value(fires.kind).map_err(anyhow::Error::from)?;
        let kind = kind.as_str().unwrap_or_default();
        let failure =
            anyhow::anyhow!("`when` gives a value of the kind {kind}: expected a condition, such as `orders < 1`");
        return Err(failure.into());
    }
    let is_true = |row: &&Vec<Cell>| row.last().is_some_and(|cell| cell.get() == "true");
    let firing = result.rows.iter().find(is_true);
    if firing.is_none() && result.truncated {
        let failure = anyhow::anyhow!(
            "the result has more than {ROWS_MAX} rows, and `when` is true for none of the first {ROWS_MAX}: let the SQL count \
             or filter them"
        );
        return Err(failure.into());
    }
    let mut values = Map::new();
    if let Some(row) = firing.or(result.rows.first()) {
        for (column, cell) in columns.iter().zip(row).take(silverd_core::alerts::VALUES_MAX) {
            values.insert(column.name.clone(), value(column.kind, cell, zone)?);
        }
    }
    Ok(Evaluation { fires: firing.is_some(), values })
}

/// A value of a row as receivers get it: integers as numbers if these hold them, times as text.
fn value(kind: ColumnKind, cell: &Cell, zone: Zone) -> Result<Value, QueryError> {
    let value: Value = serde_json::from_str(cell.get()).map_err(anyhow::Error::from)?;
    Ok(match (kind, &value) {
        (ColumnKind::Integer, Value::String(digits)) => {
            digits.parse::<i64>().map_or_else(|_| value.clone(), Value::from)
        }
        (ColumnKind::Time, Value::Number(ms)) => {
            let ms = ms.as_i64().filter(|ms| DateTime::from_timestamp_millis(*ms).is_some());
            ms.map_or_else(|| value.clone(), |ms| zone.local(ms).to_rfc3339_opts(SecondsFormat::AutoSi, true).into())
        }
        _ => value,
    })
}

/// The line that says what an alert is about, with the values of its row. What comes from events is inert in it.
pub(crate) fn summary(alert: &Alert, values: &Map<String, Value>) -> String {
    let text = match &alert.summary {
        Some(template) => template.render(|column| values.get(column).map(text_of)),
        None => {
            let listed: Vec<_> =
                values.iter().take(LISTED_MAX).map(|(name, value)| format!("{name} = {}", text_of(value))).collect();
            match listed.is_empty() {
                true => format!("{}: {}", alert.name, &*alert.when),
                false => format!("{}: {} ({})", alert.name, &*alert.when, listed.join(", ")),
            }
        }
    };
    inert_line(&first_chars(&text, SUMMARY_CHARS_MAX))
}

/// A value in a summary.
pub(crate) fn text_of(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Null => "none".to_owned(),
        other => other.to_string(),
    };
    first_chars(&text, VALUE_CHARS_MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;
    use serde_json::value::to_raw_value;
    use silverd_core::config;

    use super::*;
    use crate::sql::Column;

    fn alert(keys: &str) -> Alert {
        let text = format!("[source]\nbrokers = \"localhost:1\"\ntopic = \"t\"\n[alert.a]\n{keys}");
        config::check(&text, &|_| None).unwrap().alerts.remove(0)
    }

    fn result(columns: &[(&str, ColumnKind)], rows: &[Value], truncated: bool) -> QueryResult {
        let column = |(name, kind): &(&str, ColumnKind)| Column { name: (*name).to_owned(), kind: *kind };
        let cells = |row: &Value| row.as_array().unwrap().iter().map(|cell| to_raw_value(cell).unwrap()).collect();
        QueryResult { columns: columns.iter().map(column).collect(), rows: rows.iter().map(cells).collect(), truncated }
    }

    #[test]
    fn the_first_row_for_which_the_condition_is_true_counts() {
        let columns = [("at", ColumnKind::Time), ("n", ColumnKind::Integer), (FIRES, ColumnKind::Bool)];
        let check = |rows: &[Value], fires: bool, values: Value| {
            let evaluation = evaluation(result(&columns, rows, false), Zone::UTC).unwrap();
            assert_eq!((evaluation.fires, Value::from(evaluation.values)), (fires, values));
        };
        let digits = "12345678901234567890";
        let rows = [json!([0, "1", false]), json!([1_500, "2", true]), json!([null, digits, true])];
        check(&rows, true, json!({"at": "1970-01-01T00:00:01.500Z", "n": 2}));
        check(&rows[2..], true, json!({"at": null, "n": digits}));
        check(&rows[..1], false, json!({"at": "1970-01-01T00:00:00Z", "n": 1}));
        check(&[json!([0, "1", null])], false, json!({"at": "1970-01-01T00:00:00Z", "n": 1}));
        check(&[], false, json!({}));
    }

    #[test]
    fn times_are_those_of_the_zone() {
        let columns = [("at", ColumnKind::Time), (FIRES, ColumnKind::Bool)];
        let of = |at: Value| {
            let rows = [json!([at, true])];
            evaluation(result(&columns, &rows, false), Zone::parse("Europe/Berlin").unwrap()).unwrap().values["at"]
                .clone()
        };
        assert_eq!(of(json!(1_795_946_400_000_i64)), json!("2026-11-29T11:00:00+01:00"));
        assert_eq!(of(json!(i64::MAX)), json!(i64::MAX), "no time that a calendar has");
    }

    #[test]
    fn a_condition_is_true_or_false_and_is_looked_for_in_so_many_rows() {
        let error = |columns: &[(&str, ColumnKind)], rows: &[Value]| {
            evaluation(result(columns, rows, true), Zone::UTC).unwrap_err().to_string()
        };
        let integer = [("n", ColumnKind::Integer), (FIRES, ColumnKind::Integer)];
        assert!(error(&integer, &[json!(["1", "1"])]).contains("of the kind integer"));
        let bool = [("n", ColumnKind::Integer), (FIRES, ColumnKind::Bool)];
        assert!(error(&bool, &[json!(["1", false])]).contains("more than 1000 rows"));
        assert!(evaluation(result(&bool, &[json!(["1", true])], true), Zone::UTC).unwrap().fires);
    }

    #[test]
    fn the_statement_is_one_query_whatever_its_parts_end_with() {
        let alert = alert("sql = \"SELECT 1 AS n; \"\nwhen = \"n < 1 -- none\"");
        let expected = "SELECT *, (\nn < 1 -- none\n) AS silverd_fires FROM (\nSELECT 1 AS n\n) AS alert";
        assert_eq!(statement(&alert), expected);
        assert!(is_query(&statement(&alert)));
    }

    #[test]
    fn wrong_sql_and_a_wrong_condition_are_found() {
        let pipeline = config::check("[source]\nbrokers = \"localhost:1\"\ntopic = \"t\"", &|_| None).unwrap();
        let tables = Tables::new(&pipeline, std::path::Path::new("/"));
        let check =
            |sql: &str, when: &str| check_alert(&tables, &alert(&format!("sql = \"{sql}\"\nwhen = \"{when}\"")));
        assert!(check("SELECT count(*) AS n FROM bronze", "n < 1 AND true").is_ok());
        assert!(matches!(check("SELECT count(*) AS n FROM none", "n < 1"), Err(InvalidAlert::Sql(_))));
        assert!(matches!(check("COPY (SELECT 1) TO 'x.csv'", "n < 1"), Err(InvalidAlert::Sql(_))));
        assert!(matches!(check("SELECT 1 AS n", "n <"), Err(InvalidAlert::When(_))));
        assert!(matches!(check("SELECT 1 AS n", "n IN (SELECT x FROM none)"), Err(InvalidAlert::When(_))));
    }

    #[test]
    fn a_summary_is_one_inert_line() {
        let keys = "sql = \"SELECT 1 AS n\"\nwhen = \"n < 1\"\n";
        let values = json!({"n": 0, "name": "a\u{1b}[1m\nb", "none": null}).as_object().unwrap().clone();
        let check = |key: &str, expected: &str| {
            assert_eq!(summary(&alert(&format!("{keys}{key}")), &values), expected);
        };
        check("summary = \"{n} orders of {name}, {none}\"", "0 orders of a\\u{1b}[1m b, none");
        check("", "a: n < 1 (n = 0, name = a\\u{1b}[1m b, none = none)");
    }
}
