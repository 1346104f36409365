//! The broker of a test: the real Kafka that `SILVERD_TEST_BROKERS` names, or an embedded broker in the test's process.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::{Offset, TopicPartitionList};
use silverd::source::EmbeddedBroker;

use super::{block_on, until};

/// Partitions of a topic.
pub const PARTITIONS: i32 = 4;

pub enum Broker {
    Kafka(String),
    Embedded(EmbeddedBroker),
}

impl Broker {
    pub fn with_topic(topic: &str) -> Self {
        match std::env::var("SILVERD_TEST_BROKERS") {
            Ok(brokers) => Broker::Kafka(brokers),
            Err(_) => {
                eprintln!("SILVERD_TEST_BROKERS is not set: the test uses the embedded broker");
                Broker::Embedded(EmbeddedBroker::start(topic, PARTITIONS).unwrap())
            }
        }
    }

    pub fn address(&self) -> String {
        match self {
            Broker::Kafka(brokers) => brokers.clone(),
            Broker::Embedded(broker) => broker.bootstrap(),
        }
    }

    pub fn is_kafka(&self) -> bool {
        matches!(self, Broker::Kafka(_))
    }

    /// Creates a topic of a real Kafka; the embedded broker has its topic.
    pub fn create_topic(&self, topic: &str, partitions: i32) {
        if !self.is_kafka() {
            return;
        }
        let topic = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let created = block_on(self.admin().create_topics([&topic], &AdminOptions::new())).unwrap();
        assert!(created.iter().all(Result::is_ok), "{created:?}");
    }

    /// Gives a topic of a real Kafka more partitions.
    pub fn grow_topic(&self, topic: &str, partitions: usize) {
        let grown = NewPartitions::new(topic, partitions);
        let grown = block_on(self.admin().create_partitions([&grown], &AdminOptions::new())).unwrap();
        assert!(grown.iter().all(Result::is_ok), "{grown:?}");
    }

    /// Deletes the records of a partition before an offset.
    pub fn delete_records(&self, topic: &str, partition: i32, before: i64) {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(topic, partition, Offset::Offset(before)).unwrap();
        block_on(self.admin().delete_records(&offsets, &AdminOptions::new())).unwrap();
    }

    /// Deletes all topics of a real Kafka, and waits until they no longer exist.
    pub fn delete_all_topics(&self) {
        let metadata = self.admin().inner().fetch_metadata(None, Duration::from_secs(10)).unwrap();
        for topic in metadata.topics().iter().filter(|topic| !topic.name().starts_with("__")) {
            self.delete_topic(topic.name());
        }
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", self.address()).create().unwrap()
    }

    /// Deletes a topic of a real Kafka, and waits until it no longer exists.
    pub fn delete_topic(&self, topic: &str) {
        let admin = self.admin();
        let deleted = block_on(admin.delete_topics(&[topic], &AdminOptions::new())).unwrap();
        assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
        // Kafka deletes in the background.
        until("the topic is deleted", || {
            let metadata = admin.inner().fetch_metadata(None, Duration::from_secs(10)).unwrap();
            metadata.topics().iter().all(|known| known.name() != topic)
        });
    }
}
