//! The difference between two pipelines, and the parts of a running daemon that it affects.
//!
//! | changed | effect |
//! |---|---|
//! | `plugin`, `sql`, `input`, `settings`, `reference`, `max_new_rejects` of `[silver.x]` | the new version is validated and swapped |
//! | any other key of `[silver.x]`, `[limits]` except `sql_…` | the table's worker restarts |
//! | a table is added or removed | its worker starts and catches up, or stops |
//! | `[source]`, `[commit]` | the Kafka consumer restarts |
//! | `[gold]`, `[panel]`, `[http]`, `[maintenance]`, `[days]`, `sql_…` of `[limits]`; names and paths of Silver tables | the services restart |
//! | `[alerts]`, `[alert]`, `[notify]` | the alerts go on with the new ones; nothing else restarts |
//! | `[bronze]`, `[quarantine]`, `[late]` | the pipeline restarts after a last commit |
//! | `time_zone` of the pipeline | the services restart, and the workers of the tables that have none of their own |
//! | `[reload]` | applies from the next plugin version |
//! | `[state]` | applies from the next start |

use std::fmt;

use super::pipeline::{Pipeline, SilverTable, TableName, Transform};

/// What a running daemon must do to apply another pipeline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// The pipeline restarts.
    pub all: bool,
    pub source: bool,
    /// Gold, the dashboard and table maintenance.
    pub services: bool,
    /// The alerts, and who is notified of them.
    pub alerts: bool,
    /// `[reload]`, which applies from the next version of a plugin.
    pub reload: bool,
    pub tables: Vec<(TableName, TableChange)>,
    /// What changed, such as `[commit]` or `[silver.page_view] settings`.
    descriptions: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableChange {
    Added,
    Removed,
    /// Its worker restarts.
    Restarted,
    /// A new version of its plugin, or of the settings and files that are passed to it.
    Swapped,
}

impl Changes {
    /// What changes for a table.
    pub fn of(&self, table: &TableName) -> Option<TableChange> {
        self.tables.iter().find(|(name, _)| name == table).map(|(_, change)| *change)
    }

    pub fn between(old: &Pipeline, new: &Pipeline) -> Self {
        let mut changes = Self::default();
        let mut descriptions = Vec::new();
        let mut differs = |name: &str, differs: bool| {
            if differs {
                descriptions.push(match name.split_once(' ') {
                    Some((name, when)) => format!("[{name}] {when}"),
                    None => format!("[{name}]"),
                });
            }
            differs
        };
        changes.all = [
            differs("bronze", old.bronze != new.bronze),
            differs("quarantine", old.quarantine != new.quarantine),
            differs("late", old.late != new.late),
        ]
        .contains(&true);
        changes.source = differs("source", old.source != new.source) | differs("commit", old.commit != new.commit);
        let limits = differs("limits", old.limits != new.limits);
        let sql_limits = differs("limits sql_…", old.sql_limits != new.sql_limits);
        differs("state (from the next start)", old.state != new.state);
        changes.reload = differs("reload", old.reload != new.reload);
        let gold = differs("gold", old.gold != new.gold);
        let maintenance = differs("maintenance", old.maintenance != new.maintenance);
        changes.alerts = differs("alerts", old.built_in_alerts != new.built_in_alerts)
            | differs("alert", old.alerts != new.alerts)
            | differs("notify", old.notify != new.notify);
        changes.services = gold
            | maintenance
            | sql_limits
            | differs("days", old.days != new.days)
            | differs("panel", old.panels != new.panels)
            | differs("http", old.http != new.http)
            | (old.time_zone != new.time_zone);
        if old.time_zone != new.time_zone {
            descriptions.push("time_zone".to_owned());
        }
        changes.descriptions = descriptions;
        changes.tables_between(old, new, limits);
        changes
    }

    fn tables_between(&mut self, old: &Pipeline, new: &Pipeline, limits: bool) {
        let of =
            |pipeline: &Pipeline, name: &TableName| pipeline.silver.iter().find(|table| table.name == *name).cloned();
        for table in old.silver.iter().filter(|table| of(new, &table.name).is_none()) {
            self.descriptions.push(format!("table {} removed", table.name));
            self.tables.push((table.name.clone(), TableChange::Removed));
        }
        for table in &new.silver {
            let change = match of(old, &table.name) {
                None => {
                    self.descriptions.push(format!("table {} added", table.name));
                    TableChange::Added
                }
                Some(before) => {
                    let keys = keys_that_differ(&before, table);
                    if !keys.is_empty() {
                        self.descriptions.push(format!("[silver.{}] {}", table.name, keys.join(", ")));
                    }
                    match () {
                        () if limits || !before.is_same_except_for_its_plugin(table) => TableChange::Restarted,
                        () if before != *table => TableChange::Swapped,
                        () => continue,
                    }
                }
            };
            self.tables.push((table.name.clone(), change));
        }
        let names = |pipeline: &Pipeline| pipeline.silver.iter().map(|table| table.name.clone()).collect::<Vec<_>>();
        // Gold and the dashboard query the tables by name and path.
        let paths = self.tables.iter().any(|(_, change)| *change != TableChange::Swapped);
        self.services |= paths || names(old) != names(new);
    }

    /// Whether the pipelines are the same except for comments and formatting.
    pub fn is_empty(&self) -> bool {
        let Self { all, source, services, alerts, reload, tables, descriptions: _ } = self;
        !all && !source && !services && !alerts && !reload && tables.is_empty()
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.descriptions.is_empty() {
            true => f.write_str("nothing changed"),
            false => f.write_str(&self.descriptions.join(", ")),
        }
    }
}

impl SilverTable {
    /// Whether the tables are the same except for the plugin and what is passed to it.
    fn is_same_except_for_its_plugin(&self, other: &Self) -> bool {
        let Self { transform, settings, reference, max_new_rejects, .. } = other.clone();
        Self { transform, settings, reference, max_new_rejects, ..self.clone() } == *other
    }
}

impl Transform {
    /// The key that makes another one differ.
    fn key_of_change(&self, new: &Self) -> &'static str {
        match (self, new) {
            (_, Self::Plugin(_)) => "plugin",
            (Self::Sql(old), Self::Sql(new)) if old.sql == new.sql => "input",
            (_, Self::Sql(_)) => "sql",
        }
    }
}

fn keys_that_differ(old: &SilverTable, new: &SilverTable) -> Vec<&'static str> {
    let differs = [
        (old.transform.key_of_change(&new.transform), old.transform != new.transform),
        ("path", old.path != new.path),
        ("match", old.matches != new.matches),
        ("event_time", old.event_time != new.event_time),
        ("time_zone", old.time_zone != new.time_zone),
        ("tombstones", old.tombstones != new.tombstones),
        ("settings", old.settings != new.settings),
        ("reference", old.reference != new.reference),
        ("compression", old.compression != new.compression),
        ("dedup", old.dedup != new.dedup),
        ("late_after", old.late_after_ms != new.late_after_ms),
        ("max_new_rejects", old.max_new_rejects != new.max_new_rejects),
    ];
    differs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use super::super::check;
    use super::*;

    const BASE: &str = r#"
        [source]
        brokers = "localhost:9092"
        topic = "events.raw"
        [silver.a]
        plugin = "plugins/a"
        match = { field = "t", equals = "a" }
        event_time = "ts"
        settings = { limit = 5 }
        [silver.b]
        plugin = "plugins/b"
        match = { field = "t", equals = "b" }
        event_time = "ts"
        [gold.g]
        sql = "SELECT event_date FROM a"
    "#;

    fn pipeline(text: &str) -> Pipeline {
        check(text, &|_| None).unwrap()
    }

    /// The changes that a replacement in the text makes.
    fn changes(from: &str, to: &str) -> Changes {
        assert!(BASE.contains(from), "{from}");
        Changes::between(&pipeline(BASE), &pipeline(&BASE.replacen(from, to, 1)))
    }

    #[track_caller]
    fn check_tables(changes: &Changes, expected: &[(&str, TableChange)]) {
        let found: Vec<_> = changes.tables.iter().map(|(name, change)| (&**name, *change)).collect();
        assert_eq!(found, expected, "{changes}");
    }

    #[test]
    fn a_comment_changes_nothing() {
        let changes = changes("[silver.a]", "# a comment\n\n[silver.a]");
        assert!(changes.is_empty());
        assert_eq!(changes.to_string(), "nothing changed");
    }

    #[test]
    fn a_new_plugin_version_is_swapped() {
        for (from, to, description) in [
            ("limit = 5", "limit = 6", "[silver.a] settings"),
            ("plugins/a", "plugins/c", "[silver.a] plugin"),
            ("settings = {", "reference = { x = \"x.csv\" }\nsettings = {", "[silver.a] reference"),
            ("settings = {", "max_new_rejects = \"5%\"\nsettings = {", "[silver.a] max_new_rejects"),
        ] {
            let changes = changes(from, to);
            check_tables(&changes, &[("a", TableChange::Swapped)]);
            assert_eq!(changes.to_string(), description);
            assert!(!changes.all && !changes.source && !changes.services, "{changes:?}");
        }
    }

    #[test]
    fn other_keys_restart_the_worker_and_the_services() {
        for (from, to) in [
            ("equals = \"a\"", "equals = \"c\""),
            ("event_time = \"ts\"", "event_time = \"ts\"\ntime_zone = \"Europe/Berlin\""),
            ("event_time = \"ts\"", "event_time = \"at\""),
            ("settings = {", "path = \"elsewhere\"\nsettings = {"),
            ("settings = {", "late_after = \"1h\"\nsettings = {"),
        ] {
            let changes = changes(from, to);
            check_tables(&changes, &[("a", TableChange::Restarted)]);
            assert!(changes.services && !changes.source && !changes.all, "{changes:?}");
        }
        let all = changes("[gold.g]", "[limits]\ntransform_time_max = \"5ms\"\n[gold.g]");
        check_tables(&all, &[("a", TableChange::Restarted), ("b", TableChange::Restarted)]);
        assert_eq!(all.to_string(), "[limits]");
    }

    #[test]
    fn a_renamed_table_is_removed_and_added() {
        let renamed = changes("[silver.b]", "[silver.c]");
        check_tables(&renamed, &[("b", TableChange::Removed), ("c", TableChange::Added)]);
        assert_eq!(renamed.to_string(), "table b removed, table c added");
        assert!(renamed.services);
    }

    #[test]
    fn a_section_affects_only_what_uses_it() {
        let source = changes("events.raw", "other.raw");
        assert!(source.source && !source.services && !source.all && source.tables.is_empty());
        let commit = changes("[gold.g]", "[commit]\ninterval = \"50ms\"\n[gold.g]");
        assert!(commit.source && !commit.all);
        let http = changes("[gold.g]", "[http]\nlisten = \"127.0.0.1:1\"\n[gold.g]");
        assert!(http.services && !http.source && !http.all);
        let days = changes("[gold.g]", "[days]\nfinal_after = \"2h\"\n[gold.g]");
        assert!(days.services && !days.all && days.tables.is_empty());
        let alert = "[alert.a]\nsql = \"SELECT 1 AS n\"\nwhen = \"n > 0\"\n[gold.g]";
        for (section, description) in [("[alerts]\nbuilt_in = true\n[gold.g]", "[alerts]"), (alert, "[alert]")] {
            let alerts = changes("[gold.g]", section);
            assert!(alerts.alerts && !alerts.is_empty() && !alerts.services && !alerts.all, "{alerts:?}");
            assert_eq!(alerts.to_string(), description);
        }
        let gold = changes("FROM a", "FROM b");
        assert!(gold.services && !gold.all);
        for section in ["bronze", "quarantine", "late"] {
            let changes = changes("[gold.g]", &format!("[{section}]\npath = \"elsewhere\"\n[gold.g]"));
            assert!(changes.all, "{section}");
            assert_eq!(changes.to_string(), format!("[{section}]"));
        }
        let unrouted = changes("[gold.g]", "[quarantine]\nunrouted = \"quarantine\"\n[gold.g]");
        assert!(unrouted.all);
        let zone = changes("[source]", "time_zone = \"Europe/Berlin\"\n[source]");
        assert!(zone.services && !zone.all && !zone.source);
        check_tables(&zone, &[("a", TableChange::Restarted), ("b", TableChange::Restarted)]);
        let same = changes("[gold.g]", "[quarantine]\nunrouted = \"count\"\n[gold.g]");
        assert!(same.is_empty());
        let state = changes("[gold.g]", "[state]\npath = \"elsewhere\"\n[gold.g]");
        assert!(state.is_empty());
        assert_eq!(state.to_string(), "[state] (from the next start)");
        let reload = changes("[gold.g]", "[reload]\nshadow_events = 5\n[gold.g]");
        assert!(reload.reload && !reload.is_empty() && !reload.all && reload.tables.is_empty());
    }
}
