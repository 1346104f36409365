//! Native transforms: functions of this program that replace a plugin's WebAssembly. silverd-bench uses them to measure
//! the cost of WebAssembly.

use super::config::Config;

pub use super::events::Events;
pub use super::lift::Rows;
pub use super::output::{Output, RejectCode, Rejected as RawReject};

/// A transform that is linked into this program.
pub trait Native: Send {
    /// The output for these events, as the plugin's `transform` returns it.
    fn transform(&mut self, events: &mut Events<'_>) -> Output;
}

/// Creates a native transform with the settings and reference files of its table.
pub type MakeNative = fn(&Config) -> anyhow::Result<Box<dyn Native>>;
