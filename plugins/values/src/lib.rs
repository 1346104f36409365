//! Reads a JSON scalar as a typed value. The daemon and the plugin SDK both read values with this crate, so that a form
//! has one meaning. `docs/values.md` lists every form with an example; a test of this crate checks each of its rows.
//!
//! - Integers and amounts of money are read exactly, by integer arithmetic.
//! - A form with several meanings is read only where one of them is the usual one, and the page states which. Otherwise it
//!   is [`MismatchKind::Malformed`].
//! - `null` and blank text are the caller's business, because only the caller knows whether the value is required. All
//!   functions answer `Malformed` for them.
//! - No function allocates or panics, whatever the text.
//!
//! ```
//! use silverd_values::{Scalar, money, timestamp};
//!
//! assert_eq!(timestamp(Scalar::Text("1970-01-01T01:00:01+01:00")), Ok(1_000_000));
//! assert_eq!(money(Scalar::Number("19.99")), Ok(1_999));
//! assert!(timestamp(Scalar::Text("yesterday")).is_err());
//! ```

#![deny(missing_docs)]

mod boolean;
mod decimal;
mod money;
mod number;
mod text;
mod time;

pub use boolean::boolean;
pub use money::{money, money_from_f64};
pub use number::{float, signed, unsigned};
pub use text::{text, trim};
pub use time::{date, timestamp};

/// A JSON scalar, as it stands in the event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// The number's text as written, valid by JSON's grammar: `-1.50e3`.
    Number(&'a str),
    /// The string's content, escapes resolved.
    Text(&'a str),
}

/// Why a value does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// What is wrong with it.
    pub kind: MismatchKind,
    /// What was expected, for a sentence `expected {expected}, found ...`.
    pub expected: &'static str,
}

/// What is wrong with a value that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MismatchKind {
    /// Wrong type or not readable.
    Malformed,
    /// The right type, not representable.
    OutOfRange,
}

impl Mismatch {
    const fn malformed(expected: &'static str) -> Self {
        Self { kind: MismatchKind::Malformed, expected }
    }

    const fn out_of_range(expected: &'static str) -> Self {
        Self { kind: MismatchKind::OutOfRange, expected }
    }
}
