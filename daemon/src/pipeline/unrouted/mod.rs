//! The events that no Silver table takes: they are counted by reason, and quarantined if pipeline.toml asks for it.

mod counts;
mod routing;
mod switch;
mod task;
mod writer;

pub(crate) use counts::Unrouted;
pub(super) use writer::UnroutedWriter;
