//! Kills at random moments while an alert fires and is resolved.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

use super::receiver::Receiver;
use super::{ODD, listed, project, send_event};
use crate::harness::{Daemon, rounds, seed, until};

/// Each firing is notified, and its end; a repeat has the id and the content of the first.
#[test]
fn no_notification_is_lost_by_kills() {
    let receiver = Receiver::start();
    let at_once = ODD.replace("for = \"2s\"", "for = \"0s\"");
    let project = project("alert-kills", &format!("{at_once}{}", receiver.section("shop")));
    let mut random = StdRng::seed_from_u64(seed());
    let kills = rounds(&project, 10);
    for _ in 0..kills {
        let daemon = Daemon::start(&project);
        for _ in 0..2 {
            send_event(&project);
            std::thread::sleep(Duration::from_millis(random.random_range(0..1_500)));
        }
        daemon.kill();
    }
    // An odd number: it fires in the end.
    send_event(&project);
    let daemon = Daemon::start(&project);
    until("the last state is notified", || {
        let alert = listed(&project)["alerts"][0].clone();
        let last = receiver.received().last().map(|one| one.body.clone()).unwrap_or_default();
        alert["state"] == "firing" && alert["since_ms"] == last["since_ms"] && last["state"] == "firing"
    });
    daemon.stop();

    let mut by_id: BTreeMap<String, Value> = BTreeMap::new();
    let mut again = 0;
    for one in receiver.received() {
        assert_eq!(one.key, one.body["id"].as_str().unwrap());
        if let Some(first) = by_id.insert(one.key, one.body.clone()) {
            assert_eq!(first, one.body, "the same id with another content");
            again += 1;
        }
    }
    assert!(again <= kills, "{again} repeats for {kills} kills");
    // By the time since which it fired: its beginning and its end, but for the last one.
    let mut firings: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for body in by_id.values() {
        let state = body["state"].as_str().unwrap().to_owned();
        firings.entry(body["since_ms"].as_i64().unwrap()).or_default().push(state);
    }
    println!("{kills} kills, {} firings, {again} notifications twice", firings.len());
    let (_, last) = firings.pop_last().unwrap();
    assert_eq!(last, ["firing"]);
    for (since, mut states) in firings {
        states.sort();
        assert_eq!(states, ["firing", "resolved"], "since {since}");
    }
}
