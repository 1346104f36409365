//! What silverd measures and reports of itself: the counts of each table, the CPU time of each stage, its log, its
//! traces.

mod commit_durations;
pub(crate) mod logging;
#[cfg(feature = "otel")]
pub(crate) mod otel;
mod process;
pub(crate) mod spans;
mod stages;
mod table_stats;

pub use commit_durations::CommitDurations;
pub(crate) use process::process_started_at_ms;
pub use process::{peak_rss_bytes, process_cpu, rss_bytes, thread_cpu};
pub use stages::{STAGES, Stage, Stages};
pub use table_stats::{PluginInfo, TableStats};
