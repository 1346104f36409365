//! The WebAssembly engine: its settings, and the ticker of its epochs, which bounds the time of every call.

use std::time::Duration;

use anyhow::anyhow;
use wasmtime::{Config, Engine};

/// The length of an epoch. It is coarse because a fine ticker starves on a busy machine.
const EPOCH: Duration = Duration::from_millis(10);

/// The engine. Machine code is only valid for an engine with the same settings.
pub(super) fn engine() -> anyhow::Result<Engine> {
    let mut config = Config::new();
    config.epoch_interruption(true);
    config.wasm_component_model(true);
    Engine::new(&config).map_err(|error| anyhow!("start the WebAssembly engine: {error:#}"))
}

/// Starts the thread that increments the epoch until the engine is dropped.
pub(super) fn start_epoch_ticker(engine: &Engine) -> anyhow::Result<()> {
    let weak = engine.weak();
    std::thread::Builder::new().name("wasm-epochs".to_owned()).spawn(move || {
        while let Some(engine) = weak.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(EPOCH);
        }
    })?;
    Ok(())
}

/// The deadline of a call that may take `ms` milliseconds, in epochs from now.
pub(super) fn deadline(ms: u64) -> u64 {
    ms.div_ceil(EPOCH.as_millis() as u64) + 1
}

/// Converts a wasmtime error with its whole chain.
pub(super) fn to_anyhow(error: wasmtime::Error) -> anyhow::Error {
    anyhow!("{error:#}")
}
