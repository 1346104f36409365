//! How a pipeline is to be run.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use silverd_core::config::Pipeline;
use tokio::sync::watch;

use super::status::RunState;
use crate::day_status::DayLedger;
use crate::plugin::{Host, Loaded};
use crate::runtime::file_watch::FileWatch;
use crate::source::{Broker, Sources};
use crate::tables::recent_rows::RecentRows;

/// What a pipeline needs from outside.
pub struct RunOptions {
    /// What pipeline.toml says, now and later: changes are applied while the daemon runs.
    pub pipeline: watch::Receiver<Arc<Pipeline>>,
    /// How the topics are read.
    pub sources: Sources,
    /// The brokers, if they are not those of `[source]`.
    pub broker: Option<Broker>,
    /// The folder of pipeline.toml, from which its paths count.
    pub base_dir: PathBuf,
    /// What the plugins run in.
    pub host: Arc<Host>,
    /// Plugins that are loaded already. The others are loaded by their workers.
    pub loaded: Loaded,
    /// Reports new plugin versions; `None`: the loaded versions stay.
    pub watch: Option<FileWatch>,
    /// End when everything that was in the topic at the start is in the tables.
    pub drain: bool,
    /// Bytes of keys and values read from Kafka.
    pub bytes_read: Arc<AtomicU64>,
    /// Gets the newest rows.
    pub recent_rows: Arc<RecentRows>,
    /// Says which days are final; `None`: nothing does.
    pub days: Option<Arc<DayLedger>>,
    /// Gets the pipeline's status.
    pub status: watch::Sender<RunState>,
}
