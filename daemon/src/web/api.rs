//! The API: what the page gets, and what machines ask. Described in `assets/openapi.json`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt, stream};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;

use super::hub::{Message, Watcher};
use super::{App, assets, metrics};
use crate::logging;

const JSON: &str = "application/json";

pub async fn page(headers: HeaderMap) -> Response {
    assets::of("text/html; charset=utf-8", assets::PAGE, &headers)
}

pub async fn login_page(headers: HeaderMap) -> Response {
    assets::of("text/html; charset=utf-8", assets::LOGIN, &headers)
}

pub async fn login(State(app): State<Arc<App>>, form: String) -> Response {
    let typed = url::form_urlencoded::parse(form.as_bytes()).find(|(name, _)| name == "token");
    app.guard.login(&typed.map(|(_, token)| token).unwrap_or_default()).await
}

pub async fn openapi(headers: HeaderMap) -> Response {
    assets::of(JSON, assets::OPENAPI, &headers)
}

pub async fn status(State(app): State<Arc<App>>) -> Response {
    app.hub.ask();
    Json(app.health()).into_response()
}

pub async fn history(State(app): State<Arc<App>>) -> Response {
    Json(json!({ "samples": app.past.samples() })).into_response()
}

/// The panels' newest answers. Who asks for them has them kept fresh for a while.
pub async fn panels(State(app): State<Arc<App>>) -> Response {
    app.hub.ask();
    let newest = app.hub.newest().into_iter().filter(|message| message.event == "panel");
    let panels: Vec<_> = newest.map(|message| message.data).collect();
    ([(header::CONTENT_TYPE, JSON)], format!("{{\"panels\":[{}]}}", panels.join(","))).into_response()
}

/// One panel, asked now if it was not asked before.
pub async fn panel(State(app): State<Arc<App>>, Path(name): Path<String>) -> Response {
    if !app.panels.contains(&name) {
        return problem(
            StatusCode::NOT_FOUND,
            &format!("there is no panel `{name}`; there are {}", app.panels.join(", ")),
        );
    }
    wait_for(&app, "panel", &name).await
}

pub async fn rejects(State(app): State<Arc<App>>) -> Response {
    wait_for(&app, "rejects", "").await
}

async fn wait_for(app: &App, event: &'static str, key: &str) -> Response {
    const LOOK: Duration = Duration::from_millis(50);
    const PATIENCE: u32 = 200;
    app.hub.ask();
    for _ in 0..PATIENCE {
        if let Some(data) = app.hub.newest_of(event, key) {
            return ([(header::CONTENT_TYPE, JSON)], data.to_string()).into_response();
        }
        tokio::time::sleep(LOOK).await;
    }
    problem(StatusCode::SERVICE_UNAVAILABLE, "no answer yet: ask again")
}

#[derive(Deserialize)]
pub struct Log {
    filter: String,
}

pub async fn log() -> Response {
    Json(json!({ "filter": logging::filter() })).into_response()
}

pub async fn set_log(Json(log): Json<Log>) -> Response {
    match logging::set(&log.filter) {
        Ok(()) => {
            tracing::info!(filter = %log.filter, "the log's filter was changed");
            Json(json!({ "filter": log.filter })).into_response()
        }
        Err(mistake) => problem(StatusCode::BAD_REQUEST, &format!("{mistake:#}")),
    }
}

pub async fn live() -> &'static str {
    "alive\n"
}

pub async fn ready(State(app): State<Arc<App>>) -> Response {
    let Some(status) = app.status.borrow().clone() else {
        let text = "starting: the tables are being opened, or the broker is being looked for\n";
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    };
    let troubled = status.silver.iter().filter(|(_, _, state)| !state.works());
    let waiting = troubled.map(|(name, _, state)| format!("table {name} is {}\n", state.get()));
    format!("ready\n{}", waiting.collect::<String>()).into_response()
}

pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    let status = app.status.borrow().clone();
    let text = metrics::text(&app.health(), status.as_ref().map(|status| &*status.stages));
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// Everything that changes, as server-sent events: first the newest of each, then what comes.
pub async fn stream(State(app): State<Arc<App>>, RawQuery(_): RawQuery) -> Response {
    let Some(watcher) = app.hub.watch() else {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "too many pages are open: close one");
    };
    let hello = json!({ "version": env!("CARGO_PKG_VERSION"), "started_at_ms": app.started_at_ms });
    let hello = Message { event: "hello", data: hello.to_string().into() };
    let first = std::iter::once(hello).chain(app.hub.newest());
    let messages = stream::iter(first).chain(coming(watcher)).take_until(app.ended.clone().cancelled_owned());
    let events =
        messages.map(|message| Ok::<_, Infallible>(Event::default().event(message.event).data(&*message.data)));
    Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))).into_response()
}

fn coming(watcher: Watcher) -> impl Stream<Item = Message> {
    stream::unfold(watcher, |mut watcher| async move {
        loop {
            match watcher.messages.recv().await {
                Ok(message) => return Some((message, watcher)),
                // What was missed comes again, newer.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    })
}

pub async fn not_found() -> Response {
    problem(StatusCode::NOT_FOUND, "there is nothing here; /api/openapi.json tells what there is")
}

fn problem(status: StatusCode, text: &str) -> Response {
    (status, Json(json!({ "error": text }))).into_response()
}
