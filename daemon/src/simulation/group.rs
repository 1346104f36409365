//! The simulated consumer group: who reads which partition. Like Kafka's, it learns late that a member is gone, and members
//! learn late that their partitions are.

use std::collections::BTreeSet;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::topic::PARTITIONS;

/// After this time without a heartbeat a member is gone.
const SESSION_TIMEOUT: Duration = Duration::from_secs(6);

#[derive(Default)]
pub(super) struct Group(Mutex<Members>);

#[derive(Default)]
struct Members {
    next: u64,
    generation: u64,
    list: Vec<(MemberId, Instant)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MemberId(u64);

/// What a member reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    pub(super) generation: u64,
    pub(super) partitions: BTreeSet<i32>,
}

impl Group {
    pub(super) fn join(&self) -> MemberId {
        let mut members = self.0.lock();
        members.next += 1;
        let id = MemberId(members.next);
        members.list.push((id, Instant::now()));
        members.generation += 1;
        id
    }

    pub(super) fn leave(&self, id: MemberId) {
        let mut members = self.0.lock();
        let before = members.list.len();
        members.list.retain(|(member, _)| *member != id);
        members.generation += u64::from(members.list.len() < before);
    }

    /// A heartbeat, and what the member reads from now on; `None` if the group has given it up.
    pub(super) fn heartbeat(&self, id: MemberId) -> Option<Assignment> {
        let mut members = self.0.lock();
        let now = Instant::now();
        let before = members.list.len();
        members.list.retain(|(_, seen)| now - *seen < SESSION_TIMEOUT);
        members.generation += u64::from(members.list.len() < before);
        let at = members.list.iter().position(|(member, _)| *member == id)?;
        members.list[at].1 = now;
        let count = members.list.len();
        // Another generation gives the partitions to others.
        let turn = members.generation as usize;
        let partitions = (0..PARTITIONS).filter(|partition| (*partition as usize + turn) % count == at).collect();
        Some(Assignment { generation: members.generation, partitions })
    }
}
