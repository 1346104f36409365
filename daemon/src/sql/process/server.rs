//! The process that runs SQL: answers one request after the other until its input ends.

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Start;
use crate::runtime::TABLE_OPENS_MAX;
use crate::sql::QueryError;
use crate::sql_engine::{Message, limit_this_process, messages_of};

/// Answers the requests of one kind of work.
pub(crate) trait Handler {
    type Request: DeserializeOwned;
    type Note: Serialize;
    type Answer: Serialize;

    /// Answers a request. The last note explains a process that ends before its answer.
    async fn answer(
        &mut self,
        request: Self::Request,
        attachments: Vec<Vec<u8>>,
        notes: &Notes<Self::Note>,
    ) -> Result<Self::Answer, QueryError>;
}

/// Sends notes.
pub(crate) struct Notes<N>(std::marker::PhantomData<fn(N)>);

impl<N: Serialize> Notes<N> {
    pub(crate) fn send(&self, note: N) -> io::Result<()> {
        Message::new(&Reply::<N, ()>::Note(note))?.write_to(io::stdout().lock())
    }
}

/// What the process sends.
#[derive(Serialize, Deserialize)]
pub(super) enum Reply<N, A> {
    Note(N),
    Answer(A),
    NotWritten(String),
    /// DataFusion's memory pool is exhausted.
    OutOfMemory,
    Failed(String),
}

/// The next message of the process that started this one.
pub(crate) fn read_message() -> io::Result<Message> {
    Message::read_from(io::stdin().lock())
}

/// Answers requests until the input ends. When it does during a query, the process ends at once: nobody waits any more.
pub(crate) fn serve<H: Handler>(new: impl FnOnce(Start) -> H) -> anyhow::Result<()> {
    let start: Start = read_message()?.content()?;
    limit_this_process(start.memory_bytes_max, start.yields)?;
    let requests = messages_of(io::stdin())?;
    // A multi-thread runtime with one worker: on a current-thread runtime, delta-rs starts a runtime of its own each time
    // it reads a log.
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).max_blocking_threads(TABLE_OPENS_MAX).enable_all().build()?;
    let mut handler = new(start);
    for mut message in requests {
        let attachments = std::mem::take(&mut message.attachments);
        let request = message.content()?;
        let answer = runtime.block_on(handler.answer(request, attachments, &Notes(std::marker::PhantomData)));
        let reply = match answer {
            Ok(answer) => Reply::<(), _>::Answer(answer),
            Err(QueryError::NotWritten(table)) => Reply::NotWritten(table),
            Err(QueryError::Limit(_)) => Reply::OutOfMemory,
            Err(failure) => Reply::Failed(failure.to_string()),
        };
        Message::new(&reply)?.write_to(io::stdout().lock())?;
    }
    Ok(())
}
