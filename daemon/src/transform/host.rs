//! What plugins run in: one engine, a WASI with nothing in it but what a guest says, and the limits that a guest cannot pass.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use silverd_core::config::Limits;
use tracing::warn;
use wasmtime::component::{Linker, ResourceTable};
use wasmtime::{Config, Engine, ResourceLimiter};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::cache::Compiler;
use super::logs::{self, Logs, Words};
use super::store::Store;
use crate::reload::Holds;
use crate::state::OwnFolder;

/// How long an epoch lasts. Coarse, since a fine ticker starves on a busy machine.
const TICK: Duration = Duration::from_millis(10);

/// What every plugin of a daemon shares.
pub struct Host {
    pub engine: Engine,
    pub linker: Linker<State>,
    pub compiler: Compiler,
    /// Where plugins are kept that have been loaded; `None` where nothing is kept.
    pub store: Option<Store>,
    /// Which of them are held off.
    pub holds: Option<Holds>,
}

/// The deadline of a call, in epochs from now.
pub fn deadline(ms: u64) -> u64 {
    ms.div_ceil(TICK.as_millis() as u64) + 1
}

impl Host {
    /// Starts the engine, and the thread that ticks its epochs as long as it lives. Keeps nothing on the disk.
    pub fn new() -> anyhow::Result<Arc<Self>> {
        let engine = engine()?;
        let compiler = Compiler::new(&engine);
        Self::start(engine, compiler, None, None)
    }

    /// The same, with the folder of `[state]` to remember plugins and what was compiled of them. `silverd` is the program
    /// that compiles. A folder that cannot be used costs time, and nothing else.
    pub fn with_state(state: &Path, silverd: &Path) -> anyhow::Result<Arc<Self>> {
        let engine = engine()?;
        let own = |name: &str| OwnFolder::open(state).and_then(|folder| OwnFolder::open(&folder.path(name)));
        match own("compiled").and_then(|compiled| Ok((compiled, own("plugins")?, own("held")?))) {
            Ok((compiled, plugins, held)) => {
                let compiler = Compiler::with_cache(&engine, compiled, silverd);
                Self::start(engine, compiler, Some(Store::new(plugins)), Some(Holds::new(held)))
            }
            Err(error) => {
                warn!("{error:#}; plugins are compiled at each start, and none is kept");
                let compiler = Compiler::new(&engine);
                Self::start(engine, compiler, None, None)
            }
        }
    }

    fn start(
        engine: Engine,
        compiler: Compiler,
        store: Option<Store>,
        holds: Option<Holds>,
    ) -> anyhow::Result<Arc<Self>> {
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_sync(&mut linker).map_err(|error| anyhow!("link WASI: {error:#}"))?;
        logs::link(&mut linker)?;
        let weak = engine.weak();
        std::thread::Builder::new().name("wasm-epochs".to_owned()).spawn(move || {
            while let Some(engine) = weak.upgrade() {
                engine.increment_epoch();
                drop(engine);
                std::thread::sleep(TICK);
            }
        })?;
        Ok(Arc::new(Self { engine, linker, compiler, store, holds }))
    }
}

/// The engine whose settings all machine code is made for.
pub(super) fn engine() -> anyhow::Result<Engine> {
    let mut config = Config::new();
    config.epoch_interruption(true);
    config.wasm_component_model(true);
    Engine::new(&config).map_err(|error| anyhow!("start the WebAssembly engine: {error:#}"))
}

/// This program, also where its file has been replaced since it was started.
pub fn this_program() -> PathBuf {
    let running = Path::new("/proc/self/exe");
    if running.exists() { running.to_path_buf() } else { std::env::current_exe().unwrap_or_default() }
}

/// wasmtime's errors, as anyhow's, with their chain.
pub(super) fn foreign(error: wasmtime::Error) -> anyhow::Error {
    anyhow!("{error:#}")
}

/// What a guest's store holds.
pub struct State {
    pub memory: MemoryLimit,
    pub words: Words,
    wasi: WasiCtx,
    resources: ResourceTable,
}

impl State {
    pub fn new(limits: &Limits, logs: Arc<Logs>) -> Self {
        let words = Words::new(logs);
        // No file, no network, no environment, and a clock that stands still: equal events give equal rows.
        let wasi = WasiCtxBuilder::new()
            .allow_tcp(false)
            .allow_udp(false)
            .stdout(words.stdout.clone())
            .stderr(words.stderr.clone())
            .wall_clock(Stopped)
            .monotonic_clock(Stopped)
            .insecure_random_seed(0)
            .build();
        let memory = MemoryLimit { bytes_max: limits.memory_bytes_max, used: 0, refused: None };
        Self { memory, words, wasi, resources: ResourceTable::new() }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.resources }
    }
}

struct Stopped;

impl HostWallClock for Stopped {
    fn resolution(&self) -> Duration {
        Duration::from_secs(1)
    }
    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

impl HostMonotonicClock for Stopped {
    fn resolution(&self) -> u64 {
        1_000_000_000
    }
    fn now(&self) -> u64 {
        0
    }
}

/// Bounds all memories of a guest together, and remembers what it refused.
pub struct MemoryLimit {
    bytes_max: usize,
    pub used: usize,
    pub refused: Option<usize>,
}

/// Tables hold function references, a few hundred in a plugin.
const TABLE_ELEMENTS_MAX: usize = 100_000;

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let wanted = self.used.saturating_sub(current).saturating_add(desired);
        if wanted > self.bytes_max {
            self.refused = Some(wanted);
            return Ok(false);
        }
        self.used = wanted;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }
}
