//! `topic`, `topics` and `topic_pattern` of `[source]`: which topics are read.

use std::fmt;

use regex::Regex;

use super::error::ConfigError;
use super::literal;
use super::read;
use super::section::Section;
use super::value::Value;
use super::walk::Walk;

/// The topics that a source reads.
#[derive(Debug, Clone, PartialEq)]
pub enum Topics {
    /// At least one, none twice.
    Names(Vec<String>),
    Pattern(TopicPattern),
}

/// A regular expression for the names of topics.
#[derive(Debug, Clone)]
pub struct TopicPattern(Regex);

impl TopicPattern {
    pub fn matches(&self, topic: &str) -> bool {
        // Kafka's own topics, such as __consumer_offsets.
        !topic.starts_with("__") && self.0.is_match(topic)
    }
}

impl PartialEq for TopicPattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Topics {
    pub fn one(name: impl Into<String>) -> Self {
        Self::Names(vec![name.into()])
    }

    /// The topics that are named: none, if there is a pattern.
    pub fn names(&self) -> &[String] {
        match self {
            Self::Names(names) => names,
            Self::Pattern(_) => &[],
        }
    }

    /// The topic, if it is exactly one.
    pub fn single(&self) -> Option<&str> {
        match self {
            Self::Names(names) if names.len() == 1 => names.first().map(String::as_str),
            Self::Names(_) | Self::Pattern(_) => None,
        }
    }
}

impl fmt::Display for Topics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Names(names) => f.write_str(&names.join(", ")),
            Self::Pattern(pattern) => f.write_str(pattern.0.as_str()),
        }
    }
}

const KEYS: [&str; 3] = ["topic", "topics", "topic_pattern"];

/// Exactly one of the three keys.
pub(super) fn topics(walk: &mut Walk, section: &Section) -> Option<Topics> {
    let given: Vec<_> = KEYS.into_iter().filter(|key| section.has(key)).collect();
    match given[..] {
        [] | ["topic"] => section.required(walk, "topic", "topic = \"events.raw\"", name).map(Topics::one),
        ["topics"] => section.optional(walk, "topics", names).map(Topics::Names),
        [_] => section.optional(walk, "topic_pattern", pattern).map(Topics::Pattern),
        [first, second, ..] => section.optional(walk, second, |walk, value| {
            let what = format!("[source] has both `{first}` and `{second}`");
            let help =
                "keep one: `topic` names one topic, `topics` several, and `topic_pattern` is a regular expression";
            walk.report(ConfigError::new(value.span(), what, "expected one of them", Some(help.to_owned())));
            None
        }),
    }
}

fn name(walk: &mut Walk, value: Value) -> Option<String> {
    read::parsed(literal::topic)(walk, value)
}

fn names(walk: &mut Walk, value: Value) -> Option<Vec<String>> {
    let help = "write a list of topics, such as [\"shop.orders\", \"shop.carts\"]";
    read::list(walk, value, "a list of topics", help, name)
}

fn pattern(walk: &mut Walk, value: Value) -> Option<TopicPattern> {
    let text = read::expanded(walk, value)?;
    match Regex::new(&text) {
        Ok(regex) => Some(TopicPattern(regex)),
        Err(error) => {
            // The last line says what is wrong; the lines before it repeat the pattern.
            let error = error.to_string();
            let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
            let what = format!("this is not a regular expression: {reason}");
            let help = r"write one in single quotes, such as '^shop\..*': a dot without \ stands for any character";
            walk.report(ConfigError::new(value.span(), what, "expected a regular expression", Some(help.to_owned())));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_leaves_out_kafkas_own_topics() {
        let pattern = TopicPattern(Regex::new("^.*s$").expect("a pattern"));
        assert!(pattern.matches("shop.orders") && !pattern.matches("shop.order"));
        assert!(!pattern.matches("__consumer_offsets"));
        assert_eq!(Topics::Names(vec!["a".to_owned(), "b".to_owned()]).to_string(), "a, b");
        assert_eq!((Topics::one("a").single(), Topics::Pattern(pattern).single()), (Some("a"), None));
    }
}
