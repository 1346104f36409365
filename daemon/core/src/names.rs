//! Names made of keys and of kinds: for columns, tables, and WIT.

use std::collections::HashSet;

use crate::config::TableName;
use crate::schema::added;

/// The longest name that is made.
const NAME_LENGTH_MAX: usize = 63;

/// The keywords of WIT; a field of such a name is written with `%`.
const WIT_KEYWORDS: [&str; 43] = [
    "as",
    "async",
    "bool",
    "borrow",
    "char",
    "constructor",
    "enum",
    "error-context",
    "export",
    "f32",
    "f64",
    "flags",
    "from",
    "func",
    "future",
    "import",
    "include",
    "interface",
    "list",
    "map",
    "option",
    "own",
    "package",
    "record",
    "resource",
    "result",
    "s16",
    "s32",
    "s64",
    "s8",
    "static",
    "stream",
    "string",
    "tuple",
    "type",
    "u16",
    "u32",
    "u64",
    "u8",
    "use",
    "variant",
    "with",
    "world",
];

/// Words that are no column's name in SQL unless they are in quotes.
const SQL_KEYWORDS: [&str; 71] = [
    "all",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "between",
    "by",
    "case",
    "cast",
    "cluster",
    "connect",
    "create",
    "cross",
    "current_date",
    "current_time",
    "current_timestamp",
    "date",
    "delete",
    "desc",
    "distinct",
    "distribute",
    "drop",
    "else",
    "end",
    "except",
    "exists",
    "explain",
    "extract",
    "false",
    "fetch",
    "for",
    "from",
    "full",
    "group",
    "having",
    "in",
    "inner",
    "insert",
    "intersect",
    "interval",
    "into",
    "is",
    "join",
    "lateral",
    "left",
    "like",
    "limit",
    "minus",
    "natural",
    "not",
    "null",
    "offset",
    "on",
    "or",
    "order",
    "outer",
    "partition",
    "right",
    "select",
    "set",
    "table",
    "then",
    "time",
    "timestamp",
    "true",
    "union",
    "user",
    "when",
    "where",
];

/// The words of a name, in lower case: those of `eventId`, `event-id` and `EVENT_ID` are `event` and `id`.
pub(crate) fn words(name: &str) -> Vec<String> {
    let characters: Vec<char> = name.chars().collect();
    let (mut words, mut word) = (Vec::new(), String::new());
    for (at, character) in characters.iter().enumerate() {
        let before = at.checked_sub(1).map(|before| characters[before]);
        let after = characters.get(at + 1);
        // A capital begins a word after a small letter, and before one: `userID`, `HTTPStatus`.
        let begins = character.is_ascii_uppercase()
            && before.is_some_and(|before| {
                before.is_ascii_lowercase()
                    || before.is_ascii_digit()
                    || (before.is_ascii_uppercase() && after.is_some_and(char::is_ascii_lowercase))
            });
        if (begins || !character.is_ascii_alphanumeric()) && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if character.is_ascii_alphanumeric() {
            word.push(character.to_ascii_lowercase());
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

/// Names, each given once.
#[derive(Debug, Default)]
pub(crate) struct Unique(HashSet<String>);

impl Unique {
    /// Names other than these columns, which silverd adds.
    pub(crate) fn without(columns: &[&str]) -> Self {
        Self(columns.iter().map(|column| column.replace('_', "-")).collect())
    }

    /// The name, or with the next number after it.
    fn give(
        &mut self,
        name: String,
        numbered: impl Fn(&str, usize) -> String,
        is_free: impl Fn(&str) -> bool,
    ) -> String {
        let mut given = name.clone();
        let mut number = 2;
        while !is_free(&given) || self.0.contains(&given) {
            given = numbered(&name, number);
            number += 1;
        }
        self.0.insert(given.clone());
        given
    }

    /// A column's name: the key, if it is one, or else its words in snake case.
    pub(crate) fn column(&mut self, key: &str) -> String {
        let snake = || truncated(&letter_first(&words(key).join("_"), "field"), NAME_LENGTH_MAX);
        let name = if is_plain_column(key) { key.to_owned() } else { snake() };
        self.give(name, |name, number| format!("{name}_{number}"), |name| !added::ALL.contains(&name))
    }

    /// The name of a table.
    pub(crate) fn table(&mut self, kind: &str) -> String {
        let name = truncated(&letter_first(&words(kind).join("_"), "events"), NAME_LENGTH_MAX);
        let numbered =
            |name: &str, number: usize| format!("{}_{number}", truncated(name, NAME_LENGTH_MAX - "_999".len()));
        let name = if TableName::new(&name).is_some() { name } else { format!("{name}_events") };
        self.give(name, numbered, |name| TableName::new(name).is_some())
    }

    /// A name in WIT, in kebab case. Every word of such a name begins with a letter.
    pub(crate) fn wit(&mut self, name: &str) -> String {
        let mut kebab = String::new();
        for word in words(name) {
            let joins = kebab.is_empty() || word.starts_with(|first: char| first.is_ascii_digit());
            kebab.push_str(if joins { "" } else { "-" });
            kebab.push_str(&word);
        }
        let name = truncated(&letter_first(&kebab, "field"), NAME_LENGTH_MAX);
        self.give(name, |name, number| format!("{name}-n{number}"), |_| true)
    }
}

/// The name with a word before it if it does not begin with a letter.
fn letter_first(name: &str, word: &str) -> String {
    match name.chars().next() {
        None => word.to_owned(),
        Some(first) if first.is_ascii_alphabetic() => name.to_owned(),
        Some(_) => format!("{word}{name}"),
    }
}

/// Names are ASCII.
fn truncated(name: &str, length_max: usize) -> String {
    name[..name.len().min(length_max)].trim_end_matches(['-', '_']).to_owned()
}

/// Whether WIT has the word itself.
pub fn is_wit_keyword(name: &str) -> bool {
    WIT_KEYWORDS.contains(&name)
}

/// A name as it stands in WIT: a keyword has a `%` before it.
pub(crate) fn in_wit(name: &str) -> String {
    if is_wit_keyword(name) { format!("%{name}") } else { name.to_owned() }
}

/// The key that a WIT name stands for, unless a line `@name` says otherwise.
pub(crate) fn key_of_wit(name: &str) -> String {
    name.replace('-', "_")
}

/// Whether a key is a name that SQL takes without quotes, and keeps as it is.
pub(crate) fn is_plain_column(key: &str) -> bool {
    let is_name = key.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
        && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    is_name && !SQL_KEYWORDS.contains(&key)
}
