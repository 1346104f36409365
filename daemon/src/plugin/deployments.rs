//! Which version of a plugin serves a table, where that is not simply its newest build: somebody deployed it, or silverd
//! rolled back to it. Stored on disk, so that it holds after a restart.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use serde::{Deserialize, Serialize};
use silverd_core::config::ReloadMode;

use super::digest::Digest;
use crate::runtime::clock;
use crate::runtime::state_dir::StateDir;

/// The version that serves one table, and the one that it serves instead of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Deployment {
    /// The digest of the version that serves.
    #[serde(rename = "use")]
    pub(crate) version: String,
    /// The digest of the version that does not.
    pub(crate) instead_of: String,
    #[serde(rename = "why")]
    pub(crate) reason: String,
    at_ms: i64,
    /// Silverd did this, because the other version failed.
    #[serde(default)]
    pub(crate) rolled_back: bool,
}

/// The version that should serve a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The newest build.
    Newest,
    /// The version that serves now.
    Stays,
    /// The version of a deployment.
    Deployed(Digest),
}

impl Deployment {
    /// Somebody deploys a version.
    pub(crate) fn new(version: &Digest, instead_of: &Digest, reason: String) -> Self {
        let (version, instead_of) = (version.as_str().to_owned(), instead_of.as_str().to_owned());
        Self { version, instead_of, reason, at_ms: clock::now_ms(), rolled_back: false }
    }

    /// A version failed, and the one before it serves again.
    pub(crate) fn rollback(version: &Digest, failed: &Digest, reason: String) -> Self {
        Self { rolled_back: true, ..Self::new(version, failed, reason) }
    }

    /// Whether it holds while this is the newest build: another build ends it.
    pub(crate) fn holds_against(&self, newest: &Digest) -> bool {
        self.instead_of == newest.as_str()
    }
}

/// The version that should serve a table while `serving` does.
///
/// | mode   | deployment                                     | the version |
/// |--------|------------------------------------------------|-------------|
/// | watch  | none, or instead of another than the newest build | the newest build |
/// | watch  | somebody's, instead of the newest build        | the deployed one |
/// | watch  | a rollback from the newest build, which serves | the deployed one |
/// | watch  | a rollback from the newest build; another version serves | stays |
/// | manual | none                                           | stays |
/// | manual | any                                            | the deployed one |
pub(crate) fn choose(
    mode: ReloadMode,
    deployment: Option<&Deployment>,
    newest: Option<&Digest>,
    serving: &Digest,
) -> Choice {
    let deployed = |deployment: &Deployment| match Digest::parse(&deployment.version) {
        Some(version) if version != *serving => Choice::Deployed(version),
        _ => Choice::Stays,
    };
    match (mode, deployment) {
        (ReloadMode::Manual, None) => Choice::Stays,
        (ReloadMode::Manual, Some(deployment)) => deployed(deployment),
        (ReloadMode::Watch, Some(deployment)) if newest.is_some_and(|newest| deployment.holds_against(newest)) => {
            match deployment.rolled_back && !deployment.holds_against(serving) {
                true => Choice::Stays,
                false => deployed(deployment),
            }
        }
        (ReloadMode::Watch, _) => Choice::Newest,
    }
}

/// The folder of the deployments: one file for each table.
pub(crate) struct Deployments(StateDir);

impl Deployments {
    pub(super) fn new(folder: StateDir) -> Self {
        Self(folder)
    }

    /// The path of a table's file, whether it exists or not.
    pub(crate) fn path(&self, table: &str) -> PathBuf {
        self.0.path(&file_name(table))
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.0.path("")
    }

    /// The deployment of a table; `None` if there is none, or if its file cannot be read.
    pub(crate) fn get(&self, table: &str) -> Option<Deployment> {
        serde_json::from_slice(&std::fs::read(self.path(table)).ok()?).ok()
    }

    pub(crate) fn put(&self, table: &str, deployment: &Deployment) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(deployment).map_err(|error| anyhow!(error))?;
        let put = self.0.put(|file| Ok(file.write_all(&text).map(|()| file_name(table))?));
        put.map(drop).context("store which version serves")
    }

    pub(crate) fn remove(&self, table: &str) {
        self.0.remove(&file_name(table));
    }
}

fn file_name(table: &str) -> String {
    format!("{table}.json")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use super::*;

    #[test]
    fn the_version_that_should_serve() {
        use ReloadMode::{Manual, Watch};
        let [v1, v2, v3] = [b"1", b"2", b"3"].map(|bytes| Digest::of(bytes));
        let deployed = Deployment::new(&v1, &v3, String::new());
        let rolled_back = Deployment::rollback(&v1, &v3, String::new());
        let to_v1 = || Choice::Deployed(v1.clone());
        for (mode, deployment, newest, serving, choice) in [
            (Watch, None, Some(&v3), &v1, Choice::Newest),
            (Watch, Some(&deployed), Some(&v2), &v1, Choice::Newest),
            (Watch, Some(&deployed), None, &v1, Choice::Newest),
            (Watch, Some(&deployed), Some(&v3), &v3, to_v1()),
            (Watch, Some(&deployed), Some(&v3), &v2, to_v1()),
            (Watch, Some(&deployed), Some(&v3), &v1, Choice::Stays),
            (Watch, Some(&rolled_back), Some(&v3), &v3, to_v1()),
            // A good version served in between, and the failed one was built again.
            (Watch, Some(&rolled_back), Some(&v3), &v2, Choice::Stays),
            (Watch, Some(&rolled_back), Some(&v2), &v1, Choice::Newest),
            (Manual, None, Some(&v3), &v1, Choice::Stays),
            (Manual, Some(&deployed), Some(&v2), &v2, to_v1()),
            (Manual, Some(&deployed), None, &v1, Choice::Stays),
            (Manual, Some(&rolled_back), Some(&v3), &v3, to_v1()),
        ] {
            assert_eq!(
                choose(mode, deployment, newest, serving),
                choice,
                "{mode:?} {deployment:?} {newest:?} {serving}"
            );
        }
    }

    #[test]
    fn deployments_are_stored() {
        let folder = tempfile::tempdir().unwrap();
        let deployments = Deployments::new(StateDir::open(folder.path()).unwrap());
        assert_eq!(deployments.get("hits"), None);
        let deployment = Deployment::rollback(&Digest::of(b"good"), &Digest::of(b"bad"), "it traps".to_owned());
        deployments.put("hits", &deployment).unwrap();
        assert_eq!(deployments.get("hits"), Some(deployment));
        assert_eq!(deployments.get("carts"), None);
        std::fs::write(deployments.path("hits"), "{ no JSON").unwrap();
        assert_eq!(deployments.get("hits"), None);
        deployments.remove("hits");
        assert!(!deployments.path("hits").exists());
    }

    #[test]
    fn deployments_keep_their_format_on_disk() {
        let text = r#"{"use":"a","instead_of":"b","why":"it traps","at_ms":7,"rolled_back":true}"#;
        let deployment: Deployment = serde_json::from_str(text).unwrap();
        assert_eq!((&*deployment.version, &*deployment.instead_of, &*deployment.reason), ("a", "b", "it traps"));
        assert_eq!(serde_json::to_string(&deployment).unwrap(), text);
        let before = r#"{"use":"a","instead_of":"b","why":"it traps","at_ms":7}"#;
        assert!(!serde_json::from_str::<Deployment>(before).unwrap().rolled_back);
    }
}
