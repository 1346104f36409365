//! One receiver: what waits for it, and the task that delivers it. Receivers do not wait for each other.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use parking_lot::{Mutex, MutexGuard};
use silverd_core::config::NotifyReceiver;
use silverd_core::notify::Notification;
use silverd_core::notify::retry::wait_ms;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::queue::{Next, Queue};
use super::status::{Failing, REMOVED, ReceiverStatus};
use super::store::{Store, Waiting};
use super::{SendError, send_now};
use crate::runtime::clock;
use crate::runtime::log_once::LogOnce;

/// More than that is waiting only if something is wrong: then the oldest ones are given up.
const WAITING_MAX: usize = 1_000;
/// At the end of silverd, for a try that is under way.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// The clock may be set while a queue waits for the end of quiet hours.
const QUIET_LOOK: Duration = Duration::from_secs(30);

pub(super) struct Receiver {
    name: Box<str>,
    store: Store,
    /// Held while the queue and its files change, always before `state`.
    recording: Mutex<()>,
    /// Never held while waiting for the disk: the dashboard and the delivery of other receivers would wait, too.
    state: Mutex<State>,
    /// A notification or another configuration has come.
    changed: Notify,
}

struct State {
    /// `None`: pipeline.toml does not name it any more.
    config: Option<Arc<Configured>>,
    /// Another configuration is worth another try at once.
    is_config_new: bool,
    queue: Queue,
    delivered: u64,
    failed_tries: u64,
    given_up: u64,
    last_delivered_ms: Option<i64>,
    failing: Option<Failing>,
}

#[derive(PartialEq)]
struct Configured {
    receiver: NotifyReceiver,
    base_dir: PathBuf,
}

/// Why a notification does not wait any more.
#[derive(Clone, Copy)]
enum Done {
    Delivered,
    Superseded,
    GivenUp,
}

/// What the task does next.
enum Step {
    Nothing,
    Quiet { until_ms: i64 },
    Superseded(u64),
    Try { number: u64, notification: Box<Notification>, config: Option<Arc<Configured>>, failed_tries: u32 },
}

impl Receiver {
    /// Loads what an earlier process left in the folder.
    pub(super) fn open(name: &str, folder: &Path) -> anyhow::Result<Self> {
        let opened = Store::open(folder);
        let (store, found) = opened.with_context(|| format!("open the notifications of [notify.{name}]"))?;
        let state = State {
            config: None,
            is_config_new: false,
            queue: Queue::new(found),
            delivered: 0,
            failed_tries: 0,
            given_up: 0,
            last_delivered_ms: None,
            failing: None,
        };
        Ok(Self {
            name: name.into(),
            store,
            recording: Mutex::new(()),
            state: Mutex::new(state),
            changed: Notify::new(),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// `None`: pipeline.toml does not name it.
    pub(super) fn configure(&self, receiver: Option<&NotifyReceiver>, base_dir: &Path) {
        let new = receiver.map(|receiver| Configured { receiver: receiver.clone(), base_dir: base_dir.to_path_buf() });
        let mut state = self.state.lock();
        if state.config.as_deref() != new.as_ref() {
            state.config = new.map(Arc::new);
            state.is_config_new = true;
            drop(state);
            self.changed.notify_one();
        }
    }

    /// On the disk when it returns. One that waits, or is done, is not added again.
    pub(super) fn add(&self, notification: &Notification) -> anyhow::Result<()> {
        let recording = self.recording.lock();
        let (number, oldest) = {
            let state = self.state.lock();
            if state.queue.knows(&notification.id) {
                debug!(receiver = %self.name, id = %notification.id, "this notification is there already");
                return Ok(());
            }
            let is_full = state.queue.len() >= WAITING_MAX;
            (state.queue.next_number(), state.queue.oldest().filter(|_| is_full))
        };
        if let Some(oldest) = oldest {
            error!("[notify.{}]: {WAITING_MAX} notifications wait; the oldest is given up", self.name);
            self.finish(&recording, oldest, Done::GivenUp);
        }
        let waiting = Waiting { notification: notification.clone(), failing_since_ms: None };
        self.store.put(number, &waiting).with_context(|| format!("keep a notification for [notify.{}]", self.name))?;
        self.state.lock().queue.insert(number, waiting);
        self.changed.notify_one();
        Ok(())
    }

    /// Whether this notification waits, or was done lately.
    pub(super) fn knows(&self, id: &str) -> bool {
        self.state.lock().queue.knows(id)
    }

    pub(super) fn status(&self) -> ReceiverStatus {
        let state = self.state.lock();
        let kind = state.config.as_deref().map(|config| &config.receiver.kind);
        let quiet_until_ms = match state.next(clock::now_ms()) {
            Next::Quiet { until_ms } => Some(until_ms),
            Next::Nothing | Next::Superseded(_) | Next::Try(_) => None,
        };
        ReceiverStatus {
            name: self.name.to_string(),
            kind: kind.map_or(REMOVED, |kind| kind.as_str()),
            target: kind.map(|kind| kind.target()).unwrap_or_default(),
            waiting: state.queue.len(),
            delivered: state.delivered,
            failed_tries: state.failed_tries,
            given_up: state.given_up,
            last_delivered_ms: state.last_delivered_ms,
            failing: state.failing.clone(),
            quiet_until_ms,
        }
    }

    /// Delivers until `stop`.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut last_error = LogOnce::default();
        let (mut failures, mut waits) = (0_u32, Waits::none());
        while !stop.is_cancelled() {
            if std::mem::take(&mut self.state.lock().is_config_new) {
                (failures, waits) = (0, Waits::none());
            }
            match self.step() {
                Step::Nothing => tokio::select! {
                    () = self.changed.notified() => {}
                    () = stop.cancelled() => {}
                },
                Step::Quiet { until_ms } => {
                    let wait = u64::try_from(until_ms - clock::now_ms()).unwrap_or_default();
                    tokio::select! {
                        () = sleep(Duration::from_millis(wait).min(QUIET_LOOK)) => {}
                        () = self.changed.notified() => {}
                        () = stop.cancelled() => {}
                    }
                }
                Step::Superseded(number) => self.finish_in_background(number, Done::Superseded).await,
                Step::Try { failed_tries, .. } if Instant::now() < waits.until(failed_tries) => tokio::select! {
                    () = sleep_until(waits.until(failed_tries)) => {}
                    () = self.changed.notified() => {}
                    () = stop.cancelled() => {}
                },
                Step::Try { number, notification, config, failed_tries } => {
                    let Some(sent) = self.send(config.as_deref(), &notification, &stop).await else { return };
                    match sent {
                        Ok(()) => {
                            failures = 0;
                            if last_error.clear() {
                                info!("[notify.{}] gets notifications again", self.name);
                            }
                            self.finish_in_background(number, Done::Delivered).await;
                        }
                        Err(SendError::Refused { reason }) => {
                            error!(
                                "[notify.{}] refused the notification of {}: {reason}",
                                self.name, notification.alert
                            );
                            self.note_failure(&reason, None);
                            self.finish_in_background(number, Done::GivenUp).await;
                        }
                        Err(SendError::Retry { reason, after }) => {
                            failures = failures.saturating_add(1);
                            let tries = failures.max(failed_tries.saturating_add(1));
                            let backoff = Duration::from_millis(wait_ms(&notification.id, tries));
                            let wait = waits.begin(backoff, after.unwrap_or_default());
                            if last_error.is_new(&reason) {
                                let alert = &notification.alert;
                                warn!("[notify.{}] did not get the notification of {alert}: {reason}", self.name);
                            }
                            self.note_failure(&reason, Some(wait));
                            self.fail_in_background(number).await;
                        }
                    }
                }
            }
        }
    }

    fn step(&self) -> Step {
        let state = self.state.lock();
        let number = match state.next(clock::now_ms()) {
            Next::Nothing => return Step::Nothing,
            Next::Quiet { until_ms } => return Step::Quiet { until_ms },
            Next::Superseded(number) => return Step::Superseded(number),
            Next::Try(number) => number,
        };
        match state.queue.get(number) {
            Some(waiting) => Step::Try {
                number,
                notification: Box::new(waiting.notification.clone()),
                config: state.config.clone(),
                failed_tries: state.queue.failed_tries(number),
            },
            None => Step::Nothing,
        }
    }

    /// `None` if silverd ends before the try has.
    async fn send(
        &self,
        config: Option<&Configured>,
        notification: &Notification,
        stop: &CancellationToken,
    ) -> Option<Result<(), SendError>> {
        let Some(Configured { receiver, base_dir }) = config else {
            let reason = format!("pipeline.toml has no [notify.{}] any more", self.name);
            return Some(Err(SendError::retry(reason)));
        };
        let send = send_now(receiver, notification, base_dir);
        tokio::pin!(send);
        tokio::select! {
            sent = &mut send => Some(sent),
            // One that gets through now need not be repeated after the start.
            () = stop.cancelled() => timeout(STOP_TIMEOUT, send).await.ok(),
        }
    }

    fn note_failure(&self, reason: &str, wait: Option<Duration>) {
        let now_ms = clock::now_ms();
        let mut state = self.state.lock();
        state.failed_tries += 1;
        let since_ms = state.failing.as_ref().map_or(now_ms, |failing| failing.since_ms);
        let wait_ms = wait.map(|wait| i64::try_from(wait.as_millis()).unwrap_or(i64::MAX));
        let next_try_ms = wait_ms.map(|wait_ms| now_ms.saturating_add(wait_ms));
        state.failing = Some(Failing { error: reason.to_owned(), since_ms, next_try_ms });
    }

    async fn finish_in_background(self: &Arc<Self>, number: u64, done: Done) {
        let this = self.clone();
        let finish = tokio::task::spawn_blocking(move || this.finish(&this.recording.lock(), number, done));
        if let Err(failure) = finish.await {
            error!("[notify.{}]: record that a notification is done: {failure}", self.name);
        }
    }

    async fn fail_in_background(self: &Arc<Self>, number: u64) {
        let this = self.clone();
        let fail = tokio::task::spawn_blocking(move || this.fail(number));
        if let Err(failure) = fail.await {
            error!("[notify.{}]: record that a try failed: {failure}", self.name);
        }
    }

    fn finish(&self, _recording: &MutexGuard<'_, ()>, number: u64, done: Done) {
        let waiting = self.state.lock().queue.get(number).cloned();
        let Some(Waiting { notification, .. }) = waiting else { return };
        let (alert, id) = (&notification.alert, &notification.id);
        if let Err(failure) = self.store.finish(number, id) {
            // This process does not send it again.
            warn!("[notify.{}]: {failure:#}: after a restart, {id} is sent again", self.name);
        }
        let mut state = self.state.lock();
        state.queue.finish(number);
        match done {
            Done::Delivered => {
                state.delivered += 1;
                state.last_delivered_ms = Some(clock::now_ms());
                state.failing = None;
                info!("[notify.{}] got the notification of {alert}, {}", self.name, notification.state.as_str());
            }
            Done::Superseded => {
                info!("[notify.{}]: a newer notification of {alert} is sent instead of {id}", self.name)
            }
            Done::GivenUp => state.given_up += 1,
        }
    }

    /// Notes that a try failed, and gives the notification up after a day of that.
    fn fail(&self, number: u64) {
        let recording = self.recording.lock();
        let mut state = self.state.lock();
        let is_first = state.queue.get(number).is_some_and(|waiting| waiting.failing_since_ms.is_none());
        let goes_on = state.queue.fail(number, clock::now_ms());
        let Some(waiting) = state.queue.get(number).cloned() else { return };
        drop(state);
        if !goes_on {
            let alert = &waiting.notification.alert;
            error!("[notify.{}] did not get the notification of {alert} for a day: it is given up", self.name);
            self.finish(&recording, number, Done::GivenUp);
        } else if is_first && let Err(failure) = self.store.put(number, &waiting) {
            warn!("[notify.{}]: {failure:#}: after a restart, a notification is tried for another day", self.name);
        }
    }
}

/// How long to wait after a failure.
struct Waits {
    /// For what has failed before.
    backoff_until: Instant,
    /// For everything: the receiver has asked for it. Else, a new notification is tried at once.
    asked_until: Instant,
}

impl Waits {
    fn none() -> Self {
        let now = Instant::now();
        Self { backoff_until: now, asked_until: now }
    }

    /// Until when a notification waits that has failed so often.
    fn until(&self, failed_tries: u32) -> Instant {
        if failed_tries == 0 { self.asked_until } else { self.backoff_until.max(self.asked_until) }
    }

    /// Returns how long the one that has failed waits.
    fn begin(&mut self, backoff: Duration, asked: Duration) -> Duration {
        let now = Instant::now();
        *self = Self { backoff_until: now + backoff, asked_until: now + asked };
        backoff.max(asked)
    }
}

impl State {
    fn next(&self, now_ms: i64) -> Next {
        let quiet = self.config.as_deref().and_then(|config| config.receiver.quiet.as_ref());
        self.queue.next(quiet, now_ms)
    }
}
