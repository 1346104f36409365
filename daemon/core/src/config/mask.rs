//! Hides passwords in the text before a line of it is shown to anyone.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::env;

/// A key whose name contains one of these words is treated as that of a secret.
const WORDS: [&str; 11] = [
    "password",
    "secret",
    "token",
    "key",
    "passphrase",
    "credential",
    "jaas",
    "oauthbearer",
    // Who knows its URL can post there.
    "webhook",
    // Those of a webhook.
    "headers",
    "authorization",
];

const STARS: &str = "***";

/// A copy of a text with the same lines, in which every secret is `***`.
pub(super) struct Masked {
    text: String,
    masks: Vec<Mask>,
}

struct Mask {
    /// Bytes of the original.
    secret: Range<usize>,
    /// Bytes of the masked text.
    stars: Range<usize>,
    /// Where the masked text continues with the original.
    end: usize,
}

impl Masked {
    pub(super) fn new(original: &str) -> Self {
        let mut masked = Masked { text: String::with_capacity(original.len()), masks: Vec::new() };
        let mut at = 0;
        for secret in secrets(original) {
            masked.text.push_str(&original[at..secret.start]);
            let start = masked.text.len();
            masked.text.push_str(STARS);
            let stars = start..masked.text.len();
            masked.text.push_str(&filling(&original[secret.clone()], &original[secret.end..]));
            at = secret.end;
            masked.masks.push(Mask { secret, stars, end: masked.text.len() });
        }
        masked.text.push_str(&original[at..]);
        masked
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The place in the masked text; valid for every span.
    pub(super) fn map(&self, span: &Range<usize>) -> Range<usize> {
        let start = match self.masks.iter().rfind(|mask| mask.secret.start <= span.start) {
            Some(mask) if span.start < mask.secret.end => mask.stars.start,
            Some(mask) => mask.end + (span.start - mask.secret.end),
            None => span.start,
        };
        let end = match self.masks.iter().rfind(|mask| mask.secret.start < span.end) {
            Some(mask) if span.end <= mask.secret.end => mask.stars.end,
            Some(mask) => mask.end + (span.end - mask.secret.end),
            None => span.end,
        };
        let start = self.floor_boundary(start);
        start..self.floor_boundary(end).max(start)
    }

    fn floor_boundary(&self, at: usize) -> usize {
        (0..=at.min(self.text.len())).rev().find(|&at| self.text.is_char_boundary(at)).unwrap_or(0)
    }
}

/// Keeps the number of lines, and the columns of the text that follows the secret on its line.
/// If nothing follows, not even the secret's length is shown.
fn filling(secret: &str, after: &str) -> String {
    let rest = after.lines().next().unwrap_or("").trim_start();
    match secret.matches('\n').count() {
        0 if rest.is_empty() || rest.starts_with('#') => String::new(),
        0 => " ".repeat(secret.chars().count().saturating_sub(STARS.len())),
        breaks => "\n".repeat(breaks),
    }
}

/// The places of all secrets, in order and without overlaps.
pub(super) fn secrets(text: &str) -> Vec<Range<usize>> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    let mut found = Vec::new();
    in_table(tree.get_ref(), Parent::Root, false, &mut found);
    if !errors.is_empty() {
        // The tree does not have the text that the parser dropped, and a syntax error shows just that.
        in_lines(text, &mut found);
    }
    found.sort_by_key(|secret| secret.start);
    let mut apart: Vec<Range<usize>> = Vec::new();
    for secret in found {
        match apart.last_mut() {
            Some(last) if secret.start <= last.end => last.end = last.end.max(secret.end),
            _ => apart.push(secret),
        }
    }
    apart
}

/// What contains a value: the names of tables and of reference files say nothing about their contents.
#[derive(Clone, Copy, PartialEq)]
enum Parent {
    Root,
    Silver,
    SilverTable,
    Http,
    HttpTokens,
    HttpToken,
    Notify,
    Receiver,
    Other,
}

fn in_table(table: &DeTable, parent: Parent, hidden: bool, found: &mut Vec<Range<usize>>) {
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        let below = match (parent, name) {
            // The condition `key` is no secret, either.
            (Parent::SilverTable, "reference" | "match") => continue,
            // Paths, and names.
            (Parent::Http, "tls") | (Parent::Http | Parent::HttpToken, "token_file") => continue,
            (Parent::Receiver, "webhook_file" | "secret_file" | "password_file") => continue,
            (Parent::Http, "tokens") => Parent::HttpTokens,
            (Parent::HttpTokens, _) => Parent::HttpToken,
            (Parent::Root, "http") => Parent::Http,
            (Parent::Root, "notify") => Parent::Notify,
            (Parent::Notify, _) => Parent::Receiver,
            (Parent::Root, "silver" | "gold" | "panel") => Parent::Silver,
            (Parent::Silver, _) => Parent::SilverTable,
            _ => Parent::Other,
        };
        let is_name = matches!(
            (parent, below),
            (Parent::Silver | Parent::HttpTokens | Parent::Notify, _) | (_, Parent::HttpTokens)
        );
        // A token instead of a section is a token, too.
        let is_token = parent == Parent::HttpTokens && !value.get_ref().is_table();
        let hidden = hidden || is_token || (!is_name && names_secret(name));
        in_value(value, below, hidden, found);
    }
}

fn in_value(value: &Spanned<DeValue>, below: Parent, hidden: bool, found: &mut Vec<Range<usize>>) {
    match value.get_ref() {
        DeValue::Table(table) => in_table(table, below, hidden, found),
        DeValue::Array(array) => {
            for element in array.iter() {
                in_value(element, below, hidden, found);
            }
        }
        DeValue::String(text) if text.is_empty() || env::is_reference(text) => {}
        _ if hidden && !value.span().is_empty() => found.push(value.span()),
        _ => {}
    }
}

/// Finds secrets in text that is not TOML: `password: x`, `password "x"`, `password = "x` and the like.
fn in_lines(text: &str, found: &mut Vec<Range<usize>>) {
    let mut at = 0;
    let mut hidden_section = false;
    for line in text.split_inclusive('\n') {
        let mut start = at;
        at += line.len();
        let mut line = line;
        if line.trim_start().starts_with('[') {
            hidden_section = (line.contains("source") || line.contains("notify.")) && names_secret(line);
            let header = line.find(']').map_or(line.len(), |end| end + 1);
            (start, line) = (start + header, &line[header..]);
        }
        let value = match value_of_secret_key(line) {
            None if hidden_section => line.find(['=', ':']).map(|sign| sign + 1),
            value => value,
        };
        if let Some(value) = value {
            found.extend(unfinished_value(text, start + value));
        }
    }
}

/// The value after a secret's key: to the end of its line, or of the lines that it may continue on.
fn unfinished_value(text: &str, from: usize) -> Option<Range<usize>> {
    let start = text.len() - text[from..].trim_start_matches([' ', '\t', '=', ':', '\r', '\n']).len();
    let line_end = |at: usize| text[at..].find('\n').map_or(text.len(), |end| at + end);
    let line = &text[start..line_end(start)];
    let quotes = ["\"\"\"", "'''"].iter().filter_map(|quotes| Some((start + line.find(quotes)? + 3, *quotes))).min();
    let end = match quotes {
        Some((opened, quotes)) => text[opened..].find(quotes).map_or(text.len(), |end| line_end(opened + end)),
        // The end is missing.
        None if line.starts_with(['[', '{']) && !line.contains([']', '}']) => text.len(),
        None => line_end(start),
    };
    let written = text[start..end].trim();
    let shown = env::is_reference(written.trim_matches(['"', '\'']));
    (!written.is_empty() && !shown).then_some(start..end)
}

/// Where the key ends, if this line has a key that names a secret.
fn value_of_secret_key(line: &str) -> Option<usize> {
    let lower = line.to_ascii_lowercase();
    let words = WORDS.iter().flat_map(|word| lower.match_indices(word).map(|(at, word)| (at, at + word.len())));
    let is_key = |(at, _): &(usize, usize)| {
        let before = lower[..*at].rsplit(['{', ',']).next().unwrap_or("");
        !before.contains(['=', ':'])
    };
    let end = words.filter(is_key).map(|(_, end)| end).min()?;
    let rest = line[end..].trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "_-.\"']".contains(c));
    Some(line.len() - rest.len())
}

fn names_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    WORDS.iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(Masked::new(text).text(), expected, "{text}");
        assert_eq!(expected.matches('\n').count(), text.matches('\n').count(), "{text}");
    }

    #[test]
    fn secrets_in_toml_are_hidden() {
        check("[source.kafka]\n\"sasl.password\" = \"hunter2\" # x", "[source.kafka]\n\"sasl.password\" = *** # x");
        check("[source.kafka]\nsasl.password = 'hunter2'\na = 1", "[source.kafka]\nsasl.password = ***\na = 1");
        check("[source.kafka.ssl.key]\npem = '''\nhunter2\n'''\n", "[source.kafka.ssl.key]\npem = ***\n\n\n");
        check(
            "source = { kafka = { sasl.password = \"hunter2\", a = 1 } }",
            "source = { kafka = { sasl.password = ***      , a = 1 } }",
        );
        check(
            "[source]\nkafka = [{ \"ssl.k\\u0065y\" = \"hunter2\" }]",
            "[source]\nkafka = [{ \"ssl.k\\u0065y\" = ***       }]",
        );
        check("[source.kafka]\na.secret = [\n'hunter2']", "[source.kafka]\na.secret = [\n***      ]");
        check("sasl.password = { a = 'hunter2' }", "sasl.password = { a = ***       }");
        check("[silver.token]\nsettings.api_key = 'hunter2'", "[silver.token]\nsettings.api_key = ***");
        check("[silver.a.settings]\napi_token = 12345678", "[silver.a.settings]\napi_token = ***");
        check(
            "[notify.webhook]\nwebhook = \"https://h/hunter2\"\nheaders = { a = 'hunter2' }\nto = ['a']",
            "[notify.webhook]\nwebhook = ***\nheaders = { a = ***       }\nto = ['a']",
        );
        check(
            "[notify.a]\nsmtp = 'b'\nuser = 'c'\npassword = 'hunter2'\n[notify.b.headers]\nA = 'hunter2'",
            "[notify.a]\nsmtp = 'b'\nuser = 'c'\npassword = ***\n[notify.b.headers]\nA = ***",
        );
    }

    #[test]
    fn other_values_are_shown() {
        for text in [
            "[source.kafka]\n\"sasl.password\" = \"${PASSWORD}\"",
            "[source.kafka]\n\"sasl.username\" = \"me\"\n\"sasl.password\" = \"\"",
            "[silver.key_events]\nplugin = \"plugins/key\"",
            "[silver.a]\nreference = { keys = \"data/keys.csv\" }\nmatch = { field = \"key\", equals = \"b\" }",
            "[source]\ntopic = \"token\"\nbroken",
            "[notify.token]\nwebhook = \"${URL}\"\nsecret_file = \"a\"\n[notify.b]\npassword_file = \"d\"",
            "[notify.b]\nwebhook_file = \"c\"",
        ] {
            check(text, text);
        }
        check("\"sasl.password\" = \"${PASSWORD:-hunter2}\"", "\"sasl.password\" = ***");
    }

    #[test]
    fn secrets_in_invalid_toml_are_hidden() {
        check("sasl.password: hunter2\nx = 1", "sasl.password: ***\nx = 1");
        check("\"sasl.password\" \"hunter2\"\n", "\"sasl.password\" ***\n");
        check("\"sasl.password\" = \"hunter2\nx = 1", "\"sasl.password\" = ***\nx = 1");
        check("\"sasl.password = hunter2\"\r\n", "\"sasl.password = ***\n");
        check("sasl.password = [ \"\"\"\nhunter2", "sasl.password = ***\n");
        check("sasl.password =\n  \"hunter2\"\nx = 1", "sasl.password =\n  ***\nx = 1");
        check("sasl.password = [\n'hunter2'\nx = 1", "sasl.password = ***\n\n");
        check("password = \"\"\"\nhunter2\n\"\"\"\nx y", "password = ***\n\n\nx y");
        check("password = '''\nhunter2\n", "password = ***\n\n");
        check("password = 'a'\npassword = 'hunter2'", "password = ***\npassword = ***");
        check("[source.kafka.ssl.key]\npem = hunter2", "[source.kafka.ssl.key]\npem = ***");
        check("[source.kafka] sasl.password hunter2", "[source.kafka] sasl.password ***");
        check("[notify.a]\nwebhook = \"https://hunter2\nx", "[notify.a]\nwebhook = ***\nx");
        check("[notify.a.headers]\nX-Any = hunter2", "[notify.a.headers]\nX-Any = ***");
        check("[notify.a]\nheaders = { Authorization = \"hunter2 }", "[notify.a]\nheaders = ***");
        check("kafka = { a = 1, sasl.password = \"hunter2 }", "kafka = { a = 1, sasl.password = ***");
    }

    #[test]
    fn places_are_mapped_to_the_masked_text() {
        let text = "source = { password = \"hunter2\", a = 1 }";
        let masked = Masked::new(text);
        for place in ["source", "a = 1", "a = 1 }"] {
            let at = text.find(place).map_or(0..0, |at| at..at + place.len());
            assert_eq!(&masked.text()[masked.map(&at)], place);
        }
        assert_eq!(&masked.text()[masked.map(&(22..31))], "***");
        assert_eq!(&masked.text()[masked.map(&(24..25))], "***");
        assert_eq!(masked.map(&(900..1000)), masked.text().len()..masked.text().len());
    }
}
