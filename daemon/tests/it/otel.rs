//! Traces: a run's spans come to an OTLP receiver, under their names, and hang together.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;

use super::harness::{Project, wait};

const GOLD: &str = "[gold.views]\nsql = \"SELECT event_date, count(*) AS views FROM page_view GROUP BY event_date\"\n";

#[test]
fn a_run_is_seen_by_a_collector() {
    let project = Project::new("otel", &format!("interval_ms = 100\n\n{GOLD}"));
    project.generate(&["--count", "500"]);
    let collector = Collector::start();
    let mut daemon = project
        .command(&["run", "--drain", "--log", "warn"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url)
        .env("OTEL_SERVICE_NAME", "silverd-under-test")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    assert!(wait(&mut daemon, Duration::from_secs(120)).is_some_and(|status| status.success()));

    let bodies = collector.bodies.lock().unwrap().clone();
    let service = b"silverd-under-test";
    assert!(bodies.iter().all(|body| body.windows(service.len()).any(|window| window == service)));
    let spans: BTreeMap<Vec<u8>, Span> = bodies.iter().flat_map(|body| spans(body)).collect();
    // Which span is a part of which; none is the beginning of a trace.
    let expected: [(&str, &[Option<&str>]); 8] = [
        ("chunk", &[None]),
        ("route", &[Some("chunk")]),
        ("bronze append", &[Some("chunk")]),
        ("silver turn", &[Some("chunk"), None]),
        ("transform", &[Some("silver turn")]),
        ("encode", &[Some("bronze append"), Some("silver turn")]),
        ("commit", &[Some("bronze append"), Some("silver turn")]),
        ("gold refresh", &[None]),
    ];
    for (name, parents) in expected {
        let named: Vec<_> = spans.values().filter(|span| span.name == name).collect();
        assert!(!named.is_empty(), "no span `{name}`");
        for span in named {
            let parent = spans.get(&span.parent);
            // A worker's last commit, of progress alone, is a part of nothing.
            let of = parent.map(|parent| &*parent.name);
            assert!(parents.contains(&of) || (name == "commit" && of.is_none()), "`{name}` is a part of {of:?}");
            assert!(parent.is_none_or(|parent| parent.trace == span.trace));
        }
    }
}

/// What takes OTLP over HTTP.
struct Collector {
    url: String,
    bodies: Arc<Mutex<Vec<Bytes>>>,
    _runtime: tokio::runtime::Runtime,
}

impl Collector {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let bodies = Arc::<Mutex<Vec<Bytes>>>::default();
        let taken = bodies.clone();
        let take = async move |body: Bytes| {
            taken.lock().unwrap().push(body);
            StatusCode::OK
        };
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move { axum::serve(listener, Router::new().route("/v1/traces", post(take))).await });
        Self { url, bodies, _runtime: runtime }
    }
}

#[derive(Debug)]
struct Span {
    trace: Vec<u8>,
    parent: Vec<u8>,
    name: String,
}

/// The spans of a request, by their ids: opentelemetry/proto/trace/v1/trace.proto.
fn spans(request: &[u8]) -> Vec<(Vec<u8>, Span)> {
    let scopes = fields(request, 1).into_iter().flat_map(|resource| fields(resource, 2));
    let spans = scopes.flat_map(|scope| fields(scope, 2));
    let first = |span: &[u8], field| fields(span, field).first().map(|bytes| bytes.to_vec()).unwrap_or_default();
    let span = |span: &[u8]| {
        let name = String::from_utf8(first(span, 5)).unwrap();
        (first(span, 2), Span { trace: first(span, 1), parent: first(span, 4), name })
    };
    spans.map(span).collect()
}

/// What a protobuf message has under a field of a length, each time it is there.
fn fields(mut message: &[u8], wanted: u64) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message);
        let length = match key & 7 {
            0 => {
                varint(&mut message);
                0
            }
            1 => 8,
            2 => varint(&mut message) as usize,
            5 => 4,
            other => panic!("wire type {other}"),
        };
        let (value, rest) = message.split_at(length);
        if key == wanted << 3 | 2 {
            found.push(value);
        }
        message = rest;
    }
    found
}

fn varint(message: &mut &[u8]) -> u64 {
    let end = message.iter().position(|byte| byte & 0x80 == 0).unwrap();
    let (bytes, rest) = message.split_at(end + 1);
    *message = rest;
    bytes.iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f))
}
