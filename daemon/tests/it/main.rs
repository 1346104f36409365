//! The integration tests of the daemon, as one binary.

#![allow(clippy::unwrap_used)]

mod allocation;
mod gold;
mod guest;
mod harness;
mod hostile;
mod http;
mod kill;
mod lift;
mod load;
mod pipeline;
mod truth;
mod web;
