//! One raw event, as it came from Kafka.

use serde::Deserialize;
use serde_json::error::Category;

use crate::{Reject, RejectCode};

/// One raw event, as it came from Kafka.
#[derive(Clone, Copy, Debug, Default)]
pub struct Event<'a> {
    /// The record's value.
    pub value: &'a [u8],
    /// The record's key; empty if it has none.
    pub key: &'a [u8],
    /// The Kafka partition that it came from.
    pub partition: i32,
    /// Its offset in that partition.
    pub offset: i64,
    /// The timestamp that Kafka has for it, in microseconds since the Unix epoch.
    pub timestamp: i64,
}

impl<'a> Event<'a> {
    /// Reads the value as a JSON object. Strings can be borrowed from the event; see [`Text`](crate::Text).
    ///
    /// # Errors
    /// | code | if |
    /// |---|---|
    /// | `missing-field` | a field is absent that the struct has no default for |
    /// | `out-of-range` | a value is of the right type and does not fit, such as -1 into a `u32` |
    /// | `malformed` | anything else: broken JSON, a wrong type, a field that stands twice |
    pub fn json<T: Deserialize<'a>>(&self) -> Result<T, Reject> {
        // serde takes a list for a struct too, its fields in order: a row could come from values without names.
        if self.value.trim_ascii_start().first() == Some(&b'[') {
            return Err(Reject::malformed("not a JSON object"));
        }
        // Text that is UTF-8 as a whole need not be looked at again, string by string.
        let read = match std::str::from_utf8(self.value) {
            Ok(text) => serde_json::from_str(text),
            Err(_) => serde_json::from_slice(self.value),
        };
        read.map_err(|error| explain::<T>(self.value, &error))
    }
}

/// Reads the value once more, now keeping track of where in it the reader is: that costs too much for every event.
#[cold]
fn explain<'a, T: Deserialize<'a>>(value: &'a [u8], error: &serde_json::Error) -> Reject {
    let message = error.to_string();
    if error.classify() != Category::Data {
        return Reject::malformed(format!("not JSON: {message}"));
    }
    // serde's errors are text; these two beginnings are how `serde::de::Error` words its kinds.
    let code = if message.starts_with("missing field") {
        RejectCode::MissingField
    } else if message.starts_with("invalid value") {
        RejectCode::OutOfRange
    } else {
        RejectCode::Malformed
    };
    let mut reader = serde_json::Deserializer::from_slice(value);
    let path = serde_path_to_error::deserialize::<_, T>(&mut reader).err().map(|error| error.path().to_string());
    match path {
        Some(path) if path != "." => Reject::new(code, format!("{path}: {message}")),
        _ => Reject::new(code, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Text;

    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Cart<'a> {
        #[serde(borrow, default)]
        user: Text<'a>,
        items: Vec<Item>,
    }

    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Item {
        qty: u32,
    }

    #[test]
    fn a_value_that_cannot_be_read_is_told_with_its_place() {
        let check = |json: &[u8], expected: &str| {
            let reject = Event { value: json, ..Event::default() }.json::<Cart<'_>>().map(|cart| format!("{cart:?}"));
            assert_eq!(reject.map_err(|reject| reject.to_string()), Err(expected.to_owned()));
        };
        check(b"", "malformed: not JSON: EOF while parsing a value at line 1 column 0");
        check(b"{\"items\": [", "malformed: not JSON: EOF while parsing a list at line 1 column 11");
        check(b"{\"items\": []} x", "malformed: not JSON: trailing characters at line 1 column 15");
        check(b"{\"user\": \"\xff\"}", "malformed: not JSON: invalid unicode code point at line 1 column 11");
        check(b" [\"user-1\", []]", "malformed: not a JSON object");
        check(b"17", "malformed: invalid type: integer `17`, expected struct Cart at line 1 column 2");
        check(b"{}", "missing-field: missing field `items` at line 1 column 2");
        check(
            b"{\"user\": 1, \"items\": []}",
            "malformed: user: invalid type: integer `1`, expected a string at line 1 column 10",
        );
        check(b"{\"items\": [{\"qty\": 1}, {}]}", "missing-field: items[1]: missing field `qty` at line 1 column 25");
        check(
            b"{\"items\": [{\"qty\": -1}]}",
            "out-of-range: items[0].qty: invalid value: integer `-1`, expected u32 at line 1 column 21",
        );
        check(
            b"{\"items\": [{\"qty\": 1.5}]}",
            "malformed: items[0].qty: invalid type: floating point `1.5`, expected u32 at line 1 column 22",
        );
    }
}
