//! The partition column `event_date`: the day of an event in the forms that the log, the folders and the encoder use.

use chrono::{Days, NaiveDate};

/// The partition column of every table that silverd writes.
pub(crate) const EVENT_DATE: &str = "event_date";

/// Parses a day as Delta writes it.
pub(super) fn parse_day(text: &str) -> Option<NaiveDate> {
    text.parse().ok()
}

/// A day since the epoch, as Delta writes dates.
pub(crate) fn format_day(day: i32) -> String {
    let epoch = NaiveDate::default();
    let days = Days::new(u64::from(day.unsigned_abs()));
    let date = if day < 0 { epoch.checked_sub_days(days) } else { epoch.checked_add_days(days) };
    date.unwrap_or(epoch).format("%Y-%m-%d").to_string()
}

/// A day as Delta writes it, in days since the epoch.
pub(crate) fn day_number(text: &str) -> Option<i32> {
    i32::try_from(parse_day(text)?.signed_duration_since(NaiveDate::default()).num_days()).ok()
}

/// A new path, in the table's folder, for a file of one day.
pub(super) fn new_file_path(day: &str, extension: &str) -> String {
    format!("{EVENT_DATE}={day}/part-{}.{extension}", uuid::Uuid::new_v4())
}
