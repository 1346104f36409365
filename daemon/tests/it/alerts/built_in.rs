//! The alerts that need no SQL.

use super::receiver::Receiver;
use super::{project, send_event};
use crate::harness::{Daemon, until, upgrade};
use crate::reload;

const BUILT_IN: &str = "[alerts]\nbuilt_in = true\nnotify = [\"shop\"]\nfor = \"0s\"\n";

#[test]
fn bronze_that_cannot_be_written_is_an_alert_also_over_a_restart() {
    let receiver = Receiver::start();
    let project = project("alert-bronze", &format!("{BUILT_IN}{}", receiver.section("shop")));
    let mut daemon = Daemon::start(&project);
    send_event(&project);
    daemon.until("the first event", |_| project.bronze_rows() == 1);
    let entry = upgrade(&project.path("bronze"));
    send_event(&project);
    let fired = receiver.wait_for("silverd.bronze_stuck", "firing");
    assert_eq!(fired.body["severity"], "critical");
    daemon.stop();
    // It fires on, and is not notified again.
    let daemon = Daemon::start(&project);
    until("the next silverd evaluates it", || {
        let list = project.silverd(&["alert", "list"]);
        list.contains("silverd runs") && list.contains("silverd.bronze_stuck")
    });
    std::fs::remove_file(entry).unwrap();
    let resolved = receiver.wait_for("silverd.bronze_stuck", "resolved");
    assert_eq!(resolved.body["since_ms"], fired.body["since_ms"]);
    let states = receiver.states();
    let of_bronze = states.iter().filter(|(alert, _)| alert == "silverd.bronze_stuck").count();
    assert_eq!(of_bronze, 2, "{states:?}");
    daemon.stop();
}

#[test]
fn a_plugin_that_is_rolled_back_is_an_alert() {
    let receiver = Receiver::start();
    let sections = format!("[commit]\ninterval = \"100ms\"\nrows_max = 300\n{BUILT_IN}{}", receiver.section("shop"));
    let project = reload::project("alert-rollback", &sections);
    let mut daemon = Daemon::start(&project);
    reload::send(&project, (0..400).map(|n| format!("a{n}")));
    daemon.until("the first rows", |_| reload::hits(&project) == 400);
    reload::install(&project, &reload::version("two traps-on-boom"));
    daemon.until_logged("the plugin was swapped", 1);
    reload::send(&project, (0..200).map(|n| format!("b{n}")));
    daemon.until("rows of the new version", |_| reload::hits(&project) == 600);
    reload::send(&project, (0..200).map(|n| format!("boom{n}")));
    let fired = receiver.wait_for("silverd.plugin_rejected.hits", "firing");
    assert!(fired.body["summary"].as_str().unwrap().contains("hits"), "{fired:?}");
    reload::install(&project, &reload::version("three"));
    daemon.until_logged("the plugin was swapped", 2);
    receiver.wait_for("silverd.plugin_rejected.hits", "resolved");
    daemon.stop();
}
