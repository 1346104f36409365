//! The current version of a table's plugin, for commands that make or compare rows: the version that serves, or would. They
//! release nothing: newer sources stay as they are, and no daemon finds a build that was not there before.

use std::path::Path;
use std::sync::Arc;

use anyhow::anyhow;
use silverd_core::config::{Limits, SilverTable};

use super::component::Plugin;
use super::deployments::{Choice, is_same_version, version_with};
use super::digest::Digest;
use super::host::Host;
use super::load::{KeptVersion, LoadError, config_digest, kept_version, load_file};
use super::source::Source;
use crate::delta::PluginVersion;

/// The current version.
pub(crate) struct Current {
    pub(crate) plugin: Plugin,
    /// It is the newest build, and not a version that serves instead of it.
    pub(crate) is_newest_build: bool,
    /// There is a newer build, or there are newer sources, which do not serve.
    pub(crate) is_outdated: bool,
}

/// Loads the current version: what [`Held::choose`](super::Held::choose) says of `last_writer`, the version that made the
/// table's last progress.
///
/// | it says                                  | the current version |
/// |------------------------------------------|---------------------|
/// | the newest build                         | the newest build, with the current settings |
/// | the build that serves, with the settings | the last writer's build, with the current settings |
/// | the version that serves stays            | the last writer |
/// | a deployed version                       | the deployed version |
///
/// A daemon may have rejected the newest build, or a deployed version that has not served: then it is the last writer's build,
/// with the current settings.
///
/// Where the file of that version is not kept, it is the newest build, too; and where there is none, the sources, built where
/// no daemon looks.
pub(crate) fn load_current(
    config: &SilverTable,
    base_dir: &Path,
    host: &Arc<Host>,
    limits: &Limits,
    last_writer: Option<&PluginVersion>,
) -> Result<Current, LoadError> {
    let source = Source::of(config, base_dir);
    let newest = source.newest()?;
    let given = config_digest(config, base_dir)?;
    let digest = newest.as_ref().map(|newest| &newest.digest);
    if let Some(version) = version_instead(config, host, digest, &given, last_writer) {
        match kept_version(config, base_dir, host.clone(), limits.clone(), &version)? {
            KeptVersion::Loaded(plugin) => {
                let is_outdated =
                    newest.is_some_and(|newest| newest.sources_are_newer || newest.digest != plugin.digest);
                return Ok(Current { plugin: *plugin, is_newest_build: false, is_outdated });
            }
            KeptVersion::NoPlugin => {}
            KeptVersion::NoGiven => {
                let digest = Digest::short(&version.digest);
                let message = "which serves, are no longer kept: `silverd plugin deploy` takes the current ones";
                return Err(anyhow!("the settings and reference files of version {digest}, {message}").into());
            }
        }
    }
    let (file, is_outdated) = match newest {
        Some(newest) => (newest.file, newest.sources_are_newer),
        None => (source.build_trial()?, false),
    };
    let plugin = load_file(config, base_dir, host.clone(), limits.clone(), &file)?;
    Ok(Current { plugin, is_newest_build: true, is_outdated })
}

/// The version that serves instead of the newest build with the current settings and reference files, which have the digest
/// `given`.
fn version_instead(
    config: &SilverTable,
    host: &Host,
    newest: Option<&Digest>,
    given: &Digest,
    last_writer: Option<&PluginVersion>,
) -> Option<PluginVersion> {
    let held = host.held(&config.name);
    let Some(serving) = last_writer else {
        return held.by_hand(host.reload_mode, newest).map(|deployment| deployment.plugin());
    };
    let is_refused = |version: &PluginVersion| held.refused(version).is_some() && !is_same_version(version, serving);
    // Its current settings and reference files may have been rejected, too: then it keeps those that it has.
    let build_of_serving = || Some(version_with(&serving.digest, given)).filter(|version| !is_refused(version));
    let serves_on = || Some(build_of_serving().unwrap_or_else(|| serving.clone()));
    match held.choose(host.reload_mode, newest, given, serving) {
        Choice::Stays => Some(serving.clone()),
        Choice::Newest if newest.is_none_or(|newest| !is_refused(&version_with(newest.as_str(), given))) => None,
        Choice::Deployed(version) if !is_refused(&version) => Some(version),
        Choice::Newest | Choice::Deployed(_) | Choice::OtherSettings => serves_on(),
    }
}
