//! The settings and reference files that plugins were given, by their digest: rows can be computed again, and compared,
//! after a price list has changed.
//!
//! ```text
//!   <digest of all>.json    the settings, and for each reference file its name and the digest of its contents
//!   <digest>.file           the contents of a reference file: once, however many versions had it
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Write};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::config::{Config, ReferenceFile};
use super::digest::Digest;
use super::host::VersionsInUse;
use crate::runtime::state_dir::StateDir;

/// Limits of the folder. The least recently given files are removed first, but none that is in use.
const FILES_MAX: usize = 1_000;
const BYTES_MAX: u64 = 1 << 30;

/// The kept configurations.
pub(super) struct ConfigStore {
    folder: StateDir,
}

/// A configuration without the contents of its files.
#[derive(Serialize, Deserialize)]
struct Kept {
    settings: Vec<(String, String)>,
    reference: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wit: Option<String>,
}

impl ConfigStore {
    pub(super) fn new(folder: StateDir) -> Self {
        Self { folder }
    }

    /// Keeps a configuration. A failure is only logged: the plugin works without it.
    pub(super) fn keep(&self, config: &Config, in_use: VersionsInUse<'_>) {
        if let Err(error) = self.try_keep(config, in_use) {
            warn!("keep the settings and reference files of a plugin: {error:#}");
        }
    }

    fn try_keep(&self, config: &Config, in_use: VersionsInUse<'_>) -> anyhow::Result<()> {
        let (settings, wit) = (config.settings.clone(), config.wit.clone());
        let mut kept = Kept { settings, reference: BTreeMap::new(), wit };
        for file in &config.reference {
            let digest = Digest::of(&file.contents);
            self.put(&file_name(&digest), &file.contents)?;
            kept.reference.insert(file.name.clone(), digest.as_str().to_owned());
        }
        self.put(&config_name(&config.digest()), &serde_json::to_vec(&kept)?)?;
        self.folder.evict(FILES_MAX, BYTES_MAX, || self.files_of(in_use))
    }

    /// The files of the versions that are in use.
    fn files_of(&self, in_use: VersionsInUse<'_>) -> anyhow::Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for digest in in_use()?.iter().filter_map(|version| Digest::parse(version.given.as_deref()?)) {
            let name = config_name(&digest);
            if let Some(kept) = self.read(&name)?.and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok()) {
                names.extend(kept.reference.values().filter_map(|digest| Some(file_name(&Digest::parse(digest)?))));
            }
            names.insert(name);
        }
        Ok(names)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        if std::fs::read(self.folder.path(name)).is_ok_and(|kept| kept == bytes) {
            self.folder.touch(name);
            return Ok(());
        }
        self.folder.put(|file| Ok(file.write_all(bytes).map(|()| name.to_owned())?)).map(drop)
    }

    /// The configuration with this digest; `None` if it is not kept, or a file of it is damaged.
    pub(super) fn get(&self, digest: &Digest) -> anyhow::Result<Option<Config>> {
        let name = config_name(digest);
        let Some(bytes) = self.read(&name)? else { return Ok(None) };
        let kept = serde_json::from_slice::<Kept>(&bytes);
        let Ok(Kept { settings, reference, wit }) = kept else {
            self.folder.set_aside(&name, "it is no JSON object with settings and reference files");
            return Ok(None);
        };
        let mut config = Config { settings, reference: Vec::new(), wit };
        for (name, digest) in reference {
            let Some(digest) = Digest::parse(&digest) else { continue };
            let Some(contents) = self.read(&file_name(&digest))? else { return Ok(None) };
            if Digest::of(&contents) != digest {
                self.folder.set_aside(&file_name(&digest), "it does not have the digest in its name");
                return Ok(None);
            }
            config.reference.push(ReferenceFile { name, contents });
        }
        if config.digest() != *digest {
            self.folder.set_aside(&name, "it does not have the digest in its name");
            return Ok(None);
        }
        Ok(Some(config))
    }

    fn read(&self, name: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let path = self.folder.path(name);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }
}

fn config_name(digest: &Digest) -> String {
    format!("{}.json", digest.as_str())
}

fn file_name(digest: &Digest) -> String {
    format!("{}.file", digest.as_str())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use super::*;
    use crate::delta::PluginVersion;

    fn config(setting: &str, contents: &[u8]) -> Config {
        let reference = vec![ReferenceFile { name: "prices".to_owned(), contents: contents.to_vec() }];
        Config { settings: vec![("currency".to_owned(), setting.to_owned())], reference, wit: None }
    }

    #[test]
    fn configurations_are_found_by_digest_and_share_files() {
        let base = tempfile::tempdir().unwrap();
        let store = ConfigStore::new(StateDir::open(base.path()).unwrap());
        let (one, two) = (config("EUR", b"a,1"), config("USD", b"a,1"));
        let keep = |config: &Config| store.keep(config, &|| Ok(Vec::new()));
        keep(&one);
        keep(&two);
        assert_eq!(store.folder.files().unwrap().len(), 3);
        let found = store.get(&two.digest()).unwrap().unwrap();
        assert_eq!((found.settings, &found.reference[0].contents[..]), (two.settings.clone(), &b"a,1"[..]));
        assert!(store.get(&config("EUR", b"a,2").digest()).unwrap().is_none());
        // Damaged, or gone in part: it is kept again.
        for name in [file_name(&Digest::of(b"a,1")), config_name(&one.digest())] {
            for damaged in [&b"a,2"[..], b"", b"{}", &[0; 3]] {
                std::fs::write(store.folder.path(&name), damaged).unwrap();
                assert!(store.get(&one.digest()).unwrap().is_none());
                assert!(!store.folder.path(&name).exists() && store.folder.path(&format!("{name}.damaged")).exists());
                assert!(store.get(&one.digest()).unwrap().is_none());
                keep(&one);
                assert!(store.get(&one.digest()).unwrap().is_some());
            }
        }
    }

    #[test]
    fn the_files_of_the_versions_in_use_are_found() {
        let base = tempfile::tempdir().unwrap();
        let store = ConfigStore::new(StateDir::open(base.path()).unwrap());
        let (in_use, other) = (config("EUR", b"in use"), config("EUR", b"no longer"));
        store.keep(&in_use, &|| Ok(Vec::new()));
        store.keep(&other, &|| Ok(Vec::new()));
        let version = |config: &Config| {
            let given = Some(config.digest().as_str().to_owned());
            PluginVersion { digest: String::new(), given }
        };
        let never_kept = config("EUR", b"never kept");
        let names = store.files_of(&|| Ok(vec![version(&in_use), version(&never_kept), PluginVersion::default()]));
        let kept = [config_name(&in_use.digest()), file_name(&Digest::of(b"in use"))];
        let expected: BTreeSet<String> = kept.into_iter().chain([config_name(&never_kept.digest())]).collect();
        assert_eq!(names.unwrap(), expected);
    }
}
