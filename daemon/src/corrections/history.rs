//! Finds the events whose rows a plugin version wrote, from the table's log.

use std::fmt;
use std::path::Path;

use anyhow::bail;
use silverd_core::config::SilverTable;
use tracing::warn;

use super::row_writers::RowWriters;
use crate::delta::{PluginVersion, TableReader, list_log};
use crate::plugin::is_same_version;
use crate::tables::event_set::EventSet;

/// Plugin versions as people name them: `DIGEST` for all settings and reference files that this plugin had, or
/// `DIGEST+GIVEN` for those with this digest. Each is a digest, or the first characters of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VersionPrefix {
    digest: String,
    given: Option<String>,
}

impl VersionPrefix {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (digest, given) = match text.split_once('+') {
            Some((digest, given)) => (digest, Some(given)),
            None => (text, None),
        };
        if digest.is_empty() || given.is_some_and(str::is_empty) {
            return Err("expected DIGEST or DIGEST+GIVEN, as `silverd plugin history` prints them".to_owned());
        }
        Ok(Self { digest: digest.to_owned(), given: given.map(str::to_owned) })
    }

    /// Whether this names the version.
    fn names(&self, version: &PluginVersion) -> bool {
        let has_given = match (&self.given, &version.given) {
            (Some(wanted), Some(given)) => given.starts_with(wanted),
            (Some(_), None) => false,
            (None, _) => true,
        };
        version.digest.starts_with(&self.digest) && has_given
    }

    /// Fails if these are versions of several plugins, or if it names settings and there are several.
    fn check_unique(&self, found: &[PluginVersion]) -> anyhow::Result<()> {
        if found.iter().any(|version| version.digest != found[0].digest) {
            bail!("several plugin versions start with {}: give more of the digest", self.digest);
        }
        if let Some(given) = &self.given
            && found.len() > 1
        {
            bail!("this plugin had several settings whose digests start with {given}: give more of the digest");
        }
        Ok(())
    }
}

impl fmt::Display for VersionPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.given {
            Some(given) => write!(f, "{}+{given}", self.digest),
            None => f.write_str(&self.digest),
        }
    }
}

/// What the versions wrote that a prefix names.
#[derive(Default)]
pub(crate) struct Written {
    /// Those that have rows in the table.
    pub(crate) versions: Vec<PluginVersion>,
    /// The events of these rows.
    pub(crate) events: EventSet,
    /// Events whose rows are perhaps by these versions: the log does not say.
    pub(crate) unknown: u64,
}

/// What the plugin versions that are meant wrote, and no other version has replaced since; `None` if no commit is by one of
/// them.
///
/// # Errors
///
/// If versions of several plugins are meant.
pub(crate) async fn events_written_by(
    config: &SilverTable,
    base_dir: &Path,
    written_by: &VersionPrefix,
) -> anyhow::Result<Option<Written>> {
    let Some(reader) = TableReader::open(&base_dir.join(&*config.path))? else { return Ok(None) };
    let log = list_log(reader.log().object_store(None).as_ref()).await?;
    let Some((first, newest)) = log.commits.keys().next().zip(log.commits.keys().next_back()) else { return Ok(None) };
    if *first > 0 {
        let table = &config.name;
        warn!(
            %table,
            "the log starts with version {first}, so it does not name the plugins of earlier rows. Rebuild their days with \
             `silverd rebuild {table} --from DATE --to DATE`"
        );
    }
    let writers = RowWriters::read(reader.log(), *first..=*newest).await?;
    let unknown = writers.unknown.len();
    let meant: Vec<_> = writers.versions.into_iter().filter(|(version, _)| written_by.names(version)).collect();
    if meant.is_empty() {
        return Ok(None);
    }
    let named: Vec<_> = meant.iter().map(|(version, _)| version.clone()).collect();
    written_by.check_unique(&named)?;
    let mut written = Written { unknown, ..Written::default() };
    for (version, events) in meant.into_iter().filter(|(_, events)| !events.is_empty()) {
        written.versions.push(version);
        written.events.merge(&events);
    }
    Ok(Some(written))
}

/// The events whose rows corrections after version `since` of a table made again, by other versions than `failed`.
pub(crate) async fn events_made_again(table: &Path, since: u64, failed: &PluginVersion) -> anyhow::Result<EventSet> {
    let mut made_again = EventSet::default();
    let Some(reader) = TableReader::open(table)? else { return Ok(made_again) };
    let newest = reader.version().await?.unwrap_or(0);
    if newest <= since {
        return Ok(made_again);
    }
    let writers = RowWriters::read(reader.log(), since + 1..=newest).await?;
    for (_, events) in writers.versions.into_iter().filter(|(version, _)| !is_same_version(version, failed)) {
        made_again.merge(&events);
    }
    Ok(made_again)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use serde_json::{Value, json};

    use super::*;
    use crate::delta::log_dir;

    #[test]
    fn versions_are_named_by_the_beginnings_of_their_digests() {
        let check = |text: &str, digest: &str, given: Option<&str>, is_meant: bool| {
            let prefix = VersionPrefix::parse(text).unwrap();
            let version = PluginVersion { digest: digest.to_owned(), given: given.map(str::to_owned) };
            assert_eq!((prefix.names(&version), prefix.to_string()), (is_meant, text.to_owned()), "{version:?}");
        };
        check("ab", "abc", Some("123"), true);
        check("ab", "abc", None, true);
        check("ab+12", "abc", Some("123"), true);
        check("ab+12", "abc", Some("99"), false);
        check("ab+12", "abc", None, false);
        check("x", "abc", Some("123"), false);
        for text in ["", "+", "+12", "ab+"] {
            assert!(VersionPrefix::parse(text).unwrap_err().contains("DIGEST+GIVEN"), "{text}");
        }
    }

    /// The rollback's rebuild is done once other versions have made exactly these rows again, not the ones around them.
    #[tokio::test]
    async fn rows_that_were_made_again_are_found_in_the_log() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(log_dir(folder.path())).unwrap();
        let commit = |number: u64, silverd: Value| {
            let line = json!({ "commitInfo": { "timestamp": 1, "silverd": silverd } });
            std::fs::write(log_dir(folder.path()).join(format!("{number:020}.json")), line.to_string()).unwrap();
        };
        let undo = |version: &str, events: &[[i64; 2]]| {
            json!({ "plugin": { "digest": version, "given": "g" }, "correction": {
                "kind": "undo", "ranges": { "c:t:0": [0, 100] }, "event_ranges": { "c:t:0": events } } })
        };
        let failed = PluginVersion { digest: "bad".to_owned(), given: Some("g".to_owned()) };
        let found = async || {
            let events = events_made_again(folder.path(), 1, &failed).await.unwrap();
            events.ranges().iter().map(|(_, range)| range.to_string()).collect::<Vec<_>>()
        };
        commit(0, json!({ "ranges": { "c:t:0": [0, 40] }, "plugin": { "digest": "good", "given": "g" } }));
        commit(1, json!({ "ranges": { "c:t:0": [40, 60] }, "plugin": { "digest": "bad", "given": "g" } }));
        assert_eq!(found().await, [""; 0]);
        commit(2, undo("good", &[[0, 10], [55, 100]]));
        assert_eq!(found().await, ["0..10", "55..100"]);
        commit(3, undo("bad", &[[58, 60]]));
        assert_eq!(found().await, ["0..10", "55..58", "60..100"]);
    }

    #[test]
    fn versions_of_several_plugins_are_refused() {
        let version =
            |digest: &str, given: &str| PluginVersion { digest: digest.to_owned(), given: Some(given.to_owned()) };
        let check = |text: &str, found: &[PluginVersion], error: Option<&str>| {
            let result = VersionPrefix::parse(text).unwrap().check_unique(found).map_err(|error| error.to_string());
            assert_eq!(result.err().as_deref(), error, "{text}");
        };
        let found = [version("abc", "123"), version("abc", "124")];
        check("ab", &found, None);
        check("ab+123", &found[..1], None);
        check(
            "ab+12",
            &found,
            Some("this plugin had several settings whose digests start with 12: give more of the digest"),
        );
        check(
            "ab",
            &[version("abc", "123"), version("abd", "123")],
            Some("several plugin versions start with ab: give more of the digest"),
        );
    }
}
