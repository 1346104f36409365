//! Waiting for a condition, up to a deadline.

use std::time::{Duration, Instant};

pub(super) const TIMEOUT: Duration = Duration::from_secs(120);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Waits until a condition is true, for two minutes at most.
#[track_caller]
pub fn until(what: &str, condition: impl FnMut() -> bool) {
    until_within(TIMEOUT, what, condition);
}

#[track_caller]
fn until_within(timeout: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let is_true = poll(timeout, || condition().then_some(()));
    assert!(is_true.is_some(), "not within {} s: {what}", timeout.as_secs());
}

/// Waits until `check` returns something, for two minutes at most.
#[track_caller]
pub fn wait_for<T>(what: &str, check: impl FnMut() -> Option<T>) -> T {
    let found = poll(TIMEOUT, check);
    found.unwrap_or_else(|| panic!("not within {} s: {what}", TIMEOUT.as_secs()))
}

/// Calls `check` again and again; `None` if it returned nothing up to the deadline.
pub(super) fn poll<T>(timeout: Duration, mut check: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(found) = check() {
            return Some(found);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Runs a future in a runtime of its own.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(work)
}
