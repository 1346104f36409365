//! The tables: their columns and files, deduplication, and the side outputs of Silver.

pub(crate) mod column;
pub(crate) mod dedup;
pub mod event_progress;
pub(crate) mod event_set;
pub(crate) mod late;
pub(crate) mod quarantine;
pub mod recent_rows;
pub mod side_output;
pub mod silver;
pub mod writer_state;
