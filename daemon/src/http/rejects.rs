//! The quarantine on the dashboard: counts, the most frequent reasons, and the newest rejected events.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::delta::TableReader;
use crate::sql::{Cell, PanelQueries, QueryError, QueryResult, Tables};

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Rejects {
    pub total: i64,
    /// By table and code, with the command that replays the events.
    pub counts: Vec<Map<String, Value>>,
    /// The most frequent reasons.
    pub reasons: Vec<Map<String, Value>>,
    /// The newest rejected events: `value` is the raw event.
    pub newest: Vec<Map<String, Value>>,
}

const QUARANTINE: &str = "quarantine";
const COUNTS_MAX: usize = 100;
const REASONS_MAX: usize = 10;
const NEWEST_MAX: usize = 20;

/// The newest version of the quarantine and its rejects; `None` if that is the version `known`.
pub(super) async fn read(
    tables: &Tables,
    queries: &mut PanelQueries,
    known: Option<u64>,
) -> Result<Option<(u64, Rejects)>, QueryError> {
    let not_written = || QueryError::NotWritten(QUARANTINE.to_owned());
    let path = tables.path(QUARANTINE).ok_or_else(not_written)?;
    let reader = TableReader::open(path)?.ok_or_else(not_written)?;
    let version = reader.version().await?.ok_or_else(not_written)?;
    if known == Some(version) {
        return Ok(None);
    }
    // Events that a replay has resolved are not counted. The quarantine of an older silverd has no such column.
    let columns = queries.rows("SELECT * FROM quarantine", 0).await?.columns;
    let has_resolutions = columns.iter().any(|column| column.name == "resolved_at");
    let unresolved = if has_resolutions { "resolved_at IS NULL" } else { "true" };
    let counts = format!(
        r#"SELECT "table", code, count(*) AS events, max(quarantined_at) AS last_at,
        CAST(max(event_date) AS VARCHAR) AS last_day FROM quarantine WHERE {unresolved}
        GROUP BY "table", code ORDER BY events DESC, "table", code"#
    );
    let mut counts = objects(queries.rows(&counts, COUNTS_MAX).await?);
    let mut rejects = Rejects::default();
    let last_day = counts.iter().filter_map(|row| row.get("last_day")?.as_str().map(str::to_owned)).max();
    for row in &mut counts {
        rejects.total += row.get("events").and_then(Value::as_i64).unwrap_or(0);
        row.remove("last_day");
        let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
        let command = format!("silverd quarantine replay --table {} --code {}", text("table"), text("code"));
        row.insert("replay".to_owned(), command.into());
    }
    rejects.counts = counts;
    let Some(day) = last_day else { return Ok(Some((version, rejects))) };
    let reasons = format!(
        r#"SELECT "table", code, reason, count(*) AS events FROM quarantine WHERE {unresolved}
        GROUP BY "table", code, reason ORDER BY events DESC, reason"#
    );
    rejects.reasons = objects(queries.rows(&reasons, REASONS_MAX).await?);
    // Only events of the newest day, so that few raw events are read.
    let newest = format!(
        r#"SELECT quarantined_at, "table", code, reason, topic, "partition", "offset", "timestamp", value, plugin_digest
        FROM quarantine WHERE event_date = DATE '{day}' AND {unresolved}
        ORDER BY quarantined_at DESC, "partition", "offset" DESC"#
    );
    rejects.newest = objects(queries.rows(&newest, NEWEST_MAX).await?);
    Ok(Some((version, rejects)))
}

fn objects(result: QueryResult) -> Vec<Map<String, Value>> {
    let QueryResult { columns, rows, .. } = result;
    let value = |cell: Cell| serde_json::from_str::<Value>(cell.get()).unwrap_or_default();
    let object =
        |row: Vec<Cell>| columns.iter().map(|column| column.name.clone()).zip(row.into_iter().map(value)).collect();
    rows.into_iter().map(object).collect()
}
