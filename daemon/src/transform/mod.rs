//! Plugins: WebAssembly components that turn raw events into the rows of a Silver table.

mod about;
mod batch;
pub mod build;
pub mod cache;
mod host;
mod lift;
mod logs;
mod plugin;
mod ready;
mod store;
mod verdicts;

pub use silverd_core::config::Limits;

pub use about::About;
pub use batch::{Config, ReferenceFile};
pub(crate) use batch::{Output, RejectCode, Rejected as RawReject};
pub use host::{Host, this_program};
pub use lift::Rows;
pub use plugin::{Digest, Fault, Instance, Plugin};
pub(crate) use plugin::{MakeNative, Native};
pub use store::{Kept, Store};
pub use verdicts::{Rejected, Transformer, Tripped, Verdicts};
