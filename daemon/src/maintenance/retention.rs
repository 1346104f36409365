//! How long a table keeps removed files and entries of its log: what `[maintenance]` says, or longer where somebody set a
//! longer time as a property of the table. Such a property is never changed.

use std::time::Duration;

use silverd_core::config::Maintenance;

use crate::delta::Table;

/// How long checkpoints name removed files.
const FILES: Property =
    Property { delta: "delta.deletedFileRetentionDuration", own: "silverd.deletedFileRetentionDuration" };
/// How long the log keeps entries.
const LOG: Property = Property { delta: "delta.logRetentionDuration", own: "silverd.logRetentionDuration" };
/// Each checkpoint copies the names of removed files from the one before: at one commit a second, those of a whole day
/// would be most of it.
const TOMBSTONES_FRACTION: u64 = 144;
const TOMBSTONES_MAX: Duration = Duration::from_secs(10 * 60);

struct Property {
    delta: &'static str,
    /// The value that silverd gave it, so that another value is known to be somebody else's.
    own: &'static str,
}

/// The times of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Retention {
    pub(super) files: Duration,
    pub(super) log: Duration,
}

impl Retention {
    pub(super) fn of(table: &Table, config: &Maintenance) -> Self {
        let longer = |property: &Property, own_ms: u64| {
            let own = Duration::from_millis(own_ms);
            match property.set_by_others(|key| table.property(key)) {
                // What cannot be read keeps everything.
                Some(text) => parse(text).unwrap_or(Duration::MAX).max(own),
                None => own,
            }
        };
        Self { files: longer(&FILES, config.retention_ms), log: longer(&LOG, config.log_retention_ms) }
    }
}

/// The properties that silverd gives a table.
pub(super) fn own_properties(table: &Table, config: &Maintenance) -> Vec<(&'static str, String)> {
    let tombstones_ms = (config.retention_ms / TOMBSTONES_FRACTION).min(TOMBSTONES_MAX.as_millis() as u64);
    let mut properties = Vec::new();
    for (property, ms) in [(&FILES, tombstones_ms), (&LOG, config.log_retention_ms)] {
        if property.set_by_others(|key| table.property(key)).is_none() {
            let value = interval(ms);
            properties.extend([(property.delta, value.clone()), (property.own, value)]);
        }
    }
    properties
}

impl Property {
    /// The value, if somebody else set it. Before silverd noted its own values, they were in seconds.
    fn set_by_others<'t>(&self, value: impl Fn(&str) -> Option<&'t str>) -> Option<&'t str> {
        let current = value(self.delta)?;
        let is_own = match value(self.own) {
            Some(own) => own == current,
            None => parse(current).is_some_and(|time| interval(time.as_millis() as u64) == current),
        };
        (!is_own).then_some(current)
    }
}

fn interval(ms: u64) -> String {
    format!("interval {} seconds", ms / 1000)
}

/// An interval as Delta writes it: `interval 1 week 2 days`, with or without the first word.
fn parse(text: &str) -> Option<Duration> {
    let text = text.trim().to_ascii_lowercase();
    let mut words = text.strip_prefix("interval").unwrap_or(&text).split_whitespace();
    let mut total = Duration::ZERO;
    loop {
        let Some(number) = words.next() else { return (total > Duration::ZERO).then_some(total) };
        let (number, unit) = (number.parse::<u64>().ok()?, words.next()?);
        let unit = match unit.strip_suffix('s').unwrap_or(unit) {
            "microsecond" => Duration::from_micros(1),
            "millisecond" => Duration::from_millis(1),
            "second" => Duration::from_secs(1),
            "minute" => Duration::from_secs(60),
            "hour" => Duration::from_secs(60 * 60),
            "day" => Duration::from_secs(24 * 60 * 60),
            "week" => Duration::from_secs(7 * 24 * 60 * 60),
            _ => return None,
        };
        total = total.checked_add(unit.checked_mul(u32::try_from(number).ok()?)?)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_read() {
        let days = |days: u64| Some(Duration::from_secs(days * 24 * 60 * 60));
        for (text, expected) in [
            ("interval 30 days", days(30)),
            ("INTERVAL 1 WEEK 2 days", days(9)),
            ("1 day", days(1)),
            ("interval 90 seconds", Some(Duration::from_secs(90))),
            ("interval 1 month", None),
            ("interval", None),
            ("interval x days", None),
            ("interval 99999999999 weeks", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn what_others_set_is_known_from_what_silverd_set() {
        let check = |delta: Option<&'static str>, own: Option<&'static str>, expected: Option<&str>| {
            let value = |key: &str| if key == LOG.delta { delta } else { own };
            assert_eq!(LOG.set_by_others(value), expected, "{delta:?} {own:?}");
        };
        check(None, None, None);
        check(Some("interval 60 seconds"), Some("interval 60 seconds"), None);
        check(Some("interval 60 seconds"), Some("interval 90 seconds"), Some("interval 60 seconds"));
        check(Some("interval 30 days"), Some("interval 90 seconds"), Some("interval 30 days"));
        check(Some("interval 30 days"), None, Some("interval 30 days"));
        check(Some("interval 60 seconds"), None, None);
    }
}
