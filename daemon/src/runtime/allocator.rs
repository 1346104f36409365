//! The memory allocator: when it asks the kernel for memory, when it returns it, and what happens where there is none.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
static INNER: mimalloc::MiMalloc = mimalloc::MiMalloc;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
static INNER: std::alloc::System = std::alloc::System;

/// The exit code of a process that has no more memory; 0: it aborts.
static EXIT_CODE: AtomicU8 = AtomicU8::new(0);

/// The allocator of silverd's programs.
pub struct Allocator;

/// Lets this process exit with a code when it has no more memory.
pub(crate) fn exit_when_out_of_memory(code: u8) {
    EXIT_CODE.store(code, Relaxed);
}

// SAFETY: every call is passed on to another allocator; its answer is only looked at.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        unsafe { found(INNER.alloc(layout)) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        unsafe { found(INNER.alloc_zeroed(layout)) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        unsafe { found(INNER.realloc(pointer, layout, size)) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { INNER.dealloc(pointer, layout) }
    }
}

fn found(pointer: *mut u8) -> *mut u8 {
    if pointer.is_null() {
        let code = EXIT_CODE.load(Relaxed);
        if code != 0 {
            // SAFETY: ends the process, and needs no memory.
            unsafe { libc::_exit(i32::from(code)) }
        }
    }
    pointer
}

/// Arenas of the allocator. By default each thread may get one, and an arena keeps the memory that it needed once.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const ARENAS_MAX: libc::c_int = 4;

/// Configures the allocator. Call it before any thread is started.
///
/// silverd uses glibc's allocator where there is one: a drain took less time with it than with mimalloc and a third
/// less memory, and a load of 100 events a second took half the memory. Huge pages are off: they occupy more memory
/// than is used, and zeroing them takes more time than they save.
pub fn configure() {
    // SAFETY: the calls take only numbers. A system that does not know an option ignores it.
    unsafe {
        #[cfg(target_os = "linux")]
        libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0);
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        libc::mallopt(libc::M_ARENA_MAX, ARENAS_MAX);
    }
}

/// For a low load: free memory returns to the kernel at once, and large blocks are never placed between small ones.
/// Also returns what a higher load needed, which takes some milliseconds.
pub fn use_idle_profile() {
    // SAFETY: the calls take only numbers; the allocator locks what it reads.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 20);
        libc::malloc_trim(0);
    }
}

/// For a backlog: free memory is used again in a moment, and new pages from the kernel cost a tenth of the time.
/// Thresholds four times as large make a drain 2 % faster and take a fifth more memory.
pub fn use_bulk_profile() {
    // SAFETY: the calls take only numbers.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 8 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 16 << 20);
    }
}
