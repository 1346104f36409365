//! SQL in a process of its own: what a statement takes of memory and CPU it takes from nobody else, and what passes a
//! limit ends that process alone.
//!
//! ```text
//!   silverd ── Start: tables, limits ─────────▶ silverd sql-process <work>
//!           ── request (and rows in memory) ──▶
//!           ◀── notes, then one answer ───────
//! ```
//!
//! A statement takes no other process's memory because the kernel refuses it (`RLIMIT_DATA`): DataFusion's memory pool
//! counts what its operators keep, and nothing that a function allocates. An allocator that counts would bound these,
//! too, but could end nothing less than the whole process; so there is another process to end.

mod client;
mod server;

use serde::{Deserialize, Serialize};
use silverd_core::config::SqlLimits;

use super::tables::Tables;

pub(crate) use client::{Ended, SqlProcess, run_with_limits};
pub(crate) use server::{Handler, Notes, read_message, serve};

/// The first message to the process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    pub tables: Tables,
    pub memory_bytes_max: usize,
    pub seconds_max: u64,
    /// Ingestion has priority over the process.
    pub yields: bool,
}

impl Start {
    pub(crate) fn new(tables: &Tables, limits: &SqlLimits, yields: bool) -> Self {
        Self {
            tables: tables.clone(),
            memory_bytes_max: limits.memory_bytes_max,
            seconds_max: limits.seconds_max,
            yields,
        }
    }

    /// What DataFusion's operators may keep; they spill to disk beyond it. The rest is for what they do not count.
    pub(crate) fn pool_bytes(&self) -> usize {
        self.memory_bytes_max / 2
    }
}
