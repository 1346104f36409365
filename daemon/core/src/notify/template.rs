//! `template` of a webhook: a JSON document with placeholders such as `{summary}`.

use std::fmt;
use std::ops::Range;

use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::{Notification, NotifiedState, Severity, rfc3339, text_of};
use crate::config::nearest;
use crate::zone::Zone;

/// A JSON document with placeholders.
///
/// | written | within a JSON string | outside of one |
/// |---|---|---|
/// | `{summary}` | the text, escaped | a JSON string |
/// | `{repeat}` | its digits | a number |
/// | `{values.orders}` | its text, escaped; nothing without such a value | the value; `null` without such a value |
/// | `{{summary}}` | the text `{summary}` | the same |
///
/// So what is sent is JSON for every notification, whatever its texts contain.
#[derive(Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    InString(Field),
    Value(Field),
}

#[derive(Clone, PartialEq, Eq)]
enum Field {
    Id,
    Alert,
    State,
    Severity,
    Summary,
    Description,
    Since,
    At,
    Repeat,
    Url,
    /// All of them, as an object.
    Values,
    OneValue(String),
}

/// What is wrong with a template, and the bytes of it where that is.
#[derive(Debug, PartialEq, Eq)]
pub struct TemplateFault {
    pub at: Range<usize>,
    pub message: String,
    pub label: &'static str,
    pub help: String,
}

const NAMES: [&str; 11] =
    ["id", "alert", "state", "severity", "summary", "description", "since", "at", "repeat", "url", "values"];

impl Template {
    pub fn parse(text: &str) -> Result<Self, TemplateFault> {
        let (mut parts, mut plain) = (Vec::new(), String::new());
        let mut context = Context::default();
        let mut at = 0;
        while let Some(character) = text[at..].chars().next() {
            let rest = &text[at..];
            if let Some(name) = rest.strip_prefix('{').and_then(literal_name) {
                plain.push_str(&format!("{{{name}}}"));
                at += name.len() + "{{}}".len();
            } else if let Some(name) = placeholder_name(rest) {
                let end = at + name.len() + "{}".len();
                let field = Field::parse(name).ok_or_else(|| unknown(name, at..end))?;
                if !plain.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut plain)));
                }
                parts.push(if context.in_string { Part::InString(field) } else { Part::Value(field) });
                at = end;
            } else {
                context.read(character);
                plain.push(character);
                at += character.len_utf8();
            }
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        let template = Self(parts);
        template.check(text)?;
        Ok(template)
    }

    /// The document for a notification; its times are those of the zone.
    pub fn render(&self, notification: &Notification, zone: Zone) -> String {
        let mut document = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => document.push_str(text),
                Part::Value(field) => document.push_str(&field.value(notification, zone).to_string()),
                Part::InString(field) => document.push_str(&escaped(&field.value(notification, zone))),
            }
        }
        document
    }

    /// Whether documents are JSON: a value is a text or something else, and may be absent.
    fn check(&self, text: &str) -> Result<(), TemplateFault> {
        let names = self.0.iter().filter_map(|part| match part {
            Part::InString(Field::OneValue(name)) | Part::Value(Field::OneValue(name)) => Some(name.clone()),
            _ => None,
        });
        let names: Vec<String> = names.collect();
        for value in [Some(json!("text")), Some(json!(1)), None] {
            let values = value.iter().flat_map(|value| names.iter().map(move |name| (name.clone(), value.clone())));
            let sample = Notification {
                id: String::new(),
                alert: String::new(),
                state: NotifiedState::Test,
                severity: Severity::Warning,
                summary: String::new(),
                description: String::new(),
                since_ms: 0,
                at_ms: 0,
                repeat: 0,
                values: values.collect(),
                url: value.as_ref().map(|_| "https://localhost".to_owned()),
            };
            if let Err(error) = serde_json::from_str::<IgnoredAny>(&self.render(&sample, Zone::UTC)) {
                return Err(TemplateFault {
                    at: 0..text.len(),
                    message: format!("the template does not give JSON: {error}"),
                    label: "expected a JSON document with placeholders",
                    help: "write a document such as '{\"text\": \"{summary}\"}'; a placeholder outside of quotes is a \
                           JSON value"
                        .to_owned(),
                });
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Template {
    /// It may contain a key of the service.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Field {
    fn parse(name: &str) -> Option<Self> {
        if let Some(value) = name.strip_prefix("values.") {
            return Some(Field::OneValue(value.to_owned()));
        }
        Some(match name {
            "id" => Field::Id,
            "alert" => Field::Alert,
            "state" => Field::State,
            "severity" => Field::Severity,
            "summary" => Field::Summary,
            "description" => Field::Description,
            "since" => Field::Since,
            "at" => Field::At,
            "repeat" => Field::Repeat,
            "url" => Field::Url,
            "values" => Field::Values,
            _ => return None,
        })
    }

    fn value(&self, notification: &Notification, zone: Zone) -> Value {
        let of = notification;
        match self {
            Field::Id => json!(of.id),
            Field::Alert => json!(of.alert),
            Field::State => json!(of.state.as_str()),
            Field::Severity => json!(of.severity.as_str()),
            Field::Summary => json!(of.summary),
            Field::Description => json!(of.description),
            Field::Since => json!(rfc3339(of.since_ms, zone)),
            Field::At => json!(rfc3339(of.at_ms, zone)),
            Field::Repeat => json!(of.repeat),
            Field::Url => json!(of.url),
            Field::Values => Value::Object(of.values.clone()),
            Field::OneValue(name) => of.values.get(name).cloned().unwrap_or_default(),
        }
    }
}

/// Whether a part of a JSON document is within a string.
#[derive(Default)]
struct Context {
    in_string: bool,
    /// After a backslash.
    is_escaped: bool,
}

impl Context {
    fn read(&mut self, character: char) {
        match (self.in_string, character) {
            (true, _) if self.is_escaped => self.is_escaped = false,
            (true, '\\') => self.is_escaped = true,
            (_, '"') => self.in_string = !self.in_string,
            _ => {}
        }
    }
}

/// `summary` of `{summary}` at the start of the text.
fn placeholder_name(text: &str) -> Option<&str> {
    let (name, _) = text.strip_prefix('{')?.split_once('}')?;
    let (first, value) = name.split_once('.').unwrap_or((name, "x"));
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    let is_name = !first.is_empty() && first.bytes().all(is_word);
    let is_value = !value.is_empty() && !value.contains(['{', '"', '\\']) && !value.contains(char::is_control);
    (is_name && is_value).then_some(name)
}

/// `summary` of `{summary}}`, what follows the first brace of `{{summary}}`.
fn literal_name(text: &str) -> Option<&str> {
    let name = placeholder_name(text)?;
    text[name.len() + "{}".len()..].starts_with('}').then_some(name)
}

/// The text of a value as a part of a JSON string.
fn escaped(value: &Value) -> String {
    let text = if value.is_null() { String::new() } else { text_of(value) };
    let quoted = Value::String(text).to_string();
    quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or_default().to_owned()
}

fn unknown(name: &str, at: Range<usize>) -> TemplateFault {
    let help = match nearest::nearest(name, &NAMES) {
        Some(nearest) => format!("did you mean `{{{nearest}}}`?"),
        None => format!("the placeholders are {}, and `values.NAME` for one value", nearest::list(&NAMES)),
    };
    let message = format!("unknown placeholder `{{{name}}}`");
    TemplateFault { at, message, label: "not a part of a notification", help }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::super::tests::{berlin, notification};
    use super::*;

    #[track_caller]
    fn check(template: &str, expected: &str) {
        let template = Template::parse(template).unwrap();
        assert_eq!(template.render(&notification(NotifiedState::Firing), berlin()), expected);
    }

    #[test]
    fn placeholders_are_replaced() {
        check("{summary}", "\"no orders for 15 minutes\"");
        check(
            "{\"text\": \"{alert} is {state}: {summary}\", \"n\": {values.orders}, \"of\": \"{values.shop}\"}",
            "{\"text\": \"no_orders is firing: no orders for 15 minutes\", \"n\": 0, \"of\": \"A & B <x>\"}",
        );
        check("{\"a\": {\"b\": {description}}}", "{\"a\": {\"b\": \"See the runbook.\\nCall the shop.\"}}");
        check(
            "[{repeat}, \"{repeat}\", {since}, {at}]",
            "[0, \"0\", \"2026-11-29T10:45:00+01:00\", \"2026-11-29T11:00:00+01:00\"]",
        );
        check("[{values.none}, \"{values.none}\"]", "[null, \"\"]");
        check(
            "{\"{{alert}}\": {id}, \"{{ }}\": \"\\\"{severity}\"}",
            "{\"{alert}\": \"0a1b2c\", \"{{ }}\": \"\\\"critical\"}",
        );
        let template = Template::parse("{values}").unwrap();
        let values = template.render(&notification(NotifiedState::Firing), Zone::UTC);
        assert_eq!(serde_json::from_str::<Value>(&values).unwrap(), json!({ "orders": 0, "shop": "A & B <x>" }));
    }

    #[track_caller]
    fn check_fault(template: &str, at: &str, message: &str) {
        let fault = Template::parse(template).unwrap_err();
        assert_eq!(&template[fault.at.clone()], at, "{fault:?}");
        assert!(format!("{}; {}", fault.message, fault.help).starts_with(message), "{fault:?}");
    }

    #[test]
    fn faults_are_reported_with_their_places() {
        check_fault("{\"ä\": \"{sumary}\"}", "{sumary}", "unknown placeholder `{sumary}`; did you mean `{summary}`?");
        check_fault("{\"a\": {value.x}}", "{value.x}", "unknown placeholder `{value.x}`");
        check_fault("{summary", "{summary", "the template does not give JSON: ");
        check_fault("text: {summary}", "text: {summary}", "the template does not give JSON: expected");
        // A value need not be a text, so it cannot be a key.
        check_fault("{{values.a}: 1}", "{{values.a}: 1}", "the template does not give JSON: ");
        check_fault("", "", "the template does not give JSON: ");
    }

    #[test]
    fn a_template_is_not_shown() {
        assert_eq!(format!("{:?}", Template::parse("\"hunter2\"").unwrap()), "***");
    }

    proptest! {
        #[test]
        fn documents_are_json_whatever_the_texts_are(
            summary in any::<String>(),
            value in prop_oneof![any::<String>().prop_map(Value::from), any::<i64>().prop_map(Value::from)],
        ) {
            let template = "{\"a\": \"{summary}{values.v}\", \"b\": {values.v}, \"c\": [{summary}, {values}]}";
            let mut sent = notification(NotifiedState::Resolved);
            sent.summary = summary.clone();
            sent.values = [("v".to_owned(), value.clone())].into_iter().collect();
            let document = Template::parse(template).unwrap().render(&sent, Zone::UTC);
            let document: Value = serde_json::from_str(&document).unwrap();
            prop_assert_eq!(&document["a"], &json!(format!("{}{}", summary, text_of(&value))));
            prop_assert_eq!(&document["b"], &value);
            prop_assert_eq!(&document["c"], &json!([summary, { "v": value }]));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[{}\"a-z.\\\\ ä:,]{0,40}") {
            let _ = Template::parse(&text);
        }
    }
}
