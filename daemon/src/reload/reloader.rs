//! Watches the files of a table's plugin, validates each new version, and hands it to the table's worker.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use silverd_core::config::{Reload, ReloadMode, SilverTable};
use tokio::sync::watch;
use tracing::{error, info};

use super::pending::{Candidate, PendingVersion};
use super::validate::{PluginLoader, start, validate};
use crate::delta::{open_log, plugin_history};
use crate::plugin::build::{PluginLocation, wasm_of};
use crate::plugin::{Choice, Deployment, Digest, Plugin, choose, kept_file, load_kept};
use crate::runtime::file_watch::{FileStamp, FileWatch};
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
}

/// How long to wait before locating a plugin again that could not be located.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

impl PluginReloader {
    /// Runs until it is dropped.
    pub(crate) async fn run(mut self) {
        self.pending.first_active().await;
        let mut at_startup = self.builds_sources;
        loop {
            let desired = self.desired.borrow_and_update().clone();
            let plugin = self.loader.base_dir.join(&*desired.table.plugin);
            let location = tokio::task::spawn_blocking(move || PluginLocation::of(&plugin)).await;
            match location.map_err(anyhow::Error::new).and_then(|location| location) {
                Ok(location) => self.follow(&desired, &location, at_startup).await,
                Err(failure) => {
                    self.reject(&failure);
                    tokio::select! { () = tokio::time::sleep(RETRY_INTERVAL) => {} _ = self.desired.changed() => {} }
                }
            }
            at_startup = false;
        }
    }

    /// Considers each new version at this location, until pipeline.toml asks for something else.
    async fn follow(&self, desired: &DesiredVersion, location: &PluginLocation, at_startup: bool) {
        let read_stamp = || self.stamp(&desired.table, location);
        let (mut seen, _) = read_stamp();
        let wasm = match (desired.reload.mode, at_startup) {
            (ReloadMode::Manual, _) => Ok(None),
            (ReloadMode::Watch, true) => build(self.loader.base_dir.join(&*desired.table.plugin)).await.map(Some),
            (ReloadMode::Watch, false) => newest_wasm(location).map(Some),
        };
        self.consider(desired, wasm).await;
        let (mut watch, mut desired_changes) = (self.watch.clone(), self.desired.clone());
        loop {
            tokio::select! {
                now = watch.changed(&seen, read_stamp) => seen = now,
                changed = desired_changes.changed() => {
                    if changed.is_err() {
                        // The worker stops, and drops this future.
                        std::future::pending::<()>().await;
                    }
                    return;
                }
            }
            let wasm = match desired.reload.mode {
                ReloadMode::Manual => Ok(None),
                ReloadMode::Watch => newest_wasm(location).map(Some),
            };
            self.consider(desired, wasm).await;
        }
    }

    /// The state of the files that decide which version is used, and the folders in which they are.
    fn stamp(&self, table: &SilverTable, location: &PluginLocation) -> (FileStamp, Vec<PathBuf>) {
        let mut files: Vec<PathBuf> = table.reference.values().map(|file| self.loader.base_dir.join(&**file)).collect();
        let mut folders = location.folders();
        folders.extend(files.iter().filter_map(|file| file.parent().map(Path::to_path_buf)));
        files.extend(location.wasm());
        if let Some(deployments) = &self.loader.host.deployments {
            files.push(deployments.path(&table.name));
            folders.push(deployments.folder());
        }
        (FileStamp::of(files), folders)
    }

    /// Validates the version that should serve, if it is another one than the active one. `wasm` is the newest build;
    /// `None` if builds do not count.
    async fn consider(&self, desired: &DesiredVersion, wasm: anyhow::Result<Option<PathBuf>>) {
        let wasm = match wasm {
            Ok(wasm) => wasm,
            Err(failure) => return self.reject(&failure),
        };
        while let Some(active) = self.pending.active() {
            match self.candidate(desired, wasm.as_deref(), &active).await {
                Ok(Some(candidate)) => return self.offer(candidate),
                Ok(None) => {
                    // The active version should stay, so no candidate is needed, unless the worker has just taken one.
                    self.pending.clear();
                    if self.pending.active().is_some_and(|now| Arc::ptr_eq(&now, &active)) {
                        return;
                    }
                }
                Err(failure) => return self.reject(&failure),
            }
        }
    }

    /// The version that should replace the active one; `None` if it should stay.
    async fn candidate(
        &self,
        desired: &DesiredVersion,
        wasm: Option<&Path>,
        active: &Arc<Plugin>,
    ) -> anyhow::Result<Option<Candidate>> {
        let DesiredVersion { table, reload } = desired;
        let newest = match wasm {
            Some(wasm) => Some(digest_of(wasm.to_path_buf()).await?),
            None => None,
        };
        let deployments = self.loader.host.deployments.as_ref();
        let deployment = deployments.and_then(|deployments| deployments.get(&table.name));
        let choice = choose(reload.mode, deployment.as_ref(), newest.as_ref(), &active.digest);
        self.report_deployment(desired, deployment.as_ref(), newest.as_ref());
        let (file, digest) = match (&choice, wasm, newest) {
            (Choice::Newest, Some(wasm), Some(newest)) => (wasm.to_path_buf(), newest),
            (Choice::Deployed(version), ..) => {
                if self.has_written(table, version).await? {
                    return self.earlier(table, version).await.map(Some);
                }
                (self.kept(version)?, version.clone())
            }
            // The same version, whose settings or reference files may have changed.
            _ => match kept_file(&self.loader.host, &active.digest)? {
                Some(file) => (file, active.digest.clone()),
                None => return Ok(None),
            },
        };
        let validation = validate(&self.loader, table, reload, (&file, &digest), active);
        spans::record(spans::plugin_validation(&table.name), validation).await
    }

    /// Says which version serves instead of the newest build.
    fn report_deployment(&self, desired: &DesiredVersion, deployment: Option<&Deployment>, newest: Option<&Digest>) {
        let table = &desired.table.name;
        let held = deployment.filter(|deployment| newest.is_some_and(|newest| deployment.holds_against(newest)));
        let message = held.map(|Deployment { version, instead_of, reason, rolled_back, .. }| {
            let (instead_of, version) = (Digest::short(instead_of), Digest::short(version));
            match rolled_back {
                true => format!(
                    "version {instead_of} is blocked: {reason}. Build another version to end this, or run `silverd plugin \
                     deploy {table}`"
                ),
                false => format!(
                    "version {version} serves instead of the newest build, {instead_of}: {reason}. Build another version \
                     to end this, or run `silverd plugin deploy {table}`"
                ),
            }
        });
        if let Some(message) = &message {
            info!(%table, "{message}");
        }
        self.stats.plugin_update_rejected(message);
    }

    /// Whether a version has written the table.
    async fn has_written(&self, table: &SilverTable, version: &Digest) -> anyhow::Result<bool> {
        let Some(log) = open_log(&self.loader.base_dir.join(&*table.path))? else { return Ok(false) };
        let spans = plugin_history(log.object_store(None).as_ref()).await?;
        Ok(spans.iter().any(|span| span.digest == version.as_str()))
    }

    fn kept(&self, version: &Digest) -> anyhow::Result<PathBuf> {
        kept_file(&self.loader.host, version)?.with_context(|| format!("the file of version {version} was not kept"))
    }

    /// A version that has served before. It is not compared with the active one.
    async fn earlier(&self, table: &SilverTable, version: &Digest) -> anyhow::Result<Candidate> {
        let (loader, config, digest) = (self.loader.clone(), table.clone(), version.clone());
        let load = move || {
            let plugin = load_kept(&config, &loader.base_dir, loader.host, loader.limits, digest.as_str())?;
            start(Arc::new(plugin.with_context(|| format!("the file of version {digest} was not kept"))?))
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
        self.pending.put(candidate);
    }

    fn reject(&self, failure: &anyhow::Error) {
        // A candidate that still waits is no longer the newest build.
        self.pending.clear();
        self.stats.plugin_update_rejected(Some(format!("{failure:#}")));
        let table = &self.desired.borrow().table.name;
        error!(%table, "the new build was rejected: {failure:#}; the current version keeps running");
    }
}

fn newest_wasm(location: &PluginLocation) -> anyhow::Result<PathBuf> {
    location.wasm().context("the plugin is not built: run `cargo component build --release` in its folder")
}

async fn digest_of(wasm: PathBuf) -> anyhow::Result<Digest> {
    let read = move || {
        let bytes = std::fs::read(&wasm).with_context(|| format!("read plugin {}", wasm.display()))?;
        Ok(Digest::of(&bytes))
    };
    tokio::task::spawn_blocking(read).await?
}

async fn build(plugin: PathBuf) -> anyhow::Result<PathBuf> {
    tokio::task::spawn_blocking(move || wasm_of(&plugin)).await?
}
