//! A Kafka-compatible broker inside the process: the mock cluster of librdkafka. It keeps 5 MB of each partition, and
//! nothing after the process ends.

use anyhow::Context;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::options::Broker;

/// The mock cluster keeps so much of each partition, and then removes the oldest records.
const PARTITION_BYTES_MAX: u64 = 5 << 20;

pub struct EmbeddedBroker {
    cluster: MockCluster<'static, DefaultProducerContext>,
    /// Unique, so that the lost log of an earlier process is not read as that of this one.
    cluster_id: String,
    partitions: i32,
}

impl EmbeddedBroker {
    pub fn start(topic: &str, partitions: i32) -> anyhow::Result<Self> {
        let cluster = MockCluster::new(1).context("start the embedded broker")?;
        cluster
            .create_topic(topic, partitions, 1)
            .with_context(|| format!("create topic {topic} on the embedded broker"))?;
        let cluster_id = format!("embedded-{}", uuid::Uuid::new_v4());
        Ok(Self { cluster, cluster_id, partitions })
    }

    pub fn bootstrap(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// How many bytes can be sent before they are read: half of what the partitions keep, in case the keys are unevenly
    /// distributed.
    pub fn ahead_bytes_max(&self) -> u64 {
        PARTITION_BYTES_MAX * self.partitions as u64 / 2
    }

    pub fn broker(&self) -> Broker {
        Broker { bootstrap: self.bootstrap(), cluster_id: Some(self.cluster_id.clone()) }
    }
}
