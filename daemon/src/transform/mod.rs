//! Plugins: WebAssembly components that turn raw events into the rows of a Silver table.

mod batch;
pub mod build;
mod host;
mod lift;
mod plugin;
mod ready;
mod verdicts;

pub use silverd_core::config::Limits;

pub use batch::{Config, ReferenceFile};
pub use host::Host;
pub use lift::Rows;
pub use plugin::{Digest, Fault, Instance, Plugin};
pub use verdicts::{Rejected, Transformer, Verdicts};
