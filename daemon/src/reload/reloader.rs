//! Watches the files of a table's plugin, validates each new version, and hands it to the table's worker.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use parking_lot::Mutex;
use silverd_core::config::{Reload, ReloadMode, SilverTable};
use tokio::sync::watch;
use tracing::{debug, error, info, warn};

use super::pending::{Candidate, PendingVersion};
use super::validate::{Build, PluginLoader, RejectedVersion, start, validate};
use crate::delta::{PluginSpan, PluginVersion, open_log, plugin_history};
use crate::plugin::{
    Choice, Digest, FailedVersion, Held, Plugin, Source, SourceLocation, VersionFile, config_digest, is_same_version,
    kept_file, load_version, version_with, wit_file,
};
use crate::runtime::causes;
use crate::runtime::file_watch::{FileStamp, FileWatch};
use crate::runtime::log_once::LogOnce;
use crate::telemetry::{TableStats, spans};

/// What pipeline.toml currently says about a table and its plugin.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DesiredVersion {
    pub(crate) table: SilverTable,
    pub(crate) reload: Reload,
}

/// Reloads the plugin of one table.
pub(crate) struct PluginReloader {
    pub(crate) desired: watch::Receiver<DesiredVersion>,
    pub(crate) pending: Arc<PendingVersion>,
    pub(crate) stats: Arc<TableStats>,
    pub(crate) loader: PluginLoader,
    pub(crate) watch: FileWatch,
    /// The version that serves first may be older than the plugin's sources: build them.
    pub(crate) builds_sources: bool,
    /// The build whose rejection was logged. It is validated again whenever a file changes, also by what cargo writes last.
    pub(crate) logged: Mutex<LogOnce>,
}

/// How long to wait before locating a plugin again that could not be located.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

impl PluginReloader {
    /// Runs until it is dropped.
    pub(crate) async fn run(mut self) {
        self.pending.first_active().await;
        let mut at_startup = self.builds_sources;
        loop {
            if self.desired.has_changed().unwrap_or(false) {
                self.logged.lock().clear();
            }
            let desired = self.desired.borrow_and_update().clone();
            let source = Source::of(&desired.table, &self.loader.base_dir);
            let location = {
                let source = source.clone();
                tokio::task::spawn_blocking(move || source.location()).await
            };
            match location.map_err(anyhow::Error::new).and_then(|location| location) {
                Ok(location) => self.follow(&desired, &source, &location, at_startup).await,
                Err(failure) => {
                    self.reject(&failure);
                    tokio::select! { () = tokio::time::sleep(RETRY_INTERVAL) => {} _ = self.desired.changed() => {} }
                }
            }
            at_startup = false;
        }
    }

    /// Considers each new version at this location, until pipeline.toml asks for something else.
    async fn follow(&self, desired: &DesiredVersion, source: &Source, location: &SourceLocation, at_startup: bool) {
        let read_stamp = || self.stamp(&desired.table, location);
        let (mut watch, mut desired_changes) = (self.watch.clone(), self.desired.clone());
        let mut newest = match (desired.reload.mode, at_startup) {
            (ReloadMode::Watch, true) => build(source.clone()).await.map(Some),
            (mode, _) => newest_version(mode, location),
        };
        loop {
            self.end_deployment(desired, newest.as_ref().ok().and_then(Option::as_ref)).await;
            // Before the files are read: what changes after it, is considered again.
            let (seen, _) = read_stamp();
            self.consider(desired, newest).await;
            tokio::select! {
                _ = watch.changed(&seen, read_stamp) => {}
                changed = desired_changes.changed() => {
                    if changed.is_err() {
                        // The worker stops, and drops this future.
                        std::future::pending::<()>().await;
                    }
                    return;
                }
            }
            newest = newest_version(desired.reload.mode, location);
        }
    }

    /// Ends what somebody deployed, if there is another build than the one that it serves instead of.
    async fn end_deployment(&self, desired: &DesiredVersion, newest: Option<&VersionFile>) {
        let (Some(deployments), Some(newest)) = (&self.loader.host.deployments, newest) else { return };
        let table = &desired.table.name;
        if desired.reload.mode == ReloadMode::Manual || deployments.get(table).is_none() {
            return;
        }
        let ended = digest_of(newest.clone()).await.and_then(|newest| deployments.end_by_hand(table, &newest));
        if let Err(error) = ended {
            warn!(%table, "end the deployment of an earlier version: {}", causes(&error));
        }
    }

    /// The state of the files that decide which version is used, and the folders in which they are.
    fn stamp(&self, table: &SilverTable, location: &SourceLocation) -> (FileStamp, Vec<PathBuf>) {
        let mut files: Vec<PathBuf> = table.reference.values().map(|file| self.loader.base_dir.join(&**file)).collect();
        let mut folders = location.folders();
        files.push(wit_file(table, &self.loader.base_dir));
        folders.extend(files.iter().filter_map(|file| file.parent().map(Path::to_path_buf)));
        files.extend(location.file());
        if let Some(deployments) = &self.loader.host.deployments {
            files.push(deployments.path(&table.name));
            folders.push(deployments.folder());
        }
        (FileStamp::of(files), folders)
    }

    /// Validates the version that should serve, if it is another one than the active one. `newest` is the newest build.
    async fn consider(&self, desired: &DesiredVersion, newest: anyhow::Result<Option<VersionFile>>) {
        let newest = match newest {
            Ok(newest) => newest,
            Err(failure) => return self.reject(&failure),
        };
        while let Some(active) = self.pending.active() {
            match self.candidate(desired, newest.as_ref(), &active).await {
                Ok(Some(candidate)) => return self.offer(candidate),
                Ok(None) => {
                    // The active version should stay, so no candidate is needed, unless the worker has just taken one.
                    self.pending.clear();
                    self.logged.lock().clear();
                    if self.pending.active().is_some_and(|now| Arc::ptr_eq(&now, &active)) {
                        return;
                    }
                }
                Err(failure) => {
                    self.remember_rejected(&failure, &active);
                    self.reject(&failure);
                    return self.refresh(desired, &active).await;
                }
            }
        }
    }

    /// The newest build was rejected: the one that serves gets the current settings and reference files, if it may.
    async fn refresh(&self, desired: &DesiredVersion, active: &Arc<Plugin>) {
        let DesiredVersion { table, reload } = desired;
        let refreshed = async {
            let version = version_with(active.digest.as_str(), &self.current_given(table).await?);
            match self.build_of(active, false)? {
                Some(build) if self.loader.host.held(&table.name).refused(&version).is_none() => {
                    validate(&self.loader, table, reload, build, active).await
                }
                _ => anyhow::Ok(None),
            }
        };
        match refreshed.await {
            Ok(Some(candidate)) => self.offer(candidate),
            Ok(None) => {}
            Err(failure) => {
                self.remember_rejected(&failure, active);
                info!(table = %table.name, "the current version keeps its settings and reference files: {failure:#}");
            }
        }
    }

    /// A version that was rejected does not serve after a restart either, unless it is validated then.
    fn remember_rejected(&self, failure: &anyhow::Error, active: &Plugin) {
        let rejected = failure.downcast_ref::<RejectedVersion>();
        if let (Some(rejected), Some(deployments)) = (rejected, &self.loader.host.deployments) {
            let version = FailedVersion::rejected(&rejected.version, &active.version(), rejected.to_string());
            self.check_stored(deployments.add_rejected(&self.desired.borrow().table.name, version));
        }
    }

    fn check_stored(&self, stored: anyhow::Result<()>) {
        if let Err(error) = stored {
            warn!(table = %self.desired.borrow().table.name, "{}; the next start does not know of it", causes(&error));
        }
    }

    /// The version that should replace the active one; `None` if it should stay.
    async fn candidate(
        &self,
        desired: &DesiredVersion,
        file: Option<&VersionFile>,
        active: &Arc<Plugin>,
    ) -> anyhow::Result<Option<Candidate>> {
        let DesiredVersion { table, reload } = desired;
        let newest = match file {
            Some(file) => Some(digest_of(file.clone()).await?),
            None => None,
        };
        let given = self.current_given(table).await?;
        let held = self.loader.host.held(&table.name);
        let choice = held.choose(reload.mode, newest.as_ref(), &given, &active.version());
        self.report_held(desired, &held, newest.as_ref(), &given);
        let build = match (&choice, file, newest) {
            (Choice::Stays, ..) => return Ok(None),
            (Choice::Newest, Some(file), Some(digest)) => Build { file: file.clone(), digest, has_cases: true },
            (Choice::Deployed(version), _, newest) => {
                let written = self.written_by(table).await?;
                if written.iter().any(|known| is_same_version(known, version)) {
                    return self.earlier(table, version).await.map(Some);
                }
                let digest = Digest::parse(&version.digest).context("the deployment names no digest")?;
                let is_new = written.iter().all(|known| known.digest != version.digest);
                let has_cases = is_new || newest.is_some_and(|newest| newest == digest);
                Build { file: self.kept(&digest)?, digest, has_cases }
            }
            (Choice::OtherSettings | Choice::Newest, _, newest) => {
                let has_cases = newest.is_none_or(|newest| newest == active.digest);
                let Some(build) = self.build_of(active, has_cases)? else { return Ok(None) };
                build
            }
        };
        let validation = validate(&self.loader, table, reload, build, active);
        spans::record(spans::plugin_validation(&table.name), validation).await
    }

    /// The build of the active version, to be validated with the current settings; `None` if its file was not kept.
    fn build_of(&self, active: &Plugin, has_cases: bool) -> anyhow::Result<Option<Build>> {
        let file = kept_file(&self.loader.host, &active.digest)?;
        Ok(file.map(|file| Build { file: VersionFile::File(file), digest: active.digest.clone(), has_cases }))
    }

    /// The digest of the table's current settings and reference files.
    async fn current_given(&self, table: &SilverTable) -> anyhow::Result<Digest> {
        let (table, base_dir) = (table.clone(), self.loader.base_dir.clone());
        Ok(tokio::task::spawn_blocking(move || config_digest(&table, &base_dir)).await??)
    }

    /// Says which version serves instead of the newest build.
    fn report_held(&self, desired: &DesiredVersion, held: &Held, newest: Option<&Digest>, given: &Digest) {
        let (table, mode) = (&desired.table.name, desired.reload.mode);
        let rollback = held.deployment.as_ref().filter(|deployment| deployment.rolled_back);
        let failed = newest.and_then(|newest| held.failed(&version_with(newest.as_str(), given)));
        let message = match (mode, held.by_hand(mode, newest), failed, rollback) {
            (ReloadMode::Manual, _, _, Some(rollback)) => Some(format!(
                "version {} is blocked: {}. `silverd plugin deploy {table}` deploys another build",
                Digest::short(&rollback.instead_of),
                rollback.reason
            )),
            (ReloadMode::Manual, ..) => None,
            (ReloadMode::Watch, Some(by_hand), ..) => Some(format!(
                "version {} serves instead of the newest build, {}: {}. Build another version to end this, or run `silverd \
                 plugin deploy {table}`",
                Digest::short(&by_hand.version),
                Digest::short(&by_hand.instead_of),
                by_hand.reason
            )),
            (ReloadMode::Watch, None, Some(failed), rollback) => {
                let is_same_build = rollback.is_some_and(|rollback| rollback.version == failed.digest);
                let (settings, edit) = match is_same_build {
                    true => (" with its present settings", "Change the settings or the reference files"),
                    false => ("", "Build another version"),
                };
                let (failed, reason) = (Digest::short(&failed.digest), &failed.reason);
                Some(format!(
                    "version {failed}{settings} is blocked: {reason}. {edit} to end this, or run `silverd plugin deploy \
                     {table}`"
                ))
            }
            (ReloadMode::Watch, None, None, _) => None,
        };
        if let Some(message) = &message {
            info!(%table, "{message}");
        }
        self.stats.plugin_update_rejected(message);
    }

    /// The versions that have written a table.
    async fn written_by(&self, table: &SilverTable) -> anyhow::Result<Vec<PluginVersion>> {
        let Some(log) = open_log(&self.loader.base_dir.join(&*table.path))? else { return Ok(Vec::new()) };
        let spans = plugin_history(log.object_store(None).as_ref()).await?;
        Ok(spans.iter().map(PluginSpan::version).collect())
    }

    fn kept(&self, version: &Digest) -> anyhow::Result<VersionFile> {
        let file = kept_file(&self.loader.host, version)?;
        file.map(VersionFile::File).with_context(|| format!("the file of version {version} was not kept"))
    }

    /// A version that has served before, with what it was given then. It is not compared with the active one.
    async fn earlier(&self, table: &SilverTable, version: &PluginVersion) -> anyhow::Result<Candidate> {
        let (loader, config, version) = (self.loader.clone(), table.clone(), version.clone());
        let load = move || {
            let PluginVersion { digest, given } = &version;
            let plugin = load_version(&config, &loader.base_dir, loader.host, loader.limits, digest, given.as_deref())?;
            let missing = || format!("version {}, or what it was given, was not kept", Digest::short(digest));
            start(Arc::new(plugin.with_context(missing)?))
        };
        let transformer = tokio::task::spawn_blocking(load).await?.context("load the earlier version")?;
        Ok(Candidate {
            transformer,
            config: table.clone(),
            shadow: None,
            max_new_rejects: 1.0,
            written_at: None,
            is_earlier_version: true,
        })
    }

    fn offer(&self, candidate: Candidate) {
        let (plugin, table) = (candidate.plugin(), &candidate.config.name);
        let (digest, interface) = (&plugin.digest, &plugin.schema.interface);
        match (&candidate.shadow, candidate.is_earlier_version) {
            (_, true) => info!(%table, %digest, %interface, "rolling back to an earlier version"),
            (Some(shadow), false) => {
                info!(%table, %digest, %interface, "a new version is validated; shadow run: {shadow}")
            }
            (None, false) => info!(%table, %digest, %interface, "a new version is validated, without a shadow run"),
        }
        if let Some(deployments) = &self.loader.host.deployments {
            self.check_stored(deployments.remove_rejected(table, digest));
        }
        self.logged.lock().clear();
        self.pending.put(candidate);
    }

    fn reject(&self, failure: &anyhow::Error) {
        // A candidate that still waits is no longer the newest build.
        self.pending.clear();
        self.stats.plugin_update_rejected(Some(format!("{failure:#}")));
        let table = &self.desired.borrow().table.name;
        // The reason can name the newest events, and so differ each time.
        let build = match failure.downcast_ref::<RejectedVersion>() {
            Some(RejectedVersion { version: PluginVersion { digest, given }, .. }) => format!("{digest} {given:?}"),
            None => format!("{failure:#}"),
        };
        match self.logged.lock().is_new(&build) {
            true => error!(%table, "the new build was rejected: {failure:#}; the current version keeps running"),
            false => debug!(%table, "the build was rejected again: {failure:#}"),
        }
    }
}

/// The newest build. In manual mode there need not be one.
fn newest_version(mode: ReloadMode, location: &SourceLocation) -> anyhow::Result<Option<VersionFile>> {
    let newest = location.newest()?.filter(|newest| mode == ReloadMode::Watch || newest.exists());
    match mode {
        ReloadMode::Watch if newest.is_none() => {
            bail!("the plugin is not built: run `cargo component build --release` in its folder")
        }
        _ => Ok(newest),
    }
}

async fn digest_of(file: VersionFile) -> anyhow::Result<Digest> {
    tokio::task::spawn_blocking(move || file.digest()).await?
}

async fn build(source: Source) -> anyhow::Result<VersionFile> {
    tokio::task::spawn_blocking(move || source.build()).await?
}
