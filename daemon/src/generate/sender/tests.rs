//! Tests the sender against the mock broker of librdkafka.

use std::io::Write;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::*;

const TOPIC: &str = "events.raw";

/// A broker that runs until the test ends, and a sender that is connected to it.
async fn connected(shutdown: &CancellationToken) -> (MockCluster<'static, DefaultProducerContext>, Sender) {
    let cluster = MockCluster::new(1).expect("a mock broker");
    cluster.create_topic(TOPIC, 2, 1).expect("a topic");
    let sender = Sender::connect(&cluster.bootstrap_servers(), TOPIC, 2, shutdown).await.expect("the broker answers");
    (cluster, sender)
}

fn at_full_speed(count: u64) -> GenerateArgs {
    GenerateArgs { eps: 0.0, count: Some(count), dup_pct: 10.0, seed: Some(1), ..GenerateArgs::default() }
}

#[tokio::test]
async fn every_event_is_confirmed_and_counted() {
    let shutdown = CancellationToken::new();
    let (_broker, sender) = connected(&shutdown).await;
    let watcher = sender.clone();
    let report = sender.produce(at_full_speed(5_000), || true, shutdown).await.expect("all are accepted");
    assert_eq!(report.sent, 5_000);
    assert!((400..=500).contains(&report.duplicates), "{report:?}");
    assert!(report.bytes > 5_000 * 150, "{report:?}");
    assert_eq!(watcher.progress(), report);
}

#[tokio::test]
async fn a_closed_gate_stops_all_events() {
    let shutdown = CancellationToken::new();
    let (_broker, sender) = connected(&shutdown).await;
    let (calls, stop) = (AtomicU64::new(0), shutdown.clone());
    let gate = move || {
        if calls.fetch_add(1, Ordering::Relaxed) == 5 {
            stop.cancel();
        }
        false
    };
    let report = sender.produce(at_full_speed(1_000), gate, shutdown).await.expect("nothing can fail");
    assert_eq!(report, Report::default());
}

#[tokio::test]
async fn an_oversized_event_is_an_error_with_its_line() {
    let shutdown = CancellationToken::new();
    let (broker, sender) = connected(&shutdown).await;
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    writeln!(file, "{{}}\n\"{}\"", "x".repeat(2_000_000)).expect("write");
    let args = GenerateArgs { file: Some(file.path().to_owned()), ..at_full_speed(9) };
    let error = sender.produce(args, || true, shutdown).await.expect_err("too large");
    let message = format!("{error:#}")
        .replace(&broker.bootstrap_servers(), "BROKER")
        .replace(&file.path().display().to_string(), "FILE")
        // The first event may have arrived by then, or not yet.
        .replace("(1 arrived)", "(0 arrived)");
    insta::assert_snapshot!(message, @"send FILE:2: the broker at BROKER did not accept 1 of 2 events for topic events.raw (0 arrived): Message production error: MessageSizeTooLarge (Broker: Message size too large); the event is larger than message.max.bytes (1 MB by default): remove it, or split it");
}

#[tokio::test]
async fn a_shutdown_ends_the_wait_for_a_broker() {
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    let error = Sender::connect("127.0.0.1:1", TOPIC, 1, &shutdown).await.err().expect("there is no broker");
    assert_eq!(error.to_string(), "stopped while waiting for a broker at 127.0.0.1:1");
}
