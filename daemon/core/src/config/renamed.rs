//! Keys and values that had another name or form before, and the rewrite of a file that still uses them.

use std::ops::Range;

use toml::de::{DeInteger, DeTable, DeValue};

use super::error::ConfigError;
use super::literal;
use super::value::{Key, Value};

/// Every key that was renamed, and every key whose values were.
///
/// | section         | old key            | key                  | old value | value     |
/// |-----------------|--------------------|----------------------|-----------|-----------|
/// | `silver.*`      | `event_date`       | `event_time`         |           | the same  |
/// | `source`        | `expired`          | `on_data_loss`       | `"stop"`  | `"fail"`  |
/// | `gold.*`        | `days_before`      | `lookback_days`      |           | the same  |
/// | `commit`        | `interval_ms`      | `interval`           | `250`     | `"250ms"` |
/// | `limits`        | `transform_ms_max` | `transform_time_max` | `500`     | `"500ms"` |
/// | all of the rest | the same           | the same             | `1048576` | `"1MiB"`  |
static RENAMED: [Renamed; 13] = [
    Renamed::new("silver.*", "event_date", "event_time", Values::Unchanged),
    Renamed::new("source", "expired", "on_data_loss", DATA_LOSS),
    Renamed::new("source", "on_data_loss", "on_data_loss", DATA_LOSS),
    Renamed::new("gold.*", "days_before", "lookback_days", Values::Unchanged),
    Renamed::new("commit", "interval_ms", "interval", Values::Milliseconds),
    Renamed::new("limits", "transform_ms_max", "transform_time_max", Values::Milliseconds),
    Renamed::new("commit", "bytes_max", "bytes_max", Values::Bytes),
    Renamed::new("limits", "memory_bytes_max", "memory_bytes_max", Values::Bytes),
    Renamed::new("limits", "output_bytes_max", "output_bytes_max", Values::Bytes),
    Renamed::new("limits", "batch_bytes_max", "batch_bytes_max", Values::Bytes),
    Renamed::new("maintenance", "file_bytes_max", "file_bytes_max", Values::Bytes),
    Renamed::new("maintenance", "free_bytes_min", "free_bytes_min", Values::Bytes),
    Renamed::new("silver.*.dedup", "memory_bytes_max", "memory_bytes_max", Values::Bytes),
];

const DATA_LOSS: Values = Values::Words(&[("stop", "fail")]);

pub(super) struct Renamed {
    /// The path of the section, in which `*` stands for any name.
    section: &'static str,
    old: &'static str,
    pub(super) new: &'static str,
    values: Values,
}

/// How an old value becomes the current one.
enum Values {
    Unchanged,
    /// These words, old and new; all others are unchanged.
    Words(&'static [(&'static str, &'static str)]),
    /// From a number to a duration with a unit.
    Milliseconds,
    /// From a number to a size with a unit.
    Bytes,
}

/// An old value that no rule converts, such as a variable where a number was expected.
struct NotConvertible;

/// A pipeline.toml whose old keys and values were replaced by the current ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fixed {
    pub text: String,
    /// What was replaced, in the order of the file.
    pub changes: Vec<Note>,
    /// What only a person can replace, in the order of the file.
    pub remaining: Vec<Note>,
}

/// One line of the file, counted from 1, and what happened to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub line: usize,
    pub message: String,
}

/// Replaces the keys and values that were renamed. All other bytes stay as they are, and so does text that is not TOML.
///
/// Fixing the result again changes nothing.
pub fn fix(text: &str) -> Fixed {
    let (tree, errors) = DeTable::parse_recoverable(text);
    let mut rewrite = Rewrite { text, edits: Vec::new(), changes: Vec::new(), remaining: Vec::new() };
    if !errors.is_empty() {
        let at = errors.iter().filter_map(|error| Some(error.span()?.start)).min().unwrap_or(0);
        rewrite.remaining.push((at, "invalid TOML: nothing was rewritten".to_owned()));
        return rewrite.finish();
    }
    for row in &RENAMED {
        let mut tables = Vec::new();
        let path: Vec<_> = row.section.split('.').collect();
        tables_at(tree.get_ref(), &path, &mut tables);
        for table in tables {
            rewrite.apply(row, table);
        }
    }
    rewrite.finish()
}

/// The row of a key that is unknown in the section `title`, which has these `keys`.
pub(super) fn find(title: &str, keys: &[&str], key: &str) -> Option<&'static Renamed> {
    let row = RENAMED.iter().find(|row| row.old == key && row.is_in(title) && keys.contains(&row.new));
    row.filter(|row| row.renames_key())
}

/// The name that this key had before.
pub(super) fn old_name(title: &str, key: &str) -> Option<&'static str> {
    RENAMED.iter().find(|row| row.new == key && row.is_in(title) && row.renames_key()).map(|row| row.old)
}

/// The word that replaced this value of a key.
pub(super) fn current_word(key: &str, text: &str) -> Option<&'static str> {
    let row = RENAMED.iter().find(|row| row.new == key)?;
    let Values::Words(words) = row.values else { return None };
    words.iter().find(|(old, _)| *old == text).map(|(_, new)| *new)
}

impl Renamed {
    const fn new(section: &'static str, old: &'static str, new: &'static str, values: Values) -> Self {
        Renamed { section, old, new, values }
    }

    fn renames_key(&self) -> bool {
        self.old != self.new
    }

    /// Whether the section of that title can be one of this row's.
    fn is_in(&self, title: &str) -> bool {
        self.section.split('.').next() == title.split('.').next()
    }

    /// The error about the old key. `text` is the whole file; `both` is true if the section has the current key as well.
    pub(super) fn error(&self, key: Key, value: Value, text: &str, both: bool) -> ConfigError {
        let (old, new) = (self.old, self.new);
        let written = text.get(value.span()).unwrap_or_default();
        let (label, help) = match self.convert(value.get_ref(), written) {
            _ if both => (format!("`{new}` is set as well"), "remove this line".to_owned()),
            Ok(None) => (format!("expected `{new}`"), "`silverd check --fix` rewrites the file".to_owned()),
            Ok(Some(value)) => {
                (format!("expected `{new} = {value}`"), "`silverd check --fix` rewrites the file".to_owned())
            }
            Err(NotConvertible) => (format!("expected `{new}`"), self.by_hand()),
        };
        ConfigError::new(key.span(), format!("`{old}` was renamed to `{new}`"), label, Some(help))
    }

    fn by_hand(&self) -> String {
        match self.values {
            Values::Milliseconds => format!("write `{}` with {}", self.new, literal::A_DURATION),
            Values::Bytes => format!("write `{}` with {}", self.new, literal::A_SIZE),
            Values::Unchanged | Values::Words(_) => format!("write `{}`", self.new),
        }
    }

    /// The text of the current value; `None` if it is the same as the old one.
    fn convert(&self, value: &DeValue, written: &str) -> Result<Option<String>, NotConvertible> {
        match (&self.values, value) {
            // With dotted keys, the file can have the name of a table several times.
            (_, DeValue::Table(_) | DeValue::Array(_)) if self.renames_key() => Err(NotConvertible),
            (Values::Unchanged, _) => Ok(None),
            (Values::Words(words), _) => {
                let word = words.iter().find(|(old, _)| value.as_str() == Some(*old));
                Ok(word.map(|(old, new)| respell(written, old, new, &format!("\"{new}\""))))
            }
            (Values::Milliseconds, DeValue::Integer(number)) => {
                whole(number).map(|ms| Some(format!("\"{}\"", literal::format_duration(ms))))
            }
            (Values::Milliseconds, DeValue::String(text)) if literal::duration(text).is_ok() => Ok(None),
            (Values::Bytes, DeValue::Integer(number)) => {
                whole(number).map(|bytes| Some(format!("\"{}\"", literal::format_size(bytes))))
            }
            (Values::Bytes, DeValue::String(text)) => match text.trim().parse::<u64>() {
                Ok(bytes) => Ok(Some(format!("\"{}\"", literal::format_size(bytes)))),
                Err(_) if text.contains("${") => Err(NotConvertible),
                Err(_) => Ok(None),
            },
            (Values::Bytes, _) => Ok(None),
            (Values::Milliseconds, _) => Err(NotConvertible),
        }
    }
}

struct Rewrite<'a> {
    text: &'a str,
    edits: Vec<(Range<usize>, String)>,
    changes: Vec<(usize, String)>,
    remaining: Vec<(usize, String)>,
}

impl Rewrite<'_> {
    fn apply(&mut self, row: &Renamed, table: &DeTable) {
        let Some((key, value)) = table.get_key_value(row.old) else { return };
        let (name, place) = (self.written(key.span()), value.span());
        let written = self.written(place.clone());
        let at = key.span().start;
        let (old, new) = (row.old, row.new);
        if row.renames_key() && table.contains_key(new) {
            let what = format!("`{old}` was renamed to `{new}`, and `{new}` is set as well: remove one of the two");
            self.remaining.push((at, what));
            return;
        }
        let converted = match row.convert(value.get_ref(), &written) {
            Ok(converted) => converted,
            Err(NotConvertible) => {
                let first = written.lines().next().unwrap_or_default();
                self.remaining.push((at, format!("`{old} = {first}` cannot be converted: {}", row.by_hand())));
                return;
            }
        };
        if row.renames_key() {
            self.edits.push((key.span(), respell(&name, old, new, new)));
            if matches!(row.values, Values::Words(_)) && written.contains("${") {
                let what = format!("`{new} = {written}` has a variable: its old values have new names, too");
                self.remaining.push((at, what));
            }
        }
        match converted {
            Some(value) => {
                self.changes.push((at, format!("`{old} = {written}` is now `{new} = {value}`")));
                self.edits.push((place, value));
            }
            None if row.renames_key() => self.changes.push((at, format!("`{old}` is now `{new}`"))),
            None => {}
        }
    }

    fn written(&self, place: Range<usize>) -> String {
        self.text.get(place).unwrap_or_default().to_owned()
    }

    fn finish(mut self) -> Fixed {
        self.edits.sort_by_key(|(place, _)| place.start);
        let (mut text, mut end) = (String::with_capacity(self.text.len()), 0);
        for (place, new) in &self.edits {
            text.push_str(&self.text[end..place.start]);
            text.push_str(new);
            end = place.end;
        }
        text.push_str(&self.text[end..]);
        Fixed { text, changes: notes(self.text, self.changes), remaining: notes(self.text, self.remaining) }
    }
}

fn notes(text: &str, mut found: Vec<(usize, String)>) -> Vec<Note> {
    found.sort();
    let line_of = |at: usize| 1 + text.bytes().take(at).filter(|&byte| byte == b'\n').count();
    found.into_iter().map(|(at, message)| Note { line: line_of(at), message }).collect()
}

/// All tables at a path; an array of tables counts as each of its tables.
fn tables_at<'t>(table: &'t DeTable<'t>, path: &[&str], found: &mut Vec<&'t DeTable<'t>>) {
    let Some((name, rest)) = path.split_first() else {
        found.push(table);
        return;
    };
    for (key, value) in table {
        if *name != "*" && **key.get_ref() != **name {
            continue;
        }
        match value.get_ref() {
            DeValue::Table(table) => tables_at(table, rest, found),
            DeValue::Array(items) => {
                for table in items.iter().filter_map(|item| item.get_ref().as_table()) {
                    tables_at(table, rest, found);
                }
            }
            _ => {}
        }
    }
}

fn whole(number: &DeInteger) -> Result<u64, NotConvertible> {
    u64::from_str_radix(number.as_str(), number.radix()).map_err(|_| NotConvertible)
}

/// Replaces a word within what the file has, which keeps its quotes; `otherwise` where it is written with escapes.
fn respell(written: &str, old: &str, new: &str, otherwise: &str) -> String {
    if written.contains(old) { written.replacen(old, new, 1) } else { otherwise.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;

    /// Every row: the section, the old line, and the line that replaces it.
    const CASES: [(&str, &str, &str); 13] = [
        ("silver.a", "event_date = \"ts\"", "event_time = \"ts\""),
        ("source", "expired = \"stop\"", "on_data_loss = \"fail\""),
        ("source", "on_data_loss = 'stop'", "on_data_loss = 'fail'"),
        ("gold.g", "days_before = 1", "lookback_days = 1"),
        ("commit", "interval_ms = 1_000", "interval = \"1s\""),
        ("limits", "transform_ms_max = 500", "transform_time_max = \"500ms\""),
        ("commit", "bytes_max = 0x100000", "bytes_max = \"1MiB\""),
        ("limits", "memory_bytes_max = 33554432", "memory_bytes_max = \"32MiB\""),
        ("limits", "output_bytes_max = \"65537\"", "output_bytes_max = \"65537B\""),
        ("limits", "batch_bytes_max = 2048", "batch_bytes_max = \"2KiB\""),
        ("maintenance", "file_bytes_max = 1048576", "file_bytes_max = \"1MiB\""),
        ("maintenance", "free_bytes_min = 1073741824", "free_bytes_min = \"1GiB\""),
        ("silver.a.dedup", "memory_bytes_max = 8388608", "memory_bytes_max = \"8MiB\""),
    ];

    /// A pipeline that is valid once `line` is a valid line of `section`.
    fn pipeline(section: &str, line: &str) -> String {
        let sections = [
            ("source", "brokers = \"localhost:9092\"\ntopic = \"events\""),
            ("silver.a", "plugin = \"plugins/a\"\nmatch = { field = \"t\", equals = \"a\" }"),
            ("silver.a.dedup", "by = [\"event_id\"]\nwithin = \"10m\""),
            ("gold.g", "sql = \"SELECT event_date FROM a\""),
            ("commit", ""),
            ("limits", ""),
            ("maintenance", ""),
        ];
        let text = sections.map(|(name, keys)| {
            let line = match name {
                _ if name == section => line,
                "silver.a" => "event_time = \"ts\"",
                _ => "",
            };
            format!("[{name}] # a comment\n{keys}\n  {line} # another\n")
        });
        text.concat()
    }

    fn errors(text: &str) -> Vec<String> {
        check(text, &|_| None)
            .map_or_else(|errors| errors.iter().map(|error| error.message.clone()).collect(), |_| vec![])
    }

    #[test]
    fn every_row_is_rewritten_and_the_result_is_valid() {
        for (row, (section, old, new)) in RENAMED.iter().zip(CASES) {
            assert!(row.is_in(section) && old.starts_with(row.old) && new.starts_with(row.new), "{old}");
            let (old, new) = (pipeline(section, old), pipeline(section, new));
            let fixed = fix(&old);
            assert_eq!(fixed.text, new);
            assert_eq!((fixed.changes.len(), fixed.remaining.len()), (1, 0), "{fixed:?}");
            assert_eq!(fix(&new), Fixed { text: new.clone(), changes: vec![], remaining: vec![] });
            assert_eq!(errors(&new), Vec::<String>::new(), "{new}");
        }
    }

    #[test]
    fn every_row_is_refused_with_the_current_name() {
        for (row, (section, old, _)) in RENAMED.iter().zip(CASES) {
            let expected = match row.values {
                _ if row.renames_key() => format!("`{}` was renamed to `{}`", row.old, row.new),
                Values::Words(_) => format!("`{}` cannot be `stop`", row.new),
                _ => "this size has no unit".to_owned(),
            };
            assert_eq!(errors(&pipeline(section, old)), [expected], "{old}");
        }
    }

    #[test]
    fn nothing_else_is_rewritten() {
        for text in [
            "[silver.a.settings]\nevent_date = 1\n",
            "[silver.a]\nevent_time = \"event_date\"\n",
            "[gold.g]\nsql = \"SELECT event_date\"\n",
            "[bronze]\ninterval_ms = 5\n",
            "[commit]\ninterval = 5\n",
            "[source]\non_data_loss = \"${LOSS}\"\n",
            "interval_ms = 5\n",
        ] {
            assert_eq!(fix(text), Fixed { text: text.to_owned(), changes: vec![], remaining: vec![] });
        }
    }
}
