//! The record `input` of a table without a plugin: from the types in pipeline.toml to WIT.
//!
//! ```text
//! type   ::= name | "list<" type ">" | "option<" type ">" | "map<" type ">" | record
//! record ::= "{" [ field { "," field } [ "," ] ] "}"
//! field  ::= ( name | '"' any text '"' ) ":" type
//! ```

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::names::{Unique, in_wit};
use crate::wit_text::{self, contract_type, use_line};

/// Types that WIT has itself.
const PRIMITIVE: [&str; 13] =
    ["bool", "s8", "s16", "s32", "s64", "u8", "u16", "u32", "u64", "f32", "f64", "char", "string"];
/// Records within records.
const DEPTH_MAX: usize = 32;

/// Records in WIT, with those that they contain before them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InputWit {
    /// The records, indented as in an interface.
    pub records: String,
    /// The types of the contract that they use.
    pub uses: BTreeSet<&'static str>,
}

/// A type that is not valid.
#[derive(Debug, PartialEq, Eq)]
pub struct TypeError {
    /// The bytes of the type's text.
    pub at: std::ops::Range<usize>,
    pub expected: String,
    pub help: Option<String>,
}

/// A field of the input.
#[derive(Clone, Copy, Debug)]
pub struct InputField<'t> {
    /// Its key in JSON.
    pub key: &'t str,
    /// The text of its type.
    pub ty: &'t str,
    pub comment: Option<&'t str>,
}

/// The record `input` with these fields. The second part of an error is the number of the field.
pub fn input_wit(fields: &[InputField<'_>]) -> Result<InputWit, (usize, TypeError)> {
    let mut writer = Writer::default();
    let mut lines = Lines::default();
    for (number, InputField { key, ty, comment }) in fields.iter().enumerate() {
        let mut parser = Parser { text: ty, at: 0, writer: &mut writer, depth: 0 };
        let ty = parser.whole_type(key).map_err(|error| (number, error))?;
        lines.add(key, &ty, *comment);
    }
    writer.record("input".to_owned(), "What silverd reads of an event.", &lines);
    Ok(writer.wit)
}

/// An interface with the records of an input.
pub fn interface_wit(package: &str, interface: &str, input: &InputWit) -> String {
    let (uses, records) = (use_line(&input.uses), &input.records);
    format!("package {package};\n\ninterface {interface} {{\n{uses}{records}}}\n")
}

/// The fields of a record.
#[derive(Default)]
struct Lines {
    names: Unique,
    text: String,
}

impl Lines {
    fn add(&mut self, key: &str, ty: &str, comment: Option<&str>) {
        self.text += &wit_text::field(&self.names.wit(key), key, ty, comment);
    }
}

#[derive(Default)]
struct Writer {
    wit: InputWit,
    names: Unique,
}

impl Writer {
    fn record(&mut self, name: String, doc: &str, lines: &Lines) {
        let separator = if self.wit.records.is_empty() { "" } else { "\n" };
        let (name, lines) = (in_wit(&name), &lines.text);
        let _ = write!(self.wit.records, "{separator}  /// {doc}\n  record {name} {{\n{lines}  }}\n");
    }
}

struct Parser<'t, 'w> {
    text: &'t str,
    at: usize,
    writer: &'w mut Writer,
    depth: usize,
}

impl Parser<'_, '_> {
    fn whole_type(&mut self, key: &str) -> Result<String, TypeError> {
        let ty = self.ty(key)?;
        self.skip_blanks();
        match self.at == self.text.len() {
            true => Ok(ty),
            false => Err(self.error("the end of the type")),
        }
    }

    /// The type in WIT. `key` is that of the field that has it.
    fn ty(&mut self, key: &str) -> Result<String, TypeError> {
        self.skip_blanks();
        if self.text[self.at..].starts_with('{') {
            return self.record(key);
        }
        let start = self.at;
        let name = self.word();
        if PRIMITIVE.contains(&&*name) {
            return Ok(name);
        }
        if let Some(contract) = contract_type(&name) {
            self.writer.wit.uses.insert(contract);
            return Ok(name);
        }
        match &*name {
            "list" | "option" => {
                let item = self.item(key)?;
                Ok(format!("{name}<{item}>"))
            }
            "map" => {
                let item = self.item(key)?;
                Ok(format!("list<tuple<string, {item}>>"))
            }
            _ => {
                self.at = start + name.len();
                Err(unknown(start..self.at.max(start + 1).min(self.text.len()), &name))
            }
        }
    }

    fn item(&mut self, key: &str) -> Result<String, TypeError> {
        self.deeper()?;
        self.expect('<')?;
        let item = self.ty(key)?;
        self.expect('>')?;
        self.depth -= 1;
        Ok(item)
    }

    fn record(&mut self, key: &str) -> Result<String, TypeError> {
        self.deeper()?;
        self.expect('{')?;
        let name = self.writer.names.wit(&format!("input {key}"));
        let mut lines = Lines::default();
        let mut keys = BTreeSet::new();
        while !self.takes('}') {
            let start = self.at;
            let field = self.key()?;
            if !keys.insert(field.clone()) {
                return Err(TypeError {
                    at: start..self.at,
                    expected: format!("another key: the record has `{field}` already"),
                    help: None,
                });
            }
            self.expect(':')?;
            let ty = self.ty(&field)?;
            lines.add(&field, &ty, None);
            if !self.takes(',') {
                self.expect('}')?;
                break;
            }
        }
        if keys.is_empty() {
            let help = "write `json` for an object whose fields are not known";
            let at = self.at.saturating_sub(1)..self.at;
            return Err(TypeError { at, expected: "a field".to_owned(), help: Some(help.to_owned()) });
        }
        self.depth -= 1;
        self.writer.record(name.clone(), &format!("The objects in `{key}`."), &lines);
        Ok(name)
    }

    fn deeper(&mut self) -> Result<(), TypeError> {
        self.depth += 1;
        match self.depth > DEPTH_MAX {
            true => Err(self.error(&format!("at most {DEPTH_MAX} types within each other"))),
            false => Ok(()),
        }
    }

    fn key(&mut self) -> Result<String, TypeError> {
        self.skip_blanks();
        if let Some(rest) = self.text[self.at..].strip_prefix('"') {
            return match rest.find('"') {
                Some(end) if end > 0 && !rest[..end].contains('\\') => {
                    self.at += end + 2;
                    Ok(rest[..end].to_owned())
                }
                _ => Err(self.error("a key in double quotes, without a backslash")),
            };
        }
        let word = self.word();
        if word.is_empty() { Err(self.error("the key of a field")) } else { Ok(word) }
    }

    fn word(&mut self) -> String {
        self.skip_blanks();
        let rest = &self.text[self.at..];
        let end =
            rest.find(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '-' | '$' | '@')).unwrap_or(rest.len());
        self.at += end;
        rest[..end].to_owned()
    }

    fn skip_blanks(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    fn takes(&mut self, character: char) -> bool {
        self.skip_blanks();
        let takes = self.text[self.at..].starts_with(character);
        self.at += if takes { character.len_utf8() } else { 0 };
        takes
    }

    fn expect(&mut self, character: char) -> Result<(), TypeError> {
        match self.takes(character) {
            true => Ok(()),
            false => Err(self.error(&format!("`{character}`"))),
        }
    }

    fn error(&self, expected: &str) -> TypeError {
        let end = self.text[self.at..].chars().next().map_or(self.at, |next| self.at + next.len_utf8());
        TypeError { at: self.at..end, expected: expected.to_owned(), help: None }
    }
}

fn unknown(at: std::ops::Range<usize>, name: &str) -> TypeError {
    let meant = match name.to_ascii_lowercase().as_str() {
        "int" | "integer" | "bigint" | "long" | "int64" | "i64" => Some("s64"),
        "i32" | "int32" => Some("s32"),
        "uint" | "uint32" => Some("u32"),
        "uint64" => Some("u64"),
        "float" | "double" | "real" | "number" | "float64" => Some("f64"),
        "text" | "str" | "varchar" | "uuid" => Some("string"),
        "boolean" => Some("bool"),
        "datetime" | "timestamptz" | "time" => Some("timestamp"),
        "decimal" | "numeric" => Some("money"),
        "array" => Some("list<…>"),
        "object" | "any" | "struct" => Some("json"),
        _ => None,
    };
    let help = meant.map_or_else(
        || {
            "the types are bool, s8 to s64, u8 to u64, f32, f64, string, char, timestamp, date, money, json, list<T>, \
             option<T>, map<T> and { key: T }"
                .to_owned()
        },
        |meant| format!("write `{meant}`"),
    );
    let help = if name.starts_with(char::is_uppercase) && PRIMITIVE.contains(&&*name.to_lowercase()) {
        format!("write `{}`", name.to_lowercase())
    } else {
        help
    };
    TypeError { at, expected: "a type".to_owned(), help: Some(help) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn field<'t>(key: &'t str, ty: &'t str) -> InputField<'t> {
        InputField { key, ty, comment: None }
    }

    #[test]
    fn types_become_records_of_wit() {
        let items = "list<{ sku: string, qty: u32, \"unit price\": money, size: { w: f64, h: f64 } }>";
        let fields = [
            field("order_id", "string"),
            InputField { comment: Some("Whose event."), ..field("eventId", "option<string>") },
            field("ts", "timestamp"),
            field("type", "string"),
            field("line_items", items),
            field("labels", "map<string>"),
        ];
        let wit = input_wit(&fields).unwrap();
        let text = interface_wit("silverd:sql", "orders", &wit);
        let expected = r#"package silverd:sql;

interface orders {
  use silverd:pipeline/types@0.2.0.{money, timestamp};

  /// The objects in `size`.
  record input-size {
    w: f64,
    h: f64,
  }

  /// The objects in `line_items`.
  record input-line-items {
    sku: string,
    qty: u32,
    /// @name("unit price")
    unit-price: money,
    size: input-size,
  }

  /// What silverd reads of an event.
  record input {
    order-id: string,
    /// Whose event.
    /// @name("eventId")
    event-id: option<string>,
    ts: timestamp,
    %type: string,
    line-items: list<input-line-items>,
    labels: list<tuple<string, string>>,
  }
}
"#;
        assert_eq!(text, expected);
    }

    #[test]
    fn wrong_types_are_errors_with_a_place() {
        for (text, at, expected) in [
            ("int", 0..3, "a type"),
            ("", 0..0, "a type"),
            ("list<string", 11..11, "`>`"),
            ("list string", 5..6, "`<`"),
            ("string string", 7..8, "the end of the type"),
            ("{ a string }", 4..5, "`:`"),
            ("{ a: string, a: u8 }", 13..14, "another key: the record has `a` already"),
            ("{ }", 2..3, "a field"),
            ("{ a: string b: u8 }", 12..13, "`}`"),
            ("list<größe>", 5..12, "a type"),
        ] {
            let (number, error) = input_wit(&[field("x", "u8"), field("f", text)]).unwrap_err();
            assert_eq!((number, error.at, &*error.expected), (1, at, expected), "{text}");
        }
        let deep = "list<".repeat(40);
        input_wit(&[field("f", &deep)]).unwrap_err();
    }
}
