//! One raw Kafka record.

use serde::Deserialize;
use serde_json::error::Category;

use crate::wit::types::Header;
use crate::{Reject, RejectCode};

/// One raw Kafka record: an unparsed key and value, and where it comes from. Null and empty values differ, and so do keys.
#[derive(Clone, Copy, Debug, Default)]
pub struct Event<'a> {
    /// The topic of the record.
    pub topic: &'a str,
    /// The record's value; `None` for a tombstone.
    pub value: Option<&'a [u8]>,
    /// The record's key.
    pub key: Option<&'a [u8]>,
    /// The record's headers, in their order.
    pub headers: &'a [Header],
    /// The Kafka partition of the record.
    pub partition: i32,
    /// The record's offset in its partition.
    pub offset: i64,
    /// The record's Kafka timestamp, in microseconds since the Unix epoch.
    pub timestamp: i64,
}

impl<'a> Event<'a> {
    /// Parses the value as a JSON object. Strings can be borrowed from the event; see [`Text`](crate::Text).
    ///
    /// ```
    /// use silverd_plugin::{Text, testing};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Input<'a> {
    ///     #[serde(borrow, default)]
    ///     user_id: Text<'a>,
    ///     qty: u32,
    /// }
    ///
    /// let input: Input = testing::event(r#"{"user_id": "ann", "qty": 2}"#).json()?;
    /// assert_eq!((input.user_id.required("user_id")?, input.qty), ("ann", 2));
    /// # Ok::<(), silverd_plugin::Reject>(())
    /// ```
    ///
    /// # Errors
    /// | code | condition |
    /// |---|---|
    /// | `missing-field` | a field is absent and the struct has no default for it |
    /// | `out-of-range` | a value has the right type and does not fit, such as -1 into a `u32` |
    /// | `malformed` | anything else: broken JSON, a wrong type, a duplicate field |
    pub fn json<T: Deserialize<'a>>(&self) -> Result<T, Reject> {
        // Some producers write UTF-8's byte order mark before the JSON.
        let value = self.value.ok_or_else(|| Reject::malformed("the record has no value (a tombstone)"))?;
        let value = value.strip_prefix(b"\xef\xbb\xbf").unwrap_or(value);
        // serde also reads a struct from a JSON array, field by field in order. An event is an object.
        if value.trim_ascii_start().first() == Some(&b'[') {
            return Err(Reject::malformed("not a JSON object"));
        }
        // Checks UTF-8 once for the whole value; `from_slice` checks every string.
        let read = match std::str::from_utf8(value) {
            Ok(text) => serde_json::from_str(text),
            Err(_) => serde_json::from_slice(value),
        };
        read.map_err(|error| explain::<T>(value, &error))
    }
}

/// Parses the value again and tracks the path of the error. Tracking costs too much to do it for every event.
#[cold]
fn explain<'a, T: Deserialize<'a>>(value: &'a [u8], error: &serde_json::Error) -> Reject {
    let message = error.to_string();
    if error.classify() != Category::Data {
        return Reject::malformed(format!("not JSON: {message}"));
    }
    // `serde_json::Error` has no public kind for these; the prefixes are those of `serde::de::Error`'s constructors.
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
    fn a_byte_order_mark_is_skipped() {
        let cart: Cart<'_> = Event { value: Some(b"\xef\xbb\xbf{\"items\": []}"), ..Event::default() }.json().unwrap();
        assert!(cart.items.is_empty());
    }

    #[test]
    fn json_error_names_path_and_position() {
        let check = |json: &[u8], expected: &str| {
            let reject =
                Event { value: Some(json), ..Event::default() }.json::<Cart<'_>>().map(|cart| format!("{cart:?}"));
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
            b"{\"user\": [1], \"items\": []}",
            "malformed: user: invalid type: sequence, expected a string at line 1 column 10",
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
