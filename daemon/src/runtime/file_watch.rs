//! Notices that files have changed: immediately if the file system sends notifications, and by checking every second if
//! it does not, as on a network mount. A notification only triggers a check; the check decides.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{debug, info};

const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Files that did not change for so long are probably written completely. If not, the next check notices the rest.
const QUIET_PERIOD: Duration = Duration::from_millis(100);

/// Watches files. Clones share the watched folders.
#[derive(Clone)]
pub struct FileWatch {
    /// Counts the notifications of the file system.
    notifications: watch::Receiver<u64>,
    folders: Arc<Mutex<WatchedFolders>>,
}

struct WatchedFolders {
    /// `None`: the system sends no notifications.
    watcher: Option<RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
}

impl FileWatch {
    pub fn start() -> Self {
        let (sender, notifications) = watch::channel(0);
        let on_event = move |event: notify::Result<notify::Event>| {
            if event.is_err() || event.is_ok_and(|event| may_change_files(event.kind)) {
                sender.send_modify(|count| *count += 1);
            }
        };
        let watcher = notify::recommended_watcher(on_event);
        if let Err(error) = &watcher {
            info!("the system sends no file notifications ({error}); checking files every second instead");
        }
        Self::new(notifications, watcher.ok())
    }

    /// Checks the files every second, as where the system sends no notifications.
    #[cfg(test)]
    pub(crate) fn without_notifications() -> Self {
        Self::new(watch::channel(0).1, None)
    }

    fn new(notifications: watch::Receiver<u64>, watcher: Option<RecommendedWatcher>) -> Self {
        Self { notifications, folders: Arc::new(Mutex::new(WatchedFolders { watcher, folders: BTreeSet::new() })) }
    }

    /// Waits until the files differ from `before` and were not written for a moment, and returns their new state.
    ///
    /// `read_stamp` gives the state of the files now, and the folders that contain them.
    pub async fn changed(
        &mut self,
        before: &FileStamp,
        read_stamp: impl Fn() -> (FileStamp, Vec<PathBuf>),
    ) -> FileStamp {
        loop {
            let (mut now, folders) = read_stamp();
            self.folders.lock().add(&folders);
            if now == *before {
                self.wait_for_check().await;
                continue;
            }
            loop {
                tokio::time::sleep(QUIET_PERIOD).await;
                let (again, _) = read_stamp();
                if again == now {
                    break;
                }
                now = again;
            }
            if now != *before {
                self.folders.lock().remove(&folders);
                return now;
            }
        }
    }

    async fn wait_for_check(&mut self) {
        let notified = async {
            if self.notifications.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let _ = tokio::time::timeout(CHECK_INTERVAL, notified).await;
    }
}

impl WatchedFolders {
    /// Watches the folders that exist.
    fn add(&mut self, folders: &[PathBuf]) {
        let Self { watcher: Some(watcher), folders: watched } = self else { return };
        for folder in folders {
            if !folder.is_dir() {
                watched.remove(folder);
            } else if !watched.contains(folder) {
                match watcher.watch(folder, RecursiveMode::NonRecursive) {
                    Ok(()) => drop(watched.insert(folder.clone())),
                    Err(error) => debug!("watch {}: {error}", folder.display()),
                }
            }
        }
    }

    /// Stops watching the folders. The next check adds them again: a folder that was removed and created again is
    /// another one for the system.
    fn remove(&mut self, folders: &[PathBuf]) {
        let Self { watcher: Some(watcher), folders: watched } = self else { return };
        for folder in folders {
            if watched.remove(folder) {
                let _ = watcher.unwatch(folder);
            }
        }
    }
}

/// Reading a file changes nothing.
fn may_change_files(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

/// Identity, length and modification time of some files. It differs if a file has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileStamp(Vec<(PathBuf, Option<FileState>)>);

/// Of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileState {
    len: u64,
    modified: Option<SystemTime>,
    /// Differs if another file with the same modification time was renamed to this name.
    inode: u64,
}

impl FileState {
    /// `None` if there is no such file.
    pub(crate) fn of(file: &Path) -> Option<Self> {
        let found = file.metadata().ok()?;
        Some(Self { len: found.len(), modified: found.modified().ok(), inode: found.ino() })
    }
}

impl FileStamp {
    pub fn of<P: AsRef<Path>>(files: impl IntoIterator<Item = P>) -> Self {
        let stamp = |file: P| (file.as_ref().to_path_buf(), FileState::of(file.as_ref()));
        Self(files.into_iter().map(stamp).collect())
    }

    /// When the newest of the files was written.
    pub fn written_at(&self) -> Option<SystemTime> {
        self.0.iter().filter_map(|(_, state)| state.as_ref()?.modified).max()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use super::*;

    /// Runs `change` during a wait, and says whether the wait noticed it.
    async fn is_noticed(mut watch: FileWatch, change: impl AsyncFnOnce(&Path)) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.wasm");
        std::fs::write(&file, "one").unwrap();
        let read_stamp = || (FileStamp::of([&file]), vec![folder.path().to_path_buf()]);
        let (before, _) = read_stamp();
        let changed = async { tokio::time::timeout(Duration::from_secs(10), watch.changed(&before, read_stamp)).await };
        let (changed, ()) = tokio::join!(changed, change(&file));
        changed.is_ok_and(|now| now == FileStamp::of([&file]) && now != before)
    }

    fn without_notifications() -> FileWatch {
        let (_, notifications) = watch::channel(0);
        FileWatch::new(notifications, None)
    }

    #[tokio::test]
    async fn a_rewritten_file_is_noticed() {
        assert!(is_noticed(FileWatch::start(), async |file| std::fs::write(file, "two").unwrap()).await);
        assert!(is_noticed(without_notifications(), async |file| std::fs::write(file, "two").unwrap()).await);
    }

    #[tokio::test]
    async fn a_file_replaced_by_a_rename_is_noticed() {
        let replace = async |file: &Path| {
            let other = file.with_extension("new");
            std::fs::write(&other, "one").unwrap();
            let time = file.metadata().unwrap().modified().unwrap();
            std::fs::File::options().append(true).open(&other).unwrap().set_modified(time).unwrap();
            std::fs::rename(&other, file).unwrap();
        };
        assert!(is_noticed(FileWatch::start(), replace).await);
        assert!(is_noticed(without_notifications(), replace).await);
    }

    #[tokio::test]
    async fn a_file_written_in_pieces_is_noticed_once_it_is_complete() {
        let write = async |file: &Path| {
            for length in 1..8 {
                std::fs::write(file, "x".repeat(4 + length)).unwrap();
                tokio::time::sleep(QUIET_PERIOD / 4).await;
            }
        };
        assert!(is_noticed(FileWatch::start(), write).await);
    }

    #[tokio::test]
    async fn a_file_in_a_recreated_folder_is_noticed() {
        let recreate = async |file: &Path| {
            let folder = file.parent().unwrap();
            std::fs::remove_dir_all(folder).unwrap();
            std::fs::create_dir(folder).unwrap();
            std::fs::write(file, "another").unwrap();
        };
        assert!(is_noticed(FileWatch::start(), recreate).await);
    }
}
