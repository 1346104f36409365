//! Topics with something in them.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use tokio_util::sync::CancellationToken;

use crate::generate::{GenerateArgs, Sender};

/// What a new topic is filled with.
#[derive(Clone)]
pub(super) struct Fill {
    pub brokers: String,
    /// The topic, if it is there already.
    pub topic: Option<String>,
    pub events: u64,
    pub partitions: i32,
    pub file: Option<PathBuf>,
    /// Every event is made so large.
    pub event_bytes: Option<usize>,
}

impl Fill {
    /// Makes a topic, and fills it.
    pub(super) async fn topic(&self, stop: &CancellationToken) -> anyhow::Result<Topic> {
        let ours = self.topic.is_none();
        let topic = self.topic.clone().unwrap_or_else(|| format!("silverd-bench-{}", uuid::Uuid::new_v4()));
        let sender = Sender::connect(&self.brokers, &topic, self.partitions, stop).await?;
        let args = GenerateArgs {
            eps: 0.0,
            count: Some(self.events),
            repeat: self.file.is_some(),
            file: self.file.clone(),
            seed: self.file.is_none().then_some(1),
            event_bytes: self.event_bytes,
            ..GenerateArgs::default()
        };
        let sent = sender.produce(args, || true, stop.clone()).await?;
        anyhow::ensure!(sent.sent == self.events, "told to stop");
        Ok(Topic { brokers: self.brokers.clone(), name: topic, ours })
    }
}

/// A topic with events.
pub(super) struct Topic {
    brokers: String,
    pub name: String,
    /// It was made here.
    ours: bool,
}

impl Topic {
    /// Takes it away again: what was measured needs its room no more.
    pub(super) async fn delete(self) -> anyhow::Result<()> {
        if !self.ours {
            return Ok(());
        }
        let admin: AdminClient<_> = ClientConfig::new().set("bootstrap.servers", &self.brokers).create()?;
        let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(10)));
        let deleted = admin.delete_topics(&[&self.name], &options).await;
        deleted.with_context(|| format!("delete topic {}", self.name))?;
        Ok(())
    }
}

/// Sends events as time goes by, each with the time of its sending as its `ts`, until it is told to stop.
pub(super) async fn pace(
    brokers: &str,
    topic: &str,
    eps: f64,
    stop: CancellationToken,
) -> anyhow::Result<tokio::task::JoinHandle<anyhow::Result<()>>> {
    let sender = Sender::connect(brokers, topic, 4, &stop).await?;
    let args = GenerateArgs { eps, skew: 0, dup_pct: 0.0, ..GenerateArgs::default() };
    Ok(tokio::spawn(async move { sender.produce(args, || true, stop).await.map(drop) }))
}
