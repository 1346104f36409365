//! The outbox: tries that fail, slow receivers, restarts, edits, quiet hours.

use std::time::Duration;

use silverd::notify::{Notification, NotifiedState, Outbox, Severity};
use silverd::runtime::clock;

use super::super::harness::webhook::{Answer, WebhookReceiver};
use super::super::harness::{copy_folder, until};
use super::{Delivery, ids, names, notification, open, pipeline};

#[test]
fn a_try_that_fails_is_repeated_with_the_same_id() {
    let folder = tempfile::tempdir().unwrap();
    let answers = [Answer::Status(503), Answer::Full(429, "Retry-After", "2".to_owned(), "")];
    let receiver = WebhookReceiver::with_answers(answers);
    let delivery = Delivery::start(open(folder.path(), &format!("[notify.r]\nwebhook = \"{}\"", receiver.url())));
    delivery.outbox.add(&notification("n-1", "no_orders"), &names(&["r"])).unwrap();
    until("a try has failed", || delivery.status("r").failing.is_some());
    until("it is delivered", || delivery.status("r").delivered == 1);
    let status = delivery.status("r");
    assert_eq!((status.waiting, status.failed_tries, status.given_up, status.failing), (0, 2, 0, None));
    let requests = receiver.requests();
    assert_eq!(ids(&requests), ["n-1"; 3]);
    assert!(requests.iter().all(|request| request.body == requests[0].body));
    assert!(requests[2].at - requests[1].at >= Duration::from_secs(2), "the receiver asked for two seconds");
    delivery.end();
}

#[test]
fn one_that_is_refused_is_given_up_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = WebhookReceiver::with_answers([Answer::Full(400, "A", "b".to_owned(), "no_such_channel")]);
    let delivery = Delivery::start(open(folder.path(), &format!("[notify.r]\nwebhook = \"{}\"", receiver.url())));
    delivery.outbox.add(&notification("n-1", "no_orders"), &names(&["r"])).unwrap();
    until("it is given up", || delivery.status("r").given_up == 1);
    let failing = delivery.status("r").failing.unwrap();
    assert!(failing.error.ends_with("no_such_channel") && failing.next_try_ms.is_none(), "{failing:?}");
    delivery.outbox.add(&notification("n-2", "no_orders"), &names(&["r"])).unwrap();
    until("the next one is delivered", || delivery.status("r").delivered == 1);
    assert_eq!((delivery.status("r").waiting, delivery.status("r").failing), (0, None));
    assert_eq!(ids(&receiver.requests()), ["n-1", "n-2"]);
    delivery.end();
}

#[test]
fn a_receiver_that_hangs_delays_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let slow = WebhookReceiver::with_answers([Answer::Hang]);
    let other = WebhookReceiver::start();
    let sections =
        format!("[notify.slow]\nwebhook = \"{}\"\n[notify.other]\nwebhook = \"{}\"", slow.url(), other.url());
    let delivery = Delivery::start(open(folder.path(), &sections));
    for id in ["n-1", "n-2"] {
        delivery.outbox.add(&notification(id, "no_orders"), &names(&["slow", "other"])).unwrap();
    }
    until("the slow one has the request", || slow.requests().len() == 1);
    until("the other one has both", || delivery.status("other").delivered == 2);
    assert_eq!((delivery.status("slow").delivered, delivery.status("slow").waiting), (0, 2));
    slow.release();
    until("the slow one has both", || delivery.status("slow").delivered == 2);
    assert_eq!(ids(&slow.requests()), ["n-1", "n-2"]);
    delivery.end();
}

#[test]
fn what_is_not_delivered_is_delivered_by_the_next_process() {
    let folder = tempfile::tempdir().unwrap();
    // Nobody listens there.
    let closed = "[notify.r]\nwebhook = \"http://127.0.0.1:1/hunter2\"";
    let delivery = Delivery::start(open(folder.path(), closed));
    for id in ["n-1", "n-2", "n-1"] {
        delivery.outbox.add(&notification(id, "no_orders"), &names(&["r"])).unwrap();
    }
    until("a try has failed", || delivery.status("r").failed_tries > 0);
    assert_eq!(delivery.status("r").waiting, 2);
    delivery.end();

    let receiver = WebhookReceiver::start();
    let sections = format!("[notify.r]\nwebhook = \"{}\"", receiver.url());
    let before = folder.path().join("before");
    copy_folder(&folder.path().join("outbox"), &before);
    let delivery = Delivery::start(open(folder.path(), &sections));
    // A kill before the alert's state was written lets the engine add it once more.
    delivery.outbox.add(&notification("n-2", "no_orders"), &names(&["r"])).unwrap();
    until("both are delivered", || delivery.status("r").delivered == 2);
    delivery.outbox.add(&notification("n-1", "no_orders"), &names(&["r"])).unwrap();
    delivery.end();
    assert_eq!(ids(&receiver.requests()), ["n-1", "n-2"]);

    // One that was delivered is known after a restart, too.
    let outbox = open(folder.path(), &sections);
    outbox.add(&notification("n-1", "no_orders"), &names(&["r"])).unwrap();
    assert_eq!(outbox.status()[0].waiting, 0);

    // A kill between sending and recording: the disk is as before, and the repeat has the same ids.
    let outbox = Outbox::open(&before, &pipeline(&sections), folder.path()).unwrap();
    let delivery = Delivery::start(outbox);
    until("both are delivered again", || delivery.status("r").delivered == 2);
    delivery.end();
    assert_eq!(ids(&receiver.requests()), ["n-1", "n-2", "n-1", "n-2"]);
}

#[test]
fn what_waits_for_a_receiver_that_was_removed_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = WebhookReceiver::start();
    let outbox = open(folder.path(), "[notify.r]\nwebhook = \"http://127.0.0.1:1/hunter2\"");
    outbox.add(&notification("n-1", "no_orders"), &names(&["r"])).unwrap();
    let delivery = Delivery::start(outbox);
    delivery.outbox.apply_config(&pipeline(""), folder.path());
    until("a try has failed", || {
        delivery.status("r").failing.is_some_and(|failing| failing.error.contains("[notify.r]"))
    });
    assert_eq!((delivery.status("r").kind, delivery.status("r").waiting), ("removed", 1));
    // It is there again, with another URL: the next try comes at once.
    delivery.outbox.apply_config(&pipeline(&format!("[notify.r]\nwebhook = \"{}\"", receiver.url())), folder.path());
    until("it is delivered", || delivery.status("r").delivered == 1);
    delivery.end();
}

/// Quiet hours that are quiet now, and for an hour or more.
fn quiet_now() -> String {
    let hour = clock::now_ms() / 3_600_000;
    format!("quiet_hours = \"{:02}:00-{:02}:00\"", hour % 24, (hour + 2) % 24)
}

#[test]
fn quiet_hours_hold_back_what_is_not_critical() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = WebhookReceiver::start();
    let section = format!("[notify.r]\nwebhook = \"{}\"\n", receiver.url());
    let delivery = Delivery::start(open(folder.path(), &format!("{section}{}", quiet_now())));
    let now_ms = clock::now_ms();
    let made_now = |id: &str, alert: &str| Notification { at_ms: now_ms, ..notification(id, alert) };
    let resolved = Notification { state: NotifiedState::Resolved, ..made_now("n-2", "no_orders") };
    let critical = Notification { severity: Severity::Critical, ..made_now("n-3", "disk_full") };
    for notification in [made_now("n-1", "no_orders"), resolved, made_now("n-4", "lag"), critical] {
        delivery.outbox.add(&notification, &names(&["r"])).unwrap();
    }
    until("the critical one is delivered", || delivery.status("r").delivered == 1);
    until("the first one is superseded", || delivery.status("r").waiting == 2);
    assert!(delivery.status("r").quiet_until_ms.is_some_and(|until_ms| until_ms > now_ms));
    assert_eq!(ids(&receiver.requests()), ["n-3"]);
    // The hours end: of what they held, the newest of each alert is sent.
    delivery.outbox.apply_config(&pipeline(&section), folder.path());
    until("the rest is delivered", || delivery.status("r").delivered == 3);
    assert_eq!(ids(&receiver.requests()), ["n-3", "n-2", "n-4"]);
    assert_eq!(delivery.status("r").quiet_until_ms, None);
    delivery.end();
}
