//! Publishes side output files that a Silver commit announced and a crash kept from being committed to their own table.
//! This runs before old files and log entries are removed: the announcement is only in Silver's log, and the file is in
//! no commit.

use std::path::Path;

use anyhow::Context;
use silverd_core::config::Pipeline;

use super::table::{MaintainedTable, TableKind};
use crate::tables::side_output::{SideOutput, SideOutputKind};
use crate::tables::{late, quarantine};

/// Commits all announced files of a pipeline's Silver tables.
pub(super) async fn recover_side_outputs(pipeline: &Pipeline, base_dir: &Path) -> anyhow::Result<()> {
    let tables = MaintainedTable::all(pipeline, base_dir);
    for table in tables.iter().filter(|table| table.kind() == TableKind::Silver) {
        let Some((silver, _)) = table.open().await? else { continue };
        let outputs: [(&'static SideOutputKind, &str); 2] =
            [(&quarantine::KIND, &pipeline.quarantine.path), (&late::KIND, &pipeline.late.path)];
        for (kind, path) in outputs {
            if silver.transaction(kind.announced).unwrap_or(0) > 0 {
                let output = SideOutput::open(kind, base_dir.join(path)).await?;
                let recovered = output.recover(&silver).await;
                recovered.with_context(|| format!("commit to {} what {} announced", kind.name, table.name))?;
            }
        }
    }
    Ok(())
}
