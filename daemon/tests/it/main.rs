//! The integration tests of the daemon, as one binary.

#![allow(clippy::unwrap_used)]

mod allocation;
mod cache;
mod guest;
mod harness;
mod hostile;
mod kill;
mod lift;
mod load;
mod pipeline;
mod truth;
