//! Lines for the daemon's log, where they stand with the plugin's table, name and version:
//!
//! ```ignore
//! use silverd_plugin::log;
//!
//! log::warn!("no product {sku} in the reference file");
//! ```
//!
//! The daemon tells as many lines a second as `limits.log_lines_per_second` in `pipeline.toml` allows, and counts the
//! rest. Natively, in tests, lines go to standard error.

use std::fmt;

pub use crate::{debug, error, info, trace, warn};

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What happens, step by step. The daemon shows it under `--log trace`.
    Trace,
    /// What helps to find a mistake. The daemon shows it under `--log debug`.
    Debug,
    /// What is worth knowing.
    Info,
    /// What may become a problem.
    Warn,
    /// What has gone wrong: somebody must look.
    Error,
    /// What the plugin does not survive: its last words, which the daemon keeps with the event. Panics tell it.
    Critical,
}

/// Tells a line of level trace, with the arguments of [`format!`].
#[macro_export]
macro_rules! trace {
    ($($line:tt)+) => { $crate::log::tell($crate::log::Level::Trace, ::core::module_path!(), ::core::format_args!($($line)+)) };
}

/// Tells a line of level debug, with the arguments of [`format!`].
#[macro_export]
macro_rules! debug {
    ($($line:tt)+) => { $crate::log::tell($crate::log::Level::Debug, ::core::module_path!(), ::core::format_args!($($line)+)) };
}

/// Tells a line of level info, with the arguments of [`format!`].
#[macro_export]
macro_rules! info {
    ($($line:tt)+) => { $crate::log::tell($crate::log::Level::Info, ::core::module_path!(), ::core::format_args!($($line)+)) };
}

/// Tells a line of level warn, with the arguments of [`format!`].
#[macro_export]
macro_rules! warn {
    ($($line:tt)+) => { $crate::log::tell($crate::log::Level::Warn, ::core::module_path!(), ::core::format_args!($($line)+)) };
}

/// Tells a line of level error, with the arguments of [`format!`].
#[macro_export]
macro_rules! error {
    ($($line:tt)+) => { $crate::log::tell($crate::log::Level::Error, ::core::module_path!(), ::core::format_args!($($line)+)) };
}

/// Tells a line. The context says who tells it: the macros name the module.
pub fn tell(level: Level, context: &str, line: fmt::Arguments<'_>) {
    #[cfg(target_arch = "wasm32")]
    match line.as_str() {
        Some(line) => guest::log(level, context, line),
        None => guest::log(level, context, &line.to_string()),
    }
    #[cfg(not(target_arch = "wasm32"))]
    eprintln!("{level:?} {context}: {line}");
}

/// From here on a panic's text and place reach the daemon, before the guest is gone. Natively the test harness tells
/// them.
#[doc(hidden)]
pub fn tell_panics() {
    #[cfg(target_arch = "wasm32")]
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.payload_as_str().unwrap_or("for no reason that is text");
        match panic.location() {
            Some(place) => tell(Level::Critical, "panic", format_args!("panicked at {place}: {text}")),
            None => tell(Level::Critical, "panic", format_args!("panicked: {text}")),
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
