//! The simulated consumer: what the poll loop does, with the group and the topic of the simulation. Where a partition starts
//! is decided by production code, from Bronze's log.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anyhow::anyhow;
use async_trait::async_trait;
use silverd_core::chunk::{ChunkBuilder, Record, TimestampType};
use silverd_core::offsets::Ranges;

use super::daemon::Surroundings;
use super::group::MemberId;
use super::topic::{PARTITIONS, log};
use crate::runtime::clock;
use crate::source::{ReadChunk, Source, SourceEvent, SourceOptions, start_offset};

const ROWS_MAX: usize = 40;

pub(super) struct SimulatedSource {
    options: SourceOptions,
    surroundings: Arc<Surroundings>,
    member: MemberId,
    generation: u64,
    /// The next offset of each partition that is read.
    positions: BTreeMap<i32, i64>,
    chunk: ChunkBuilder,
    stop: AtomicBool,
    ended: bool,
}

impl SimulatedSource {
    pub(super) fn start(options: SourceOptions, surroundings: Arc<Surroundings>) -> Self {
        let member = surroundings.world.group.join();
        Self {
            options,
            surroundings,
            member,
            generation: 0,
            positions: BTreeMap::new(),
            chunk: ChunkBuilder::default(),
            stop: AtomicBool::new(false),
            ended: false,
        }
    }

    fn take_chunk(&mut self, full: bool) -> Option<SourceEvent> {
        if self.chunk.is_empty() {
            return None;
        }
        let chunk = self.chunk.finish(clock::now_micros());
        Some(SourceEvent::Chunk(ReadChunk { chunk, full }))
    }

    /// Follows the group. Gives the current chunk if partitions of it are taken away.
    async fn follow(&mut self) -> anyhow::Result<Option<SourceEvent>> {
        let world = self.surroundings.world.clone();
        let Some(assignment) = world.group.heartbeat(self.member) else {
            self.positions.clear();
            self.generation = 0;
            self.member = world.group.join();
            return Ok(self.take_chunk(false));
        };
        if assignment.generation == self.generation {
            return Ok(None);
        }
        let read: BTreeSet<i32> = self.positions.keys().copied().collect();
        if !read.is_subset(&assignment.partitions) {
            self.positions.retain(|partition, _| assignment.partitions.contains(partition));
            if let Some(chunk) = self.take_chunk(false) {
                return Ok(Some(chunk));
            }
        }
        let resume = self.options.resume.clone();
        let committed = tokio::task::spawn_blocking(move || resume()).await??.offsets;
        for partition in &assignment.partitions {
            if !self.positions.contains_key(partition) {
                let high = world.topic.end(*partition);
                let next = committed.get(&log(*partition)).copied();
                self.positions.insert(*partition, start_offset(next, 0, high, &self.options.config)?);
            }
        }
        self.generation = assignment.generation;
        Ok(None)
    }

    /// Takes what the topic has. True if the chunk is full.
    fn poll(&mut self) -> bool {
        for (partition, next) in &mut self.positions {
            let room = ROWS_MAX.saturating_sub(self.chunk.rows()) as i64;
            let end = self.surroundings.world.topic.end(*partition).min(*next + room);
            let index = self.chunk.log(&log(*partition));
            for event in self.surroundings.world.topic.events(*partition, *next, end) {
                let headers = std::iter::empty::<(Cow<'_, str>, Option<&[u8]>)>();
                let timestamp = Some((clock::now_ms(), TimestampType::CreateTime));
                let (key, value) = (None, Some(&event.value[..]));
                self.chunk.push(index, *next, Record { offset: *next, timestamp, key, value, headers });
                *next += 1;
            }
        }
        self.chunk.rows() >= ROWS_MAX
    }
}

#[async_trait]
impl Source for SimulatedSource {
    async fn next(&mut self) -> Option<SourceEvent> {
        loop {
            if self.ended {
                return None;
            }
            if self.is_stopping() {
                self.ended = true;
                self.surroundings.world.group.leave(self.member);
                return self.take_chunk(false);
            }
            match self.follow().await {
                Ok(None) => {}
                Ok(chunk) => return chunk,
                Err(failure) => return Some(SourceEvent::Failed(failure)),
            }
            if self.surroundings.breaks_connection() {
                return Some(SourceEvent::Failed(anyhow!("simulated: the connection is broken")));
            }
            let full = self.poll();
            if full || (!self.chunk.is_empty() && self.surroundings.is_due()) {
                return self.take_chunk(full);
            }
            self.surroundings.wait().await;
        }
    }

    fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    fn is_stopping(&self) -> bool {
        self.stop.load(Relaxed)
    }

    fn committed(&self, ranges: &Ranges) {
        debug_assert!(ranges.iter().all(|(log, _)| log.partition < PARTITIONS));
    }
}

impl Drop for SimulatedSource {
    /// A daemon that is killed does not say so.
    fn drop(&mut self) {
        if !self.surroundings.is_dead() {
            self.surroundings.world.group.leave(self.member);
        }
    }
}
