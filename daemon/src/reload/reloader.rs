//! Watches the files of a table's plugin, validates each new version, and hands it to the table's worker.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use silverd_core::config::{Reload, SilverTable};
use tokio::sync::watch;
use tracing::{error, info};

use super::pending::{Candidate, PendingVersion};
use super::validate::{PluginLoader, start, validate};
use crate::plugin::build::{PluginLocation, wasm_of};
use crate::plugin::{BlockedVersion, Digest, Plugin, load_kept};
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
}

/// How long to wait before locating a plugin again that could not be located.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

impl PluginReloader {
    /// Runs until it is dropped.
    pub(crate) async fn run(mut self) {
        self.pending.first_active().await;
        let mut at_startup = true;
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
        let wasm = match at_startup {
            // The version that silverd started with may be older than its sources.
            true => build(self.loader.base_dir.join(&*desired.table.plugin)).await,
            false => newest_wasm(location),
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
            self.consider(desired, newest_wasm(location)).await;
        }
    }

    /// The state of the files that decide which version is used, and the folders in which they are.
    fn stamp(&self, table: &SilverTable, location: &PluginLocation) -> (FileStamp, Vec<PathBuf>) {
        let mut files: Vec<PathBuf> = table.reference.values().map(|file| self.loader.base_dir.join(&**file)).collect();
        let mut folders = location.folders();
        folders.extend(files.iter().filter_map(|file| file.parent().map(Path::to_path_buf)));
        files.extend(location.wasm());
        if let Some(blocked_versions) = &self.loader.host.blocked_versions {
            files.push(blocked_versions.path(&table.name));
            folders.push(blocked_versions.folder());
        }
        (FileStamp::of(files), folders)
    }

    /// Validates this wasm if it is another version than the active one.
    async fn consider(&self, desired: &DesiredVersion, wasm: anyhow::Result<PathBuf>) {
        let wasm = match wasm {
            Ok(wasm) => wasm,
            Err(failure) => return self.reject(&failure),
        };
        while let Some(active) = self.pending.active() {
            match self.candidate(desired, &wasm, &active).await {
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

    /// The version that should replace the active one: this wasm, or its replacement if it is blocked. `None` if the
    /// active version should stay.
    async fn candidate(
        &self,
        desired: &DesiredVersion,
        wasm: &Path,
        active: &Arc<Plugin>,
    ) -> anyhow::Result<Option<Candidate>> {
        let DesiredVersion { table, reload } = desired;
        let candidate_digest = digest_of(wasm.to_path_buf()).await?;
        let blocked_versions = self.loader.host.blocked_versions.as_ref();
        if let Some(blocked) = blocked_versions.and_then(|versions| versions.blocking(&table.name, &candidate_digest)) {
            return self.replacement(table, &blocked, active).await;
        }
        self.stats.plugin_update_rejected(None);
        let validation = validate(&self.loader, table, reload, (wasm, &candidate_digest), active);
        spans::record(spans::plugin_validation(&table.name), validation).await
    }

    /// The replacement of a blocked version; `None` if it is active.
    async fn replacement(
        &self,
        table: &SilverTable,
        blocked: &BlockedVersion,
        active: &Arc<Plugin>,
    ) -> anyhow::Result<Option<Candidate>> {
        let message = format!(
            "version {} is blocked, and {} is used instead: {}. Build another version to end this, or run \
             `silverd plugin deploy {}`",
            Digest::short(&blocked.blocked),
            Digest::short(&blocked.replacement),
            blocked.reason,
            table.name
        );
        info!(table = %table.name, "{message}");
        self.stats.plugin_update_rejected(Some(message));
        if active.digest.as_str() == blocked.replacement {
            return Ok(None);
        }
        let (loader, config, digest) = (self.loader.clone(), table.clone(), blocked.replacement.clone());
        let load = move || {
            let plugin = load_kept(&config, &loader.base_dir, loader.host, loader.limits, &digest)?;
            start(Arc::new(plugin.with_context(|| format!("the file of version {digest} was not kept"))?))
        };
        let transformer = tokio::task::spawn_blocking(load).await?.context("load the earlier version")?;
        Ok(Some(Candidate {
            transformer,
            config: table.clone(),
            shadow: None,
            max_new_rejects: 1.0,
            written_at: None,
            is_earlier_version: true,
        }))
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
