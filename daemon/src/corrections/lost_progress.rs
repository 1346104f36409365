//! Progress that a table's log has lost. A rebuild of everything sets it again, in the commit of the rows: these are made
//! of all that Bronze has, so Bronze's next offsets are those of the table.
//!
//! ```text
//!   the table's rows up to unknown offsets ─▶ removed
//!   Bronze 0..next ─▶ the plugin ─▶ one commit { removed files, added files, txn of each log partition = next,
//!                                               txn of the announcements = as many as the side outputs have }
//! ```

use std::collections::BTreeSet;

use futures::TryStreamExt;
use silverd_core::offsets::advance;
use tracing::warn;

use super::Correction;
use super::quarantined::equals;
use super::scope::Plan;
use crate::bronze::replay;
use crate::delta::{is_table, read_columns};
use crate::tables::event_set::{Coordinates, EventSet, RECORD_COORDINATES};
use crate::tables::side_output::SideOutput;

impl Correction {
    /// Takes Bronze's next offsets for those of the table. The commit sets them.
    pub(super) async fn restore_progress(&mut self, plan: &Plan) -> anyhow::Result<()> {
        let mut next = replay::progress(&self.bronze).await?.offsets;
        // A table has progress in the topics that it takes; here also in those that it took once. It has none where it has
        // passed no offset.
        let with_rows: BTreeSet<_> = plan.events_with_rows.logs().collect();
        next.retain(|log, next| *next > 0 && (self.router.takes(self.index, &log.topic) || with_rows.contains(log)));
        advance(&mut next, &self.table.offsets());
        let mut restored: Vec<_> = next.iter().map(|(log, next)| (log.app_id(), *next)).collect();
        // The next announcement must follow those that are published, or it would count as one of them.
        for (kind, path) in &self.side_outputs {
            if is_table(path) {
                let published = SideOutput::open(kind, path.clone()).await?.published(&self.table).await?;
                if published > self.table.transaction(kind.announced).unwrap_or(0) {
                    restored.push((kind.announced.to_owned(), published));
                }
            }
        }
        self.listed_late = self.listed_late().await?;
        warn!(
            table = %self.config.name,
            "the table's log has lost silverd's progress: the rebuild covers all that bronze has, and sets the progress again"
        );
        self.table.assume_restored(&restored);
        self.restored = Some(restored);
        Ok(())
    }

    /// The table's events that are in the list of late events. Which of the others arrived late is found by their rows.
    async fn listed_late(&self) -> anyhow::Result<EventSet> {
        let mut listed = EventSet::default();
        let Some(late) = &self.late else { return Ok(listed) };
        let names = ["table"].into_iter().chain(RECORD_COORDINATES).collect::<Vec<_>>();
        let mut table = late.table().await;
        for file in table.files().await? {
            let mut read = read_columns(table.store(), &file, Some(&names)).await?;
            while let Some(batch) = read.batches.try_next().await? {
                let is_own = equals(&batch, "table", &self.config.name)?;
                listed.insert_some(&Coordinates::of(&batch, RECORD_COORDINATES)?, &is_own);
            }
        }
        Ok(listed)
    }
}
