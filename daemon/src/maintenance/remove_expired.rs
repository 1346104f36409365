//! Removes what is older than the retention: data files, log entries and checkpoints.

use std::path::Path;

use silverd_core::config::Pipeline;
use tracing::debug;

use super::error::MaintenanceError;
use super::log_cleanup::CleanedUp;
use super::side_outputs::recover_side_outputs;
use super::table::{MaintainedTable, TableKind};
use super::throttle::Throttle;
use super::vacuum::Vacuumed;
use crate::delta::Table;

/// Removes a table's expired data files and log entries. Side output files that Silver announced are committed first:
/// until then neither the file nor the announcement may be removed.
pub(crate) async fn remove_expired(
    pipeline: &Pipeline,
    base_dir: &Path,
    maintained: &MaintainedTable,
    table: &mut Table,
    throttle: &Throttle,
) -> Result<(Vacuumed, CleanedUp), MaintenanceError> {
    let config = &pipeline.maintenance;
    maintained.set_retention(table, config).await?;
    if matches!(maintained.kind(), TableKind::Silver | TableKind::SideOutput) {
        recover_side_outputs(pipeline, base_dir).await?;
    }
    let vacuumed = maintained.vacuum(table, config, false, throttle).await?;
    let cleaned_up = maintained.clean_up_log(table, config, false, throttle).await?;
    let log_files = cleaned_up.entries + cleaned_up.checkpoints;
    if vacuumed.files + log_files > 0 {
        debug!(table = %maintained.name, files = vacuumed.files, log_files, "removed expired files");
    }
    Ok((vacuumed, cleaned_up))
}
