//! Maintenance of the tables' files and logs, in the background and without delaying the pipeline.
//!
//! ```text
//!   every ten seconds, a table with new versions:
//!     compact: small files of a day ──▶ one file, in a commit that changes no row
//!
//!   every few hours, each table:
//!     commit the side output files that Silver announced
//!       └─▶ vacuum: remove files that no retained version has
//!             └─▶ clean up the log: remove old commits that a checkpoint covers
//! ```
//!
//! A compaction is a commit like any other. If another writer has removed one of its files, it conflicts and is
//! discarded.

mod compact;
mod error;
mod log_cleanup;
mod remove_expired;
mod retention;
mod scheduler;
mod side_outputs;
mod status;
mod table;
mod throttle;
mod vacuum;

pub use compact::Compacted;
pub use error::MaintenanceError;
pub use log_cleanup::CleanedUp;
pub(crate) use remove_expired::remove_expired;
pub(crate) use scheduler::MaintenanceScheduler;
pub(crate) use status::{MaintenanceState, MaintenanceStatus, TableMaintenance};
pub use table::{CompleteDays, MaintainedTable, TableKind};
pub use throttle::Throttle;
pub(crate) use throttle::{DiskSpace, disk_space};
pub use vacuum::Vacuumed;
