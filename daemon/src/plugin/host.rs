//! What all plugins of a process share: the engine, the linker, the compiler and the files in the state folder.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use parking_lot::Mutex;
use silverd_core::config::ReloadMode;
use tracing::warn;
use wasmtime::Engine;
use wasmtime::component::Linker;

use super::cache::Compiler;
use super::config::Config;
use super::config_store::ConfigStore;
use super::deployments::{Deployments, Held};
use super::digest::Digest;
use super::engine::{engine, start_epoch_ticker};
use super::guest_state::{GuestState, linker};
use super::serving::ServingVersions;
use super::store::PluginStore;
use crate::delta::{PluginVersion, last_plugin};
use crate::runtime::state_dir::StateDir;

/// What all plugins of a process share.
pub struct Host {
    pub(super) engine: Engine,
    pub(super) linker: Linker<GuestState>,
    pub(super) compiler: Compiler,
    /// The files of the plugins that were loaded; `None` if none is kept.
    pub(super) kept_plugins: Option<PluginStore>,
    /// The settings and reference files that the plugins were given; `None` if none is kept.
    pub(super) kept_configs: Option<ConfigStore>,
    /// Which versions serve instead of the newest builds; `None` if silverd cannot remember them.
    pub(crate) deployments: Option<Deployments>,
    /// Which versions serve in a running silverd; `None` if that is not stored.
    pub(crate) serving: Option<ServingVersions>,
    /// Whether a build is a release.
    pub(crate) reload_mode: ReloadMode,
    /// The folders of the tables that the plugins fill.
    tables: Mutex<BTreeSet<PathBuf>>,
}

/// Asks for the versions that must stay, however many others are loaded.
pub(super) type VersionsInUse<'v> = &'v dyn Fn() -> anyhow::Result<Vec<PluginVersion>>;

impl Host {
    /// Starts an engine that keeps nothing on disk.
    pub fn new() -> anyhow::Result<Arc<Self>> {
        let engine = engine()?;
        let compiler = Compiler::new(&engine);
        Self::start(engine, compiler, None, ReloadMode::Watch)
    }

    /// Starts an engine that keeps plugins and machine code in the folder of `[state]`. `silverd` is the program that
    /// compiles. If the folder cannot be used, every start compiles again, and no version is kept.
    pub fn with_state(state: &Path, silverd: &Path, reload_mode: ReloadMode) -> anyhow::Result<Arc<Self>> {
        let engine = engine()?;
        let open = |name: &str| StateDir::open(state).and_then(|folder| StateDir::open(&folder.path(name)));
        let kept = || {
            anyhow::Ok(Kept {
                plugins: PluginStore::new(open("plugins")?),
                configs: ConfigStore::new(open("given")?),
                deployments: Deployments::new(open("held")?),
                serving: ServingVersions::new(open("serving")?),
            })
        };
        match open("compiled").and_then(|compiled| Ok((compiled, kept()?))) {
            Ok((compiled, kept)) => {
                let compiler = Compiler::with_cache(&engine, compiled, silverd);
                Self::start(engine, compiler, Some(kept), reload_mode)
            }
            Err(error) => {
                warn!("{error:#}; every start compiles the plugins again, and no version is kept");
                let compiler = Compiler::new(&engine);
                Self::start(engine, compiler, None, reload_mode)
            }
        }
    }

    fn start(
        engine: Engine,
        compiler: Compiler,
        kept: Option<Kept>,
        reload_mode: ReloadMode,
    ) -> anyhow::Result<Arc<Self>> {
        let linker = linker(&engine)?;
        start_epoch_ticker(&engine)?;
        let (kept_plugins, kept_configs, deployments, serving) = match kept {
            Some(Kept { plugins, configs, deployments, serving }) => {
                (Some(plugins), Some(configs), Some(deployments), Some(serving))
            }
            None => (None, None, None, None),
        };
        let tables = Mutex::default();
        Ok(Arc::new(Self {
            engine,
            linker,
            compiler,
            kept_plugins,
            kept_configs,
            deployments,
            serving,
            reload_mode,
            tables,
        }))
    }

    /// Whether the file of a version is kept, unread. True if none is kept.
    pub(crate) fn keeps(&self, digest: &Digest) -> bool {
        self.kept_plugins.as_ref().is_none_or(|kept_plugins| kept_plugins.path(digest).is_file())
    }

    /// What is remembered of a table's versions; nothing if silverd cannot remember them.
    pub(crate) fn held(&self, table: &str) -> Held {
        self.deployments.as_ref().map(|deployments| deployments.held(table)).unwrap_or_default()
    }

    /// The version that serves a table in a running silverd; `None` if none runs.
    pub(crate) fn serving(&self, table: &str) -> Option<PluginVersion> {
        self.serving.as_ref()?.get(table)
    }

    /// Names tables that plugins fill: the versions that made their last rows stay in the folder of `[state]`.
    pub(crate) fn add_tables(&self, folders: impl IntoIterator<Item = PathBuf>) {
        self.tables.lock().extend(folders);
    }

    /// Keeps a version from which rows may be made: the plugin's file, its settings and its reference files.
    pub(super) fn keep(&self, digest: &Digest, bytes: &[u8], config: &Config) {
        let in_use = || self.versions_in_use();
        if let Some(kept_plugins) = &self.kept_plugins {
            kept_plugins.keep(digest, bytes, &in_use);
        }
        if let Some(kept_configs) = &self.kept_configs {
            kept_configs.keep(config, &in_use);
        }
    }

    /// The versions that made the last rows of the tables, those that serve or are deployed, and those that have rows to make
    /// again.
    fn versions_in_use(&self) -> anyhow::Result<Vec<PluginVersion>> {
        let mut versions = Vec::new();
        let tables = self.tables.lock().clone();
        for table in tables {
            // The log is read on this thread, which loads a plugin and may wait.
            let last = futures::executor::block_on(last_plugin(&table));
            versions.extend(last.with_context(|| format!("read which version wrote {}", table.display()))?);
        }
        if let Some(serving) = &self.serving {
            versions.extend(serving.all()?);
        }
        if let Some(deployments) = &self.deployments {
            let files = std::fs::read_dir(deployments.folder())?.collect::<Result<Vec<_>, _>>()?;
            let names = files.iter().filter_map(|file| Some(file.file_name().to_str()?.split('.').next()?.to_owned()));
            for table in names.collect::<BTreeSet<_>>() {
                versions.extend(deployments.get(&table).map(|deployment| deployment.plugin()));
                versions.extend(deployments.rebuilds(&table).iter().map(|rebuild| rebuild.by()));
            }
        }
        Ok(versions)
    }
}

/// What is kept in the folder of `[state]`.
struct Kept {
    plugins: PluginStore,
    configs: ConfigStore,
    deployments: Deployments,
    serving: ServingVersions,
}
