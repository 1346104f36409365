//! Finds the events that a plugin version wrote, from the table's log.

use std::fmt;
use std::path::Path;

use anyhow::bail;
use deltalake_core::logstore::{LogStoreRef, get_actions};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;
use silverd_core::config::SilverTable;

use tracing::warn;

use crate::bronze::read_ranges;
use crate::delta::{PluginVersion, TableReader, list_log, silverd_info};
use crate::tables::event_set::EventSet;

/// How many entries of the log are read at the same time.
const CONCURRENT_READS: usize = 8;

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

    /// The version that this names, as a commit's info has it; `None` if it names another.
    fn find(&self, info: &Value) -> Option<PluginVersion> {
        let digest = info["plugin"]["digest"].as_str()?;
        let given = info["plugin"]["given"].as_str();
        let has_given = match &self.given {
            Some(wanted) => given.is_some_and(|given| given.starts_with(wanted)),
            None => true,
        };
        let version = || PluginVersion { digest: digest.to_owned(), given: given.map(str::to_owned) };
        (digest.starts_with(&self.digest) && has_given).then(version)
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

/// The versions of a plugin that are meant, and the events that they wrote; `None` if they wrote none.
///
/// # Errors
///
/// If versions of several plugins are meant.
pub(crate) async fn events_written_by(
    config: &SilverTable,
    base_dir: &Path,
    written_by: &VersionPrefix,
) -> anyhow::Result<Option<(Vec<PluginVersion>, EventSet)>> {
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
    let (mut writers, mut all) = (Vec::new(), Vec::new());
    let entries = stream::iter(*first..=*newest).map(|version| read_info(reader.log(), version));
    let mut entries = std::pin::pin!(entries.buffered(CONCURRENT_READS));
    while let Some(info) = entries.try_next().await? {
        let Some(writer) = written_by.find(&info) else { continue };
        if !writers.contains(&writer) {
            writers.push(writer);
            written_by.check_unique(&writers)?;
        }
        all.extend([&info["ranges"], &info["correction"]["ranges"]].map(read_ranges));
    }
    Ok((!writers.is_empty()).then(|| (writers, EventSet::of_ranges(&all))))
}

/// What silverd wrote into the info of a commit; null if the commit was cleaned up, or is by another writer.
async fn read_info(log: &LogStoreRef, version: u64) -> anyhow::Result<Value> {
    let Some(bytes) = log.read_commit_entry(version).await? else { return Ok(Value::Null) };
    Ok(silverd_info(get_actions(version, &bytes)?).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use serde_json::json;

    use super::*;

    #[test]
    fn versions_are_named_by_the_beginnings_of_their_digests() {
        let info = |digest: &str, given: Option<&str>| json!({ "plugin": { "digest": digest, "given": given } });
        let check = |text: &str, info: &Value, is_meant: bool| {
            let prefix = VersionPrefix::parse(text).unwrap();
            assert_eq!((prefix.find(info).is_some(), prefix.to_string()), (is_meant, text.to_owned()), "{info}");
        };
        check("ab", &info("abc", Some("123")), true);
        check("ab", &info("abc", None), true);
        check("ab+12", &info("abc", Some("123")), true);
        check("ab+12", &info("abc", Some("99")), false);
        check("ab+12", &info("abc", None), false);
        check("x", &info("abc", Some("123")), false);
        check("ab", &json!({ "maintenance": {} }), false);
        for text in ["", "+", "+12", "ab+"] {
            assert!(VersionPrefix::parse(text).unwrap_err().contains("DIGEST+GIVEN"), "{text}");
        }
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
