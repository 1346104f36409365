//! Lines for the daemon's log. The daemon adds the plugin's table, name and digest:
//!
//! ```
//! use silverd_plugin::log;
//!
//! let sku = "SKU-00012";
//! log::warn!("no product {sku} in the reference file");
//! ```
//!
//! The daemon writes at most `limits.log_lines_per_second` lines per second (see `pipeline.toml`), and counts the rest.
//! On the host, in tests, lines go to standard error.

use std::fmt;

pub use crate::{debug, error, info, trace, warn};

/// Severity of a line, lowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Step-by-step detail. The daemon shows it with `--log trace`.
    Trace,
    /// Helps to find an error. The daemon shows it with `--log debug`.
    Debug,
    /// Normal operation.
    Info,
    /// May become a problem.
    Warn,
    /// Something failed, and a person must look at it.
    Error,
    /// The plugin cannot continue. Panics use this level; the line becomes the reason in the quarantine.
    Critical,
}

/// Writes a line of level trace, with the arguments of [`format!`].
#[macro_export]
macro_rules! trace {
    ($($line:tt)+) => { $crate::log::write($crate::log::Level::Trace, ::core::module_path!(), ::core::format_args!($($line)+)) };
}

/// Writes a line of level debug, with the arguments of [`format!`].
#[macro_export]
macro_rules! debug {
    ($($line:tt)+) => { $crate::log::write($crate::log::Level::Debug, ::core::module_path!(), ::core::format_args!($($line)+)) };
}

/// Writes a line of level info, with the arguments of [`format!`].
#[macro_export]
macro_rules! info {
    ($($line:tt)+) => { $crate::log::write($crate::log::Level::Info, ::core::module_path!(), ::core::format_args!($($line)+)) };
}

/// Writes a line of level warn, with the arguments of [`format!`].
#[macro_export]
macro_rules! warn {
    ($($line:tt)+) => { $crate::log::write($crate::log::Level::Warn, ::core::module_path!(), ::core::format_args!($($line)+)) };
}

/// Writes a line of level error, with the arguments of [`format!`].
#[macro_export]
macro_rules! error {
    ($($line:tt)+) => { $crate::log::write($crate::log::Level::Error, ::core::module_path!(), ::core::format_args!($($line)+)) };
}

/// Writes a line. `context` names the source of the line; the macros pass the module path.
pub fn write(level: Level, context: &str, line: fmt::Arguments<'_>) {
    #[cfg(target_arch = "wasm32")]
    match line.as_str() {
        Some(line) => guest::log(level, context, line),
        None => guest::log(level, context, &line.to_string()),
    }
    #[cfg(not(target_arch = "wasm32"))]
    eprintln!("{level:?} {context}: {line}");
}

/// Installs a panic hook that sends the panic's message and location to the daemon before the guest traps. On the host,
/// the test harness prints them.
#[doc(hidden)]
pub fn report_panics() {
    #[cfg(target_arch = "wasm32")]
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.payload_as_str().unwrap_or("the panic has no text");
        match panic.location() {
            Some(location) => write(Level::Critical, "panic", format_args!("panicked at {location}: {text}")),
            None => write(Level::Critical, "panic", format_args!("panicked: {text}")),
        }
    }));
}

#[cfg(target_arch = "wasm32")]
mod guest {
    use crate::wit::logging::{self, Level};

    pub fn log(level: super::Level, context: &str, line: &str) {
        let level = match level {
            super::Level::Trace => Level::Trace,
            super::Level::Debug => Level::Debug,
            super::Level::Info => Level::Info,
            super::Level::Warn => Level::Warn,
            super::Level::Error => Level::Error,
            super::Level::Critical => Level::Critical,
        };
        logging::log(level, context, line);
    }
}
