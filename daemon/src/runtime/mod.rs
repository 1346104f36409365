//! The process and its environment: the machine, the clock, the allocator, background threads, schedules, the state folder, file
//! watches, standard output, inert text.

pub mod allocator;
pub(crate) mod atomic_write;
pub mod background;
mod causes;
pub mod clock;
pub(crate) mod due;
pub mod file_watch;
pub(crate) mod inert;
pub(crate) mod log_once;
pub(crate) mod machine;
pub(crate) mod out;
mod program;
pub(crate) mod state_dir;
pub(crate) mod worker_thread;

pub(crate) use causes::causes;
pub use program::this_program;

/// The blocking threads of a runtime that opens Delta tables. Opening a table occupies one of them and waits in it for
/// others, which read files for it. If table opens (and checkpoints, which open their table) occupied all threads, none
/// of them could finish.
pub(crate) const TABLE_OPENS_MAX: usize = 128;
