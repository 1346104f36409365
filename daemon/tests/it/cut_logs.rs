//! A log of Kafka that has lost its end, as after the election of a leader that lacked it.

use std::path::Path;
use std::time::Duration;

use rdkafka::producer::{BaseRecord, Producer};

use super::harness::{Broker, Daemon, OwnKafka, Project, verify};

/// Records that Bronze has, and how many of these the log keeps.
const STORED: i64 = 100;
const KEPT: i64 = 50;

/// A Kafka with a topic of one partition, and a silverd that has read all of it.
fn project(name: &str) -> Option<(OwnKafka, Project)> {
    if std::env::var_os("SILVERD_TEST_BROKERS").is_none() {
        eprintln!("needs a real Kafka, whose files it cuts");
        return None;
    }
    let kafka = OwnKafka::start();
    let broker = Broker::Kafka(kafka.address.clone());
    let project = Project::with_broker(broker, name.to_owned(), "[commit]\ninterval = \"50ms\"\n");
    project.broker.create_topic(name, 1);
    send(&project, "before", STORED);
    Some((kafka, project))
}

/// Sends records in batches of ten.
fn send(project: &Project, text: &str, count: i64) {
    let producer = project.producer();
    for number in 0..count {
        let value = format!("{{\"{text}\": {number}}}");
        producer.send(BaseRecord::<(), _>::to(&project.topic).payload(&value)).map_err(|(failure, _)| failure).unwrap();
        if number % 10 == 9 {
            producer.flush(Duration::from_secs(30)).unwrap();
        }
    }
}

/// Removes the batches from an offset on. Kafka must not run.
fn cut(kafka: &OwnKafka, topic: &str, from: i64) {
    let folder = kafka.data().join(format!("{topic}-0"));
    let segment = folder.join("00000000000000000000.log");
    let bytes = std::fs::read(&segment).unwrap();
    let mut at = 0;
    // A batch begins with its first offset, and the length of what follows.
    while let Some(header) = bytes.get(at..at + 12) {
        let (offset, length) = header.split_at(8);
        if i64::from_be_bytes(offset.try_into().unwrap()) >= from {
            break;
        }
        at += 12 + i32::from_be_bytes(length.try_into().unwrap()) as usize;
    }
    assert!(0 < at && at < bytes.len());
    std::fs::write(&segment, &bytes[..at]).unwrap();
    let remove = |path: &Path| std::fs::remove_file(path).unwrap();
    for file in std::fs::read_dir(&folder).unwrap() {
        let path = file.unwrap().path();
        let is_derived =
            ["index", "timeindex", "snapshot"].iter().any(|end| path.extension().is_some_and(|is| is == *end));
        if is_derived {
            remove(&path);
        }
    }
    // What says up to where the log was complete.
    for name in [".kafka_cleanshutdown", "recovery-point-offset-checkpoint", "replication-offset-checkpoint"] {
        let path = kafka.data().join(name);
        if path.exists() {
            remove(&path);
        }
    }
}

fn is_refused(daemon: &mut Daemon, reason: &str) {
    daemon.until("a refusal", |daemon| {
        let ready = daemon.get("/health/ready");
        ready.status == 503 && ready.body.contains(reason)
    });
    assert!(daemon.get("/metrics").body.contains("silverd_source_up 0"));
}

/// Bronze has more than the log, while silverd runs and at its next start.
#[test]
fn a_log_that_is_too_short_is_reported() {
    let Some((kafka, project)) = project("short") else { return };
    let mut daemon = Daemon::start_with_dashboard(&project);
    daemon.until("all records", |_| project.bronze_rows() == STORED as usize);
    kafka.stop();
    cut(&kafka, &project.topic, KEPT);
    kafka.start_again();
    is_refused(&mut daemon, "the log ends at 50");
    daemon.stop();
    let errors = project.silverd_fails(&["run", "--drain"], 1);
    assert!(errors.contains("the log ends at 50"), "{errors}");
    assert_eq!(project.bronze_rows(), STORED as usize);
    let (report, code) = verify(project.folder.path(), &[]);
    assert_eq!(code, Some(0), "{report:#}");
}

/// The log has grown again beyond what Bronze has, with other records at the offsets of those that it lost.
#[test]
fn a_log_that_was_written_again_is_reported() {
    let Some((kafka, project)) = project("again") else { return };
    let mut daemon = Daemon::start_with_dashboard(&project);
    daemon.until("all records", |_| project.bronze_rows() == STORED as usize);
    daemon.signal(libc::SIGSTOP);
    kafka.stop();
    cut(&kafka, &project.topic, KEPT);
    kafka.start_again();
    send(&project, "after", STORED);
    daemon.signal(libc::SIGCONT);
    is_refused(&mut daemon, "the end of the log was cut");
    daemon.stop();
    assert_eq!(project.bronze_rows(), STORED as usize);
}
