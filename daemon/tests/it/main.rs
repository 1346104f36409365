//! The integration tests of the daemon, as one binary.

#![allow(clippy::unwrap_used)]

mod allocation;
mod author;
mod bench;
mod cache;
mod correct;
mod deep;
mod evolve;
mod gallery;
mod gold;
mod guest;
mod harness;
mod hostile;
mod http;
mod kill;
mod lift;
mod load;
mod logs;
mod maintenance;
#[cfg(feature = "otel")]
mod otel;
mod pipeline;
mod reload;
mod truth;
mod verify;
mod web;
