//! Which profile the allocator uses: one that gives memory back while little arrives, one for speed while a backlog is read.

use crate::runtime::allocator;

/// Switches the allocator's profile by how full the chunks are.
pub(super) struct MemoryProfile {
    bulk: bool,
}

impl MemoryProfile {
    /// Starts with the idle profile.
    pub(super) fn new() -> Self {
        allocator::use_idle_profile();
        Self { bulk: false }
    }

    /// Takes note of the next chunk, and says whether it belongs to a backlog: it is full, or the one before was.
    ///
    /// | before | the chunk is full | the profile | backlog |
    /// |---|---|---|---|
    /// | idle | no | idle | no |
    /// | idle | yes | bulk | yes |
    /// | bulk | yes | bulk | yes |
    /// | bulk | no | idle | yes |
    pub(super) fn next_chunk(&mut self, full: bool) -> bool {
        let backlog = full || self.bulk;
        match (self.bulk, full) {
            (false, true) => allocator::use_bulk_profile(),
            (true, false) => drop(tokio::task::spawn_blocking(allocator::use_idle_profile)),
            (true, true) | (false, false) => {}
        }
        self.bulk = full;
        backlog
    }
}
