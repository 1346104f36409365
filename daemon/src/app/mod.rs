//! The composition root: reads pipeline.toml, builds what it asks for, and runs it with the pipeline.

pub mod config_watch;
pub mod services;
pub mod setup;
