//! A thread that works step by step, and how it ends. In a simulation it is a task of the one thread.

use std::pin::pin;
use std::time::Duration;

use anyhow::{anyhow, bail};
use tokio_util::sync::CancellationToken;

use super::machine::simulated;

/// How long a worker may go on after `stop`.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the step at hand may take after that.
const LAST_STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// The thread of a worker.
pub(crate) struct WorkerThread<E> {
    /// What it writes, in messages.
    what: String,
    running: Running<E>,
    /// End after the step at hand.
    shutdown_now: CancellationToken,
}

enum Running<E> {
    Thread(std::thread::JoinHandle<Result<(), E>>),
    Task(tokio::task::JoinHandle<Result<(), E>>),
}

impl<E: Send + 'static> Running<E> {
    /// What came of it; `None` after a panic.
    async fn join(self) -> Option<Result<(), E>> {
        match self {
            Self::Thread(thread) => tokio::task::spawn_blocking(move || thread.join()).await.ok()?.ok(),
            Self::Task(task) => task.await.ok(),
        }
    }
}

impl<E: Into<anyhow::Error> + Send + 'static> WorkerThread<E> {
    /// Runs `work` on a thread of its own. It must end soon after `shutdown_now`.
    pub(crate) fn spawn<W: Future<Output = Result<(), E>> + 'static>(
        thread: impl Into<String>,
        what: impl Into<String>,
        shutdown_now: CancellationToken,
        work: impl FnOnce() -> W + Send + 'static,
    ) -> anyhow::Result<Self> {
        let running = match simulated() {
            None => {
                let runtime = tokio::runtime::Handle::current();
                let thread = std::thread::Builder::new().name(thread.into());
                Running::Thread(thread.spawn(move || runtime.block_on(work()))?)
            }
            Some(_) => Running::Task(tokio::task::spawn_local(work())),
        };
        Ok(Self { what: what.into(), running, shutdown_now })
    }

    pub(crate) fn shut_down_now(&self) {
        self.shutdown_now.cancel();
    }

    /// Waits for the end, for `timeout` at most.
    ///
    /// After `stop` the timeout is short, whatever it was. A worker that is deep in work then (a plugin that hangs, a build)
    /// is left behind: it continues from its last commit at the next start, as after a kill.
    pub(crate) async fn finish(self, timeout: Duration, stop: CancellationToken) -> anyhow::Result<()> {
        let Self { what, running, shutdown_now } = self;
        let mut joined = pin!(running.join());
        let stopped = async {
            stop.cancelled().await;
            tokio::time::sleep(timeout.min(STOP_TIMEOUT)).await;
        };
        let ended = tokio::select! {
            ended = &mut joined => ended,
            () = async { tokio::select! { () = tokio::time::sleep(timeout) => {} () = stopped => {} } } => {
                shutdown_now.cancel();
                match tokio::time::timeout(LAST_STEP_TIMEOUT, joined).await {
                    Ok(ended) => ended,
                    Err(_) => bail!("{what} did not stop in time; it continues from its last commit at the next start"),
                }
            }
        };
        ended.ok_or_else(|| anyhow!("the worker of {what} panicked"))?.map_err(Into::into)
    }
}
