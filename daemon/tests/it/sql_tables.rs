//! Silver tables without a plugin: SQL over an event's fields.

use serde_json::{Value, json};

use super::harness::{Daemon, Project, root, rows, until};

/// A table with the fields that its SQL needs.
const CARTS: &str = r#"
[silver.carts]
match = { field = "event_type", equals = "add_to_cart" }
event_time = "ts"
path = "data/silver/carts"
input = { event_id = "string", ts = "timestamp", sku = "string", qty = "s64", price = "money" }
sql = """
SELECT event_id, ts, sku, qty, price * qty AS line_total
FROM event
"""
"#;

fn cart(id: usize, qty: &str) -> String {
    format!(
        r#"{{"event_type": "add_to_cart", "event_id": "e{id}", "user_id": "u", "ts": "2026-01-02T03:04:05Z", "sku": "SKU-00001", "qty": {qty}, "price": 2.50}}"#
    )
}

/// The tables of the example, under other names.
fn example() -> String {
    let text = std::fs::read_to_string(root().join("examples/shop-sql/pipeline.toml")).unwrap();
    let mut tables = text[text.find("[silver.page_view]").unwrap()..]
        .replace("../../data/reference", &root().join("data/reference").display().to_string());
    for name in ["page_view", "add_to_cart", "order_placed", "order_line"] {
        tables = tables
            .replace(
                &format!("[silver.{name}]\n"),
                &format!("[silver.{name}_sql]\npath = \"data/silver/{name}_sql\"\n"),
            )
            .replace(&format!("[silver.{name}.input]"), &format!("[silver.{name}_sql.input]"));
    }
    tables
}

/// The values of some columns of all rows.
fn values(project: &Project, table: &str, columns: &str) -> Vec<Value> {
    project.query(&format!("SELECT {columns} FROM {table} ORDER BY event_id, _offset"))
}

#[test]
fn the_shops_tables_in_sql_have_the_rows_of_the_plugins() {
    let project = Project::new("sql-example", "interval = \"100ms\"");
    project.generate(&["--count", "3000", "--seed", "11", "--dup-pct", "0"]);
    project.silverd(&["run", "--drain"]);
    project.append_to_pipeline(&example());
    project.silverd(&["check"]);
    project.silverd(&["run", "--drain"]);
    for (table, columns) in [
        ("page_view", "event_id, user_id, ts, url, referrer, channel, session_hint"),
        ("add_to_cart", "event_id, user_id, ts, sku, category, qty, price, line_total"),
        ("order_placed", "event_id, order_id, user_id, ts, total"),
    ] {
        let plugin = values(&project, table, columns);
        assert!(!plugin.is_empty());
        assert_eq!(values(&project, &format!("{table}_sql"), columns), plugin, "{table}");
    }
    let items = "SELECT count(*) AS n, sum(line_total) AS total FROM ";
    let plugin =
        project.query(&format!("{items} (SELECT unnest(line_items)['line_total'] AS line_total FROM order_placed)"));
    assert_eq!(project.query(&format!("{items} order_line_sql")), plugin);
    // A rebuild gives the same, and every row is what its version makes of its event.
    project.silverd(&["verify", "--deep"]);
    project.silverd(&["rebuild", "add_to_cart_sql"]);
    project.silverd(&["verify", "--deep"]);
    let listed: Value = serde_json::from_str(&project.silverd(&["plugin", "list", "--json"])).unwrap();
    let listed = listed.as_array().unwrap().iter().find(|table| table["table"] == "add_to_cart_sql").unwrap().clone();
    assert!(listed["serving"].is_string() && listed["serving"] == listed["newest"], "{listed}");
}

#[test]
fn saved_sql_is_validated_and_swapped_without_losing_an_event() {
    let project = Project::with_sections("sql-reload", &format!("[commit]\ninterval = \"50ms\"\n{CARTS}"));
    project.send_lines((0..20).map(|id| cart(id, "2")));
    let mut daemon = Daemon::start(&project);
    let count = || if project.has_table("carts") { rows(&project.path("carts")).len() } else { 0 };
    until("the first rows", || count() == 20);
    // A column more.
    project.replace_in_pipeline("sku, qty,", "sku, upper(sku) AS upper_sku, qty,");
    daemon.until_logged("a new version is validated", 1);
    project.send_lines((20..40).map(|id| cart(id, "3")));
    until("rows of the new version", || count() == 40);
    let upper = || project.query("SELECT count(upper_sku) AS n FROM carts")[0]["n"].clone();
    assert_eq!(upper(), 20);
    // SQL that does not plan, and SQL that rejects what the current one accepts, do not serve.
    project.replace_in_pipeline("price * qty AS line_total", "price * qty AS line_total, nosuch AS x");
    daemon.until_logged("nosuch", 1);
    project.replace_in_pipeline(", nosuch AS x", ", CAST('x' || sku AS BIGINT) AS x");
    daemon.until_logged("the new build was rejected", 1);
    project.send_lines((40..50).map(|id| cart(id, "1")));
    until("rows of the version that serves", || count() == 50);
    assert_eq!(upper(), 30);
    // Whether an expression can be null is no matter of the schema.
    project.replace_in_pipeline("price * qty AS line_total, CAST('x' || sku AS BIGINT) AS x", "price AS line_total");
    daemon.until_logged("a new version is validated", 2);
    daemon.stop();
    project.silverd(&["verify"]);
}

#[test]
fn an_event_that_fails_is_quarantined_with_its_column_and_can_be_replayed() {
    let project = Project::with_sections("sql-rejects", CARTS);
    let most = "9223372036854775807";
    project.send_lines([cart(1, "2"), cart(2, most), cart(3, "\"many\""), cart(4, "5")]);
    project.silverd(&["run", "--drain"]);
    let ids = |table: &str| project.query(&format!("SELECT event_id FROM {table} ORDER BY 1"));
    assert_eq!(ids("carts"), [json!({ "event_id": "e1" }), json!({ "event_id": "e4" })]);
    let rejects = project.query("SELECT code, reason FROM quarantine ORDER BY reason");
    let reason = |at: usize| rejects[at]["reason"].as_str().unwrap().to_owned();
    assert!(rejects.len() == 2 && reason(0).starts_with("line_total: "), "{rejects:?}");
    assert!(reason(1).starts_with("qty: expected an integer"), "{rejects:?}");
    project.replace_in_pipeline("price * qty AS line_total", "CASE WHEN qty < 1000 THEN price * qty END AS line_total");
    project.silverd(&["quarantine", "replay", "--table", "carts"]);
    assert_eq!(ids("carts").len(), 3);
    project.silverd(&["verify", "--deep"]);
}

#[test]
fn errors_in_sql_have_a_line_and_a_caret() {
    let project = Project::with_sections("sql-errors", CARTS);
    for (from, to, expected) in [
        ("SELECT event_id, ts, sku", "SELECT event_id, ts, nosuch", &["nosuch", "^^^^^^"][..]),
        ("FROM event", "FROM event GROUP BY sku", &["GROUP BY", "^"]),
        ("qty = \"s64\"", "qty = \"integer\"", &["the type of `qty` is not valid", "write `s64`", "^^^^^^^"]),
        ("event_time = \"ts\"", "event_time = \"sku\"", &["no `timestamp`"]),
        (
            "event_time = \"ts\"",
            "plugin = \"p\"\nevent_time = \"ts\"",
            &["has `sql` and `plugin`", "keep one of the two"],
        ),
        ("price * qty AS", "now() AS", &["`now` gives something else at each call", "^^^"]),
    ] {
        let before = project.pipeline();
        project.replace_in_pipeline(from, to);
        let error = project.silverd_fails(&["check"], 2);
        for expected in expected {
            assert!(error.contains(expected), "{to}: {error}");
        }
        assert!(error.contains("pipeline.toml:"), "{error}");
        project.write_pipeline(&before);
    }
    let out = project.silverd(&["check"]);
    assert!(out.contains("carts: sql ") && out.contains("5 columns"), "{out}");
}

#[test]
fn cases_of_sql_tables_run_and_a_plugin_can_take_the_table_over() {
    let project = Project::with_sections("sql-cases", CARTS);
    let folder = project.folder.path().join("cases/carts");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("first.json"), format!("{{ \"event\": {} }}", cart(1, "2"))).unwrap();
    project.silverd(&["plugin", "test", "carts", "--update"]);
    project.silverd(&["plugin", "test"]);
    let case = std::fs::read_to_string(folder.join("first.json")).unwrap();
    assert!(case.contains("\"line_total\": 5.0"), "{case}");
    // A daemon does not take up a version that fails them.
    project.replace_in_pipeline("price * qty", "price * (qty + 1)");
    let out = project.silverd_fails(&["plugin", "test", "carts"], 1);
    assert!(out.contains("1 of 1 case failed"), "{out}");
    project.send_lines([cart(1, "2")]);
    let error = project.silverd_fails(&["run", "--drain"], 1);
    assert!(error.contains("1 of its 1 cases failed"), "{error}");
    project.replace_in_pipeline("price * (qty + 1)", "price * qty");
    project.silverd(&["run", "--drain"]);
    let wit = project.silverd(&["plugin", "wit", "carts"]);
    assert!(wit.contains("interface carts {") && wit.contains("    line-total: option<money>,"), "{wit}");
    let error = project.silverd_fails(&["plugin", "wit", "nosuch"], 2);
    assert!(error.contains("nosuch"), "{error}");
    project.silverd(&["plugin", "inspect", "carts"]);
    project.silverd(&["plugin", "try", "carts"]);
}

/// What SQL takes of memory and time, it takes from its own process.
#[test]
fn sql_that_takes_too_much_costs_only_its_event() {
    let project = Project::with_sections(
        "sql-limits-rows",
        &format!("[limits]\nmemory_bytes_max = \"96MiB\"\ntransform_time_max = \"2s\"\n{CARTS}"),
    );
    project.replace_in_pipeline("price * qty AS line_total", "length(repeat('x', qty)) AS line_total");
    project.send_lines([cart(1, "2"), cart(2, "2000000000"), cart(3, "7")]);
    project.silverd(&["run", "--drain"]);
    assert_eq!(rows(&project.path("carts")).len(), 2);
    let rejects = project.query("SELECT code, reason FROM quarantine");
    assert!(rejects.len() == 1 && rejects[0]["code"] == "memory", "{rejects:?}");
}
