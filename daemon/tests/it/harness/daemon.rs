//! A running `silverd`, and its log.

use std::cell::OnceCell;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::process::send_signal;
use super::wait::{TIMEOUT, poll};
use super::{Project, wait_for_exit};

/// A running `silverd`, which is killed when it is dropped. Its log goes to a file of the project.
pub struct Daemon {
    child: Child,
    log: PathBuf,
    /// The port of the dashboard, once it is known.
    pub(super) port: OnceCell<u16>,
}

impl Daemon {
    /// Starts `silverd run` with a log of JSON lines.
    pub fn start(project: &Project) -> Self {
        Self::start_with(project, &["run", "--log-format", "json"], &[])
    }

    /// Starts `silverd run` with a log of JSON lines, and the dashboard at any port.
    pub fn start_with_dashboard(project: &Project) -> Self {
        Self::start_with(project, &["run", "--listen", "127.0.0.1:0", "--log-format", "json"], &[])
    }

    /// Starts `silverd` with these arguments and environment variables.
    pub fn start_with(project: &Project, args: &[&str], env: &[(&str, &str)]) -> Self {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let log = project.folder.path().join(format!("log.{number}"));
        let stderr = std::fs::File::create(&log).unwrap();
        let mut command = project.command(args);
        let child = command.envs(env.iter().copied()).stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
        Self { child, log, port: OnceCell::new() }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: i32) {
        send_signal(&self.child, signal);
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// The complete lines of a JSON log.
    pub fn log_lines(&self) -> Vec<Value> {
        self.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The number of log lines that contain a text.
    pub fn count_logged(&self, text: &str) -> usize {
        self.log().lines().filter(|line| line.contains(text)).count()
    }

    /// Waits until a condition is true, for two minutes at most.
    #[track_caller]
    pub fn until(&mut self, what: &str, condition: impl FnMut(&Self) -> bool) {
        self.until_within(TIMEOUT, what, condition);
    }

    #[track_caller]
    pub fn until_within(&mut self, timeout: Duration, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let mut exited = None;
        let is_true = poll(timeout, || {
            exited = self.child.try_wait().unwrap();
            condition(self).then_some(true).or(exited.map(|_| false))
        });
        assert!(
            is_true == Some(true),
            "not within {} s: {what}; silverd exited: {exited:?}\n{}",
            timeout.as_secs(),
            self.log()
        );
    }

    /// Waits until this many log lines contain a text.
    #[track_caller]
    pub fn until_logged(&mut self, text: &str, times: usize) {
        self.until(text, |daemon| daemon.count_logged(text) >= times);
    }

    /// Stops it with SIGTERM, and returns the lines of its JSON log.
    #[track_caller]
    pub fn stop(mut self) -> Vec<Value> {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "silverd has ended already: {ended:?}\n{}", self.log());
        self.signal(libc::SIGTERM);
        let status = wait_for_exit(&mut self.child, Duration::from_secs(60));
        assert!(status.is_some_and(|status| status.success()), "{status:?}\n{}", self.log());
        self.log_lines()
    }

    /// Kills it with SIGKILL. Its log becomes part of the test's output.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
        eprint!("{}", self.log());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
