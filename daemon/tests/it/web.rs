//! The page, the API and the metrics, asked of the real binary.

use std::collections::BTreeSet;
use std::net::TcpListener;

use serde_json::{Value, json};

use super::harness::{Project, root};
use super::http::{Answer, Served, until};
use super::pipeline::send_odd_ones;

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
SELECT ts, channel, referrer, length(url) > 0 AS long, event_date, CAST(1.5 AS DECIMAL(18, 2)) AS price, 1.0 / 0.0 AS odd,
    CAST('bytes' AS BYTEA) AS raw FROM live.page_view JOIN (SELECT DATE '2025-01-02' AS event_date) ON true LIMIT 1"""
"#;

/// A project with panels, and a password that must not show.
fn project(name: &str, more: &str) -> Project {
    let project = Project::new(name, "interval_ms = 100");
    let file = project.folder.path().join("pipeline.toml");
    let text = std::fs::read_to_string(&file).unwrap().replace("[http]\nlisten = \"off\"\n", "");
    let kafka = "[source.kafka]\n\"sasl.password\" = \"${KAFKA_SECRET:-x}\"\n";
    std::fs::write(&file, format!("{text}\n{kafka}{more}")).unwrap();
    project
}

#[test]
fn the_page_shows_what_happens() {
    let project = project("page", PANELS);
    project.generate(&["--count", "600", "--seed", "5", "--dup-pct", "0"]);
    let args = ["run", "--listen", "127.0.0.1:0", "--log", "debug"];
    let served = Served::start(&project, &args, &[("KAFKA_SECRET", PASSWORD)]);
    the_page_is_whole(&served);
    the_api_is_as_described(&served);
    panels_are_answered(&served);
    figures_are_right(&served);
    rejects_appear(&project, &served);
    the_log_is_changed(&served);
    other_sites_are_refused(&served);
    nothing_tells_a_secret(&served, PASSWORD);
}

/// Everything that the page names is there, and nothing in it needs a policy looser than ours.
fn the_page_is_whole(served: &Served) {
    let page = served.get("/");
    assert_eq!(page.status, 200);
    let policy = page.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'self';"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    for inline in ["style=", "onclick=", "javascript:", "<style", "<script>", "http://", "https://"] {
        assert!(!page.body.contains(inline), "the page has {inline}");
    }
    let named = page.body.split('"').filter(|text| text.starts_with("/assets/"));
    let named: BTreeSet<_> = named.collect();
    assert!(named.len() >= 5, "{named:?}");
    for file in named {
        let answer = served.get(file);
        assert_eq!(answer.status, 200, "{file}");
        assert!(answer.body.len() > 100, "{file}");
        let again = served.ask("GET", file, &[("If-None-Match", answer.header("etag"))], "");
        assert_eq!((again.status, again.body.as_str()), (304, ""), "{file}");
    }
    assert!(served.get("/assets/chart.license.md").body.contains("MIT"));
    assert_eq!(served.get("/assets/../Cargo.toml").status, 404);
    assert_eq!(served.get("/nothing").status, 404);
}

fn the_api_is_as_described(served: &Served) {
    let described = served.json("/api/openapi.json");
    let paths = described["paths"].as_object().unwrap();
    let page = served.get("/assets/app.js").body;
    for path in page.split('"').filter(|text| text.starts_with("/api/") || text.starts_with("/metrics")) {
        assert!(paths.contains_key(path), "the page uses {path}, and nobody described it");
    }
    for path in paths.keys().filter(|path| !path.contains("/stream")) {
        let asked = path.replace("{name}", "views");
        assert_eq!(served.get(&asked).status, 200, "{asked}");
    }
    let status = until("a status", || {
        let status = served.json("/api/status");
        (status["tables"].as_array()?.len() == 5).then_some(status)
    });
    let known = &described["components"]["schemas"]["Status"]["properties"];
    for field in status.as_object().unwrap().keys() {
        assert!(known.get(field).is_some(), "{field} is not described");
    }
    for (list, schema) in [("tables", "Table"), ("plugins", "Plugin"), ("maintenance", "Maintenance")] {
        let known = &described["components"]["schemas"][schema]["properties"];
        for field in status[list][0].as_object().unwrap().keys() {
            assert!(known.get(field).is_some(), "{list}: {field} is not described");
        }
    }
}

fn panels_are_answered(served: &Served) {
    let panel = |name: &str| served.json(&format!("/api/panels/{name}"));
    let rows = until("rows in memory", || {
        let rows = panel("two_lines")["rows"].clone();
        (rows[0][0].as_i64()? > 0).then_some(rows)
    });
    let title = panel("two_lines");
    assert_eq!((title["title"].as_str(), title["chart"].as_str()), (Some("Two lines"), Some("number")), "{rows}");

    let asked = |name: &str| {
        let panel = panel(name);
        (panel["state"] != "waiting").then_some(panel)
    };
    let bad = until("an answer to the bad panel", || asked("bad"));
    assert_eq!(bad["state"], "failing");
    assert!(bad["reason"].as_str().unwrap().contains("nonsense"), "{bad}");
    let writes = until("an answer to the panel that writes", || asked("writes"));
    assert_eq!(writes["state"], "failing", "a panel can read, and nothing else: {writes}");
    until("two refreshes of a good panel, beside the bad one", || (panel("views")["state"] == "ok").then_some(()));
    assert_eq!(served.log().matches("ask the question of [panel.bad]").count(), 1, "{}", served.log());
    assert_eq!(served.get("/api/panels/none").status, 404);

    let kinds = until("a page view in memory", || {
        let kinds = panel("kinds");
        assert_eq!(kinds["state"], "ok", "{kinds}");
        (kinds["rows"].as_array()?.len() == 1).then_some(kinds)
    });
    let of: Vec<_> =
        kinds["columns"].as_array().unwrap().iter().map(|column| column["kind"].as_str().unwrap()).collect();
    assert_eq!(of, ["time", "text", "text", "bool", "text", "number", "number", "text"]);
    let row = &kinds["rows"][0];
    assert!(row[0].as_i64().unwrap() > 1_700_000_000_000, "{row}");
    assert_eq!(json!([row[3], row[4], row[5], row[6], row[7]]), json!([true, "2025-01-02", 1.5, null, "bytes"]));
}

fn figures_are_right(served: &Served) {
    let table = |name: &str| {
        let status = served.json("/api/status");
        status["tables"].as_array().unwrap().iter().find(|table| table["name"] == name).unwrap().clone()
    };
    until("all events", || (table("bronze")["rows"] == 600).then_some(()));
    let rows = |name: &str| table(name)["rows"].as_i64().unwrap();
    until("all rows", || (rows("page_view") + rows("add_to_cart") + rows("order_placed") == 600).then_some(()));
    let status = served.json("/api/status");
    assert_eq!(status["partitions"].as_array().unwrap().len(), 4, "{status}");
    for plugin in status["plugins"].as_array().unwrap() {
        assert_eq!(plugin["digest"].as_str().unwrap().len(), 64, "{plugin}");
        assert!(plugin["ns_per_event"].as_f64().unwrap() > 0.0, "{plugin}");
    }
    assert!(table("page_view")["delay_ms"].as_i64().is_some() && table("page_view")["newest_at_ms"].as_i64().is_some());
    assert!(status["memory_bytes"].as_u64().unwrap() > 1 << 20);
    assert_eq!(served.get("/health/live").status, 200);
    assert!(served.get("/health/ready").body.starts_with("ready"));

    let metrics = served.get("/metrics").body;
    assert!(metrics.contains("silverd_rows_total{table=\"bronze\"} 600\n"), "{metrics}");
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let mut families = BTreeSet::new();
    for line in metrics.lines() {
        match line.strip_prefix("# TYPE ") {
            Some(family) => assert!(families.insert(family.split(' ').next().unwrap()), "{line} stands there twice"),
            None if line.starts_with('#') => {}
            None => {
                let (name, value) = line.rsplit_once(' ').unwrap();
                let name = name.split('{').next().unwrap();
                assert!(families.contains(name) && value.parse::<f64>().is_ok(), "{line}");
            }
        }
    }
    for family in families {
        assert!(
            family.starts_with("silverd_") && readme.contains(&format!("`{family}`")),
            "{family} is not in README.md"
        );
    }
}

/// A bad event comes to those who watch by itself, whole, with the command that replays it.
fn rejects_appear(project: &Project, served: &Served) {
    let stream = served.send("GET", "/api/stream", &[], "");
    send_odd_ones(project);
    let rejects = Served::until_event(stream, |event, data| event == "rejects" && data["total"] == 3);
    let newest = rejects["newest"].as_array().unwrap();
    assert!(newest.iter().any(|reject| reject["value"].as_str().unwrap().contains("\"ts\": \"never\"")), "{rejects}");
    let command = rejects["counts"][0]["replay"].as_str().unwrap();
    assert!(command.starts_with("silverd quarantine replay --table "), "{command}");
    assert_eq!(served.json("/api/rejects")["total"], 3);
    let counted: i64 =
        rejects["counts"].as_array().unwrap().iter().map(|count| count["events"].as_i64().unwrap()).sum();
    assert_eq!(counted, 3);
}

fn the_log_is_changed(served: &Served) {
    let put = |body: &str| served.ask("PUT", "/api/log", &[("Content-Type", "application/json")], body);
    assert_eq!(served.json("/api/log")["filter"], "debug");
    assert_eq!(put(r#"{"filter": "warn"}"#).status, 200);
    assert_eq!(served.json("/api/log")["filter"], "warn");
    let answer = put(r#"{"filter": "silverd=nonsense"}"#);
    assert_eq!(answer.status, 400, "{}", answer.body);
    assert!(answer.body.contains("nonsense"), "{}", answer.body);
    assert_eq!(served.json("/api/log")["filter"], "warn");
}

fn other_sites_are_refused(served: &Served) {
    for host in ["example.org", "192.168.0.7:8080", "localhost.example.org"] {
        assert_eq!(served.ask("GET", "/api/status", &[("Host", host)], "").status, 403, "{host}");
    }
    assert_eq!(served.ask("GET", "/api/status", &[("Host", "127.0.0.1")], "").status, 200);
    let json = ("Content-Type", "application/json");
    for foreign in [("Origin", "http://example.org"), ("Sec-Fetch-Site", "cross-site"), ("Origin", "null")] {
        let answer = served.ask("PUT", "/api/log", &[json, foreign], r#"{"filter": "trace"}"#);
        assert_eq!(answer.status, 403, "{foreign:?}");
    }
    let answer = served.ask("PUT", "/api/log", &[("Content-Type", "text/plain")], r#"{"filter": "trace"}"#);
    assert_eq!(answer.status, 415, "a form of another site cannot send JSON");
    assert_eq!(served.json("/api/log")["filter"], "warn");
}

#[track_caller]
fn nothing_tells_a_secret(served: &Served, secret: &str) {
    for path in ["/", "/api/status", "/api/panels", "/api/rejects", "/api/log", "/metrics", "/health/ready", "/login"] {
        let Answer { body, headers, .. } = served.get(path);
        assert!(!body.contains(secret) && !format!("{headers:?}").contains(secret), "{path} tells the secret");
    }
    assert!(!served.log().contains(secret), "the log tells the secret:\n{}", served.log());
}

#[test]
fn others_need_the_token() {
    let token = "a-token-that-nobody-guesses";
    let project = project("token", "[http]\nlisten = \"0.0.0.0:0\"\ntoken = \"${PAGE_TOKEN:-0123456789abcdef}\"\n");
    let served = Served::start(&project, &["run"], &[("PAGE_TOKEN", token), ("SILVERD_LOG", "debug")]);
    let with = |headers: &[(&str, &str)], path: &str| served.ask("GET", path, headers, "").status;
    for path in ["/api/status", "/api/stream", "/metrics", "/api/log", "/assets/app.js", "/api/openapi.json"] {
        assert_eq!(with(&[], path), 401, "{path}");
        assert_eq!(with(&[("Authorization", "Bearer a-token-that-nobody-guesse")], path), 401, "{path}");
    }
    assert_eq!(with(&[], "/health/live"), 200);
    assert_eq!(
        with(&[("Authorization", &format!("Bearer {token}")), ("Host", "silverd.example.org")], "/api/status"),
        200
    );
    let to_login = served.get("/");
    assert_eq!((to_login.status, to_login.header("location")), (303, "/login"));
    assert!(served.get("/login").body.contains("<form"));

    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let wrong = served.ask("POST", "/login", &[form], "token=wrong");
    assert!(wrong.header("set-cookie").is_empty() && wrong.status == 303);
    let right = served.ask("POST", "/login", &[form], &format!("token={token}"));
    let cookie = right.header("set-cookie");
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict") && !cookie.contains(token), "{cookie}");
    let cookie = cookie.split(';').next().unwrap();
    assert_eq!(with(&[("Cookie", cookie)], "/"), 200);
    assert_eq!(with(&[("Cookie", cookie)], "/api/status"), 200);
    let foreign = [form, ("Sec-Fetch-Site", "cross-site")];
    assert_eq!(served.ask("POST", "/login", &foreign, &format!("token={token}")).status, 403);
    nothing_tells_a_secret(&served, token);
}

#[test]
fn an_open_address_is_refused_and_a_taken_port_costs_the_page_alone() {
    let project = project("taken", "");
    let output = project.output(&["run", "--listen", "0.0.0.0:0"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains("has no token") && told.contains("--no-token"), "{told}");
    let output = project.output(&["run", "--listen", "here"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("expected an IP address"));

    project.generate(&["--count", "50", "--seed", "5"]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = project.output(&["run", "--drain", "--listen", &address]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("the page is not served") && told.contains(&address), "{told}");
    let answer: Value =
        serde_json::from_str(&project.silverd(&["query", "--json", "SELECT count(*) AS n FROM bronze"])).unwrap();
    assert!(answer[0]["n"].as_i64().unwrap() >= 50, "{answer}");
}
