//! The state folder, `[state]` of pipeline.toml: files that only silverd may write, and that it can do without at a
//! restart.
//!
//! ```text
//!   data/.silverd/            0700
//!     compiled/<key>.cwasm    machine code of plugins; see plugin/cache.rs
//!     plugins/<digest>.wasm   the plugins that have filled tables; see plugin/store.rs
//!     given/<digest>.json     the settings that they were given; see plugin/config_store.rs
//!     held/<table>.json       which version serves instead of the newest build; see plugin/deployments.rs
//!     serving/<table>.json    which version serves in a running silverd; see plugin/serving.rs
//!     alerts/state.json       where each alert is; see alerts/store.rs
//!     alerts/outbox/<receiver>  notifications that are not delivered yet; see notify/store.rs
//! ```
//!
//! A file is written under a temporary name and then renamed, so that nobody ever reads half of it. One that is damaged all the
//! same is set aside under another name, and silverd goes on as without it.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use tracing::warn;
use uuid::Uuid;

use super::clock;

/// Only the owner has access.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// The name of an unfinished file begins so.
const UNFINISHED: &str = ".new-";
/// The name of a damaged file ends so.
const DAMAGED: &str = ".damaged";
/// A crash left an unfinished file behind that is older than this.
const UNFINISHED_AGE_MAX: Duration = Duration::from_secs(60 * 60);

/// A folder that only this user can read and write.
#[derive(Clone, Debug)]
pub(crate) struct StateDir(PathBuf);

/// A file in a state folder.
pub(crate) struct StateFile {
    pub(crate) name: String,
    pub(crate) size: u64,
    /// When it was last [used](StateDir::touch).
    pub(crate) used_at: SystemTime,
}

impl StateDir {
    /// Creates the folder if it does not exist.
    ///
    /// # Errors
    ///
    /// If it belongs to another user: its contents cannot be trusted.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(path)
            .with_context(|| format!("create folder {}", path.display()))?;
        let found = fs::metadata(path).with_context(|| format!("read metadata of {}", path.display()))?;
        // SAFETY: the call takes no argument and cannot fail.
        let own = unsafe { libc::geteuid() };
        if found.uid() != own {
            bail!(
                "folder {} belongs to user {}, but silverd runs as user {own}: remove the folder, or set another \
                 `path` under [state] in pipeline.toml",
                path.display(),
                found.uid()
            );
        }
        if found.mode() & 0o077 != 0 {
            fs::set_permissions(path, fs::Permissions::from_mode(FOLDER_MODE))
                .with_context(|| format!("restrict access to {}", path.display()))?;
        }
        Ok(Self(path.to_path_buf()))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file completely or not at all. `write` writes its contents and returns its name.
    pub(crate) fn put(&self, write: impl FnOnce(&mut File) -> anyhow::Result<String>) -> anyhow::Result<String> {
        let unfinished = self.path(&format!("{UNFINISHED}{}", Uuid::new_v4()));
        let written = (|| {
            let mut file = File::options().read(true).write(true).create_new(true).mode(FILE_MODE).open(&unfinished)?;
            let name = write(&mut file)?;
            file.flush()?;
            // After a power failure the rename may be on disk although the contents are not.
            file.sync_all()?;
            fs::rename(&unfinished, self.path(&name))?;
            anyhow::Ok(name)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        written.with_context(|| format!("write a file to {}", self.0.display()))
    }

    /// After a power failure, the names of the files are those of now.
    pub(crate) fn sync(&self) -> anyhow::Result<()> {
        let sync = File::open(&self.0).and_then(|folder| folder.sync_all());
        sync.with_context(|| format!("write the entries of {} to the disk", self.0.display()))
    }

    /// The finished files, the least recently used first.
    pub(crate) fn files(&self) -> io::Result<Vec<StateFile>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            // Another silverd may have removed it in the meantime.
            let Ok(found) = entry.metadata() else { continue };
            let Ok(name) = entry.file_name().into_string() else { continue };
            if found.is_file() && !name.starts_with(UNFINISHED) {
                files.push(StateFile { name, size: found.len(), used_at: used_at(&found) });
            }
        }
        files.sort_by(|a, b| (a.used_at, &a.name).cmp(&(b.used_at, &b.name)));
        Ok(files)
    }

    /// Records that a file was used.
    pub(crate) fn touch(&self, name: &str) {
        if let Ok(file) = File::options().append(true).open(self.path(name)) {
            let _ = file.set_modified(clock::now());
        }
    }

    pub(crate) fn remove(&self, name: &str) {
        let _ = fs::remove_file(self.path(name));
    }

    /// Sets a damaged file aside, so that it is written again, or silverd goes on without it.
    pub(crate) fn set_aside(&self, name: &str, reason: &str) {
        let (from, to) = (self.path(name), self.path(&format!("{name}{DAMAGED}")));
        let file = from.display();
        match fs::rename(&from, &to) {
            Ok(()) => warn!("{file} is damaged ({reason}): it was moved to {}", to.display()),
            // Another silverd was faster.
            Err(failure) if failure.kind() == io::ErrorKind::NotFound => {}
            Err(failure) => warn!("{file} is damaged ({reason}), and cannot be moved away: {failure}"),
        }
    }

    /// Removes the least recently used files until at most so many files with so many bytes are left. The files that
    /// `in_use` names stay; it is asked only if something must go. Also removes unfinished files that a crash left behind.
    pub(crate) fn evict(
        &self,
        files_max: usize,
        bytes_max: u64,
        in_use: impl FnOnce() -> anyhow::Result<BTreeSet<String>>,
    ) -> anyhow::Result<()> {
        self.remove_unfinished()?;
        let files = self.files()?;
        let (mut count, mut bytes) = (files.len(), files.iter().map(|file| file.size).sum::<u64>());
        if count <= files_max && bytes <= bytes_max {
            return Ok(());
        }
        let in_use = in_use().context("find out which files are in use; none is removed")?;
        for file in files.into_iter().filter(|file| !in_use.contains(&file.name)) {
            self.remove(&file.name);
            count -= 1;
            bytes -= file.size;
            if count <= files_max && bytes <= bytes_max {
                break;
            }
        }
        Ok(())
    }

    fn remove_unfinished(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.0)?.flatten() {
            let unfinished = entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes());
            let old = |found: Metadata| {
                clock::now().duration_since(used_at(&found)).is_ok_and(|age| age > UNFINISHED_AGE_MAX)
            };
            if unfinished && entry.metadata().is_ok_and(old) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }
}

fn used_at(found: &Metadata) -> SystemTime {
    found.modified().unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use super::*;

    fn put(folder: &StateDir, name: &str, size: usize) {
        folder.put(|file| Ok(file.write_all(&vec![0; size]).map(|()| name.to_owned())?)).unwrap();
    }

    fn names(folder: &StateDir) -> Vec<String> {
        folder.files().unwrap().into_iter().map(|file| file.name).collect()
    }

    #[test]
    fn only_the_owner_has_access() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("a/.silverd");
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        let folder = StateDir::open(&path).unwrap();
        put(&folder, "x", 3);
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&path), mode(&folder.path("x"))), (0o700, 0o600));
    }

    #[test]
    fn a_failed_write_leaves_no_file() {
        let base = tempfile::tempdir().unwrap();
        let folder = StateDir::open(base.path()).unwrap();
        let failed = folder.put(|file| {
            file.write_all(b"half")?;
            bail!("compile")
        });
        assert!(format!("{:#}", failed.unwrap_err()).ends_with("compile"));
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_least_recently_used_files_are_evicted_first() {
        let base = tempfile::tempdir().unwrap();
        let folder = StateDir::open(base.path()).unwrap();
        for (at, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
            put(&folder, name, 10);
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(at as u64);
            File::options().append(true).open(folder.path(name)).unwrap().set_modified(time).unwrap();
        }
        folder.touch("a");
        assert_eq!(names(&folder), ["b", "c", "d", "a"]);
        let evict = |files_max, bytes_max| folder.evict(files_max, bytes_max, || Ok(BTreeSet::new())).unwrap();
        evict(3, 1000);
        assert_eq!(names(&folder), ["c", "d", "a"]);
        evict(3, 15);
        assert_eq!(names(&folder), ["a"]);
        let left_behind = folder.path(&format!("{UNFINISHED}x"));
        let file = File::create(&left_behind).unwrap();
        evict(3, 15);
        assert!(left_behind.exists());
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        evict(3, 15);
        assert!(!left_behind.exists());
    }

    #[test]
    fn damaged_files_are_set_aside() {
        let base = tempfile::tempdir().unwrap();
        let folder = StateDir::open(base.path()).unwrap();
        for size in [3, 5] {
            put(&folder, "a.json", size);
            folder.set_aside("a.json", "it is empty");
            assert_eq!(folder.path("a.json.damaged").metadata().unwrap().len(), size as u64);
            assert!(!folder.path("a.json").exists());
        }
        folder.set_aside("a.json", "it is not there");
    }

    #[test]
    fn files_in_use_stay() {
        let base = tempfile::tempdir().unwrap();
        let folder = StateDir::open(base.path()).unwrap();
        for (at, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
            put(&folder, name, 10);
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(at as u64);
            File::options().append(true).open(folder.path(name)).unwrap().set_modified(time).unwrap();
        }
        let in_use = || Ok(BTreeSet::from(["a".to_owned(), "c".to_owned()]));
        folder.evict(3, 1000, in_use).unwrap();
        assert_eq!(names(&folder), ["a", "c", "d"]);
        folder.evict(1, 1000, in_use).unwrap();
        assert_eq!(names(&folder), ["a", "c"], "more than the limit");
        folder.evict(1, 1000, || bail!("the log cannot be read")).unwrap_err();
        assert_eq!(names(&folder), ["a", "c"]);
        folder.evict(2, 1000, || bail!("not asked")).unwrap();
    }
}
