//! Values as text, written independently of how they are read.

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// Year, month and day; see Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
pub fn calendar_day(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Hour, minute, second and microsecond in UTC.
pub fn time_of_day(micros: i64) -> (i64, i64, i64, i64) {
    let seconds = micros.div_euclid(MICROS_PER_SECOND).rem_euclid(SECONDS_PER_DAY);
    (seconds / 3_600, seconds / 60 % 60, seconds % 60, micros.rem_euclid(MICROS_PER_SECOND))
}

pub fn date(days: i64) -> String {
    let (year, month, day) = calendar_day(days);
    format!("{year:04}-{month:02}-{day:02}")
}

/// ISO 8601 in UTC, with as many decimals as are needed.
pub fn timestamp(micros: i64) -> String {
    let (hour, minute, second, fraction) = time_of_day(micros);
    let day = date(micros.div_euclid(MICROS_PER_SECOND * SECONDS_PER_DAY));
    let text = format!("{day}T{hour:02}:{minute:02}:{second:02}.{fraction:06}");
    format!("{}Z", text.trim_end_matches('0').trim_end_matches('.'))
}

pub fn money(hundredths: i128) -> String {
    let sign = if hundredths < 0 { "-" } else { "" };
    let hundredths = hundredths.unsigned_abs();
    format!("{sign}{}.{:02}", hundredths / 100, hundredths % 100)
}
