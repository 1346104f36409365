//! The allocator of a plugin. silverd writes all events of a batch, with their strings and lists, into one block of
//! memory, where the component model's usual way would be one call into WebAssembly for each string. To Rust the parts of
//! that block look like any others, and are freed one by one; the allocator counts them, and frees the block with its last
//! part. So a plugin may keep a string of its input, at the price of the whole block.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// A page of WebAssembly's memory. Nobody else asks for this alignment: it marks the request for a block.
const BLOCK_ALIGN: usize = 1 << 16;

/// Where the first part of a block is.
const HEAD_BYTES: usize = 16;

/// How many parts of the block are not freed yet: silverd writes it at the start of the block.
type PartsLeft = u32;

const _: () = assert!(size_of::<Block>() <= HEAD_BYTES);

/// The allocator, which [`export!`](crate::export) installs: the system's, and silverd's blocks.
pub struct Allocator {
    /// The newest block; each has the address of the one before it behind its count.
    newest: Cell<*mut Block>,
    /// The addresses between which all blocks are.
    lowest: Cell<usize>,
    end: Cell<usize>,
}

/// What stands at the start of a block, before its first part. silverd writes the count, and `add` the rest.
#[repr(C)]
struct Block {
    left: PartsLeft,
    size: u32,
    older: *mut Block,
}

// SAFETY: a component instance has one thread.
unsafe impl Sync for Allocator {}

impl Allocator {
    /// Without blocks.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self { newest: Cell::new(std::ptr::null_mut()), lowest: Cell::new(usize::MAX), end: Cell::new(0) }
    }

    #[inline]
    fn may_be_in_block(&self, at: *mut u8) -> bool {
        (self.lowest.get()..self.end.get()).contains(&(at as usize))
    }

    fn add(&self, block: *mut u8, size: usize) {
        let newest = self.newest.replace(block.cast());
        // SAFETY: the block was allocated with this size, which has room for the head, and is aligned.
        unsafe { block.cast::<Block>().write(Block { left: 0, size: size as u32, older: newest }) };
        self.widen(block as usize, size);
    }

    fn widen(&self, start: usize, size: usize) {
        self.lowest.set(self.lowest.get().min(start));
        self.end.set(self.end.get().max(start + size));
    }

    /// Counts a part as freed, if it is one; the last one frees the block.
    #[cold]
    #[inline(never)]
    fn release(&self, at: *mut u8) -> bool {
        let (mut newer, mut block): (*mut Block, _) = (std::ptr::null_mut(), self.newest.get());
        while !block.is_null() {
            // SAFETY: the list has blocks that are not freed, and nothing else refers to their heads.
            let head = unsafe { &mut *block };
            if (block as usize..block as usize + head.size as usize).contains(&(at as usize)) {
                head.left = head.left.wrapping_sub(1);
                if head.left == 0 {
                    let (older, size) = (head.older, head.size as usize);
                    if newer.is_null() {
                        self.newest.set(older);
                    } else {
                        // SAFETY: as above.
                        unsafe { (*newer).older = older };
                    }
                    // SAFETY: `add` got the block for this layout.
                    unsafe { System.dealloc(block.cast(), Layout::from_size_align_unchecked(size, BLOCK_ALIGN)) };
                    self.measure();
                }
                return true;
            }
            (newer, block) = (block, head.older);
        }
        false
    }

    /// The bounds of the blocks that are left.
    fn measure(&self) {
        self.lowest.set(usize::MAX);
        self.end.set(0);
        let mut block = self.newest.get();
        while !block.is_null() {
            // SAFETY: as in `release`.
            let head = unsafe { &*block };
            self.widen(block as usize, head.size as usize);
            block = head.older;
        }
    }
}

// SAFETY: memory comes from `System`; a part of a block is valid until the block is freed, which is after its last part.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        let at = unsafe { System.alloc(layout) };
        if layout.align() == BLOCK_ALIGN && !at.is_null() && layout.size() >= HEAD_BYTES {
            self.add(at, layout.size());
        }
        at
    }

    #[inline]
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if self.may_be_in_block(at) && self.release(at) {
            return;
        }
        // SAFETY: it is not a part of a block, so it is the system's.
        unsafe { System.dealloc(at, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !self.may_be_in_block(at) {
            // SAFETY: as in `dealloc`.
            return unsafe { System.realloc(at, layout, size) };
        }
        // SAFETY: the new place has the size; both have the bytes that are copied.
        unsafe {
            let moved = System.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !moved.is_null() {
                std::ptr::copy_nonoverlapping(at, moved, layout.size().min(size));
                self.dealloc(at, layout);
            }
            moved
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block with parts of these sizes, as silverd fills one.
    fn block(allocator: &Allocator, sizes: &[usize]) -> Vec<*mut u8> {
        let size = HEAD_BYTES + sizes.iter().sum::<usize>();
        unsafe {
            let start = allocator.alloc(Layout::from_size_align(size, BLOCK_ALIGN).unwrap());
            start.cast::<u32>().write(sizes.len() as u32);
            let mut at = start.add(HEAD_BYTES);
            let part = |size: &usize| {
                let part = at;
                at = at.add(*size);
                part
            };
            sizes.iter().map(part).collect()
        }
    }

    fn blocks(allocator: &Allocator) -> usize {
        let (mut count, mut block) = (0, allocator.newest.get());
        while !block.is_null() {
            count += 1;
            block = unsafe { (*block).older };
        }
        count
    }

    #[test]
    fn a_block_is_freed_with_its_last_part() {
        let allocator = Allocator::new();
        let text = |size| Layout::from_size_align(size, 1).unwrap();
        let (first, second) = (block(&allocator, &[3, 5, 7]), block(&allocator, &[11, 13]));
        assert_eq!(blocks(&allocator), 2);
        unsafe {
            let other = allocator.alloc(text(100));
            allocator.dealloc(first[2], text(7));
            allocator.dealloc(second[0], text(11));
            allocator.dealloc(first[0], text(3));
            assert_eq!(blocks(&allocator), 2);
            allocator.dealloc(first[1], text(5));
            assert_eq!(blocks(&allocator), 1);
            allocator.dealloc(other, text(100));
            allocator.dealloc(second[1], text(13));
        }
        assert_eq!((blocks(&allocator), allocator.lowest.get(), allocator.end.get()), (0, usize::MAX, 0));
    }

    #[test]
    fn a_part_can_grow_out_of_its_block() {
        let allocator = Allocator::new();
        let text = |size| Layout::from_size_align(size, 1).unwrap();
        let parts = block(&allocator, &[3, 5]);
        unsafe {
            parts[0].copy_from(b"abc".as_ptr(), 3);
            let moved = allocator.realloc(parts[0], text(3), 100);
            assert_eq!(std::slice::from_raw_parts(moved, 3), b"abc");
            let moved = allocator.realloc(moved, text(100), 200);
            assert_eq!(std::slice::from_raw_parts(moved, 3), b"abc");
            allocator.dealloc(moved, text(200));
            assert_eq!(blocks(&allocator), 1);
            allocator.dealloc(parts[1], text(5));
        }
        assert_eq!(blocks(&allocator), 0);
    }
}
