//! The files of the plugins that were loaded, by digest: a version that filled a table can be loaded again after its
//! file in the plugin's folder was replaced.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use tracing::warn;

use super::digest::Digest;
use super::host::VersionsInUse;
use crate::runtime::state_dir::StateDir;

/// Limits of the folder. The least recently loaded files are removed first, but no version that is in use.
const FILES_MAX: usize = 200;
const BYTES_MAX: u64 = 1 << 30;
const EXTENSION: &str = ".wasm";

/// The kept plugins.
pub(super) struct PluginStore {
    folder: StateDir,
}

impl PluginStore {
    pub(super) fn new(folder: StateDir) -> Self {
        Self { folder }
    }

    /// Keeps the file of a plugin that was loaded. A failure is only logged: the plugin works without it.
    pub(super) fn keep(&self, digest: &Digest, bytes: &[u8], in_use: VersionsInUse<'_>) {
        if let Err(error) = self.try_keep(digest, bytes, in_use) {
            warn!(%digest, "keep the plugin's file: {error:#}");
        }
    }

    /// Where the file of a plugin is kept, or would be.
    pub(super) fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.path(&file_name(digest))
    }

    fn try_keep(&self, digest: &Digest, bytes: &[u8], in_use: VersionsInUse<'_>) -> anyhow::Result<()> {
        let name = file_name(digest);
        if std::fs::read(self.folder.path(&name)).is_ok_and(|kept| kept == bytes) {
            self.folder.touch(&name);
            return Ok(());
        }
        self.folder.put(|file| Ok(file.write_all(bytes).map(|()| name)?))?;
        let in_use = || -> anyhow::Result<BTreeSet<String>> {
            Ok(in_use()?.into_iter().filter_map(|version| Some(file_name(&Digest::parse(&version.digest)?))).collect())
        };
        self.folder.evict(FILES_MAX, BYTES_MAX, in_use)
    }

    /// The file of a plugin; `None` if it is not kept, or damaged.
    pub(super) fn get(&self, digest: &Digest) -> anyhow::Result<Option<Vec<u8>>> {
        let path = self.path(digest);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        if Digest::of(&bytes) != *digest {
            self.folder.set_aside(&file_name(digest), "it does not have the digest in its name");
            return Ok(None);
        }
        Ok(Some(bytes))
    }
}

fn file_name(digest: &Digest) -> String {
    format!("{}{EXTENSION}", digest.as_str())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use super::*;
    use crate::delta::PluginVersion;

    #[test]
    fn kept_files_are_found_by_digest_and_altered_ones_are_set_aside() {
        let base = tempfile::tempdir().unwrap();
        let store = PluginStore::new(StateDir::open(base.path()).unwrap());
        let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
        let keep = |digest: &Digest, bytes: &[u8]| store.keep(digest, bytes, &|| Ok(Vec::new()));
        keep(&one, b"one");
        keep(&two, b"two");
        keep(&one, b"one");
        assert_eq!(store.get(&one).unwrap().as_deref(), Some(&b"one"[..]));
        assert_eq!(store.get(&Digest::of(b"three")).unwrap(), None);
        let names: Vec<_> = store.folder.files().unwrap().into_iter().map(|file| file.name).collect();
        assert_eq!(names, [file_name(&two), file_name(&one)], "the most recently loaded file is the last");

        let path = base.path().join(file_name(&two));
        for damaged in [&b"twx"[..], b"t", b"", &[0; 3]] {
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(store.get(&two).unwrap(), None);
            assert_eq!(std::fs::read(path.with_extension("wasm.damaged")).unwrap(), damaged);
            std::fs::write(&path, damaged).unwrap();
            keep(&two, b"two");
            assert_eq!(store.get(&two).unwrap().as_deref(), Some(&b"two"[..]), "a damaged file is written again");
        }
    }

    #[test]
    fn the_versions_in_use_stay_however_many_are_loaded() {
        let base = tempfile::tempdir().unwrap();
        let store = PluginStore::new(StateDir::open(base.path()).unwrap());
        let in_use = Digest::of(b"in use");
        let version = PluginVersion { digest: in_use.as_str().to_owned(), given: None };
        let keep = |bytes: &[u8]| store.keep(&Digest::of(bytes), bytes, &|| Ok(vec![version.clone()]));
        keep(b"in use");
        (0..FILES_MAX + 10).for_each(|number| keep(number.to_string().as_bytes()));
        assert_eq!(store.folder.files().unwrap().len(), FILES_MAX);
        assert_eq!(store.get(&in_use).unwrap().as_deref(), Some(&b"in use"[..]));
        assert_eq!(store.get(&Digest::of(b"0")).unwrap(), None);
    }
}
