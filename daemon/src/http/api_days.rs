//! `/api/days`: which days of which tables are final.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::App;
use super::api::problem;
use crate::day_status::DayRow;
use crate::delta::day_number;
use crate::runtime::clock;

/// Days that are answered without `from`.
const DAYS: i32 = 31;
/// Rows of one answer.
const ROWS_MAX: usize = 10_000;

#[derive(Deserialize)]
pub(super) struct Range {
    table: Option<String>,
    from: Option<String>,
    to: Option<String>,
}

/// The days of all tables, or of one, the newest first.
pub(super) async fn days(State(app): State<Arc<App>>, range: Result<Query<Range>, QueryRejection>) -> Response {
    let range = match range {
        Ok(Query(range)) => range,
        Err(rejection) => return problem(rejection.status(), &rejection.body_text()),
    };
    let names = || app.zones.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(table) = &range.table
        && !app.zones.iter().any(|(name, _)| name == table)
    {
        let text = format!("there is no table `{table}` with days; the tables are {}", names());
        return problem(StatusCode::NOT_FOUND, &text);
    }
    // In the zone that is ahead of all others, today has begun first.
    let now = clock::now_micros();
    let today = app.zones.iter().map(|(_, zone)| zone.day_of(now)).max().unwrap_or_default();
    let (from, to) = match (day(range.from.as_deref(), "from"), day(range.to.as_deref(), "to")) {
        (Ok(from), Ok(to)) => (from, to.unwrap_or(i32::MAX)),
        (Err(text), _) | (_, Err(text)) => return problem(StatusCode::BAD_REQUEST, &text),
    };
    let from = from.unwrap_or_else(|| today.min(to) - DAYS);
    let Some(ledger) = &app.shown.days.ledger else { return Json(json!({ "days": [] })).into_response() };
    let rows = ledger.shown(from..=to);
    let is_wanted = |row: &&DayRow| range.table.as_ref().is_none_or(|table| row.table == *table);
    let days: Vec<&DayRow> = rows.iter().rev().filter(is_wanted).take(ROWS_MAX).collect();
    Json(json!({ "days": days })).into_response()
}

fn day(text: Option<&str>, name: &str) -> Result<Option<i32>, String> {
    match text {
        None => Ok(None),
        Some(text) => match day_number(text) {
            Some(day) => Ok(Some(day)),
            None => Err(format!("`{name}={text}`: expected a day such as 2026-11-25")),
        },
    }
}
