//! The simulated topic: what was sent, and what has to become of it.

use parking_lot::Mutex;
use rand::RngExt;
use rand::rngs::StdRng;
use silverd_core::offsets::LogPartition;

pub(super) const CLUSTER: &str = "simulated";
pub(super) const TOPIC: &str = "events";
pub(super) const PARTITIONS: i32 = 4;

/// What the plugin does with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Row,
    Drop,
    Reject,
    Trap,
    /// No table takes it.
    Unrouted,
}

#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) action: Action,
    /// Events with the same id are duplicates.
    pub(super) id: i64,
    pub(super) value: Vec<u8>,
}

impl Event {
    fn new(action: Action, id: i64, second: i64) -> Self {
        let (kind, code) = match action {
            Action::Row => ('e', 0),
            Action::Drop => ('e', 1),
            Action::Reject => ('e', 2),
            Action::Trap => ('e', 3),
            Action::Unrouted => ('x', 0),
        };
        // The plugin finds the parts by their places.
        let value = format!(r#"{{"k":"{kind}","a":"{code}","i":"{id:012}","s":"{second:010}"}}"#);
        Self { action, id, value: value.into_bytes() }
    }

    /// Whether a Silver table takes it.
    pub(super) fn is_routed(&self) -> bool {
        self.action != Action::Unrouted
    }
}

/// The records of each partition.
#[derive(Default)]
pub(super) struct Topic(Mutex<Records>);

#[derive(Default)]
struct Records {
    partitions: [Vec<Event>; PARTITIONS as usize],
    next_id: i64,
}

pub(super) fn log(partition: i32) -> LogPartition {
    LogPartition::new(CLUSTER, TOPIC, partition)
}

impl Topic {
    /// Sends some events. Some are there twice, in different partitions as well.
    pub(super) fn send(&self, count: usize, second: i64, rng: &mut StdRng) {
        let mut records = self.0.lock();
        for _ in 0..count {
            let partition = rng.random_range(0..PARTITIONS as usize);
            let action = match rng.random_range(0..200) {
                0 => Action::Trap,
                1..10 => Action::Reject,
                10..20 => Action::Drop,
                20..40 => Action::Unrouted,
                _ => Action::Row,
            };
            records.next_id += 1;
            let event = Event::new(action, records.next_id, second);
            if rng.random_range(0..12) == 0 {
                records.partitions[rng.random_range(0..PARTITIONS as usize)].push(event.clone());
            }
            records.partitions[partition].push(event);
        }
    }

    pub(super) fn end(&self, partition: i32) -> i64 {
        self.0.lock().partitions[partition as usize].len() as i64
    }

    pub(super) fn events(&self, partition: i32, start: i64, end: i64) -> Vec<Event> {
        self.0.lock().partitions[partition as usize][start as usize..end as usize].to_vec()
    }

    pub(super) fn total(&self) -> i64 {
        (0..PARTITIONS).map(|partition| self.end(partition)).sum()
    }
}
