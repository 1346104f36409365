//! The pure part of silverd: what it decides. No I/O, no async, no clock; the `silverd` crate does the rest.

pub mod breaker;
mod buffer_pool;
pub mod canary;
pub mod chunk;
pub mod compaction;
pub mod config;
pub mod counts;
pub mod dedup;
pub mod flush_policy;
pub mod generate;
pub mod infer;
pub mod input;
pub mod json;
pub mod lost;
mod names;
pub mod offsets;
pub mod outcome;
pub mod route;
pub mod rows;
pub mod schema;
pub mod shadow;
pub mod unrouted;
pub mod verify;
mod wit_text;
