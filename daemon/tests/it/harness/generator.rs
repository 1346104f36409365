//! A running `silverd generate`.

use std::process::{Child, Stdio};
use std::time::Duration;

use super::process::send_signal;
use super::{Project, wait_for_exit};

/// A generator that sends events until it is stopped or dropped.
pub struct Generator(Child);

impl Generator {
    /// Sends `eps` events a second.
    pub fn start(project: &Project, eps: u64) -> Self {
        Self::start_with(project, eps, &[])
    }

    pub fn start_with(project: &Project, eps: u64, args: &[&str]) -> Self {
        let (address, eps) = (project.broker.address(), eps.to_string());
        let fixed = ["generate", "--bootstrap", &address, "--topic", &project.topic, "--eps", &eps, "--for", "600s"];
        let mut command = project.command(&[&fixed, args].concat());
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Stops it with SIGTERM, after which it must end without an error.
    #[track_caller]
    pub fn stop(mut self) {
        send_signal(&self.0, libc::SIGTERM);
        let status = wait_for_exit(&mut self.0, Duration::from_secs(30));
        assert!(status.is_some_and(|status| status.success()), "silverd generate: {status:?}");
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|status| status.is_none()) {
            send_signal(&self.0, libc::SIGTERM);
            let _ = wait_for_exit(&mut self.0, Duration::from_secs(30));
        }
    }
}
