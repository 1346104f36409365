//! The integration tests of the daemon, as one binary.

#![allow(clippy::unwrap_used)]

mod allocation;
mod guest;
mod hostile;
mod lift;
mod load;
