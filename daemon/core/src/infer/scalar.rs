//! What one scalar value looks like, whatever its path.

use silverd_values::{Scalar, money, timestamp};

/// The forms of a time, as producers write them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeForm {
    Iso,
    IsoWithoutZone,
    IsoBasic,
    /// `2019-10-01 00:00:00 UTC`
    Spaced,
    Rfc2822,
    Day,
    Seconds,
    Millis,
    Micros,
    Nanos,
}

impl TimeForm {
    pub(super) const ALL: [Self; 10] = [
        Self::Iso,
        Self::IsoWithoutZone,
        Self::IsoBasic,
        Self::Spaced,
        Self::Rfc2822,
        Self::Day,
        Self::Seconds,
        Self::Millis,
        Self::Micros,
        Self::Nanos,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Iso => "ISO 8601",
            Self::IsoWithoutZone => "ISO 8601 without a zone: UTC",
            Self::IsoBasic => "ISO 8601, basic form",
            Self::Spaced => "as 2019-10-01 00:00:00 UTC",
            Self::Rfc2822 => "RFC 2822",
            Self::Day => "a day",
            Self::Seconds => "epoch seconds",
            Self::Millis => "epoch milliseconds",
            Self::Micros => "epoch microseconds",
            Self::Nanos => "epoch nanoseconds",
        }
    }

    /// Whether it is a number since 1970: such a number may also be something else.
    pub(super) fn is_epoch(self) -> bool {
        matches!(self, Self::Seconds | Self::Millis | Self::Micros | Self::Nanos)
    }
}

/// Numbers since 1970 count as times only from 1990 to 2100: almost every number can be read as some time.
const EPOCH_MICROS: std::ops::Range<i64> = 631_152_000_000_000..4_102_444_800_000_000;

/// The time that a scalar is read as, in microseconds, and its form.
pub(super) fn time(value: Scalar<'_>) -> Option<(TimeForm, i64)> {
    let micros = timestamp(value).ok()?;
    let form = match value {
        Scalar::Number(number) => epoch_form(number)?,
        Scalar::Text(text) => text_form(text.trim())?,
        Scalar::Null | Scalar::Bool(_) => return None,
    };
    (!form.is_epoch() || EPOCH_MICROS.contains(&micros)).then_some((form, micros))
}

fn text_form(text: &str) -> Option<TimeForm> {
    let bytes = text.as_bytes();
    let is_number = bytes.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.');
    Some(match bytes {
        [_, _, _, _, b'-', _, _, b'-', _, _] => TimeForm::Day,
        [_, _, _, _, b'-', _, _, b'-', _, _, b' ', ..] => TimeForm::Spaced,
        [_, _, _, _, b'-', _, _, b'-', _, _, clock @ ..] => match has_zone(clock) {
            true => TimeForm::Iso,
            false => TimeForm::IsoWithoutZone,
        },
        // Eight digits are a day for silverd, and more often something else.
        _ if is_number && bytes.len() == 8 => return None,
        _ if is_number => epoch_form(text)?,
        [first, ..] if first.is_ascii_digit() && bytes.contains(&b'T') => TimeForm::IsoBasic,
        _ => TimeForm::Rfc2822,
    })
}

fn has_zone(clock: &[u8]) -> bool {
    clock.iter().skip(1).any(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'+' | b'-'))
}

/// The unit of a number since 1970, by the bounds of docs/values.md.
fn epoch_form(number: &str) -> Option<TimeForm> {
    let magnitude = number.parse::<f64>().ok()?.abs();
    Some(match magnitude {
        below if below < 1e11 => TimeForm::Seconds,
        below if below < 1e14 => TimeForm::Millis,
        below if below < 1e17 => TimeForm::Micros,
        _ => TimeForm::Nanos,
    })
}

/// How an amount of money is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Amount {
    Whole,
    /// With one or two digits after the point.
    Cents,
    /// Text with a currency.
    Currency,
}

/// The form of an amount that silverd reads without rounding.
pub(super) fn amount(value: Scalar<'_>) -> Option<Amount> {
    money(value).ok()?;
    match value {
        Scalar::Number(number) => match decimals(number)? {
            0 => Some(Amount::Whole),
            1 | 2 => Some(Amount::Cents),
            _ => None,
        },
        Scalar::Text(text) => {
            let is_plain = |character: char| character.is_ascii_digit() || " .,'+-".contains(character);
            if !text.chars().all(is_plain) {
                return Some(Amount::Currency);
            }
            let after_sign = text.trim().rsplit_once(['.', ',']).map_or(0, |(_, digits)| digits.len());
            Some(if matches!(after_sign, 1 | 2) { Amount::Cents } else { Amount::Whole })
        }
        Scalar::Null | Scalar::Bool(_) => None,
    }
}

/// The digits after the point of a JSON number; `None` if it has an exponent.
fn decimals(number: &str) -> Option<usize> {
    if number.contains(['e', 'E']) {
        return None;
    }
    Some(number.split_once('.').map_or(0, |(_, digits)| digits.trim_end_matches('0').len()))
}

/// Whether a JSON number is written as an integer.
pub(super) fn is_integer(number: &str) -> bool {
    !number.contains(['.', 'e', 'E'])
}

/// What a text may be, other than a time or an amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextForm {
    Uuid,
    /// Short, without blanks, of letters, digits and a few signs.
    Id {
        has_digit: bool,
    },
    Email,
    Phone,
    Ip,
    Other,
}

const ID_LENGTH_MAX: usize = 64;

pub(super) fn text_form_of(text: &str) -> TextForm {
    let text = text.trim();
    if is_uuid(text) {
        return TextForm::Uuid;
    }
    if text.parse::<std::net::IpAddr>().is_ok() {
        return TextForm::Ip;
    }
    if is_email(text) {
        return TextForm::Email;
    }
    if is_phone(text) {
        return TextForm::Phone;
    }
    if is_id(text) {
        return TextForm::Id { has_digit: text.bytes().any(|byte| byte.is_ascii_digit()) };
    }
    TextForm::Other
}

/// 32 hexadecimal digits in the groups of RFC 9562.
fn is_uuid(text: &str) -> bool {
    const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];
    text.len() == 36
        && text.split('-').map(str::len).eq(GROUPS)
        && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else { return false };
    let is_local = !local.is_empty() && local.len() <= 64;
    let is_domain = domain.len() <= 255
        && domain.contains('.')
        && domain.split('.').all(|label| !label.is_empty())
        && domain.chars().all(|character| character.is_alphanumeric() || matches!(character, '.' | '-'));
    is_local && is_domain && !text.contains(char::is_whitespace)
}

/// With a `+` and the code of a country; without them, digits in groups, which an id or a date do not have.
fn is_phone(text: &str) -> bool {
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    let is_sign = |character: char| matches!(character, ' ' | '-' | '.' | '/' | '(' | ')');
    let is_international = text.strip_prefix('+').unwrap_or_default();
    let rest = if is_international.is_empty() { text } else { is_international };
    let has_blank_groups = text.contains([' ', '(']) && text.starts_with(['0', '(']);
    (7..=15).contains(&digits)
        && rest.chars().all(|character| character.is_ascii_digit() || is_sign(character))
        && (!is_international.is_empty() || has_blank_groups)
}

fn is_id(text: &str) -> bool {
    let is_sign = |byte: u8| matches!(byte, b'-' | b'_' | b'.' | b':' | b'~' | b'=' | b'+');
    !text.is_empty()
        && text.len() <= ID_LENGTH_MAX
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || is_sign(byte))
}
