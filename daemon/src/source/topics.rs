//! Which topics there are: those that pipeline.toml names, or that match its pattern.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Context;
use parking_lot::Mutex;
use rdkafka::ClientConfig;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;
use silverd_core::chunk::ChunkBuilder;
use silverd_core::config;
use silverd_core::offsets::LogPartition;
use tracing::warn;

use super::client::{
    ANSWER_TIMEOUT, AdminConsumer, DRAIN_TIMEOUT, LogLimit, METADATA_TIMEOUT, MetadataContext, POLL_TIMEOUT,
    REQUEST_TIMEOUT, SET_UP_CONSUMER,
};
use super::kafka_error::{Remedy, remedy};
use super::options::SourceOptions;
use super::problems::ProblemOf;
use super::topic_ids::topic_ids;

/// The topics that a source reads, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Topics(BTreeMap<Arc<str>, Topic>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Topic {
    pub(super) partitions: i32,
    /// Another one than before: the topic was deleted and created again.
    pub(super) id: Option<Arc<str>>,
}

/// How topics differ from what they were.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TopicChange {
    None,
    /// There are more of them, or one has more partitions.
    Added,
    /// One is gone, or was created again.
    Removed,
}

impl Topics {
    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.keys()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Topic> {
        self.0.get(name)
    }

    /// Every partition of every topic.
    pub(super) fn logs(&self, cluster: &Arc<str>) -> Vec<LogPartition> {
        let of = |(name, topic): (&Arc<str>, &Topic)| {
            let log = |partition| LogPartition::new(cluster.clone(), name.clone(), partition);
            (0..topic.partitions).map(log).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(of).collect()
    }

    pub(super) fn partitions(&self) -> usize {
        self.0.values().map(|topic| topic.partitions as usize).sum()
    }

    pub(super) fn change_to(&self, new: &Self) -> TopicChange {
        let is_same = |(name, old): (&Arc<str>, &Topic)| {
            // An id may be unknown for a moment.
            let same_id = |new: &Topic| old.id.is_none() || new.id.is_none() || old.id == new.id;
            new.get(name).is_some_and(|new| same_id(new) && new.partitions >= old.partitions)
        };
        match self.0.iter().all(is_same) {
            false => TopicChange::Removed,
            true if self.partitions() != new.partitions() => TopicChange::Added,
            true => TopicChange::None,
        }
    }
}

/// The topics that there were when the source first saw Kafka: `start = "latest"` is for them alone. What comes later is
/// read from its first record.
#[derive(Default)]
pub(crate) struct FirstTopics(Mutex<Option<(config::Topics, BTreeSet<Arc<str>>)>>);

impl FirstTopics {
    pub(super) fn note(&self, selected: &config::Topics, found: &Topics) {
        let mut first = self.0.lock();
        if first.as_ref().is_none_or(|(of, _)| of != selected) {
            *first = Some((selected.clone(), found.names().cloned().collect()));
        }
    }

    pub(super) fn has(&self, topic: &str) -> bool {
        self.0.lock().as_ref().is_some_and(|(_, first)| first.contains(topic))
    }
}

pub(super) struct Found {
    pub(super) cluster_id: Arc<str>,
    pub(super) topics: Topics,
}

/// Waits until a broker responds and has a topic to read. `None`: the source was stopped.
pub(super) fn find_topics(
    options: &SourceOptions,
    client: &ClientConfig,
    stop: &AtomicBool,
) -> anyhow::Result<Option<(Found, AdminConsumer)>> {
    let connect =
        || -> anyhow::Result<AdminConsumer> { client.create_with_context(MetadataContext).context(SET_UP_CONSUMER) };
    let (mut consumer, mut answered) = (connect()?, Instant::now());
    let (mut problem_log, started) = (LogLimit::default(), Instant::now());
    while !stop.load(Relaxed) {
        if answered.elapsed() > ANSWER_TIMEOUT {
            (consumer, answered) = (connect()?, Instant::now());
        }
        // Runs the callbacks, among them those of SASL.
        let _ = consumer.poll(Duration::ZERO);
        let found = request_topics(options, &consumer).and_then(|topics| {
            let cluster_id = options.broker.cluster_id.clone();
            let cluster_id = cluster_id.or_else(|| consumer.client().fetch_cluster_id(REQUEST_TIMEOUT));
            let missing = || TopicError::ClusterIdMissing { bootstrap: options.broker.bootstrap.clone() };
            Ok(Found { cluster_id: cluster_id.ok_or_else(missing)?.into(), topics })
        });
        match found {
            Ok(found) => {
                options.problems.resolve(&ProblemOf::Broker);
                options.first_topics.note(&options.config.topics, &found.topics);
                return Ok(Some((found, consumer)));
            }
            Err(problem) if options.drain && started.elapsed() > DRAIN_TIMEOUT => return Err(problem.into()),
            Err(problem) => {
                if !matches!(problem, TopicError::BrokerUnreachable { .. }) {
                    answered = Instant::now();
                }
                // What is created from now on is read from its first record.
                if matches!(problem, TopicError::TopicMissing { .. } | TopicError::NoneMatches { .. }) {
                    options.first_topics.note(&options.config.topics, &Topics::default());
                }
                options.problems.resolve(&ProblemOf::Consumer);
                options.problems.set(ProblemOf::Broker, problem.to_string());
                if problem_log.allows() {
                    warn!("{problem}; retrying");
                }
            }
        }
        std::thread::sleep(POLL_TIMEOUT);
    }
    Ok(None)
}

#[derive(Debug, thiserror::Error)]
pub(super) enum TopicError {
    #[error(
        "no broker answers at {bootstrap} ({error}): start Kafka, or correct `brokers` under [source] in pipeline.toml"
    )]
    BrokerUnreachable { bootstrap: String, error: KafkaError },
    #[error("the broker at {bootstrap} does not report its cluster id")]
    ClusterIdMissing { bootstrap: String },
    #[error(
        "topic {topic} does not exist at {bootstrap}. Create it with `kafka-topics.sh --bootstrap-server {bootstrap} \
         --create --topic {topic} --partitions 4`, or run `silverd generate`, which creates it"
    )]
    TopicMissing { topic: String, bootstrap: String },
    #[error("topic {topic} at {bootstrap} cannot be read: {error}; {hint}")]
    TopicRefused { topic: String, bootstrap: String, error: RDKafkaErrorCode, hint: &'static str },
    #[error(
        "no topic at {bootstrap} matches {pattern} (`topic_pattern` under [source] in pipeline.toml). A topic that is \
         created later is read, too"
    )]
    NoneMatches { pattern: String, bootstrap: String },
    #[error(
        "{count} topics are to be read, and silverd reads at most {} of them: make `topic_pattern` under [source] in \
         pipeline.toml match fewer",
        ChunkBuilder::TOPICS_MAX
    )]
    TooMany { count: usize },
}

/// The topics as they are now. At least one; a drain needs all that pipeline.toml names.
pub(super) fn request_topics(options: &SourceOptions, consumer: &AdminConsumer) -> Result<Topics, TopicError> {
    let bootstrap = || options.broker.bootstrap.clone();
    let request = |topic: Option<&str>| {
        let failed = |error| TopicError::BrokerUnreachable { bootstrap: bootstrap(), error };
        consumer.fetch_metadata(topic, METADATA_TIMEOUT).map_err(failed)
    };
    let mut found = BTreeMap::<Arc<str>, Topic>::new();
    let mut add = |topic: &MetadataTopic| {
        let partitions = topic.partitions().len() as i32;
        found.insert(topic.name().into(), Topic { partitions, id: None });
    };
    match &options.config.topics {
        config::Topics::Names(names) => {
            let all = request(if names.len() == 1 { names.first().map(String::as_str) } else { None })?;
            for name in names {
                let of_name = all.topics().iter().find(|topic| topic.name() == name);
                let problem = match of_name {
                    Some(topic) if is_there(topic) => {
                        add(topic);
                        options.problems.resolve(&ProblemOf::Topic(name.clone()));
                        continue;
                    }
                    Some(topic) => topic_problem(name, &bootstrap(), Some(topic)),
                    // The list of all topics leaves out what is refused.
                    None => topic_problem(name, &bootstrap(), request(Some(name))?.topics().first()),
                };
                if options.drain || names.len() == 1 {
                    return Err(problem);
                }
                options.problems.set(ProblemOf::Topic(name.clone()), problem.to_string());
            }
            if let (true, Some(first)) = (found.is_empty(), names.first()) {
                return Err(TopicError::TopicMissing { topic: first.clone(), bootstrap: bootstrap() });
            }
        }
        config::Topics::Pattern(pattern) => {
            let all = request(None)?;
            all.topics().iter().filter(|topic| pattern.matches(topic.name()) && is_there(topic)).for_each(add);
            if found.is_empty() {
                let pattern = options.config.topics.to_string();
                return Err(TopicError::NoneMatches { pattern, bootstrap: bootstrap() });
            }
        }
    }
    if found.len() > ChunkBuilder::TOPICS_MAX {
        return Err(TopicError::TooMany { count: found.len() });
    }
    let names: Vec<&str> = found.keys().map(|name| &**name).collect();
    let ids = topic_ids(consumer, &names, METADATA_TIMEOUT);
    for (name, topic) in &mut found {
        topic.id = ids.get(&**name).map(|id| id.as_str().into());
    }
    Ok(Topics(found))
}

pub(super) fn is_there(topic: &MetadataTopic) -> bool {
    topic.error().is_none() && !topic.partitions().is_empty()
}

pub(super) fn topic_problem(name: &str, bootstrap: &str, found: Option<&MetadataTopic>) -> TopicError {
    let (topic, bootstrap) = (name.to_owned(), bootstrap.to_owned());
    let error = found.and_then(MetadataTopic::error).map(RDKafkaErrorCode::from);
    match error.and_then(|error| Some((error, remedy(error)?))) {
        Some((error, Remedy::User(hint))) => TopicError::TopicRefused { topic, bootstrap, error, hint },
        Some((error, Remedy::Wait)) => {
            TopicError::TopicRefused { topic, bootstrap, error, hint: "this passes without help" }
        }
        _ => TopicError::TopicMissing { topic, bootstrap },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(of: &[(&str, i32, &str)]) -> Topics {
        let topic = |(name, partitions, id): &(&str, i32, &str)| {
            let id = (!id.is_empty()).then(|| Arc::from(*id));
            (Arc::from(*name), Topic { partitions: *partitions, id })
        };
        Topics(of.iter().map(topic).collect())
    }

    #[test]
    fn topics_are_compared_by_name_partitions_and_id() {
        let old = topics(&[("a", 2, "x"), ("b", 1, "y")]);
        for (new, expected) in [
            (&[("a", 2, "x"), ("b", 1, "y")][..], TopicChange::None),
            (&[("a", 2, ""), ("b", 1, "y")], TopicChange::None),
            (&[("a", 3, "x"), ("b", 1, "y")], TopicChange::Added),
            (&[("a", 2, "x"), ("b", 1, "y"), ("c", 1, "z")], TopicChange::Added),
            (&[("a", 2, "x")], TopicChange::Removed),
            (&[("a", 2, "new"), ("b", 1, "y")], TopicChange::Removed),
            (&[("a", 1, "x"), ("b", 1, "y"), ("c", 9, "z")], TopicChange::Removed),
        ] {
            assert_eq!(old.change_to(&topics(new)), expected, "{new:?}");
        }
    }

    #[test]
    fn the_first_topics_are_those_of_the_first_look() {
        let (first, selected) = (FirstTopics::default(), config::Topics::one("a"));
        first.note(&selected, &topics(&[("a", 1, "")]));
        first.note(&selected, &topics(&[("a", 1, ""), ("b", 1, "")]));
        assert!(first.has("a") && !first.has("b"));
        first.note(&config::Topics::one("b"), &topics(&[("b", 1, "")]));
        assert!(first.has("b"));
    }
}
