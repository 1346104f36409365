//! `silverd infer` end to end: a topic, Bronze and files; its output forms, masks and exit codes.

use std::io::Write;
use std::process::Stdio;

use serde_json::{Value, json};
use silverd_core::config;

use super::harness::{Project, fixture};

/// Kinds of the shop's events with their counts, in the fixture.
const SHOP: [(&str, u64); 3] = [("page_view", 286), ("add_to_cart", 91), ("order_placed", 30)];

/// A project with a topic and without Silver tables.
fn project(name: &str) -> Project {
    Project::with_sections(name, "[commit]\ninterval = \"100ms\"\n")
}

#[track_caller]
fn report(project: &Project, args: &[&str]) -> Value {
    let output = project.silverd(&[&["infer", "--json"], args].concat());
    serde_json::from_str(&output).unwrap()
}

fn kinds(report: &Value) -> Vec<(&str, u64)> {
    let kinds = report["kinds"].as_array().unwrap();
    kinds.iter().map(|kind| (kind["value"].as_str().unwrap(), kind["events"].as_u64().unwrap())).collect()
}

#[track_caller]
fn field<'r>(kind: &'r Value, path: &str) -> &'r Value {
    let fields = kind["fields"].as_array().unwrap();
    fields.iter().find(|field| field["path"] == path).unwrap_or_else(|| panic!("{path} in {kind:#}"))
}

#[test]
fn a_topic_bronze_and_a_file_give_the_same_kinds() {
    let project = project("infer");
    let file = fixture("shop-events.jsonl");
    project.send_file(&file);
    let topic = report(&project, &[]);
    assert_eq!((kinds(&topic), &topic["events"], &topic["notes"]), (SHOP.to_vec(), &json!(407), &json!([])));
    // Each record of the generator has its event_id as key.
    assert_eq!(topic["keys"], json!({ "count": 407, "share": 1.0 }));
    // The same topic by its name, and without pipeline.toml.
    let address = project.broker.address();
    assert_eq!(report(&project, &[&project.topic]), topic);
    assert_eq!(report(&project, &[&project.topic, "--brokers", &address, "--config", "none.toml"]), topic);

    project.silverd(&["run", "--drain"]);
    let bronze = report(&project, &["--bronze"]);
    assert_eq!(kinds(&bronze), SHOP);
    assert_eq!(report(&project, &["--bronze", &project.topic])["kinds"], bronze["kinds"]);
    let of_file = report(&project, &["--file", &file]);
    assert_eq!(kinds(&of_file), SHOP);
    for report in [&topic, &bronze, &of_file] {
        let order = &report["kinds"][2];
        assert_eq!(field(order, "line_items[].price")["type"], "money");
        assert_eq!(field(order, "ts")["type"], "timestamp");
        assert_eq!(field(order, "event_id")["looks_like"], "an id (UUID)");
    }
    let newest = report(&project, &["--events", "10"]);
    assert_eq!(newest["events"], 10);
    let one_kind = report(&project, &["--by", "none"]);
    assert_eq!(one_kind["kinds"].as_array().unwrap().len(), 1);

    // Nothing was written, and another look sees the same.
    assert_eq!(report(&project, &[]), topic);
}

#[test]
fn each_form_of_output_names_the_kinds() {
    let project = project("infer-forms");
    let file = fixture("shop-events.jsonl");
    let of_form = |form: &[&str]| project.silverd(&[&["infer", "--file", &file], form].concat());
    let check = |form: &[&str], parts: &[&str]| {
        let output = of_form(form);
        for part in parts {
            assert!(output.contains(part), "{part} in\n{output}");
        }
    };
    let text = of_form(&[]);
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    check(
        &[],
        &[
            "407 events, 407 of them JSON objects\n",
            "[page_view] 286 events with event_type = \"page_view\" (70 %)\n",
            "  line_items[].price          money                 money\n",
        ],
    );
    check(
        &["--wit"],
        &[
            "/// 30 events with event_type = \"order_placed\".\ninterface order-placed {\n  use silverd:pipeline/types@0.2.0.{",
            "    line-items: list<input-line-items>,\n",
            "  record input-line-items {\n",
            "    price: money,\n",
        ],
    );
    check(
        &["--toml"],
        &[
            "[silver.order_placed]\nmatch = { field = \"event_type\", equals = \"order_placed\" }\nevent_time = \"ts\"\n",
            "[silver.order_placed.input]\n",
            "line_items = \"list<{ sku: string, qty: u32, price: money }>\"\n",
            "-- an id (UUID)\n",
            "\nFROM event\"\"\"",
        ],
    );
}

#[test]
fn standard_input_and_odd_lines_are_read() {
    let project = project("infer-stdin");
    let mut command = project.command(&["infer", "--file", "-", "--json"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let text = b"\xef\xbb\xbf{\"a\": 1}\r\n{\"a\": 2\n\n[1]\n\0\0\0\0\x01avro\n{\"a\": \"\xff\"}\n{\"a\": 3}";
    child.stdin.take().unwrap().write_all(text).unwrap();
    let output = child.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let reasons = report["not_objects"].as_array().unwrap();
    let reasons: Vec<_> = reasons
        .iter()
        .map(|found| (found["reason"].as_str().unwrap(), found["example"]["offset"].as_i64().unwrap()))
        .collect();
    let expected = [("empty", 3), ("not_utf8", 6), ("registry_frame", 5), ("broken_json", 2), ("array", 4)];
    assert_eq!(reasons, expected);
    assert_eq!((&report["events"], &report["objects"]), (&json!(7), &json!(2)));
}

#[test]
fn values_of_persons_are_masked_in_every_form() {
    let project = project("infer-masks");
    let event =
        |at: usize| json!({ "id": at, "email": format!("ann{at}@example.com"), "address": { "city": "Berlin" } });
    project.send_lines((0..20).map(|at| event(at).to_string()));
    for form in [&[][..], &["--json"], &["--wit"], &["--toml"]] {
        let output = project.silverd(&[&["infer"], form].concat());
        assert!(!output.contains("ann1") && !output.contains("Berlin"), "{output}");
        let shown = project.silverd(&[&["infer", "--show-values"], form].concat());
        let has_examples = !matches!(form, ["--wit"] | ["--toml"]);
        assert_eq!(shown.contains("Berlin"), has_examples, "{shown}");
    }
    assert!(project.silverd(&["infer"]).contains("a***@e***.com"));
}

#[test]
fn records_that_are_no_events_are_counted() {
    let project = project("infer-odd");
    project.broker.create_topic(&project.topic, 1);
    project.send_odd_events();
    let report = report(&project, &["--by", "none"]);
    assert_eq!((&report["events"], &report["objects"]), (&json!(9), &json!(4)));
    let headers = report["headers"].as_array().unwrap();
    let names: Vec<_> = headers.iter().map(|header| header["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["none", "trace"]);
    let reasons: Vec<_> = report["not_objects"].as_array().unwrap().iter().map(|found| &found["reason"]).collect();
    assert_eq!(reasons, ["no_value", "empty", "not_utf8", "broken_json"]);
}

#[test]
fn exit_codes_of_infer() {
    let project = project("infer-codes");
    project.broker.create_topic(&project.topic, 1);
    std::fs::write(project.folder.path().join("empty.jsonl"), "").unwrap();
    std::fs::write(project.folder.path().join("one.jsonl"), "{\"a\": 1}\n").unwrap();
    let check = |code: i32, args: &[&str], part: &str| {
        let error = project.silverd_fails(&[&["infer"], args].concat(), code);
        assert!(error.contains(part), "{part} in\n{error}");
    };
    check(1, &[], "has no events");
    check(1, &["no-such-topic"], "topic no-such-topic does not exist at ");
    check(1, &["--bronze"], "bronze is empty");
    check(1, &["--file", "empty.jsonl"], "empty.jsonl has no events");
    check(1, &["--brokers", "127.0.0.1:1", "t"], "no broker answers at 127.0.0.1:1");
    check(2, &["--file", "none.jsonl"], "--file none.jsonl: there is no such file");
    check(2, &["--file", "one.jsonl", "--by", "b"], "--by b: no event of one.jsonl has ");
    check(2, &["--file", "one.jsonl", "--json", "--toml"], "cannot be used with");
    check(2, &["--file", "one.jsonl", "--events", "0"], "invalid value '0'");
    check(2, &["--brokers", "localhost:9092"], "<TOPIC>");
    check(2, &["--config", "none.toml"], "read none.toml");
    project.replace_in_pipeline(&format!("topic = \"{}\"", project.topic), "topics = [\"a\", \"b\"]");
    check(2, &[], "pipeline.toml reads several topics (a, b): name one");
}

/// The matches and times that are proposed are valid in a pipeline.toml.
#[test]
fn proposed_sections_are_valid_but_for_their_sql() {
    let project = project("infer-toml");
    let toml = project.silverd(&["infer", "--file", &fixture("shop-events.jsonl"), "--toml"]);
    // A table that a plugin fills: the same section, without what only SQL has.
    let is_kept = |line: &&str| ["[silver.", "match", "event_time", "dedup"].iter().any(|key| line.starts_with(key));
    let sections: String = toml
        .lines()
        .filter(is_kept)
        .filter(|line| !line.ends_with(".input]"))
        .map(|line| format!("{line}\n{}", if line.starts_with('[') { "plugin = \"plugins/x\"\n" } else { "" }))
        .collect();
    let text = format!("{}\n{sections}", project.pipeline());
    let pipeline = config::check(&text, &|_| None);
    let pipeline = pipeline.unwrap_or_else(|errors| panic!("{}", errors.render("pipeline.toml", &text, false)));
    let tables: Vec<_> = pipeline.silver.iter().map(|table| table.name.to_string()).collect();
    assert_eq!(tables, SHOP.map(|(kind, _)| kind));
    assert!(pipeline.silver.iter().all(|table| table.dedup.is_some()));
}
