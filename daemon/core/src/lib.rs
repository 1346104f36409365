//! The pure part of silverd: what is decided, apart from what is done. It does no I/O, has no async and reads no clock;
//! the `silverd` crate is the shell that does the rest.

pub mod account;
pub mod breaker;
pub mod chunk;
pub mod compaction;
pub mod config;
pub mod dedup;
pub mod generate;
pub mod offsets;
pub mod pace;
pub mod probation;
pub mod route;
pub mod rows;
pub mod schema;
pub mod shadow;
mod spare;
pub mod verdict;
pub mod verify;
