//! What all SQL of silverd runs on: DataFusion with exact arithmetic and functions for JSON, in processes with limits.

pub(crate) mod batches;
mod checked;
mod context;
mod json;
mod limits;
mod local_time;
mod message;

use std::process::Command;

use crate::runtime::this_program;

pub(crate) use context::{bounded_context, read_only};
pub(crate) use limits::{OUT_OF_MEMORY, limit_this_process};
pub(crate) use message::{Message, messages_of};

/// The hidden command of silverd that runs SQL.
pub const SQL_COMMAND: &str = "sql-process";

/// What a process runs SQL for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum SqlWork {
    /// The queries of the dashboard.
    Panels,
    /// Refreshes of Gold tables.
    Gold,
    /// One query, whose result is printed.
    Query,
    /// The rows of a Silver table.
    Rows,
}

impl SqlWork {
    fn name(self) -> &'static str {
        match self {
            Self::Panels => "panels",
            Self::Gold => "gold",
            Self::Query => "query",
            Self::Rows => "rows",
        }
    }
}

/// This program, to run SQL.
pub(crate) fn sql_command(work: SqlWork) -> Command {
    let mut command = Command::new(this_program());
    command
        .args([SQL_COMMAND, work.name()])
        // SQL needs none of the daemon's secrets.
        .env_clear()
        .envs(["TMPDIR", "TZ"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command
}
