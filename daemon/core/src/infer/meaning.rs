//! What the values of a path mean, by their forms and by the name of the key.

use super::node::Node;
use super::scalar::TimeForm;
use crate::names::words;

/// From this share of readable values on, a path is what they are read as. The others are rejected one by one.
const READABLE: f64 = 0.9;
/// Fewer values than this identify events only by their form or by their name.
const ID_VALUES_MIN: u64 = 20;

/// What the values of a path look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Time(TimeForm),
    Date,
    Money,
    Uuid,
    /// Mostly distinct values.
    Id,
    /// The name of an id, and values that are there more than once.
    Reference,
    Email,
    Phone,
    Ip,
}

impl Meaning {
    pub(super) fn name(self) -> String {
        match self {
            Self::Time(form) => format!("a time ({})", form.name()),
            Self::Date => "a date".to_owned(),
            Self::Money => "money".to_owned(),
            Self::Uuid => "an id (UUID)".to_owned(),
            Self::Id => "an id".to_owned(),
            Self::Reference => "an id that repeats".to_owned(),
            Self::Email => "an email address".to_owned(),
            Self::Phone => "a phone number".to_owned(),
            Self::Ip => "an IP address".to_owned(),
        }
    }

    /// The meaning of what stands at a key. Objects and arrays have none.
    pub(super) fn of(key: &str, node: &Node) -> Option<Self> {
        let values = node.scalars() - node.blanks;
        if values == 0 || node.objects > 0 || node.arrays > 0 {
            return None;
        }
        let are = |count: u64| count as f64 >= READABLE * values as f64;
        let words = words(key);
        if let Some(form) = time_form(&words, node, &are) {
            return Some(if form == TimeForm::Day { Self::Date } else { Self::Time(form) });
        }
        if is_money(&words, node, &are) {
            return Some(Self::Money);
        }
        let forms = &node.forms;
        let by_form = [
            (forms.uuids, Self::Uuid),
            (forms.emails, Self::Email),
            (forms.ips, Self::Ip),
            (forms.phones, Self::Phone),
        ];
        if let Some((_, meaning)) = by_form.into_iter().find(|(count, _)| are(*count)) {
            return Some(meaning);
        }
        id(&words, node, values, &are)
    }
}

/// How many values silverd cannot read as the meaning says.
pub(super) fn unreadable(meaning: Meaning, node: &Node) -> u64 {
    let readable = match meaning {
        Meaning::Time(_) | Meaning::Date => node.times.iter().sum(),
        Meaning::Money => node.amounts,
        _ => return 0,
    };
    (node.scalars() - node.blanks).saturating_sub(readable)
}

/// The most frequent form of time, if the values are times. A number is one only under the name of a time.
fn time_form(words: &[String], node: &Node, are: &impl Fn(u64) -> bool) -> Option<TimeForm> {
    let counts = || TimeForm::ALL.into_iter().zip(node.times);
    let form = counts().max_by_key(|(_, count)| *count).map(|(form, _)| form)?;
    let epochs: u64 = counts().filter(|(form, _)| form.is_epoch()).map(|(_, count)| count).sum();
    (are(node.times.iter().sum()) && (epochs == 0 || names_a_time(words))).then_some(form)
}

fn names_a_time(words: &[String]) -> bool {
    const WORDS: [&str; 18] = [
        "at",
        "created",
        "date",
        "datetime",
        "epoch",
        "expires",
        "micros",
        "millis",
        "modified",
        "ms",
        "nanos",
        "since",
        "time",
        "timestamp",
        "ts",
        "until",
        "updated",
        "when",
    ];
    words.iter().any(|word| WORDS.contains(&word.as_str()))
}

/// Whole numbers alone are no money: they may be cents, or points.
fn is_money(words: &[String], node: &Node, are: &impl Fn(u64) -> bool) -> bool {
    let all_have_currency = are(node.amounts_with_currency);
    are(node.amounts) && node.amounts_with_cents > 0 && (all_have_currency || names_money(words))
}

fn names_money(words: &[String]) -> bool {
    const WORDS: [&str; 27] = [
        "amount", "balance", "charge", "cost", "costs", "credit", "debit", "discount", "due", "fee", "fees", "gross",
        "net", "paid", "payment", "price", "prices", "refund", "revenue", "salary", "shipping", "subtotal", "sum",
        "tax", "tip", "total", "vat",
    ];
    words.iter().any(|word| WORDS.contains(&word.as_str()))
}

pub(super) fn names_an_id(words: &[String]) -> bool {
    words.last().is_some_and(|last| matches!(last.as_str(), "id" | "ids" | "uuid" | "guid" | "hash" | "sku"))
}

fn id(words: &[String], node: &Node, values: u64, are: &impl Fn(u64) -> bool) -> Option<Meaning> {
    let is_named = names_an_id(words);
    let has_form = are(node.forms.ids + node.forms.uuids + if is_named { node.integers } else { 0 });
    let is_distinct = node.distinct.is_mostly_distinct();
    // A text without digits may be a word, and two values are easily different.
    let is_by_values = is_distinct && values >= ID_VALUES_MIN && are(node.forms.ids_with_digit + node.forms.uuids);
    match (has_form, is_named, is_distinct) {
        (true, true, true) => Some(Meaning::Id),
        (true, true, false) => Some(Meaning::Reference),
        (true, false, _) if is_by_values => Some(Meaning::Id),
        _ => None,
    }
}
