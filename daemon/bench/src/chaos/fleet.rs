//! The daemons of a run: the processes, their logs, and the faults of each one's disk and clock.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::process::{Child, Command};

use super::shim::{Control, Shim};

/// silverd says this when it has refused an edit of pipeline.toml.
const REFUSED: &str = "nothing was changed: the previous pipeline keeps running";
/// The exit code of a Rust program that panicked.
const PANICKED: i32 = 101;

/// Places for daemons, of which each has one or none.
pub(super) struct Fleet {
    silverd: PathBuf,
    folder: PathBuf,
    shim: Option<Shim>,
    places: Vec<Place>,
    pub(super) starts: u64,
}

struct Place {
    control: Option<Control>,
    daemon: Option<Daemon>,
}

struct Daemon {
    child: Child,
    log: PathBuf,
    began: Instant,
    is_frozen: bool,
    /// When it was asked to stop.
    stopping: Option<Instant>,
}

/// A daemon that has ended, other than by SIGKILL from here.
pub(super) struct Ended {
    pub(super) place: usize,
    pub(super) status: ExitStatus,
    pub(super) was_asked: bool,
    pub(super) ran: Duration,
    pub(super) log: PathBuf,
}

impl Ended {
    /// It panicked, or a signal ended it: nothing explains that.
    pub(super) fn has_crashed(&self) -> bool {
        // SIGTERM in its first moments ends it before it listens to signals.
        let early = self.was_asked && self.status.signal() == Some(libc::SIGTERM) && self.ran < Duration::from_secs(5);
        self.status.code() == Some(PANICKED) || (self.status.signal().is_some() && !early)
    }

    pub(super) fn is_clean_stop(&self) -> bool {
        self.was_asked && !self.has_crashed() && (self.status.success() || self.status.signal().is_some())
    }
}

impl Fleet {
    pub(super) fn new(silverd: PathBuf, folder: &Path, places: usize, shim: Option<Shim>) -> anyhow::Result<Self> {
        let logs = folder.join("logs");
        std::fs::create_dir_all(&logs).with_context(|| format!("create {}", logs.display()))?;
        let mut fleet = Self { silverd, folder: folder.to_path_buf(), shim, places: Vec::new(), starts: 0 };
        for place in 0..places {
            let file = folder.join(format!("control.{place}"));
            let control = fleet.shim.is_some().then(|| Control::create(file)).transpose()?;
            fleet.places.push(Place { control, daemon: None });
        }
        Ok(fleet)
    }

    pub(super) fn logs(&self) -> PathBuf {
        self.folder.join("logs")
    }

    /// Starts the daemon of a place.
    pub(super) fn start(&mut self, place: usize) -> anyhow::Result<()> {
        self.starts += 1;
        let log = self.logs().join(format!("{:04}-daemon-{place}", self.starts));
        let mut command = self.command(&["run", "--log", "info"], &log)?;
        if let (Some(shim), Some(control)) = (&self.shim, &self.places[place].control) {
            command.envs(shim.environment(control));
        }
        let child = command.spawn().with_context(|| format!("start {}", self.silverd.display()))?;
        let daemon = Daemon { child, log, began: Instant::now(), is_frozen: false, stopping: None };
        self.places[place].daemon = Some(daemon);
        Ok(())
    }

    /// A command of silverd in the folder, with no faults of its disk and its clock. Its standard error goes to this file.
    pub(super) fn command(&self, arguments: &[&str], log: &Path) -> anyhow::Result<Command> {
        let log = std::fs::File::create(log).with_context(|| format!("create {}", log.display()))?;
        let mut command = Command::new(&self.silverd);
        command.args(arguments).current_dir(&self.folder).env_remove("SILVERD_LOG").env_remove("SILVERD_LOG_FORMAT");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        Ok(command)
    }

    pub(super) async fn kill(&mut self, place: usize) -> anyhow::Result<()> {
        match self.places[place].daemon.take() {
            Some(mut daemon) => daemon.child.kill().await.context("kill silverd"),
            None => Ok(()),
        }
    }

    /// Asks a daemon to stop; [`Fleet::ended`] returns it once it has.
    pub(super) fn stop(&mut self, place: usize) {
        if let Some(daemon) = &mut self.places[place].daemon {
            daemon.signal(libc::SIGTERM);
            daemon.stopping.get_or_insert_with(Instant::now);
        }
    }

    pub(super) fn freeze(&mut self, place: usize, is_frozen: bool) {
        if let Some(daemon) = &mut self.places[place].daemon {
            daemon.signal(if is_frozen { libc::SIGSTOP } else { libc::SIGCONT });
            daemon.is_frozen = is_frozen;
        }
    }

    pub(super) fn places(&self) -> usize {
        self.places.len()
    }

    pub(super) fn is_there(&self, place: usize) -> bool {
        self.places[place].daemon.is_some()
    }

    /// The places of daemons that were asked to stop more than this time ago.
    pub(super) fn overdue(&self, limit: Duration) -> Vec<usize> {
        let overdue = |place: &usize| {
            let daemon = self.places[*place].daemon.as_ref();
            daemon.and_then(|daemon| daemon.stopping).is_some_and(|since| since.elapsed() > limit)
        };
        (0..self.places.len()).filter(overdue).collect()
    }

    /// The daemons that have ended since the last call.
    pub(super) fn ended(&mut self) -> anyhow::Result<Vec<Ended>> {
        let mut ended = Vec::new();
        for (at, place) in self.places.iter_mut().enumerate() {
            let Some(daemon) = &mut place.daemon else { continue };
            let Some(status) = daemon.child.try_wait().context("look at silverd")? else { continue };
            let was_asked = daemon.stopping.is_some();
            ended.push(Ended { place: at, status, was_asked, ran: daemon.began.elapsed(), log: daemon.log.clone() });
            place.daemon = None;
        }
        Ok(ended)
    }

    /// How often each daemon has refused an edit, of those that have run for this time.
    pub(super) fn refusals(&self, ran: Duration) -> BTreeMap<PathBuf, usize> {
        let daemons = self.places.iter().filter_map(|place| place.daemon.as_ref());
        let old =
            daemons.filter(|daemon| !daemon.is_frozen && daemon.stopping.is_none() && daemon.began.elapsed() > ran);
        let refused = |log: &Path| std::fs::read_to_string(log).map_or(0, |text| text.matches(REFUSED).count());
        old.map(|daemon| (daemon.log.clone(), refused(&daemon.log))).collect()
    }

    pub(super) fn set_clock(&self, place: usize, seconds: i64) -> anyhow::Result<()> {
        self.places[place].control.as_ref().map_or(Ok(()), |control| control.set_clock(seconds))
    }

    /// The disk of all daemons.
    pub(super) fn set_full(&self, is_full: bool) -> anyhow::Result<()> {
        self.controls().try_for_each(|control| control.set_full(is_full))
    }

    pub(super) fn set_delay(&self, micros: u32) -> anyhow::Result<()> {
        self.controls().try_for_each(|control| control.set_delay(micros))
    }

    fn controls(&self) -> impl Iterator<Item = &Control> {
        self.places.iter().filter_map(|place| place.control.as_ref())
    }
}

impl Daemon {
    fn signal(&self, signal: i32) {
        if let Some(pid) = self.child.id() {
            // SAFETY: signals a child process of this one that was not waited for yet.
            unsafe { libc::kill(pid as i32, signal) };
        }
    }
}
