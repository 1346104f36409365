//! Gold: tables that SQL computes from the others, updated by the days that changed.
//!
//! ```text
//!   every `refresh`:  versions of the sources ──▶ days that changed since the table's last commit
//!                                                     │ none: nothing to do
//!                                                     ▼
//!                     the SQL over these days only ──▶ one file for each day
//!                                                     ▼
//!                     one commit: removes the days' old files, adds the new ones, and records the sources' versions
//! ```

mod model;
mod process;
mod refresher;
mod shape;
mod status;

pub(crate) use process::GoldHandler;
pub(crate) use refresher::GoldRefresher;
pub(crate) use status::{GoldState, GoldStatus, GoldTable};
