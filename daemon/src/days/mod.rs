//! Which days are complete: the facts, the decision, and its publication in `gold.day_status`.
//!
//! ```text
//!   every second:
//!
//!   Kafka's ends, the workers' progress ─┐
//!   the logs of Silver and Gold ─────────┼─▶ facts ─▶ decide ─▶ no day becomes final ──▶ publish
//!   the quarantine, corrections ─────────┘              │
//!                                                       ▼ some days do
//!                                        lock: no commit to a day that is over is under way
//!                                                       ▼
//!                                        the facts again ─▶ decide ─▶ publish ─▶ unlock
//! ```
//!
//! A change of a state is published at once, one of the reasons after some seconds, and the figures of the days that are not
//! final once a minute, in one commit for all tables.

mod decide;
mod facts;
mod publisher;
mod quarantine;
mod status;
mod table_log;

pub(crate) use publisher::DayPublisher;
pub(crate) use status::{DaysStatus, LastFinalDay};
