//! What a process for SQL may use.

use anyhow::Context;

use crate::runtime::allocator;

/// Ingestion comes first; a query still gets a tenth of a busy core.
const NICENESS: i32 = 10;
/// Stacks of threads, which count as data of the process.
const STACK_BYTES: usize = 64 << 20;
/// The exit code of a process that reached its memory limit.
pub(crate) const OUT_OF_MEMORY: u8 = 111;

/// Limits this process: beyond `memory_bytes_max` in addition to what it has now, it ends with [`OUT_OF_MEMORY`]. It may yield to
/// ingestion. Call it
/// before any thread is started, so that the low priority applies to all of them.
pub(crate) fn limit_this_process(memory_bytes_max: usize, yields: bool) -> anyhow::Result<()> {
    allocator::exit_when_out_of_memory(OUT_OF_MEMORY);
    let bytes = data_bytes()? + memory_bytes_max + STACK_BYTES;
    let limit = libc::rlimit { rlim_cur: bytes as libc::rlim_t, rlim_max: bytes as libc::rlim_t };
    let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the calls take numbers, and pointers to local structs.
    let limited = unsafe {
        if yields {
            libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS);
        }
        libc::setrlimit(libc::RLIMIT_CORE, &no_core);
        libc::setrlimit(libc::RLIMIT_DATA, &limit)
    };
    if limited != 0 {
        return Err(std::io::Error::last_os_error()).context("limit the memory of the process for SQL");
    }
    Ok(())
}

/// The memory of this process that `RLIMIT_DATA` counts.
#[cfg(target_os = "linux")]
fn data_bytes() -> anyhow::Result<usize> {
    let status = std::fs::read_to_string("/proc/self/status").context("read /proc/self/status")?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmData:")?.trim().strip_suffix(" kB"));
    let kilobytes = kilobytes.and_then(|text| text.trim().parse::<usize>().ok());
    kilobytes.map(|kilobytes| kilobytes << 10).context("/proc/self/status has no VmData")
}

#[cfg(not(target_os = "linux"))]
fn data_bytes() -> anyhow::Result<usize> {
    Ok(1 << 30)
}
