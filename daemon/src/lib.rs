//! The shell of silverd: Kafka, WebAssembly, Delta Lake and the command line around the pure `silverd-core`.

pub(crate) mod alerts;
pub mod app;
pub mod bronze;
pub(crate) mod cases;
pub mod cli;
pub(crate) mod corrections;
pub mod day_status;
pub(crate) mod days;
pub mod delta;
#[doc(hidden)]
pub mod fuzzing;
pub mod generate;
pub(crate) mod gold;
pub(crate) mod http;
pub mod maintenance;
pub mod notify;
pub mod pipeline;
pub mod plugin;
pub(crate) mod reload;
pub(crate) mod repair;
pub(crate) mod row_sql;
pub mod runtime;
pub(crate) mod silver;
#[cfg(test)]
mod simulation;
pub mod source;
pub(crate) mod sql;
pub mod sql_engine;
pub mod tables;
pub mod telemetry;
pub(crate) mod verify;
