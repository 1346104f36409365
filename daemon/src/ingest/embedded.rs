//! A Kafka-compatible broker inside of the process: librdkafka's mock cluster, which is linked anyway. It keeps 5 MB of
//! each partition and forgets everything at exit.

use anyhow::Context;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::Broker;

/// What the mock cluster keeps of one partition before it drops the oldest records.
const PARTITION_BYTES_MAX: u64 = 5 << 20;

pub struct EmbeddedBroker {
    cluster: MockCluster<'static, DefaultProducerContext>,
    /// A log that is lost with the process must not be taken for the next one's.
    id: String,
    partitions: i32,
}

impl EmbeddedBroker {
    pub fn start(topic: &str, partitions: i32) -> anyhow::Result<Self> {
        let cluster = MockCluster::new(1).context("start the embedded broker")?;
        cluster.create_topic(topic, partitions, 1).with_context(|| format!("create topic {topic} on it"))?;
        let id = format!("embedded-{}", uuid::Uuid::new_v4());
        Ok(Self { cluster, id, partitions })
    }

    pub fn bootstrap(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// How many bytes may be sent ahead of the reader: half of what the partitions keep, for keys spread unevenly.
    pub fn ahead_bytes_max(&self) -> u64 {
        PARTITION_BYTES_MAX * self.partitions as u64 / 2
    }

    pub fn broker(&self) -> Broker {
        Broker { bootstrap: self.bootstrap(), cluster_id: Some(self.id.clone()) }
    }
}
