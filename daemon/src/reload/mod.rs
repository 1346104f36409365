//! Loads, validates and hands over new plugin versions while silverd runs.
//!
//! ```text
//!   the wasm, reference files, pipeline.toml         (file_watch.rs: notifications, and a check every second)
//!        │ a file changed, and was not written for a moment
//!        ▼
//!   PluginReloader: load ─▶ compile ─▶ world ─▶ settings ─▶ schema ─▶ cases ─▶ shadow run    (validate.rs; ingestion continues)
//!        │ if a step fails: the version is rejected, and the current version keeps running
//!        ▼
//!   PendingVersion: a Candidate with a started instance
//!        │ between two chunks
//!        ▼
//!   the worker switches to it; canary period ──▶ trusted after its first events     (silver/plugin_swap.rs)
//!        │ it fails where the previous version does not
//!        ▼
//!   the previous version is active again; the rows of the failed version are rebuilt (silver/rollback.rs), and it is
//!   blocked until somebody deploys it                                                    (plugin/deployments.rs)
//! ```
//!
//! After a restart, the log of the table says which version served last, and whether its canary period was over
//! (`recent_versions.rs`, `startup_version.rs`).

mod pending;
mod recent_versions;
mod reloader;
mod shadow;
mod startup_version;
mod validate;

pub(crate) use pending::{Candidate, PendingVersion};
pub(crate) use reloader::{DesiredVersion, PluginReloader};
pub(crate) use shadow::shadow_run;
pub(crate) use startup_version::{Preferred, StartupVersion, UnfinishedCanary, last_good, startup_version};
pub(crate) use validate::{Build, PluginLoader, validate};
