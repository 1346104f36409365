//! The process for SQL as its user sees it: started when it is needed, asked, and killed when it passes a limit.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

use super::Start;
use super::server::Reply;
use crate::sql::error::{QueryError, SqlLimit};
use crate::sql_engine::{Message, OUT_OF_MEMORY, SqlWork, sql_command};

/// What is kept of the process's last words.
const STDERR_BYTES_MAX: usize = 4 << 10;
/// How long a process may take to end after its last answer.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// A process for SQL, which runs while it is needed.
pub(crate) struct SqlProcess {
    work: SqlWork,
    start: Start,
    running: Option<Running>,
}

/// Why there is no answer, and the last note before.
#[derive(Debug)]
pub(crate) struct Ended<N> {
    pub error: QueryError,
    pub note: Option<N>,
}

struct Running {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    stderr: Stderr,
}

/// The end of what a process writes to its standard error.
struct Stderr(JoinHandle<Vec<u8>>);

impl SqlProcess {
    pub(crate) fn new(work: SqlWork, start: Start) -> Self {
        Self { work, start, running: None }
    }

    /// Whether the process of the last request still runs, with what it keeps in memory.
    pub(crate) fn is_running(&mut self) -> bool {
        let is_running = self.running.as_mut().is_some_and(|running| matches!(running.child.try_wait(), Ok(None)));
        if !is_running {
            self.running = None;
        }
        is_running
    }

    /// Ends the process, which frees its memory. The next request starts another.
    pub(crate) fn end(&mut self) {
        self.running = None;
    }

    /// Sends a request and waits for the answer, as long as the limit allows.
    pub(crate) async fn ask<N: DeserializeOwned, A: DeserializeOwned>(
        &mut self,
        request: &Message,
    ) -> Result<A, Ended<N>> {
        let mut note = None;
        let mut running = match self.running.take() {
            Some(running) => running,
            None => match Running::start(self.work, &self.start).await {
                Ok(running) => running,
                Err(failure) => return Err(Ended { error: failure.into(), note }),
            },
        };
        let seconds = self.start.seconds_max;
        let answer = tokio::time::timeout(Duration::from_secs(seconds), running.exchange(request, &mut note)).await;
        let error = match answer {
            Ok(Ok(answer)) => {
                self.running = Some(running);
                match answer {
                    Ok(answer) => return Ok(answer),
                    Err(error) => error,
                }
            }
            // The pipe is closed: the process has ended, or ends now.
            Ok(Err(failure)) => match tokio::time::timeout(END_TIMEOUT, running.child.wait()).await {
                Ok(Ok(status)) => why_it_ended(status, &self.start, running.stderr).await,
                Ok(Err(failure)) => anyhow::Error::from(failure).into(),
                Err(_) => {
                    let _ = running.child.kill().await;
                    QueryError::Ended(format!("the process for SQL gave no valid answer: {failure}"))
                }
            },
            Err(_) => {
                let _ = running.child.kill().await;
                QueryError::Limit(SqlLimit::Seconds(seconds))
            }
        };
        let error = match error {
            QueryError::Limit(SqlLimit::Memory(_)) => QueryError::Limit(SqlLimit::Memory(self.start.memory_bytes_max)),
            other => other,
        };
        Err(Ended { error, note })
    }
}

/// Runs one process, whose output is that of this one. `content` follows the start.
pub(crate) async fn run_with_limits(work: SqlWork, start: &Start, content: &Message) -> Result<(), QueryError> {
    let mut command = command(work);
    // Ctrl-C ends both.
    let mut child = command.stdout(Stdio::inherit()).spawn().context("start the process for SQL")?;
    let stderr = Stderr::of(child.stderr.take());
    let run = async {
        if let Some(mut stdin) = child.stdin.take() {
            // If the process has ended already, its exit says why.
            if let Ok(start) = Message::new(start)
                && start.send(&mut stdin).await.is_ok()
            {
                let _ = content.send(&mut stdin).await;
            }
            let status = child.wait().await;
            drop(stdin);
            return status;
        }
        child.wait().await
    };
    let status = tokio::time::timeout(Duration::from_secs(start.seconds_max), run).await;
    match status {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(why_it_ended(status, start, stderr).await),
        Ok(Err(failure)) => Err(anyhow::Error::from(failure).into()),
        Err(_) => Err(QueryError::Limit(SqlLimit::Seconds(start.seconds_max))),
    }
}

fn command(work: SqlWork) -> Command {
    let mut command = Command::from(sql_command(work));
    command.stdin(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn why_it_ended(status: ExitStatus, start: &Start, stderr: Stderr) -> QueryError {
    if status.code() == Some(i32::from(OUT_OF_MEMORY)) {
        return QueryError::Limit(SqlLimit::Memory(start.memory_bytes_max));
    }
    let text = stderr.text().await;
    match status.code() {
        Some(1) => anyhow!("{text}").into(),
        _ => QueryError::Ended(format!("the process for SQL ended with {status}: {text}")),
    }
}

impl Running {
    async fn start(work: SqlWork, start: &Start) -> anyhow::Result<Self> {
        let mut command = command(work);
        // Ctrl-C is for the daemon alone.
        let mut child = command.process_group(0).stdout(Stdio::piped()).spawn().context("start the process for SQL")?;
        let (stdin, stdout) = child.stdin.take().zip(child.stdout.take()).context("no pipe to the process for SQL")?;
        let stderr = Stderr::of(child.stderr.take());
        let mut running = Self { child, stdin, stdout: BufReader::new(stdout), stderr };
        Message::new(start)?.send(&mut running.stdin).await.context("start the process for SQL")?;
        Ok(running)
    }

    /// An error is that of the pipe: the process has ended.
    async fn exchange<N: DeserializeOwned, A: DeserializeOwned>(
        &mut self,
        request: &Message,
        note: &mut Option<N>,
    ) -> std::io::Result<Result<A, QueryError>> {
        request.send(&mut self.stdin).await?;
        loop {
            match Message::receive(&mut self.stdout).await?.content::<Reply<N, A>>()? {
                Reply::Note(newer) => *note = Some(newer),
                Reply::Answer(answer) => return Ok(Ok(answer)),
                Reply::NotWritten(table) => return Ok(Err(QueryError::NotWritten(table))),
                Reply::OutOfMemory => return Ok(Err(QueryError::Limit(SqlLimit::Memory(0)))),
                Reply::Failed(text) => return Ok(Err(QueryError::Failed(anyhow!(text)))),
            }
        }
    }
}

impl Stderr {
    fn of(input: Option<impl AsyncRead + Unpin + Send + 'static>) -> Self {
        Self(tokio::spawn(async move {
            let (mut kept, mut part) = (Vec::new(), [0; 1024]);
            let Some(mut input) = input else { return kept };
            while let Ok(read @ 1..) = input.read(&mut part).await {
                kept.extend_from_slice(&part[..read]);
                let excess = kept.len().saturating_sub(STDERR_BYTES_MAX);
                kept.drain(..excess);
            }
            kept
        }))
    }

    /// The text, once the process has ended.
    async fn text(self) -> String {
        String::from_utf8_lossy(&self.0.await.unwrap_or_default()).trim().to_owned()
    }
}
