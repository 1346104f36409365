//! What the page shows of the quarantine: counts, the commonest reasons, and the newest events whole.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::sql::{self, Answer, Cache, Tables, Unanswered};

#[derive(Clone, Debug, Default, Serialize)]
pub struct Rejects {
    pub total: i64,
    /// By table and code, with the command that replays them.
    pub counts: Vec<Map<String, Value>>,
    /// The commonest reasons.
    pub reasons: Vec<Map<String, Value>>,
    /// The newest, whole: `value` is the raw event.
    pub newest: Vec<Map<String, Value>>,
}

const COUNTS_MAX: usize = 100;
const REASONS_MAX: usize = 10;
const NEWEST_MAX: usize = 20;

/// The quarantine's newest version and what waits in it, if that is not the version `known`.
pub async fn look(
    tables: &Tables,
    cache: &mut Cache,
    known: Option<u64>,
) -> Result<Option<(u64, Rejects)>, Unanswered> {
    let (version, schema) = cache.newest(tables, "quarantine").await?;
    if known == Some(version) {
        return Ok(None);
    }
    // What a replay has resolved waits no more; a quarantine of an older silverd has no such mark.
    let waits = if schema.column_with_name("resolved_at").is_some() { "resolved_at IS NULL" } else { "true" };
    let counts = format!(
        r#"SELECT "table", code, count(*) AS events, max(quarantined_at) AS last_at,
        CAST(max(event_date) AS VARCHAR) AS last_day FROM quarantine WHERE {waits}
        GROUP BY "table", code ORDER BY events DESC, "table", code"#
    );
    let mut counts = objects(ask(tables, cache, &counts, COUNTS_MAX).await?);
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
        r#"SELECT "table", code, reason, count(*) AS events FROM quarantine WHERE {waits}
        GROUP BY "table", code, reason ORDER BY events DESC, reason"#
    );
    rejects.reasons = objects(ask(tables, cache, &reasons, REASONS_MAX).await?);
    // The newest of the newest day alone: whole events are not read of more.
    let newest = format!(
        r#"SELECT quarantined_at, "table", code, reason, topic, "partition", "offset", "timestamp", value, plugin_digest
        FROM quarantine WHERE event_date = DATE '{day}' AND {waits}
        ORDER BY quarantined_at DESC, "partition", "offset" DESC"#
    );
    rejects.newest = objects(ask(tables, cache, &newest, NEWEST_MAX).await?);
    Ok(Some((version, rejects)))
}

async fn ask(tables: &Tables, cache: &mut Cache, sql: &str, rows_max: usize) -> Result<Answer, Unanswered> {
    sql::answer(sql::plan(tables, cache, sql).await?, rows_max).await
}

fn objects(answer: Answer) -> Vec<Map<String, Value>> {
    let Answer { columns, rows, .. } = answer;
    let object = |row: Vec<Value>| columns.iter().map(|column| column.name.clone()).zip(row).collect();
    rows.into_iter().map(object).collect()
}
