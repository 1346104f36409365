//! Where reading begins, and how a drain ends.

use std::process::Stdio;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::harness::{Daemon, Project, verify};

const TIMEOUT: Duration = Duration::from_secs(30);

fn project(name: &str) -> Project {
    let project = Project::with_sections(name, "[commit]\ninterval = \"50ms\"\n");
    project.replace_in_pipeline("[source]\n", "[source]\nstart = \"latest\"\n");
    project
}

fn send(project: &Project, partition: i32, count: usize) {
    send_by(&project.producer(), project, partition, count);
}

fn send_by(producer: &BaseProducer, project: &Project, partition: i32, count: usize) {
    for number in 0..count {
        let value = format!("{{\"number\": {number}}}");
        let record = BaseRecord::<(), _>::to(&project.topic).partition(partition).payload(&value);
        producer.send(record).map_err(|(failure, _)| failure).unwrap();
    }
    producer.flush(TIMEOUT).unwrap();
}

fn transactional_producer(project: &Project) -> BaseProducer {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", project.broker.address())
        .set("transactional.id", &project.topic)
        .set("transaction.timeout.ms", "600000")
        .create()
        .unwrap();
    producer.init_transactions(TIMEOUT).unwrap();
    producer
}

/// `start = "latest"` is decided at the first start, also for partitions that are empty then.
#[test]
fn the_beginning_is_decided_once() {
    let project = project("latest");
    if !project.broker.is_kafka() {
        eprintln!("needs a real Kafka: topics with partitions of their own");
        return;
    }
    project.broker.create_topic(&project.topic, 3);
    send(&project, 1, 5);
    project.silverd(&["run", "--drain"]);
    assert_eq!(project.bronze_rows(), 0, "what was there at the first start is left out");
    for partition in 0..3 {
        send(&project, partition, 10);
    }
    project.silverd(&["run", "--drain"]);
    assert_eq!(project.bronze_rows(), 30, "what came between two runs is read");
    project.silverd(&["verify"]);
}

/// A partition that the topic gets later is read from its first record, whether silverd runs or not.
#[test]
fn added_partitions_are_read_from_their_first_record() {
    let project = project("added");
    if !project.broker.is_kafka() {
        eprintln!("needs a real Kafka: topics with partitions of their own");
        return;
    }
    let kafka = "[source.kafka]\n\"topic.metadata.refresh.interval.ms\" = 500\n\"metadata.max.age.ms\" = 500\n";
    project.append_to_pipeline(kafka);
    project.broker.create_topic(&project.topic, 1);
    send(&project, 0, 5);
    let mut daemon = Daemon::start(&project);
    daemon.until_logged("partitions assigned", 1);
    daemon.until("the beginning in bronze", |_| {
        project.has_table("bronze") && {
            let log = project.path("bronze").join("_delta_log/00000000000000000001.json");
            log.exists()
        }
    });
    send(&project, 0, 5);
    project.broker.grow_topic(&project.topic, 3);
    send(&project, 1, 10);
    send(&project, 2, 10);
    daemon.until("all records of all partitions", |_| project.bronze_rows() == 25);
    daemon.stop();

    project.broker.grow_topic(&project.topic, 4);
    send(&project, 3, 7);
    project.silverd(&["run", "--drain"]);
    assert_eq!(project.bronze_rows(), 32);
    project.silverd(&["verify"]);
}

/// A topic with many partitions has no leaders yet just after it was created.
#[test]
fn a_new_topic_can_be_drained_at_once() {
    let project = Project::with_sections("new", "[commit]\ninterval = \"50ms\"\n");
    if !project.broker.is_kafka() {
        eprintln!("needs a real Kafka: topics with partitions of their own");
        return;
    }
    project.broker.create_topic(&project.topic, 300);
    project.silverd(&["run", "--drain"]);
    assert_eq!(project.bronze_rows(), 0);
}

/// A drain that cannot read the topic fails, whoever ends it first; one that has nothing to read does not.
#[test]
fn a_drain_without_a_topic_fails() {
    let project = Project::with_sections("nothing", "[commit]\ninterval = \"50ms\"\n");
    let address = project.broker.address();
    project.replace_in_pipeline(&address, "127.0.0.1:1");
    let started = Instant::now();
    let errors = project.silverd_fails(&["run", "--drain", "--for", "2s"], 1);
    assert!(errors.contains("before it had read the topic to its end"), "{errors}");
    assert!(started.elapsed() < Duration::from_secs(30));
    // Both wait for a minute, so they wait together.
    let unreachable = project.command(&["run", "--drain"]).stderr(Stdio::piped()).spawn().unwrap();
    let other = Project::with_sections("missing", "[commit]\ninterval = \"50ms\"\n");
    if other.broker.is_kafka() {
        let errors = other.silverd_fails(&["run", "--drain"], 1);
        assert!(errors.contains("does not exist"), "{errors}");
    }
    let unreachable = unreachable.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&unreachable.stderr);
    assert!(unreachable.status.code() == Some(1) && errors.contains("no broker answers at 127.0.0.1:1"), "{errors}");
    if project.broker.is_kafka() {
        project.replace_in_pipeline("127.0.0.1:1", &address);
        project.broker.create_topic(&project.topic, 1);
        project.silverd(&["run", "--drain"]);
        project.silverd(&["run", "--drain", "--for", "60s"]);
    }
}

/// Markers of transactions and aborted records count as read: also in Bronze's progress, so that Kafka may delete them.
#[test]
fn markers_of_transactions_count_as_read() {
    let project = Project::with_sections("transactions", "[commit]\ninterval = \"50ms\"\n");
    if !project.broker.is_kafka() {
        eprintln!("needs a real Kafka: the embedded broker has no transactions");
        return;
    }
    project.broker.create_topic(&project.topic, 2);
    let producer = transactional_producer(&project);
    for (count, is_committed) in [(10, true), (5, false)] {
        producer.begin_transaction().unwrap();
        send_by(&producer, &project, 0, count);
        match is_committed {
            true => producer.commit_transaction(TIMEOUT).unwrap(),
            false => producer.abort_transaction(TIMEOUT).unwrap(),
        }
    }
    let mut daemon = Daemon::start_with_dashboard(&project);
    daemon.until("the committed records", |_| project.bronze_rows() == 10);
    daemon.until("no lag", |daemon| {
        let status = daemon.json("/api/status");
        let partitions = status["partitions"].as_array().unwrap();
        status["lag"] == 0 && partitions.iter().any(|partition| partition["next"] == 17)
    });
    daemon.stop();
    project.silverd(&["run", "--drain"]);
    assert_eq!(project.bronze_rows(), 10);
    project.silverd(&["verify"]);
}

/// A drain ends behind the marker of the last transaction: Kafka may delete everything before the next one.
#[test]
fn a_drain_passes_the_marker_at_the_end() {
    let project = Project::with_sections("drained-marker", "[commit]\ninterval = \"50ms\"\n");
    if !project.broker.is_kafka() {
        eprintln!("needs a real Kafka: the embedded broker has no transactions");
        return;
    }
    project.broker.create_topic(&project.topic, 2);
    let producer = transactional_producer(&project);
    for round in 1..=2 {
        producer.begin_transaction().unwrap();
        send_by(&producer, &project, 0, 10);
        producer.commit_transaction(TIMEOUT).unwrap();
        project.silverd(&["run", "--drain"]);
        assert_eq!(project.bronze_rows(), 10 * round);
        // Ten records a round, and a marker.
        project.broker.delete_records(&project.topic, 0, 11 * round as i64);
        project.silverd(&["run", "--drain"]);
    }
    project.silverd(&["verify"]);
}

/// Kafka gives out nothing that comes after the begin of an open transaction, and says nothing about it.
#[test]
fn a_transaction_that_stays_open_is_reported() {
    let project = Project::with_sections("open-transaction", "[commit]\ninterval = \"50ms\"\n");
    if !project.broker.is_kafka() {
        eprintln!("needs a real Kafka: the embedded broker has no transactions");
        return;
    }
    project.broker.create_topic(&project.topic, 2);
    let producer = transactional_producer(&project);
    producer.begin_transaction().unwrap();
    send_by(&producer, &project, 0, 10);
    // These wait for the transaction's end; those of the other partition do not.
    send(&project, 0, 20);
    send(&project, 1, 5);
    let mut daemon = Daemon::start_with_dashboard(&project);
    daemon.until("the other partition", |_| project.bronze_rows() == 5);
    daemon.until_within(Duration::from_secs(180), "a refusal", |daemon| daemon.get("/health/ready").status == 503);
    let ready = daemon.get("/health/ready").body;
    assert!(ready.contains("a transaction has been open at offset 0") && ready.contains("the 30 offsets"), "{ready}");
    assert!(daemon.get("/metrics").body.contains("silverd_source_up 0"));
    assert_eq!(project.bronze_rows(), 5);
    producer.commit_transaction(TIMEOUT).unwrap();
    daemon.until("all records", |_| project.bronze_rows() == 35);
    daemon.until("readiness", |daemon| daemon.get("/health/ready").status == 200);
    daemon.stop();
    project.silverd(&["verify"]);
}

/// A consumer that gives out nothing although Kafka has more: silverd says so, and starts another one.
#[test]
fn a_consumer_that_stands_still_is_replaced() {
    let project = Project::with_sections("stalled", "[commit]\ninterval = \"50ms\"\n");
    if !project.broker.is_kafka() {
        eprintln!("needs a real Kafka, which waits with its answer as long as it is asked to");
        return;
    }
    // The broker answers a fetch once it has so many bytes, or after so long.
    project.append_to_pipeline("[source.kafka]\n\"fetch.min.bytes\" = 100000000\n\"fetch.wait.max.ms\" = 50000\n");
    project.broker.create_topic(&project.topic, 2);
    let mut daemon = Daemon::start_with_dashboard(&project);
    daemon.until_logged("partitions assigned", 1);
    send(&project, 0, 10);
    daemon.until("the lag", |daemon| daemon.json("/api/status")["lag"] == 10);
    daemon.until_logged("the consumer stands still", 1);
    let log = daemon.log();
    assert!(log.contains("partition 0: next offset 0, end 10") && log.contains("fetch state active"), "{log}");
    daemon.until_logged("\"reading\"", 2);
    daemon.until("a refusal", |daemon| {
        let ready = daemon.get("/health/ready");
        ready.status == 503 && ready.body.contains("the consumer stands still")
    });
    daemon.until("the metric", |daemon| daemon.get("/metrics").body.contains("silverd_source_up 0"));
}

/// A topic that is deleted while silverd runs: it is not ready until the topic exists again.
#[test]
fn a_deleted_topic_is_reported() {
    let project = Project::with_sections("deleted", "[commit]\ninterval = \"50ms\"\n");
    if !project.broker.is_kafka() {
        eprintln!("needs a real Kafka: the embedded broker keeps its topic");
        return;
    }
    project.broker.create_topic(&project.topic, 2);
    send(&project, 0, 10);
    let mut daemon = Daemon::start_with_dashboard(&project);
    daemon.until("the records", |_| project.bronze_rows() == 10);
    daemon.until("readiness", |daemon| daemon.get("/health/ready").status == 200);
    project.broker.delete_topic(&project.topic);
    daemon.until("a refusal", |daemon| daemon.get("/health/ready").status == 503);
    let ready = daemon.get("/health/ready").body;
    assert!(ready.contains(&project.topic) && ready.contains("does not exist"), "{ready}");
    assert_eq!(daemon.json("/api/status")["source_problems"].as_array().unwrap().len(), 1);
}

/// Two members of a group may not have one `group.instance.id`: the second one says so, and what to do.
#[test]
fn a_member_id_that_another_member_has_is_reported() {
    let project = Project::with_sections("instance-id", "[commit]\ninterval = \"50ms\"\n");
    if !project.broker.is_kafka() {
        eprintln!("needs a real Kafka: the embedded broker has no static members");
        return;
    }
    project.append_to_pipeline("[source.kafka]\n\"group.instance.id\" = \"one\"\n");
    project.broker.create_topic(&project.topic, 1);
    send(&project, 0, 10);
    let mut first = Daemon::start(&project);
    first.until("the first rows", |_| project.bronze_rows() == 10);
    let mut second = Daemon::start(&project);
    second.until_logged("another member of the consumer group has this `group.instance.id`", 1);
    assert_eq!(second.count_logged("group.protocol"), 0, "{}", second.log());
    // The first one goes on, and the second one takes over when it has left.
    send(&project, 0, 10);
    first.until("more rows", |_| project.bronze_rows() == 20);
    first.stop();
    send(&project, 0, 10);
    second.until_within(Duration::from_secs(120), "the second one takes over", |_| project.bronze_rows() == 30);
    second.stop();
    let (report, code) = verify(project.folder.path(), &[]);
    assert_eq!(code, Some(0), "{report:#}");
}
