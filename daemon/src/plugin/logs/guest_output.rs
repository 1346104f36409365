//! What one instance writes: its `wasi:logging` lines, its standard output and its standard error.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use super::{LINE_BYTES_MAX, Level, Logs, cut, escape};

/// How many of the last lines of standard error explain a trap.
const TRAP_LINES_MAX: usize = 8;
/// How many bytes a guest may write to a stream at once.
const WRITE_BYTES_MAX: usize = 64 << 10;
/// Rust's last line after a panic, which does not explain the fault.
const BACKTRACE_NOTE: &str = "note: run with `RUST_BACKTRACE";

/// What one instance writes.
pub(in crate::plugin) struct GuestOutput {
    logs: Arc<Logs>,
    /// The last critical line of the current call: logged if the call succeeds, and the reason of the fault if it
    /// traps.
    critical: Option<String>,
    pub(in crate::plugin) stdout: GuestStream,
    pub(in crate::plugin) stderr: GuestStream,
}

impl GuestOutput {
    pub(in crate::plugin) fn new(logs: Arc<Logs>) -> Self {
        let (stdout, stderr) = (GuestStream::new(&logs, Level::Info), GuestStream::new(&logs, Level::Warn));
        Self { logs, critical: None, stdout, stderr }
    }

    /// Whether a line of this level is of use. Counts the line.
    pub(in crate::plugin) fn admits(&self, level: Level) -> bool {
        level == Level::Critical || self.logs.admits(level)
    }

    /// Takes a line that was [admitted](Self::admits), and is escaped.
    pub(in crate::plugin) fn log(&mut self, level: Level, line: String) {
        if level != Level::Critical {
            self.logs.write(level, &line);
        } else if let Some(earlier) = self.critical.replace(line) {
            self.logs.log(Level::Critical, &earlier);
        }
    }

    /// A call starts: earlier lines do not explain its fault.
    pub(in crate::plugin) fn call_started(&mut self) {
        self.stderr.written.lock().last_lines.clear();
    }

    /// The call returned.
    pub(in crate::plugin) fn call_succeeded(&mut self) {
        if let Some(line) = self.critical.take() {
            self.logs.log(Level::Critical, &line);
        }
    }

    /// The call trapped: takes the guest's own explanation, if it wrote one.
    pub(in crate::plugin) fn take_trap_reason(&mut self) -> Option<String> {
        self.critical.take().or_else(|| {
            let mut written = self.stderr.written.lock();
            let unfinished = written.end_line();
            let lines = written.last_lines.drain(..).chain(unfinished);
            let reason = lines.filter(|line| !line.starts_with(BACKTRACE_NOTE)).collect::<Vec<_>>().join(" ");
            (!reason.is_empty()).then(|| cut(reason))
        })
    }
}

impl Drop for GuestOutput {
    fn drop(&mut self) {
        // A critical line that did not become the reason of a fault is logged as any other line.
        self.call_succeeded();
        for stream in [&self.stdout, &self.stderr] {
            if let Some(unfinished) = stream.written.lock().end_line() {
                self.logs.log(stream.level, &unfinished);
            }
        }
    }
}

/// A guest's standard output or standard error, split into lines.
#[derive(Clone)]
pub(in crate::plugin) struct GuestStream {
    logs: Arc<Logs>,
    level: Level,
    written: Arc<Mutex<Written>>,
}

#[derive(Default)]
struct Written {
    /// The line that has not ended yet.
    line: Vec<u8>,
    last_lines: VecDeque<String>,
}

impl Written {
    /// Ends the line, and returns it unless it is empty.
    fn end_line(&mut self) -> Option<String> {
        let line = std::mem::take(&mut self.line);
        let line = escape(String::from_utf8_lossy(&line).trim_end());
        (!line.is_empty()).then_some(line)
    }
}

impl GuestStream {
    fn new(logs: &Arc<Logs>, level: Level) -> Self {
        Self { logs: logs.clone(), level, written: Arc::default() }
    }

    pub(super) fn push(&self, bytes: &[u8]) {
        let mut written = self.written.lock();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            // One byte more than the limit shows that the line is longer.
            let room = (LINE_BYTES_MAX + 1).saturating_sub(written.line.len());
            written.line.extend_from_slice(&piece[..piece.len().min(room)]);
            if !piece.ends_with(b"\n") {
                continue;
            }
            if let Some(line) = written.end_line() {
                self.logs.log(self.level, &line);
                if written.last_lines.len() == TRAP_LINES_MAX {
                    written.last_lines.pop_front();
                }
                written.last_lines.push_back(line);
            }
        }
    }
}

impl IsTerminal for GuestStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestStream {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

impl OutputStream for GuestStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.push(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

impl Pollable for GuestStream {
    fn ready<'a, 'ready>(&'a mut self) -> Pin<Box<dyn Future<Output = ()> + Send + 'ready>>
    where
        'a: 'ready,
        Self: 'ready,
    {
        Box::pin(std::future::ready(()))
    }
}

impl AsyncWrite for GuestStream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.push(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
