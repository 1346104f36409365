//! SQL that people write: that of a table in pipeline.toml, and a query.

use silverd::fuzzing;

use super::planted;

/// A text is refused with a reason, or it is a query that changes nothing.
pub fn sql(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let of_table = fuzzing::row_sql(text);
    match &of_table {
        Ok(columns) => assert!(!columns.is_empty() && fuzzing::is_query(text), "{columns:?}"),
        Err(reason) => assert!(!reason.is_empty()),
    }
    match fuzzing::query(text) {
        Ok(planned) => assert!(!planned.changes && planned.columns < 10_000, "it has {} columns", planned.columns),
        Err(reason) => assert!(!reason.is_empty()),
    }
    planted(|| of_table.is_ok_and(|columns| columns.len() >= 5) && !text.contains('*'));
}
