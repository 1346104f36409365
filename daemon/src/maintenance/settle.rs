//! What a Silver table announced, and a crash kept from being committed: brought to its table first, since the announcement
//! stands in Silver's log alone, and the file in no commit yet.

use std::path::Path;

use anyhow::Context;
use silverd_core::config::Pipeline;

use super::table::Kept;
use crate::side::{Kind, SideTable};
use crate::{late, quarantine};

/// Commits all announced files of a pipeline's Silver tables that are there.
pub async fn settle(pipeline: &Pipeline, base: &Path) -> anyhow::Result<()> {
    for kept in Kept::all(pipeline, base).iter().filter(|kept| kept.kind() == super::table::Kind::Silver) {
        let Some((silver, _)) = kept.open().await? else { continue };
        let sides: [(&'static Kind, &str); 2] =
            [(&quarantine::KIND, &pipeline.quarantine.path), (&late::KIND, &pipeline.late.path)];
        for (kind, path) in sides {
            if silver.transaction(kind.announced).unwrap_or(0) > 0 {
                let side = SideTable::open(kind, base.join(path)).await?;
                side.settle(&silver).await.with_context(|| format!("bring {} up to {}", kind.name, kept.name))?;
            }
        }
    }
    Ok(())
}
