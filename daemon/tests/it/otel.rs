//! Traces: an OTLP collector receives the spans of a run, with their names and parents.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use parking_lot::Mutex;

use super::harness::{Project, wait_for_exit};

const GOLD: &str = "[gold.views]\nsql = \"SELECT event_date, count(*) AS views FROM page_view GROUP BY event_date\"\n";

#[test]
fn collector_receives_the_spans_of_a_run() {
    let project = Project::new("otel", &format!("interval = \"100ms\"\n\n{GOLD}"));
    project.generate(&["--count", "500"]);
    let collector = Collector::start();
    let mut daemon = project
        .command(&["run", "--drain", "--log", "warn"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url)
        .env("OTEL_SERVICE_NAME", "silverd-under-test")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    assert!(wait_for_exit(&mut daemon, Duration::from_secs(120)).is_some_and(|status| status.success()));

    let requests = collector.requests.lock().clone();
    let service = b"silverd-under-test";
    assert!(requests.iter().all(|request| request.windows(service.len()).any(|window| window == service)));
    let spans: BTreeMap<Vec<u8>, Span> = requests.iter().flat_map(|request| spans(request)).collect();
    // The possible parents of each span. A span without a parent starts a trace.
    let expected: [(&str, &[Option<&str>]); 8] = [
        ("chunk", &[None]),
        ("route", &[Some("chunk")]),
        ("bronze append", &[Some("chunk")]),
        ("silver step", &[Some("chunk"), None]),
        ("transform", &[Some("silver step")]),
        ("encode", &[Some("bronze append"), Some("silver step")]),
        ("commit", &[Some("bronze append"), Some("silver step")]),
        ("gold refresh", &[None]),
    ];
    for (name, parents) in expected {
        let named: Vec<_> = spans.values().filter(|span| span.name == name).collect();
        assert!(!named.is_empty(), "no span `{name}`");
        for span in named {
            let parent = spans.get(&span.parent);
            let parent_name = parent.map(|parent| &*parent.name);
            // The last commit of a worker, of progress alone, has no parent.
            let is_last_commit = name == "commit" && parent_name.is_none();
            assert!(parents.contains(&parent_name) || is_last_commit, "the parent of `{name}` is {parent_name:?}");
            assert!(parent.is_none_or(|parent| parent.trace == span.trace));
        }
    }
}

/// A receiver of OTLP over HTTP.
struct Collector {
    url: String,
    requests: Arc<Mutex<Vec<Bytes>>>,
    _runtime: tokio::runtime::Runtime,
}

impl Collector {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let requests = Arc::<Mutex<Vec<Bytes>>>::default();
        let received = requests.clone();
        let receive = async move |request: Bytes| {
            received.lock().push(request);
            StatusCode::OK
        };
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move { axum::serve(listener, Router::new().route("/v1/traces", post(receive))).await });
        Self { url, requests, _runtime: runtime }
    }
}

#[derive(Debug)]
struct Span {
    trace: Vec<u8>,
    parent: Vec<u8>,
    name: String,
}

/// The spans of a request, by their ids, as in opentelemetry/proto/trace/v1/trace.proto.
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

/// The values of a length-delimited field of a protobuf message.
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
