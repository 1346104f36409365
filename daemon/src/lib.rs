//! The shell of silverd: Kafka, WebAssembly, Delta Lake and the command line around the pure `silverd-core`.

pub mod app;
pub mod bronze;
pub mod cli;
pub mod corrections;
pub mod delta;
pub mod generate;
pub mod gold;
pub mod http;
pub mod maintenance;
pub mod pipeline;
pub mod plugin;
pub mod reload;
pub mod runtime;
pub mod silver;
pub mod source;
pub mod sql;
pub mod tables;
pub mod telemetry;
pub mod verify;
