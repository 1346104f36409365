//! What the process asks of the kernel for its memory, and gives back.

/// Arenas of the allocator. By default each thread may get its own, and keeps what it needed once.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const ARENAS_MAX: libc::c_int = 4;

/// Settles how memory is come by; before any thread is there.
///
/// glibc's allocator it is, where there is one: in a drain it took less time than mimalloc and a third less memory, and at
/// 100 events a second half. Pages are of the ordinary size: huge ones hold more than is used, and zeroing them takes more
/// time than they save.
pub fn settle() {
    // SAFETY: the calls take numbers alone. What does not know them refuses, and nothing is lost.
    unsafe {
        #[cfg(target_os = "linux")]
        libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0);
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        libc::mallopt(libc::M_ARENA_MAX, ARENAS_MAX);
    }
}

/// Gives back what a rush needed and nothing needs any more. Takes some milliseconds.
pub fn give_back() {
    // SAFETY: takes a number; the allocator locks what it looks at.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::malloc_trim(0);
    }
}
