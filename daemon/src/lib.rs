//! The shell of silverd: Kafka, WebAssembly, Delta Lake and the command line around the pure `silverd-core`.

pub mod bronze;
pub mod cli;
pub mod clock;
pub mod correct;
pub mod delta;
pub mod flow;
pub mod generate;
pub mod gold;
pub mod ingest;
pub mod late;
pub mod live;
pub mod logging;
pub mod memory;
pub mod quarantine;
pub mod replay;
pub mod sample;
pub mod side;
pub mod silver;
pub mod sql;
pub mod state;
pub mod status;
pub mod telemetry;
pub mod transform;
pub mod verify;
pub mod web;
