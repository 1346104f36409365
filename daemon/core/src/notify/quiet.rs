//! Hours in which a receiver gets no notification, by the clock on the wall in a time zone.

use super::Severity;
use crate::zone::Zone;

const MINUTE_MS: i64 = 60_000;
const DAY_MINUTES: i64 = 24 * 60;
/// Longer than any quiet hours, also where clocks are set back within them.
const MINUTES_MAX: i64 = DAY_MINUTES + 180;

/// From one minute of the day up to another one, which may be on the next day.
///
/// | hours | 06:59 | 07:00 | 12:00 | 21:59 | 22:00 | 23:30 |
/// |---|---|---|---|---|---|---|
/// | `22:00-07:00` | quiet | | | | quiet | quiet |
/// | `07:00-22:00` | | quiet | quiet | quiet | | |
///
/// They follow the local clock: an hour that the clock shows twice is quiet twice, one that it skips is not there. With
/// `22:00-02:30` in Berlin:
///
/// | day | the clock | quiet for |
/// |---|---|---|
/// | 29 March 2026 | 01:59 is followed by 03:00 | 4 h, up to 03:00 |
/// | 25 October 2026 | 02:59 is followed by 02:00 | 4.5 h, and again 30 minutes from the second 02:00 on |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuietHours {
    /// Minutes since midnight.
    from: i64,
    to: i64,
}

impl QuietHours {
    /// Reads `22:00-07:00`. `None` for any other form, and if both times are the same.
    pub fn parse(text: &str) -> Option<Self> {
        let (from, to) = text.split_once('-')?;
        let hours = Self { from: minute_of(from.trim())?, to: minute_of(to.trim())? };
        (hours.from != hours.to).then_some(hours)
    }

    pub fn is_quiet(self, ms: i64, zone: Zone) -> bool {
        let local_ms = ms.saturating_add(zone.offset_micros(ms.saturating_mul(1_000)) / 1_000);
        let minute = local_ms.div_euclid(MINUTE_MS).rem_euclid(DAY_MINUTES);
        match self.from < self.to {
            true => (self.from..self.to).contains(&minute),
            false => minute >= self.from || minute < self.to,
        }
    }

    /// The first instant that is not quiet, if this one is.
    pub fn end(self, ms: i64, zone: Zone) -> Option<i64> {
        if !self.is_quiet(ms, zone) {
            return None;
        }
        // Minute by minute: the clock may be set back or forward within the hours.
        let minute = ms.div_euclid(MINUTE_MS);
        let mut next = (1..MINUTES_MAX).map(|after| (minute + after) * MINUTE_MS);
        next.find(|at| !self.is_quiet(*at, zone))
    }
}

/// `hh:mm`, as minutes since midnight.
fn minute_of(text: &str) -> Option<i64> {
    let (hour, minute) = text.split_once(':')?;
    let number = |digits: &str, max: i64| {
        let is_number = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse().ok().filter(|number: &i64| is_number && *number <= max)
    };
    Some(number(hour, 23)? * 60 + number(minute, 59)?)
}

/// The quiet hours of one receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quiet {
    pub hours: QuietHours,
    pub zone: Zone,
    /// Whether critical alerts wait, too.
    pub critical: bool,
}

impl Quiet {
    /// Whether a notification of this severity that is made now waits.
    pub fn holds(&self, severity: Severity, now_ms: i64) -> bool {
        (severity < Severity::Critical || self.critical) && self.hours.is_quiet(now_ms, self.zone)
    }

    /// Until when a notification of this severity waits, if it waits at all.
    pub fn until(&self, severity: Severity, now_ms: i64) -> Option<i64> {
        let waits = severity < Severity::Critical || self.critical;
        waits.then(|| self.hours.end(now_ms, self.zone)).flatten()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use chrono::DateTime;

    use super::super::tests::berlin;
    use super::*;

    fn ms(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis()
    }

    #[test]
    fn only_two_different_times_are_quiet_hours() {
        assert_eq!(QuietHours::parse("22:00-07:30"), Some(QuietHours { from: 22 * 60, to: 7 * 60 + 30 }));
        assert_eq!(QuietHours::parse(" 00:00 - 23:59 "), Some(QuietHours { from: 0, to: 23 * 60 + 59 }));
        for text in ["", "22-7", "22:00", "22:00-24:00", "7:00-22:00", "22:00-22:00", "22:60-07:00", "+2:00-07:00"] {
            assert_eq!(QuietHours::parse(text), None, "{text}");
        }
    }

    /// The hours, an instant, and when they end.
    #[track_caller]
    fn check(hours: &str, at: &str, end: Option<&str>) {
        let hours = QuietHours::parse(hours).unwrap();
        assert_eq!(hours.end(ms(at), berlin()), end.map(ms), "{at}");
        assert_eq!(hours.is_quiet(ms(at), berlin()), end.is_some(), "{at}");
    }

    #[test]
    fn they_may_end_on_the_next_day() {
        let night = "22:00-07:00";
        check(night, "2026-11-28T21:59:59+01:00", None);
        check(night, "2026-11-28T22:00:00+01:00", Some("2026-11-29T07:00:00+01:00"));
        check(night, "2026-11-29T06:59:59+01:00", Some("2026-11-29T07:00:00+01:00"));
        check(night, "2026-11-29T07:00:00+01:00", None);
        let day = "07:00-22:00";
        check(day, "2026-11-29T06:59:59+01:00", None);
        check(day, "2026-11-29T07:00:00+01:00", Some("2026-11-29T22:00:00+01:00"));
        check(day, "2026-11-29T22:00:00+01:00", None);
    }

    #[test]
    fn they_follow_the_clock_when_it_is_set_forward() {
        check("22:00-07:00", "2026-03-28T22:30:00+01:00", Some("2026-03-29T07:00:00+02:00"));
        // Half past two is not there: they end when the clock shows three.
        check("22:00-02:30", "2026-03-29T01:59:00+01:00", Some("2026-03-29T03:00:00+02:00"));
        check("02:00-03:00", "2026-03-29T01:59:59+01:00", None);
        check("02:00-03:00", "2026-03-29T03:00:00+02:00", None);
    }

    #[test]
    fn they_follow_the_clock_when_it_is_set_back() {
        check("22:00-07:00", "2026-10-24T22:00:00+02:00", Some("2026-10-25T07:00:00+01:00"));
        check("22:00-02:30", "2026-10-25T01:00:00+02:00", Some("2026-10-25T02:30:00+02:00"));
        check("22:00-02:30", "2026-10-25T02:45:00+02:00", None);
        check("22:00-02:30", "2026-10-25T02:00:00+01:00", Some("2026-10-25T02:30:00+01:00"));
        // The hour that is there twice is one quiet time of two hours.
        check("02:00-03:00", "2026-10-25T02:15:00+02:00", Some("2026-10-25T03:00:00+01:00"));
    }

    #[test]
    fn critical_alerts_wait_only_on_request() {
        let hours = QuietHours::parse("22:00-07:00").unwrap();
        let (night, morning) = (ms("2026-11-29T03:00:00+01:00"), ms("2026-11-29T07:00:00+01:00"));
        for (severity, critical, expected) in [
            (Severity::Warning, false, Some(morning)),
            (Severity::Warning, true, Some(morning)),
            (Severity::Critical, false, None),
            (Severity::Critical, true, Some(morning)),
        ] {
            let quiet = Quiet { hours, zone: berlin(), critical };
            assert_eq!(quiet.until(severity, night), expected, "{severity:?} {critical}");
            assert_eq!(quiet.until(severity, morning), None);
            assert_eq!([night, morning].map(|at| quiet.holds(severity, at)), [expected.is_some(), false]);
        }
    }
}
