//! What all plugins of a process share: the engine, the linker, the compiler and the files in the state folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::warn;
use wasmtime::Engine;
use wasmtime::component::Linker;

use super::blocked::BlockedVersions;
use super::cache::Compiler;
use super::engine::{engine, start_epoch_ticker};
use super::guest_state::{GuestState, linker};
use super::store::PluginStore;
use crate::runtime::state_dir::StateDir;

/// What all plugins of a process share.
pub struct Host {
    pub(super) engine: Engine,
    pub(super) linker: Linker<GuestState>,
    pub(super) compiler: Compiler,
    /// The files of the plugins that were loaded; `None` if none is kept.
    pub(super) kept_plugins: Option<PluginStore>,
    /// The plugin versions that must not be used; `None` if silverd cannot remember them.
    pub(crate) blocked_versions: Option<BlockedVersions>,
}

impl Host {
    /// Starts an engine that keeps nothing on disk.
    pub fn new() -> anyhow::Result<Arc<Self>> {
        let engine = engine()?;
        let compiler = Compiler::new(&engine);
        Self::start(engine, compiler, None, None)
    }

    /// Starts an engine that keeps plugins and machine code in the folder of `[state]`. `silverd` is the program that
    /// compiles. If the folder cannot be used, every start compiles again, and no version is kept.
    pub fn with_state(state: &Path, silverd: &Path) -> anyhow::Result<Arc<Self>> {
        let engine = engine()?;
        let open = |name: &str| StateDir::open(state).and_then(|folder| StateDir::open(&folder.path(name)));
        match open("compiled").and_then(|compiled| Ok((compiled, open("plugins")?, open("held")?))) {
            Ok((compiled, plugins, blocked)) => {
                let compiler = Compiler::with_cache(&engine, compiled, silverd);
                let blocked_versions = BlockedVersions::new(blocked);
                Self::start(engine, compiler, Some(PluginStore::new(plugins)), Some(blocked_versions))
            }
            Err(error) => {
                warn!("{error:#}; every start compiles the plugins again, and no version is kept");
                let compiler = Compiler::new(&engine);
                Self::start(engine, compiler, None, None)
            }
        }
    }

    fn start(
        engine: Engine,
        compiler: Compiler,
        kept_plugins: Option<PluginStore>,
        blocked_versions: Option<BlockedVersions>,
    ) -> anyhow::Result<Arc<Self>> {
        let linker = linker(&engine)?;
        start_epoch_ticker(&engine)?;
        Ok(Arc::new(Self { engine, linker, compiler, kept_plugins, blocked_versions }))
    }
}

/// This program, even if its file was replaced after its start.
pub fn this_program() -> PathBuf {
    let running = Path::new("/proc/self/exe");
    if running.exists() { running.to_path_buf() } else { std::env::current_exe().unwrap_or_default() }
}
