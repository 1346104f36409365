//! The quarantine on the dashboard: counts, the most frequent reasons, and the newest rejected events.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::Value;

use crate::delta::TableReader;
use crate::sql::{Cell, Column, PanelQueries, QueryError, QueryResult, ResultLimits, Tables};

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Rejects {
    pub total: i64,
    pub counts: Vec<Count>,
    /// The most frequent reasons.
    pub reasons: Vec<Reason>,
    /// The newest rejected events.
    pub newest: Vec<Reject>,
}

/// The rejects of a table with a code.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Count {
    table: String,
    code: String,
    events: i64,
    last_at: Value,
    /// The command that replays the events.
    replay: String,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Reason {
    table: String,
    code: String,
    reason: String,
    events: i64,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Reject {
    quarantined_at: Value,
    table: String,
    code: String,
    reason: String,
    topic: String,
    partition: i64,
    offset: i64,
    timestamp: Value,
    #[serde(flatten)]
    value: EventValue,
    plugin_digest: String,
}

/// The event as it came.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct EventValue {
    /// The first `VALUE_BYTES_MAX` bytes; `None` if the event has no value.
    value: Option<String>,
    encoding: Encoding,
    /// Of the whole value.
    bytes: i64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
enum Encoding {
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
    /// For bytes that are not UTF-8.
    #[serde(rename = "base64")]
    Base64,
}

const QUARANTINE: &str = "quarantine";
const COUNTS_MAX: usize = 100;
const REASONS_MAX: usize = 10;
const NEWEST_MAX: usize = 20;
const VALUE_BYTES_MAX: usize = 16 << 10;
const REASON_CHARACTERS_MAX: usize = 4096;

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
    let columns = queries.rows("SELECT * FROM quarantine", limits(0)).await?.columns;
    let has_resolutions = columns.iter().any(|column| column.name == "resolved_at");
    let unresolved = if has_resolutions { "resolved_at IS NULL" } else { "true" };
    let counts = format!(
        r#"SELECT "table", code, count(*) AS events, max(quarantined_at) AS last_at,
        CAST(max(event_date) AS VARCHAR) AS last_day FROM quarantine WHERE {unresolved}
        GROUP BY "table", code ORDER BY events DESC, "table", code"#
    );
    let counts = queries.rows(&counts, limits(COUNTS_MAX)).await?;
    let last_day = Row::all(&counts).map(|row| row.text("last_day")).max();
    let mut rejects = Rejects { counts: Row::all(&counts).map(Count::new).collect(), ..Rejects::default() };
    rejects.total = rejects.counts.iter().map(|count| count.events).sum();
    let Some(day) = last_day else { return Ok(Some((version, rejects))) };
    let reasons = format!(
        r#"SELECT "table", code, reason, count(*) AS events FROM quarantine WHERE {unresolved}
        GROUP BY "table", code, reason ORDER BY events DESC, reason"#
    );
    rejects.reasons = Row::all(&queries.rows(&reasons, limits(REASONS_MAX)).await?).map(Reason::new).collect();
    // Only events of the newest day, so that few raw events are read; and bytes as text of these few.
    let newest = format!(
        r#"SELECT quarantined_at, "table", code, reason, topic, "partition", "offset", "timestamp", plugin_digest,
        encode(value, 'hex') AS hex, length(encode(value, 'hex')) / 2 AS bytes FROM (
        SELECT * FROM quarantine WHERE event_date = DATE '{day}' AND {unresolved}
        ORDER BY quarantined_at DESC, "partition", "offset" DESC LIMIT {NEWEST_MAX})
        ORDER BY quarantined_at DESC, "partition", "offset" DESC"#
    );
    let limits = ResultLimits { rows: NEWEST_MAX, characters: 2 * VALUE_BYTES_MAX };
    rejects.newest = Row::all(&queries.rows(&newest, limits).await?).map(Reject::new).collect();
    Ok(Some((version, rejects)))
}

fn limits(rows: usize) -> ResultLimits {
    ResultLimits { rows, characters: REASON_CHARACTERS_MAX }
}

impl Count {
    fn new(row: Row) -> Self {
        let (table, code) = (row.text("table"), row.text("code"));
        let replay = format!("silverd quarantine replay --table {table} --code {code}");
        Self { table, code, events: row.integer("events"), last_at: row.value("last_at"), replay }
    }
}

impl Reason {
    fn new(row: Row) -> Self {
        let (table, code, reason) = (row.text("table"), row.text("code"), row.text("reason"));
        Self { table, code, reason, events: row.integer("events") }
    }
}

impl Reject {
    fn new(row: Row) -> Self {
        let hex = row.value("hex");
        Self {
            quarantined_at: row.value("quarantined_at"),
            table: row.text("table"),
            code: row.text("code"),
            reason: row.text("reason"),
            topic: row.text("topic"),
            partition: row.integer("partition"),
            offset: row.integer("offset"),
            timestamp: row.value("timestamp"),
            value: hex.as_str().map(|hex| EventValue::new(hex, row.integer("bytes"))).unwrap_or_default(),
            plugin_digest: row.text("plugin_digest"),
        }
    }
}

impl EventValue {
    /// From the hexadecimal digits of the bytes, or of the first of them.
    fn new(hex: &str, bytes: i64) -> Self {
        let digit = |digit: u8| char::from(digit).to_digit(16).map(|digit| digit as u8);
        let pairs = hex.as_bytes().chunks_exact(2);
        let shown: Vec<_> = pairs.map_while(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect();
        let is_cut = (shown.len() as i64) < bytes;
        let (text, encoding) = match std::str::from_utf8(&shown) {
            Ok(text) => (text.to_owned(), Encoding::Utf8),
            // The cut may be within a character.
            Err(error) if is_cut && error.error_len().is_none() => {
                (String::from_utf8_lossy(&shown[..error.valid_up_to()]).into_owned(), Encoding::Utf8)
            }
            Err(_) => (STANDARD.encode(&shown), Encoding::Base64),
        };
        Self { value: Some(text), encoding, bytes }
    }
}

/// A row of a result.
#[derive(Clone, Copy)]
struct Row<'r> {
    columns: &'r [Column],
    cells: &'r [Cell],
}

impl<'r> Row<'r> {
    fn all(result: &'r QueryResult) -> impl Iterator<Item = Self> {
        result.rows.iter().map(|cells| Row { columns: &result.columns, cells })
    }

    fn value(self, name: &str) -> Value {
        let cell = self.columns.iter().zip(self.cells).find(|(column, _)| column.name == name);
        cell.and_then(|(_, cell)| serde_json::from_str(cell.get()).ok()).unwrap_or_default()
    }

    fn text(self, name: &str) -> String {
        self.value(name).as_str().unwrap_or_default().to_owned()
    }

    fn integer(self, name: &str) -> i64 {
        self.text(name).parse().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], all: i64, expected: (&str, Encoding)) {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let (value, encoding) = (Some(expected.0.to_owned()), expected.1);
        assert_eq!(EventValue::new(&hex, all), EventValue { value, encoding, bytes: all });
    }

    #[test]
    fn an_event_is_shown_byte_for_byte() {
        check(b"", 0, ("", Encoding::Utf8));
        check(
            "{\"b\": 1,  \"a\": 9007199254740993}".as_bytes(),
            33,
            ("{\"b\": 1,  \"a\": 9007199254740993}", Encoding::Utf8),
        );
        check(&[0xff, 0, b'a'], 3, ("/wBh", Encoding::Base64));
        // Cut within a character, and within one at the end of the event.
        check(&"aé".as_bytes()[..2], 3, ("a", Encoding::Utf8));
        check(&"aé".as_bytes()[..2], 2, ("YcM=", Encoding::Base64));
    }
}
