//! The log lines of guests, from `wasi:logging`, standard output and standard error. They go to the daemon's log,
//! escaped, bounded in length and limited in rate. The last lines before a trap become the reason of the fault.

mod guest_output;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use wasmtime::component::{ComponentType, Lift};

use super::digest::Digest;

pub(super) use guest_output::GuestOutput;

/// Longer lines are cut, in bytes.
const LINE_BYTES_MAX: usize = 2_048;

#[derive(ComponentType, Lift, Clone, Copy, Debug, PartialEq, Eq)]
#[component(enum)]
#[repr(u8)]
#[allow(dead_code, reason = "a level is lifted from the guest, and not constructed here")]
pub(super) enum Level {
    #[component(name = "trace")]
    Trace,
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
    #[component(name = "critical")]
    Critical,
}

/// The log of all guests of one table.
pub(super) struct Logs {
    table: String,
    plugin: String,
    digest: Digest,
    lines_per_second: usize,
    rate: Mutex<RateLimit>,
}

impl Logs {
    pub(super) fn new(table: &str, plugin: &str, digest: &Digest, lines_per_second: usize) -> Arc<Self> {
        let (table, plugin, digest) = (table.to_owned(), plugin.to_owned(), digest.clone());
        Arc::new(Self { table, plugin, digest, lines_per_second, rate: Mutex::default() })
    }

    /// Logs a line that is already escaped, unless the rate limit suppresses it.
    pub(super) fn log(&self, level: Level, line: &str) {
        if self.admits(level) {
            self.write(level, line);
        }
    }

    /// Logs how many lines were suppressed, once their second is over.
    pub(super) fn report_suppressed(&self) {
        let suppressed = self.rate.lock().end_second(Instant::now());
        self.write_suppressed(suppressed);
    }

    /// Whether a line of this level may be logged now. Counts the line.
    fn admits(&self, level: Level) -> bool {
        if !is_shown(level) {
            return false;
        }
        let (admitted, suppressed) = self.rate.lock().admit(self.lines_per_second, Instant::now());
        self.write_suppressed(suppressed);
        admitted
    }

    fn write_suppressed(&self, lines: u64) {
        if lines > 0 {
            let limit = self.lines_per_second;
            let line = format!("{lines} more lines were suppressed: limits.log_lines_per_second is {limit}");
            self.write(Level::Warn, &line);
        }
    }

    fn write(&self, level: Level, line: &str) {
        let Self { table, plugin, digest, .. } = self;
        macro_rules! write {
            ($level:ident) => {
                tracing::event!(target: "silverd::plugin", tracing::Level::$level, %table, %plugin, %digest, "{line}")
            };
        }
        match level {
            Level::Trace => write!(TRACE),
            Level::Debug => write!(DEBUG),
            Level::Info => write!(INFO),
            Level::Warn => write!(WARN),
            Level::Error | Level::Critical => write!(ERROR),
        }
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        let suppressed = std::mem::take(&mut self.rate.lock().suppressed);
        self.write_suppressed(suppressed);
    }
}

fn is_shown(level: Level) -> bool {
    macro_rules! enabled {
        ($level:ident) => {
            tracing::enabled!(target: "silverd::plugin", tracing::Level::$level)
        };
    }
    match level {
        Level::Trace => enabled!(TRACE),
        Level::Debug => enabled!(DEBUG),
        Level::Info => enabled!(INFO),
        Level::Warn => enabled!(WARN),
        Level::Error | Level::Critical => enabled!(ERROR),
    }
}

/// Counts the lines of one second.
#[derive(Default)]
struct RateLimit {
    began: Option<Instant>,
    logged: usize,
    suppressed: u64,
}

impl RateLimit {
    const PERIOD: Duration = Duration::from_secs(1);

    /// Whether one more line may be logged, and how many were suppressed in the second before, if that is over.
    fn admit(&mut self, lines_max: usize, now: Instant) -> (bool, u64) {
        let suppressed = self.end_second(now);
        self.began.get_or_insert(now);
        let admitted = self.logged < lines_max;
        match admitted {
            true => self.logged += 1,
            false => self.suppressed += 1,
        }
        (admitted, suppressed)
    }

    /// How many lines were suppressed in the current second, if it is over.
    fn end_second(&mut self, now: Instant) -> u64 {
        match self.began {
            Some(began) if now.duration_since(began) >= Self::PERIOD => std::mem::take(self).suppressed,
            _ => 0,
        }
    }
}

/// The text of a line with its context. The context is left out of a critical line, which may become the reason of a
/// fault.
pub(super) fn format_line(level: Level, context: &str, line: &str) -> String {
    let (context, line) = (escape(context), escape(line));
    if context.is_empty() || level == Level::Critical { line } else { cut(format!("{context}: {line}")) }
}

/// A guest's text as one line of bounded length, without line breaks, control characters, and characters that change
/// the direction of the text.
fn escape(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(LINE_BYTES_MAX + 8));
    for character in text.chars() {
        if line.len() > LINE_BYTES_MAX {
            break;
        }
        let is_invisible = matches!(
            character,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        );
        match character {
            _ if is_invisible || character.is_control() => line.extend(character.escape_default()),
            _ => line.push(character),
        }
    }
    cut(line)
}

fn cut(mut line: String) -> String {
    if line.len() > LINE_BYTES_MAX {
        line.truncate(line.floor_char_boundary(LINE_BYTES_MAX));
        line.push('…');
    }
    line
}
