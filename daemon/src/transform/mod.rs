//! Plugins: WebAssembly components that turn raw events into the rows of a Silver table.

mod batch;
pub mod build;
mod host;
mod lift;
mod plugin;
mod verdicts;

pub use batch::{Config, ReferenceFile};
pub use host::{Host, Limits};
pub use lift::Rows;
pub use plugin::{Digest, Fault, Instance, Plugin};
pub use verdicts::{Rejected, Transformer, Verdicts};
