//! Gold: tables that SQL computes from the others, updated by the days that changed.
//!
//! ```text
//!   every `refresh`:  versions of the sources ──▶ days that changed since the table's last commit
//!                                                     │ none: nothing to do
//!                                                     ▼
//!                     the SQL over these days only ──▶ one file for each day
//!                                                     ▼
//!                     gold.day_status: these days are provisional, if they were final
//!                                                     ▼
//!                     one commit: removes the days' old files, adds the new ones, and records the sources' versions
//! ```
//!
//! A table whose zone changed is computed as a whole, and replaced in one commit: `moving.rs`.

mod days;
mod model;
mod moving;
mod process;
mod refresher;
mod shape;
mod status;

pub(crate) use days::{ComputedFrom, computed_from, day_ledger, dependents, name_in_queries, sources};
pub(crate) use process::GoldHandler;
pub(crate) use refresher::GoldRefresher;
pub(crate) use status::{GoldState, GoldStatus, GoldTable};
