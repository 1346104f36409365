//! An author's session, with the commands that the README gives: a plugin is made, tested, tried, and fills a table.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Project, root, wait};
use crate::reload::{Daemon, Load};
use crate::truth;
use crate::verify::verify;

/// A project with a workspace of plugins of its own, as a clone of the repository has it.
fn project(name: &str) -> Project {
    let project = Project::new(name, "interval_ms = 100");
    let folder = project.folder.path();
    for part in ["plugins/sdk", "wit"] {
        copy(&root().join(part), &folder.join(part));
    }
    let manifest = std::fs::read_to_string(root().join("plugins/Cargo.toml")).unwrap();
    let own = |line: &str| match line.split_once(" = [") {
        Some((key @ ("members" | "default-members"), _)) => format!("{key} = [\"sdk\"]\n"),
        _ => format!("{line}\n"),
    };
    let manifest: String = manifest.lines().map(own).collect();
    std::fs::write(folder.join("plugins/Cargo.toml"), manifest).unwrap();
    std::fs::copy(root().join("plugins/Cargo.lock"), folder.join("plugins/Cargo.lock")).unwrap();
    // What it depends on is compiled once for all sessions.
    std::fs::create_dir_all(folder.join("plugins/.cargo")).unwrap();
    let target = root().join("plugins/target/sessions").join(name);
    std::fs::write(
        folder.join("plugins/.cargo/config.toml"),
        format!("[build]\ntarget-dir = \"{}\"\n", target.display()),
    )
    .unwrap();
    project
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to)
        } else {
            std::fs::copy(entry.path(), &to).map(drop).unwrap()
        }
    }
}

/// The first build compiles what the plugin depends on, and may take its time.
fn build_first(project: &Project) {
    let mut child = project.command(&["plugin", "inspect", "sign_up"]).stdout(Stdio::null()).spawn().unwrap();
    let status = wait(&mut child, Duration::from_secs(900));
    assert!(status.is_some_and(|status| status.success()), "the new plugin builds");
}

/// What a command that must fail has said.
#[track_caller]
fn failure(project: &Project, args: &[&str], code: i32) -> String {
    let Output { status, stdout, stderr } = project.output(args);
    let told = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert_eq!(status.code(), Some(code), "silverd {args:?}\n{told}");
    told
}

#[track_caller]
fn edit(project: &Project, file: &str, pairs: &[(&str, &str)]) {
    let path = project.folder.path().join(file);
    let mut text = std::fs::read_to_string(&path).unwrap();
    for (from, to) in pairs {
        assert!(text.contains(from), "{file} has {from}:\n{text}");
        text = text.replace(from, to);
    }
    std::fs::write(path, text).unwrap();
}

fn send(project: &Project, lines: &[&str]) {
    let file = project.folder.path().join("events.jsonl");
    std::fs::write(&file, lines.join("\n") + "\n").unwrap();
    project.generate(&["--file", file.to_str().unwrap()]);
}

const EVENTS: [&str; 3] = [
    r#"{"event_type": "sign_up", "event_id": "s1", "user_id": "ann", "ts": "2025-08-16T14:50:49Z", "plan": "pro"}"#,
    r#"{"event_type": "sign_up", "event_id": "s2", "ts": "2025-08-16T16:51:02+02:00"}"#,
    r#"{"event_type": "sign_up", "event_id": "s3", "ts": "yesterday"}"#,
];

#[test]
fn a_plugin_is_made_and_fills_a_table() {
    let project = project("author");
    let told = project.silverd(&["plugin", "new", "sign_up", "--add"]);
    assert!(told.contains("made     wit/silver/sign-up.wit"), "{told}");
    assert!(told.contains("changed  pipeline.toml: [silver.sign_up] is added"), "{told}");
    let again = failure(&project, &["plugin", "new", "sign_up"], 1);
    assert!(again.contains("plugins/sign_up/Cargo.toml is there already"), "{again}");

    build_first(&project);
    let told = project.silverd(&["plugin", "test", "plugins/sign_up"]);
    assert!(told.contains("ok     an event becomes a row") && told.contains("ok     a time is needed"), "{told}");
    assert!(told.contains("of limits.transform_ms_max") && told.contains("of limits.memory_bytes_max"), "{told}");
    let told = project.silverd(&["plugin", "inspect", "plugins/sign_up"]);
    assert!(told.contains("exports  silverd:pipeline/plugin@0.1.0, shop:silver/sign-up@0.1.0"), "{told}");
    assert!(
        told.contains("imports  wasi:logging/logging") && told.contains("which is made when the first rows come"),
        "{told}"
    );
    let untried = failure(&project, &["plugin", "try", "sign_up"], 1);
    assert!(untried.contains("bronze is empty"), "{untried}");

    send(&project, &EVENTS);
    project.silverd(&["run", "--drain"]);
    assert_eq!(truth::rows(&project.path("sign_up")).len(), 2);
    let told = project.silverd(&["plugin", "try", "plugins/sign_up", "--last", "20"]);
    assert!(told.contains("| s1 ") && told.contains("| malformed | ts: \"yesterday\""), "{told}");
    assert!(told.ends_with("3 events: 2 rows of 2 events, 0 dropped, 1 rejected. Nothing was written.\n"), "{told}");
    let last: Value =
        serde_json::from_str(&project.silverd(&["plugin", "try", "sign_up", "--last", "1", "--json"])).unwrap();
    assert_eq!(last["counts"]["events"], 1);
    assert_eq!(truth::rows(&project.path("sign_up")).len(), 2);

    a_failing_case_is_told(&project);
    the_table_grows(&project);
    a_row_that_does_not_fit_is_refused(&project);
}

/// The same beside a running daemon: the new section is taken up, the plugin is built and fills its table from Bronze's
/// beginning, and a change of it is compared and taken up, too.
#[test]
fn a_plugin_is_made_beside_a_running_daemon() {
    let project = project("live");
    project.generate(&["--count", "400", "--seed", "3"]);
    let mut daemon = Daemon::start(&project);
    daemon.until_within(Duration::from_secs(60), "rows", |_| project.path("page_view").join("_delta_log").is_dir());
    project.silverd(&["plugin", "new", "visits", "--event-type", "page_view", "--add"]);
    // The first build compiles what the plugin depends on.
    daemon.until_within(Duration::from_secs(900), "rows of the new table", |_| {
        let (old, new) = (project.path("page_view"), project.path("visits"));
        new.join("_delta_log").is_dir() && truth::rows(&new).len() == truth::rows(&old).len()
    });
    let told = std::fs::read_to_string(&daemon.log).unwrap();
    assert!(told.contains("and is applied: table visits added"), "{told}");

    edit(
        &project,
        "plugins/visits/src/lib.rs",
        &[("optional().map(str::to_owned)", "optional().map(str::to_uppercase)")],
    );
    let load = Load::start(&project, 100);
    let told = project.silverd(&["plugin", "dev", "plugins/visits", "--once"]);
    drop(load);
    for part in [
        "1 case failed",
        "against the version that fills the table: ",
        "`user_id` differs in ",
        "table visits is filled by version ",
    ] {
        assert!(told.contains(part), "{part} in\n{told}");
    }
    daemon.stop();
    let spans: Vec<Value> = serde_json::from_str(&project.silverd(&["plugin", "history", "visits", "--json"])).unwrap();
    assert_eq!(spans.len(), 2, "{spans:#?}");
    let (report, code) = verify(project.folder.path(), &[]);
    assert_eq!(code, Some(0), "{report:#}");
}

fn a_failing_case_is_told(project: &Project) {
    let cases = "plugins/sign_up/cases/first.json";
    edit(project, cases, &[("\"user_id\": \"ann\"", "\"user_id\": \"bob\"")]);
    let told = failure(project, &["plugin", "test", "plugins/sign_up"], 1);
    assert!(told.contains("`user_id` expected \"bob\"\n                   found    \"ann\""), "{told}");
    assert!(told.contains("1 of 2 cases failed"), "{told}");
    project.silverd(&["plugin", "test", "sign_up", "--update"]);
    let text = std::fs::read_to_string(project.folder.path().join(cases)).unwrap();
    assert!(text.contains("\"user_id\": \"ann\""), "{text}");
    project.silverd(&["plugin", "test", "sign_up"]);
    edit(project, cases, &[("\"rows\"", "\"row\"")]);
    let told = failure(project, &["plugin", "test", "sign_up"], 1);
    assert!(told.contains("first.json:5:7: unknown field `row`"), "{told}");
    edit(project, cases, &[("\"row\"", "\"rows\"")]);
}

fn the_table_grows(project: &Project) {
    let wit = "wit/silver/sign-up.wit";
    edit(
        project,
        wit,
        &[("    user-id: option<string>,", "    user-id: option<string>,\n    /// Plan.\n    plan: option<string>,")],
    );
    edit(
        project,
        "plugins/sign_up/src/lib.rs",
        &[
            ("    ts: Text<'a>,", "    ts: Text<'a>,\n    #[serde(borrow)]\n    plan: Text<'a>,"),
            (
                ".map(str::to_owned),",
                ".map(str::to_owned),\n            plan: input.plan.optional().map(str::to_owned),",
            ),
        ],
    );
    let told = project.silverd(&["plugin", "inspect", "sign_up"]);
    assert!(told.contains("with the first rows, field `plan`: added, string or null"), "{told}");
    send(project, &EVENTS);
    project.silverd(&["run", "--drain"]);
    let rows = truth::rows(&project.path("sign_up"));
    let plans: Vec<_> = rows.iter().filter(|row| row["event_id"] == "s1").map(|row| row["plan"].clone()).collect();
    assert_eq!(rows.len(), 4);
    assert!(plans.contains(&Value::Null) && plans.contains(&Value::from("pro")), "{plans:?}");

    let spans: Value = serde_json::from_str(&project.silverd(&["plugin", "history", "sign_up", "--json"])).unwrap();
    let [before, after] = &spans.as_array().unwrap()[..] else { panic!("two plugins: {spans}") };
    assert_ne!(before["digest"], after["digest"]);
    assert_eq!((&before["counts"]["rows"], &after["counts"]["rows"]), (&Value::from(2), &Value::from(2)));
    for (log, range) in after["ranges"].as_object().unwrap() {
        let start = before["ranges"].get(log).map_or(Value::from(0), |range| range[1].clone());
        assert_eq!(range[0], start, "{log}: no gap and no overlap");
    }
    let told = project.silverd(&["plugin", "history", "sign_up"]);
    for span in [before, after] {
        let digest = &span["digest"].as_str().unwrap()[..12];
        assert!(told.contains(&format!("plugin {digest}  shop:silver/sign-up@0.1.0\n")), "{told}");
    }
}

fn a_row_that_does_not_fit_is_refused(project: &Project) {
    edit(project, "wit/silver/sign-up.wit", &[("    event-id: string,", "    event-id: option<string>,")]);
    edit(
        project,
        "plugins/sign_up/src/lib.rs",
        &[("event_id: input.event_id.required(\"event_id\")?.to_owned()", "event_id: None")],
    );
    let told = failure(project, &["plugin", "inspect", "sign_up"], 1);
    assert!(told.contains("field `event_id`: the table has string, the plugin declares string or null;"), "{told}");
    let told = failure(project, &["check"], 2);
    assert!(told.contains("pipeline.toml:") && told.contains("field `event_id`: the table has string"), "{told}");
}

/// The shop's own plugins keep their cases.
#[test]
fn the_shops_cases_hold() {
    let project = Project::new("cases", "interval_ms = 100");
    let told = project.silverd(&["plugin", "test"]);
    for table in truth::SILVER {
        assert!(told.contains(&format!("{table}: shop:silver/")), "{told}");
    }
}

#[test]
fn what_a_new_plugin_needs_is_told() {
    let project = Project::new("needs", "interval_ms = 100");
    let told = failure(&project, &["plugin", "new", "sign_up"], 1);
    assert!(told.contains("needs silverd's workspace of plugins beside pipeline.toml"), "{told}");
    let told = failure(&project, &["plugin", "new", "Sign-Up"], 1);
    assert!(told.contains("`Sign-Up` cannot be the name of a table"), "{told}");
    let told = failure(&project, &["plugin", "test", "plugins/none"], 1);
    assert!(told.contains("there is no plugin plugins/none"), "{told}");
    let told = failure(&project, &["plugin", "history", "none"], 1);
    assert!(told.contains("pipeline.toml has no [silver.none]; its Silver tables are page_view"), "{told}");
}
