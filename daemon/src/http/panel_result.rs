//! The result of a panel's query, as the API and the stream give it.

use std::time::Duration;

use serde::Serialize;
use silverd_core::config::{Chart, Panel};

use crate::delta::EVENT_DATE;
use crate::runtime::clock;
use crate::sql::{ColumnKind, QueryError, QueryResult, table_references};

/// More bars are shown as a table.
const BARS_MAX: usize = 30;

#[derive(Clone, Serialize)]
pub(super) struct PanelResult {
    name: String,
    position: usize,
    title: String,
    chart: &'static str,
    unit: Option<String>,
    width: Option<usize>,
    refresh_ms: u64,
    sql: String,
    /// The table whose days the rows are, if the query is over one table that has days.
    days_of: Option<String>,
    state: PanelState,
    /// Why it waits or fails.
    reason: Option<String>,
    #[serde(flatten)]
    result: QueryResult,
    took_ms: u64,
    at_ms: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum PanelState {
    Ok,
    /// A table of the query has no rows yet.
    Waiting,
    Failing,
}

impl PanelResult {
    pub(super) fn new(panel: &Panel, position: usize, result: Result<QueryResult, QueryError>, took: Duration) -> Self {
        let (state, reason, result) = match result {
            Ok(result) => (PanelState::Ok, None, result),
            Err(error @ QueryError::NotWritten(_)) => {
                (PanelState::Waiting, Some(error.to_string()), QueryResult::default())
            }
            Err(error) => (PanelState::Failing, Some(error.to_string()), QueryResult::default()),
        };
        Self {
            name: panel.name.clone(),
            position,
            title: panel.title.clone(),
            chart: chart_name(panel.chart, &result),
            unit: panel.unit.clone(),
            width: panel.width,
            refresh_ms: panel.refresh_ms,
            sql: panel.sql.value.clone(),
            days_of: days_of(&panel.sql, &result),
            state,
            reason,
            result,
            took_ms: took.as_millis() as u64,
            at_ms: clock::now_ms(),
        }
    }
}

/// The table of a query over one table, whose result has its days. Whether it is a table that has days is in `/api/days`.
fn days_of(sql: &str, result: &QueryResult) -> Option<String> {
    let has_days = result.columns.iter().any(|column| column.name == EVENT_DATE);
    let tables = if has_days { table_references(sql).ok()? } else { Vec::new() };
    match <[String; 1]>::try_from(tables) {
        Ok([table]) => Some(table),
        Err(_) => None,
    }
}

/// The name of the chart. `Chart::Auto` chooses the chart that fits the columns.
fn chart_name(chart: Chart, result: &QueryResult) -> &'static str {
    match chart {
        Chart::Number => "number",
        Chart::Line => "line",
        Chart::Bar => "bar",
        Chart::Funnel => "funnel",
        Chart::Table => "table",
        Chart::Ticker => "ticker",
        Chart::Auto => {
            let kinds: Vec<_> = result.columns.iter().map(|column| column.kind).collect();
            match &kinds[..] {
                [kind] if kind.is_numeric() && result.rows.len() <= 1 => "number",
                [ColumnKind::Time, rest @ ..] if are_numbers(rest) => "line",
                [ColumnKind::Text, kind] if kind.is_numeric() && result.rows.len() <= BARS_MAX => "bar",
                _ => "table",
            }
        }
    }
}

fn are_numbers(kinds: &[ColumnKind]) -> bool {
    !kinds.is_empty() && kinds.iter().all(|kind| kind.is_numeric())
}
