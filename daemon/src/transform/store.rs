//! Every plugin that has been loaded, by its digest: what a table was filled by can be had again, whatever lies in the
//! folder of plugins by then.

use std::io::Write;
use std::time::SystemTime;

use anyhow::{Context, bail};
use tracing::warn;

use super::plugin::Digest;
use crate::state::OwnFolder;

/// How many are kept, and how large they may be together. Those that were not loaded for the longest time go first.
const FILES_MAX: usize = 200;
const BYTES_MAX: u64 = 1 << 30;
const EXTENSION: &str = ".wasm";

/// The kept plugins.
pub struct Store {
    folder: OwnFolder,
}

/// A plugin that is kept.
#[derive(Clone, Debug)]
pub struct Kept {
    pub digest: Digest,
    pub size: u64,
    /// When it was last loaded.
    pub loaded_at: SystemTime,
}

impl Store {
    pub fn new(folder: OwnFolder) -> Self {
        Self { folder }
    }

    /// Keeps a plugin that has proven good. That it could not be kept is no reason not to use it.
    pub fn keep(&self, digest: &Digest, bytes: &[u8]) {
        if let Err(error) = self.try_keep(digest, bytes) {
            warn!(%digest, "keep the plugin for later: {error:#}");
        }
    }

    fn try_keep(&self, digest: &Digest, bytes: &[u8]) -> anyhow::Result<()> {
        let name = name_of(digest);
        if self.folder.path(&name).metadata().is_ok_and(|found| found.len() == bytes.len() as u64) {
            self.folder.touch(&name);
            return Ok(());
        }
        self.folder.put(|file| Ok(file.write_all(bytes).map(|()| name)?))?;
        Ok(self.folder.sweep(FILES_MAX, BYTES_MAX)?)
    }

    /// The bytes of a plugin, which are what its digest says; `None` if it is not kept.
    pub fn get(&self, digest: &Digest) -> anyhow::Result<Option<Vec<u8>>> {
        let path = self.folder.path(&name_of(digest));
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        if Digest::of(&bytes) != *digest {
            bail!("{} was altered: remove it, and build the plugin again", path.display());
        }
        Ok(Some(bytes))
    }

    /// What is kept, the last loaded last.
    pub fn list(&self) -> anyhow::Result<Vec<Kept>> {
        let kept = self.folder.files()?.into_iter().filter_map(|file| {
            let digest = Digest::parse(file.name.strip_suffix(EXTENSION)?)?;
            Some(Kept { digest, size: file.size, loaded_at: file.used_at })
        });
        Ok(kept.collect())
    }
}

fn name_of(digest: &Digest) -> String {
    format!("{}{EXTENSION}", digest.as_str())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_kept_comes_back_as_it_was() {
        let base = tempfile::tempdir().unwrap();
        let store = Store::new(OwnFolder::open(base.path()).unwrap());
        let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
        store.keep(&one, b"one");
        store.keep(&two, b"two");
        store.keep(&one, b"one");
        assert_eq!(store.get(&one).unwrap().as_deref(), Some(&b"one"[..]));
        assert_eq!(store.get(&Digest::of(b"three")).unwrap(), None);
        let listed: Vec<_> = store.list().unwrap().into_iter().map(|kept| kept.digest).collect();
        assert_eq!(listed, [two.clone(), one.clone()], "the last loaded comes last");

        let path = base.path().join(name_of(&two));
        std::fs::write(&path, b"twx").unwrap();
        let told = format!("{:#}", store.get(&two).unwrap_err());
        assert_eq!(told, format!("{} was altered: remove it, and build the plugin again", path.display()));
        std::fs::write(&path, b"t").unwrap();
        store.keep(&two, b"two");
        assert_eq!(store.get(&two).unwrap().as_deref(), Some(&b"two"[..]), "a file that was cut off is written anew");
    }
}
