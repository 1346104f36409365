//! What a plugin is given: raw records, or events that the host has decoded. The latter are written into the guest's
//! memory: the events, and each string and list in them. A guest gives room for each of these by a call of its
//! `cabi_realloc`, as the canonical ABI says. A call costs more than the string, so a guest whose allocator can free parts
//! of a block (that of the SDK, `plugins/sdk/src/allocator.rs`) gives one block for all of them.
//!
//! wasmtime's own lowering goes value by value. This one copies what [`silverd_core::input`] has laid out already;
//! `tests/it/lower` compares both.

use std::mem::MaybeUninit;

use parking_lot::Mutex;
use silverd_core::chunk::Chunk;
use silverd_core::input::{EventType, Image, Layout, Records};
use wasmtime::component::__internal::{CanonicalAbiInfo, InstanceType, InterfaceType, LowerContext};
use wasmtime::component::{ComponentType, Lower};
use wasmtime::{Result, ValRaw, bail, ensure};

/// The events of one call.
pub enum Events<'a> {
    /// The records of the chunk with these indexes.
    Raw { chunk: &'a Chunk, rows: &'a [u32] },
    /// Events of this type, which the host has decoded: those of the records with these indexes.
    Typed { records: &'a Records<'a>, rows: &'a [u32], ty: &'a EventType, image: &'a mut Image },
}

/// Decoded events, as the contract's `list<event>`.
pub struct TypedEvents<'a> {
    records: &'a Records<'a>,
    layout: Layout,
    rooms: Rooms,
    /// Lowering sets the addresses in it. wasmtime asks for values that threads may share.
    image: Mutex<&'a mut Image>,
}

impl<'a> TypedEvents<'a> {
    /// The events of an image, which are of this type.
    pub fn new(records: &'a Records<'a>, ty: &EventType, rooms: Rooms, image: &'a mut Image) -> Self {
        Self { records, layout: ty.layout, rooms, image: Mutex::new(image) }
    }

    /// Writes the events, and returns where they are and how many.
    fn write<T>(&self, cx: &mut LowerContext<'_, T>, ty: InterfaceType) -> Result<(u32, u32)> {
        let InterfaceType::List(list) = ty else { bail!("expected a list of records") };
        let abi = cx.types.canonical_abi(&cx.types[list].element);
        let Layout { size, align } = self.layout;
        ensure!((abi.size32, abi.align32) == (size, align), "the events have another layout than silverd expects");
        let image = &mut **self.image.lock();
        let count = image.len() as u32;
        let mut room = match self.rooms {
            Rooms::Each => Room::Each,
            Rooms::OneBlock => Room::block(cx, image, align)?,
        };
        let events = room.take(cx, image.events().len(), align)?;
        let mut addresses = Vec::with_capacity(image.blocks().len());
        for at in 0..image.blocks().len() {
            let block = image.blocks()[at];
            let address = room.take(cx, block.len as usize, block.align)?;
            image.set_pointer(&block, address as u32);
            addresses.push(address);
        }
        // From here on the guest does not run, so its memory stays where it is.
        let memory = cx.as_slice_mut();
        memory[events..events + image.events().len()].copy_from_slice(image.events());
        for (block, address) in image.blocks().iter().zip(addresses) {
            let content = image.content(self.records, block);
            memory[address..address + content.len()].copy_from_slice(content);
        }
        Ok((events as u32, count))
    }
}

/// How a guest gives room for the strings and lists of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rooms {
    /// For each, by a call.
    Each,
    /// For all of them, in one block.
    OneBlock,
}

/// The alignment by which the SDK's allocator knows the request for a block, and what it keeps at its start.
const BLOCK_ALIGN: u32 = 1 << 16;
const HEAD_BYTES: usize = 16;

/// Where the next string or list goes. wasmtime checks that the guest's answers are aligned, and inside of its memory.
enum Room {
    Each,
    /// The rest of a block.
    Block {
        at: usize,
    },
}

impl Room {
    /// A block for all that is in an image, with the number of parts that the guest will free.
    fn block<T>(cx: &mut LowerContext<'_, T>, image: &Image, align: u32) -> Result<Self> {
        let lens = || {
            let events = (image.events().len(), align);
            std::iter::once(events).chain(image.blocks().iter().map(|block| (block.len as usize, block.align)))
        };
        // Parts are not empty, and begin at the next aligned address.
        let end = lens().fold(HEAD_BYTES, |end, (len, align)| end.next_multiple_of(align as usize) + len);
        let parts = lens().filter(|(len, _)| *len > 0).count() as u32;
        if parts == 0 {
            return Ok(Self::Each);
        }
        let start = cx.realloc(0, 0, BLOCK_ALIGN, end)?;
        *cx.get(start) = parts.to_le_bytes();
        Ok(Self::Block { at: start + HEAD_BYTES })
    }

    /// Nothing takes no room, and any aligned address but null.
    #[inline]
    fn take<T>(&mut self, cx: &mut LowerContext<'_, T>, bytes: usize, align: u32) -> Result<usize> {
        match self {
            _ if bytes == 0 => Ok(align as usize),
            Self::Each => cx.realloc(0, 0, align, bytes),
            Self::Block { at } => {
                let start = at.next_multiple_of(align as usize);
                *at = start + bytes;
                Ok(start)
            }
        }
    }
}

// SAFETY: a list is lowered as a pointer and a length, and `typecheck` lets only lists of records pass.
unsafe impl ComponentType for TypedEvents<'_> {
    type Lower = [ValRaw; 2];
    const ABI: CanonicalAbiInfo = CanonicalAbiInfo::POINTER_PAIR;

    fn typecheck(ty: &InterfaceType, types: &InstanceType<'_>) -> Result<()> {
        match ty {
            InterfaceType::List(list) if matches!(types.types[*list].element, InterfaceType::Record(_)) => Ok(()),
            _ => bail!("expected a list of records"),
        }
    }
}

// SAFETY: both forms write the whole pair that `Lower` and `ABI` declare.
unsafe impl Lower for TypedEvents<'_> {
    fn linear_lower_to_flat<T>(
        &self,
        cx: &mut LowerContext<'_, T>,
        ty: InterfaceType,
        pair: &mut MaybeUninit<[ValRaw; 2]>,
    ) -> Result<()> {
        let (start, count) = self.write(cx, ty)?;
        pair.write([ValRaw::i64(i64::from(start)), ValRaw::i64(i64::from(count))]);
        Ok(())
    }

    fn linear_lower_to_memory<T>(&self, cx: &mut LowerContext<'_, T>, ty: InterfaceType, at: usize) -> Result<()> {
        let (start, count) = self.write(cx, ty)?;
        *cx.get(at) = start.to_le_bytes();
        *cx.get(at + 4) = count.to_le_bytes();
        Ok(())
    }
}
