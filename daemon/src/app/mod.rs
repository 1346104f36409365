//! The composition root: reads pipeline.toml, builds what it asks for, and keeps it running beside the pipeline.

pub mod config_watch;
pub mod services;
pub mod setup;
