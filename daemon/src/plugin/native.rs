//! Native transforms: functions of this program that replace a plugin's WebAssembly. silverd-bench uses them to measure
//! the cost of WebAssembly.

use silverd_core::chunk::Chunk;

use super::batch::Config;

pub use super::batch::{Output, RejectCode, Rejected as RawReject};
pub use super::lift::Rows;

/// A transform that is linked into this program.
pub trait Native: Send {
    /// The output for the records of the chunk with these indexes, as the plugin's `transform` returns it.
    fn transform(&mut self, chunk: &Chunk, records: &[u32]) -> Output;
}

/// Creates a native transform with the settings and reference files of its table.
pub type MakeNative = fn(&Config) -> anyhow::Result<Box<dyn Native>>;
