//! `gold.day_status`: the table that says which days of which tables are final, and the order of commits that makes it true.
//!
//! ```text
//!   a commit to a day that is over              finalizing
//!   ──────────────────────────────              ──────────
//!   lock, shared                                lock, exclusive: no such commit is under way
//!   read the newest version                     read the facts
//!     the day is final ─▶ publish: provisional  publish: final
//!   commit the rows                             unlock
//!   unlock
//! ```
//!
//! So no commit changes a day between a version that calls it final and the next one that calls it provisional. The lock is
//! a file, which the kernel unlocks when a process ends: workers, corrections and Gold's process take the same one. A day
//! that is not over needs no lock: nothing finalizes it while an event of it waits.

mod dependents;
mod ledger;
mod lock;
mod published;
mod row;

pub(crate) use dependents::Dependents;
pub use ledger::DayLedger;
pub(crate) use ledger::{DayUpdate, Figures};
pub(crate) use lock::CorrectionMark;
pub(crate) use published::days_of;
pub(crate) use row::DayRow;
