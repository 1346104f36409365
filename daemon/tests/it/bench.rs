//! `silverd bench`: it runs anywhere, and what it says of rows is what was drained. Its times are nobody's business here.

use serde_json::Value;

use crate::harness::Project;

#[test]
fn a_bench_needs_no_kafka() {
    let project = Project::new("bench", "");
    let told = project.silverd(&["bench", "--embedded", "--events", "4000", "--runs", "1", "--json", "--log", "warn"]);
    let report: Value = serde_json::from_str(&told).unwrap();
    for figure in ["events_per_second", "wasm_tax", "peak_rss_mib", "cpu_seconds"] {
        assert!(report[figure].as_f64().is_some_and(|figure| figure > 0.0), "{figure}: {told}");
    }
    let tables = &report["tables"];
    assert_eq!((&report["events"], &tables["bronze"]["rows"]), (&4000.into(), &4000.into()), "{told}");
    let rows = ["page_view", "add_to_cart", "order_placed", "quarantine"].map(|table| tables[table]["rows"].as_u64());
    assert_eq!(rows.iter().flatten().sum::<u64>(), 4000, "{told}");
}

#[test]
fn more_than_the_embedded_broker_holds_is_refused() {
    let project = Project::new("benchtoomuch", "");
    let output = project.output(&["bench", "--embedded", "--partitions", "1", "--events", "20000"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains("the embedded broker holds some 5120"), "{told}");
}
