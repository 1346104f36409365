//! The dashboard, the API and the metrics of the real binary.

mod access;

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;

use serde_json::json;

use super::harness::{Daemon, Project, Response, root, until, wait_for};

const PASSWORD: &str = "hunter2-of-kafka";
const PANELS: &str = r#"
[panel.two_lines]
sql = "SELECT count(*) AS orders FROM live.order_placed"

[panel.views]
sql = "SELECT count(*) AS views FROM page_view"
refresh = "1s"

[panel.bad]
sql = "SELECT nonsense FROM page_view"

[panel.writes]
sql = "COPY (SELECT 1) TO 'written.csv'"

[panel.kinds]
sql = """
SELECT ts, channel, referrer, length(url) > 0 AS long, event_date, CAST(1.5 AS DECIMAL(18, 2)) AS price,
    1.0 / 0.0 AS odd,
    CAST('bytes' AS BYTEA) AS raw FROM live.page_view JOIN (SELECT DATE '2025-01-02' AS event_date) ON true LIMIT 1"""

[alerts]
built_in = true
"#;

/// A project with these sections, and a password that no response may contain.
fn project(name: &str, sections: &str) -> Project {
    let project = Project::new(name, "interval = \"100ms\"");
    project.replace_in_pipeline("[http]\nlisten = \"off\"\n", "");
    let kafka = "[source.kafka]\n\"sasl.password\" = \"${KAFKA_SECRET:-x}\"\n";
    project.append_to_pipeline(&format!("{kafka}{sections}"));
    project
}

#[test]
fn dashboard_api_and_metrics_show_the_pipeline() {
    let project = project("dashboard", PANELS);
    project.generate(&["--count", "600", "--seed", "5", "--dup-pct", "0"]);
    let args = ["run", "--listen", "127.0.0.1:0", "--log", "debug"];
    let daemon = Daemon::start_with(&project, &args, &[("KAFKA_SECRET", PASSWORD)]);
    assets_are_complete(&daemon);
    api_matches_its_description(&daemon);
    panels_have_results(&daemon);
    status_and_metrics_are_right(&daemon);
    rejects_are_streamed(&project, &daemon);
    unrouted_events_have_a_sample(&project, &daemon);
    log_filter_can_be_changed(&daemon);
    other_sites_are_rejected(&daemon);
    no_response_contains(&daemon, PASSWORD);
}

/// All files that the dashboard uses exist, and none needs a looser content security policy.
fn assets_are_complete(daemon: &Daemon) {
    let dashboard = daemon.get("/");
    assert_eq!(dashboard.status, 200);
    let policy = dashboard.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'self';"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(dashboard.header("x-content-type-options"), "nosniff");
    for inline in ["style=", "onclick=", "javascript:", "<style", "<script>", "http://", "https://"] {
        assert!(!dashboard.body.contains(inline), "the dashboard contains {inline}");
    }
    let files = dashboard.body.split('"').filter(|text| text.starts_with("assets/"));
    let files: BTreeSet<_> = files.collect();
    assert!(files.len() >= 5, "{files:?}");
    for file in files {
        let file = &format!("/{file}");
        let response = daemon.get(file);
        assert_eq!(response.status, 200, "{file}");
        assert!(response.body.len() > 100, "{file}");
        let again = daemon.request("GET", file, &[("If-None-Match", response.header("etag"))], "");
        assert_eq!((again.status, again.body.as_str()), (304, ""), "{file}");
    }
    assert!(daemon.get("/assets/chart.license.md").body.contains("MIT"));
    assert_eq!(daemon.get("/assets/../Cargo.toml").status, 404);
    assert_eq!(daemon.get("/nothing").status, 404);
}

fn api_matches_its_description(daemon: &Daemon) {
    let described = daemon.json("/api/openapi.json");
    let paths = described["paths"].as_object().unwrap();
    let script = daemon.get("/assets/app.js").body;
    let used = script.split('"').filter(|text| text.starts_with("api/") || text.starts_with("metrics"));
    let used: Vec<_> = used.map(|path| format!("/{path}")).collect();
    assert!(used.len() > 3, "{used:?}");
    for path in used {
        assert!(paths.contains_key(&path), "app.js uses {path}, which openapi.json does not describe");
    }
    for (path, _) in paths.iter().filter(|(path, asked)| !path.contains("/stream") && asked.get("get").is_some()) {
        let path = path.replace("{name}", "views");
        assert_eq!(daemon.get(&path).status, 200, "{path}");
    }
    let status = wait_for("a status", || {
        let status = daemon.json("/api/status");
        (status["tables"].as_array()?.len() == 5).then_some(status)
    });
    let known = &described["components"]["schemas"]["Status"]["properties"];
    for field in status.as_object().unwrap().keys() {
        assert!(known.get(field).is_some(), "openapi.json does not describe {field}");
    }
    let schemas = &described["components"]["schemas"];
    let with_alerts = || Some(daemon.json("/api/alerts")).filter(|shown| shown["alerts"][0].is_object());
    let alerts = wait_for("the alerts", with_alerts);
    for field in alerts.as_object().unwrap().keys() {
        assert!(schemas["Alerts"]["properties"].get(field).is_some(), "openapi.json does not describe alerts: {field}");
    }
    for field in alerts["alerts"][0].as_object().unwrap().keys() {
        assert!(
            schemas["Alert"]["properties"].get(field).is_some(),
            "openapi.json does not describe an alert: {field}"
        );
    }
    for (list, schema) in [("tables", "Table"), ("plugins", "Plugin"), ("maintenance", "Maintenance")] {
        let known = &described["components"]["schemas"][schema]["properties"];
        for field in status[list][0].as_object().unwrap().keys() {
            assert!(known.get(field).is_some(), "openapi.json does not describe {list}: {field}");
        }
    }
}

fn panels_have_results(daemon: &Daemon) {
    let panel = |name: &str| daemon.json(&format!("/api/panels/{name}"));
    let rows = wait_for("rows in memory", || {
        let rows = panel("two_lines")["rows"].clone();
        (rows[0][0].as_str()?.parse::<i64>().unwrap() > 0).then_some(rows)
    });
    let title = panel("two_lines");
    assert_eq!((title["title"].as_str(), title["chart"].as_str()), (Some("Two lines"), Some("number")), "{rows}");

    let result_of = |name: &str| {
        let panel = panel(name);
        (panel["state"] != "waiting").then_some(panel)
    };
    let bad = wait_for("a result of the failing panel", || result_of("bad"));
    assert_eq!(bad["state"], "failing");
    assert!(bad["reason"].as_str().unwrap().contains("nonsense"), "{bad}");
    let writes = wait_for("a result of the panel that writes", || result_of("writes"));
    assert_eq!(writes["state"], "failing", "a panel can only read: {writes}");
    until("a result of the panel that works", || panel("views")["state"] == "ok");
    assert_eq!(daemon.log().matches("query of [panel.bad]").count(), 1, "{}", daemon.log());
    assert_eq!(daemon.get("/api/panels/none").status, 404);

    let kinds = wait_for("a page view in memory", || {
        // Before the first rows the panel waits.
        let kinds = Some(panel("kinds")).filter(|kinds| kinds["state"] != "waiting")?;
        assert_eq!(kinds["state"], "ok", "{kinds}");
        (kinds["rows"].as_array()?.len() == 1).then_some(kinds)
    });
    let of: Vec<_> =
        kinds["columns"].as_array().unwrap().iter().map(|column| column["kind"].as_str().unwrap()).collect();
    assert_eq!(of, ["time", "text", "text", "bool", "text", "decimal", "number", "text"]);
    let row = &kinds["rows"][0];
    assert!(row[0].as_i64().unwrap() > 1_700_000_000_000, "{row}");
    assert_eq!(json!([row[3], row[4], row[5], row[6], row[7]]), json!([true, "2025-01-02", "1.50", null, "bytes"]));
}

fn status_and_metrics_are_right(daemon: &Daemon) {
    let table = |name: &str| {
        let status = daemon.json("/api/status");
        status["tables"].as_array().unwrap().iter().find(|table| table["name"] == name).unwrap().clone()
    };
    until("all events in Bronze", || table("bronze")["rows"] == 600);
    let rows = |name: &str| table(name)["rows"].as_i64().unwrap();
    let silver_rows = || rows("page_view") + rows("add_to_cart") + rows("order_placed");
    until("all Silver rows", || silver_rows() == 600);
    let status = daemon.json("/api/status");
    assert_eq!(status["partitions"].as_array().unwrap().len(), 4, "{status}");
    for plugin in status["plugins"].as_array().unwrap() {
        assert_eq!(plugin["digest"].as_str().unwrap().len(), 64, "{plugin}");
        assert!(plugin["ns_per_event"].as_f64().unwrap() > 0.0, "{plugin}");
    }
    let page_view = wait_for("a live table", || Some(table("page_view")).filter(|table| table["state"] == "live"));
    assert!(page_view["ingest_latency_ms"].as_i64().is_some() && page_view["newest_at_ms"].as_i64().is_some());
    assert_eq!(page_view["is_writing"], true, "{page_view}");
    assert!(status["memory_bytes"].as_u64().unwrap() > 1 << 20);
    assert_eq!((&status["source_problems"], &status["unrouted_sample"]), (&json!([]), &json!(null)));
    assert_eq!(daemon.get("/health/live").status, 200);
    assert!(daemon.get("/health/ready").body.starts_with("ready"));
    metrics_are_right(daemon);
}

/// Every sample belongs to a family with a type, and docs/metrics.md describes every family.
fn metrics_are_right(daemon: &Daemon) {
    let metrics = daemon.get("/metrics").body;
    assert!(metrics.contains("silverd_rows_total{table=\"bronze\"} 600\n"), "{metrics}");
    assert!(metrics.contains("silverd_source_up 1\n"), "{metrics}");
    let mut types = BTreeMap::new();
    for line in metrics.lines() {
        if let Some((family, kind)) = line.strip_prefix("# TYPE ").and_then(|family| family.split_once(' ')) {
            assert!(types.insert(family, kind).is_none(), "{family} has two types");
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            let is_histogram = |family: &str| types.get(family) == Some(&"histogram");
            let of_histogram = |suffix: &str| name.strip_suffix(suffix).is_some_and(is_histogram);
            let is_known = types.contains_key(name) || ["_bucket", "_sum", "_count"].into_iter().any(of_histogram);
            assert!(is_known && value.parse::<f64>().is_ok(), "{line}");
        }
    }
    assert_eq!(types.get("silverd_commit_duration_seconds"), Some(&"histogram"), "{metrics}");
    let bucket = "silverd_commit_duration_seconds_bucket{table=\"bronze\",le=\"+Inf\"} ";
    assert!(metrics.contains(bucket), "{metrics}");
    let docs = std::fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    for family in types.keys() {
        let has_prefix = family.starts_with("silverd_") || family.starts_with("process_");
        assert!(has_prefix && docs.contains(&format!("`{family}`")), "docs/metrics.md does not describe {family}");
    }
}

/// A client of the stream receives a rejected event, with the command that replays it.
fn rejects_are_streamed(project: &Project, daemon: &Daemon) {
    let stream = daemon.send("GET", "/api/stream", &[], "");
    project.send_odd_events();
    let rejects = Daemon::wait_for_event(stream, |event, data| event == "rejects" && data["total"] == 3);
    let newest = rejects["newest"].as_array().unwrap();
    assert!(newest.iter().any(|reject| reject["value"].as_str().unwrap().contains("\"ts\": \"never\"")), "{rejects}");
    let command = rejects["counts"][0]["replay"].as_str().unwrap();
    assert!(command.starts_with("silverd quarantine replay --table "), "{command}");
    assert_eq!(daemon.json("/api/rejects")["total"], 3);
    let counted: i64 =
        rejects["counts"].as_array().unwrap().iter().map(|count| count["events"].as_i64().unwrap()).sum();
    assert_eq!(counted, 3);
}

/// The newest event that no table takes, where it is, and a line of the log.
fn unrouted_events_have_a_sample(project: &Project, daemon: &Daemon) {
    until("the unrouted ones of the odd events", || daemon.json("/api/status")["unrouted"] == 5);
    project.send_values(&["{\"x\": \"\u{1b}\u{202e}<b>\"}".into()]);
    let status = wait_for("a sample of the event", || {
        let status = daemon.json("/api/status");
        status["unrouted_sample"]["text"].as_str()?.contains("<b>").then_some(status)
    });
    let sample = &status["unrouted_sample"];
    assert_eq!(sample["text"], "{\"x\": \"\\u{1b}\\u{202e}<b>\"}");
    assert_eq!(sample["topic"], *project.topic);
    assert!(sample["partition"].is_i64() && sample["offset"].is_i64(), "{sample}");
    assert!(sample["ingested_at_ms"].as_i64().unwrap() >= status["started_at_ms"].as_i64().unwrap(), "{sample}");
    assert_eq!(status["unrouted_by_reason"]["empty"], 2, "{status}");
    assert!(daemon.log().contains("some events match no table"), "{}", daemon.log());
}

fn log_filter_can_be_changed(daemon: &Daemon) {
    let put = |body: &str| daemon.request("PUT", "/api/log", &[("Content-Type", "application/json")], body);
    assert_eq!(daemon.json("/api/log")["filter"], "debug");
    assert_eq!(put(r#"{"filter": "warn"}"#).status, 200);
    assert_eq!(daemon.json("/api/log")["filter"], "warn");
    let response = put(r#"{"filter": "silverd=nonsense"}"#);
    assert_eq!(response.status, 400, "{}", response.body);
    assert!(response.body.contains("nonsense"), "{}", response.body);
    assert_eq!(daemon.json("/api/log")["filter"], "warn");
}

fn other_sites_are_rejected(daemon: &Daemon) {
    for host in ["example.org", "192.168.0.7:8080", "localhost.example.org"] {
        assert_eq!(daemon.request("GET", "/api/status", &[("Host", host)], "").status, 403, "{host}");
    }
    assert_eq!(daemon.request("GET", "/api/status", &[("Host", "127.0.0.1")], "").status, 200);
    let json = ("Content-Type", "application/json");
    for foreign in [("Origin", "http://example.org"), ("Sec-Fetch-Site", "cross-site"), ("Origin", "null")] {
        let response = daemon.request("PUT", "/api/log", &[json, foreign], r#"{"filter": "trace"}"#);
        assert_eq!(response.status, 403, "{foreign:?}");
    }
    let response = daemon.request("PUT", "/api/log", &[("Content-Type", "text/plain")], r#"{"filter": "trace"}"#);
    assert_eq!(response.status, 415, "a form of another site cannot send JSON");
    assert_eq!(daemon.json("/api/log")["filter"], "warn");
}

#[track_caller]
fn no_response_contains(daemon: &Daemon, secret: &str) {
    for path in ["/", "/api/status", "/api/panels", "/api/rejects", "/api/log", "/metrics", "/health/ready", "/login"] {
        let Response { body, headers, .. } = daemon.get(path);
        assert!(!body.contains(secret) && !format!("{headers:?}").contains(secret), "{path} contains the secret");
    }
    assert!(!daemon.log().contains(secret), "the log contains the secret:\n{}", daemon.log());
}

#[test]
fn public_address_needs_a_token_and_pipeline_runs_without_dashboard_if_the_port_is_in_use() {
    let project = project("port-in-use", "");
    let output = project.output(&["run", "--listen", "0.0.0.0:0"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains("has no token") && errors.contains("--no-token"), "{errors}");
    let output = project.output(&["run", "--listen", "here"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("expected an IP address"));

    project.generate(&["--count", "50", "--seed", "5"]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let output = project.output(&["run", "--drain", "--listen", &address]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert!(errors.contains("the dashboard is off") && errors.contains(&address), "{errors}");
    let rows = project.query("SELECT count(*) AS n FROM bronze");
    assert!(rows[0]["n"].as_i64().unwrap() >= 50, "{rows:?}");
}
