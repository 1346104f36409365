//! What the alerts remember over restarts.
//!
//! ```text
//!   [state]/alerts/
//!     lock            locked by the silverd that evaluates the alerts
//!     state.json      where each alert is, and what its receivers are owed
//!     disks.json      the free bytes of each disk, one sample an hour
//!     history.jsonl   the last transitions
//!     outbox/         see notify/
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use silverd_core::alerts::{AlertState, DiskForecast, PhaseName};
use tracing::{debug, warn};

use crate::notify::Severity;
use crate::runtime::clock;
use crate::runtime::state_dir::StateDir;

const LOCK: &str = "lock";
const STATE: &str = "state.json";
const DISKS: &str = "disks.json";
const HISTORY: &str = "history.jsonl";
/// Transitions that are kept.
const HISTORY_MAX: usize = 500;
/// The file of the history is written again when it has so many more lines.
const HISTORY_EXCESS_MAX: usize = 500;

/// The states of all alerts by name.
pub(crate) type Alerts = BTreeMap<String, StoredAlert>;
/// By the folder that a sample was taken of.
pub(crate) type Disks = BTreeMap<String, DiskForecast>;

/// What is stored of one alert.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoredAlert {
    #[serde(flatten)]
    pub(crate) state: AlertState,
    pub(crate) severity: Severity,
    /// Of the alert's section: an alert that was removed from pipeline.toml has a last notification.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) description: String,
    /// Whether its end is not notified.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) ends_silently: bool,
    /// The digest of its SQL: for another condition, no time has passed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) condition: String,
    #[serde(default)]
    pub(crate) evaluated: Option<Evaluated>,
    /// Evaluations in a row that failed.
    #[serde(default)]
    pub(crate) failures: u32,
    /// Why the last evaluation failed, or what it waits for.
    #[serde(default)]
    pub(crate) failure: Option<String>,
    /// When the last notification was handed over. The phase has a key of the same name.
    #[serde(default, rename = "handed_over_at_ms")]
    pub(crate) notified_at_ms: Option<i64>,
}

/// The last evaluation that did not fail.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Evaluated {
    pub(crate) at_ms: i64,
    pub(crate) took_ms: u64,
    /// The row that the condition is true for, or else the first one.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub(crate) values: Map<String, Value>,
}

/// A transition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct HistoryEntry {
    pub(crate) at_ms: i64,
    pub(crate) alert: String,
    pub(crate) severity: Severity,
    pub(crate) from: PhaseName,
    pub(crate) to: PhaseName,
    pub(crate) summary: String,
}

/// The text of `state.json`.
#[derive(Default, Serialize, Deserialize)]
struct StateFile {
    /// For a version of silverd that stores something else.
    #[serde(default)]
    version: u32,
    #[serde(default)]
    saved_at_ms: i64,
    alerts: Alerts,
}

/// The folder, which one silverd writes.
pub(crate) struct AlertStore {
    folder: StateDir,
    history: VecDeque<HistoryEntry>,
    /// Lines of the file of the history.
    lines: usize,
    _lock: File,
}

/// What a command reads of a folder that a silverd may write.
pub(crate) struct StoredAlerts {
    /// Whether a silverd runs that evaluates the alerts.
    pub(crate) is_running: bool,
    /// `None`: no alert was ever evaluated.
    pub(crate) saved_at_ms: Option<i64>,
    pub(crate) alerts: Alerts,
}

/// The folder below that of `[state]`.
pub(crate) fn folder_in(state: &Path) -> PathBuf {
    state.join("alerts")
}

impl AlertStore {
    /// Opens the folder below that of `[state]`; `None` while another silverd evaluates the alerts.
    pub(crate) fn open(state: &Path) -> anyhow::Result<Option<Self>> {
        let parent = StateDir::open(state)?;
        let folder = StateDir::open(&folder_in(state))?;
        // After a power failure, the folder is there: what is stored in it must not be lost.
        parent.sync()?;
        let path = folder.path(LOCK);
        let open = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = open.with_context(|| format!("open {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(failure)) => {
                return Err(failure).with_context(|| format!("lock {}", path.display()));
            }
        }
        // What a kill has left of a file that was being written.
        if let Err(failure) = folder.evict(usize::MAX, u64::MAX, || Ok(BTreeSet::new())) {
            debug!("remove unfinished files of the alerts: {failure:#}");
        }
        let (history, lines) = read_history(&folder);
        Ok(Some(Self { folder, history, lines, _lock: lock }))
    }

    /// The folder of the notifications that are not delivered yet.
    pub(crate) fn outbox(&self) -> PathBuf {
        self.folder.path("outbox")
    }

    /// The states that were stored last. A file that is damaged is set aside: the alerts start without a past.
    pub(crate) fn alerts(&self) -> Alerts {
        self.read::<StateFile>(STATE).unwrap_or_default().alerts
    }

    /// Durable when it returns.
    pub(crate) fn save(&self, alerts: &Alerts) -> anyhow::Result<()> {
        #[derive(Serialize)]
        struct Saved<'a> {
            version: u32,
            saved_at_ms: i64,
            alerts: &'a Alerts,
        }
        self.write(STATE, &Saved { version: 1, saved_at_ms: clock::now_ms(), alerts })
    }

    pub(crate) fn disks(&self) -> Disks {
        self.read(DISKS).unwrap_or_default()
    }

    pub(crate) fn save_disks(&self, disks: &Disks) -> anyhow::Result<()> {
        self.write(DISKS, disks)
    }

    /// Oldest first.
    pub(crate) fn history(&self) -> impl DoubleEndedIterator<Item = &HistoryEntry> {
        self.history.iter()
    }

    /// Adds transitions. A power failure may cost the last ones: nothing follows from them.
    pub(crate) fn add_history(&mut self, entries: Vec<HistoryEntry>) -> anyhow::Result<()> {
        let added = entries.len();
        self.history.extend(entries);
        let excess = self.history.len().saturating_sub(HISTORY_MAX);
        self.history.drain(..excess);
        if self.lines + added > HISTORY_MAX + HISTORY_EXCESS_MAX {
            let text = lines_of(self.history.iter())?;
            self.folder.put(|file| Ok(file.write_all(text.as_bytes()).map(|()| HISTORY.to_owned())?))?;
            self.lines = self.history.len();
            return Ok(());
        }
        let path = self.folder.path(HISTORY);
        let text = lines_of(self.history.iter().skip(self.history.len().saturating_sub(added)))?;
        let mut options = File::options();
        let append = options.create(true).append(true).open(&path).and_then(|mut file| file.write_all(text.as_bytes()));
        append.with_context(|| format!("write {}", path.display()))?;
        self.lines += added;
        Ok(())
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let text = match std::fs::read(self.folder.path(name)) {
            Ok(text) => text,
            Err(failure) if failure.kind() == io::ErrorKind::NotFound => return None,
            Err(failure) => {
                warn!("read {}: {failure}; the alerts go on without it", self.folder.path(name).display());
                return None;
            }
        };
        serde_json::from_slice(&text)
            .inspect_err(|error| self.folder.set_aside(name, &format!("{error}; the alerts go on without it")))
            .ok()
    }

    fn write(&self, name: &str, content: &impl Serialize) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(content)?;
        self.folder.put(|file| Ok(file.write_all(&text).map(|()| name.to_owned())?))?;
        // After a power failure, a state of before the last notification would make another one of it.
        self.folder.sync()
    }
}

impl StoredAlerts {
    /// Reads what a silverd has stored in the folder below that of `[state]`, and changes nothing.
    pub(crate) fn read(state: &Path) -> anyhow::Result<Self> {
        let folder = folder_in(state);
        let path = folder.join(STATE);
        let stored: Option<StateFile> = match std::fs::read(&path) {
            Ok(text) => Some(serde_json::from_slice(&text).with_context(|| format!("read {}", path.display()))?),
            Err(failure) if failure.kind() == io::ErrorKind::NotFound => None,
            Err(failure) => return Err(failure).with_context(|| format!("read {}", path.display())),
        };
        Ok(Self {
            is_running: is_locked(&folder),
            saved_at_ms: stored.as_ref().map(|stored| stored.saved_at_ms),
            alerts: stored.unwrap_or_default().alerts,
        })
    }
}

/// Shared, so that two commands at once do not take each other for a silverd.
fn is_locked(folder: &Path) -> bool {
    let Ok(lock) = File::open(folder.join(LOCK)) else { return false };
    matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// The last entries, and the number of lines in the file. A line that a crash cut off is left out.
fn read_history(folder: &StateDir) -> (VecDeque<HistoryEntry>, usize) {
    let text = std::fs::read_to_string(folder.path(HISTORY)).unwrap_or_default();
    let entries: Vec<HistoryEntry> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let skipped = entries.len().saturating_sub(HISTORY_MAX);
    // Without a line break at its end, the next line would be a part of the last one: the file is written again.
    let lines = if text.is_empty() || text.ends_with('\n') { text.lines().count() } else { usize::MAX / 2 };
    (entries.into_iter().skip(skipped).collect(), lines)
}

fn lines_of<'e>(entries: impl Iterator<Item = &'e HistoryEntry>) -> anyhow::Result<String> {
    let mut text = String::new();
    for entry in entries {
        text.push_str(&serde_json::to_string(entry)?);
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use silverd_core::alerts::{AlertRule, Moment, Report, Seen};

    use super::*;

    fn entry(number: i64) -> HistoryEntry {
        let (from, to) = (PhaseName::Inactive, PhaseName::Firing);
        let (alert, summary) = ("a".to_owned(), "orders".to_owned());
        HistoryEntry { at_ms: number, alert, severity: Severity::Warning, from, to, summary }
    }

    #[test]
    fn one_silverd_at_a_time_evaluates_the_alerts() {
        let state = tempfile::tempdir().unwrap();
        assert!(!StoredAlerts::read(state.path()).unwrap().is_running);
        let store = AlertStore::open(state.path()).unwrap().unwrap();
        assert!(AlertStore::open(state.path()).unwrap().is_none());
        assert!(StoredAlerts::read(state.path()).unwrap().is_running);
        drop(store);
        assert!(!StoredAlerts::read(state.path()).unwrap().is_running);
        assert!(AlertStore::open(state.path()).unwrap().is_some());
    }

    #[test]
    fn states_are_stored() {
        let state = tempfile::tempdir().unwrap();
        let mut alerts = Alerts::new();
        let rule = AlertRule { for_ms: 0, repeat_ms: None, resolved: true };
        let mut alert = StoredAlert { severity: Severity::Critical, failures: 2, ..StoredAlert::default() };
        let report = Report { summary: "no orders".to_owned(), values: Map::from_iter([("n".to_owned(), 0.into())]) };
        let moment = Moment { now_ms: 5, elapsed_ms: None };
        alert.state.step(&rule, Seen::True(report), &["shop".into()], moment);
        alerts.insert("no_orders".to_owned(), alert);
        let store = AlertStore::open(state.path()).unwrap().unwrap();
        assert_eq!(store.alerts(), Alerts::new());
        store.save(&alerts).unwrap();
        assert_eq!(store.alerts(), alerts);
        let read = StoredAlerts::read(state.path()).unwrap();
        assert_eq!((read.alerts, read.saved_at_ms.is_some()), (alerts, true));
        std::fs::write(store.folder.path(STATE), "{").unwrap();
        assert_eq!(store.alerts(), Alerts::new(), "a damaged file is set aside");
        assert!(store.folder.path("state.json.damaged").exists());
    }

    #[test]
    fn the_history_is_bounded() {
        let state = tempfile::tempdir().unwrap();
        let mut store = AlertStore::open(state.path()).unwrap().unwrap();
        for number in 0..1_700 {
            store.add_history(vec![entry(number)]).unwrap();
        }
        let file = store.folder.path(HISTORY);
        assert_eq!((store.history.len(), store.history.back()), (HISTORY_MAX, Some(&entry(1_699))));
        assert!(std::fs::read_to_string(&file).unwrap().lines().count() <= HISTORY_MAX + HISTORY_EXCESS_MAX);
        drop(store);
        // A crash cuts a line off.
        let mut options = File::options();
        options.append(true).open(&file).unwrap().write_all(b"{\"at_ms\": 17").unwrap();
        let mut store = AlertStore::open(state.path()).unwrap().unwrap();
        assert_eq!(store.history.back(), Some(&entry(1_699)));
        store.add_history(vec![entry(1_700)]).unwrap();
        drop(store);
        let store = AlertStore::open(state.path()).unwrap().unwrap();
        assert_eq!((store.history.len(), store.history().next_back()), (HISTORY_MAX, Some(&entry(1_700))));
    }
}
