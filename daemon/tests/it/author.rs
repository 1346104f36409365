//! A plugin author's session with the commands of the README: create, test, try, change, and deploy a plugin.

use std::process::Stdio;

use chrono::{DateTime, SecondsFormat};
use serde_json::{Value, json};

use crate::harness::{
    BUILD_TIMEOUT, Daemon, Generator, Project, SILVER, copy_folder, root, rows, verify, wait_for_exit,
};

const COMMIT: &str = "interval = \"100ms\"";

const EVENTS: [&str; 3] = [
    r#"{"event_type": "sign_up", "event_id": "s1", "user_id": "ann", "ts": "2025-08-16T14:50:49Z", "plan": "pro"}"#,
    r#"{"event_type": "sign_up", "event_id": "s2", "ts": "2025-08-16T16:51:02+02:00"}"#,
    r#"{"event_type": "sign_up", "event_id": "s3", "ts": "yesterday"}"#,
];

#[test]
fn new_plugin_passes_its_cases_and_fills_a_table() {
    let project = project("author");
    let output = project.silverd(&["plugin", "new", "sign_up", "--add"]);
    assert!(output.contains("created  wit/silver/sign-up.wit"), "{output}");
    assert!(output.contains("changed  pipeline.toml: [silver.sign_up] is added"), "{output}");
    let error = project.silverd_fails(&["plugin", "new", "sign_up"], 2);
    assert!(error.contains("plugins/sign_up/Cargo.toml already exists"), "{error}");

    build_first(&project);
    let output = project.silverd(&["plugin", "test", "plugins/sign_up"]);
    for case in ["ok     an event becomes a row", "ok     an event without a valid time is rejected"] {
        assert!(output.contains(case), "{case} in\n{output}");
    }
    for limit in ["of limits.transform_time_max", "of limits.memory_bytes_max"] {
        assert!(output.contains(limit), "{limit} in\n{output}");
    }
    let output = project.silverd(&["plugin", "inspect", "plugins/sign_up"]);
    for part in [
        "exports  silverd:pipeline/plugin@0.2.0, shop:silver/sign-up@0.1.0",
        "imports  wasi:logging/logging",
        "Table sign_up does not exist yet: the first rows create it in ",
    ] {
        assert!(output.contains(part), "{part} in\n{output}");
    }
    let error = project.silverd_fails(&["plugin", "try", "sign_up"], 1);
    assert!(error.contains("bronze is empty"), "{error}");

    send(&project);
    project.silverd(&["run", "--drain"]);
    assert_eq!(rows(&project.path("sign_up")).len(), 2);
    let output = project.silverd(&["plugin", "try", "plugins/sign_up", "--last", "20"]);
    assert!(output.contains("| s1 ") && output.contains("| malformed | ts: expected "), "{output}");
    let summary = "3 events: 2 rows of 2 events, 0 dropped, 1 rejected. Nothing was written.\n";
    assert!(output.ends_with(summary), "{output}");
    let output = project.silverd(&["plugin", "try", "sign_up", "--last", "1", "--json"]);
    let output: Value = serde_json::from_str(&output).unwrap();
    assert_eq!(output["counts"]["events"], 1);
    assert_eq!(rows(&project.path("sign_up")).len(), 2);

    failing_case_shows_expected_and_found(&project);
    table_grows_with_its_plugin(&project);
    deploy_serves_an_earlier_version_and_the_newest_build(&project);
    incompatible_row_is_refused(&project);
}

/// The plugin of real events builds as it is, and its rows have the fields of the events: with the time of the events, and
/// with that of Kafka where they have none.
#[test]
fn plugin_of_real_events_fills_a_table() {
    let project = project("from-events");
    let sign_up = |at: usize| {
        json!({ "event_type": "sign_up", "event_id": format!("s{at}"), "createdAt": "2025-08-16T14:50:49Z", "type": "x",
            "email": format!("ann{at}@example.com"), "plan": { "price": 9.99, "seats": [{ "role": "admin" }] } })
    };
    let visit = |at: usize| json!({ "event_type": "visit", "path": "/", "depth": at });
    project.send_lines((0..20).flat_map(|at| [sign_up(at).to_string(), visit(at).to_string()]));
    let events = project.folder.path().join("events.jsonl");
    let error = project.silverd_fails(&["plugin", "new", "refund", "--from-events", events.to_str().unwrap()], 2);
    assert!(error.contains("has no events of kind `refund`") && error.contains("sign_up, visit"), "{error}");

    // From the topic, and then from Bronze.
    let output = project.silverd(&["plugin", "new", "sign_up", "--from-events", "--add"]);
    assert!(output.contains("Next: silverd plugin test plugins/sign_up --update"), "{output}");
    let cases = std::fs::read_to_string(project.folder.path().join("plugins/sign_up/cases/first.json")).unwrap();
    assert!(cases.contains("a***@e***.com") && !cases.contains("ann"), "{cases}");
    build_first(&project);
    project.silverd(&["plugin", "test", "sign_up", "--update"]);
    project.silverd(&["plugin", "test", "sign_up"]);
    project.silverd(&["run", "--drain"]);
    let found = rows(&project.path("sign_up"));
    let first = found.iter().find(|row| row["event_id"] == "s7").unwrap();
    assert_eq!((found.len(), &first["email"], &first["type"]), (20, &json!("ann7@example.com"), &json!("x")));
    assert_eq!(first["plan"]["seats"], json!([{ "role": "admin" }]));

    project.silverd(&["plugin", "new", "visit", "--from-events", "--add"]);
    let pipeline = project.pipeline();
    assert!(pipeline.contains("event_time = \"kafka_time\""), "{pipeline}");
    project.silverd(&["plugin", "test", "visit", "--update"]);
    project.silverd(&["run", "--drain"]);
    assert_eq!(rows(&project.path("visit")).len(), 20);
}

/// A running daemon adds the table of the new section, builds the plugin, fills the table from the beginning of Bronze, and
/// swaps to the next build.
#[test]
fn running_daemon_takes_a_new_plugin_and_its_next_version() {
    let project = project("live");
    project.generate(&["--count", "400", "--seed", "3"]);
    let mut daemon = Daemon::start(&project);
    daemon.until("rows", |_| project.has_table("page_view"));
    project.silverd(&["plugin", "new", "visits", "--event-type", "page_view", "--add"]);
    daemon.until_within(BUILD_TIMEOUT, "rows of the new table", |_| {
        project.has_table("visits") && rows(&project.path("visits")).len() == rows(&project.path("page_view")).len()
    });
    daemon.until_logged("and is applied: table visits added", 1);

    edit(
        &project,
        "plugins/visits/src/lib.rs",
        &[("not_blank(input.user_id)", "not_blank(input.user_id).map(|id| id.to_uppercase())")],
    );
    // To test and to try a version is not to release it.
    let listed = || serde_json::from_str::<Value>(&project.silverd(&["plugin", "list", "--json"])).unwrap();
    let of_visits =
        |listed: &Value| listed.as_array().unwrap().iter().find(|row| row["table"] == "visits").unwrap().clone();
    let before = of_visits(&listed());
    assert_eq!(before["serving"], before["newest"]);
    let kept = || std::fs::read_dir(project.folder.path().join("data/.silverd/plugins")).unwrap().count();
    let kept_before = kept();
    let generator = Generator::start(&project, 100);
    project.silverd_fails(&["plugin", "test", "visits"], 1);
    let output = project.silverd(&["plugin", "dev", "plugins/visits", "--once"]);
    for part in ["FAILED", "compared with the current version: ", "`user_id` differs in "] {
        assert!(output.contains(part), "{part} in\n{output}");
    }
    // Nor is to check the pipeline, or to make rows again.
    project.silverd(&["check"]);
    let rebuild = project.output(&["rebuild", "visits", "--dry-run"]);
    let warning = String::from_utf8_lossy(&rebuild.stderr);
    assert!(rebuild.status.success() && warning.contains("there are newer sources"), "{warning}");
    assert_eq!((of_visits(&listed()), kept()), (before, kept_before));
    let error = project.silverd_fails(&["plugin", "dev", "plugins/visits", "--once", "--deploy"], 1);
    assert!(error.contains("not deployed: 1 case failed"), "{error}");
    // A daemon runs the cases, too, before it takes up what somebody built.
    let error = project.silverd_fails(&["plugin", "deploy", "visits"], 1);
    assert!(error.contains("is not deployed: 1 of its 2 cases failed; an event becomes a row: "), "{error}");
    daemon.until_logged("the new build was rejected: 1 of its 2 cases failed; an event becomes a row: ", 1);
    assert_eq!(daemon.count_logged("the plugin was swapped"), 0);

    project.silverd(&["plugin", "test", "visits", "--update"]);
    edit(&project, "plugins/visits/src/lib.rs", &[("to_uppercase", "to_ascii_uppercase")]);
    let output = project.silverd(&["plugin", "dev", "plugins/visits", "--once", "--deploy"]);
    assert!(output.contains("table visits is now served by version "), "{output}");
    daemon.until("rows of the new version", |_| project.plugin_history("visits").len() == 2);
    drop(generator);
    daemon.stop();
    assert_eq!(project.plugin_history("visits").len(), 2);
    let (report, code) = verify(project.folder.path(), &[]);
    assert_eq!(code, Some(0), "{report:#}");

    // A wrong type is one error with its place, and not what the SDK's macro says of it.
    edit(&project, "wit/silver/visits.wit", &[("row-events: list<u32>", "row-events: list<u23>")]);
    let error = project.silverd_fails(&["plugin", "test", "visits"], 1);
    assert!(error.contains("`u23` does not exist") && error.contains("wit/silver/visits.wit:"), "{error}");
    assert!(error.lines().count() < 20, "{error}");
}

#[test]
fn cases_of_the_demo_plugins_pass() {
    let project = Project::new("cases", COMMIT);
    let output = project.silverd(&["plugin", "test"]);
    for table in SILVER {
        assert!(output.contains(&format!("{table}: shop:silver/")), "{output}");
    }
}

#[test]
fn errors_say_what_a_plugin_command_needs() {
    let project = Project::new("needs", COMMIT);
    let error = project.silverd_fails(&["plugin", "new", "sign_up"], 1);
    assert!(error.contains("needs silverd's workspace of plugins in the folder of pipeline.toml"), "{error}");
    let check = |args: &[&str], part: &str| {
        let error = project.silverd_fails(args, 2);
        assert!(error.contains(part), "{part} in\n{error}");
    };
    check(&["plugin", "new", "Sign-Up"], "`Sign-Up` is not a valid table name");
    check(&["plugin", "test", "plugins/none"], "there is no plugin plugins/none");
    check(&["plugin", "history", "none"], "pipeline.toml has no [silver.none]; its Silver tables are page_view");
    check(
        &["plugin", "deploy", "page_view", "--digest", "xyz"],
        "--digest xyz: no version of table page_view has a digest",
    );
}

fn failing_case_shows_expected_and_found(project: &Project) {
    let cases = "plugins/sign_up/cases/first.json";
    edit(project, cases, &[("\"user_id\": \"ann\"", "\"user_id\": \"bob\"")]);
    let output = project.output(&["plugin", "test", "plugins/sign_up"]);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{stdout}{stderr}");
    assert!(stdout.contains("`user_id` expected \"bob\"\n                   found    \"ann\""), "{stdout}");
    assert!(stderr.contains("1 of 2 cases failed"), "{stderr}");
    project.silverd(&["plugin", "test", "sign_up", "--update"]);
    let text = std::fs::read_to_string(project.folder.path().join(cases)).unwrap();
    assert!(text.contains("\"user_id\": \"ann\""), "{text}");
    project.silverd(&["plugin", "test", "sign_up"]);
    edit(project, cases, &[("\"rows\"", "\"row\"")]);
    let error = project.silverd_fails(&["plugin", "test", "sign_up"], 1);
    assert!(error.contains("first.json:5:7: unknown field `row`"), "{error}");
    edit(project, cases, &[("\"row\"", "\"rows\"")]);
}

fn table_grows_with_its_plugin(project: &Project) {
    edit(
        project,
        "wit/silver/sign-up.wit",
        &[("    user-id: option<string>,", "    user-id: option<string>,\n    /// Plan.\n    plan: option<string>,")],
    );
    edit(
        project,
        "plugins/sign_up/src/lib.rs",
        &[("user_id: not_blank(input.user_id),", "user_id: not_blank(input.user_id),\n            plan: input.plan,")],
    );
    let output = project.silverd(&["plugin", "inspect", "sign_up"]);
    assert!(output.contains("the next rows change the table: field `plan`: added, string or null"), "{output}");
    send(project);
    project.silverd(&["run", "--drain"]);
    let rows = rows(&project.path("sign_up"));
    let plans: Vec<_> = rows.iter().filter(|row| row["event_id"] == "s1").map(|row| row["plan"].clone()).collect();
    assert_eq!(rows.len(), 4);
    assert!(plans.contains(&Value::Null) && plans.contains(&Value::from("pro")), "{plans:?}");

    let [before, after] = &project.plugin_history("sign_up")[..] else { panic!("expected two versions") };
    assert_ne!(before["digest"], after["digest"]);
    assert_eq!((&before["counts"]["rows"], &after["counts"]["rows"]), (&Value::from(2), &Value::from(2)));
    for (log, range) in after["ranges"].as_object().unwrap() {
        let start = before["ranges"].get(log).map_or(Value::from(0), |range| range[1].clone());
        assert_eq!(range[0], start, "{log}: no gap and no overlap");
    }
    let output = project.silverd(&["plugin", "history", "sign_up"]);
    for span in [before, after] {
        let given = &span["given"].as_str().unwrap()[..12];
        let line = format!("plugin {}+{given}  shop:silver/sign-up@0.1.0\n", short(span));
        assert!(output.contains(&line), "{line} in\n{output}");
    }
    // The first version lacks a column, which is null then.
    let time = DateTime::from_timestamp_millis(before["last_at_ms"].as_i64().unwrap()).unwrap();
    let time = time.to_rfc3339_opts(SecondsFormat::Millis, true);
    let output = project.silverd(&["rebuild", "sign_up", "--as-of", &time, "--dry-run"]);
    assert!(output.contains(&format!("plugin {}+", short(before))) && output.contains("field `plan`"), "{output}");
}

fn deploy_serves_an_earlier_version_and_the_newest_build(project: &Project) {
    let [first, newest] = &project.plugin_history("sign_up")[..] else { panic!("expected two versions") };
    let (first, newest) = (short(first), short(newest));
    let deploy = |args: &[&str]| project.silverd(&[&["plugin", "deploy", "sign_up"], args].concat());
    let output = deploy(&["--digest", &newest]);
    assert!(output.contains(&format!("the newest build, {newest}, is deployed")), "{output}");
    // The first version lacks a column of the table, which stays null then.
    let output = deploy(&["--digest", &first]);
    assert!(output.contains(&format!("version {first} is deployed")), "{output}");
    assert!(output.contains(&format!("`silverd rebuild sign_up --written-by {newest}`")), "{output}");
    let output = deploy(&[]);
    assert!(output.contains(&format!("the newest build, {newest}, is deployed")), "{output}");
}

fn incompatible_row_is_refused(project: &Project) {
    edit(
        project,
        "wit/silver/sign-up.wit",
        &[("gave the event.\n    event-id: string,", "gave the event.\n    event-id: option<string>,")],
    );
    edit(project, "plugins/sign_up/src/lib.rs", &[("event_id: trimmed(input.event_id)", "event_id: None")]);
    let error = project.silverd_fails(&["plugin", "inspect", "sign_up"], 1);
    assert!(error.contains("field `event_id`: the table has string, the plugin declares string or null;"), "{error}");
    let error = project.silverd_fails(&["check"], 2);
    assert!(error.contains("pipeline.toml:") && error.contains("field `event_id`: the table has string"), "{error}");
}

/// A project with its own workspace of plugins, like a clone of the repository.
fn project(name: &str) -> Project {
    let project = Project::new(name, COMMIT);
    let folder = project.folder.path();
    for part in ["plugins/sdk", "plugins/values", "wit"] {
        copy_folder(&root().join(part), &folder.join(part));
    }
    let manifest = std::fs::read_to_string(root().join("plugins/Cargo.toml")).unwrap();
    let own = |line: &str| match line.split_once(" = [") {
        Some((key @ ("members" | "default-members"), _)) => format!("{key} = [\"sdk\"]\n"),
        _ => format!("{line}\n"),
    };
    let manifest: String = manifest.lines().map(own).collect();
    std::fs::write(folder.join("plugins/Cargo.toml"), manifest).unwrap();
    std::fs::copy(root().join("plugins/Cargo.lock"), folder.join("plugins/Cargo.lock")).unwrap();
    // The target folder stays, so that the dependencies are compiled once and not at every run.
    std::fs::create_dir_all(folder.join("plugins/.cargo")).unwrap();
    let target = root().join("plugins/target/sessions").join(name);
    std::fs::write(
        folder.join("plugins/.cargo/config.toml"),
        format!("[build]\ntarget-dir = \"{}\"\n", target.display()),
    )
    .unwrap();
    project
}

/// Builds the new plugin, with the longer timeout for its dependencies.
fn build_first(project: &Project) {
    // A build sees nothing of silverd's environment but what it needs.
    const SECRETS: [&str; 2] = ["KAFKA_SECRET", "CARGO_REGISTRIES_OURS_TOKEN"];
    let assertion = |name: &str| format!("assert!(std::env::var_os(\"{name}\").is_none(), \"the build sees {name}\");");
    let script = format!("fn main() {{ {} }}", SECRETS.map(assertion).concat());
    std::fs::write(project.folder.path().join("plugins/sign_up/build.rs"), script).unwrap();
    let mut command = project.command(&["plugin", "inspect", "sign_up"]);
    let mut child = command.envs(SECRETS.map(|name| (name, "hunter2"))).stdout(Stdio::null()).spawn().unwrap();
    let status = wait_for_exit(&mut child, BUILD_TIMEOUT);
    assert!(status.is_some_and(|status| status.success()), "the new plugin builds");
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

fn send(project: &Project) {
    project.send_lines(EVENTS.map(str::to_owned));
}

/// The first characters of the digest of a span.
fn short(span: &Value) -> String {
    span["digest"].as_str().unwrap()[..12].to_owned()
}
