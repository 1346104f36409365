//! Threads of low priority for work that nobody waits for: table maintenance and checkpoints.

use std::io;
use std::sync::LazyLock;

use anyhow::anyhow;
use tokio::runtime::{Builder, Handle, Runtime};

use super::TABLE_OPENS_MAX;
use super::machine::simulated;

static RUNTIME: LazyLock<io::Result<Runtime>> = LazyLock::new(|| {
    let mut runtime = Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).max_blocking_threads(TABLE_OPENS_MAX).thread_name("background");
    runtime.on_thread_start(lower_priority).enable_all().build()
});

/// The runtime of the background threads. The first call starts it; it runs until the process ends.
pub fn handle() -> anyhow::Result<Handle> {
    if simulated().is_some() {
        return Ok(Handle::current());
    }
    let runtime = RUNTIME.as_ref().map_err(|failure| anyhow!("start the background threads: {failure}"))?;
    Ok(runtime.handle().clone())
}

/// Lowers the calling thread's priority and confines it to one core. Where there are two cores, the data path always
/// finds a free one.
pub(crate) fn lower_priority() {
    be_nice();
    #[cfg(target_os = "linux")]
    pin_to_last_core();
}

/// Lowers the calling thread's priority: it uses what other threads leave.
pub(crate) fn be_nice() {
    const NICENESS: libc::c_int = 5;
    // SAFETY: the call takes only numbers; on Linux it sets the niceness of the calling thread only.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
}

/// If the system refuses, the thread keeps its cores.
#[cfg(target_os = "linux")]
fn pin_to_last_core() {
    const SIZE: usize = size_of::<libc::cpu_set_t>();
    // SAFETY: the set is a bit field, for which zeros are valid; the calls get its size and act on the calling thread.
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
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]

    #[test]
    fn all_background_threads_have_low_priority() {
        let core_and_niceness = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().to_owned();
            // SAFETY: the call takes only numbers.
            (cores.trim().parse::<u32>().ok(), unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) })
        };
        let handle = super::handle().unwrap();
        let (worker, blocking) = handle.block_on(async {
            let worker = handle.spawn(async move { core_and_niceness() });
            (worker.await, handle.spawn_blocking(core_and_niceness).await)
        });
        for (core, niceness) in [worker.unwrap(), blocking.unwrap()] {
            assert!(core.is_some() && niceness >= 5, "cores {core:?}, niceness {niceness}");
        }
    }
}
