//! `[days]`: when the figures of a day are final, and the table that says so.

use super::pipeline::Days;
use super::read;
use super::section::Root;
use super::walk::Walk;

const SECOND_MS: u64 = 1_000;
const DAY_MS: u64 = 24 * 60 * 60 * SECOND_MS;

/// The name of the table that says which days are final, in the schema `gold`.
pub const DAY_STATUS: &str = "day_status";

pub(super) fn days(walk: &mut Walk, root: &Root) -> Days {
    let section = root.section(walk, "days");
    Days {
        path: section.path_or(walk, "path", "data/gold/day_status"),
        final_after_ms: section
            .optional(walk, "final_after", read::duration(SECOND_MS..=366 * DAY_MS))
            .unwrap_or(Days::FINAL_AFTER_MS),
        wait_for_quarantine: section.optional(walk, "wait_for_quarantine", read::boolean).unwrap_or(true),
    }
}
