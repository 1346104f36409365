//! The files of the dashboard. They are part of the binary, so that it needs no folder and no network.

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

pub(super) const DASHBOARD: &str = include_str!("dashboard.html");
const LOGIN: &str = include_str!("login.html");
/// Where the page for logging in says why a token was refused.
const LOGIN_MESSAGE: &str = "<!--message-->";
pub(super) const OPENAPI: &str = include_str!("openapi.json");

/// Name, content type and contents.
const FILES: [(&str, &str, &str); 8] = [
    ("style.css", "text/css; charset=utf-8", include_str!("style.css")),
    ("app.js", "text/javascript; charset=utf-8", include_str!("app.js")),
    ("format.js", "text/javascript; charset=utf-8", include_str!("format.js")),
    ("charts.js", "text/javascript; charset=utf-8", include_str!("charts.js")),
    ("chart.umd.min.js", "text/javascript; charset=utf-8", include_str!("chart.umd.min.js")),
    ("chart.license.md", "text/plain; charset=utf-8", include_str!("chart.license.md")),
    ("icon.svg", "image/svg+xml", include_str!("icon.svg")),
    ("manifest.json", "application/manifest+json", include_str!("manifest.json")),
];

pub(super) async fn file(Path(name): Path<String>, headers: HeaderMap) -> Response {
    let Some((_, content_type, contents)) = FILES.iter().find(|(known, ..)| *known == name) else {
        return (StatusCode::NOT_FOUND, "no such file").into_response();
    };
    respond(content_type, contents, &headers)
}

/// The page for logging in.
pub(super) fn login_page(message: Option<&str>) -> String {
    let message = message.map(|text| format!("<p class=\"failing\">{text}</p>")).unwrap_or_default();
    LOGIN.replace(LOGIN_MESSAGE, &message)
}

/// The contents, or status 304 if the browser has them already.
pub(super) fn respond(content_type: &'static str, contents: &'static str, headers: &HeaderMap) -> Response {
    let digest = Sha256::digest(contents.as_bytes());
    let etag = format!("\"{}\"", digest[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    let is_known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == etag.as_bytes());
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::ETAG, HeaderValue::from_str(&etag).unwrap_or(HeaderValue::from_static("\"\""))),
    ];
    if is_known { (StatusCode::NOT_MODIFIED, headers).into_response() } else { (headers, contents).into_response() }
}
