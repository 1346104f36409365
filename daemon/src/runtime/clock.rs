//! The wall clock. Nothing else in silverd reads it.

use std::time::{SystemTime, UNIX_EPOCH};

use super::machine::simulated;

#[allow(clippy::disallowed_methods, reason = "this is the one door to the wall clock")]
pub(crate) fn now() -> SystemTime {
    simulated().map_or_else(SystemTime::now, |machine| machine.now())
}

/// Microseconds since the epoch, UTC.
pub fn now_micros() -> i64 {
    let since = now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Milliseconds since the epoch, UTC.
pub fn now_ms() -> i64 {
    now_micros() / 1000
}
