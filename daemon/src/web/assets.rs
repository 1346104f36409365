//! The files of the page, in the binary: it needs no folder beside it, and no network.

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

pub const PAGE: &str = include_str!("assets/page.html");
pub const LOGIN: &str = include_str!("assets/login.html");
pub const OPENAPI: &str = include_str!("assets/openapi.json");

/// Name, type and contents.
const FILES: [(&str, &str, &str); 7] = [
    ("style.css", "text/css; charset=utf-8", include_str!("assets/style.css")),
    ("app.js", "text/javascript; charset=utf-8", include_str!("assets/app.js")),
    ("charts.js", "text/javascript; charset=utf-8", include_str!("assets/charts.js")),
    ("chart.umd.min.js", "text/javascript; charset=utf-8", include_str!("assets/chart.umd.min.js")),
    ("chart.license.md", "text/plain; charset=utf-8", include_str!("assets/chart.license.md")),
    ("icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
    ("manifest.json", "application/manifest+json", include_str!("assets/manifest.json")),
];

pub async fn file(Path(name): Path<String>, headers: HeaderMap) -> Response {
    let Some((_, kind, contents)) = FILES.iter().find(|(known, ..)| *known == name) else {
        return (StatusCode::NOT_FOUND, "no such file").into_response();
    };
    of(kind, contents, &headers)
}

/// A file, unless the browser has it already.
pub fn of(kind: &'static str, contents: &'static str, headers: &HeaderMap) -> Response {
    let digest = Sha256::digest(contents.as_bytes());
    let tag = format!("\"{}\"", digest[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::ETAG, HeaderValue::from_str(&tag).unwrap_or(HeaderValue::from_static("\"\""))),
    ];
    if known { (StatusCode::NOT_MODIFIED, headers).into_response() } else { (headers, contents).into_response() }
}
