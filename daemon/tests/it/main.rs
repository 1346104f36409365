//! The integration tests of the daemon, as one binary.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod author;
mod bounds;
mod cache;
mod contract;
mod corrections;
mod crash_states;
mod cut_logs;
mod deep;
mod docs;
mod evolve;
mod exit_codes;
mod foreign_logs;
mod full_disk;
mod gallery;
mod gold;
mod harness;
mod hostile;
mod infer;
mod kill;
mod lift;
mod load;
mod logs;
mod lower;
mod made_before;
mod maintenance;
mod odd_events;
#[cfg(feature = "otel")]
mod otel;
mod other_engines;
mod pipeline;
mod power_cuts;
mod reload;
mod repair;
mod source;
mod sql_limits;
mod sql_tables;
mod topics;
mod unrouted;
mod verify;
mod vocabulary;
mod wasi;
mod web;
