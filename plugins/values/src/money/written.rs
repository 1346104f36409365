//! Amounts as people write them: with a currency, with separated thousands, with a decimal comma.

use super::currency::{strip_after, strip_before};
use super::{AMBIGUOUS, MALFORMED, ordinary, rounded};
use crate::Mismatch;
use crate::decimal::Decimal;

/// The hundredths of a text that is not an ordinary number.
#[cold]
pub(super) fn amount(text: &str) -> Result<i64, Mismatch> {
    // The sign stands before the currency or after it.
    let (minus, text) = match text.as_bytes() {
        [b'-', ..] => (Some(true), text[1..].trim_start()),
        [b'+', ..] => (Some(false), text[1..].trim_start()),
        _ => (None, text),
    };
    let amount = match (strip_before(text), strip_after(text)) {
        (Some(amount), None) | (None, Some(amount)) => amount,
        (None, None) => text,
        (Some(_), Some(_)) => return Err(MALFORMED),
    };
    let (own_minus, amount) = match amount.as_bytes() {
        [b'-' | b'+', ..] if minus.is_some() => return Err(MALFORMED),
        [b'-', ..] => (true, &amount[1..]),
        [b'+', ..] => (false, &amount[1..]),
        _ => (false, amount),
    };
    let minus = minus.unwrap_or(own_minus);
    if let Some(hundredths) = ordinary(amount.as_bytes()).filter(|_| !amount.starts_with(['-', '+'])) {
        return Ok(if minus { -hundredths } else { hundredths });
    }
    if amount.is_empty() {
        return Err(MALFORMED);
    }
    rounded(&without_sign(minus, amount)?)
}

/// The amount of a text without sign and currency.
fn without_sign(negative: bool, text: &str) -> Result<Decimal, Mismatch> {
    if text.contains(['e', 'E']) {
        let mut number = Decimal::parse(text.as_bytes()).filter(|_| !text.starts_with(['-', '+'])).ok_or(MALFORMED)?;
        number.negative = negative;
        return Ok(number);
    }
    let (integer, fraction) = match decimal_sign(text) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, ""),
    };
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !(all_digits(integer) || is_grouped(integer)) || !all_digits(fraction) || text.ends_with(',') || text == "." {
        return Err(MALFORMED);
    }
    if is_first_group(integer) && fraction.len() == 3 {
        return Err(AMBIGUOUS);
    }
    Ok(Decimal::from_digits(negative, integer.as_bytes(), fraction.as_bytes()))
}

/// Where the decimal sign is: the last one of dots and commas, or the only one. Several of one kind separate thousands.
fn decimal_sign(text: &str) -> Option<usize> {
    match (text.rfind('.'), text.rfind(',')) {
        (Some(dot), Some(comma)) => Some(dot.max(comma)),
        (last, None) => last.filter(|at| text.find('.') == Some(*at)),
        (None, last) => last.filter(|at| text.find(',') == Some(*at)),
    }
}

/// Whether an integer has separators, and groups of three digits between them.
fn is_grouped(integer: &str) -> bool {
    const SEPARATORS: [char; 8] = ['.', ',', ' ', '\u{a0}', '\u{2009}', '\u{202f}', '\'', '\u{2019}'];
    let Some(separator) = integer.chars().find(|letter| SEPARATORS.contains(letter)) else { return false };
    let mut groups = integer.split(separator);
    groups.next().is_some_and(is_first_group)
        && groups.all(|group| group.len() == 3 && group.bytes().all(|byte| byte.is_ascii_digit()))
}

/// One to three digits, not a leading zero.
fn is_first_group(text: &str) -> bool {
    (1..=3).contains(&text.len()) && !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit())
}
