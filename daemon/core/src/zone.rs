//! Time zones by their IANA names, and the days of instants in them. The rules are built into the program.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use chrono::{DateTime, FixedOffset, LocalResult, NaiveDateTime, Offset, TimeZone};
use chrono_tz::{GapInfo, TZ_VARIANTS, Tz};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::chunk::day_of;
use crate::config::nearest;

/// The release of the IANA time zone database whose rules are built in, such as `2025b`.
pub const TZDATA_VERSION: &str = chrono_tz::IANA_TZDB_VERSION;

const SECOND: i64 = 1_000_000;
const DAY_SECONDS: i64 = 86_400;
/// Offsets are looked up within these years only: outside, a zone keeps the offset of the first or last of them.
const YEARS: RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// A time zone; the names of UTC are one zone.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Zone(Tz);

impl Zone {
    pub const UTC: Zone = Zone(Tz::UTC);

    /// The zone of an IANA name such as `Europe/Berlin`, written as there.
    pub fn parse(name: &str) -> Result<Zone, UnknownZone> {
        const NAMES_OF_UTC: [&str; 7] = ["Etc/UTC", "Etc/UCT", "Etc/Universal", "Etc/Zulu", "UCT", "Universal", "Zulu"];
        if NAMES_OF_UTC.contains(&name) {
            return Ok(Zone::UTC);
        }
        Tz::from_str(name)
            .map(Zone)
            .map_err(|_| UnknownZone { name: name.chars().take(100).collect(), nearest: nearest_name(name) })
    }

    pub fn name(self) -> &'static str {
        self.0.name()
    }

    pub fn is_utc(self) -> bool {
        self == Zone::UTC
    }

    /// As [`is_utc`](Self::is_utc), for serde.
    #[allow(clippy::trivially_copy_pass_by_ref)]
    pub fn is_utc_ref(&self) -> bool {
        self.is_utc()
    }

    /// The microseconds that local time is ahead of UTC at an instant.
    pub fn offset_micros(self, micros: i64) -> i64 {
        self.offset_seconds(micros.div_euclid(SECOND)) * SECOND
    }

    /// What local clocks show at an instant, in milliseconds since the epoch, with the offset: a time for people.
    pub fn local(self, ms: i64) -> DateTime<FixedOffset> {
        let instant = DateTime::from_timestamp_millis(ms).unwrap_or_default();
        let offset = i32::try_from(self.offset_seconds(instant.timestamp())).ok().and_then(FixedOffset::east_opt);
        match offset {
            Some(offset) => instant.with_timezone(&offset),
            None => instant.fixed_offset(),
        }
    }

    /// The local day of an instant, as days since the epoch.
    ///
    /// An instant outside of the years 1 to 9999 has the first or the last day of them.
    pub fn day_of(self, micros: i64) -> i32 {
        if self.is_utc() {
            return day_of(micros);
        }
        day_of(micros.saturating_add(self.offset_micros(micros)))
    }

    /// For the days of many instants.
    pub fn days(self) -> Days {
        Days::new(self)
    }

    /// The first instant whose local day is this one or, if the zone skipped this day, the next.
    pub fn start_of_day(self, day: i32) -> i64 {
        self.midnight(i64::from(day), i64::min)
    }

    /// The first instant from which on no local day is this one or an earlier one.
    ///
    /// It differs from the start of the next day where clocks were set back over midnight: some zones did that a minute
    /// after it.
    pub fn end_of_day(self, day: i32) -> i64 {
        self.midnight(i64::from(day) + 1, i64::max)
    }

    fn midnight(self, day: i64, choose: fn(i64, i64) -> i64) -> i64 {
        let local = (day * DAY_SECONDS).clamp(*YEARS.start(), *YEARS.end() + 1);
        let seconds = match self.at_local(local) {
            AtLocal::Once(seconds) | AtLocal::Never(seconds) => seconds,
            AtLocal::Twice(first, second) => choose(first, second),
        };
        seconds * SECOND
    }

    /// When local clocks show a time, in seconds since their 1970 began.
    pub fn at_local(self, seconds: i64) -> AtLocal {
        let within = seconds.clamp(*YEARS.start(), *YEARS.end() + 1);
        if self.is_utc() || within != seconds {
            return AtLocal::Once(seconds.saturating_sub(self.offset_seconds(within)));
        }
        let shown = naive(seconds);
        let instant = |offset: &<Tz as TimeZone>::Offset| seconds - i64::from(offset.fix().local_minus_utc());
        match self.0.offset_from_local_datetime(&shown) {
            LocalResult::Single(offset) => AtLocal::Once(instant(&offset)),
            LocalResult::Ambiguous(one, other) => {
                let (one, other) = (instant(&one), instant(&other));
                AtLocal::Twice(one.min(other), one.max(other))
            }
            LocalResult::None => match GapInfo::new(&shown, &self.0).and_then(|gap| gap.end) {
                Some(end) => AtLocal::Never(end.timestamp()),
                None => AtLocal::Never(seconds - self.offset_seconds(seconds)),
            },
        }
    }

    fn offset_seconds(self, seconds: i64) -> i64 {
        if self.is_utc() {
            return 0;
        }
        let seconds = seconds.clamp(*YEARS.start(), *YEARS.end());
        i64::from(self.0.offset_from_utc_datetime(&naive(seconds)).fix().local_minus_utc())
    }
}

/// `seconds` are within `YEARS`, or one more.
fn naive(seconds: i64) -> NaiveDateTime {
    DateTime::from_timestamp(seconds, 0).unwrap_or_default().naive_utc()
}

impl Default for Zone {
    fn default() -> Self {
        Zone::UTC
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Zone::parse(&name).map_err(de::Error::custom)
    }
}

/// When local clocks show a time: instants in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtLocal {
    Once(i64),
    /// Clocks were set back: at these two instants, the earlier one first.
    Twice(i64, i64),
    /// Clocks were set forward over it, at this instant.
    Never(i64),
}

/// The days of many instants in one zone. Instants that follow each other are mostly on one day, so the offset is kept
/// as long as it is known to be valid.
#[derive(Clone, Debug)]
pub struct Days {
    zone: Zone,
    /// The first and the last instant for which `offset` is known.
    known: RangeInclusive<i64>,
    /// In microseconds.
    offset: i64,
}

impl Days {
    fn new(zone: Zone) -> Self {
        match zone.is_utc() {
            true => Days { zone, known: i64::MIN..=i64::MAX, offset: 0 },
            false => Days { zone, known: RangeInclusive::new(1, 0), offset: 0 },
        }
    }

    /// As [`Zone::day_of`].
    pub fn of(&mut self, micros: i64) -> i32 {
        day_of(micros.saturating_add(self.offset_micros(micros)))
    }

    /// As [`Zone::offset_micros`].
    pub fn offset_micros(&mut self, micros: i64) -> i64 {
        if !self.known.contains(&micros) {
            self.look_up(micros);
        }
        self.offset
    }

    fn look_up(&mut self, micros: i64) {
        let seconds = micros.div_euclid(SECOND);
        let offset = self.zone.offset_seconds(seconds);
        // No zone ever changed its offset twice within six days: if the ends of a span have one offset, so has all of
        // it.
        let mut spans = [DAY_SECONDS, 3_600, 1].into_iter().map(|length| {
            let first = seconds.div_euclid(length) * length;
            (first, first + length - 1)
        });
        let same = |(first, last): &(i64, i64)| {
            self.zone.offset_seconds(*first) == offset && self.zone.offset_seconds(*last) == offset
        };
        let (first, last) = spans.find(same).unwrap_or((seconds, seconds));
        self.known = first.saturating_mul(SECOND)..=last.saturating_mul(SECOND).saturating_add(SECOND - 1);
        self.offset = offset * SECOND;
    }
}

/// A name that the time zone database does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownZone {
    pub name: String,
    /// The name that was probably meant.
    pub nearest: Option<&'static str>,
}

impl UnknownZone {
    /// What to write instead.
    pub fn help(&self) -> String {
        match self.nearest {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => "write a name of the IANA time zone database, such as \"Europe/Berlin\"".to_owned(),
        }
    }
}

impl fmt::Display for UnknownZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown time zone `{}`: {}", self.name, self.help())
    }
}

impl std::error::Error for UnknownZone {}

/// A zone of that city, or else the name with the fewest differences.
fn nearest_name(written: &str) -> Option<&'static str> {
    let written = written.trim().to_lowercase().replace([' ', '-'], "_");
    let lower: Vec<(String, &'static str)> =
        TZ_VARIANTS.iter().map(|zone| (zone.name().to_lowercase(), zone.name())).collect();
    let city = |name: &str| name.rsplit('/').next() == Some(&*written);
    if let Some((_, name)) = lower.iter().find(|(name, _)| city(name)) {
        return Some(*name);
    }
    let known: Vec<_> = lower.iter().map(|(name, _)| &**name).collect();
    let nearest = nearest::nearest(&written, &known)?;
    lower.iter().find(|(name, _)| name == nearest).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const HOUR: i64 = 3_600 * SECOND;
    const DAY: i64 = 24 * HOUR;
    /// The days of the calendar, as `chunk::day_of` gives them.
    const DAYS: RangeInclusive<i32> = -719_162..=2_932_896;

    fn zone(name: &str) -> Zone {
        Zone::parse(name).unwrap()
    }

    /// An instant such as `2025-03-30T01:00:00Z`.
    fn instant(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros()
    }

    fn day(text: &str) -> i32 {
        day_of(instant(&format!("{text}T00:00:00Z")))
    }

    #[track_caller]
    fn check_day(name: &str, date: &str, start: &str, hours: f64) {
        let (zone, date) = (zone(name), day(date));
        let (first, end) = (zone.start_of_day(date), zone.start_of_day(date + 1));
        assert_eq!(first, instant(start), "{}", DateTime::from_timestamp_micros(first).unwrap());
        assert_eq!((end - first) as f64 / HOUR as f64, hours);
        for (instant, expected) in [(first - 1, false), (first, true), (end - 1, true), (end, false)] {
            assert_eq!(zone.day_of(instant) == date, expected, "{}", DateTime::from_timestamp_micros(instant).unwrap());
        }
        assert_eq!(zone.end_of_day(date), end);
    }

    #[test]
    fn days_have_the_hours_that_their_zone_gives_them() {
        check_day("UTC", "2025-03-30", "2025-03-30T00:00:00Z", 24.0);
        check_day("Europe/Berlin", "2025-01-15", "2025-01-14T23:00:00Z", 24.0);
        check_day("Europe/Berlin", "2025-03-30", "2025-03-29T23:00:00Z", 23.0);
        check_day("Europe/Berlin", "2025-10-26", "2025-10-25T22:00:00Z", 25.0);
        check_day("America/New_York", "2025-03-09", "2025-03-09T05:00:00Z", 23.0);
        check_day("America/New_York", "2025-11-02", "2025-11-02T04:00:00Z", 25.0);
        check_day("Asia/Kolkata", "2025-03-30", "2025-03-29T18:30:00Z", 24.0);
        // Half an hour of daylight saving time, in the south.
        check_day("Australia/Lord_Howe", "2025-04-06", "2025-04-05T13:00:00Z", 24.5);
        check_day("Australia/Lord_Howe", "2025-10-05", "2025-10-04T13:30:00Z", 23.5);
        // Clocks are set forward at midnight: the day begins at one o'clock.
        check_day("America/Havana", "2025-03-09", "2025-03-09T05:00:00Z", 23.0);
        // And set back at one o'clock: the day has two midnights.
        check_day("America/Havana", "2025-11-02", "2025-11-02T04:00:00Z", 25.0);
    }

    #[test]
    fn a_day_that_was_skipped_starts_with_the_next_one() {
        let apia = zone("Pacific/Apia");
        let skipped = day("2011-12-30");
        let change = instant("2011-12-30T10:00:00Z");
        assert_eq!(apia.start_of_day(skipped), change);
        assert_eq!(apia.start_of_day(skipped + 1), change);
        assert_eq!(apia.end_of_day(skipped), change);
        assert_eq!(apia.day_of(change - 1), skipped - 1);
        assert_eq!(apia.day_of(change), skipped + 1);
        check_day("Pacific/Apia", "2011-12-29", "2011-12-29T10:00:00Z", 24.0);
        check_day("Pacific/Apia", "2011-12-31", "2011-12-30T10:00:00Z", 24.0);
    }

    /// St. John's set its clocks back a minute after midnight.
    #[test]
    fn a_day_can_go_on_after_the_next_one_has_started() {
        let zone = zone("America/St_Johns");
        let date = day("2010-11-06");
        let next = instant("2010-11-07T02:30:00Z");
        assert_eq!(zone.start_of_day(date + 1), next);
        assert_eq!(zone.day_of(next), date + 1);
        assert_eq!(zone.day_of(next + 60 * SECOND), date);
        assert_eq!(zone.end_of_day(date), next + HOUR);
        assert_eq!(zone.day_of(next + HOUR), date + 1);
    }

    #[test]
    fn times_outside_of_the_calendar_have_its_first_or_last_day() {
        for name in ["UTC", "Europe/Berlin", "Pacific/Apia", "America/New_York"] {
            let zone = zone(name);
            let mut days = zone.days();
            for (instant, expected) in [(i64::MIN, *DAYS.start()), (i64::MAX, *DAYS.end())] {
                assert_eq!(zone.day_of(instant), expected, "{name}");
                assert_eq!(days.of(instant), expected, "{name}");
            }
            for day in [i32::MIN, i32::MAX, *DAYS.start(), *DAYS.end()] {
                assert!(zone.start_of_day(day) <= zone.end_of_day(day), "{name} {day}");
            }
        }
        // Before 1893, Berlin had its own time, 53 minutes and 28 seconds ahead.
        let berlin = zone("Europe/Berlin");
        assert_eq!(berlin.start_of_day(day("1850-06-01")), instant("1850-05-31T23:06:32Z"));
        assert_eq!(berlin.day_of(-1), 0);
        assert_eq!(berlin.day_of(-HOUR - 1), -1);
    }

    #[test]
    fn names_are_those_of_the_database() {
        let unknown = |name: &str| Zone::parse(name).unwrap_err().to_string();
        assert_eq!(unknown("Europe/Berln"), "unknown time zone `Europe/Berln`: did you mean `Europe/Berlin`?");
        assert_eq!(unknown("berlin"), "unknown time zone `berlin`: did you mean `Europe/Berlin`?");
        assert_eq!(
            unknown("america/new_york"),
            "unknown time zone `america/new_york`: did you mean `America/New_York`?"
        );
        assert_eq!(unknown("New York"), "unknown time zone `New York`: did you mean `America/New_York`?");
        let help = "write a name of the IANA time zone database, such as \"Europe/Berlin\"";
        assert_eq!(unknown("+01:00"), format!("unknown time zone `+01:00`: {help}"));
        assert_eq!(zone("Etc/UTC"), Zone::UTC);
        assert_eq!(zone("Zulu").name(), "UTC");
        assert_eq!(Zone::default(), Zone::UTC);
        assert_eq!(serde_json::to_string(&zone("Asia/Kolkata")).unwrap(), "\"Asia/Kolkata\"");
        assert_eq!(serde_json::from_str::<Zone>("\"Asia/Kolkata\"").unwrap(), zone("Asia/Kolkata"));
        assert!(serde_json::from_str::<Zone>("\"Asia/Nowhere\"").is_err());
    }

    proptest! {
        #[test]
        fn the_days_of_many_instants_are_those_of_each(
            name in 0..TZ_VARIANTS.len(),
            start in -4_000_000_000i64..4_000_000_000,
            steps in proptest::collection::vec(-2 * DAY..2 * DAY, 1..200),
        ) {
            let zone = Zone(TZ_VARIANTS[name]);
            let (mut days, mut instant) = (zone.days(), start * SECOND);
            for step in steps {
                instant += step;
                prop_assert_eq!(days.of(instant), zone.day_of(instant));
            }
        }

        #[test]
        fn an_instant_is_within_its_day(name in 0..TZ_VARIANTS.len(), seconds in -4_000_000_000i64..4_000_000_000) {
            let (zone, instant) = (Zone(TZ_VARIANTS[name]), seconds * SECOND);
            let day = zone.day_of(instant);
            prop_assert!(zone.start_of_day(day) <= instant && instant < zone.end_of_day(day));
            prop_assert!(zone.end_of_day(day) >= zone.start_of_day(day + 1));
        }
    }
}
