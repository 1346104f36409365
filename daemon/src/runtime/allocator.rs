//! Configures the memory allocator: when it asks the kernel for memory, and when it returns it.

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
