//! Which partitions the poll loop reads, and whether its session must end for others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use silverd_core::offsets::LogPartition;
use tracing::{error, info, warn};

use super::{Assignment, PollLoop, SessionEnd};
use crate::source::consumer::subscribe;
use crate::source::problems::ProblemOf;
use crate::source::rebalance::AssignedPartition;
use crate::source::topics::{TopicChange, TopicError, request_topics};

const UNREADABLE_RETRY_INTERVAL: Duration = Duration::from_secs(60);
/// Between two looks at Kafka's topics: a new one is read within some seconds.
const TOPICS_INTERVAL: Duration = Duration::from_secs(2);

impl PollLoop<'_> {
    pub(super) fn add_partitions(&mut self, assigned: &[AssignedPartition]) -> anyhow::Result<()> {
        info!(partitions = %names_of(assigned.iter().map(|assigned| &assigned.log)), "partitions assigned");
        for AssignedPartition { log, committed, high, asked_at, start } in assigned {
            let (topic, partition) = (&log.topic, log.partition);
            // The end of a log that is not read says nothing of how complete the tables are.
            let asked_at = start.is_ok().then_some(*asked_at);
            self.options.high_watermarks.set(log.clone(), *high, asked_at);
            let start = match start {
                Ok(start) => *start,
                Err(unreadable) => {
                    let refusal = format!("partition {partition} of {topic} is not read: {unreadable}");
                    anyhow::ensure!(!self.options.drain, refusal);
                    error!("{refusal}");
                    self.options.problems.set(ProblemOf::Partition(log.clone()), refusal);
                    self.has_unreadable = true;
                    continue;
                }
            };
            self.options.problems.resolve(&ProblemOf::Partition(log.clone()));
            if committed.is_none() {
                self.options.high_watermarks.begin(log.clone(), start);
            }
            self.positions.insert(log.clone(), self.chunk.log(log), start, committed.is_none());
            self.end_offsets.assigned(log.clone());
            self.initial_ends.insert(log.clone(), *high);
        }
        for (assigned, lost) in assigned.iter().filter_map(|assigned| Some((assigned, assigned.lost_offsets()?))) {
            warn!(
                "partition {} of {}: Kafka has deleted the {lost} offsets before the first one; they are skipped \
                 (`on_data_loss = \"skip\"` under [source])",
                assigned.log.partition, assigned.log.topic
            );
        }
        Ok(())
    }

    /// Bronze commits the offsets before the beginning of each partition as covered, so that the next start, and another
    /// daemon, begin there as well.
    pub(super) fn begin(&mut self, beginnings: &[(LogPartition, i64)]) {
        for (log, beginning) in beginnings {
            let log = self.chunk.log(log);
            self.chunk.pass(log, 0, *beginning);
        }
        self.hand_over(false);
    }

    /// Hands the chunk over, because its part of a revoked partition ends. If another daemon has committed these
    /// records in the meantime, Bronze's fence rejects the chunk.
    pub(super) fn remove_partitions(&mut self, revoked: &[LogPartition]) {
        info!(partitions = %names_of(revoked), "partitions revoked");
        for log in revoked {
            self.positions.remove(log);
            self.end_offsets.revoked(log);
            self.options.problems.resolve(&ProblemOf::Partition(log.clone()));
            self.options.problems.resolve(&ProblemOf::Transaction(log.clone()));
        }
        self.hand_over(false);
    }

    /// Looks now and then whether there are other topics. A drain reads those that it began with.
    pub(super) fn check_topics(&mut self) -> anyhow::Result<Option<SessionEnd>> {
        if self.options.drain || self.topics_looked_at.elapsed() < TOPICS_INTERVAL {
            return Ok(None);
        }
        let found = request_topics(self.options, &self.admin);
        self.topics_looked_at = Instant::now();
        let found = match found {
            Ok(found) => found,
            // The watchdog looks after brokers that do not answer.
            Err(TopicError::BrokerUnreachable { .. } | TopicError::TopicRefused { .. }) => return Ok(None),
            Err(problem) => {
                warn!("{problem}");
                return Ok(Some(SessionEnd::Reassign));
            }
        };
        let context = self.consumer.context();
        let before = context.topics();
        match (before.change_to(&found), self.assignment) {
            (TopicChange::None, _) => Ok(None),
            (TopicChange::Added, Assignment::Group) => {
                let is_new = |name: &&Arc<str>| before.get(name).is_none();
                let new: Vec<_> = found.names().filter(is_new).map(|name| &**name).collect();
                if !new.is_empty() {
                    info!(topics = %new.join(", "), "there are new topics");
                    subscribe(self.consumer, &found)?;
                }
                context.set_topics(found);
                Ok(None)
            }
            (TopicChange::Added | TopicChange::Removed, _) => {
                info!("the topics have changed: their partitions are assigned again");
                Ok(Some(SessionEnd::Reassign))
            }
        }
    }

    /// Whether a topic is gone, or was created again, since it was assigned. False if Kafka does not answer.
    pub(super) fn has_other_topics(&self) -> bool {
        let before = self.consumer.context().topics();
        let found = request_topics(self.options, &self.admin);
        found.is_ok_and(|found| before.change_to(&found) == TopicChange::Removed)
    }

    /// Whether the session must end because partitions are missing.
    pub(super) fn check_assignment(&mut self) -> anyhow::Result<Option<SessionEnd>> {
        if self.has_unreadable && self.started.elapsed() > UNREADABLE_RETRY_INTERVAL {
            return Ok(Some(SessionEnd::Reassign));
        }
        match self.assignment {
            Assignment::All => Ok(None),
            Assignment::AllFor(time) => Ok((self.started.elapsed() > time).then_some(SessionEnd::JoinGroup)),
            Assignment::Group => {
                let assigned = !self.positions.is_empty() || self.has_unreadable;
                let context = self.consumer.context();
                let stuck = self.group_check.is_stuck(assigned, self.options, &self.admin, context)?;
                let end = if self.group_check.has_worked() {
                    SessionEnd::PartitionsLost
                } else {
                    SessionEnd::NothingAssigned
                };
                Ok(stuck.then_some(end))
            }
        }
    }
}

/// Partitions by topic, as far as a line of the log has room.
fn names_of<'l>(logs: impl IntoIterator<Item = &'l LogPartition>) -> String {
    const TOPICS_MAX: usize = 10;
    let mut topics = BTreeMap::<&str, Vec<i32>>::new();
    for log in logs {
        topics.entry(&log.topic).or_default().push(log.partition);
    }
    let of_topic = |(topic, partitions): (&&str, &Vec<i32>)| format!("{topic} {partitions:?}");
    let shown: Vec<_> = topics.iter().take(TOPICS_MAX).map(of_topic).collect();
    let more = topics.len().saturating_sub(TOPICS_MAX);
    let more = if more > 0 { format!(", and {more} topics more") } else { String::new() };
    shown.join(", ") + &more
}
