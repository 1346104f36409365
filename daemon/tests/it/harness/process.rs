//! Child processes.

use std::io::Read;
use std::process::{Child, ExitStatus, Output};
use std::time::Duration;

use super::wait::poll;

/// Waits for a process; one that takes too long is killed, and `None` returned.
pub fn wait_for_exit(child: &mut Child, timeout: Duration) -> Option<ExitStatus> {
    let status = poll(timeout, || child.try_wait().unwrap());
    if status.is_none() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    status
}

pub(super) fn send_signal(child: &Child, signal: i32) {
    // SAFETY: sends a signal to a child that was not waited for yet, so that its number is still its own.
    let sent = unsafe { libc::kill(child.id() as libc::pid_t, signal) };
    assert_eq!(sent, 0, "{}", std::io::Error::last_os_error());
}

/// What a process with piped outputs wrote, and how it ended. One that takes too long is killed, and its standard error
/// returned as the error.
pub(super) fn output_of(mut child: Child, timeout: Duration) -> Result<Output, String> {
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let out = std::thread::spawn(move || read(&mut out));
    let err = std::thread::spawn(move || read(&mut err));
    let status = wait_for_exit(&mut child, timeout);
    let (stdout, stderr) = (out.join().unwrap(), err.join().unwrap());
    match status {
        Some(status) => Ok(Output { status, stdout, stderr }),
        None => Err(String::from_utf8_lossy(&stderr).into_owned()),
    }
}

fn read(pipe: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    pipe.read_to_end(&mut bytes).unwrap();
    bytes
}
