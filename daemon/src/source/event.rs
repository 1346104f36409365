//! What a source gives to the pipeline.

use silverd_core::chunk::Chunk;

pub(crate) enum SourceEvent {
    Chunk(ReadChunk),
    /// All records that were in the topic at the start of the source have been handed over.
    Drained,
    /// The consumer failed; a new source may succeed.
    Failed(anyhow::Error),
}

/// A chunk that was read from Kafka.
pub(crate) struct ReadChunk {
    pub(crate) chunk: Chunk,
    /// The chunk has the maximal number of rows or bytes, so Kafka probably has more records ready.
    pub(crate) full: bool,
}
