//! The shadow run: compares the outcomes of two plugin versions on the same events.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::outcome::Code;

/// A row by column name; a column that is absent is null.
pub type Row = Map<String, Value>;

/// The outcome of an event.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Rows(Vec<Row>),
    Dropped,
    Rejected { code: Code, reason: String },
}

/// The outcomes of one event under both versions.
#[derive(Debug, Clone)]
pub struct EventOutcomes {
    /// `topic/partition:offset`.
    pub position: String,
    pub old: Outcome,
    pub new: Outcome,
}

/// The result of a shadow run.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Shadow {
    pub events: u64,
    pub rows_old: u64,
    pub rows_new: u64,
    /// Rows that only one version returns: the difference in the number of rows, summed over all events.
    pub rows_added: u64,
    pub rows_gone: u64,
    /// Columns in which the rows of both versions differ.
    pub columns: BTreeMap<String, Difference>,
    pub rejected_old: u64,
    pub rejected_new: u64,
    pub rejects_added: u64,
    pub rejects_gone: u64,
    /// Events on which only the new version fails: it traps, takes too long or too much memory, or breaks the contract.
    pub faults_added: u64,
    /// The first event that only the new version rejects: position, code and reason.
    pub reject_example: Option<String>,
    /// The first event on which only the new version fails.
    pub fault_example: Option<String>,
    pub ns_per_event_old: f64,
    pub ns_per_event_new: f64,
}

/// How a column differs: the number of rows, and the values of the first of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Difference {
    pub rows: u64,
    pub position: String,
    pub old: Value,
    pub new: Value,
}

impl Shadow {
    /// Compares the outcomes; `old` and `new` are the times that the versions took for all events together.
    pub fn compare(events: &[EventOutcomes], old: Duration, new: Duration) -> Self {
        let per_event = |took: Duration| took.as_nanos() as f64 / events.len().max(1) as f64;
        let mut shadow = Self {
            events: events.len() as u64,
            ns_per_event_old: per_event(old),
            ns_per_event_new: per_event(new),
            ..Self::default()
        };
        for event in events {
            shadow.add(event);
        }
        shadow
    }

    fn add(&mut self, event: &EventOutcomes) {
        let (old, new) = (rows(&event.old), rows(&event.new));
        self.rows_old += old.len() as u64;
        self.rows_new += new.len() as u64;
        self.rows_added += new.len().saturating_sub(old.len()) as u64;
        self.rows_gone += old.len().saturating_sub(new.len()) as u64;
        for (old, new) in old.iter().zip(new) {
            self.compare_rows(&event.position, old, new);
        }
        let (before, now) = (reject(&event.old), reject(&event.new));
        self.rejected_old += u64::from(before.is_some());
        self.rejected_new += u64::from(now.is_some());
        if let Some((code, reason)) = now.filter(|(code, _)| code.is_fault())
            && !before.is_some_and(|(code, _)| code.is_fault())
        {
            self.faults_added += 1;
            let example = || format!("{}: {}: {reason}", event.position, code.as_str());
            self.fault_example.get_or_insert_with(example);
        }
        match (before, now) {
            (None, Some((code, reason))) => {
                let code = code.as_str();
                self.rejects_added += 1;
                self.reject_example.get_or_insert_with(|| format!("{}: {code}: {reason}", event.position));
            }
            (Some(_), None) => self.rejects_gone += 1,
            _ => {}
        }
    }

    fn compare_rows(&mut self, position: &str, old: &Row, new: &Row) {
        // A column that one row lacks is null there, as in the table.
        let names = old.keys().chain(new.keys().filter(|name| !old.contains_key(*name)));
        for name in names {
            let (before, now) = (old.get(name).unwrap_or(&Value::Null), new.get(name).unwrap_or(&Value::Null));
            if before == now {
                continue;
            }
            let difference = self.columns.entry(name.clone()).or_insert_with(|| Difference {
                rows: 0,
                position: position.to_owned(),
                old: before.clone(),
                new: now.clone(),
            });
            difference.rows += 1;
        }
    }

    /// The share of the events that the new version rejects and the old one does not.
    pub fn added_share(&self) -> f64 {
        self.rejects_added as f64 / self.events.max(1) as f64
    }

    /// The share of the events that the new version rejects.
    pub fn rejected_share(&self) -> f64 {
        self.rejected_new as f64 / self.events.max(1) as f64
    }

    /// Whether both versions have the same outcomes.
    pub fn agrees(&self) -> bool {
        let Self { rows_added, rows_gone, columns, rejects_added, rejects_gone, .. } = self;
        [rows_added, rows_gone, rejects_added, rejects_gone].iter().all(|count| **count == 0) && columns.is_empty()
    }
}

fn rows(outcome: &Outcome) -> &[Row] {
    match outcome {
        Outcome::Rows(rows) => rows,
        _ => &[],
    }
}

fn reject(outcome: &Outcome) -> Option<(Code, &str)> {
    match outcome {
        Outcome::Rejected { code, reason } => Some((*code, reason)),
        _ => None,
    }
}

impl fmt::Display for Shadow {
    /// One line; counts that did not change are left out.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if self.events == 0 {
            return f.write_str("no events to compare");
        }
        write!(f, "{} events: ", self.events)?;
        if self.agrees() {
            write!(f, "the same {} rows", self.rows_new)?;
        } else {
            write!(f, "{} rows", self.rows_new)?;
        }
        for (count, what) in [
            (self.rows_added, "rows more"),
            (self.rows_gone, "rows gone"),
            (self.rejects_added, "rejects more"),
            (self.rejects_gone, "rejects gone"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        if let Some(example) = &self.reject_example {
            write!(f, " ({})", cut(example))?;
        }
        for (name, Difference { rows, position, old, new }) in self.columns.iter().take(COLUMNS_SHOWN_MAX) {
            let (old, new) = (old.to_string(), new.to_string());
            write!(f, ", `{name}` differs in {rows} ({position}: {} → {})", cut(&old), cut(&new))?;
        }
        if self.columns.len() > COLUMNS_SHOWN_MAX {
            write!(f, ", and {} more columns", self.columns.len() - COLUMNS_SHOWN_MAX)?;
        }
        write!(f, "; {:.1} µs per event, before {:.1}", self.ns_per_event_new / 1e3, self.ns_per_event_old / 1e3)
    }
}

/// Columns that the line names.
const COLUMNS_SHOWN_MAX: usize = 8;
/// Bytes of an example.
const EXAMPLE_MAX: usize = 120;

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(EXAMPLE_MAX)]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use super::*;

    fn outcome(text: &str) -> Outcome {
        match text {
            "dropped" => Outcome::Dropped,
            text if text.starts_with('[') => Outcome::Rows(serde_json::from_str(text).unwrap()),
            text => {
                let code = if text.starts_with("trap") { Code::Trap } else { Code::Malformed };
                Outcome::Rejected { code, reason: text.to_owned() }
            }
        }
    }

    fn compare(pairs: &[(&str, &str)]) -> Shadow {
        let event = |(offset, (old, new)): (usize, &(&str, &str))| EventOutcomes {
            position: format!("t/0:{offset}"),
            old: outcome(old),
            new: outcome(new),
        };
        let events: Vec<_> = pairs.iter().enumerate().map(event).collect();
        let took = Duration::from_micros(events.len() as u64);
        Shadow::compare(&events, took, 2 * took)
    }

    #[test]
    fn equal_outcomes_agree() {
        let shadow = compare(&[(r#"[{"a": 1}]"#, r#"[{"a": 1}]"#), ("dropped", "dropped"), ("bad", "worse")]);
        assert!(shadow.agrees());
        assert_eq!(shadow.to_string(), "3 events: the same 1 rows; 2.0 µs per event, before 1.0");
        assert_eq!(shadow.rejected_share(), 1.0 / 3.0);
        assert_eq!(shadow.added_share(), 0.0);
    }

    #[test]
    fn a_shadow_run_without_events_agrees() {
        let shadow = compare(&[]);
        assert!(shadow.agrees());
        assert_eq!(shadow.to_string(), "no events to compare");
        assert_eq!((shadow.rejected_share(), shadow.added_share()), (0.0, 0.0));
    }

    #[test]
    fn faults_are_counted_where_the_old_version_has_none() {
        let shadow = compare(&[("[{}]", "trap 1"), ("bad", "trap 2"), ("trap", "trap 3"), ("trap", "bad")]);
        assert_eq!((shadow.faults_added, shadow.rejects_added), (2, 1));
        assert_eq!(shadow.fault_example.as_deref(), Some("t/0:0: trap: trap 1"));
    }

    #[test]
    fn differences_are_counted_and_shown_once() {
        let shadow = compare(&[
            (r#"[{"a": 1, "b": "x"}]"#, r#"[{"a": 2, "b": "x", "c": true}]"#),
            (r#"[{"a": 3}]"#, r#"[{"a": 4}, {"a": 5}]"#),
            (r#"[{"a": 1}]"#, "no price"),
            ("bad", r#"[{"a": 1}]"#),
            (r#"[{"a": null}]"#, "[{}]"),
        ]);
        assert_eq!((shadow.rows_old, shadow.rows_new, shadow.rows_added, shadow.rows_gone), (4, 5, 2, 1));
        assert_eq!((shadow.rejects_added, shadow.rejects_gone), (1, 1));
        assert_eq!(shadow.columns["a"].rows, 2);
        assert_eq!(shadow.columns.keys().collect::<Vec<_>>(), ["a", "c"], "an absent column is null");
        assert_eq!(
            shadow.to_string(),
            "5 events: 5 rows, 2 rows more, 1 rows gone, 1 rejects more, 1 rejects gone (t/0:2: malformed: no price), \
             `a` differs in 2 (t/0:0: 1 → 2), `c` differs in 1 (t/0:0: null → true); 2.0 µs per event, before 1.0"
        );
    }
}
