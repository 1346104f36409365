//! The daemon's own folder, `[state]` of pipeline.toml: what nobody else may write to, and what a restart can do without.
//!
//! ```text
//!   data/.silverd/            0700
//!     compiled/<key>.cwasm    machine code of plugins; see transform/cache.rs
//!     plugins/<digest>.wasm   the plugins that have filled tables; see transform/store.rs
//! ```
//!
//! Files come into being whole: they are written under another name and renamed.

use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use uuid::Uuid;

/// What others than the owner may do: nothing.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// How files that are being written begin. One that is this old was left behind by a crash.
const UNFINISHED: &str = ".new-";
const UNFINISHED_AGE_MAX: Duration = Duration::from_secs(60 * 60);

/// A folder that belongs to this user alone.
#[derive(Clone, Debug)]
pub struct OwnFolder(PathBuf);

/// A file in it.
pub struct OwnFile {
    pub name: String,
    pub size: u64,
    /// When it was last [used](OwnFolder::touch).
    pub used_at: SystemTime,
}

impl OwnFolder {
    /// Makes the folder, if it is not there.
    ///
    /// # Errors
    ///
    /// If it belongs to somebody else: what lies in it is not to be trusted, then.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(path)
            .with_context(|| format!("create folder {}", path.display()))?;
        let found = fs::metadata(path).with_context(|| format!("look at {}", path.display()))?;
        // SAFETY: takes nothing, and cannot fail.
        let own = unsafe { libc::geteuid() };
        if found.uid() != own {
            bail!(
                "{} belongs to user {}, and silverd runs as user {own}: remove it, or name another folder as `path` in \
                 [state] of pipeline.toml",
                path.display(),
                found.uid()
            );
        }
        if found.mode() & 0o077 != 0 {
            fs::set_permissions(path, fs::Permissions::from_mode(FOLDER_MODE))
                .with_context(|| format!("keep others out of {}", path.display()))?;
        }
        Ok(Self(path.to_path_buf()))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file whole, or not at all. `write` fills it, and gives the name that it is to have.
    pub fn put(&self, write: impl FnOnce(&mut File) -> anyhow::Result<String>) -> anyhow::Result<String> {
        let unfinished = self.path(&format!("{UNFINISHED}{}", Uuid::new_v4()));
        let written = (|| {
            let mut file = File::options().read(true).write(true).create_new(true).mode(FILE_MODE).open(&unfinished)?;
            let name = write(&mut file)?;
            file.flush()?;
            // A rename that outlives a power cut must not name a file that did not.
            file.sync_all()?;
            fs::rename(&unfinished, self.path(&name))?;
            anyhow::Ok(name)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        written.with_context(|| format!("write a file into {}", self.0.display()))
    }

    /// The finished files, the one first that was not used for the longest time.
    pub fn files(&self) -> io::Result<Vec<OwnFile>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            // Another silverd may have removed it since.
            let Ok(found) = entry.metadata() else { continue };
            let Ok(name) = entry.file_name().into_string() else { continue };
            if found.is_file() && !name.starts_with(UNFINISHED) {
                files.push(OwnFile { name, size: found.len(), used_at: used_at(&found) });
            }
        }
        files.sort_by(|a, b| (a.used_at, &a.name).cmp(&(b.used_at, &b.name)));
        Ok(files)
    }

    /// Notes that a file is of use.
    pub fn touch(&self, name: &str) {
        if let Ok(file) = File::options().append(true).open(self.path(name)) {
            let _ = file.set_modified(SystemTime::now());
        }
    }

    pub fn remove(&self, name: &str) {
        let _ = fs::remove_file(self.path(name));
    }

    /// Removes what was not used for the longest time, until so many files of so many bytes are left, and what a crash
    /// left behind.
    pub fn sweep(&self, files_max: usize, bytes_max: u64) -> io::Result<()> {
        let files = self.files()?;
        let (mut count, mut bytes) = (files.len(), files.iter().map(|file| file.size).sum::<u64>());
        for file in files {
            if count <= files_max && bytes <= bytes_max {
                break;
            }
            self.remove(&file.name);
            count -= 1;
            bytes -= file.size;
        }
        for entry in fs::read_dir(&self.0)?.flatten() {
            let unfinished = entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes());
            let old = |found: Metadata| used_at(&found).elapsed().is_ok_and(|age| age > UNFINISHED_AGE_MAX);
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
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn put(folder: &OwnFolder, name: &str, size: usize) {
        folder.put(|file| Ok(file.write_all(&vec![0; size]).map(|()| name.to_owned())?)).unwrap();
    }

    fn names(folder: &OwnFolder) -> Vec<String> {
        folder.files().unwrap().into_iter().map(|file| file.name).collect()
    }

    #[test]
    fn nobody_else_may_look_in() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("a/.silverd");
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        let folder = OwnFolder::open(&path).unwrap();
        put(&folder, "x", 3);
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&path), mode(&folder.path("x"))), (0o700, 0o600));
    }

    #[test]
    fn a_file_that_cannot_be_finished_leaves_nothing() {
        let base = tempfile::tempdir().unwrap();
        let folder = OwnFolder::open(base.path()).unwrap();
        let failed = folder.put(|file| {
            file.write_all(b"half")?;
            bail!("the compiler died")
        });
        assert!(format!("{:#}", failed.unwrap_err()).ends_with("the compiler died"));
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_least_used_go_first() {
        let base = tempfile::tempdir().unwrap();
        let folder = OwnFolder::open(base.path()).unwrap();
        for (at, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
            put(&folder, name, 10);
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(at as u64);
            File::options().append(true).open(folder.path(name)).unwrap().set_modified(time).unwrap();
        }
        folder.touch("a");
        assert_eq!(names(&folder), ["b", "c", "d", "a"]);
        folder.sweep(3, 1000).unwrap();
        assert_eq!(names(&folder), ["c", "d", "a"]);
        folder.sweep(3, 15).unwrap();
        assert_eq!(names(&folder), ["a"]);
        let left_behind = folder.path(&format!("{UNFINISHED}x"));
        let file = File::create(&left_behind).unwrap();
        folder.sweep(3, 15).unwrap();
        assert!(left_behind.exists());
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        folder.sweep(3, 15).unwrap();
        assert!(!left_behind.exists());
    }
}
