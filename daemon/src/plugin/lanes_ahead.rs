//! Further instances of a plugin, for chunks of several batches: where cores are free, batches are transformed on several
//! threads. Their outcomes are taken in the order of the batches, so that the rows do not depend on it. After a fault the
//! plugin has one thread for some chunks: one that fails again and again takes no more than a core.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::{Builder, available_parallelism, scope};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use silverd_core::chunk::Chunk;
use tokio::runtime::Handle;
use tracing::debug;

use super::component::Plugin;
use super::lane::{Batch, Called, Lane};
use crate::runtime::background::be_nice;
use crate::telemetry::thread_cpu;

/// The threads of all tables that call plugins ahead.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// For so many chunks after a fault, one thread calls the plugin.
const CHUNKS_AFTER_FAULT: u32 = 32;

/// Cores that the poll thread, Bronze and the first instances keep busy. On two cores a second instance of page_view cost 6 %
/// more CPU time, and drained no more events.
const CORES_IN_USE: usize = 2;

/// The instances besides the first one.
pub(super) struct LanesAhead {
    plugin: Arc<Plugin>,
    schema: SchemaRef,
    lanes: Vec<Lane>,
    /// Chunks that one thread calls the plugin for.
    chunks_alone: u32,
    /// The number of other threads, whatever cores are free.
    pub(super) threads: Option<usize>,
}

/// What was called ahead.
#[derive(Default)]
pub(super) struct CalledAhead {
    /// By the number of the batch.
    called: Vec<Option<Called>>,
    /// The CPU time of the other threads.
    pub(super) other_threads: Duration,
}

impl CalledAhead {
    /// The outcome of a batch, if it was called.
    pub(super) fn take(&mut self, batch: &Batch<'_>) -> Option<Called> {
        self.called.get_mut(batch.number?)?.take()
    }
}

impl LanesAhead {
    pub(super) fn new(plugin: Arc<Plugin>, schema: SchemaRef) -> Self {
        Self { plugin, schema, lanes: Vec::new(), chunks_alone: 0, threads: None }
    }

    /// Calls the plugin for these batches, which have the numbers from 0 on, on this thread and on others. After a fault no
    /// further batch is begun.
    pub(super) fn call(&mut self, own: &mut Lane, chunk: &Chunk, batches: &[Batch<'_>]) -> CalledAhead {
        // Few events need no memory for many instances.
        self.lanes.truncate(batches.len().saturating_sub(1));
        if self.chunks_alone > 0 {
            self.chunks_alone -= 1;
            return CalledAhead::default();
        }
        let wanted = batches.len().saturating_sub(1);
        let threads = self.threads.map_or_else(|| Threads::free(wanted), |threads| Threads::take(threads.min(wanted)));
        if threads.0 == 0 {
            return CalledAhead::default();
        }
        let new = || Lane::new(self.plugin.clone(), self.schema.clone());
        self.lanes.resize_with(self.lanes.len().max(threads.0), new);
        let (next, has_failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let call_batches = |lane: &mut Lane| {
            let mut called = Vec::new();
            while !has_failed.load(Relaxed)
                && let at = next.fetch_add(1, Relaxed)
                && let Some(batch) = batches.get(at)
            {
                let outcome = lane.call(chunk, batch);
                if !matches!(outcome, Ok(Ok(_))) {
                    has_failed.store(true, Relaxed);
                }
                called.push((at, outcome));
            }
            called
        };
        let runtime = Handle::try_current().ok();
        let mut ahead = CalledAhead::default();
        ahead.called.resize_with(batches.len(), || None);
        let mut add = |called: Vec<(usize, Called)>| {
            for (at, outcome) in called {
                ahead.called[at] = Some(outcome);
            }
        };
        scope(|scope| {
            let mut started = Vec::with_capacity(threads.0);
            for lane in &mut self.lanes[..threads.0] {
                let work = || {
                    be_nice();
                    // A guest's WASI may wait.
                    let _runtime = runtime.as_ref().map(Handle::enter);
                    (call_batches(lane), thread_cpu())
                };
                match Builder::new().name("plugin".to_owned()).spawn_scoped(scope, work) {
                    Ok(thread) => started.push(thread),
                    Err(error) => debug!("start a thread: {error}; the batches are transformed on others"),
                }
            }
            add(call_batches(own));
            for thread in started {
                let (called, cpu) = thread.join().unwrap_or_else(|panic| resume_unwind(panic));
                add(called);
                ahead.other_threads += cpu;
            }
        });
        if has_failed.into_inner() {
            self.chunks_alone = CHUNKS_AFTER_FAULT;
            self.lanes.clear();
        }
        ahead
    }
}

/// A number of threads, which others do not start meanwhile.
struct Threads(usize);

impl Threads {
    /// As many as there are free cores, and no more than are wanted.
    fn free(wanted: usize) -> Self {
        let free = available_parallelism().map_or(0, |cores| usize::from(cores).saturating_sub(CORES_IN_USE));
        let more = |running: usize| running + wanted.min(free.saturating_sub(running));
        let before = RUNNING.fetch_update(Relaxed, Relaxed, |running| Some(more(running))).unwrap_or(0);
        Self(more(before) - before)
    }

    fn take(threads: usize) -> Self {
        RUNNING.fetch_add(threads, Relaxed);
        Self(threads)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        RUNNING.fetch_sub(self.0, Relaxed);
    }
}
