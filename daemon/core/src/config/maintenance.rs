//! `[maintenance]`: compaction, vacuum and log cleanup.

use super::error::ConfigError;
use super::pipeline::{Located, Maintenance};
use super::read;
use super::section::Root;
use super::value::Value;
use super::walk::Walk;
use super::{GIB, KIB, MIB};

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;
/// Far more than any disk: with it, nothing is compacted.
const FREE_BYTES_MAX: u64 = 1 << 50;

pub(super) fn maintenance(walk: &mut Walk, root: &Root) -> Maintenance {
    let section = root.section(walk, "maintenance");
    let default = Maintenance::default();
    let enabled = section.optional(walk, "enabled", read::boolean);
    let file_bytes_max = section.optional(walk, "file_bytes_max", read::size(MIB..=4 * GIB));
    let retention = section.optional(walk, "retention", located(MINUTE_MS..=3650 * DAY_MS));
    let log_retention = section.optional(walk, "log_retention", located(MINUTE_MS..=3650 * DAY_MS));
    let free_bytes_min = section.optional(walk, "free_bytes_min", read::size(KIB..=FREE_BYTES_MAX));
    let retention_ms = retention.as_ref().map_or(default.retention_ms, |duration| duration.value);
    let log_retention_ms =
        log_retention.as_ref().map_or(default.log_retention_ms.max(retention_ms), |duration| duration.value);
    if let Some(written) = log_retention.filter(|log| log.value < retention_ms) {
        let what = "`log_retention` is shorter than `retention`";
        let label = "expected at least `retention`";
        let help =
            "an older version is read with its files and its log: keep the log for at least as long as the files";
        walk.report(ConfigError::new(written.span, what, label, Some(help.to_owned())));
    }
    Maintenance {
        enabled: enabled.unwrap_or(default.enabled),
        file_bytes_max: file_bytes_max.map_or(default.file_bytes_max, |bytes| bytes as u64),
        retention_ms,
        log_retention_ms,
        free_bytes_min: free_bytes_min.map_or(default.free_bytes_min, |bytes| bytes as u64),
    }
}

/// A duration, with its place.
fn located(bounds: std::ops::RangeInclusive<u64>) -> impl FnOnce(&mut Walk, Value<'_>) -> Option<Located<u64>> {
    move |walk, value| Some(Located::new(read::duration(bounds)(walk, value)?, value.span()))
}
