//! The partitions that are read, and the next offset of each.

use std::collections::HashMap;
use std::sync::Arc;

use silverd_core::chunk::LogIndex;
use silverd_core::offsets::LogPartition;

#[derive(Default)]
pub(super) struct Positions {
    list: Vec<Position>,
    by_topic: HashMap<Arc<str>, HashMap<i32, usize>>,
    /// That of the last message: most messages are of the same partition as the one before.
    last: usize,
}

pub(super) struct Position {
    pub(super) log: LogPartition,
    /// The same in the chunk.
    pub(super) index: LogIndex,
    pub(super) next: i64,
    /// Bronze has nothing of the partition, and no record of it was read.
    pub(super) is_new: bool,
}

impl Positions {
    pub(super) fn insert(&mut self, log: LogPartition, index: LogIndex, next: i64, is_new: bool) {
        self.remove(&log);
        self.by_topic.entry(log.topic.clone()).or_default().insert(log.partition, self.list.len());
        self.list.push(Position { log, index, next, is_new });
    }

    pub(super) fn remove(&mut self, log: &LogPartition) {
        let Some(at) = self.by_topic.get_mut(&log.topic).and_then(|topic| topic.remove(&log.partition)) else { return };
        self.list.swap_remove(at);
        if let Some(moved) = self.list.get(at)
            && let Some(topic) = self.by_topic.get_mut(&moved.log.topic)
        {
            topic.insert(moved.log.partition, at);
        }
        self.last = 0;
    }

    /// The position of the partition that a message is of.
    pub(super) fn of_message(&mut self, topic: &str, partition: i32) -> Option<&mut Position> {
        let is_last = |last: &Position| last.log.partition == partition && *last.log.topic == *topic;
        if !self.list.get(self.last).is_some_and(is_last) {
            self.last = *self.by_topic.get(topic)?.get(&partition)?;
        }
        self.list.get_mut(self.last)
    }

    pub(super) fn of(&mut self, log: &LogPartition) -> Option<&mut Position> {
        self.of_message(&log.topic, log.partition)
    }

    pub(super) fn get(&self, log: &LogPartition) -> Option<&Position> {
        let at = *self.by_topic.get(&log.topic)?.get(&log.partition)?;
        self.list.get(at)
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &Position> {
        self.list.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use silverd_core::chunk::ChunkBuilder;

    use super::*;

    #[test]
    fn positions_are_found_after_others_are_removed() {
        let (mut builder, mut positions) = (ChunkBuilder::default(), Positions::default());
        let logs: Vec<_> = [("a", 0), ("a", 1), ("b", 0), ("b", 7)]
            .map(|(topic, partition)| LogPartition::new("c", topic, partition))
            .into_iter()
            .collect();
        for (next, log) in (0..).zip(&logs) {
            positions.insert(log.clone(), builder.log(log), next, false);
        }
        let next = |positions: &mut Positions, topic: &str, partition| {
            positions.of_message(topic, partition).map(|position| position.next)
        };
        assert_eq!(next(&mut positions, "b", 7), Some(3));
        positions.remove(&logs[0]);
        positions.remove(&logs[0]);
        let found = [("a", 0), ("a", 1), ("b", 0), ("b", 7), ("b", 1), ("x", 0)]
            .map(|(topic, partition)| next(&mut positions, topic, partition));
        assert_eq!(found, [None, Some(1), Some(2), Some(3), None, None]);
        positions.remove(&logs[3]);
        assert_eq!([next(&mut positions, "b", 7), next(&mut positions, "b", 0)], [None, Some(2)]);
        positions.insert(logs[1].clone(), builder.log(&logs[1]), 9, false);
        assert_eq!((next(&mut positions, "a", 1), positions.iter().len()), (Some(9), 2));
    }
}
