//! Since when unrouted events are quarantined, as the quarantine's log has it.

use serde_json::json;
use silverd_core::offsets::{LogPartition, Offsets};
use silverd_core::unrouted::{NO_TABLE, SWITCH_ID, log_of_progress_id, progress_id};

use crate::tables::side_output::{Moved, SideOutput};

/// How often the commit is tried again if other daemons commit first.
const TRIES_MAX: usize = 10;

/// How far the quarantine has the unrouted events.
pub(super) struct Quarantined {
    /// Odd while they are quarantined.
    pub(super) switches: i64,
    /// The next offset of each log partition.
    pub(super) next: Offsets,
}

impl Quarantined {
    /// Reads the newest version of the quarantine.
    pub(super) async fn read(quarantine: &SideOutput) -> anyhow::Result<Self> {
        let mut table = quarantine.table().await;
        table.reload().await?;
        let next = table.transactions().filter_map(|(id, next)| Some((log_of_progress_id(id)?, next)));
        Ok(Self { next: next.collect(), switches: table.transaction(SWITCH_ID).unwrap_or(0) })
    }

    pub(super) fn is_on(&self) -> bool {
        self.switches % 2 == 1
    }
}

/// From `start` on, Bronze's next offsets, unrouted events are quarantined. Nothing changes if they are already.
///
/// This is committed before the first event is read, so that no event is left out after a crash.
pub(super) async fn switch_on(quarantine: &SideOutput, start: &Offsets) -> anyhow::Result<()> {
    switch(quarantine, true, |quarantined| {
        let is_later =
            |(log, start): &(&LogPartition, &i64)| quarantined.next.get(*log).is_none_or(|next| next < *start);
        start.iter().filter(is_later).map(|(log, start)| (log.clone(), *start)).collect()
    })
    .await
}

/// From now on, unrouted events are not quarantined.
pub(super) async fn switch_off(quarantine: &SideOutput) -> anyhow::Result<()> {
    switch(quarantine, false, |_| Offsets::new()).await
}

async fn switch(quarantine: &SideOutput, on: bool, start: impl Fn(&Quarantined) -> Offsets) -> anyhow::Result<()> {
    for _ in 0..TRIES_MAX {
        let quarantined = Quarantined::read(quarantine).await?;
        if quarantined.is_on() == on {
            return Ok(());
        }
        let start = start(&quarantined);
        let mut info = json!({ "table": NO_TABLE, "rejected": 0, "switched": if on { "on" } else { "off" } });
        if on {
            info["start"] = start.iter().map(|(log, next)| (log.to_string(), json!(next))).collect();
        }
        let before = Some(quarantined.switches).filter(|switches| *switches > 0);
        let switched = Moved { id: SWITCH_ID.to_owned(), before, after: quarantined.switches + 1 };
        let moved = |(log, next): (&LogPartition, &i64)| Moved {
            id: progress_id(log),
            before: quarantined.next.get(log).copied(),
            after: *next,
        };
        let progress: Vec<_> = std::iter::once(switched).chain(start.iter().map(moved)).collect();
        if quarantine.append(None, &progress, info).await? {
            return Ok(());
        }
    }
    anyhow::bail!("switch the quarantine of unrouted events: other daemons were first {TRIES_MAX} times in a row")
}
