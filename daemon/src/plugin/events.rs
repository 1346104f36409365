//! What a plugin is given: raw records, or events that the host has decoded. The latter are written into the guest's
//! memory as one block for all events, and one for each string and list in them.
//!
//! wasmtime's own lowering goes value by value. This one copies what [`silverd_core::input`] has laid out already;
//! `tests/it/lower` compares both.

use std::mem::MaybeUninit;

use parking_lot::Mutex;
use silverd_core::chunk::Chunk;
use silverd_core::input::{EventType, Image, Layout, Records, Region};
use wasmtime::component::__internal::{CanonicalAbiInfo, InstanceType, InterfaceType, LowerContext};
use wasmtime::component::{ComponentType, Lower};
use wasmtime::{Result, ValRaw, bail, ensure};

/// The events of one call.
pub enum Events<'a> {
    /// The records of the chunk with these indexes.
    Raw { chunk: &'a Chunk, rows: &'a [u32] },
    /// Events of this type, which the host has decoded.
    Typed { records: &'a Records<'a>, ty: &'a EventType, image: &'a mut Image },
}

/// Decoded events, as the contract's `list<event>`.
pub struct TypedEvents<'a> {
    records: &'a Records<'a>,
    layout: Layout,
    /// Lowering sets the addresses in it. wasmtime asks for values that threads may share.
    image: Mutex<&'a mut Image>,
}

impl<'a> TypedEvents<'a> {
    /// The events of an image, which are of this type.
    pub fn new(records: &'a Records<'a>, ty: &EventType, image: &'a mut Image) -> Self {
        Self { records, layout: ty.layout, image: Mutex::new(image) }
    }

    /// Writes the events, and returns where they are and how many.
    fn write<T>(&self, cx: &mut LowerContext<'_, T>, ty: InterfaceType) -> Result<(u32, u32)> {
        let InterfaceType::List(list) = ty else { bail!("expected a list of records") };
        let abi = cx.types.canonical_abi(&cx.types[list].element);
        let Layout { size, align } = self.layout;
        ensure!((abi.size32, abi.align32) == (size, align), "the events have another layout than silverd expects");
        let image = &mut **self.image.lock();
        let count = image.len() as u32;
        let events = room(cx, image.events().len(), align)?;
        let mut addresses = Vec::with_capacity(image.blocks().len());
        for at in 0..image.blocks().len() {
            let block = image.blocks()[at];
            let address = room(cx, block.len as usize, block.align)?;
            image.set_pointer(&block, address as u32);
            addresses.push(address);
        }
        // From here on the guest does not run, so its memory stays where it is.
        let memory = cx.as_slice_mut();
        memory[events..events + image.events().len()].copy_from_slice(image.events());
        let values = self.records.buffer(Region::Values);
        for (block, address) in image.blocks().iter().zip(addresses) {
            let from = match block.region {
                Region::Values => values,
                Region::Nested => image.nested(),
                Region::Events => image.events(),
                other => self.records.buffer(other),
            };
            let (start, len) = (block.start as usize, block.len as usize);
            memory[address..address + len].copy_from_slice(&from[start..start + len]);
        }
        Ok((events as u32, count))
    }
}

/// Asks the guest for room. wasmtime checks that the answer is aligned, and inside of the guest's memory. Nothing takes
/// no room, and any aligned address but null.
#[inline]
fn room<T>(cx: &mut LowerContext<'_, T>, bytes: usize, align: u32) -> Result<usize> {
    if bytes == 0 { Ok(align as usize) } else { cx.realloc(0, 0, align, bytes) }
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
