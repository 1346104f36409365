//! The handlers of the HTTP API: for the dashboard and for monitoring. `assets/openapi.json` describes them.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, JsonRejection, PathRejection};
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Response};
use axum::{Extension, Json};
use futures::{Stream, StreamExt, stream};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;

use super::access::{AUDIT, Client, Identity};
use super::event_broadcast::{Client as StreamClient, Message};
use super::health::SourceProblem;
use super::{App, assets, metrics};
use crate::pipeline::status::{RunState, SilverStatus};
use crate::telemetry::logging;

pub(super) const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
/// How long a request waits for the first result of a query.
const RESULT_TIMEOUT: Duration = Duration::from_secs(10);
const RESULT_CHECK_INTERVAL: Duration = Duration::from_millis(50);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

pub(super) async fn dashboard(headers: HeaderMap) -> Response {
    assets::respond(HTML, assets::DASHBOARD, &headers)
}

pub(super) async fn login_form(RawQuery(query): RawQuery) -> Response {
    let message = query.filter(|query| query == "wrong").map(|_| "This token is wrong.");
    Html(assets::login_page(message)).into_response()
}

pub(super) async fn login(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    form: Result<Bytes, BytesRejection>,
) -> Response {
    let form = match form {
        Ok(form) => form,
        Err(rejection) => return problem(rejection.status(), &rejection.body_text()),
    };
    let token = url::form_urlencoded::parse(&form).find(|(name, _)| name == "token");
    app.access.login(&client, &token.map(|(_, token)| token).unwrap_or_default()).await
}

pub(super) async fn logout(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
) -> Response {
    app.access.logout(&client, &headers)
}

/// Who asks, and what they may do.
pub(super) async fn session(Extension(identity): Extension<Identity>) -> Response {
    let Identity { name, role, can_log_out, .. } = identity;
    Json(json!({ "name": name, "role": role.as_str(), "can_log_out": can_log_out })).into_response()
}

pub(super) async fn openapi(headers: HeaderMap) -> Response {
    assets::respond(JSON, assets::OPENAPI, &headers)
}

pub(super) async fn status(State(app): State<Arc<App>>) -> Response {
    app.events.note_request();
    Json(app.health()).into_response()
}

/// The alerts, their last transitions, and those who are notified.
pub(super) async fn alerts(State(app): State<Arc<App>>) -> Response {
    Json(app.shown.alerts.shown()).into_response()
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
pub(super) async fn panel(State(app): State<Arc<App>>, name: Result<Path<String>, PathRejection>) -> Response {
    let name = match name {
        Ok(Path(name)) => name,
        Err(rejection) => return problem(rejection.status(), &rejection.body_text()),
    };
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

pub(super) async fn set_log(
    Extension(client): Extension<Client>,
    Extension(identity): Extension<Identity>,
    settings: Result<Json<LogSettings>, JsonRejection>,
) -> Response {
    let filter = match settings {
        Ok(Json(LogSettings { filter })) => filter,
        Err(rejection) => return problem(rejection.status(), &rejection.body_text()),
    };
    match logging::set(&filter) {
        Ok(()) => {
            tracing::info!(target: AUDIT, "{identity} changed the log filter to `{filter}` from {}", client.address);
            Json(json!({ "filter": filter })).into_response()
        }
        Err(error) => problem(StatusCode::BAD_REQUEST, &format!("{error:#}")),
    }
}

pub(super) async fn live() -> &'static str {
    "alive\n"
}

pub(super) async fn ready(State(app): State<Arc<App>>) -> Response {
    let state = app.shown.status.borrow().clone();
    let status = match state {
        RunState::Starting => return not_ready("starting: opening the tables, or connecting to the broker"),
        RunState::Waiting(problem) => return not_ready(SourceProblem::from(problem)),
        RunState::Running(status) => status,
    };
    let bronze = status.bronze_state.get();
    if !bronze.is_writing() {
        return not_ready(format!("bronze has been {bronze}, for {} s", status.bronze_state.lasts().as_secs()));
    }
    let problems = SourceProblem::all(&status);
    if !problems.is_empty() {
        return not_ready(problems.iter().map(SourceProblem::to_string).collect::<Vec<_>>().join("\n"));
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

fn not_ready(reason: impl fmt::Display) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response()
}

pub(super) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let status = app.shown.status.borrow().running();
    let text = metrics::text(&app.health(), &app.shown.alerts.shown(), status.as_deref());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// All changes as server-sent events, after the newest message of each kind.
pub(super) async fn stream(State(app): State<Arc<App>>) -> Response {
    let Some(client) = app.events.connect() else {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "too many dashboards are open: close one");
    };
    let (version, started_at_ms) = (env!("CARGO_PKG_VERSION"), app.started_at_ms);
    let hello = json!({ "version": version, "started_at_ms": started_at_ms, "time_zone": app.time_zone });
    let hello = Message { event: "hello", data: hello.to_string().into() };
    let first = std::iter::once(hello).chain(app.events.newest());
    let messages = stream::iter(first).chain(new_messages(client)).take_until(app.ended.clone().cancelled_owned());
    let events =
        messages.map(|message| Ok::<_, Infallible>(Event::default().event(message.event).data(&*message.data)));
    // nginx would keep the messages back until it has many.
    let unbuffered = [(HeaderName::from_static("x-accel-buffering"), "no")];
    (unbuffered, Sse::new(events).keep_alive(KeepAlive::new().interval(KEEPALIVE_INTERVAL))).into_response()
}

fn new_messages(client: StreamClient) -> impl Stream<Item = Message> {
    stream::unfold(client, |mut client| async move {
        match client.messages.recv().await {
            Ok(message) => Some((message, client)),
            // A client that reads too slowly is disconnected. It starts with the newest messages when it connects again.
            Err(RecvError::Lagged(_) | RecvError::Closed) => None,
        }
    })
}

pub(super) async fn not_found() -> Response {
    problem(StatusCode::NOT_FOUND, "there is nothing at this path; /api/openapi.json describes the API")
}

pub(super) async fn method_not_allowed(method: Method, uri: Uri) -> Response {
    let text = format!("{} cannot be asked by {method}; /api/openapi.json describes the API", uri.path());
    problem(StatusCode::METHOD_NOT_ALLOWED, &text)
}

/// An error, as all paths of the API give it.
pub(super) fn problem(status: StatusCode, text: &str) -> Response {
    (status, Json(json!({ "error": text }))).into_response()
}

#[cfg(test)]
mod tests {
    use super::super::event_broadcast::EventBroadcast;
    use super::*;

    /// Its messages are not kept for it.
    #[tokio::test]
    async fn a_client_that_reads_too_slowly_is_disconnected() {
        let events = Arc::<EventBroadcast>::default();
        let (slow, quick) = (events.connect(), events.connect());
        let (slow, quick) = (slow.expect("a client"), quick.expect("a client"));
        let (slow, mut quick) = (new_messages(slow), std::pin::pin!(new_messages(quick)));
        for number in 0..1000 {
            events.publish("status", "", &number);
            assert!(quick.next().await.is_some(), "{number}");
        }
        assert_eq!(slow.collect::<Vec<_>>().await.len(), 0);
        assert_eq!(events.clients(), 1);
    }
}
