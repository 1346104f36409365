//! Plugins: WebAssembly components that turn raw events into the rows of a Silver table.

mod about;
mod batch;
mod binary;
pub mod build;
mod build_output;
pub mod cache;
mod component;
mod config;
mod config_store;
mod current;
mod deployments;
mod digest;
mod engine;
mod events;
mod fault;
mod guest_state;
mod host;
mod lane;
mod lanes_ahead;
mod lift;
mod load;
mod logs;
pub mod native;
mod outcomes;
mod output;
mod prebuilt;
mod serving;
mod source;
mod stopped_wasi;
mod store;
mod transformer;
mod unfinished_rebuild;
mod wit_check;

pub use silverd_core::config::Limits;

pub(crate) use about::About;
pub use component::{Instance, Plugin};
pub use config::{Config, ReferenceFile};
pub(crate) use current::{Current, load_current};
pub(crate) use deployments::{Choice, Deployment, FailedVersion, Held, is_same_version, version_with};
pub use digest::Digest;
pub use events::{Rooms, TypedEvents};
pub use fault::Fault;
pub use host::Host;
pub use lift::Rows;
pub use load::Loaded;
pub(crate) use load::{
    FaultyKey, KeptVersion, LoadError, config_digest, kept_file, kept_version, load_file, load_kept, load_plugin,
    load_trial, load_unreleased, load_version, wit_file,
};
pub use outcomes::{Rejected, TransformError, TransformOutput, Tripped};
pub(crate) use serving::ServingRecord;
pub(crate) use source::{Source, SourceLocation, VersionFile};
pub use transformer::Transformer;
pub(crate) use unfinished_rebuild::UnfinishedRebuild;
