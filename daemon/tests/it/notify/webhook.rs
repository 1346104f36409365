//! Webhooks: bodies, headers, signatures, answers, certificates.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use silverd::notify::SendError;
use silverd_core::notify::{slack, teams};
use silverd_core::zone::Zone;

use super::super::harness::tls;
use super::super::harness::webhook::{Answer, WebhookReceiver};
use super::{SECRET, check_failed, check_refused, notification, send};

const SIGNING_KEY: &str = "hunter2-hunter2-hunter2";

#[test]
fn each_format_is_sent_by_post() {
    let folder = tempfile::tempdir().unwrap();
    let sent = notification("n-1", "no_orders");
    for (keys, expected) in [
        ("format = \"slack\"", slack::body(&sent, Zone::UTC)),
        ("format = \"teams\"", teams::body(&sent, Zone::UTC)),
        ("", silverd_core::notify::json::body(&sent, Zone::UTC)),
        (
            "template = '{\"text\": \"{alert}: {summary}\", \"n\": {values.orders}}'",
            json!({ "text": "no_orders: no orders for 15 minutes", "n": 0 }),
        ),
    ] {
        let receiver = WebhookReceiver::start();
        send(&format!("[notify.r]\nwebhook = \"{}\"\n{keys}", receiver.url()), folder.path()).unwrap();
        let requests = receiver.requests();
        let [request] = &requests[..] else { panic!("{requests:?}") };
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/hook/hunter2"));
        assert_eq!(request.header("content-type"), "application/json");
        assert_eq!(request.header("idempotency-key"), "n-1");
        assert!(request.header("user-agent").starts_with("silverd/"));
        assert_eq!(request.header("silverd-signature"), "");
        assert_eq!(request.json(), expected, "{keys}");
    }
}

#[test]
fn a_request_has_the_configured_headers_and_a_signature() {
    let (folder, receiver) = (tempfile::tempdir().unwrap(), WebhookReceiver::start());
    fs::write(folder.path().join("url"), format!("{}\n", receiver.url())).unwrap();
    let sections = format!(
        "[notify.r]\nwebhook_file = \"url\"\nsecret = \"{SIGNING_KEY}\"\n\
         headers = {{ Authorization = \"Bearer {SECRET}\", Content-Type = \"application/vnd.shop+json\" }}"
    );
    send(&sections, folder.path()).unwrap();
    let request = receiver.requests().remove(0);
    assert_eq!(request.header("authorization"), "Bearer hunter2");
    assert_eq!(request.header("content-type"), "application/vnd.shop+json");
    // What a receiver does to check it.
    let signature = request.header("silverd-signature").to_owned();
    let (time, code) = signature.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
    let signed = folder.path().join("signed");
    fs::write(&signed, format!("{time}.{}", request.body)).unwrap();
    let mut openssl = Command::new("openssl");
    let Ok(openssl) = openssl.args(["dgst", "-sha256", "-hmac", SIGNING_KEY]).arg(&signed).output() else {
        println!("without openssl, the signature is not compared");
        return;
    };
    let expected = String::from_utf8(openssl.stdout).unwrap();
    assert_eq!(expected.trim().rsplit(' ').next(), Some(code), "{expected}");
}

#[test]
fn the_answer_decides_what_follows() {
    let folder = tempfile::tempdir().unwrap();
    let other = WebhookReceiver::start();
    let body = "invalid_payload\u{1b}[31m for /hook/hunter2";
    let receiver = WebhookReceiver::with_answers([
        Answer::Full(400, "Content-Type", "text/plain".to_owned(), "invalid_payload\u{1b}[31m"),
        Answer::Full(302, "Location", other.url(), ""),
        Answer::Status(404),
        Answer::Full(429, "Retry-After", "7".to_owned(), "slow down"),
        Answer::Status(503),
        Answer::Reset,
        Answer::Hang,
        Answer::Full(500, "Content-Type", "text/plain".to_owned(), body),
    ]);
    let sections = format!("[notify.r]\nwebhook = \"{}\"\ntimeout = \"1s\"", receiver.url());
    let try_once = || send(&sections, folder.path());
    check_refused(try_once(), "the webhook answered 400 Bad Request: invalid_payload\\u{1b}[31m");
    // Somebody can correct the URL meanwhile.
    check_failed(try_once(), "the webhook answered 302 Found, a redirect");
    check_failed(try_once(), "the webhook answered 404 Not Found");
    let Err(SendError::Retry { reason, after }) = try_once() else { panic!("it is to be tried again") };
    assert_eq!(
        (reason.as_str(), after),
        ("the webhook answered 429 Too Many Requests: slow down", Some(Duration::from_secs(7)))
    );
    check_failed(try_once(), "503");
    check_failed(try_once(), "post to the webhook: ");
    check_failed(try_once(), "");
    check_failed(try_once(), "500");
    assert_eq!(try_once(), Ok(()));
    // A redirect is not followed: the notification stays with the host that is configured.
    assert_eq!((receiver.requests().len(), other.requests().len()), (9, 0));
}

#[test]
fn a_certificate_must_be_that_of_an_authority_that_is_trusted() {
    let (folder, receiver) = (tempfile::tempdir().unwrap(), WebhookReceiver::with_tls());
    let section = format!("[notify.r]\nwebhook = \"{}\"\n", receiver.url());
    check_failed(send(&section, folder.path()), "certificate");
    assert!(receiver.requests().is_empty());
    fs::copy(tls::authority(), folder.path().join("ca.pem")).unwrap();
    send(&format!("{section}tls_ca = \"ca.pem\""), folder.path()).unwrap();
    assert_eq!(receiver.requests().len(), 1);
    check_failed(send(&format!("{section}tls_ca = \"none.pem\""), folder.path()), "none.pem");
}
