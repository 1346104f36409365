//! A verdict for every event of a chunk: hands its events to the plugin in batches, and where the plugin fails on a
//! batch, halves it until the events that it fails on stand alone. Those go to the quarantine, and nothing else does.

use std::sync::Arc;

use anyhow::Context;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use silverd_core::account::Counts;
use silverd_core::chunk::Chunk;
use silverd_core::rows::{file_schema, typed, with_origin};
use silverd_core::verdict::{Code, Reject, count};

use super::batch::Output;
use super::plugin::{Fault, Instance, Plugin};

/// What became of the events of a chunk.
#[derive(Default)]
pub struct Verdicts {
    /// The rows, in the order of their events, with the columns of the table's files.
    pub rows: Vec<RecordBatch>,
    pub rejected: Vec<Rejected>,
    pub counts: Counts,
}

/// A rejected event: its record in the chunk, and why.
#[derive(Debug)]
pub struct Rejected {
    pub record: u32,
    pub code: Code,
    pub reason: String,
}

/// A plugin and its instance.
pub struct Transformer {
    plugin: Arc<Plugin>,
    schema: SchemaRef,
    instance: Option<Instance>,
}

impl Transformer {
    pub fn new(plugin: Arc<Plugin>) -> Self {
        let schema = file_schema(&plugin.schema);
        Self { plugin, schema, instance: None }
    }

    pub fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    /// The memory that the instance has come to; `None` after a fault, or before the first event.
    pub fn memory_bytes(&self) -> Option<usize> {
        self.instance.as_ref().map(Instance::memory_bytes)
    }

    /// Gives each of the chunk's `records` its verdict. An error means that the plugin cannot be instantiated, and says
    /// nothing of the events.
    pub fn transform(&mut self, chunk: &Chunk, records: &[u32]) -> anyhow::Result<Verdicts> {
        let mut verdicts = Verdicts::default();
        // A stack, the next batch on top, so that the rows stay in order when a batch is halved.
        let mut todo = self.batches(chunk, records);
        todo.reverse();
        while let Some(batch) = todo.pop() {
            match self.answer(chunk, batch)? {
                Ok(answer) => verdicts.add(batch, answer),
                Err(fault) if batch.len() == 1 => verdicts.reject(batch[0], fault),
                Err(_) => {
                    let (first, second) = batch.split_at(batch.len() / 2);
                    todo.extend([second, first]);
                }
            }
        }
        debug_assert!(verdicts.counts.conserved());
        Ok(verdicts)
    }

    /// Cuts the records into batches that the limits allow to hand over at once.
    fn batches<'r>(&self, chunk: &Chunk, records: &'r [u32]) -> Vec<&'r [u32]> {
        let (limits, values) = (self.plugin.limits(), chunk.values());
        let (mut batches, mut start, mut bytes) = (Vec::new(), 0, 0);
        for (at, record) in records.iter().enumerate() {
            let size = values.value_length(*record as usize) as usize;
            let full = at - start >= limits.batch_rows_max || bytes + size > limits.batch_bytes_max;
            if full && at > start {
                batches.push(&records[start..at]);
                (start, bytes) = (at, 0);
            }
            bytes += size;
        }
        if start < records.len() {
            batches.push(&records[start..]);
        }
        batches
    }

    /// The plugin's answer to one batch, checked and typed. A fault costs the instance.
    fn answer(&mut self, chunk: &Chunk, batch: &[u32]) -> anyhow::Result<Result<Answer, Fault>> {
        let mut instance = match self.instance.take() {
            Some(instance) => instance,
            None => self.plugin.instantiate().context("start the plugin")?,
        };
        let answer =
            instance.transform(self.plugin.limits(), chunk, batch).and_then(|output| self.check(chunk, batch, output));
        if answer.is_ok() {
            self.instance = Some(instance);
        }
        Ok(answer)
    }

    fn check(&self, chunk: &Chunk, batch: &[u32], output: Output) -> Result<Answer, Fault> {
        let invalid = |reason: String| Fault { code: Code::InvalidOutput, reason };
        let rejects: Vec<Reject> = output.rejects.into_iter().map(Reject::from).collect();
        let counts = count(batch.len(), output.rows.len, &output.row_events, &rejects)
            .map_err(|error| invalid(error.to_string()))?;
        if output.rows.len == 0 {
            return Ok(Answer { rows: None, rejects, counts });
        }
        let columns = output.rows.columns.into_iter().zip(&self.plugin.schema.columns);
        let columns: Vec<ArrayRef> = columns
            .map(|(array, column)| typed(array, column))
            .collect::<Result<_, _>>()
            .map_err(|error| invalid(error.to_string()))?;
        let origins: Vec<u32> = output.row_events.iter().map(|event| batch[*event as usize]).collect();
        let rows = with_origin(&self.schema, columns, chunk, &origins).map_err(|error| invalid(error.to_string()))?;
        Ok(Answer { rows: Some(rows), rejects, counts })
    }
}

struct Answer {
    rows: Option<RecordBatch>,
    rejects: Vec<Reject>,
    counts: Counts,
}

impl Verdicts {
    fn add(&mut self, batch: &[u32], answer: Answer) {
        self.rows.extend(answer.rows);
        self.rejected.extend(answer.rejects.into_iter().map(|reject| Rejected {
            record: batch[reject.event as usize],
            code: reject.code,
            reason: reject.reason,
        }));
        self.counts += answer.counts;
    }

    fn reject(&mut self, record: u32, fault: Fault) {
        self.rejected.push(Rejected { record, code: fault.code, reason: fault.reason });
        self.counts += Counts { events: 1, rejected: 1, ..Counts::default() };
    }
}
