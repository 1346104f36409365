//! Alerts of the real binary: their states, notifications to a web server, edits, kills, and the built-in ones.

mod built_in;
mod kills;
mod receiver;

use serde_json::{Value, json};

use super::harness::{Daemon, Project, until, wait_for};
use receiver::Receiver;

/// An alert that fires while Bronze has an odd number of rows.
const ODD: &str = r#"
[alert.odd]
sql = "SELECT count(*) AS events FROM bronze"
when = "events % 2 = 1"
for = "2s"
every = "1s"
notify = ["shop"]
severity = "critical"
summary = "{events} events"
description = "Send another one."
"#;

/// A pipeline that writes Bronze alone.
fn project(name: &str, sections: &str) -> Project {
    Project::with_topic(name, &format!("[commit]\ninterval = \"50ms\"\n{sections}\n"))
}

fn send_event(project: &Project) {
    project.send_values(&[b"{}".to_vec()]);
}

/// An alert as the API shows it.
fn shown(daemon: &Daemon, name: &str) -> Option<Value> {
    let shown = daemon.json("/api/alerts");
    shown["alerts"].as_array().unwrap().iter().find(|alert| alert["name"] == name).cloned()
}

fn state(daemon: &Daemon, name: &str) -> String {
    shown(daemon, name).and_then(|alert| Some(alert["state"].as_str()?.to_owned())).unwrap_or_default()
}

fn listed(project: &Project) -> Value {
    serde_json::from_str(&project.silverd(&["alert", "list", "--json"])).unwrap()
}

#[test]
fn an_alert_is_pending_fires_and_is_resolved_and_people_are_notified_once() {
    let receiver = Receiver::start();
    let project = project("alert", &format!("{ODD}{}", receiver.section("shop")));
    assert_eq!(listed(&project)["running"], false);
    let mut daemon = Daemon::start_with_dashboard(&project);
    let is_evaluated = |alert: &Value| !alert["reason"].is_null() || !alert["evaluated_at_ms"].is_null();
    let first = wait_for("an evaluation", || shown(&daemon, "odd").filter(is_evaluated));
    assert_eq!((first["state"].as_str(), first["failures"].as_u64()), (Some("inactive"), Some(0)), "{first}");
    send_event(&project);
    let fired = receiver.wait_for("odd", "firing");
    assert_eq!(fired.key, fired.body["id"].as_str().unwrap());
    let of_body = |key: &str| fired.body[key].clone();
    assert_eq!(
        json!([of_body("severity"), of_body("summary"), of_body("description"), of_body("repeat"), of_body("values")]),
        json!(["critical", "1 events", "Send another one.", 0, {"events": 1}])
    );
    let alert = wait_for("it fires", || shown(&daemon, "odd").filter(|alert| !alert["notified_at_ms"].is_null()));
    assert_eq!((alert["state"].as_str(), &alert["since_ms"]), (Some("firing"), &fired.body["since_ms"]), "{alert}");
    let metrics = daemon.get("/metrics").body;
    assert!(metrics.contains("silverd_alert_state{alert=\"odd\",severity=\"critical\"} 2\n"), "{metrics}");
    until("the delivery is counted", || {
        let delivered = "silverd_alert_notifications_total{receiver=\"shop\",outcome=\"delivered\"} 1\n";
        daemon.get("/metrics").body.contains(delivered)
    });
    let list = project.silverd(&["alert", "list"]);
    assert!(list.contains("silverd runs and evaluates") && list.contains("odd: 1 events"), "{list}");

    send_event(&project);
    let resolved = receiver.wait_for("odd", "resolved");
    assert_eq!(resolved.body["since_ms"], fired.body["since_ms"]);
    assert_ne!(resolved.key, fired.key);
    until("it is resolved", || state(&daemon, "odd") == "resolved");
    let history = daemon.json("/api/alerts")["history"].clone();
    let states: Vec<_> = history.as_array().unwrap().iter().map(|entry| entry["to"].as_str().unwrap()).collect();
    assert_eq!(states, ["resolved", "firing", "pending"], "{history}");
    daemon.until_logged("the alert is resolved", 1);
    daemon.stop();
    assert_eq!(receiver.received().len(), 2, "{:?}", receiver.states());
    let list = listed(&project);
    assert_eq!((&list["running"], &list["alerts"][0]["state"]), (&json!(false), &json!("resolved")), "{list}");
}

#[test]
fn edits_are_applied_without_a_restart_of_anything_else() {
    let receiver = Receiver::start();
    let project = project("alert-edits", &receiver.section("shop"));
    let mut daemon = Daemon::start_with_dashboard(&project);
    send_event(&project);
    let at_once = ODD.replace("for = \"2s\"", "for = \"0s\"");
    let without = project.pipeline();
    project.append_to_pipeline(&at_once);
    daemon.until_logged("is applied: [alert]", 1);
    let first = receiver.wait_for("odd", "firing");
    // Another condition, which is not true.
    project.replace_in_pipeline("events % 2 = 1", "events > 100");
    assert_eq!(receiver.wait_for("odd", "resolved").body["since_ms"], first.body["since_ms"]);
    project.replace_in_pipeline("events > 100", "events < 100");
    until("it fires again", || receiver.states().len() == 3);
    // Without its section, it does not fire.
    project.write_pipeline(&without);
    until("its end", || receiver.states().len() == 4);
    let states: Vec<_> = receiver.states().into_iter().map(|(_, state)| state).collect();
    assert_eq!(states, ["firing", "resolved", "firing", "resolved"]);
    until("it is gone", || shown(&daemon, "odd").is_none());
    assert_eq!(daemon.count_logged("dashboard: http"), 1, "{}", daemon.log());
    // An edit with an error changes nothing.
    project.append_to_pipeline(&at_once.replace("FROM bronze", "FROM nothing"));
    daemon.until_logged("there is no table `nothing`", 1);
    daemon.stop();
}

#[test]
fn an_alert_can_be_tried_out() {
    let receiver = Receiver::start();
    let sections = format!("{}{}[notify.gone]\nwebhook = \"http://127.0.0.1:1/hook\"\n", ODD, receiver.section("shop"));
    let project = project("alert-test", &sections);
    let text = project.silverd(&["alert", "test", "odd"]);
    assert!(text.contains("the alert waits for its first row") && text.contains("shop: notified"), "{text}");
    send_event(&project);
    project.silverd(&["run", "--drain"]);
    let text = project.silverd(&["alert", "test", "odd"]);
    assert!(text.contains("events = 1\n") && text.contains("the alert would fire"), "{text}");
    let received = receiver.received();
    assert_eq!(received.iter().filter(|one| one.body["state"] == "test").count(), 2, "{received:?}");
    assert_ne!(received[0].key, received[1].key);
    assert_eq!(listed(&project)["alerts"][0]["state"], "inactive", "a test changes no state");

    project.replace_in_pipeline("notify = [\"shop\"]", "notify = [\"gone\", \"shop\"]");
    let error = project.silverd_fails(&["alert", "test", "odd"], 1);
    assert!(error.contains("the test notification did not reach gone"), "{error}");
    assert_eq!(receiver.received().len(), 3, "the others get it");
    let error = project.silverd_fails(&["alert", "test", "even"], 2);
    assert!(error.contains("there is no alert `even`; the alerts are odd"), "{error}");
    project.replace_in_pipeline("events % 2 = 1", "events");
    let error = project.silverd_fails(&["alert", "test", "odd"], 1);
    assert!(error.contains("expected a condition"), "{error}");
}

#[test]
fn check_finds_wrong_sql_and_unknown_receivers() {
    let project = project("alert-check", &format!("{ODD}{}", Receiver::start().section("shop")));
    project.silverd(&["check"]);
    let check = |from: &str, to: &str, expected: &str| {
        let before = project.pipeline();
        project.replace_in_pipeline(from, to);
        let error = project.silverd_fails(&["check"], 2);
        assert!(error.contains(expected), "{error}");
        project.write_pipeline(&before);
    };
    check("FROM bronze", "FROM bronse", "there is no table `bronse`");
    check("events % 2 = 1", "events % 2 =", "this condition");
    check("[\"shop\"]", "[\"shopp\"]", "did you mean `shop`?");
    check("{events} events", "{events events", "this `{` has no `}` after it");
}

/// Its state stays, and people learn of it.
#[test]
fn an_alert_that_cannot_be_evaluated_is_an_alert() {
    let receiver = Receiver::start();
    let at_once = ODD.replace("for = \"2s\"", "for = \"0s\"");
    let project = project("alert-fails", &format!("{at_once}{}", receiver.section("shop")));
    let mut daemon = Daemon::start_with_dashboard(&project);
    send_event(&project);
    receiver.wait_for("odd", "firing");
    project.replace_in_pipeline("events % 2 = 1", "nonsense = 1");
    let failing = receiver.wait_for("silverd.evaluation_failing", "firing");
    assert!(failing.body["summary"].as_str().unwrap().contains("nonsense"), "{failing:?}");
    let alert = shown(&daemon, "odd").unwrap();
    assert_eq!(alert["state"], "firing", "{alert}");
    assert!(alert["failures"].as_u64() >= Some(3) && alert["reason"].as_str().unwrap().contains("nonsense"), "{alert}");
    assert_eq!(daemon.count_logged("evaluate the alert: "), 1, "{}", daemon.log());
    project.replace_in_pipeline("nonsense = 1", "events % 2 = 1");
    receiver.wait_for("silverd.evaluation_failing", "resolved");
    daemon.until_logged("the alert is resolved", 1);
    assert_eq!(state(&daemon, "odd"), "firing");
    daemon.stop();
}

/// The newest rows are in memory for alerts, too.
#[test]
fn an_alert_reads_the_newest_rows_without_a_dashboard() {
    let receiver = Receiver::start();
    let sections = format!(
        "{}[silver.orders]\nmatch = \"everything\"\nevent_time = \"ts\"\ninput = {{ id = \"string\", ts = \"timestamp\" }}\n\
         sql = \"SELECT id, ts FROM event\"\n\
         [alert.order]\nsql = \"SELECT id FROM live.orders\"\nwhen = \"id LIKE 'big%'\"\nevery = \"1s\"\nnotify = [\"shop\"]\n",
        receiver.section("shop")
    );
    let project = project("alert-live", &sections);
    let daemon = Daemon::start(&project);
    let order = |id: &str| format!(r#"{{"id": "{id}", "ts": "2026-01-02T03:04:05Z"}}"#).into_bytes();
    project.send_values(&[order("small"), order("big\\u001b[1m order"), order("other")]);
    let fired = receiver.wait_for("order", "firing");
    assert_eq!(fired.body["values"]["id"].as_str().map(|id| id.starts_with("big")), Some(true), "{fired:?}");
    assert!(!fired.body["summary"].as_str().unwrap().contains('\u{1b}'), "{fired:?}");
    daemon.stop();
}

/// The other one goes on where the first was.
#[test]
fn of_two_silverd_on_one_folder_one_evaluates_the_alerts() {
    let receiver = Receiver::start();
    let always = ODD.replace("count(*) AS events FROM bronze", "1 AS events").replace("for = \"2s\"", "for = \"0s\"");
    let project = project("alert-two", &format!("{always}{}", receiver.section("shop")));
    let first = Daemon::start(&project);
    let fired = receiver.wait_for("odd", "firing");
    let mut second = Daemon::start_with_dashboard(&project);
    second.until_logged("another silverd with the same state folder evaluates the alerts", 1);
    assert_eq!(second.json("/api/alerts")["state"], "elsewhere");
    first.kill();
    second.until_logged("the alerts are evaluated from now on", 1);
    let alert = wait_for("an evaluation", || {
        shown(&second, "odd").filter(|alert| alert["evaluated_at_ms"].as_i64() > fired.body["at_ms"].as_i64())
    });
    assert_eq!((&alert["state"], &alert["since_ms"]), (&json!("firing"), &fired.body["since_ms"]), "{alert}");
    second.stop();
    assert_eq!(receiver.received().len(), 1, "{:?}", receiver.states());
}
