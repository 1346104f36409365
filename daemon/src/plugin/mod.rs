//! Plugins: WebAssembly components that turn raw events into the rows of a Silver table.

mod about;
mod batch;
mod binary;
mod blocked;
pub mod build;
mod build_output;
pub mod cache;
mod component;
mod digest;
mod engine;
mod fault;
mod guest_state;
mod host;
mod lift;
mod load;
mod logs;
pub mod native;
mod outcomes;
mod prebuilt;
mod store;
mod transformer;

pub use silverd_core::config::Limits;

pub(crate) use about::About;
pub use batch::{Config, ReferenceFile};
pub(crate) use blocked::{BlockedVersion, BlockedVersions};
pub use component::{Instance, Plugin};
pub use digest::Digest;
pub use fault::Fault;
pub use host::{Host, this_program};
pub use lift::Rows;
pub use load::Loaded;
pub(crate) use load::{FaultyKey, LoadError, config_digest, load_file, load_kept, load_plugin};
pub use outcomes::{Rejected, TransformError, TransformOutput, Tripped};
pub use transformer::Transformer;
