//! The plugin version that a correction runs: the current one, or the one that served at an earlier time.

use std::sync::Arc;

use anyhow::{Context, bail};
use chrono::{DateTime, NaiveDate, NaiveTime, SecondsFormat, Utc};
use silverd_core::config::SilverTable;
use tracing::warn;

use crate::app::setup::Setup;
use crate::app::wrong_use;
use crate::cases::failed_cases;
use crate::delta::{PluginVersion, ServedVersion, last_plugin, serving_at};
use crate::plugin::{Current, Digest, Host, KeptVersion, Plugin, Source, kept_version, load_current};
use crate::runtime::clock;
use crate::runtime::inert::inert;
use crate::runtime::out::out;
use crate::tables::silver::check_fit;

/// Parses the time of `--as-of`: RFC 3339, or a day, which stands for its midnight in UTC.
pub(super) fn parse_time(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.to_utc());
    }
    let day = text.parse::<NaiveDate>().map_err(|_| {
        "expected a time such as 2026-11-23T17:30:00Z, or a day such as 2026-11-23: its midnight in UTC".to_owned()
    })?;
    Ok(day.and_time(NaiveTime::MIN).and_utc())
}

/// The current version of a table's plugin: the one that serves, or would, with the current settings and reference files. Newer
/// sources are not released for it.
pub(super) async fn load_serving(setup: &Setup, index: usize) -> anyhow::Result<Arc<Plugin>> {
    let (table, base_dir) = (&setup.pipeline.silver[index], &setup.base_dir);
    let (name, host) = (&table.name, setup.host()?);
    let last = last_plugin(&base_dir.join(&*table.path)).await?;
    let load = || load_current(table, base_dir, &host, &setup.pipeline.limits, last.as_ref());
    let Current { plugin, is_newest_build, is_outdated } =
        tokio::task::block_in_place(load).context("load the table's plugin")?;
    let plugin = Arc::new(plugin);
    if is_outdated {
        let digest = &plugin.digest;
        warn!(
            table = %name, %digest,
            "this version is used; there is a newer build, or there are newer sources. `silverd plugin deploy {name}` releases \
             them"
        );
    }
    // A daemon runs the cases, too, before it serves a build for the first time.
    let is_new = is_newest_build && last.is_none_or(|last| last.digest != plugin.digest.as_str());
    let source = Source::of(table, base_dir);
    if is_new && let Some(failed) = tokio::task::block_in_place(|| failed_cases(&source, &plugin))? {
        bail!(
            "the newest build of table {name}, {}, has not served yet, and {failed}. `silverd plugin test {name}` shows all; \
             `silverd plugin deploy {name} --digest DIGEST` serves an earlier version",
            plugin.digest
        );
    }
    Ok(plugin)
}

/// The version of a table's plugin that served at a time, with the settings and reference files that it had. Prints which one
/// that is, and what is worth knowing about it.
pub(super) async fn load_as_of(setup: &Setup, index: usize, time: DateTime<Utc>) -> anyhow::Result<Arc<Plugin>> {
    let now = clock::now_ms();
    if time.timestamp_millis() > now {
        let now = time_text(DateTime::from_timestamp_millis(now).unwrap_or_default());
        wrong_use!("--as-of {}: expected a time that has passed; it is {now}", time_text(time));
    }
    let (table, base_dir, host) = (&setup.pipeline.silver[index], &setup.base_dir, setup.host()?);
    let (name, state) = (&table.name, base_dir.join(&*setup.pipeline.state.path));
    let served = serving_at(&base_dir.join(&*table.path), time.timestamp_millis()).await;
    let served = served.with_context(|| format!("find the version of table {name} as of {}", time_text(time)))?;
    let ServedVersion { plugin: PluginVersion { digest, given }, commit, committed_at_ms, .. } = &served;
    let committed_at = DateTime::from_timestamp_millis(*committed_at_ms).unwrap_or_default();
    out!(
        "{name}: as of {}, plugin {} served: commit {commit} of the table, of {}, names it",
        time_text(time),
        short(&served.plugin),
        time_text(committed_at)
    );
    if given.is_none() {
        out!("{name}: that commit does not say which settings and reference files it had: the current ones are used");
    }
    let limits = setup.pipeline.limits.clone();
    let load = || kept_version(table, base_dir, host.clone(), limits, &served.plugin);
    let plugin = match tokio::task::block_in_place(load).context("load the version that served then")? {
        KeptVersion::Loaded(plugin) => Arc::new(*plugin),
        KeptVersion::NoPlugin => bail!(
            "version {digest}, which served table {name} then, is no longer kept in {}. Build it from its sources of then, \
             and copy the file there as {digest}.wasm, which must be its SHA-256",
            state.join("plugins").display()
        ),
        KeptVersion::NoGiven => bail!(
            "the settings and reference files that version {digest} of table {name} had then, {}, are no longer kept in {}. \
             Bring that folder back from a backup; or give the table these settings and files in pipeline.toml, and run the \
             command again",
            given.as_deref().unwrap_or_default(),
            state.join("given").display()
        ),
    };
    report(table, &host, &plugin, &served);
    if let Some(fit) = check_fit(table, &plugin, base_dir).await.context("compare its row with the table")? {
        fit.notices.iter().for_each(|notice| out!("{name}: {notice}"));
    }
    Ok(plugin)
}

/// Says what makes a version that served once doubtful.
fn report(table: &SilverTable, host: &Host, plugin: &Plugin, served: &ServedVersion) {
    let (name, digest) = (&table.name, &plugin.digest);
    let held = host.held(name);
    if let Some(failed) = held.failed(&served.plugin) {
        out!("{name}: version {digest} was rolled back, and does not serve again: {}", inert(&failed.reason));
    }
    if !plugin.has_decoder(served.decoder) {
        warn!(
            table = %name, %digest,
            "another version of silverd's decoder read the events for this version then: some rows may differ from those of then"
        );
    }
}

/// A version for people, in the form that `--written-by` takes.
pub(super) fn short(PluginVersion { digest, given }: &PluginVersion) -> String {
    match given {
        Some(given) => format!("{}+{}", Digest::short(digest), Digest::short(given)),
        None => Digest::short(digest).to_owned(),
    }
}

fn time_text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_or_days() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(parse_time(text).ok().map(time_text).as_deref(), expected, "{text}");
        };
        check("2026-11-23T17:30:00Z", Some("2026-11-23T17:30:00Z"));
        check("2026-11-23T17:30:00.125+02:00", Some("2026-11-23T15:30:00.125Z"));
        check("2026-11-23", Some("2026-11-23T00:00:00Z"));
        for text in ["2026-11-23T17:30:00", "yesterday", "", "2026-02-30"] {
            check(text, None);
        }
    }
}
