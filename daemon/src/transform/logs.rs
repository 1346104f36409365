//! What guests say: lines by `wasi:logging`, by standard output and standard error. They are told in the daemon's log,
//! escaped, bounded and limited; what a guest said last before it trapped becomes the reason of its fault.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, WasmStr};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use super::host::State;
use super::plugin::Digest;

/// The one interface beside WASI 0.2 that a plugin may import.
pub const LOGGING: &str = "wasi:logging/logging@0.1.0-draft";
/// A line is cut here, in bytes.
const LINE_BYTES_MAX: usize = 2_048;
/// So many of the last lines of standard error are a guest's last words.
const TAIL_LINES_MAX: usize = 8;
/// What a guest may write to a stream in one go.
const WRITE_BYTES_MAX: usize = 64 << 10;
/// Rust's own last line, which says nothing of the fault.
const BACKTRACE_NOTE: &str = "note: run with `RUST_BACKTRACE";

#[derive(ComponentType, Lift, Clone, Copy, Debug, PartialEq, Eq)]
#[component(enum)]
#[repr(u8)]
pub enum Level {
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

/// Gives guests `wasi:logging`.
pub fn link(linker: &mut Linker<State>) -> anyhow::Result<()> {
    let log = |mut store: StoreContextMut<'_, State>, (level, context, line): (Level, WasmStr, WasmStr)| {
        let words = &store.data().words;
        // The text is not looked at, let alone copied, if nobody hears it.
        if level == Level::Critical || words.logs.admits(level) {
            let context = escaped(context.to_str(&store).as_deref().unwrap_or_default());
            let line = escaped(line.to_str(&store).as_deref().unwrap_or("(a line that is not UTF-8)"));
            // Last words stand for themselves, beside the event that they were spoken on.
            let bare = context.is_empty() || level == Level::Critical;
            let line = if bare { line } else { cut(format!("{context}: {line}")) };
            store.data_mut().words.say(level, line);
        }
        Ok(())
    };
    let mut instance = linker.instance(LOGGING).map_err(|error| anyhow!("link {LOGGING}: {error:#}"))?;
    instance.func_wrap("log", log).map_err(|error| anyhow!("link {LOGGING}: {error:#}"))
}

/// The log of one table's guests, whichever instance speaks.
pub struct Logs {
    table: String,
    plugin: String,
    digest: Digest,
    lines_per_second: usize,
    window: Mutex<Window>,
}

impl Logs {
    pub fn new(table: &str, plugin: &str, digest: &Digest, lines_per_second: usize) -> Arc<Self> {
        let (table, plugin, digest) = (table.to_owned(), plugin.to_owned(), digest.clone());
        Arc::new(Self { table, plugin, digest, lines_per_second, window: Mutex::default() })
    }

    /// Tells a line that is escaped and bounded already, if the limit allows.
    pub fn tell(&self, level: Level, line: &str) {
        if self.admits(level) {
            self.write(level, line);
        }
    }

    /// Tells how many lines were kept back, once their second is over.
    pub fn settle(&self) {
        let kept_back = locked(&self.window).settle(Instant::now());
        self.tell_kept_back(kept_back);
    }

    /// Whether a line of this level may be told now. One that may is counted.
    fn admits(&self, level: Level) -> bool {
        if !shown(level) {
            return false;
        }
        let (admitted, kept_back) = locked(&self.window).admit(self.lines_per_second, Instant::now());
        self.tell_kept_back(kept_back);
        admitted
    }

    fn tell_kept_back(&self, lines: u64) {
        if lines > 0 {
            let limit = self.lines_per_second;
            let told = format!("{lines} more lines were not told: limits.log_lines_per_second is {limit}");
            self.write(Level::Warn, &told);
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
        let kept_back = std::mem::take(&mut locked(&self.window).kept_back);
        self.tell_kept_back(kept_back);
    }
}

fn shown(level: Level) -> bool {
    macro_rules! shown {
        ($level:ident) => {
            tracing::enabled!(target: "silverd::plugin", tracing::Level::$level)
        };
    }
    match level {
        Level::Trace => shown!(TRACE),
        Level::Debug => shown!(DEBUG),
        Level::Info => shown!(INFO),
        Level::Warn => shown!(WARN),
        Level::Error | Level::Critical => shown!(ERROR),
    }
}

/// Counts the lines of one second.
#[derive(Default)]
struct Window {
    began: Option<Instant>,
    told: usize,
    kept_back: u64,
}

impl Window {
    const LENGTH: Duration = Duration::from_secs(1);

    /// Whether one more line may be told, and how many were kept back in the second before, if that is over.
    fn admit(&mut self, lines_max: usize, now: Instant) -> (bool, u64) {
        let kept_back = self.settle(now);
        self.began.get_or_insert(now);
        let admitted = self.told < lines_max;
        match admitted {
            true => self.told += 1,
            false => self.kept_back += 1,
        }
        (admitted, kept_back)
    }

    fn settle(&mut self, now: Instant) -> u64 {
        match self.began {
            Some(began) if now.duration_since(began) >= Self::LENGTH => std::mem::take(self).kept_back,
            _ => 0,
        }
    }
}

/// What one instance says.
pub struct Words {
    logs: Arc<Logs>,
    /// A line of level critical is told when the guest has survived it; else it is the reason of its fault.
    critical: Option<String>,
    pub stdout: Stream,
    pub stderr: Stream,
}

impl Words {
    pub fn new(logs: Arc<Logs>) -> Self {
        let (stdout, stderr) = (Stream::new(&logs, Level::Info), Stream::new(&logs, Level::Warn));
        Self { logs, critical: None, stdout, stderr }
    }

    fn say(&mut self, level: Level, line: String) {
        if level != Level::Critical {
            self.logs.write(level, &line);
        } else if let Some(survived) = self.critical.replace(line) {
            self.logs.tell(Level::Critical, &survived);
        }
    }

    /// A call begins: what was said before it is no reason for its fault.
    pub fn begin(&mut self) {
        locked(&self.stderr.written).tail.clear();
    }

    /// A call has ended, and the guest lives.
    pub fn survived(&mut self) {
        if let Some(line) = self.critical.take() {
            self.logs.tell(Level::Critical, &line);
        }
    }

    /// A call has ended in a trap: what the guest said of it.
    pub fn last(&mut self) -> Option<String> {
        self.critical.take().or_else(|| {
            let mut written = locked(&self.stderr.written);
            let unfinished = written.line();
            let lines = written.tail.drain(..).chain(unfinished).filter(|line| !line.starts_with(BACKTRACE_NOTE));
            let words = lines.collect::<Vec<_>>().join(" ");
            (!words.is_empty()).then(|| cut(words))
        })
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // What did not become the reason of a fault is a line like any other.
        self.survived();
        for stream in [&self.stdout, &self.stderr] {
            if let Some(unfinished) = locked(&stream.written).line() {
                self.logs.tell(stream.level, &unfinished);
            }
        }
    }
}

/// A guest's standard output or standard error, line by line.
#[derive(Clone)]
pub struct Stream {
    logs: Arc<Logs>,
    level: Level,
    written: Arc<Mutex<Written>>,
}

#[derive(Default)]
struct Written {
    /// The line that has not ended yet.
    line: Vec<u8>,
    tail: VecDeque<String>,
}

impl Written {
    /// Ends the line, and gives it, if there is something in it.
    fn line(&mut self) -> Option<String> {
        let line = std::mem::take(&mut self.line);
        let line = escaped(String::from_utf8_lossy(&line).trim_end());
        (!line.is_empty()).then_some(line)
    }
}

impl Stream {
    fn new(logs: &Arc<Logs>, level: Level) -> Self {
        Self { logs: logs.clone(), level, written: Arc::default() }
    }

    fn take(&self, bytes: &[u8]) {
        let mut written = locked(&self.written);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            // One byte over the bound, so that the line is known to be longer.
            let room = (LINE_BYTES_MAX + 1).saturating_sub(written.line.len());
            written.line.extend_from_slice(&piece[..piece.len().min(room)]);
            if !piece.ends_with(b"\n") {
                continue;
            }
            if let Some(line) = written.line() {
                self.logs.tell(self.level, &line);
                if written.tail.len() == TAIL_LINES_MAX {
                    written.tail.pop_front();
                }
                written.tail.push_back(line);
            }
        }
    }
}

impl IsTerminal for Stream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Stream {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

impl OutputStream for Stream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

impl Pollable for Stream {
    fn ready<'a, 'ready>(&'a mut self) -> Pin<Box<dyn Future<Output = ()> + Send + 'ready>>
    where
        'a: 'ready,
        Self: 'ready,
    {
        Box::pin(std::future::ready(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.take(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A guest's text, fit for a log: bounded, without line breaks, control characters, and those that turn a line around.
fn escaped(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(LINE_BYTES_MAX + 8));
    for character in text.chars() {
        if line.len() > LINE_BYTES_MAX {
            break;
        }
        let hidden = matches!(character, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        match character {
            _ if hidden || character.is_control() => line.extend(character.escape_default()),
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

/// What is kept is whole after each step: a panic elsewhere cannot have broken it.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
