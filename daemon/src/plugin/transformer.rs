//! Transforms chunks with a plugin: passes the events in batches, on several threads where cores are free. If the plugin
//! takes typed events, the host decodes them first, and rejects those that do not fit. If the plugin fails on a batch, the batch is halved until the events
//! that it fails on are alone; only these go to the quarantine. If the plugin fails on every event, the circuit breaker
//! trips.

use std::collections::BTreeSet;
use std::sync::Arc;

use silverd_core::breaker::Breaker;
use silverd_core::chunk::Chunk;
use silverd_core::outcome::Code;
use silverd_core::rows::file_schema;

use super::component::Plugin;
use super::fault::Fault;
use super::lane::{Answer, Batch, Lane};
use super::lanes_ahead::{CalledAhead, LanesAhead};
use super::logs::Level;
use super::outcomes::{Rejected, TransformError, TransformOutput, Tripped};

/// A plugin and its instances.
pub struct Transformer {
    plugin: Arc<Plugin>,
    breaker: Breaker,
    /// The instance that transforms on the caller's thread.
    lane: Lane,
    lanes_ahead: LanesAhead,
}

impl Transformer {
    pub fn new(plugin: Arc<Plugin>) -> Self {
        let schema = file_schema(&plugin.schema);
        let lane = Lane::new(plugin.clone(), schema.clone());
        let lanes_ahead = LanesAhead::new(plugin.clone(), schema);
        Self { plugin, breaker: Breaker::default(), lane, lanes_ahead }
    }

    /// Continues with the circuit breaker of another transformer of the same plugin.
    pub fn with_breaker(self, breaker: Breaker) -> Self {
        Self { breaker, ..self }
    }

    /// Calls the plugin on this many further threads where a chunk has several batches, whatever cores are free.
    pub fn with_further_threads(mut self, threads: usize) -> Self {
        self.lanes_ahead.threads = Some(threads);
        self
    }

    /// Creates the plugin's instance before the first event needs it.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        self.lane.start()
    }

    pub fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    pub fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    /// The memory of the caller's instance; `None` before the first event and after a fault.
    pub(crate) fn memory_bytes(&self) -> Option<usize> {
        self.lane.memory_bytes()
    }

    /// Transforms the records of a chunk with these indexes.
    pub fn transform(&mut self, chunk: &Chunk, records: &[u32]) -> Result<TransformOutput, TransformError> {
        let mut output = TransformOutput::default();
        let batches = self.batches(chunk, records);
        // A stack whose top is the next batch, so that the rows stay in order if a batch is halved.
        let mut remaining: Vec<_> = batches.iter().rev().copied().collect();
        let mut faulted = BTreeSet::new();
        // The plugin may be suspect since the chunk before.
        self.probe_if_suspect(chunk, &remaining, &mut faulted, None)?;
        let mut ahead = match self.breaker.is_suspect() {
            true => CalledAhead::default(),
            false => self.lanes_ahead.call(&mut self.lane, chunk, &batches),
        };
        output.other_threads = ahead.other_threads;
        while let Some(batch) = remaining.pop() {
            match ahead.take(&batch).unwrap_or_else(|| self.lane.call(chunk, &batch))? {
                Ok(answer) => {
                    if answer.has_called {
                        self.breaker.record_success();
                    }
                    add(&mut output, answer);
                }
                Err(fault) if batch.records.len() == 1 => {
                    let record = batch.records[0];
                    self.record_fault(record, &mut faulted);
                    self.probe_if_suspect(chunk, &remaining, &mut faulted, Some(&fault))?;
                    output.reject(record, fault);
                }
                Err(fault) => remaining.extend(batch.halves(fault.code, self.plugin.limits().transform_ms_max)),
            }
        }
        self.log_faults(chunk, &output);
        debug_assert!(output.counts.conserved());
        Ok(output)
    }

    /// Counts each event that faulted alone once.
    fn record_fault(&mut self, record: u32, faulted: &mut BTreeSet<u32>) {
        if faulted.insert(record) {
            self.breaker.record_fault();
        }
    }

    /// If the plugin failed on many consecutive events, probes it with others. `fault` is the last of these faults.
    ///
    /// # Errors
    ///
    /// [`TransformError::Tripped`] if it fails on all probes, too.
    fn probe_if_suspect(
        &mut self,
        chunk: &Chunk,
        remaining: &[Batch<'_>],
        faulted: &mut BTreeSet<u32>,
        fault: Option<&Fault>,
    ) -> Result<(), TransformError> {
        if !self.breaker.is_suspect() {
            return Ok(());
        }
        let records = remaining.iter().rev().flat_map(|batch| batch.records).copied();
        let records: Vec<u32> = records.filter(|record| !faulted.contains(record)).collect();
        let ms_max = self.plugin.limits().transform_ms_max;
        // The first probe may take all the time that the limits allow, so that a slow plugin does not look broken.
        let (mut ms, mut last) = (ms_max, fault.cloned());
        for probe in self.breaker.probes(records.len()) {
            let fault = match self.lane.call(chunk, &Batch { records: &[records[probe]], ms, number: None })? {
                Ok(answer) if answer.has_called => {
                    self.breaker.record_success();
                    return Ok(());
                }
                Ok(_) => continue,
                Err(fault) => fault,
            };
            self.record_fault(records[probe], faulted);
            if fault.code == Code::Timeout {
                ms = ms_min(ms_max);
            }
            last = Some(fault);
        }
        match last {
            Some(fault) if self.breaker.is_tripped() => {
                Err(Tripped { fault, events: self.breaker.consecutive_faults() }.into())
            }
            _ => Ok(()),
        }
    }

    fn log_faults(&self, chunk: &Chunk, output: &TransformOutput) {
        let logs = self.plugin.logs();
        for Rejected { record, code, reason } in output.rejected.iter().filter(|reject| reject.code.is_fault()) {
            let (partition, offset) = (chunk.partitions()[*record as usize], chunk.offsets()[*record as usize]);
            let code = code.as_str();
            logs.log(
                Level::Warn,
                &format!("the plugin failed on partition {partition}, offset {offset}: {code}: {reason}"),
            );
        }
        logs.report_suppressed();
    }

    /// Splits the records into batches within the limits.
    fn batches<'r>(&self, chunk: &Chunk, records: &'r [u32]) -> Vec<Batch<'r>> {
        let (limits, values) = (self.plugin.limits(), chunk.values());
        let (mut batches, mut start, mut bytes) = (Vec::new(), 0, 0);
        for (at, record) in records.iter().enumerate() {
            let size = values.value_length(*record as usize) as usize;
            let is_full = at - start >= limits.batch_rows_max || bytes + size > limits.batch_bytes_max;
            if is_full && at > start {
                batches.push(&records[start..at]);
                (start, bytes) = (at, 0);
            }
            bytes += size;
        }
        if start < records.len() {
            batches.push(&records[start..]);
        }
        let ms = limits.transform_ms_max;
        batches.into_iter().enumerate().map(|(at, records)| Batch { records, ms, number: Some(at) }).collect()
    }
}

fn add(output: &mut TransformOutput, answer: Answer) {
    output.rows.extend(answer.rows);
    output.rejected.extend(answer.rejected);
    output.counts += answer.counts;
    output.decode += answer.decode;
    output.lift += answer.lift;
    output.other_threads += answer.elsewhere;
}

/// The least time for a part of a batch that took too long.
fn ms_min(ms_max: u64) -> u64 {
    (ms_max / 20).max(100).min(ms_max)
}

impl<'r> Batch<'r> {
    /// The two halves; the second one of the result is the first half of the records. If the batch took too long, each
    /// half gets its share of the time, so that an event that never ends costs about twice the limit, and not the limit
    /// for each halving:
    ///
    /// | of `transform_time_max = "10s"` | 4,096 events | 2,048 | 1,024 | 512 | 256 | 128 … 1 | in total |
    /// |---|---|---|---|---|---|---|---|
    /// | ms | 10,000 | 5,000 | 2,500 | 1,250 | 625 | 500 each | 23,375 |
    fn halves(&self, code: Code, ms_max: u64) -> [Self; 2] {
        let (first, second) = self.records.split_at(self.records.len() / 2);
        let half = |records: &'r [u32]| {
            let share = self.ms * records.len() as u64 / self.records.len() as u64;
            let ms = if code == Code::Timeout { share.max(ms_min(ms_max)).min(self.ms) } else { self.ms };
            Self { records, ms, number: None }
        };
        [half(second), half(first)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endless_event_costs_about_twice_the_limit() {
        let spent = |ms_max, events: usize| {
            let records: Vec<u32> = (0..events as u32).collect();
            let (mut batch, mut spent) = (Batch { records: &records, ms: ms_max, number: None }, vec![ms_max]);
            while batch.records.len() > 1 {
                let [_, first] = batch.halves(Code::Timeout, ms_max);
                batch = first;
                spent.push(batch.ms);
            }
            spent
        };
        let of_full_batch = spent(10_000, 4_096);
        assert_eq!(of_full_batch[..6], [10_000, 5_000, 2_500, 1_250, 625, 500]);
        assert_eq!(of_full_batch.iter().sum::<u64>(), 23_375);
        assert_eq!(spent(300, 8), [300, 150, 100, 100]);
        assert_eq!(spent(50, 4), [50, 50, 50]);
        assert_eq!(spent(600_000, 2), [600_000, 300_000]);
    }

    #[test]
    fn halves_keep_the_time_after_other_faults() {
        let batch = Batch { records: &[1, 2, 3], ms: 700, number: None };
        let halves = batch.halves(Code::Trap, 1_000).map(|half| (half.records.to_vec(), half.ms));
        assert_eq!(halves, [(vec![2, 3], 700), (vec![1], 700)]);
    }
}
