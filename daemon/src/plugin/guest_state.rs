//! The state of a guest's store: a WASI that gives access to nothing, the guest's log, and its memory limit.

use std::sync::Arc;

use anyhow::anyhow;
use silverd_core::config::Limits;
use wasmtime::component::{Linker, ResourceTable, WasmStr};
use wasmtime::{Engine, ResourceLimiter, StoreContextMut};
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::logs::{GuestOutput, Level, Logs, format_line};
use super::stopped_wasi::{EqualBytes, HasStoppedClock, StoppedClock, StoppedWallClock};

/// The only interface that a plugin may import in addition to WASI 0.2.
pub(super) const LOGGING: &str = "wasi:logging/logging@0.1.0-draft";

/// A table holds function references, of which a plugin has a few hundred.
const TABLE_ELEMENTS_MAX: usize = 100_000;

/// Streams, pollables and such that a guest holds at a time.
const RESOURCES_MAX: usize = 1_000;
/// Random bytes that a guest gets at once.
const RANDOM_BYTES_MAX: u64 = 64 << 10;

/// What the host keeps for one instance.
pub(super) struct GuestState {
    pub(super) memory: MemoryLimit,
    pub(super) output: GuestOutput,
    wasi: WasiCtx,
    resources: ResourceTable,
}

/// Limits the memory of all memories of a guest together, and remembers a request that was refused.
pub(super) struct MemoryLimit {
    bytes_max: usize,
    pub(super) used: usize,
    /// The total that the guest would have had after the request that was refused last.
    pub(super) refused: Option<usize>,
}

/// The imports that every plugin may use: WASI 0.2 and `wasi:logging`.
pub(super) fn linker(engine: &Engine) -> anyhow::Result<Linker<GuestState>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_sync(&mut linker).map_err(|error| anyhow!("link WASI: {error:#}"))?;
    // Instead of a clock whose sleeps take time, in which no deadline ends the guest.
    linker.allow_shadowing(true);
    monotonic_clock::add_to_linker::<_, HasStoppedClock>(&mut linker, GuestState::clock)
        .map_err(|error| anyhow!("link the clock: {error:#}"))?;
    linker.allow_shadowing(false);
    let log = |mut store: StoreContextMut<'_, GuestState>, (level, context, line): (Level, WasmStr, WasmStr)| {
        // The text of a line that is not logged is neither decoded nor copied.
        if store.data().output.admits(level) {
            let line = {
                let (context, line) = (context.to_str(&store), line.to_str(&store));
                let line = line.as_deref().unwrap_or("(a line that is not UTF-8)");
                format_line(level, context.as_deref().unwrap_or_default(), line)
            };
            store.data_mut().output.log(level, line);
        }
        Ok(())
    };
    let mut instance = linker.instance(LOGGING).map_err(|error| anyhow!("link {LOGGING}: {error:#}"))?;
    instance.func_wrap("log", log).map_err(|error| anyhow!("link {LOGGING}: {error:#}"))?;
    Ok(linker)
}

impl GuestState {
    pub(super) fn new(limits: &Limits, logs: Arc<Logs>) -> Self {
        let output = GuestOutput::new(logs);
        // No file, no network, no environment, and clocks that stand still: equal events give equal rows.
        let wasi = WasiCtxBuilder::new()
            .allow_tcp(false)
            .allow_udp(false)
            .stdout(output.stdout.clone())
            .stderr(output.stderr.clone())
            .wall_clock(StoppedWallClock)
            .secure_random(EqualBytes)
            .insecure_random(EqualBytes)
            .insecure_random_seed(0)
            .max_random_size(RANDOM_BYTES_MAX)
            .build();
        let mut resources = ResourceTable::new();
        resources.set_max_capacity(RESOURCES_MAX);
        let memory = MemoryLimit { bytes_max: limits.memory_bytes_max, used: 0, refused: None };
        Self { memory, output, wasi, resources }
    }
}

impl GuestState {
    fn clock(&mut self) -> StoppedClock<'_> {
        StoppedClock(&mut self.resources)
    }
}

impl WasiView for GuestState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.resources }
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let requested = self.used.saturating_sub(current).saturating_add(desired);
        if requested > self.bytes_max {
            self.refused = Some(requested);
            return Ok(false);
        }
        self.used = requested;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }
}
