//! A verdict for every event of a chunk: hands its events to the plugin in batches, and where the plugin fails on a
//! batch, halves it until the events that it fails on stand alone. Those go to the quarantine, and nothing else does. A
//! plugin that fails on everything is given up.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use silverd_core::account::Counts;
use silverd_core::breaker::Breaker;
use silverd_core::chunk::Chunk;
use silverd_core::rows::{file_schema, typed, with_origin};
use silverd_core::verdict::{Code, Reject, count};

use super::batch::Output;
use super::logs::Level;
use super::plugin::{Fault, Instance, Plugin};

/// What became of the events of a chunk.
#[derive(Default)]
pub struct Verdicts {
    /// The rows, in the order of their events, with the columns of the table's files.
    pub rows: Vec<RecordBatch>,
    pub rejected: Vec<Rejected>,
    pub counts: Counts,
    /// CPU time of lifting the rows.
    pub lift: Duration,
}

/// A rejected event: its record in the chunk, and why.
#[derive(Debug)]
pub struct Rejected {
    pub record: u32,
    pub code: Code,
    pub reason: String,
}

/// The plugin fails on everything: the chunk has no verdicts, and its events are nobody's rejects.
#[derive(Debug, thiserror::Error)]
#[error("the plugin fails on everything: {events} events in a row. {} on the last: {}", .fault.code.as_str(), .fault.reason)]
pub struct Tripped {
    pub fault: Fault,
    pub events: usize,
}

/// A plugin and its instance.
pub struct Transformer {
    plugin: Arc<Plugin>,
    schema: SchemaRef,
    instance: Option<Instance>,
    breaker: Breaker,
}

/// Events that are handed over at once, and how long the plugin may take over them.
struct Batch<'r> {
    records: &'r [u32],
    ms: u64,
}

impl Transformer {
    pub fn new(plugin: Arc<Plugin>) -> Self {
        let schema = file_schema(&plugin.schema);
        Self { plugin, schema, instance: None, breaker: Breaker::default() }
    }

    /// With what another transformer of the same plugin remembered.
    pub fn with_breaker(self, breaker: Breaker) -> Self {
        Self { breaker, ..self }
    }

    /// Starts the plugin now, and not with the first event.
    pub fn start(&mut self) -> anyhow::Result<()> {
        if self.instance.is_none() {
            self.instance = Some(self.plugin.instantiate().context("start the plugin")?);
        }
        Ok(())
    }

    /// What is remembered of the plugin's faults.
    pub fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    pub fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    /// The memory that the instance has come to; `None` after a fault, or before the first event.
    pub fn memory_bytes(&self) -> Option<usize> {
        self.instance.as_ref().map(Instance::memory_bytes)
    }

    /// Gives each of the chunk's `records` its verdict. An error means that the plugin cannot be instantiated, or fails on
    /// everything ([`Tripped`]), and says nothing of the events.
    pub fn transform(&mut self, chunk: &Chunk, records: &[u32]) -> anyhow::Result<Verdicts> {
        let mut verdicts = Verdicts::default();
        // A stack, the next batch on top, so that the rows stay in order when a batch is halved.
        let mut todo = self.batches(chunk, records);
        todo.reverse();
        let mut faulted = BTreeSet::new();
        // The chunks before may be reason enough for doubt.
        self.doubt(chunk, &todo, &mut faulted, None)?;
        while let Some(batch) = todo.pop() {
            match self.answer(chunk, &batch)? {
                Ok(answer) => {
                    self.breaker.succeeded();
                    verdicts.add(batch.records, answer);
                }
                Err(fault) if batch.records.len() == 1 => {
                    let record = batch.records[0];
                    self.blame(record, &mut faulted);
                    self.doubt(chunk, &todo, &mut faulted, Some(&fault))?;
                    verdicts.reject(record, fault);
                }
                Err(fault) => todo.extend(batch.halves(fault.code, self.plugin.limits().transform_ms_max)),
            }
        }
        self.tell(chunk, &verdicts);
        debug_assert!(verdicts.counts.conserved());
        Ok(verdicts)
    }

    /// Counts an event that faulted alone, once.
    fn blame(&mut self, record: u32, faulted: &mut BTreeSet<u32>) {
        if faulted.insert(record) {
            self.breaker.faulted();
        }
    }

    /// Probes a plugin that has failed on many events in a row, and gives it up if it fails on all the probes. `fault` is
    /// the one that led here.
    fn doubt(
        &mut self,
        chunk: &Chunk,
        todo: &[Batch<'_>],
        faulted: &mut BTreeSet<u32>,
        fault: Option<&Fault>,
    ) -> anyhow::Result<()> {
        if !self.breaker.suspects() {
            return Ok(());
        }
        let left = todo.iter().rev().flat_map(|batch| batch.records).copied();
        let left: Vec<u32> = left.filter(|record| !faulted.contains(record)).collect();
        let ms_max = self.plugin.limits().transform_ms_max;
        // The first probe has all the time that the limits allow: a slow plugin is not taken for a broken one.
        let (mut ms, mut last) = (ms_max, fault.cloned());
        for probe in self.breaker.probes(left.len()) {
            let Err(fault) = self.answer(chunk, &Batch { records: &[left[probe]], ms })? else {
                self.breaker.succeeded();
                return Ok(());
            };
            self.blame(left[probe], faulted);
            if fault.code == Code::Timeout {
                ms = ms_least(ms_max);
            }
            last = Some(fault);
        }
        match last {
            Some(fault) if self.breaker.trips() => bail!(Tripped { fault, events: self.breaker.in_a_row() }),
            _ => Ok(()),
        }
    }

    /// Says in the log on which events the plugin failed.
    fn tell(&self, chunk: &Chunk, verdicts: &Verdicts) {
        let logs = self.plugin.logs();
        for Rejected { record, code, reason } in verdicts.rejected.iter().filter(|reject| reject.code.is_fault()) {
            let (partition, offset) = (chunk.partitions()[*record as usize], chunk.offsets()[*record as usize]);
            let code = code.as_str();
            logs.tell(Level::Warn, &format!("no verdict on partition {partition}, offset {offset}: {code}: {reason}"));
        }
        logs.settle();
    }

    /// Cuts the records into batches that the limits allow to hand over at once.
    fn batches<'r>(&self, chunk: &Chunk, records: &'r [u32]) -> Vec<Batch<'r>> {
        let (limits, values) = (self.plugin.limits(), chunk.values());
        let (mut batches, mut start, mut bytes) = (Vec::new(), 0, 0);
        let batch = |records| Batch { records, ms: limits.transform_ms_max };
        for (at, record) in records.iter().enumerate() {
            let size = values.value_length(*record as usize) as usize;
            let full = at - start >= limits.batch_rows_max || bytes + size > limits.batch_bytes_max;
            if full && at > start {
                batches.push(batch(&records[start..at]));
                (start, bytes) = (at, 0);
            }
            bytes += size;
        }
        if start < records.len() {
            batches.push(batch(&records[start..]));
        }
        batches
    }

    /// The plugin's answer to one batch, checked and typed. A fault costs the instance.
    fn answer(&mut self, chunk: &Chunk, batch: &Batch<'_>) -> anyhow::Result<Result<Answer, Fault>> {
        let mut instance = match self.instance.take() {
            Some(instance) => instance,
            None => self.plugin.instantiate().context("start the plugin")?,
        };
        let answer = instance
            .transform(self.plugin.limits(), batch.ms, chunk, batch.records)
            .and_then(|output| self.check(chunk, batch.records, output));
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
        let lift = output.rows.took;
        if output.rows.len == 0 {
            return Ok(Answer { rows: None, rejects, counts, lift });
        }
        let columns = output.rows.columns.into_iter().zip(&self.plugin.schema.columns);
        let columns: Vec<ArrayRef> = columns
            .map(|(array, column)| typed(array, column))
            .collect::<Result<_, _>>()
            .map_err(|error| invalid(error.to_string()))?;
        let origins: Vec<u32> = output.row_events.iter().map(|event| batch[*event as usize]).collect();
        let rows = with_origin(&self.schema, columns, chunk, &origins).map_err(|error| invalid(error.to_string()))?;
        Ok(Answer { rows: Some(rows), rejects, counts, lift })
    }
}

/// The least time that an event alone gets, whose batch took too long.
fn ms_least(ms_max: u64) -> u64 {
    (ms_max / 20).max(100).min(ms_max)
}

impl<'r> Batch<'r> {
    /// Its halves, the next one last. Where the batch took too long, each gets its share of the time, so that an event that
    /// never ends costs about twice the limit, and not the limit for each halving:
    ///
    /// | of `transform_ms_max = 10_000` | 4,096 events | 2,048 | 1,024 | 512 | 256 | 128 … 1 | together |
    /// |---|---|---|---|---|---|---|---|
    /// | ms | 10,000 | 5,000 | 2,500 | 1,250 | 625 | 500 each | 23,375 |
    fn halves(&self, code: Code, ms_max: u64) -> [Self; 2] {
        let (first, second) = self.records.split_at(self.records.len() / 2);
        let half = |records: &'r [u32]| {
            let share = self.ms * records.len() as u64 / self.records.len() as u64;
            Self { records, ms: if code == Code::Timeout { share.max(ms_least(ms_max)).min(self.ms) } else { self.ms } }
        };
        [half(second), half(first)]
    }
}

struct Answer {
    rows: Option<RecordBatch>,
    rejects: Vec<Reject>,
    counts: Counts,
    lift: Duration,
}

impl Verdicts {
    /// How many events were rejected because the plugin itself failed on them.
    pub fn faults(&self) -> u64 {
        self.rejected.iter().filter(|reject| reject.code.is_fault()).count() as u64
    }

    fn add(&mut self, batch: &[u32], answer: Answer) {
        self.rows.extend(answer.rows);
        self.rejected.extend(answer.rejects.into_iter().map(|reject| Rejected {
            record: batch[reject.event as usize],
            code: reject.code,
            reason: reject.reason,
        }));
        self.counts += answer.counts;
        self.lift += answer.lift;
    }

    fn reject(&mut self, record: u32, fault: Fault) {
        self.rejected.push(Rejected { record, code: fault.code, reason: fault.reason });
        self.counts += Counts { events: 1, rejected: 1, ..Counts::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_never_ends_costs_about_twice_the_limit() {
        let cost = |ms_max, events: usize| {
            let records: Vec<u32> = (0..events as u32).collect();
            let (mut batch, mut spent) = (Batch { records: &records, ms: ms_max }, vec![ms_max]);
            while batch.records.len() > 1 {
                let [_, first] = batch.halves(Code::Timeout, ms_max);
                batch = first;
                spent.push(batch.ms);
            }
            spent
        };
        let spent = cost(10_000, 4_096);
        assert_eq!(spent[..6], [10_000, 5_000, 2_500, 1_250, 625, 500]);
        assert_eq!(spent.iter().sum::<u64>(), 23_375);
        assert_eq!(cost(300, 8), [300, 150, 100, 100]);
        assert_eq!(cost(50, 4), [50, 50, 50]);
        assert_eq!(cost(600_000, 2), [600_000, 300_000]);
    }

    #[test]
    fn other_faults_take_no_time_away() {
        let batch = Batch { records: &[1, 2, 3], ms: 700 };
        let halves = batch.halves(Code::Trap, 1_000).map(|half| (half.records.to_vec(), half.ms));
        assert_eq!(halves, [(vec![2, 3], 700), (vec![1], 700)]);
    }
}
