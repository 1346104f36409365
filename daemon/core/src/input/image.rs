//! Events in the form that they have in a guest's memory, except for the addresses of their strings and lists: those are
//! known when the guest has given room for each.

use super::Layout;
use super::records::Records;

/// Decoded events.
#[derive(Debug, Default)]
pub struct Image {
    /// The items of `list<event>`.
    events: Vec<u8>,
    /// The items of the lists in the events, and texts that differ from those in the chunk: their escapes are resolved.
    nested: Vec<u8>,
    blocks: Vec<Block>,
    count: usize,
}

/// A string or a list: bytes for which the guest gives room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Where the pointer to it is: in the events or in the nested bytes.
    pub holder: Region,
    pub pointer: u32,
    /// Its bytes.
    pub region: Region,
    pub start: u32,
    pub len: u32,
    pub align: u32,
}

/// What the bytes of a block are a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    Events,
    Nested,
    /// The buffers of the chunk.
    Values,
    Keys,
    Topics,
    HeaderNames,
    HeaderValues,
}

/// The state to which an image returns if an event is rejected.
pub(super) struct Mark {
    events: usize,
    nested: usize,
    blocks: usize,
}

impl Image {
    pub fn clear(&mut self) {
        self.events.clear();
        self.nested.clear();
        self.blocks.clear();
        self.count = 0;
    }

    /// The number of events.
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn events(&self) -> &[u8] {
        &self.events
    }

    pub fn nested(&self) -> &[u8] {
        &self.nested
    }

    /// The bytes of the events and the lists in them, without the texts that stay in the chunk.
    pub fn bytes(&self) -> usize {
        self.events.len() + self.nested.len()
    }

    /// A block comes after the one that holds its pointer.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The bytes of a block of this image, whose events are of these records.
    #[inline]
    pub fn content<'i>(&'i self, records: &Records<'i>, block: &Block) -> &'i [u8] {
        let region = match block.region {
            Region::Events => self.events(),
            Region::Nested => self.nested(),
            region => records.buffer(region),
        };
        &region[block.start as usize..][..block.len as usize]
    }

    /// Sets the address of a block.
    #[inline]
    pub fn set_pointer(&mut self, block: &Block, address: u32) {
        self.write(block.holder, block.pointer, &address.to_le_bytes());
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { events: self.events.len(), nested: self.nested.len(), blocks: self.blocks.len() }
    }

    pub(super) fn undo(&mut self, mark: &Mark) {
        self.events.truncate(mark.events);
        self.nested.truncate(mark.nested);
        self.blocks.truncate(mark.blocks);
    }

    /// Room for one more event, all zeros: where it starts.
    pub(super) fn push_event(&mut self, layout: Layout) -> u32 {
        let start = self.events.len();
        self.events.resize(start + layout.size as usize, 0);
        start as u32
    }

    pub(super) fn finish_event(&mut self) {
        self.count += 1;
    }

    /// Room for the items of a list, all zeros: where they start.
    pub(super) fn push_items(&mut self, bytes: usize) -> u32 {
        let start = self.nested.len();
        self.nested.resize(start + bytes, 0);
        start as u32
    }

    pub(super) fn nested_mut(&mut self) -> &mut Vec<u8> {
        &mut self.nested
    }

    #[inline]
    pub(super) fn write(&mut self, holder: Region, at: u32, bytes: &[u8]) {
        let region = if holder == Region::Events { &mut self.events } else { &mut self.nested };
        region[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    }

    /// A string or list at a slot: a pair of an address, which is not known yet, and a length.
    #[inline]
    pub(super) fn push_block(&mut self, block: Block, items: u32) {
        self.write(block.holder, block.pointer + 4, &items.to_le_bytes());
        self.blocks.push(block);
    }
}
