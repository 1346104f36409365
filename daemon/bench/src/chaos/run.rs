//! A run: starts everything, lets the faults happen, stops them, and checks the tables.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use silverd::generate::Sender;
use tokio_util::sync::CancellationToken;

use super::ChaosArgs;
use super::bronze_log::BronzeLog;
use super::check;
use super::events::EventSender;
use super::fleet::{Ended, Fleet};
use super::kafka::{Kafka, OwnKafka};
use super::plan::{Fault, Plan, Possible};
use super::project::{GroupProtocol, Project};
use super::shim::Shim;
use super::summary::Summary;
use crate::topic;

pub(super) const PARTITIONS: i32 = 4;
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// After so many faults, all of them end, and Bronze must grow.
const ROUND: usize = 8;
/// Bronze grows within this time, and the time after which Kafka takes a killed daemon for dead.
const PROGRESS_MAX: Duration = Duration::from_secs(60);
/// The plugins are compiled before the first rows.
const START_MAX: Duration = Duration::from_secs(180);
const STOP_MAX: Duration = Duration::from_secs(90);
const FAULT_END_MAX: Duration = Duration::from_secs(240);
const REFUSAL_MAX: Duration = Duration::from_secs(60);
/// A daemon that has run for this time watches pipeline.toml.
const WATCHES_AFTER: Duration = Duration::from_secs(5);
/// A daemon that starts while its disk is full or its pipeline.toml is broken may end in this time.
const START_FAILS_WITHIN: Duration = Duration::from_secs(30);
const FAULT_ECHO: Duration = Duration::from_secs(15);
const RESTART_AFTER: Duration = Duration::from_secs(2);

/// Runs the faults for the time that was asked for, and checks the tables.
pub(super) async fn run(
    args: &ChaosArgs,
    seed: u64,
    folder: &Path,
    stop: &CancellationToken,
) -> anyhow::Result<Summary> {
    let kafka = match (&args.brokers, &args.kafka) {
        (Some(brokers), _) => Kafka::Given(brokers.clone()),
        (None, Some(script)) => Kafka::Own(OwnKafka::start(script, folder.join("kafka"))?),
        (None, None) => bail!("--brokers or --kafka is needed"),
    };
    let repository = args.repository.canonicalize().context("find the folder of --repository")?;
    let (topic, protocol) = (format!("silverd-chaos-{}", uuid::Uuid::new_v4()), GroupProtocol::of_seed(seed));
    Sender::connect(kafka.address(), &topic, PARTITIONS, stop).await.context("create the topic")?;
    let project = Project::create(folder, &repository, &kafka, &topic, protocol)?;
    let shim = Shim::compile(folder, folder.join("data"))?;
    if shim.is_none() {
        eprintln!("no C compiler (cc): without full disks, slow disks and steps of the clock");
    }
    let (daemons, has_shim) = (usize::from(args.daemons), shim.is_some());
    let (only, wait_max) = (args.only.clone(), args.wait_max);
    let broker = kafka.own().is_some();
    let possible = Possible { daemons, plugins: project.plugins(), broker, shim: has_shim, only, wait_max };
    let plan = Plan::new(seed, possible);
    ensure!(!plan.is_empty(), "none of the faults of --only is possible: see the messages before");
    // The last place is that of the daemon that joins at times.
    let fleet = Fleet::new(silverd_of(args)?, folder, daemons + 1, shim)?;
    let events = EventSender::start(kafka.address(), &topic, args.eps, seed)?;
    let bronze = BronzeLog::new(&project.bronze());
    let summary = Summary::new(seed, protocol);
    let mut run = Run {
        project,
        kafka,
        topic,
        protocol,
        fleet,
        bronze,
        pending: Vec::new(),
        active: Active::default(),
        summary,
        began: Instant::now(),
        stop,
    };
    run.start().await?;
    run.faults(plan, args.time).await?;
    run.finish(events).await?;
    Ok(run.summary)
}

/// The program that is tested.
fn silverd_of(args: &ChaosArgs) -> anyhow::Result<PathBuf> {
    let silverd = match &args.silverd {
        Some(silverd) => silverd.clone(),
        None => std::env::current_exe().context("find this program")?.with_file_name("silverd"),
    };
    silverd.canonicalize().with_context(|| format!("find {} (--silverd names the program)", silverd.display()))
}

struct Run<'s> {
    project: Project,
    kafka: Kafka,
    topic: String,
    protocol: GroupProtocol,
    fleet: Fleet,
    bronze: BronzeLog,
    pending: Vec<Pending>,
    active: Active,
    summary: Summary,
    began: Instant,
    stop: &'s CancellationToken,
}

/// What happens later.
struct Pending {
    due: Instant,
    event: Later,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Later {
    Start(usize),
    Continue(usize),
    Leave(usize),
    StartBroker,
    EmptyDisk,
    FastDisk,
    MendPipeline,
}

/// What explains that a daemon does not start.
#[derive(Default)]
struct Active {
    full_disk: bool,
    broken_pipeline: bool,
    ended: Option<Instant>,
}

impl Active {
    fn explains_a_failed_start(&self) -> bool {
        self.full_disk || self.broken_pipeline || self.ended.is_some_and(|at| at.elapsed() < FAULT_ECHO)
    }
}

impl Run<'_> {
    /// Starts the daemons, one after the other, and waits for the first rows.
    async fn start(&mut self) -> anyhow::Result<()> {
        let joins = self.joins_at();
        self.fleet.start(0)?;
        // The first one compiles the plugins.
        let has_rows = self.until(START_MAX, |run| Ok(run.bronze.events()? > 0)).await?;
        ensure!(has_rows, "Bronze has no rows after {} s: see {}", START_MAX.as_secs(), self.fleet.logs().display());
        (1..joins).try_for_each(|place| self.fleet.start(place))
    }

    /// The place of the daemon that is not always there.
    fn joins_at(&self) -> usize {
        self.fleet.places() - 1
    }

    async fn faults(&mut self, plan: Plan, time: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + time;
        for (number, step) in plan.enumerate() {
            if number > 0 && number.is_multiple_of(ROUND) {
                self.settle().await?;
            }
            self.until(step.wait, |_| Ok(Instant::now() >= end)).await?;
            if Instant::now() >= end {
                break;
            }
            if !self.until(FAULT_END_MAX, |run| Ok(run.is_possible(step.fault))).await? {
                self.violation(format!("the faults before {:?} do not end", step.fault));
                break;
            }
            self.begin(step.fault).await?;
        }
        self.settle().await
    }

    /// Whether no earlier fault holds what this one needs.
    fn is_possible(&self, fault: Fault) -> bool {
        let waits = |event: Later| self.pending.iter().any(|pending| pending.event == event);
        let is_there =
            |place: usize| self.fleet.is_there(place) && !waits(Later::Start(place)) && !waits(Later::Continue(place));
        match fault {
            Fault::Kill { daemon, .. } | Fault::Freeze { daemon, .. } | Fault::Stop { daemon, .. } => is_there(daemon),
            Fault::Join { .. } => !self.fleet.is_there(self.joins_at()),
            Fault::StopBroker { .. } => !waits(Later::StartBroker),
            Fault::FullDisk { .. } => !waits(Later::EmptyDisk),
            Fault::SlowDisk { .. } => !waits(Later::FastDisk),
            Fault::Edit { .. } | Fault::BrokenEdit { .. } => !waits(Later::MendPipeline),
            Fault::StepClock { .. } | Fault::Swap { .. } => true,
        }
    }

    async fn begin(&mut self, fault: Fault) -> anyhow::Result<()> {
        eprintln!("{:7.1} s  {fault:?}", self.began.elapsed().as_secs_f64());
        self.summary.count(fault);
        match fault {
            Fault::Kill { daemon, away } => {
                self.fleet.kill(daemon).await?;
                self.later(away, Later::Start(daemon));
            }
            Fault::Freeze { daemon, time } => {
                self.fleet.freeze(daemon, true);
                self.later(time, Later::Continue(daemon));
            }
            Fault::Stop { daemon, away } => {
                self.fleet.stop(daemon);
                self.later(away, Later::Start(daemon));
            }
            Fault::Join { time } => {
                let place = self.joins_at();
                self.fleet.start(place)?;
                self.later(time, Later::Leave(place));
            }
            Fault::StopBroker { away } => {
                self.kafka.own().context("this Kafka is not ours")?.stop()?;
                self.later(away, Later::StartBroker);
            }
            Fault::FullDisk { time } => {
                self.fleet.set_full(true)?;
                self.active.full_disk = true;
                self.later(time, Later::EmptyDisk);
            }
            Fault::SlowDisk { delay_us, time } => {
                self.fleet.set_delay(delay_us)?;
                self.later(time, Later::FastDisk);
            }
            Fault::StepClock { daemon, seconds } => self.fleet.set_clock(daemon, seconds)?,
            Fault::Swap { plugin, version } => self.project.install(plugin, version)?,
            Fault::Edit { number } => self.project.edit(number)?,
            Fault::BrokenEdit { kind, time } => self.broken_edit(kind, time).await?,
        }
        Ok(())
    }

    /// A daemon that watches pipeline.toml refuses the edit.
    async fn broken_edit(&mut self, kind: usize, time: Duration) -> anyhow::Result<()> {
        if !self.until(FAULT_END_MAX, |run| Ok(!run.fleet.refusals(WATCHES_AFTER).is_empty())).await? {
            self.violation("no daemon runs for some seconds".to_owned());
            return Ok(());
        }
        let before = self.fleet.refusals(WATCHES_AFTER);
        self.active.broken_pipeline = true;
        self.project.break_pipeline(kind)?;
        let is_refused = |run: &mut Self| {
            let now = run.fleet.refusals(WATCHES_AFTER);
            let refused = before.iter().any(|(log, times)| now.get(log).is_some_and(|found| found > times));
            // Those that could have refused it have ended, which is looked at elsewhere.
            Ok(refused || !before.keys().any(|log| now.contains_key(log)))
        };
        if !self.until(REFUSAL_MAX, is_refused).await? {
            self.violation(format!("broken edit {kind} was not refused within {} s", REFUSAL_MAX.as_secs()));
        }
        self.later(time, Later::MendPipeline);
        Ok(())
    }

    fn later(&mut self, after: Duration, event: Later) {
        self.pending.push(Pending { due: Instant::now() + after, event });
    }

    async fn happen(&mut self, event: Later) -> anyhow::Result<()> {
        match event {
            // It still stops.
            Later::Start(place) if self.fleet.is_there(place) => self.later(POLL_INTERVAL, event),
            Later::Start(place) => self.fleet.start(place)?,
            Later::Continue(place) => self.fleet.freeze(place, false),
            Later::Leave(place) => self.fleet.stop(place),
            Later::StartBroker => self.kafka.own().context("this Kafka is not ours")?.start_again()?,
            Later::EmptyDisk => {
                self.fleet.set_full(false)?;
                self.active.full_disk = false;
                self.active.ended = Some(Instant::now());
            }
            Later::FastDisk => self.fleet.set_delay(0)?,
            Later::MendPipeline => {
                self.project.mend_pipeline()?;
                self.active.broken_pipeline = false;
                self.active.ended = Some(Instant::now());
            }
        }
        Ok(())
    }

    /// Handles what is due until the condition holds; false if it does not within the limit.
    async fn until(
        &mut self,
        limit: Duration,
        mut holds: impl FnMut(&mut Self) -> anyhow::Result<bool>,
    ) -> anyhow::Result<bool> {
        let deadline = Instant::now() + limit;
        loop {
            ensure!(!self.stop.is_cancelled(), "stopped after {} s", self.began.elapsed().as_secs());
            self.happen_due().await?;
            if holds(self)? {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            tokio::time::sleep(left.min(POLL_INTERVAL)).await;
        }
    }

    async fn happen_due(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        let (due, pending): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.pending).into_iter().partition(|pending| pending.due <= now);
        self.pending = pending;
        for pending in due {
            self.happen(pending.event).await?;
        }
        for ended in self.fleet.ended()? {
            self.consider(&ended);
        }
        for place in self.fleet.overdue(STOP_MAX) {
            self.violation(format!("daemon {place} did not stop within {} s", STOP_MAX.as_secs()));
            self.fleet.kill(place).await?;
        }
        Ok(())
    }

    /// A daemon has ended: was it asked to, or does a fault explain it?
    fn consider(&mut self, ended: &Ended) {
        let Ended { place, status, was_asked, ran, log } = ended;
        let explained = *ran < START_FAILS_WITHIN && self.active.explains_a_failed_start();
        if ended.has_crashed() || !(ended.is_clean_stop() || explained) {
            self.violation(format!(
                "daemon {place} ended with {status} after {:.1} s{}: {}",
                ran.as_secs_f64(),
                if *was_asked { ", having been asked to stop" } else { "" },
                log.display()
            ));
        }
        if *was_asked {
            return;
        }
        self.summary.failed_starts += u64::from(explained);
        // The one that joins at times does so again when it is drawn again.
        if *place != self.joins_at() {
            self.later(RESTART_AFTER, Later::Start(*place));
        }
    }

    /// Waits until every fault has ended, and Bronze grows.
    async fn settle(&mut self) -> anyhow::Result<()> {
        if !self.until(FAULT_END_MAX, |run| Ok(run.pending.is_empty())).await? {
            let waiting: Vec<_> = self.pending.iter().map(|pending| pending.event).collect();
            self.violation(format!("the faults do not end: {waiting:?}"));
        }
        let (before, limit) = (self.bronze.events()?, self.progress_max());
        if !self.until(limit, |run| Ok(run.bronze.events()? > before)).await? {
            self.violation(format!("Bronze has not grown for {} s after the last fault", limit.as_secs()));
        }
        Ok(())
    }

    fn progress_max(&self) -> Duration {
        PROGRESS_MAX + Duration::from_secs(self.protocol.session_seconds())
    }

    /// Stops everything, drains the topic, and checks the tables.
    async fn finish(&mut self, events: EventSender) -> anyhow::Result<()> {
        let sent = tokio::task::spawn_blocking(move || events.stop()).await.context("stop the events")??;
        self.summary.seconds = self.began.elapsed().as_secs();
        (0..self.fleet.places()).for_each(|place| self.fleet.stop(place));
        let all_stop = |run: &mut Self| Ok((0..run.fleet.places()).all(|place| !run.fleet.is_there(place)));
        self.until(STOP_MAX + STOP_MAX, all_stop).await?;
        // One that ended just before it was asked to is not started again.
        self.pending.clear();
        self.summary.starts = self.fleet.starts;
        self.summary.events = sent.confirmed;
        let violations = check::check(&self.project, &self.fleet, &self.kafka, &self.topic, sent).await?;
        violations.into_iter().for_each(|violation| self.violation(violation));
        if matches!(self.kafka, Kafka::Given(_)) {
            topic::delete(self.kafka.address(), &self.topic).await?;
        }
        Ok(())
    }

    fn violation(&mut self, what: String) {
        eprintln!("{:7.1} s  violation: {what}", self.began.elapsed().as_secs_f64());
        self.summary.violations.push(what);
    }
}
