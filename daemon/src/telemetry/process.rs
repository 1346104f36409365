//! CPU time, memory and start time of the process, from the operating system.

use std::sync::LazyLock;
use std::time::Duration;

use crate::runtime::clock;

/// CPU time of the calling thread.
pub fn thread_cpu() -> Duration {
    read_clock(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// CPU time of the whole process, user and system.
pub fn process_cpu() -> Duration {
    read_clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn read_clock(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes the timespec that it is given, a local variable.
    let result = unsafe { libc::clock_gettime(clock, &mut time) };
    if result == 0 { Duration::new(time.tv_sec as u64, time.tv_nsec as u32) } else { Duration::ZERO }
}

/// The largest resident set of the process so far, in bytes; 0 on a system without /proc.
pub fn peak_rss_bytes() -> u64 {
    memory("VmHWM:")
}

/// The resident set of the process, in bytes; 0 on a system without /proc.
pub fn rss_bytes() -> u64 {
    memory("VmRSS:")
}

fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// When the process started, in milliseconds since the epoch. On a system without /proc: when this was first called.
pub(crate) fn process_started_at_ms() -> i64 {
    static STARTED_AT_MS: LazyLock<i64> =
        LazyLock::new(|| clock::now_ms() - process_age().unwrap_or_default().as_millis() as i64);
    *STARTED_AT_MS
}

#[cfg(target_os = "linux")]
fn process_age() -> Option<Duration> {
    const START_TIME: usize = 19; // the 22nd field; counted from the third, which follows the executable's name
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name stands in parentheses and may contain spaces and parentheses.
    let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(START_TIME)?.parse().ok()?;
    // SAFETY: the call takes a number and returns a number.
    let ticks_per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    let started_after_boot = Duration::from_secs_f64(ticks as f64 / ticks_per_second.max(1) as f64);
    read_clock(libc::CLOCK_BOOTTIME).checked_sub(started_after_boot)
}

#[cfg(not(target_os = "linux"))]
fn process_age() -> Option<Duration> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_started_a_moment_ago() {
        let age_ms = clock::now_ms() - process_started_at_ms();
        assert!((0..600_000).contains(&age_ms), "{age_ms} ms");
    }
}
