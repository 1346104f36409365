//! Loads the plugin version that a table uses when its worker starts, and finds whether its canary period is over.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use silverd_core::config::{Limits, ReloadMode, SilverTable};
use silverd_core::counts::Counts;
use silverd_core::offsets::Ranges;
use tracing::warn;

use super::recent_versions::{RecentVersion, RecentVersions};
use crate::cases::failed_cases;
use crate::delta::{PluginVersion, open_log, plugin_history};
use crate::plugin::{
    Deployment, Digest, Held, Host, Plugin, Source, VersionFile, config_digest, is_same_version, load_file,
    load_version, version_with,
};

/// What a worker starts with, unless somebody deployed a version or it failed.
pub(crate) enum Preferred {
    /// The version that made the last progress: a reloader takes up the newest build later.
    LastWriter,
    /// The newest build, which is built first if its sources are newer: nobody watches it. In manual mode the last writer.
    NewestBuild,
    /// The newest build, in manual mode, too: pipeline.toml names another plugin than before.
    NamedPlugin,
    /// The newest build, which is loaded already.
    Loaded(Arc<Plugin>),
}

/// The version with which a worker starts.
pub(crate) struct StartupVersion {
    pub(crate) plugin: Arc<Plugin>,
    /// `None` if the version is trusted, or has not served yet.
    pub(crate) canary: Option<UnfinishedCanary>,
}

/// A canary period that was not over when the worker before this one ended.
pub(crate) struct UnfinishedCanary {
    /// The version before.
    pub(crate) baseline: Arc<Plugin>,
    /// How both did, each on its own events.
    pub(crate) counts: Counts,
    pub(crate) baseline_counts: Counts,
    /// How long the version served.
    pub(crate) served: Duration,
    /// The offsets that it answers for.
    pub(crate) committed: Ranges,
    pub(crate) of_baseline: Option<Box<UnfinishedCanary>>,
}

/// Loads the version with which a table's worker starts. The last writer is the newest version in the log that did not fail.
///
/// | deployed by hand¹ | preferred                       | last writer             | the table uses |
/// |-------------------|---------------------------------|-------------------------|----------------|
/// | yes, and it has served, or nobody watches |         |                         | the deployed version |
/// | yes, and it has not served | the last writer        | kept                    | the last writer: the reloader validates the deployed version |
/// | no                | the last writer                 | kept                    | the last writer, with what it was given |
/// | no                | the last writer                 | not kept, mode `watch`  | the newest build |
/// | no                | the last writer                 | not kept, mode `manual` | nothing, unless the newest build is the same file |
/// | no                | the newest build, mode `watch`  |                         | the newest build |
/// | no                | the newest build, mode `manual` | kept                    | the build of the last writer, with the current settings |
/// | no                |                                 | none                    | the newest build |
///
/// ¹ And not ended by another build, in mode `watch`; nor rejected since.
///
/// The newest build serves only if it has not failed, was not rejected, and has passed its cases. Otherwise the last writer
/// serves.
///
/// # Errors
///
/// If no version may serve: the table waits.
pub(crate) async fn startup_version(
    config: &SilverTable,
    base_dir: &Path,
    host: &Arc<Host>,
    limits: &Limits,
    preferred: Preferred,
) -> anyhow::Result<StartupVersion> {
    let mut held = Held::default();
    if let Some(deployments) = &host.deployments {
        deployments.complete_rollbacks(&config.name)?;
        held = deployments.held(&config.name);
    }
    let table = base_dir.join(&*config.path);
    let recent = RecentVersions::read(&table, &held).await?;
    let (config, base_dir, limits) = (config.clone(), base_dir.to_path_buf(), limits.clone());
    let deployed_has_served = match &held.deployment {
        Some(deployment) if !deployment.rolled_back => {
            has_served(&table, &with_current(&deployment.plugin(), &config, &base_dir)).await?
        }
        _ => false,
    };
    let starting = Starting { config, base_dir, host: host.clone(), limits, held, recent, deployed_has_served };
    tokio::task::spawn_blocking(move || starting.version(preferred)).await?
}

/// A table whose worker starts.
struct Starting {
    config: SilverTable,
    base_dir: PathBuf,
    host: Arc<Host>,
    limits: Limits,
    held: Held,
    recent: RecentVersions,
    /// The build that somebody deployed has written the table with the current settings and reference files.
    deployed_has_served: bool,
}

/// The version with the current settings and reference files, unless it names others, or these cannot be read.
fn with_current(version: &PluginVersion, config: &SilverTable, base_dir: &Path) -> PluginVersion {
    match (&version.given, config_digest(config, base_dir)) {
        (None, Ok(given)) => version_with(&version.digest, &given),
        _ => version.clone(),
    }
}

/// Whether a version has written the table in a folder.
async fn has_served(table: &Path, version: &PluginVersion) -> anyhow::Result<bool> {
    let Some(log) = open_log(table)? else { return Ok(false) };
    let history = plugin_history(log.object_store(None).as_ref()).await?;
    Ok(history.iter().any(|span| is_same_version(&span.version(), version)))
}

/// The version that wrote the table in a folder last, and did not fail.
pub(crate) async fn last_good(table: &Path, held: &Held) -> anyhow::Result<Option<PluginVersion>> {
    Ok(RecentVersions::read(table, held).await?.good.first().map(|last| last.version.clone()))
}

impl Starting {
    fn version(&self, preferred: Preferred) -> anyhow::Result<StartupVersion> {
        self.warn_if_state_was_lost();
        if let Some(plugin) = self.deployed(&preferred)? {
            return Ok(StartupVersion { plugin, canary: None });
        }
        let is_manual = self.host.reload_mode == ReloadMode::Manual;
        let has_writer = self.recent.last.is_some() || self.rollback().is_some();
        let plugin = match preferred {
            Preferred::Loaded(_) | Preferred::NewestBuild if is_manual && has_writer => self.last_build()?,
            Preferred::LastWriter if has_writer => self.last_writer()?,
            Preferred::Loaded(plugin) => match self.refused(&plugin.version()) {
                Some(_) => self.last_writer()?,
                None => self.with_cases(plugin)?,
            },
            Preferred::LastWriter | Preferred::NewestBuild | Preferred::NamedPlugin => self.newest_build()?,
        };
        let is_last = |last: &&RecentVersion| is_same_version(&last.version, &plugin.version());
        let canary = match self.recent.good.first().filter(is_last) {
            Some(_) => self.unfinished(&plugin, &self.recent.good),
            None => None,
        };
        Ok(StartupVersion { plugin, canary })
    }

    /// Without the folder of `[state]` nothing says which versions must not serve.
    fn warn_if_state_was_lost(&self) {
        let Some(digest) = self.recent.last.as_ref().and_then(|last| Digest::parse(&last.digest)) else { return };
        if !self.host.keeps(&digest) {
            warn!(
                table = %self.config.name,
                "the file of version {}, which wrote the table last, is not in the folder of [state]. If that folder was \
                 removed, silverd does not know any more which versions failed, were rejected or were deployed: a version that \
                 was blocked may serve",
                Digest::short(digest.as_str())
            );
        }
    }

    /// What somebody deployed.
    fn deployed(&self, preferred: &Preferred) -> anyhow::Result<Option<Arc<Plugin>>> {
        let mode = self.host.reload_mode;
        if self.held.deployment.is_none() || self.rollback().is_some() {
            return Ok(None);
        }
        let newest = match (mode, preferred) {
            (ReloadMode::Manual, _) => None,
            (ReloadMode::Watch, Preferred::LastWriter | Preferred::Loaded(_)) => {
                self.source().newest_digest().unwrap_or_else(|error| {
                    warn!(table = %self.config.name, "{error:#}");
                    None
                })
            }
            (ReloadMode::Watch, Preferred::NewestBuild | Preferred::NamedPlugin) => Some(self.built()?.digest()?),
        };
        if let (ReloadMode::Watch, Some(newest), Some(deployments)) = (mode, &newest, &self.host.deployments) {
            deployments.end_by_hand(&self.config.name, newest)?;
        }
        let Some(deployment) = self.held.by_hand(mode, newest.as_ref()) else { return Ok(None) };
        let mut version = deployment.plugin();
        if let Some(rejected) = self.held.refused(&with_current(&version, &self.config, &self.base_dir)) {
            let (table, digest) = (&self.config.name, Digest::short(&version.digest));
            warn!(%table, "version {digest}, which somebody deployed, does not serve: {}", rejected.reason);
            return Ok(None);
        }
        let is_validated_later = matches!(preferred, Preferred::LastWriter) && self.recent.last.is_some();
        if is_validated_later && !self.deployed_has_served {
            return Ok(None);
        }
        // Other settings are validated first, where somebody watches them.
        let last = self.recent.good.first().filter(|last| is_same_version(&last.version, &version));
        if let (Preferred::LastWriter, Some(last)) = (preferred, last) {
            version = last.version.clone();
        }
        let missing = match self.kept(&version) {
            Ok(Some(plugin)) => return Ok(Some(plugin)),
            Ok(None) => "its file, its settings or its reference files were not kept".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        warn!(table = %self.config.name, "load the deployed version, {}: {missing}", Digest::short(&version.digest));
        Ok(None)
    }

    /// The build that made the last progress and did not fail, with the current settings: nobody watches these.
    fn last_build(&self) -> anyhow::Result<Arc<Plugin>> {
        let Some(last) = self.last() else { return self.newest_build() };
        let current = version_with(&last.digest, &config_digest(&self.config, &self.base_dir)?);
        if is_same_version(&last, &current) || self.refused(&current).is_some() {
            return self.last_writer();
        }
        match self.kept(&current)? {
            Some(plugin) => self.with_cases(plugin),
            None => self.last_writer(),
        }
    }

    /// The version that made the last progress and did not fail.
    fn last_writer(&self) -> anyhow::Result<Arc<Plugin>> {
        let Some(last) = self.last() else { return self.newest_build() };
        let (table, digest) = (&self.config.name, Digest::short(&last.digest));
        let missing = match self.kept(&last) {
            Ok(Some(plugin)) => return Ok(plugin),
            Ok(None) => "its file, its settings or its reference files were not kept".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        warn!(%table, "load version {digest}, which wrote the table last: {missing}");
        if self.host.reload_mode == ReloadMode::Watch {
            return self.newest_build();
        }
        match self.source().newest_digest()? {
            Some(newest) if newest.as_str() == last.digest => self.newest_build(),
            _ => bail!(
                "version {digest}, which wrote the table last, cannot be loaded: {missing}. Run `silverd plugin deploy {table}`, \
                 which deploys the newest build"
            ),
        }
    }

    /// The newest build, or the last writer if it failed or was rejected.
    fn newest_build(&self) -> anyhow::Result<Arc<Plugin>> {
        let file = self.built()?;
        let (digest, given) = (file.digest()?, config_digest(&self.config, &self.base_dir)?);
        let version = version_with(digest.as_str(), &given);
        if let Some(reason) = self.refused(&version) {
            let table = &self.config.name;
            let refusal = format!(
                "version {digest} is blocked: {reason}. Build another version, or run `silverd plugin deploy {table}`"
            );
            let Some(last) = self.recent.good.first().map(|last| last.version.clone()) else { bail!(refusal) };
            // The build that serves, with the current settings, if these were not rejected.
            let current = version_with(&last.digest, &given);
            for serving in [Some(current).filter(|current| self.refused(current).is_none()), Some(last)] {
                if let Some(plugin) = serving.map(|serving| self.kept(&serving)).transpose()?.flatten() {
                    warn!(%table, "{refusal}. Version {} serves", Digest::short(plugin.digest.as_str()));
                    return Ok(plugin);
                }
            }
            bail!(refusal)
        }
        let plugin = load_file(&self.config, &self.base_dir, self.host.clone(), self.limits.clone(), &file)?;
        self.with_cases(Arc::new(plugin))
    }

    /// A version, once it has passed its cases. One that wrote the table before need not pass them again.
    fn with_cases(&self, plugin: Arc<Plugin>) -> anyhow::Result<Arc<Plugin>> {
        let version = plugin.version();
        if self.recent.good.iter().any(|found| found.version == version) {
            return Ok(plugin);
        }
        match failed_cases(&self.source(), &plugin).context("run its cases")? {
            Some(failed) => bail!(
                "version {} must pass its cases before it writes the table, and {failed}. `silverd plugin test {}` shows all",
                plugin.digest,
                self.config.name
            ),
            None => Ok(plugin),
        }
    }

    /// The canary period of the first of these versions, newest first; `None` if it is trusted. `plugin` is that version.
    fn unfinished(&self, plugin: &Plugin, versions: &[RecentVersion]) -> Option<UnfinishedCanary> {
        let [served, before, ..] = versions else { return None };
        let by_hand = self.held.deployment.as_ref().filter(|deployment| !deployment.rolled_back);
        if served.is_trusted() || by_hand.is_some_and(|by_hand| is_same_version(&by_hand.plugin(), &served.version)) {
            return None;
        }
        let baseline = self.kept(&before.version).unwrap_or_else(|error| {
            warn!(table = %self.config.name, "load version {}: {error:#}", Digest::short(&before.version.digest));
            None
        });
        let Some(baseline) = baseline else {
            let (table, before) = (&self.config.name, Digest::short(&before.version.digest));
            warn!(%table, "version {before} was not kept, so version {} has nothing to be compared with", plugin.digest);
            return None;
        };
        let of_baseline = self.unfinished(&baseline, &versions[1..]).map(Box::new);
        (!baseline.is_same_version(plugin)).then(|| UnfinishedCanary {
            counts: served.counts,
            baseline_counts: before.counts,
            served: served.served(),
            committed: served.ranges.clone(),
            baseline,
            of_baseline,
        })
    }

    fn last(&self) -> Option<PluginVersion> {
        let last = self.recent.good.first().map(|last| last.version.clone());
        last.or(self.rollback().map(Deployment::plugin))
    }

    /// What silverd rolled back to, if that was the last change.
    fn rollback(&self) -> Option<&Deployment> {
        self.held.deployment.as_ref().filter(|deployment| deployment.rolled_back)
    }

    /// Why a version must not serve without being validated; `None` if it may.
    fn refused(&self, version: &PluginVersion) -> Option<&str> {
        self.held.refused(version).map(|refused| &*refused.reason)
    }

    /// A version with what it was given; `None` if either is not kept.
    fn kept(&self, PluginVersion { digest, given }: &PluginVersion) -> anyhow::Result<Option<Arc<Plugin>>> {
        let (host, limits) = (self.host.clone(), self.limits.clone());
        Ok(load_version(&self.config, &self.base_dir, host, limits, digest, given.as_deref())?.map(Arc::new))
    }

    fn source(&self) -> Source {
        Source::of(&self.config, &self.base_dir)
    }

    /// The newest build, built first if its sources are newer.
    fn built(&self) -> anyhow::Result<VersionFile> {
        self.source().build()
    }
}
