//! What differs between two pipelines, and how much of a running daemon that concerns.
//!
//! | changed                                                        | what is done                                     |
//! |----------------------------------------------------------------|--------------------------------------------------|
//! | `[silver.x]`: `plugin`, `settings`, `reference`, `max_new_rejects` | the plugin is proven and swapped as a new version |
//! | anything else of `[silver.x]`, `[limits]`                      | the table's worker ends and begins anew          |
//! | a table more, a table less                                     | its worker begins, and catches up; or ends       |
//! | `[source]`, `[commit]`                                         | the Kafka consumer begins anew                   |
//! | `[gold]`, `[panel]`, `[http]`, and the tables that they ask     | Gold, the page and the care for files begin anew |
//! | `[maintenance]`                                                | so do these                                      |
//! | `[bronze]`, `[quarantine]`, `[late]`                           | everything begins anew, after a last commit      |
//! | `[state]`                                                      | it counts from the next start                    |

use std::fmt;

use super::pipeline::{Pipeline, SilverTable, TableName};

/// What a running daemon must do to become another pipeline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Everything begins anew.
    pub all: bool,
    pub source: bool,
    pub beside: bool,
    /// `[reload]`, which counts from the next version of a plugin.
    pub reload: bool,
    pub tables: Vec<(TableName, TableChange)>,
    /// What to tell, such as `[commit]` or `[silver.page_view] settings`.
    told: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableChange {
    Added,
    Removed,
    /// Its worker begins anew.
    Restarted,
    /// A new version of its plugin, or of what is handed over to it.
    Swapped,
}

impl Changes {
    /// What changes for a table.
    pub fn of(&self, table: &TableName) -> Option<TableChange> {
        self.tables.iter().find(|(name, _)| name == table).map(|(_, change)| *change)
    }

    pub fn between(old: &Pipeline, new: &Pipeline) -> Self {
        let mut changes = Self::default();
        let mut told = Vec::new();
        let mut differs = |name: &str, differs: bool| {
            if differs {
                told.push(match name.split_once(' ') {
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
        differs("state (from the next start)", old.state != new.state);
        changes.reload = differs("reload", old.reload != new.reload);
        let gold = differs("gold", old.gold != new.gold);
        let maintenance = differs("maintenance", old.maintenance != new.maintenance);
        changes.beside =
            gold | maintenance | differs("panel", old.panels != new.panels) | differs("http", old.http != new.http);
        changes.told = told;
        changes.tables_between(old, new, limits);
        changes
    }

    fn tables_between(&mut self, old: &Pipeline, new: &Pipeline, limits: bool) {
        let of =
            |pipeline: &Pipeline, name: &TableName| pipeline.silver.iter().find(|table| table.name == *name).cloned();
        for table in old.silver.iter().filter(|table| of(new, &table.name).is_none()) {
            self.told.push(format!("table {} removed", table.name));
            self.tables.push((table.name.clone(), TableChange::Removed));
        }
        for table in &new.silver {
            let change = match of(old, &table.name) {
                None => {
                    self.told.push(format!("table {} added", table.name));
                    TableChange::Added
                }
                Some(before) => {
                    let keys = keys_that_differ(&before, table);
                    if !keys.is_empty() {
                        self.told.push(format!("[silver.{}] {}", table.name, keys.join(", ")));
                    }
                    match () {
                        () if limits || !before.is_same_but_for_its_plugin(table) => TableChange::Restarted,
                        () if before != *table => TableChange::Swapped,
                        () => continue,
                    }
                }
            };
            self.tables.push((table.name.clone(), change));
        }
        let names = |pipeline: &Pipeline| pipeline.silver.iter().map(|table| table.name.clone()).collect::<Vec<_>>();
        // What Gold and the page ask: the tables by name, and where they stand.
        let places = self.tables.iter().any(|(_, change)| *change != TableChange::Swapped);
        self.beside |= places || names(old) != names(new);
    }

    /// Whether the pipelines are the same but for comments and the like.
    pub fn is_empty(&self) -> bool {
        let Self { all, source, beside, reload, tables, told: _ } = self;
        !all && !source && !beside && !reload && tables.is_empty()
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.told.is_empty() {
            true => f.write_str("nothing that silverd acts on"),
            false => f.write_str(&self.told.join(", ")),
        }
    }
}

impl SilverTable {
    /// Whether a worker can go on with this table as with that one, given another plugin at most.
    fn is_same_but_for_its_plugin(&self, other: &Self) -> bool {
        let Self { plugin, settings, reference, max_new_rejects, .. } = other.clone();
        Self { plugin, settings, reference, max_new_rejects, ..self.clone() } == *other
    }
}

fn keys_that_differ(old: &SilverTable, new: &SilverTable) -> Vec<&'static str> {
    let differs = [
        ("plugin", old.plugin != new.plugin),
        ("path", old.path != new.path),
        ("match", old.matches != new.matches),
        ("event_date", old.event_date != new.event_date),
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
    #![allow(clippy::unwrap_used)]
    use super::super::check;
    use super::*;

    const BASE: &str = r#"
        [source]
        brokers = "localhost:9092"
        topic = "events.raw"
        [silver.a]
        plugin = "plugins/a"
        match = { field = "t", equals = "a" }
        event_date = "ts"
        settings = { limit = 5 }
        [silver.b]
        plugin = "plugins/b"
        match = { field = "t", equals = "b" }
        event_date = "ts"
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
        assert_eq!(changes.to_string(), "nothing that silverd acts on");
    }

    #[test]
    fn a_plugin_and_what_it_is_given_are_swapped() {
        for (from, to, told) in [
            ("limit = 5", "limit = 6", "[silver.a] settings"),
            ("plugins/a", "plugins/c", "[silver.a] plugin"),
            ("settings = {", "reference = { x = \"x.csv\" }\nsettings = {", "[silver.a] reference"),
            ("settings = {", "max_new_rejects = \"5%\"\nsettings = {", "[silver.a] max_new_rejects"),
        ] {
            let changes = changes(from, to);
            check_tables(&changes, &[("a", TableChange::Swapped)]);
            assert_eq!(changes.to_string(), told);
            assert!(!changes.all && !changes.source && !changes.beside, "{changes:?}");
        }
    }

    #[test]
    fn what_a_worker_is_built_on_restarts_it_and_those_who_ask() {
        for (from, to) in [
            ("equals = \"a\"", "equals = \"c\""),
            ("event_date = \"ts\"", "event_date = \"at\""),
            ("settings = {", "path = \"elsewhere\"\nsettings = {"),
            ("settings = {", "late_after = \"1h\"\nsettings = {"),
        ] {
            let changes = changes(from, to);
            check_tables(&changes, &[("a", TableChange::Restarted)]);
            assert!(changes.beside && !changes.source && !changes.all, "{changes:?}");
        }
        let all = changes("[gold.g]", "[limits]\ntransform_ms_max = 5\n[gold.g]");
        check_tables(&all, &[("a", TableChange::Restarted), ("b", TableChange::Restarted)]);
        assert_eq!(all.to_string(), "[limits]");
    }

    #[test]
    fn tables_come_and_go() {
        let renamed = changes("[silver.b]", "[silver.c]");
        check_tables(&renamed, &[("b", TableChange::Removed), ("c", TableChange::Added)]);
        assert_eq!(renamed.to_string(), "table b removed, table c added");
        assert!(renamed.beside);
    }

    #[test]
    fn sections_concern_those_who_use_them() {
        let source = changes("events.raw", "other.raw");
        assert!(source.source && !source.beside && !source.all && source.tables.is_empty());
        let cadence = changes("[gold.g]", "[commit]\ninterval_ms = 50\n[gold.g]");
        assert!(cadence.source && !cadence.all);
        let page = changes("[gold.g]", "[http]\nlisten = \"127.0.0.1:1\"\n[gold.g]");
        assert!(page.beside && !page.source && !page.all);
        let gold = changes("FROM a", "FROM b");
        assert!(gold.beside && !gold.all);
        for section in ["bronze", "quarantine", "late"] {
            let changes = changes("[gold.g]", &format!("[{section}]\npath = \"elsewhere\"\n[gold.g]"));
            assert!(changes.all, "{section}");
            assert_eq!(changes.to_string(), format!("[{section}]"));
        }
        let state = changes("[gold.g]", "[state]\npath = \"elsewhere\"\n[gold.g]");
        assert!(state.is_empty());
        assert_eq!(state.to_string(), "[state] (from the next start)");
        let reload = changes("[gold.g]", "[reload]\nshadow_events = 5\n[gold.g]");
        assert!(reload.reload && !reload.is_empty() && !reload.all && reload.tables.is_empty());
    }
}
