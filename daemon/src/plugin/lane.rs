//! One instance of a plugin, which transforms one batch after the other.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use silverd_core::chunk::Chunk;
use silverd_core::counts::Counts;
use silverd_core::input::{Decoder, EventType, Image, Input, Records};
use silverd_core::outcome::{Code, Reject, count_outcomes};
use silverd_core::rows::{typed, with_origin};

use super::component::{Instance, Plugin};
use super::events::Events;
use super::fault::Fault;
use super::outcomes::Rejected;
use super::output::Output;
use crate::telemetry::thread_cpu;

/// A batch whose decoded events take more than this many times `limits.batch_bytes_max` is halved.
const IMAGE_GROWTH_MAX: usize = 8;

/// An instance, and what decodes the events for it.
pub(super) struct Lane {
    plugin: Arc<Plugin>,
    schema: SchemaRef,
    /// `None` before the first event, and after a fault.
    instance: Option<Instance>,
    decoder: Decoder,
    image: Image,
}

/// Records that are passed to the plugin at once, and the time that it may take for them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch<'r> {
    pub(super) records: &'r [u32],
    pub(super) ms: u64,
    /// Its number in the chunk; `None` for a part of a batch.
    pub(super) number: Option<usize>,
}

/// The outcomes of one batch.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) rows: Option<RecordBatch>,
    pub(super) rejected: Vec<Rejected>,
    pub(super) counts: Counts,
    pub(super) decode: Duration,
    pub(super) lift: Duration,
    /// CPU time of another process.
    pub(super) elsewhere: Duration,
    /// Whether the plugin got any event; otherwise the host rejected all of them.
    pub(super) has_called: bool,
}

/// The plugin's answer, or its fault. The outer error: it could not be started.
pub(super) type Called = anyhow::Result<Result<Answer, Fault>>;

impl Lane {
    pub(super) fn new(plugin: Arc<Plugin>, schema: SchemaRef) -> Self {
        let (decoder, image) = Default::default();
        Self { plugin, schema, instance: None, decoder, image }
    }

    /// Creates the instance before the first event needs it.
    pub(super) fn start(&mut self) -> anyhow::Result<()> {
        if self.instance.is_none() {
            self.instance = Some(self.plugin.instantiate().context("start the plugin")?);
        }
        Ok(())
    }

    /// The memory of the instance; `None` if there is none.
    pub(super) fn memory_bytes(&self) -> Option<usize> {
        self.instance.as_ref().map(Instance::memory_bytes)
    }

    /// Passes one batch to the plugin, and checks its answer. A fault costs the instance.
    pub(super) fn call(&mut self, chunk: &Chunk, batch: &Batch<'_>) -> Called {
        let plugin = self.plugin.clone();
        match &plugin.input {
            Input::Raw(_) => self.answer(chunk, batch.records, batch.ms, Events::Raw { chunk, rows: batch.records }),
            Input::Typed(ty) => self.call_typed(ty, chunk, batch),
        }
    }

    /// Decodes the events of a batch; the plugin gets those that fit.
    fn call_typed(&mut self, ty: &EventType, chunk: &Chunk, batch: &Batch<'_>) -> Called {
        let began = thread_cpu();
        let records = Records::new(chunk);
        let bytes_max = self.plugin.limits().batch_bytes_max;
        let mut image = std::mem::take(&mut self.image);
        image.clear();
        let (mut fitting, mut rejected) = (Vec::with_capacity(batch.records.len()), Vec::new());
        for record in batch.records {
            match self.decoder.decode(ty, &records, *record as usize, &mut image, bytes_max) {
                Ok(()) => fitting.push(*record),
                Err(rejection) => {
                    rejected.push(Rejected { record: *record, code: rejection.code, reason: rejection.reason });
                }
            }
            if fitting.len() > 1 && image.bytes() > IMAGE_GROWTH_MAX * bytes_max {
                self.image = image;
                let reason = format!("its decoded events take more than {IMAGE_GROWTH_MAX} times {bytes_max} bytes");
                return Ok(Err(Fault { code: Code::Memory, reason }));
            }
        }
        let decode = thread_cpu().saturating_sub(began);
        let events = Events::Typed { records: &records, rows: &fitting, ty, image: &mut image };
        let answer = match fitting.is_empty() {
            true => Ok(Ok(Answer::default())),
            false => self.answer(chunk, &fitting, batch.ms, events),
        };
        self.image = image;
        Ok(answer?.map(|mut answer| {
            let host = rejected.len() as u64;
            answer.counts += Counts { events: host, rejected: host, ..Counts::default() };
            answer.rejected.append(&mut rejected);
            answer.rejected.sort_by_key(|rejected| rejected.record);
            Answer { decode, ..answer }
        }))
    }

    /// The plugin's answer for these events, which are those of `records`.
    fn answer(&mut self, chunk: &Chunk, records: &[u32], ms: u64, events: Events<'_>) -> Called {
        let mut instance = match self.instance.take() {
            Some(instance) => instance,
            None => self.plugin.instantiate().context("start the plugin")?,
        };
        let answer =
            instance.transform(self.plugin.limits(), ms, events).and_then(|output| self.check(chunk, records, output));
        if answer.is_ok() {
            self.instance = Some(instance);
        }
        Ok(answer)
    }

    /// Checks a plugin's output, and gives its columns the types of the table.
    fn check(&self, chunk: &Chunk, records: &[u32], output: Output) -> Result<Answer, Fault> {
        let invalid = |reason: String| Fault { code: Code::InvalidOutput, reason };
        let rejects: Vec<Reject> = output.rejects.into_iter().map(Reject::from).collect();
        let counts = count_outcomes(records.len(), output.rows.len, &output.row_events, &rejects)
            .map_err(|error| invalid(error.to_string()))?;
        let rejected = rejects.into_iter().map(|reject| {
            let Reject { event, code, reason } = reject;
            Rejected { record: records[event as usize], code, reason }
        });
        let mut answer = Answer {
            counts,
            rejected: rejected.collect(),
            lift: output.rows.took,
            elsewhere: output.rows.elsewhere,
            has_called: true,
            ..Answer::default()
        };
        if output.rows.len == 0 {
            return Ok(answer);
        }
        let columns = match self.plugin.sql() {
            Some(_) => output.rows.columns,
            None => {
                let columns = output.rows.columns.into_iter().zip(&self.plugin.schema.columns);
                let columns: Result<Vec<ArrayRef>, _> = columns.map(|(array, column)| typed(array, column)).collect();
                columns.map_err(|error| invalid(error.to_string()))?
            }
        };
        let origins: Vec<u32> = output.row_events.iter().map(|event| records[*event as usize]).collect();
        let rows = with_origin(&self.schema, columns, chunk, &origins).map_err(|error| invalid(error.to_string()))?;
        answer.rows = Some(rows);
        Ok(answer)
    }
}
