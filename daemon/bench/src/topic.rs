//! Topics to measure with: filled before a drain, or while silverd runs.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use silverd::generate::{GenerateArgs, Sender};
use tokio_util::sync::CancellationToken;

const DELETE_TIMEOUT: Duration = Duration::from_secs(10);
/// Partitions of a topic that is created by [`send_at_rate`].
const PARTITIONS: i32 = 4;

/// A topic to create, and what it is filled with.
#[derive(Clone)]
pub(crate) struct TopicSpec {
    pub(crate) brokers: String,
    /// `None`: a new name, and the topic is deleted after use.
    pub(crate) name: Option<String>,
    pub(crate) events: u64,
    pub(crate) partitions: i32,
    pub(crate) file: Option<PathBuf>,
    /// The size of every event; `None`: as generated.
    pub(crate) event_bytes: Option<usize>,
}

/// A topic with events.
pub(crate) struct Topic {
    pub(crate) name: String,
    brokers: String,
    delete_after_use: bool,
}

impl TopicSpec {
    /// Creates the topic, and fills it.
    pub(crate) async fn create(&self, stop: &CancellationToken) -> anyhow::Result<Topic> {
        let name = self.name.clone().unwrap_or_else(|| format!("silverd-bench-{}", uuid::Uuid::new_v4()));
        let sender = Sender::connect(&self.brokers, &name, self.partitions, stop).await?;
        let args = GenerateArgs {
            eps: 0.0,
            count: Some(self.events),
            repeat: self.file.is_some(),
            file: self.file.clone(),
            seed: self.file.is_none().then_some(1),
            event_bytes: self.event_bytes,
            ..GenerateArgs::default()
        };
        let report = sender.produce(args, || true, stop.clone()).await?;
        ensure!(report.sent == self.events, "stopped before topic {name} was filled");
        Ok(Topic { name, brokers: self.brokers.clone(), delete_after_use: self.name.is_none() })
    }
}

impl Topic {
    /// Deletes the topic, if it was created for one measurement.
    pub(crate) async fn delete(self) -> anyhow::Result<()> {
        if !self.delete_after_use {
            return Ok(());
        }
        delete(&self.brokers, &self.name).await
    }
}

/// Deletes a topic.
pub(crate) async fn delete(brokers: &str, topic: &str) -> anyhow::Result<()> {
    let admin: AdminClient<_> = ClientConfig::new().set("bootstrap.servers", brokers).create()?;
    let options = AdminOptions::new().request_timeout(Some(DELETE_TIMEOUT));
    admin.delete_topics(&[topic], &options).await.with_context(|| format!("delete topic {topic}"))?;
    Ok(())
}

/// Sends events at a constant rate until `stop`, each with the time of sending as its `ts`.
pub(crate) async fn send_at_rate(
    brokers: &str,
    topic: &str,
    events_per_second: f64,
    stop: CancellationToken,
) -> anyhow::Result<tokio::task::JoinHandle<anyhow::Result<()>>> {
    let sender = Sender::connect(brokers, topic, PARTITIONS, &stop).await?;
    let args = GenerateArgs { eps: events_per_second, skew: 0, dup_pct: 0.0, ..GenerateArgs::default() };
    Ok(tokio::spawn(async move { sender.produce(args, || true, stop).await.map(drop) }))
}
