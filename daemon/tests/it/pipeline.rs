//! The data path end to end, with the real binary: a topic becomes Bronze, Silver and the quarantine, which two
//! implementations of Delta read.

use super::harness::guest::{self, ALLOCATOR, REALLOC};
use super::harness::{Daemon, PARTITIONS, Project, TableOptions, expected, fixture, python, root, rows};

#[test]
fn topic_becomes_tables_and_a_second_run_adds_nothing() {
    let project = Project::new("pipeline", "interval = \"200ms\"\nrows_max = 3000");
    project.generate(&["--count", "20000", "--seed", "7"]);
    project.send_file(&fixture("shop-events.jsonl"));
    project.send_odd_events();

    project.silverd(&["run", "--drain"]);
    let counts = expected::check(&project);
    assert_eq!(counts["bronze"], 20_009 + 407);
    assert_eq!(counts["quarantine"], 3);

    project.silverd(&["run", "--drain"]);
    assert_eq!(expected::check(&project), counts);
    python::check_shop_tables(&project);
    queries_return_rows(&project, counts["bronze"]);
}

fn queries_return_rows(project: &Project, events: usize) {
    let text = project.silverd(&["query", "--json", "select count(*) as n from bronze"]);
    assert_eq!(text.trim(), format!("[{{\"n\":{events}}}]"));
    let text = project.silverd(&["query", "select count(*) as n from page_view where event_id = 'é😀'"]);
    assert!(text.contains("| 1 |"), "{text}");
    assert_eq!(project.silverd(&["query", "--json", "select event_id from page_view where false"]).trim(), "[]");
    let errors = project.silverd_fails(&["query", "select nonsense from page_view"], 1);
    assert!(errors.contains("nonsense"), "{errors}");
    for writes in [
        "COPY (SELECT 1) TO 'written.csv'",
        "INSERT INTO page_view SELECT * FROM page_view",
        "CREATE TABLE other AS SELECT 1",
        "DROP TABLE page_view",
        "SET datafusion.execution.batch_size = 1",
    ] {
        let errors = project.silverd_fails(&["query", writes], 1);
        assert!(errors.contains("not supported") || errors.contains("does not support"), "{writes}: {errors}");
    }
    assert!(!project.folder.path().join("written.csv").exists());
    let overflow = project.silverd_fails(&["query", "SELECT 10000000000 * 10000000000"], 1);
    assert!(overflow.to_lowercase().contains("overflow"), "{overflow}");
    let sum_does_not_fit = "`sum`: the result does not fit into ";
    for (sql, expected) in [
        (r#"SELECT -("offset" - 9223372036854775807 - 1) FROM bronze"#, "`-`: Arithmetic overflow"),
        (r#"SELECT sum(9223372036854775807 - "offset") FROM bronze"#, sum_does_not_fit),
        (r#"SELECT sum(DISTINCT 9223372036854775807 - "offset") FROM bronze"#, sum_does_not_fit),
        (r#"SELECT "partition", sum(9223372036854775807 - "offset") FROM bronze GROUP BY 1"#, sum_does_not_fit),
        ("SELECT sum(CAST('60000000000000000000000000000000000000' AS DECIMAL(38, 0))) FROM bronze", sum_does_not_fit),
        ("SELECT 1 << 64", "`<<`: Arithmetic overflow"),
    ] {
        let overflow = project.silverd_fails(&["query", sql], 1);
        assert!(overflow.contains(expected), "{sql}: {overflow}");
    }
    let numbers = "SELECT 9007199254740993 AS n, CAST('123456789012345.67' AS DECIMAL(38, 2)) AS d";
    let text = project.silverd(&["query", "--json", numbers]);
    assert_eq!(text.trim(), "[{\"n\":9007199254740993,\"d\":123456789012345.67}]");
    let odd = "SELECT arrow_cast(9223372036854775807, 'Timestamp(Microsecond, None)') AS at";
    let rows = project.query(odd);
    assert_eq!(rows[0]["at"], "9223372036854775807 \u{b5}s");
}

/// Numbers in panels have all their digits. One that does not fit fails its panel or Gold table, and nothing else.
#[test]
fn numbers_are_exact_or_fail_in_panels_and_gold() {
    let project = Project::new("numbers", "interval = \"50ms\"");
    project.replace_in_pipeline("[http]\nlisten = \"off\"\n", "");
    project.append_to_pipeline(
        r#"
[panel.exact]
sql = """
SELECT 9007199254740993 AS n, CAST('12345678901234567.89' AS DECIMAL(38, 2)) AS d,
    CAST('18446744073709551615' AS BIGINT UNSIGNED) AS u"""
refresh = "1s"

[panel.large]
sql = "SELECT sum(9223372036854775807) AS n FROM live.page_view"
refresh = "1s"

[gold.large]
sql = "SELECT event_date, sum(9223372036854775807) AS n FROM page_view GROUP BY event_date"
refresh = "1s"
"#,
    );
    project.generate(&["--count", "400", "--seed", "9", "--dup-pct", "0"]);
    let mut daemon = Daemon::start_with_dashboard(&project);
    let exact = r#""rows":[["9007199254740993","12345678901234567.89","18446744073709551615"]]"#;
    daemon.until("all digits", |daemon| daemon.get("/api/panels/exact").body.contains(exact));
    let does_not_fit = |result: &serde_json::Value| {
        let reason = result["reason"].as_str().unwrap_or_default();
        result["state"] == "failing" && reason.contains("`sum`: the result does not fit into Int64")
    };
    daemon.until("a failing panel", |daemon| does_not_fit(&daemon.json("/api/panels/large")));
    daemon.until("a failing Gold table", |daemon| does_not_fit(&daemon.json("/api/status")["gold"][0]));
    daemon.until("all events", |_| rows(&project.path("bronze")).len() == 400);
    daemon.stop();
}

/// Events as other systems send them: each is routed, or counted with the reason why not.
#[test]
fn odd_events_are_routed_or_counted_by_reason() {
    let project = Project::new("odd", "interval = \"50ms\"");
    let view = |id: &str| {
        format!(
            "{{\"event_type\": \"page_view\", \"event_id\": \"{id}\", \"user_id\": \"u\", \
             \"ts\": \"2026-01-02T03:04:05Z\", \"url\": \"/\"}}"
        )
    };
    let utf16: Vec<u8> = format!("\u{feff}{}", view("utf16")).encode_utf16().flat_map(u16::to_le_bytes).collect();
    let frame = [b"\0\0\0\0*".to_vec(), view("frame").into_bytes()].concat();
    project.broker.create_topic(&project.topic, PARTITIONS);
    project.send_values(&[
        view("first").into_bytes(),
        format!("\u{feff}{}", view("bom")).into_bytes(),
        view("escaped").replace("event_type", "event\\u005ftype").into_bytes(),
        utf16,
        frame,
        b"\x1f\x8b\x08\0".to_vec(),
        format!("[{}]", view("array")).into_bytes(),
        format!("{{\"payload\": {}}}", view("envelope")).into_bytes(),
        Vec::new(),
        view("other").replace("page_view", "page_hidden").into_bytes(),
        view("last").into_bytes(),
    ]);
    let mut daemon = Daemon::start_with_dashboard(&project);
    daemon.until("all rows", |_| project.has_table("page_view") && rows(&project.path("page_view")).len() == 4);
    let status = daemon.json("/api/status");
    let reasons = &status["unrouted_by_reason"];
    let expected = serde_json::json!({
        "empty": 1, "not-json": 3, "not-an-object": 1, "no-such-field": 1, "other-value": 1
    });
    assert_eq!((reasons, &status["unrouted"]), (&expected, &serde_json::json!(7)));
    let metrics = daemon.get("/metrics").body;
    assert!(metrics.contains("silverd_unrouted_events_by_reason_total{reason=\"not-json\"} 3"), "{metrics}");
    daemon.stop();
    assert!(!project.has_table("quarantine") || rows(&project.path("quarantine")).is_empty());
    project.silverd(&["verify"]);
}

/// Each run is a new process, which finds duplicates of earlier events in the table.
#[test]
fn duplicates_are_dropped_and_late_events_listed() {
    let options = TableOptions { dedup_within_s: Some(600), late_after_s: Some(120) };
    let project = Project::with_options("dedup", "interval = \"50ms\"\nrows_max = 700", options);
    let event = |id: i64, minute: i64| {
        format!(
            "{{\"event_type\": \"page_view\", \"event_id\": \"{id}\", \"user_id\": \"u\", \
             \"ts\": \"2025-03-01T{:02}:{:02}:00Z\", \"url\": \"/\"}}",
            minute / 60,
            minute % 60
        )
    };
    // Each event again 10 minutes later, which is a duplicate, and 11 minutes earlier, which is not.
    let events = || (0..1000).flat_map(|id| [event(id, 20 + id), event(id, 30 + id), event(id, 9 + id)]);
    for round in 0..3 {
        project.send_lines(events());
        project.generate(&["--count", "2000", "--dup-pct", "30", "--seed", &round.to_string()]);
        project.send_odd_events();
        project.silverd(&["run", "--drain"]);
        let counts = expected::check(&project);
        assert!(counts["late"] > 2000 && counts["late"] < 5000, "{counts:?}");
    }
    let rows = project.query("select count(*) as n from page_view where user_id = 'u'");
    assert_eq!(rows[0]["n"], 2000);
}

#[test]
fn bronze_is_written_without_a_plugin_and_the_table_catches_up() {
    let project = Project::new("broken", "interval = \"100ms\"\nrows_max = 500");
    let good = project.pipeline();
    std::fs::write(project.folder.path().join("broken.wasm"), b"\0asm\x01\0\0\0garbage").unwrap();
    project.use_plugin_file("page_view", "broken.wasm");
    project.generate(&["--count", "5000", "--seed", "3"]);

    let errors = project.silverd_fails(&["run", "--drain"], 1);
    assert!(errors.contains("broken.wasm") && errors.contains("page_view"), "{errors}");
    assert_eq!(rows(&project.path("bronze")).len(), 5000);
    assert!(!rows(&project.path("order_placed")).is_empty());

    project.write_pipeline(&good);
    project.silverd(&["run", "--drain"]);
    expected::check(&project);
}

/// A page_view plugin that traps on every event.
fn plugin_that_always_traps() -> Vec<u8> {
    let transform =
        "(func (export \"shop:silver/page-view@0.1.0#transform\") (param i32 i32) (result i32) (unreachable))";
    // The memory at 512 is zero: `configure` succeeds.
    let configure = "(func (export \"silverd:pipeline/plugin@0.2.0#configure\") (param i32 i32 i32 i32) (result i32) \
                     (i32.const 512))";
    let wit = std::fs::read_to_string(root().join("wit/silver/page-view.wit")).unwrap();
    guest::module(
        &format!("{ALLOCATOR} {REALLOC} {configure} {transform}"),
        guest::TYPES,
        &wit,
        "page-view-plugin",
        wit_component::StringEncoding::UTF8,
    )
}

/// The table continues where it was once the plugin is replaced, and no event is in the quarantine.
#[test]
fn plugin_that_fails_on_every_event_pauses_only_its_table() {
    let project = Project::new("paused", "interval = \"50ms\"\nrows_max = 500");
    let plugin = project.folder.path().join("page_view.wasm");
    std::fs::write(&plugin, plugin_that_always_traps()).unwrap();
    project.use_plugin_file("page_view", "page_view.wasm");
    project.generate(&["--count", "4000", "--seed", "9"]);
    let mut daemon = Daemon::start(&project);
    daemon.until_logged("The table is paused for ", 1);
    let log = daemon.log();
    assert!(log.contains("the plugin fails on everything: ") && log.contains("it trapped: "), "{log}");
    daemon.until("rows in the other tables", |_| {
        ["bronze", "add_to_cart", "order_placed"].iter().all(|table| project.has_table(table))
            && rows(&project.path("bronze")).len() == 4000
    });
    assert_eq!(rows(&project.path("page_view")).len(), 0);
    let built = root().join("plugins/target/wasm32-unknown-unknown/release/page_view.wasm");
    std::fs::copy(built, plugin.with_extension("new")).unwrap();
    std::fs::rename(plugin.with_extension("new"), &plugin).unwrap();
    daemon.until("rows in the table that was paused", |_| !rows(&project.path("page_view")).is_empty());
    assert_eq!(daemon.count_logged("the plugin was swapped"), 1, "{}", daemon.log());
    daemon.stop();
    expected::check(&project);
}

#[test]
fn removed_quarantine_is_created_again() {
    let project = Project::new("removed", "interval = \"100ms\"");
    project.generate(&["--count", "1"]);
    for round in 1..=3 {
        project.send_odd_events();
        project.silverd(&["run", "--drain"]);
        assert_eq!(rows(&project.path("quarantine")).len(), if round == 1 { 3 } else { 3 * (round - 1) });
        if round == 1 {
            std::fs::remove_dir_all(project.path("quarantine")).unwrap();
        }
    }
}

#[test]
fn config_errors_have_a_place_and_exit_code_2() {
    let project = Project::new("check", "interval = \"200ms\"");
    assert!(project.silverd(&["check"]).contains("no errors"));
    let good = project.pipeline();
    project.replace_in_pipeline("event_time = \"ts\"", "event_time = \"url\"");
    let errors = project.silverd_fails(&["check"], 2);
    assert!(errors.contains("pipeline.toml:") && errors.contains("event_time"), "{errors}");
    project.write_pipeline(&good.replace("[commit]", "[comit]"));
    let errors = project.silverd_fails(&["run"], 2);
    assert!(errors.contains("did you mean `commit`"), "{errors}");
}

#[test]
fn check_fix_rewrites_renamed_keys() {
    let project = Project::new("fix", "interval = \"200ms\"");
    let good = project.pipeline().replace("event_time = \"ts\"", "event_time = \"ts\" # stays");
    let old = good.replace("event_time = \"ts\"", "event_date = \"ts\"");
    project.write_pipeline(&old.replace("interval = \"200ms\"", "interval_ms = 200"));
    let errors = project.silverd_fails(&["check"], 2);
    assert!(errors.contains("`event_date` was renamed to `event_time`"), "{errors}");
    assert!(errors.contains("`silverd check --fix` rewrites the file"), "{errors}");
    let output = project.silverd(&["check", "--fix"]);
    assert!(output.contains("`interval_ms = 200` is now `interval = \"200ms\"`"), "{output}");
    assert!(output.contains("no errors"), "{output}");
    assert_eq!(project.pipeline(), good);
    assert!(project.silverd(&["check", "--fix"]).contains("nothing to rewrite"));
}

/// Bronze stays as it is when the log is shorter than what Bronze has read of it.
#[test]
fn recreated_topic_is_not_read_as_the_old_one() {
    let project = Project::new("recreated", "interval = \"100ms\"");
    if !project.broker.is_kafka() {
        eprintln!("needs a real Kafka: the embedded broker cannot delete a topic");
        return;
    }
    project.generate(&["--count", "400", "--seed", "5"]);
    project.silverd(&["run", "--drain"]);
    project.broker.delete_topic(&project.topic);
    project.generate(&["--count", "40", "--seed", "6"]);
    let mut daemon = Daemon::start(&project);
    daemon.until_logged("the topic was deleted and created again", 1);
    drop(daemon);
    assert_eq!(rows(&project.path("bronze")).len(), 400);
}

#[test]
fn demo_logs_the_address_of_its_broker() {
    let project = Project::new("demo", "interval = \"100ms\"");
    let output = project.output(&["demo", "--for", "2s", "--count", "100"]);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    assert!(log.contains("embedded broker at 127.0.0.1:"), "{log}");
}
