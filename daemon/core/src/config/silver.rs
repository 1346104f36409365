//! `[silver.<name>]`: the Silver tables, and how each gets its rows from its events.

use super::error::ConfigError;
use super::matching;
use super::pipeline::{Dedup, Located, SilverTable, SqlTransform, TableName, Transform, WhenFull};
use super::read;
use super::section::{self, Root, Section};
use super::value::Value;
use super::walk::Walk;
use super::zone;
use super::{GIB, MIB};
use crate::zone::Zone;

const SECOND_MS: u64 = 1_000;
const DAY_MS: u64 = 24 * 60 * 60 * SECOND_MS;

/// A Silver table's section: its path takes part in the overlap check even if something else in it is wrong.
pub(super) struct SilverSection {
    pub(super) title: String,
    pub(super) path: Located<String>,
    /// Whether the table lists its late events.
    pub(super) late: bool,
    pub(super) checked: Option<SilverTable>,
}

pub(super) fn silver(walk: &mut Walk, root: &Root, time_zone: Zone) -> Vec<SilverSection> {
    let mut tables = Vec::new();
    for (key, value) in root.silver(walk) {
        let name = read::table_name(walk, key);
        let title = format!("silver.{}", key.get_ref());
        if let Some(section) = Section::open(walk, &title, section::SILVER_TABLE, value) {
            tables.push(silver_table(walk, name, key.get_ref(), &section, time_zone));
        }
    }
    tables
}

fn silver_table(
    walk: &mut Walk,
    name: Option<TableName>,
    key: &str,
    section: &Section,
    of_pipeline: Zone,
) -> SilverSection {
    let transform = transform(walk, section);
    let path = section.path_or(walk, "path", &format!("data/silver/{key}"));
    let matches =
        section.required(walk, "match", matching::EXAMPLE, |walk, value| matching::matches(walk, section, value));
    let tombstones = section.optional(walk, "tombstones", read::boolean).unwrap_or_default();
    let event_time = section.required(walk, "event_time", "event_time = \"ts\"", read::located);
    let time_zone = section.optional(walk, "time_zone", zone::zone).unwrap_or(of_pipeline);
    let settings = section.optional(walk, "settings", read::settings).unwrap_or_default();
    let reference = section.optional(walk, "reference", read::references).unwrap_or_default();
    let compression = section.optional(walk, "compression", read::compression).unwrap_or_default();
    let dedup = section.optional(walk, "dedup", |walk, value| dedup(walk, section, value));
    let late_after_ms = section.optional(walk, "late_after", read::duration(SECOND_MS..=365 * DAY_MS));
    let max_new_rejects = section.optional(walk, "max_new_rejects", read::percent);
    let (located, late) = (path.clone(), late_after_ms.is_some());
    let checked = || {
        Some(SilverTable {
            name: name?,
            transform: transform?,
            path,
            matches: matches?,
            tombstones,
            event_time: event_time?,
            time_zone,
            settings,
            reference,
            compression,
            dedup,
            late_after_ms,
            max_new_rejects,
        })
    };
    SilverSection { title: section.title().to_owned(), path: located, late, checked: checked() }
}

/// The plugin of a table, or its SQL.
fn transform(walk: &mut Walk, section: &Section) -> Option<Transform> {
    let title = section.title();
    if !section.has("sql") {
        if let Some((span, _)) = section.key("input") {
            let help = "remove `input`, or write the table's rows as `sql` instead of `plugin`";
            let what = format!("`input` in [{title}] belongs to `sql`; a plugin has the record `input` in its WIT");
            walk.report(ConfigError::new(span, what, "without `sql`", Some(help.to_owned())));
        }
        let example = "plugin = \"plugins/page_view\"` or `sql = \"SELECT … FROM event\"";
        return section.required(walk, "plugin", example, read::path).map(Transform::Plugin);
    }
    for (key, help) in [
        ("plugin", "keep one of the two"),
        ("tombstones", "use a plugin for records without a value"),
        ("settings", "write the values into the SQL"),
    ] {
        if let Some((span, _)) = section.key(key) {
            let what = format!("[{title}] has `sql` and `{key}`");
            walk.report(ConfigError::new(span, what, "not with `sql`", Some(help.to_owned())));
        }
    }
    let sql = section.optional(walk, "sql", read::located);
    let example = "input = { event_id = \"string\", ts = \"timestamp\" }";
    let input = section.required(walk, "input", example, read::input);
    Some(Transform::Sql(SqlTransform { sql: sql?, input: input? }))
}

fn dedup(walk: &mut Walk, parent: &Section, value: Value) -> Option<Dedup> {
    let section = Section::open(walk, &format!("{}.dedup", parent.title()), section::DEDUP, value)?;
    let by = section.required(walk, "by", "by = [\"event_id\"]", read::names);
    let bounds = SECOND_MS..=31 * DAY_MS;
    let within = section.required(walk, "within", "within = \"10m\"", read::duration(bounds));
    let memory = section.optional(walk, "memory_bytes_max", read::size(MIB..=64 * GIB));
    let choices = [("reload", WhenFull::Reload), ("forget", WhenFull::Forget)];
    let when_full = section.optional(walk, "when_full", read::choice("when_full", choices));
    Some(Dedup {
        by: by?,
        within_ms: within?,
        memory_bytes_max: memory.unwrap_or(Dedup::MEMORY_BYTES_MAX),
        when_full: when_full.unwrap_or_default(),
    })
}
