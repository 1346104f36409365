//! The notifications of one receiver on the disk.
//!
//! ```text
//!   <receiver>/<number>-<id>.json   waits; in the order of the numbers
//!   <receiver>/done/<id>.json       delivered or given up: it is not taken again
//! ```
//!
//! A file is renamed from one to the other, so a notification is always exactly one of the two. Each change is on the disk
//! when the call returns.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use silverd_core::notify::Notification;

use crate::runtime::state_dir::StateDir;

const DONE_FOLDER: &str = "done";
/// So many ids are remembered.
pub(super) const DONE_MAX: usize = 1_000;
const DONE_BYTES_MAX: u64 = 32 << 20;
/// A larger file was not written here: a notification is bounded.
const FILE_BYTES_MAX: u64 = 1 << 20;

pub(super) struct Store {
    waiting: StateDir,
    done: StateDir,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Waiting {
    pub(super) notification: Notification,
    /// When a try failed first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) failing_since_ms: Option<i64>,
}

/// What an earlier process left.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) waiting: BTreeMap<u64, Waiting>,
    /// The ids of those that are done, the oldest first.
    pub(super) done: VecDeque<String>,
}

impl Store {
    pub(super) fn open(folder: &Path) -> anyhow::Result<(Self, Found)> {
        let store = Self { waiting: StateDir::open(folder)?, done: StateDir::open(&folder.join(DONE_FOLDER))? };
        // After a power failure, the folder of what is done is there.
        store.waiting.sync()?;
        store.remove_old()?;
        // Removes what a crash has left unfinished.
        store.waiting.evict(usize::MAX, u64::MAX, || Ok(BTreeSet::new()))?;
        let list = || format!("list {}", folder.display());
        let mut found = Found::default();
        for file in store.done.files().with_context(list)? {
            found.done.extend(file.name.strip_suffix(".json").map(str::to_owned));
        }
        for file in store.waiting.files().with_context(list)? {
            let Some((number, id)) = parse_name(&file.name) else { continue };
            // After a power failure, some file systems have a file that was moved in both folders.
            if found.done.iter().any(|done| done == id) {
                store.waiting.remove(&file.name);
                continue;
            }
            match read(&store.waiting.path(&file.name), file.size, id) {
                Ok(waiting) => {
                    found.waiting.insert(number, waiting);
                }
                Err(reason) => store.waiting.set_aside(&file.name, &reason),
            }
        }
        Ok((store, found))
    }

    /// Writes one that waits, instead of what had this number.
    pub(super) fn put(&self, number: u64, waiting: &Waiting) -> anyhow::Result<()> {
        let name = name(number, &waiting.notification.id);
        self.waiting.put(|file| {
            file.write_all(&serde_json::to_vec(waiting)?)?;
            Ok(name)
        })?;
        self.waiting.sync()
    }

    /// From now on, it is done.
    pub(super) fn finish(&self, number: u64, id: &str) -> anyhow::Result<()> {
        let (from, to) = (self.waiting.path(&name(number, id)), self.done.path(&format!("{id}.json")));
        fs::rename(&from, &to).with_context(|| format!("move {} to {}", from.display(), to.display()))?;
        self.done.sync()?;
        self.waiting.sync()?;
        self.done.touch(&format!("{id}.json"));
        self.remove_old()
    }

    fn remove_old(&self) -> anyhow::Result<()> {
        self.done.evict(DONE_MAX, DONE_BYTES_MAX, || Ok(BTreeSet::new()))
    }
}

fn name(number: u64, id: &str) -> String {
    format!("{number:012}-{id}.json")
}

fn parse_name(name: &str) -> Option<(u64, &str)> {
    let (number, id) = name.strip_suffix(".json")?.split_once('-')?;
    Some((number.parse().ok()?, id))
}

/// The reason if the file is damaged.
fn read(path: &Path, size: u64, id: &str) -> Result<Waiting, String> {
    if size > FILE_BYTES_MAX {
        return Err(format!("it has {size} bytes"));
    }
    let bytes = fs::read(path).map_err(|failure| failure.to_string())?;
    let waiting: Waiting = serde_json::from_slice(&bytes).map_err(|failure| failure.to_string())?;
    match waiting.notification.id == id && Notification::is_id(id) {
        true => Ok(waiting),
        false => Err("its name is not that of its notification".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::queue::tests::notification;
    use super::*;

    fn waiting(id: &str) -> Waiting {
        Waiting { notification: notification(id, "no_orders"), failing_since_ms: None }
    }

    #[test]
    fn a_notification_waits_or_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let (store, found) = Store::open(folder.path()).unwrap();
        assert!(found.waiting.is_empty() && found.done.is_empty());
        for (number, id) in [(1, "a-1"), (2, "b"), (12, "c")] {
            store.put(number, &waiting(id)).unwrap();
        }
        let failing = Waiting { failing_since_ms: Some(5), ..waiting("b") };
        store.put(2, &failing).unwrap();
        store.finish(1, "a-1").unwrap();
        assert!(store.finish(1, "a-1").is_err());
        let (_, found) = Store::open(folder.path()).unwrap();
        assert_eq!(found.waiting, BTreeMap::from([(2, failing), (12, waiting("c"))]));
        assert_eq!(found.done, ["a-1"]);
        // A power failure may leave a file in both folders.
        store.put(13, &waiting("a-1")).unwrap();
        let (_, found) = Store::open(folder.path()).unwrap();
        assert_eq!((found.waiting.len(), found.done.len()), (2, 1));
    }

    #[test]
    fn damaged_files_are_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(folder.path()).unwrap();
        for (number, id) in [(1, "a"), (2, "b"), (3, "c"), (4, "d")] {
            store.put(number, &waiting(id)).unwrap();
        }
        let path = |name: &str| folder.path().join(name);
        let whole = fs::read(path("000000000001-a.json")).unwrap();
        fs::write(path("000000000001-a.json"), &whole[..whole.len() / 2]).unwrap();
        fs::write(path("000000000002-b.json"), whole).unwrap();
        fs::write(path("000000000003-c.json"), vec![b' '; 2 << 20]).unwrap();
        fs::write(path(".new-x"), "half").unwrap();
        fs::write(path("notes.txt"), "of somebody").unwrap();
        for _ in 0..2 {
            let (_, found) = Store::open(folder.path()).unwrap();
            assert_eq!(found.waiting, BTreeMap::from([(4, waiting("d"))]));
        }
        for name in ["000000000001-a.json.damaged", "000000000002-b.json.damaged", "000000000003-c.json.damaged"] {
            assert!(path(name).exists(), "{name}");
        }
    }
}
