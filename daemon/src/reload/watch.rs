//! Notices that files have changed: at once where the file system tells, and by looking every second where it does not,
//! as on a network mount. What counts is what a look finds; a message only says when to look.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::watch;
use tracing::{debug, info};

/// How often it is looked where nobody tells.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// What was not touched for so long is not half written, as a rule; if it is, the next look finds it whole.
const SETTLED_AFTER: Duration = Duration::from_millis(100);

/// The folders that are watched, shared by all who wait.
#[derive(Clone)]
pub struct Watch {
    stirred: watch::Receiver<u64>,
    system: Arc<Mutex<System>>,
}

struct System {
    watcher: Option<RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
}

impl Watch {
    pub fn start() -> Self {
        let (sender, stirred) = watch::channel(0);
        let heard = move |event: notify::Result<notify::Event>| {
            let touched = match event {
                // Reading a file changes nothing.
                Ok(event) => match event.kind {
                    EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
                    _ => true,
                },
                Err(_) => true,
            };
            if touched {
                sender.send_modify(|count| *count += 1);
            }
        };
        let watcher = notify::recommended_watcher(heard);
        if let Err(error) = &watcher {
            info!("the system does not tell of changed files ({error}): silverd looks every second");
        }
        Self { stirred, system: Arc::new(Mutex::new(System { watcher: watcher.ok(), folders: BTreeSet::new() })) }
    }

    /// Watches folders, as far as they are there.
    fn add(&self, folders: &[PathBuf]) {
        let mut system = self.system.lock().unwrap_or_else(PoisonError::into_inner);
        let System { watcher: Some(watcher), folders: known } = &mut *system else { return };
        for folder in folders {
            if !folder.is_dir() {
                known.remove(folder);
            } else if !known.contains(folder) {
                match watcher.watch(folder, RecursiveMode::NonRecursive) {
                    Ok(()) => drop(known.insert(folder.clone())),
                    Err(error) => debug!("watch {}: {error}", folder.display()),
                }
            }
        }
    }

    /// A folder that was removed and made again is another one to the system.
    fn renew(&self, folders: &[PathBuf]) {
        let mut system = self.system.lock().unwrap_or_else(PoisonError::into_inner);
        let System { watcher: Some(watcher), folders: known } = &mut *system else { return };
        for folder in folders {
            if known.remove(folder) {
                let _ = watcher.unwatch(folder);
            }
        }
    }

    /// Waits until the files look otherwise than `before`, and have settled. Gives how they look then.
    ///
    /// `look` says which files, and in which folders they lie.
    pub async fn changed(&mut self, before: &Print, look: impl Fn() -> (Print, Vec<PathBuf>)) -> Print {
        loop {
            let (mut now, folders) = look();
            self.add(&folders);
            if now == *before {
                tokio::select! {
                    told = self.stirred.changed() => if told.is_err() { tokio::time::sleep(LOOK_INTERVAL).await },
                    () = tokio::time::sleep(LOOK_INTERVAL) => {}
                }
                continue;
            }
            loop {
                tokio::time::sleep(SETTLED_AFTER).await;
                let (again, _) = look();
                if again == now {
                    break;
                }
                now = again;
            }
            if now != *before {
                self.renew(&folders);
                return now;
            }
        }
    }
}

/// How some files look from outside: which they are, how long, and when they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Print(Vec<(PathBuf, Option<Look>)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    len: u64,
    modified: Option<SystemTime>,
    /// A file that took another's place by a rename is another one, though its time be the same.
    inode: u64,
}

impl Print {
    pub fn of<P: AsRef<Path>>(files: impl IntoIterator<Item = P>) -> Self {
        let look = |found: Metadata| Look { len: found.len(), modified: found.modified().ok(), inode: found.ino() };
        let of = |file: P| (file.as_ref().to_path_buf(), file.as_ref().metadata().ok().map(look));
        Self(files.into_iter().map(of).collect())
    }

    /// When the newest of them was written.
    pub fn written_at(&self) -> Option<SystemTime> {
        self.0.iter().filter_map(|(_, look)| look.as_ref()?.modified).max()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Runs `change` while somebody waits, and gives what comes of it.
    async fn noticed(mut watch: Watch, change: impl AsyncFnOnce(&Path)) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.wasm");
        std::fs::write(&file, "one").unwrap();
        let look = || (Print::of([&file]), vec![folder.path().to_path_buf()]);
        let (before, _) = look();
        let changed = async { tokio::time::timeout(Duration::from_secs(10), watch.changed(&before, look)).await };
        let (changed, ()) = tokio::join!(changed, change(&file));
        changed.is_ok_and(|now| now == Print::of([&file]) && now != before)
    }

    /// The system tells nothing.
    fn deaf() -> Watch {
        let (_, stirred) = watch::channel(0);
        Watch { stirred, system: Arc::new(Mutex::new(System { watcher: None, folders: BTreeSet::new() })) }
    }

    #[tokio::test]
    async fn a_file_that_is_written_again() {
        assert!(noticed(Watch::start(), async |file| std::fs::write(file, "two").unwrap()).await);
        assert!(noticed(deaf(), async |file| std::fs::write(file, "two").unwrap()).await);
    }

    #[tokio::test]
    async fn a_file_that_another_takes_the_place_of() {
        let replace = async |file: &Path| {
            let other = file.with_extension("new");
            std::fs::write(&other, "one").unwrap();
            let time = file.metadata().unwrap().modified().unwrap();
            std::fs::File::options().append(true).open(&other).unwrap().set_modified(time).unwrap();
            std::fs::rename(&other, file).unwrap();
        };
        assert!(noticed(Watch::start(), replace).await);
        assert!(noticed(deaf(), replace).await);
    }

    #[tokio::test]
    async fn a_file_that_is_written_bit_by_bit_is_told_once_it_is_whole() {
        let write = async |file: &Path| {
            for length in 1..8 {
                std::fs::write(file, "x".repeat(4 + length)).unwrap();
                tokio::time::sleep(SETTLED_AFTER / 4).await;
            }
        };
        assert!(noticed(Watch::start(), write).await);
    }

    #[tokio::test]
    async fn a_file_that_goes_and_comes_in_a_new_folder() {
        let again = async |file: &Path| {
            let folder = file.parent().unwrap();
            std::fs::remove_dir_all(folder).unwrap();
            std::fs::create_dir(folder).unwrap();
            std::fs::write(file, "another").unwrap();
        };
        assert!(noticed(Watch::start(), again).await);
    }
}
