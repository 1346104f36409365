//! The process of a table's SQL as its user sees it: an instance, which takes one batch after the other, and is gone after a
//! fault.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use arrow::array::RecordBatch;
use silverd_core::outcome::{Code, Reject};

use super::process::{Reply, Start, attachment_of, batch_of, is_closed};
use crate::sql_engine::{Message, OUT_OF_MEMORY, SqlWork, sql_command};

/// How long the process may take until it is ready, on a machine that does much else.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the process may take to end when its connection is closed.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// What is read of its last words.
const STDERR_BYTES_MAX: u64 = 4 << 10;

/// A process that evaluates SQL.
pub(crate) struct SqlInstance {
    child: Child,
    connection: UnixStream,
}

/// The outcomes of a batch.
pub(crate) struct SqlRows {
    pub(crate) rows: RecordBatch,
    pub(crate) row_events: Vec<u32>,
    pub(crate) rejects: Vec<Reject>,
    /// The CPU time of the process.
    pub(crate) cpu: Duration,
}

/// Why a batch has no outcomes. The process is gone.
#[derive(Debug)]
pub(crate) enum SqlFault {
    Timeout,
    Memory,
    TooLarge,
    Ended(String),
}

impl SqlInstance {
    /// Starts the process, and waits until it is ready.
    pub(super) fn start(start: &Start, references: Vec<Vec<u8>>) -> anyhow::Result<Self> {
        let (connection, other) = UnixStream::pair().context("create a socket")?;
        let (stdin, stdout): (OwnedFd, OwnedFd) = (other.try_clone()?.into(), other.into());
        let mut command = sql_command(SqlWork::Rows);
        command.stdin(stdin).stdout(stdout).stderr(Stdio::piped());
        // Ctrl-C is for the daemon alone.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command.spawn().context("start the process for SQL")?;
        // The command has the other end open.
        drop(command);
        let mut instance = Self { child, connection };
        let mut message = Message::new(start)?;
        message.attachments = references;
        let until = Instant::now() + START_TIMEOUT;
        match instance.exchange(&message, until, usize::MAX) {
            Ok(reply) => match reply.content()? {
                Reply::Ready => Ok(instance),
                Reply::Failed(failure) => bail!("{failure}"),
                Reply::Rows { .. } => bail!("the process for SQL gave no valid answer"),
            },
            Err(error) => match instance.fault(&error) {
                SqlFault::Timeout => bail!("the SQL was not ready after {} s", START_TIMEOUT.as_secs()),
                SqlFault::Memory => bail!("the SQL and its reference files need more than limits.memory_bytes_max"),
                SqlFault::TooLarge => bail!("the process for SQL gave no valid answer"),
                SqlFault::Ended(how) => bail!("{how}"),
            },
        }
    }

    /// Evaluates a batch, which may take `ms` milliseconds, and whose answer may have this many bytes.
    pub(crate) fn evaluate(
        &mut self,
        events: RecordBatch,
        ms: u64,
        output_bytes_max: usize,
    ) -> Result<SqlRows, SqlFault> {
        let until = Instant::now() + Duration::from_millis(ms);
        let invalid = |what: String| SqlFault::Ended(format!("the process for SQL gave no valid answer: {what}"));
        let mut request = Message::new(&()).map_err(|error| invalid(error.to_string()))?;
        request.attachments.push(attachment_of(events).map_err(|error| invalid(format!("{error:#}")))?);
        let answer = self.exchange(&request, until, output_bytes_max).map_err(|error| self.fault(&error))?;
        let reply: Reply = answer.content().map_err(|error| invalid(error.to_string()))?;
        let (rejects, cpu) = match reply {
            Reply::Rows { rejects, cpu } => (rejects, cpu),
            Reply::Failed(why) => return Err(SqlFault::Ended(why)),
            Reply::Ready => return Err(invalid("it is ready".to_owned())),
        };
        let [rows, numbers] = &answer.attachments[..] else { return Err(invalid("no rows".to_owned())) };
        let rows = batch_of(Some(rows)).map_err(|error| invalid(format!("{error:#}")))?;
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number: u32, byte| number << 8 | u32::from(*byte));
        let row_events = numbers.chunks(4).map(number).collect();
        let rejects = rejects.into_iter().map(|reject| {
            let code = Code::parse(&reject.code).unwrap_or(Code::Other);
            Reject { event: reject.event, code, reason: reject.reason }
        });
        Ok(SqlRows { rows, row_events, rejects: rejects.collect(), cpu })
    }

    fn exchange(&mut self, request: &Message, until: Instant, bytes_max: usize) -> io::Result<Message> {
        let mut timed = Timed { connection: &self.connection, until, left: bytes_max };
        request.write_to(&mut timed)?;
        Message::read_from(&mut timed)
    }

    /// What an error of the connection means.
    fn fault(&mut self, error: &io::Error) -> SqlFault {
        match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => return SqlFault::Timeout,
            io::ErrorKind::FileTooLarge => return SqlFault::TooLarge,
            _ if !is_closed(error) => return SqlFault::Ended(format!("the process for SQL: {error}")),
            _ => {}
        }
        let until = Instant::now() + END_TIMEOUT;
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(1)),
                Ok(None) => return SqlFault::Ended("the process for SQL closed its connection".to_owned()),
                Err(error) => return SqlFault::Ended(format!("the process for SQL: {error}")),
            }
        };
        if status.code() == Some(i32::from(OUT_OF_MEMORY)) {
            return SqlFault::Memory;
        }
        let mut last_words = Vec::new();
        if let Some(stderr) = self.child.stderr.take() {
            let _ = stderr.take(STDERR_BYTES_MAX).read_to_end(&mut last_words);
        }
        let last_words = String::from_utf8_lossy(&last_words);
        SqlFault::Ended(format!("the process for SQL ended with {status}: {}", last_words.trim()))
    }
}

impl Drop for SqlInstance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection that fails at a moment, and after so many bytes of an answer.
struct Timed<'c> {
    connection: &'c UnixStream,
    until: Instant,
    left: usize,
}

impl Timed<'_> {
    fn remaining(&self) -> io::Result<Option<Duration>> {
        let remaining = self.until.saturating_duration_since(Instant::now());
        if remaining.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(remaining)) }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.connection.set_read_timeout(self.remaining()?)?;
        let read = self.connection.read(buffer)?;
        self.left = self.left.checked_sub(read).ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(read)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.connection.set_write_timeout(self.remaining()?)?;
        self.connection.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
