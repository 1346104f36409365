//! New versions of plugins, taken up while the daemon runs.
//!
//! ```text
//!   the wasm, reference files, pipeline.toml            (watch.rs: the system tells, and a look every second)
//!        │ something changed, and has settled
//!        ▼
//!   Keeper: read ─▶ compile ─▶ world ─▶ settings ─▶ schema ─▶ shadow run     (prove.rs; beside the events)
//!        │ any step fails: told, and the old version goes on
//!        ▼
//!   Desk: a Candidate, with an instance that is started
//!        │ between two chunks
//!        ▼
//!   the worker turns to it, on probation ──▶ trusted after its first events
//!        │ it fails where the old version does not
//!        ▼
//!   the old version comes back; what the new one wrote is made anew; it is held off until its file changes  (held.rs)
//! ```

mod desk;
mod first;
mod held;
mod keeper;
mod prove;
mod shadow;
mod watch;

pub use desk::{Candidate, Desk};
pub use first::first;
pub use held::{Held, Holds};
pub use keeper::{Keeper, Wanted};
pub use prove::{Kit, prove};
pub use shadow::{fates, json_rows, run as shadow_run};
pub use watch::{Print, Watch};
