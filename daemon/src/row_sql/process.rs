//! The process that evaluates the SQL of one table: its memory and its time are bounded by ending it, as a plugin's are.
//!
//! ```text
//!   silverd ── Start, reference files ─▶ silverd sql-process rows
//!           ◀── Ready ──────────────────
//!           ── a batch of events ──────▶
//!           ◀── rows, numbers, rejects ─
//! ```

use std::io;
use std::time::Duration;

use anyhow::Context;
use arrow::array::RecordBatch;
use datafusion::common::DataFusionError;
use serde::{Deserialize, Serialize};
use silverd_core::outcome::Reject;

use super::definition::Definition;
use super::evaluate::{Evaluated, Evaluator};
use crate::sql_engine::{Message, OUT_OF_MEMORY, batches, limit_this_process, messages_of};
use crate::telemetry::thread_cpu;

/// The first message. The contents of the reference files are its attachments.
#[derive(Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) definition: Definition,
    pub(super) references: Vec<String>,
    pub(super) memory_bytes_max: usize,
}

/// What the process answers to the start, and to each batch.
#[derive(Serialize, Deserialize)]
pub(super) enum Reply {
    Ready,
    /// The rows are an attachment, and so are the numbers of their events.
    Rows {
        rejects: Vec<RejectReply>,
        cpu: Duration,
    },
    Failed(String),
}

#[derive(Serialize, Deserialize)]
pub(super) struct RejectReply {
    pub(super) event: u32,
    pub(super) code: String,
    pub(super) reason: String,
}

impl From<Reject> for RejectReply {
    fn from(reject: Reject) -> Self {
        Self { event: reject.event, code: reject.code.as_str().to_owned(), reason: reject.reason }
    }
}

/// The hidden command: evaluates batches until its input ends. When it does during a batch, the process ends at once.
pub(crate) fn serve() -> anyhow::Result<()> {
    let mut message = Message::read_from(io::stdin())?;
    let contents = std::mem::take(&mut message.attachments);
    let start: Start = message.content()?;
    limit_this_process(start.memory_bytes_max, false)?;
    let requests = messages_of(io::stdin())?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let references = start.references.iter().map(String::as_str).zip(contents.iter().map(Vec::as_slice));
    // The rest of the memory is for what DataFusion's operators do not count.
    let evaluator = runtime.block_on(Evaluator::new(&start.definition, references, start.memory_bytes_max / 2));
    let mut evaluator = match evaluator {
        Ok(evaluator) => evaluator,
        Err(failure) => return send(&Reply::Failed(format!("{failure:#}")), Vec::new()),
    };
    send(&Reply::Ready, Vec::new())?;
    for request in requests {
        let began = thread_cpu();
        let events = batch_of(request.attachments.first())?;
        match runtime.block_on(evaluator.evaluate(&events)) {
            Ok(Evaluated { rows, row_events, rejects }) => {
                let numbers = row_events.iter().flat_map(|event| event.to_le_bytes()).collect();
                let attachments = vec![attachment_of(rows)?, numbers];
                let rejects = rejects.into_iter().map(RejectReply::from).collect();
                let cpu = thread_cpu().saturating_sub(began);
                send(&Reply::Rows { rejects, cpu }, attachments)?;
            }
            Err(error) if matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)) => {
                // SAFETY: ends the process without anything else.
                unsafe { libc::_exit(OUT_OF_MEMORY.into()) }
            }
            Err(error) => send(&Reply::Failed(error.find_root().strip_backtrace()), Vec::new())?,
        }
    }
    Ok(())
}

fn send(reply: &Reply, attachments: Vec<Vec<u8>>) -> anyhow::Result<()> {
    let mut message = Message::new(reply)?;
    message.attachments = attachments;
    Ok(message.write_to(io::stdout().lock())?)
}

/// A batch as an attachment.
pub(super) fn attachment_of(batch: RecordBatch) -> anyhow::Result<Vec<u8>> {
    batches::encode(&[batch])?.context("no batch")
}

pub(super) fn batch_of(attachment: Option<&Vec<u8>>) -> anyhow::Result<RecordBatch> {
    batches::decode(attachment.context("no attachment")?)?.pop().context("no batch")
}

/// Whether a pipe's end is closed, or the other process has ended.
pub(super) fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}
