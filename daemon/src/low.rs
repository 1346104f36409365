//! Work that nothing waits for, on threads of low priority: the care for files, and checkpoints.

use std::io;
use std::sync::LazyLock;

use anyhow::anyhow;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::delta::OPENINGS_MAX;

static RUNTIME: LazyLock<io::Result<Runtime>> = LazyLock::new(|| {
    let mut runtime = Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).max_blocking_threads(OPENINGS_MAX).thread_name("low");
    runtime.on_thread_start(step_back).enable_all().build()
});

/// Where it goes. The threads are there from the first time on, until the process ends.
pub fn handle() -> anyhow::Result<Handle> {
    let runtime = RUNTIME.as_ref().map_err(|failure| anyhow!("start threads of low priority: {failure}"))?;
    Ok(runtime.handle().clone())
}

/// Lets the calling thread have what others leave of one core, and of no other: what somebody waits for finds a core that
/// is free, wherever there are two.
pub fn step_back() {
    const NICENESS: libc::c_int = 5;
    // SAFETY: takes numbers alone; on Linux, the calling thread's niceness is set, and no other's.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
    #[cfg(target_os = "linux")]
    stay_on_last_core();
}

/// Where that is refused, the thread runs where it did.
#[cfg(target_os = "linux")]
fn stay_on_last_core() {
    const SIZE: usize = size_of::<libc::cpu_set_t>();
    // SAFETY: the set is a field of bits, of which zeros are none; the calls are told its size, and mean this thread.
    unsafe {
        let mut cores: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, SIZE, &raw mut cores) != 0 {
            return;
        }
        let Some(last) = (0..libc::CPU_SETSIZE as usize).rev().find(|core| libc::CPU_ISSET(*core, &cores)) else {
            return;
        };
        libc::CPU_ZERO(&mut cores);
        libc::CPU_SET(last, &mut cores);
        libc::sched_setaffinity(0, SIZE, &raw const cores);
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used)]

    /// Those that work, and those that wait for the disk.
    #[test]
    fn all_of_its_threads_step_back() {
        let place = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().to_owned();
            // SAFETY: takes numbers alone.
            (cores.trim().parse::<u32>().ok(), unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) })
        };
        let low = super::handle().unwrap();
        let (works, waits) =
            low.block_on(async { (low.spawn(async move { place() }).await, low.spawn_blocking(place).await) });
        for (core, niceness) in [works.unwrap(), waits.unwrap()] {
            assert!(core.is_some() && niceness >= 5, "cores {core:?}, niceness {niceness}");
        }
    }
}
