//! The composition root: reads pipeline.toml, builds what it asks for, and runs it with the pipeline.

pub mod config_watch;
pub mod services;
pub mod setup;
mod wrong_use;

pub use wrong_use::WrongUse;
pub(crate) use wrong_use::wrong_use;
