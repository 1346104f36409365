//! One table of the tree, the keys that it may hold, and the mistakes of a key that is absent or unknown.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::mistake::Mistake;
use super::nearest;
use super::pipeline::Located;
use super::read::{self, Value};
use super::walk::Walk;

pub(super) const SILVER_TABLE: &[&str] = &[
    "plugin",
    "path",
    "match",
    "event_date",
    "settings",
    "reference",
    "compression",
    "dedup",
    "late_after",
    "max_new_rejects",
];
pub(super) const MATCH: &[&str] = &["field", "equals"];
pub(super) const DEDUP: &[&str] = &["by", "within", "memory_bytes_max", "when_full"];

pub(super) const GOLD: &[&str] = &["sql", "path", "refresh", "days_before"];
pub(super) const PANEL: &[&str] = &["title", "sql", "chart", "refresh", "unit", "width"];

const SECTIONS: [(&str, &[&str]); 12] = [
    ("source", &["brokers", "topic", "group", "start", "expired", "kafka"]),
    ("bronze", &["path", "compression"]),
    ("silver", SILVER_TABLE),
    ("quarantine", &["path"]),
    ("late", &["path"]),
    ("state", &["path"]),
    ("commit", &["interval_ms", "rows_max", "bytes_max"]),
    (
        "limits",
        &[
            "memory_bytes_max",
            "transform_ms_max",
            "output_bytes_max",
            "batch_rows_max",
            "batch_bytes_max",
            "log_lines_per_second",
        ],
    ),
    ("reload", &["shadow_events", "max_new_rejects"]),
    ("gold", GOLD),
    ("panel", PANEL),
    ("http", &["listen", "token"]),
];

pub(super) type Key<'t> = &'t Spanned<DeString<'t>>;

/// The whole file.
pub(super) struct Root<'t>(&'t DeTable<'t>);

impl<'t> Root<'t> {
    pub(super) fn new(table: &'t DeTable<'t>) -> Self {
        Root(table)
    }

    pub(super) fn tell_unknown(&self, walk: &mut Walk) {
        for (key, value) in in_file_order(self.0) {
            if SECTIONS.iter().any(|(name, _)| name == key.get_ref()) {
                continue;
            }
            let help = match home_of(key.get_ref()) {
                Some(home) if !value.get_ref().is_table() => format!("`{}` belongs to [{home}]", key.get_ref()),
                _ => nearest::help(key.get_ref(), &SECTIONS.map(|(name, _)| name), "sections"),
            };
            let (what, label) = match value.get_ref().is_table() {
                true => (format!("unknown section [{}]", key.get_ref()), "silverd has no such section"),
                false => (format!("unknown key `{}` outside of any section", key.get_ref()), "in no section"),
            };
            walk.tell(Mistake::new(key.span(), what, label, Some(help)));
        }
    }

    /// The section of that name; without one in the file, a section without keys.
    pub(super) fn section(&self, walk: &mut Walk, title: &'static str) -> Section<'t> {
        self.find(walk, title).unwrap_or(Section { title: title.to_owned(), span: 0..0, table: None })
    }

    pub(super) fn source(&self, walk: &mut Walk) -> Option<Section<'t>> {
        if !self.0.contains_key("source") {
            let help = "write [source] with `brokers = \"localhost:9092\"` and `topic = \"events.raw\"`";
            let what = "missing section [source]";
            walk.tell_absent(Mistake::new(0..0, what, "no [source] in this file", Some(help.to_owned())));
        }
        self.find(walk, "source")
    }

    /// What stands in [silver], in the order of the file.
    pub(super) fn silver(&self, walk: &mut Walk) -> Vec<(Key<'t>, Value<'t>)> {
        self.tables(walk, "silver", "write one section for every Silver table, such as [silver.page_view]")
    }

    /// What stands in a section that holds sections, in the order of the file.
    pub(super) fn tables(&self, walk: &mut Walk, name: &'static str, help: &str) -> Vec<(Key<'t>, Value<'t>)> {
        let Some(value) = self.0.get(name) else { return Vec::new() };
        let DeValue::Table(tables) = value.get_ref() else {
            walk.tell(read::wrong_type(name, "a table of tables", value).with_help(help));
            return Vec::new();
        };
        let (tables, strays): (Vec<_>, Vec<_>) =
            in_file_order(tables).into_iter().partition(|(_, value)| value.get_ref().is_table());
        for (key, value) in strays {
            let what = format!("[{name}] holds tables only, but `{}` is {}", key.get_ref(), read::kind(value));
            walk.tell(Mistake::new(key.span(), what, format!("expected [{name}.<name>]"), Some(help.to_owned())));
        }
        tables
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
    /// Tells the keys that are not among `keys`; `None` if the value is no table.
    pub(super) fn open(
        walk: &mut Walk,
        title: &str,
        keys: &'static [&'static str],
        value: Value<'t>,
    ) -> Option<Section<'t>> {
        let DeValue::Table(table) = value.get_ref() else {
            let help = match value.get_ref() {
                DeValue::Array(_) => format!("write [{title}] once, with one pair of brackets"),
                _ if keys == MATCH => "write match = { field = \"event_type\", equals = \"page_view\" }".to_owned(),
                _ if keys == DEDUP => "write dedup = { by = [\"event_id\"], within = \"10m\" }".to_owned(),
                _ => format!("write [{title}] on a line of its own, and its keys below it"),
            };
            walk.tell(read::wrong_type(title, "a table", value).with_help(help));
            return None;
        };
        for (key, _) in in_file_order(table).iter().filter(|(key, _)| !keys.contains(&&**key.get_ref())) {
            let name = key.get_ref();
            let help = match home_of(name) {
                Some(home) if nearest::nearest(name, keys).is_none() => format!("`{name}` belongs to [{home}]"),
                _ => nearest::help(name, keys, "keys"),
            };
            let what = format!("unknown key `{name}` in [{title}]");
            walk.tell(Mistake::new(key.span(), what, format!("not a key of [{title}]"), Some(help)));
        }
        Some(Section { title: title.to_owned(), span: value.span(), table: Some(table) })
    }

    pub(super) fn title(&self) -> &str {
        &self.title
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// What `read` makes of the key's value; `None` if the key is absent or its value is wrong.
    pub(super) fn optional<T>(
        &self,
        walk: &mut Walk,
        key: &str,
        read: impl FnOnce(&mut Walk, Value<'t>) -> Option<T>,
    ) -> Option<T> {
        read(walk, self.table?.get(key)?)
    }

    /// Like `optional`, but an absent key is a mistake that `example` mends.
    pub(super) fn required<T>(
        &self,
        walk: &mut Walk,
        key: &str,
        example: &str,
        read: impl FnOnce(&mut Walk, Value<'t>) -> Option<T>,
    ) -> Option<T> {
        let Some(value) = self.table?.get(key) else {
            let what = format!("missing key `{key}` in [{}]", self.title);
            let help = Some(format!("add `{example}` to [{}]", self.title));
            walk.tell_absent(Mistake::new(self.span.clone(), what, format!("needs `{key}`"), help));
            return None;
        };
        read(walk, value)
    }

    pub(super) fn path_or(&self, walk: &mut Walk, key: &str, default: &str) -> Located<String> {
        let path = self.optional(walk, key, read::path);
        path.unwrap_or_else(|| Located::new(default.to_owned(), self.span.clone()))
    }
}

/// The parser keeps keys sorted by name; people expect the order that they wrote.
pub(super) fn in_file_order<'t>(table: &'t DeTable<'t>) -> Vec<(Key<'t>, Value<'t>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// The one section that has a key of this name.
fn home_of(key: &str) -> Option<&'static str> {
    let mut homes = SECTIONS.iter().filter(|(_, keys)| keys.contains(&key)).map(|(name, _)| *name);
    let home = homes.next()?;
    let home = match home {
        "silver" => "silver.<name>",
        "gold" => "gold.<name>",
        "panel" => "panel.<name>",
        home => home,
    };
    homes.next().is_none().then_some(home)
}
