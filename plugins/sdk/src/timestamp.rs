//! Timestamps from text.

use silverd_values::Scalar;

/// Parses an ISO 8601 timestamp such as `2025-08-16T14:50:49.401333+02:00` into microseconds since 1970-01-01T00:00:00
/// UTC. Text in the other forms that silverd reads as a timestamp, such as RFC 2822 and seconds since 1970, is parsed as
/// well: see [`silverd_values::timestamp`].
///
/// `None` for anything else, and outside of the years 0001 to 9999.
///
/// ```
/// use silverd_plugin::timestamp::parse_iso_8601;
///
/// assert_eq!(parse_iso_8601("1970-01-01T01:00:01+01:00"), Some(1_000_000));
/// assert_eq!(parse_iso_8601("yesterday"), None);
/// ```
pub fn parse_iso_8601(text: &str) -> Option<i64> {
    silverd_values::timestamp(Scalar::Text(text)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_parsed_and_other_text_is_not() {
        let check = |text: &str, expected: Option<i64>| assert_eq!(parse_iso_8601(text), expected, "{text}");
        check("2025-08-16T16:50:49.401333+02:00", Some(1_755_355_849_401_333));
        check("2025-08-16 14:50:49 UTC", Some(1_755_355_849_000_000));
        check("Sat, 16 Aug 2025 14:50:49 GMT", Some(1_755_355_849_000_000));
        check("1755355849", Some(1_755_355_849_000_000));
        check("", None);
        check("today", None);
        check("2025-02-29T00:00:00Z", None);
        check("0000-01-01T00:00:00Z", None);
    }
}
