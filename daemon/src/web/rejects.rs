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

const COUNTS: &str = r#"SELECT "table", code, count(*) AS events, max(quarantined_at) AS last_at,
    CAST(max(event_date) AS VARCHAR) AS last_day FROM quarantine GROUP BY "table", code ORDER BY events DESC"#;
const REASONS: &str = r#"SELECT "table", code, reason, count(*) AS events FROM quarantine
    GROUP BY "table", code, reason ORDER BY events DESC, reason"#;

pub async fn look(tables: &Tables, cache: &mut Cache) -> Result<Rejects, Unanswered> {
    let mut counts = objects(ask(tables, cache, COUNTS, COUNTS_MAX).await?);
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
    let Some(day) = last_day else { return Ok(rejects) };
    rejects.reasons = objects(ask(tables, cache, REASONS, REASONS_MAX).await?);
    // The newest of the newest day alone: whole events are not read of more.
    let newest = format!(
        r#"SELECT quarantined_at, "table", code, reason, topic, "partition", "offset", "timestamp", value, plugin_digest
        FROM quarantine WHERE event_date = DATE '{day}' ORDER BY quarantined_at DESC, "partition", "offset" DESC"#
    );
    rejects.newest = objects(ask(tables, cache, &newest, NEWEST_MAX).await?);
    Ok(rejects)
}

async fn ask(tables: &Tables, cache: &mut Cache, sql: &str, rows_max: usize) -> Result<Answer, Unanswered> {
    sql::answer(sql::plan(tables, cache, sql).await?, rows_max).await
}

fn objects(answer: Answer) -> Vec<Map<String, Value>> {
    let Answer { columns, rows, .. } = answer;
    let object = |row: Vec<Value>| columns.iter().map(|column| column.name.clone()).zip(row).collect();
    rows.into_iter().map(object).collect()
}
