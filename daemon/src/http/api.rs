//! The handlers of the HTTP API: for the dashboard and for monitoring. `assets/openapi.json` describes them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt, stream};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;

use super::event_broadcast::{Client, Message};
use super::health::SourceProblem;
use super::{App, assets, metrics};
use crate::pipeline::status::SilverStatus;
use crate::telemetry::logging;

const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
/// How long a request waits for the first result of a query.
const RESULT_TIMEOUT: Duration = Duration::from_secs(10);
const RESULT_CHECK_INTERVAL: Duration = Duration::from_millis(50);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

pub(super) async fn dashboard(headers: HeaderMap) -> Response {
    assets::respond(HTML, assets::DASHBOARD, &headers)
}

pub(super) async fn login_form(headers: HeaderMap) -> Response {
    assets::respond(HTML, assets::LOGIN, &headers)
}

pub(super) async fn login(State(app): State<Arc<App>>, form: String) -> Response {
    let token = url::form_urlencoded::parse(form.as_bytes()).find(|(name, _)| name == "token");
    app.auth.login(&token.map(|(_, token)| token).unwrap_or_default()).await
}

pub(super) async fn openapi(headers: HeaderMap) -> Response {
    assets::respond(JSON, assets::OPENAPI, &headers)
}

pub(super) async fn status(State(app): State<Arc<App>>) -> Response {
    app.events.note_request();
    Json(app.health()).into_response()
}

pub(super) async fn history(State(app): State<Arc<App>>) -> Response {
    Json(json!({ "samples": app.history.samples() })).into_response()
}

/// The newest results of all panels.
pub(super) async fn panels(State(app): State<Arc<App>>) -> Response {
    app.events.note_request();
    let newest = app.events.newest().into_iter().filter(|message| message.event == "panel");
    let panels: Vec<_> = newest.map(|message| message.data).collect();
    ([(header::CONTENT_TYPE, JSON)], format!("{{\"panels\":[{}]}}", panels.join(","))).into_response()
}

/// The newest result of one panel, or its first one.
pub(super) async fn panel(State(app): State<Arc<App>>, Path(name): Path<String>) -> Response {
    if !app.panels.contains(&name) {
        let text = format!("there is no panel `{name}`; the panels are {}", app.panels.join(", "));
        return problem(StatusCode::NOT_FOUND, &text);
    }
    newest_result(&app, "panel", &name).await
}

pub(super) async fn rejects(State(app): State<Arc<App>>) -> Response {
    newest_result(&app, "rejects", "").await
}

async fn newest_result(app: &App, event: &'static str, key: &str) -> Response {
    app.events.note_request();
    let result = async {
        loop {
            match app.events.newest_of(event, key) {
                Some(data) => return data,
                None => tokio::time::sleep(RESULT_CHECK_INTERVAL).await,
            }
        }
    };
    match tokio::time::timeout(RESULT_TIMEOUT, result).await {
        Ok(data) => ([(header::CONTENT_TYPE, JSON)], data.to_string()).into_response(),
        Err(_) => problem(StatusCode::SERVICE_UNAVAILABLE, "there is no result yet: retry"),
    }
}

#[derive(Deserialize)]
pub(super) struct LogSettings {
    filter: String,
}

pub(super) async fn log() -> Response {
    Json(json!({ "filter": logging::filter() })).into_response()
}

pub(super) async fn set_log(Json(settings): Json<LogSettings>) -> Response {
    match logging::set(&settings.filter) {
        Ok(()) => {
            tracing::info!(filter = %settings.filter, "log filter changed");
            Json(json!({ "filter": settings.filter })).into_response()
        }
        Err(error) => problem(StatusCode::BAD_REQUEST, &format!("{error:#}")),
    }
}

pub(super) async fn live() -> &'static str {
    "alive\n"
}

pub(super) async fn ready(State(app): State<Arc<App>>) -> Response {
    let Some(status) = app.status.borrow().clone() else {
        let text = "starting: opening the tables, or connecting to the broker\n";
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    };
    let bronze = status.bronze_state.get();
    if !bronze.is_writing() {
        let text = format!("bronze has been {bronze}, for {} s\n", status.bronze_state.lasts().as_secs());
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }
    let problems = SourceProblem::all(&status);
    if !problems.is_empty() {
        let line = |SourceProblem { text, seconds }: &SourceProblem| format!("for {seconds} s: {text}\n");
        return (StatusCode::SERVICE_UNAVAILABLE, problems.iter().map(line).collect::<String>()).into_response();
    }
    let mut text = "ready\n".to_owned();
    for SilverStatus { name, state, .. } in &status.silver {
        let state = state.get();
        if !state.is_writing() {
            text += &format!("table {name} is {state}\n");
        }
    }
    text.into_response()
}

pub(super) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let status = app.status.borrow().clone();
    let text = metrics::text(&app.health(), status.as_deref());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// All changes as server-sent events, after the newest message of each kind.
pub(super) async fn stream(State(app): State<Arc<App>>) -> Response {
    let Some(client) = app.events.connect() else {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "too many dashboards are open: close one");
    };
    let hello = json!({ "version": env!("CARGO_PKG_VERSION"), "started_at_ms": app.started_at_ms });
    let hello = Message { event: "hello", data: hello.to_string().into() };
    let first = std::iter::once(hello).chain(app.events.newest());
    let messages = stream::iter(first).chain(new_messages(client)).take_until(app.ended.clone().cancelled_owned());
    let events =
        messages.map(|message| Ok::<_, Infallible>(Event::default().event(message.event).data(&*message.data)));
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEPALIVE_INTERVAL)).into_response()
}

fn new_messages(client: Client) -> impl Stream<Item = Message> {
    stream::unfold(client, |mut client| async move {
        loop {
            match client.messages.recv().await {
                Ok(message) => return Some((message, client)),
                // Newer messages replace the missed ones.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    })
}

pub(super) async fn not_found() -> Response {
    problem(StatusCode::NOT_FOUND, "there is nothing at this path; /api/openapi.json describes the API")
}

fn problem(status: StatusCode, text: &str) -> Response {
    (status, Json(json!({ "error": text }))).into_response()
}
