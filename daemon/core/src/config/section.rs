//! One section of the file, the keys that it can have, and the errors about a key that is missing, unknown or renamed.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::error::ConfigError;
use super::pipeline::Located;
use super::read;
use super::value::{Key, Value, in_file_order, kind, wrong_type};
use super::walk::Walk;
use super::{matching, nearest, renamed};

pub(super) const SILVER_TABLE: &[&str] = &[
    "plugin",
    "sql",
    "input",
    "path",
    "match",
    "event_time",
    "time_zone",
    "tombstones",
    "settings",
    "reference",
    "compression",
    "dedup",
    "late_after",
    "max_new_rejects",
];
pub(super) const MATCH: &[&str] = &["field", "header", "equals", "in", "exists", "topic", "key", "and", "or", "not"];
pub(super) const DEDUP: &[&str] = &["by", "within", "memory_bytes_max", "when_full"];

pub(super) const HTTP: &[&str] = &["listen", "token", "token_file", "tokens", "base_path", "trusted_proxies", "tls"];
pub(super) const HTTP_TOKEN: &[&str] = &["role", "token", "token_file"];
pub(super) const HTTP_TLS: &[&str] = &["certificate", "key"];

pub(super) const GOLD: &[&str] = &["sql", "path", "refresh", "lookback_days", "time_zone"];
pub(super) const PANEL: &[&str] = &["title", "sql", "chart", "refresh", "unit", "width"];
pub(super) const ALERT: &[&str] =
    &["sql", "when", "for", "every", "notify", "severity", "summary", "description", "repeat", "resolved"];
const ALERTS: &[&str] = &[
    "built_in",
    "notify",
    "for",
    "repeat",
    "resolved",
    "lag_events",
    "lag_time",
    "quarantine_share",
    "disk_days",
    "no_events",
    "url",
];

pub(super) const NOTIFY: &[&str] = &[
    "webhook",
    "webhook_file",
    "format",
    "template",
    "headers",
    "secret",
    "secret_file",
    "insecure",
    "command",
    "smtp",
    "tls",
    "from",
    "to",
    "user",
    "password",
    "password_file",
    "tls_ca",
    "timeout",
    "quiet_hours",
    "quiet_critical",
];

/// The keys above the first section.
const OUTSIDE: &[&str] = &["time_zone"];

const SECTIONS: [(&str, &[&str]); 17] = [
    ("source", &["brokers", "topic", "topics", "topic_pattern", "group", "start", "on_data_loss", "kafka"]),
    ("bronze", &["path", "compression"]),
    ("silver", SILVER_TABLE),
    ("quarantine", &["path", "unrouted"]),
    ("late", &["path"]),
    ("days", &["path", "final_after", "wait_for_quarantine"]),
    ("state", &["path"]),
    ("commit", &["interval", "rows_max", "bytes_max", "fsync"]),
    (
        "limits",
        &[
            "memory_bytes_max",
            "transform_time_max",
            "output_bytes_max",
            "batch_rows_max",
            "batch_bytes_max",
            "log_lines_per_second",
            "sql_memory_max",
            "sql_seconds_max",
        ],
    ),
    ("maintenance", &["enabled", "file_bytes_max", "retention", "log_retention", "free_bytes_min"]),
    ("reload", &["mode", "shadow_events", "max_new_rejects"]),
    ("gold", GOLD),
    ("panel", PANEL),
    ("notify", NOTIFY),
    ("alerts", ALERTS),
    ("alert", ALERT),
    ("http", HTTP),
];

/// The keys of each section, and of the tables within keys of its own: `match` and `dedup` count as keys of their section.
pub(super) fn keys() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut keys = Vec::new();
    for (section, of_section) in SECTIONS {
        let (title, within): (_, &[&[&str]]) = match section {
            "silver" => ("silver.<name>", &[MATCH, DEDUP]),
            "gold" => ("gold.<name>", &[]),
            "panel" => ("panel.<name>", &[]),
            "notify" => ("notify.<name>", &[]),
            "alert" => ("alert.<name>", &[]),
            section => (section, &[]),
        };
        keys.push((title, [&[of_section], within].concat().concat()));
    }
    keys
}

/// The whole file.
pub(super) struct Root<'t>(&'t DeTable<'t>);

impl<'t> Root<'t> {
    pub(super) fn new(table: &'t DeTable<'t>) -> Self {
        Root(table)
    }

    pub(super) fn report_unknown(&self, walk: &mut Walk) {
        for (key, value) in in_file_order(self.0) {
            let name = key.get_ref();
            if OUTSIDE.contains(&&**name) || SECTIONS.iter().any(|(section, _)| section == name) {
                continue;
            }
            let help = match home_of(key.get_ref()) {
                _ if !value.get_ref().is_table() && nearest::nearest(name, OUTSIDE).is_some() => {
                    nearest::help(name, OUTSIDE, "keys")
                }
                Some(home) if !value.get_ref().is_table() => format!("`{}` belongs to [{home}]", key.get_ref()),
                _ => nearest::help(key.get_ref(), &SECTIONS.map(|(name, _)| name), "sections"),
            };
            let (what, label) = match value.get_ref().is_table() {
                true => (format!("unknown section [{}]", key.get_ref()), "silverd has no such section"),
                false => (format!("unknown key `{}` outside of any section", key.get_ref()), "in no section"),
            };
            walk.report(ConfigError::new(key.span(), what, label, Some(help)));
        }
    }

    /// The value of a key outside of any section, as `read` returns it.
    pub(super) fn optional<T>(
        &self,
        walk: &mut Walk,
        key: &str,
        read: impl FnOnce(&mut Walk, Value<'t>) -> Option<T>,
    ) -> Option<T> {
        read(walk, self.0.get(key)?)
    }

    /// The section of that name; without one in the file, a section without keys.
    pub(super) fn section(&self, walk: &mut Walk, title: &'static str) -> Section<'t> {
        self.find(walk, title).unwrap_or(Section { title: title.to_owned(), span: 0..0, table: None })
    }

    pub(super) fn source(&self, walk: &mut Walk) -> Option<Section<'t>> {
        if !self.0.contains_key("source") {
            let help = "write [source] with `brokers = \"localhost:9092\"` and `topic = \"events.raw\"`";
            let what = "missing section [source]";
            walk.report_missing(ConfigError::new(0..0, what, "no [source] in this file", Some(help.to_owned())));
        }
        self.find(walk, "source")
    }

    /// The tables in [silver], in the order of the file.
    pub(super) fn silver(&self, walk: &mut Walk) -> Vec<(Key<'t>, Value<'t>)> {
        self.tables(walk, "silver", "write one section for every Silver table, such as [silver.page_view]")
    }

    /// The tables in a section that contains sections, in the order of the file.
    pub(super) fn tables(&self, walk: &mut Walk, name: &'static str, help: &str) -> Vec<(Key<'t>, Value<'t>)> {
        let Some(value) = self.0.get(name) else { return Vec::new() };
        let DeValue::Table(tables) = value.get_ref() else {
            walk.report(wrong_type(name, "a table of tables", value).with_help(help));
            return Vec::new();
        };
        let (tables, strays): (Vec<_>, Vec<_>) =
            in_file_order(tables).into_iter().partition(|(_, value)| value.get_ref().is_table());
        for (key, value) in strays {
            let what = format!("[{name}] contains only tables, but `{}` is {}", key.get_ref(), kind(value));
            walk.report(ConfigError::new(key.span(), what, format!("expected [{name}.<name>]"), Some(help.to_owned())));
        }
        tables
    }

    /// The names of the sections in a section, whether or not they are valid.
    pub(super) fn names(&self, section: &str) -> Vec<String> {
        let tables = self.0.get(section).and_then(|value| value.get_ref().as_table());
        tables.map(|tables| tables.keys().map(|key| key.get_ref().to_string()).collect()).unwrap_or_default()
    }

    fn find(&self, walk: &mut Walk, title: &str) -> Option<Section<'t>> {
        let keys = SECTIONS.iter().find(|(name, _)| *name == title)?.1;
        Section::open(walk, title, keys, self.0.get(title)?)
    }
}

pub(super) struct Section<'t> {
    title: String,
    span: Range<usize>,
    table: Option<&'t DeTable<'t>>,
}

impl<'t> Section<'t> {
    /// Reports the keys that are not among `keys`; `None` if the value is not a table.
    pub(super) fn open(
        walk: &mut Walk,
        title: &str,
        keys: &'static [&'static str],
        value: Value<'t>,
    ) -> Option<Section<'t>> {
        let DeValue::Table(table) = value.get_ref() else {
            let help = match value.get_ref() {
                DeValue::Array(_) => format!("write [{title}] once, with one pair of brackets"),
                _ if keys == MATCH => format!("write {}", matching::EXAMPLE),
                _ if keys == DEDUP => "write dedup = { by = [\"event_id\"], within = \"10m\" }".to_owned(),
                _ => format!("write [{title}] on a line of its own, and its keys below it"),
            };
            walk.report(wrong_type(title, "a table", value).with_help(help));
            return None;
        };
        for (key, value) in in_file_order(table).into_iter().filter(|(key, _)| !keys.contains(&&**key.get_ref())) {
            let name = key.get_ref();
            if let Some(row) = renamed::find(title, keys, name) {
                walk.report(row.error(key, value, walk.text, table.contains_key(row.new)));
                continue;
            }
            let help = match home_of(name) {
                _ if OUTSIDE.contains(&&**name) => format!("write `{name}` above the first section"),
                Some(home) if nearest::nearest(name, keys).is_none() => format!("`{name}` belongs to [{home}]"),
                _ => nearest::help(name, keys, "keys"),
            };
            let what = format!("unknown key `{name}` in [{title}]");
            walk.report(ConfigError::new(key.span(), what, format!("not a key of [{title}]"), Some(help)));
        }
        Some(Section { title: title.to_owned(), span: value.span(), table: Some(table) })
    }

    pub(super) fn title(&self) -> &str {
        &self.title
    }

    /// The place of its header, or of its value.
    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// The place of a key, and its value.
    pub(super) fn key(&self, key: &str) -> Option<(Range<usize>, Value<'t>)> {
        let (key, value) = self.table?.get_key_value(key)?;
        Some((key.span(), value))
    }

    /// The key's value as `read` returns it; `None` if the key is absent or its value is wrong.
    pub(super) fn optional<T>(
        &self,
        walk: &mut Walk,
        key: &str,
        read: impl FnOnce(&mut Walk, Value<'t>) -> Option<T>,
    ) -> Option<T> {
        read(walk, self.table?.get(key)?)
    }

    /// Like `optional`, but an absent key is an error, and `example` shows what to add.
    pub(super) fn required<T>(
        &self,
        walk: &mut Walk,
        key: &str,
        example: &str,
        read: impl FnOnce(&mut Walk, Value<'t>) -> Option<T>,
    ) -> Option<T> {
        let Some(value) = self.table?.get(key) else {
            // Its old name was reported as such.
            if renamed::old_name(&self.title, key).is_some_and(|old| self.has(old)) {
                return None;
            }
            let what = format!("missing key `{key}` in [{}]", self.title);
            let help = Some(format!("add `{example}` to [{}]", self.title));
            walk.report_missing(ConfigError::new(self.span.clone(), what, format!("needs `{key}`"), help));
            return None;
        };
        read(walk, value)
    }

    pub(super) fn path_or(&self, walk: &mut Walk, key: &str, default: &str) -> Located<String> {
        let path = self.optional(walk, key, read::path);
        path.unwrap_or_else(|| Located::new(default.to_owned(), self.span.clone()))
    }
}

/// The one section that has a key of this name.
fn home_of(key: &str) -> Option<&'static str> {
    // Not [notify]: its keys are common words, such as `user` and `password`.
    let homes = SECTIONS.iter().filter(|(name, keys)| *name != "notify" && keys.contains(&key));
    let mut homes = homes.map(|(name, _)| *name);
    let home = homes.next()?;
    let home = match home {
        "silver" => "silver.<name>",
        "gold" => "gold.<name>",
        "panel" => "panel.<name>",
        "alert" => "alert.<name>",
        home => home,
    };
    homes.next().is_none().then_some(home)
}
