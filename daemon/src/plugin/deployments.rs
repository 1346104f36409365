//! Which version of a plugin serves a table, where that is not simply its newest build: somebody deployed it, or silverd
//! rolled back to it. Also which versions failed or were rejected, and what is left of a rollback. Stored on disk, so that it
//! holds after a restart.
//!
//! ```text
//!   held/<table>.json            the deployment, and the versions that failed
//!   held/<table>.rejected.json   the versions that were rejected before they served
//!   held/<table>.rebuild.json    the rows of failed versions that the version before has still to make again
//! ```

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use silverd_core::config::ReloadMode;

use super::digest::Digest;
use super::unfinished_rebuild::UnfinishedRebuild;
use crate::delta::PluginVersion;
use crate::runtime::clock;
use crate::runtime::state_dir::StateDir;

/// Versions of a table that are remembered after they failed, and after they were rejected.
const FAILED_MAX: usize = 32;
/// The file that whoever changes the others locks.
const LOCK: &str = ".lock";
/// Rollbacks of a table whose rebuild is remembered until it is done.
const REBUILDS_MAX: usize = 32;

/// The version that serves one table, and the one that it serves instead of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Deployment {
    /// The digest of the version that serves.
    #[serde(rename = "use")]
    pub(crate) version: String,
    /// The digest of its settings and reference files; `None`: the current ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) given: Option<String>,
    /// The digest of the version that does not.
    pub(crate) instead_of: String,
    /// The digest of what that one was given; `None`: whatever it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) instead_of_given: Option<String>,
    #[serde(rename = "why")]
    pub(crate) reason: String,
    at_ms: i64,
    /// Silverd did this, because the other version failed.
    #[serde(default)]
    pub(crate) rolled_back: bool,
}

/// A version that failed on live events, and serves again only if somebody deploys it; or one that was rejected when it was
/// validated, and serves only if it is validated again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FailedVersion {
    pub(crate) digest: String,
    /// The digest of its settings and reference files; `None`: whatever they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) given: Option<String>,
    #[serde(rename = "why")]
    pub(crate) reason: String,
    pub(crate) at_ms: i64,
}

/// What silverd remembers of the versions of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    #[serde(flatten)]
    pub(crate) deployment: Option<Deployment>,
    /// The last ones, in the order in which they failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) failed: Vec<FailedVersion>,
    /// The last ones that were rejected, from a file of their own.
    #[serde(skip)]
    pub(crate) rejected: Vec<FailedVersion>,
    /// When somebody deployed the newest build: it is validated again, even if it was rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    newest_deployed_at_ms: Option<i64>,
}

/// The version that should serve a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The newest build, with the current settings and reference files.
    Newest,
    /// The version that serves now.
    Stays,
    /// The build that serves now, with the current settings and reference files, which are others.
    OtherSettings,
    /// The version of a deployment.
    Deployed(PluginVersion),
}

impl Deployment {
    /// Somebody deploys a version.
    pub(crate) fn new(version: &Digest, instead_of: &Digest, reason: String) -> Self {
        let (version, instead_of) = (version.as_str().to_owned(), instead_of.as_str().to_owned());
        let (given, instead_of_given) = (None, None);
        Self { version, given, instead_of, instead_of_given, reason, at_ms: clock::now_ms(), rolled_back: false }
    }

    /// A version failed, and the one before it serves again. A build is blocked whatever it is given, unless the same build
    /// serves with what it was given before.
    pub(crate) fn rollback(version: &PluginVersion, failed: &PluginVersion, reason: String) -> Self {
        Self {
            version: version.digest.clone(),
            given: version.given.clone(),
            instead_of: failed.digest.clone(),
            instead_of_given: given_at_fault(failed, version),
            reason,
            at_ms: clock::now_ms(),
            rolled_back: true,
        }
    }

    /// Whether it holds while this is the newest build: another build ends it.
    pub(crate) fn holds_against(&self, newest: &Digest) -> bool {
        self.instead_of == newest.as_str()
    }

    /// The version that serves.
    pub(crate) fn plugin(&self) -> PluginVersion {
        PluginVersion { digest: self.version.clone(), given: self.given.clone() }
    }

    fn failed(&self) -> FailedVersion {
        let (digest, given) = (self.instead_of.clone(), self.instead_of_given.clone());
        FailedVersion { digest, given, reason: self.reason.clone(), at_ms: self.at_ms }
    }
}

/// What a version was given, if that is at fault: the build before it is the same.
fn given_at_fault(version: &PluginVersion, before: &PluginVersion) -> Option<String> {
    version.given.clone().filter(|_| version.digest == before.digest)
}

/// A build with settings and reference files that have this digest.
pub(crate) fn version_with(digest: &str, given: &Digest) -> PluginVersion {
    PluginVersion { digest: digest.to_owned(), given: Some(given.as_str().to_owned()) }
}

/// Whether both are the same version, as far as both say what they were given.
pub(crate) fn is_same_version(a: &PluginVersion, b: &PluginVersion) -> bool {
    a.digest == b.digest && (a.given == b.given || a.given.is_none() || b.given.is_none())
}

impl FailedVersion {
    /// A version that was rejected while `active` served.
    pub(crate) fn rejected(version: &PluginVersion, active: &PluginVersion, reason: String) -> Self {
        let given = given_at_fault(version, active);
        Self { digest: version.digest.clone(), given, reason, at_ms: clock::now_ms() }
    }

    fn plugin(&self) -> PluginVersion {
        PluginVersion { digest: self.digest.clone(), given: self.given.clone() }
    }
}

impl Held {
    /// Why a version must not serve; `None` if it may.
    pub(crate) fn failed(&self, version: &PluginVersion) -> Option<&FailedVersion> {
        self.failed.iter().rev().find(|failed| is_same_version(&failed.plugin(), version))
    }

    /// Why a version must not serve without being validated again; `None` if it may.
    pub(crate) fn refused(&self, version: &PluginVersion) -> Option<&FailedVersion> {
        let rejected = || self.rejected.iter().rev().find(|rejected| is_same_version(&rejected.plugin(), version));
        self.failed(version).or_else(rejected)
    }

    /// What somebody deployed, if it holds while this is the newest build.
    pub(crate) fn by_hand(&self, mode: ReloadMode, newest: Option<&Digest>) -> Option<&Deployment> {
        self.deployment.as_ref().filter(|deployment| !deployment.rolled_back).filter(|deployment| match mode {
            ReloadMode::Manual => true,
            ReloadMode::Watch => newest.is_some_and(|newest| deployment.holds_against(newest)),
        })
    }

    /// The version that should serve the table while `serving` does. `given` is the digest of the current settings and
    /// reference files. First, what is asked for:
    ///
    /// | mode   | deployment                                       | asked for |
    /// |--------|--------------------------------------------------|-----------|
    /// | watch  | somebody's, instead of the newest build          | the deployed version |
    /// | watch  | none, a rollback, or instead of another build    | the newest build; where there is none, the build that serves |
    /// | manual | any                                              | the deployed version |
    /// | manual | none                                             | the build that serves |
    ///
    /// Each with the current settings, unless somebody deployed it with others. Then, whether it may serve:
    ///
    /// | it has failed | the version that serves has failed | the version |
    /// |---------------|------------------------------------|-------------|
    /// | no            |                                    | what is asked for |
    /// | yes           | no                                 | the build that serves, with the current settings if these have not failed |
    /// | yes           | yes                                | the one that silverd rolled back to; without one, stays |
    pub(crate) fn choose(
        &self,
        mode: ReloadMode,
        newest: Option<&Digest>,
        given: &Digest,
        serving: &PluginVersion,
    ) -> Choice {
        let with_current = |digest: &str| version_with(digest, given);
        let (asked, choice) = match (self.by_hand(mode, newest), mode, newest, &self.deployment) {
            (Some(deployment), ..) => {
                let mut version = with_current(&deployment.version);
                version.given = deployment.given.clone().or(version.given);
                (version.clone(), Choice::Deployed(version))
            }
            (None, ReloadMode::Watch, Some(newest), _) => (with_current(newest.as_str()), Choice::Newest),
            (None, ReloadMode::Manual, _, Some(rollback)) => {
                let version = with_current(&rollback.version);
                (version.clone(), Choice::Deployed(version))
            }
            (None, ..) => (with_current(&serving.digest), Choice::OtherSettings),
        };
        let has_failed = |version: &PluginVersion| self.failed(version).is_some();
        if !has_failed(&asked) {
            return if is_same_version(&asked, serving) { Choice::Stays } else { choice };
        }
        if has_failed(serving) {
            let rollback = self.deployment.as_ref().filter(|deployment| deployment.rolled_back);
            return rollback.map_or(Choice::Stays, |rollback| Choice::Deployed(rollback.plugin()));
        }
        let refreshed = with_current(&serving.digest);
        match has_failed(&refreshed) || is_same_version(&refreshed, serving) {
            true => Choice::Stays,
            false => Choice::OtherSettings,
        }
    }

    /// Somebody deploys a build: whatever became of it before.
    fn allow(&mut self, digest: &str) {
        self.failed.retain(|failed| failed.digest != digest);
        self.rejected.retain(|rejected| rejected.digest != digest);
    }
}

/// Adds a version to the last ones that failed or were rejected.
fn add(versions: &mut Vec<FailedVersion>, failed: FailedVersion) {
    versions.retain(|known| (&known.digest, &known.given) != (&failed.digest, &failed.given));
    versions.push(failed);
    versions.drain(..versions.len().saturating_sub(FAILED_MAX));
}

/// The folder of the deployments.
pub(crate) struct Deployments(StateDir);

impl Deployments {
    pub(super) fn new(folder: StateDir) -> Self {
        Self(folder)
    }

    /// The path of a table's deployment, whether the file exists or not.
    pub(crate) fn path(&self, table: &str) -> PathBuf {
        self.0.path(&file_name(table))
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.0.path("")
    }

    /// What a file says; the default if there is no such file, or if it is damaged.
    fn read<T: DeserializeOwned + Default>(&self, name: &str) -> T {
        let Ok(text) = std::fs::read(self.0.path(name)) else { return T::default() };
        serde_json::from_slice(&text).unwrap_or_else(|error| {
            self.0.set_aside(name, &format!("{error}; what it said of versions is forgotten"));
            T::default()
        })
    }

    /// The deployment of a table; `None` if there is none, or if its file cannot be read.
    pub(crate) fn get(&self, table: &str) -> Option<Deployment> {
        self.held(table).deployment
    }

    /// What is remembered of a table's versions; nothing if its file cannot be read.
    pub(crate) fn held(&self, table: &str) -> Held {
        let mut held: Held = self.read(&file_name(table));
        held.rejected = self.read(&rejected_name(table));
        // Earlier versions of silverd remembered only the last version that failed.
        let last = held.deployment.as_ref().filter(|deployment| deployment.rolled_back).map(Deployment::failed);
        if let Some(last) = last.filter(|last| held.failed(&last.plugin()).is_none()) {
            add(&mut held.failed, last);
        }
        held
    }

    /// Commands and a daemon change the files: each waits until the others have.
    fn lock(&self) -> anyhow::Result<File> {
        let path = self.0.path(LOCK);
        let file = File::create(&path).and_then(|file| file.lock().map(|()| file));
        file.with_context(|| format!("lock {}", path.display()))
    }

    /// Stores a deployment. A rollback adds the version that failed to those that do not serve again; what somebody deploys
    /// may serve again.
    pub(crate) fn put(&self, table: &str, deployment: &Deployment) -> anyhow::Result<()> {
        let _lock = self.lock()?;
        self.put_locked(table, deployment)
    }

    fn put_locked(&self, table: &str, deployment: &Deployment) -> anyhow::Result<()> {
        let mut held = self.held(table);
        match deployment.rolled_back {
            true => add(&mut held.failed, deployment.failed()),
            false => {
                held.allow(&deployment.version);
                self.forget_rebuilds(table, &deployment.version)?;
            }
        }
        held.deployment = Some(deployment.clone());
        self.store(table, &held)
    }

    /// Ends the deployment: the newest build serves, even if it failed or was rejected before. Other versions that failed still
    /// do not serve.
    pub(crate) fn remove(&self, table: &str, newest: &Digest) -> anyhow::Result<()> {
        let _lock = self.lock()?;
        let mut held = self.held(table);
        held.allow(newest.as_str());
        held.deployment = None;
        held.newest_deployed_at_ms = Some(clock::now_ms());
        self.forget_rebuilds(table, newest.as_str())?;
        self.store(table, &held)
    }

    /// Ends what somebody deployed, because there is another build than the one that it serves instead of.
    pub(crate) fn end_by_hand(&self, table: &str, newest: &Digest) -> anyhow::Result<()> {
        let _lock = self.lock()?;
        let mut held = self.held(table);
        let by_hand = held.deployment.as_ref().filter(|deployment| !deployment.rolled_back);
        if by_hand.is_some_and(|by_hand| !by_hand.holds_against(newest)) {
            held.deployment = None;
            self.store(table, &held)?;
        }
        Ok(())
    }

    /// Remembers a version that was rejected.
    pub(crate) fn add_rejected(&self, table: &str, rejected: FailedVersion) -> anyhow::Result<()> {
        let _lock = self.lock()?;
        let mut versions = self.held(table).rejected;
        add(&mut versions, rejected);
        self.store_rejected(table, &versions)
    }

    /// A build was validated after all.
    pub(crate) fn remove_rejected(&self, table: &str, digest: &Digest) -> anyhow::Result<()> {
        let _lock = self.lock()?;
        let mut versions = self.held(table).rejected;
        let before = versions.len();
        versions.retain(|rejected| rejected.digest != digest.as_str());
        if versions.len() == before { Ok(()) } else { self.store_rejected(table, &versions) }
    }

    /// Says more about a version that failed than when it was rolled back.
    pub(crate) fn set_reason(&self, table: &str, failed: &PluginVersion, reason: &str) -> anyhow::Result<()> {
        let _lock = self.lock()?;
        let mut held = self.held(table);
        for known in held.failed.iter_mut().filter(|known| is_same_version(&known.plugin(), failed)) {
            reason.clone_into(&mut known.reason);
        }
        let of_failed = |deployment: &&mut Deployment| {
            deployment.rolled_back && is_same_version(&deployment.failed().plugin(), failed)
        };
        if let Some(deployment) = held.deployment.as_mut().filter(of_failed) {
            reason.clone_into(&mut deployment.reason);
        }
        self.store(table, &held)
    }

    /// The rebuilds of a table that are not done.
    pub(crate) fn rebuilds(&self, table: &str) -> Vec<UnfinishedRebuild> {
        self.read(&rebuild_name(table))
    }

    /// Remembers a rebuild until it is done.
    pub(crate) fn add_rebuild(&self, table: &str, rebuild: &UnfinishedRebuild) -> anyhow::Result<()> {
        let _lock = self.lock()?;
        let mut rebuilds = self.rebuilds(table);
        rebuilds.push(rebuild.clone());
        rebuilds.drain(..rebuilds.len().saturating_sub(REBUILDS_MAX));
        self.store_rebuilds(table, &rebuilds)
    }

    /// A rebuild is done.
    pub(crate) fn remove_rebuild(&self, table: &str, done: &UnfinishedRebuild) -> anyhow::Result<()> {
        let _lock = self.lock()?;
        let mut rebuilds = self.rebuilds(table);
        rebuilds.retain(|rebuild| rebuild != done);
        self.store_rebuilds(table, &rebuilds)
    }

    /// Completes the rollbacks that a kill interrupted after the rebuild was remembered, and before the version that failed
    /// was.
    pub(crate) fn complete_rollbacks(&self, table: &str) -> anyhow::Result<()> {
        let _lock = self.lock()?;
        for rebuild in self.rebuilds(table) {
            if self.held(table).failed(&rebuild.failed()).is_none() {
                self.put_locked(table, &Deployment::rollback(&rebuild.by(), &rebuild.failed(), rebuild.reason))?;
            }
        }
        Ok(())
    }

    /// Somebody deploys a build on purpose: its rows stay.
    fn forget_rebuilds(&self, table: &str, digest: &str) -> anyhow::Result<()> {
        let mut rebuilds = self.rebuilds(table);
        let before = rebuilds.len();
        rebuilds.retain(|rebuild| rebuild.failed().digest != digest);
        if rebuilds.len() == before { Ok(()) } else { self.store_rebuilds(table, &rebuilds) }
    }

    fn store(&self, table: &str, held: &Held) -> anyhow::Result<()> {
        let Held { deployment, failed, rejected, newest_deployed_at_ms } = held;
        let is_empty = deployment.is_none() && failed.is_empty() && newest_deployed_at_ms.is_none();
        self.store_rejected(table, rejected)?;
        self.write(file_name(table), is_empty, held).context("store which version serves")
    }

    fn store_rejected(&self, table: &str, rejected: &[FailedVersion]) -> anyhow::Result<()> {
        self.write(rejected_name(table), rejected.is_empty(), &rejected).context("store which versions were rejected")
    }

    fn store_rebuilds(&self, table: &str, rebuilds: &[UnfinishedRebuild]) -> anyhow::Result<()> {
        self.write(rebuild_name(table), rebuilds.is_empty(), &rebuilds).context("store which rows are to be rebuilt")
    }

    fn write(&self, name: String, is_empty: bool, content: &impl Serialize) -> anyhow::Result<()> {
        if is_empty {
            self.0.remove(&name);
            return Ok(());
        }
        let text = serde_json::to_vec_pretty(content).map_err(|error| anyhow!(error))?;
        self.0.put(|file| Ok(file.write_all(&text).map(|()| name)?)).map(drop)
    }
}

fn file_name(table: &str) -> String {
    format!("{table}.json")
}

fn rejected_name(table: &str) -> String {
    format!("{table}.rejected.json")
}

fn rebuild_name(table: &str) -> String {
    format!("{table}.rebuild.json")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use super::*;

    /// The build `b`, which was given `g`.
    fn version(b: &str, g: &str) -> PluginVersion {
        let digest = |text: &str| Digest::of(text.as_bytes()).as_str().to_owned();
        PluginVersion { digest: digest(b), given: Some(digest(g)) }
    }

    fn rolled_back(version: &PluginVersion, failed: &PluginVersion) -> Held {
        let mut held = Held::default();
        let rollback = Deployment::rollback(version, failed, String::new());
        add(&mut held.failed, rollback.failed());
        held.deployment = Some(rollback);
        held
    }

    fn by_hand(version: &str, instead_of: &str) -> Held {
        let [version, instead_of] = [version, instead_of].map(|build| Digest::of(build.as_bytes()));
        let deployment = Some(Deployment::new(&version, &instead_of, String::new()));
        Held { deployment, ..Held::default() }
    }

    #[test]
    fn the_version_that_should_serve() {
        use Choice::{Newest, OtherSettings, Stays};
        use ReloadMode::{Manual, Watch};
        let none = Held::default();
        let deployed = by_hand("1", "3");
        let rollback = rolled_back(&version("1", "g"), &version("3", "g"));
        let other_settings = rolled_back(&version("1", "g"), &version("1", "h"));
        let both = rolled_back(&version("1", "g"), &version("3", "h"));
        // Rolled back twice, and deployed in between.
        let mut twice = rolled_back(&version("1", "g"), &version("2", "g"));
        add(&mut twice.failed, FailedVersion { reason: String::new(), at_ms: 0, ..rollback.failed[0].clone() });
        let to = |build: &str, given: &str| Choice::Deployed(version(build, given));
        for (mode, held, newest, given, serving, choice) in [
            (Watch, &none, Some("3"), "g", ("1", "g"), Newest),
            (Watch, &none, Some("3"), "g", ("3", "g"), Stays),
            (Watch, &none, Some("3"), "h", ("3", "g"), Newest),
            (Watch, &none, None, "h", ("1", "g"), OtherSettings),
            (Watch, &deployed, Some("2"), "g", ("1", "g"), Newest),
            (Watch, &deployed, None, "g", ("1", "g"), Stays),
            (Watch, &deployed, Some("3"), "g", ("3", "g"), to("1", "g")),
            (Watch, &deployed, Some("3"), "g", ("1", "g"), Stays),
            (Watch, &deployed, Some("3"), "h", ("1", "g"), to("1", "h")),
            (Watch, &rollback, Some("3"), "g", ("3", "g"), to("1", "g")),
            (Watch, &rollback, Some("3"), "g", ("1", "g"), Stays),
            // A good version served in between, and the failed one was built again.
            (Watch, &rollback, Some("3"), "g", ("2", "g"), Stays),
            (Watch, &rollback, Some("2"), "g", ("1", "g"), Newest),
            // The build that failed stays blocked with other settings, which the one that serves gets.
            (Watch, &rollback, Some("3"), "h", ("1", "g"), OtherSettings),
            (Watch, &rollback, Some("3"), "h", ("1", "h"), Stays),
            (Watch, &twice, Some("3"), "g", ("1", "g"), Stays),
            (Watch, &twice, Some("2"), "g", ("1", "g"), Stays),
            (Watch, &other_settings, Some("1"), "h", ("1", "g"), Stays),
            (Watch, &other_settings, Some("1"), "h", ("1", "h"), to("1", "g")),
            (Watch, &other_settings, Some("1"), "i", ("1", "g"), Newest),
            (Watch, &both, Some("3"), "h", ("1", "g"), OtherSettings),
            (Watch, &both, Some("3"), "g", ("1", "g"), Stays),
            (Manual, &none, Some("3"), "g", ("1", "g"), Stays),
            (Manual, &none, Some("3"), "h", ("1", "g"), OtherSettings),
            (Manual, &deployed, Some("2"), "g", ("2", "g"), to("1", "g")),
            (Manual, &deployed, None, "g", ("1", "g"), Stays),
            (Manual, &rollback, Some("3"), "g", ("3", "g"), to("1", "g")),
            (Manual, &other_settings, Some("1"), "h", ("1", "g"), Stays),
            (Manual, &other_settings, Some("1"), "h", ("1", "h"), to("1", "g")),
        ] {
            let newest = newest.map(|build: &str| Digest::of(build.as_bytes()));
            let chosen =
                held.choose(mode, newest.as_ref(), &Digest::of(given.as_bytes()), &version(serving.0, serving.1));
            assert_eq!(chosen, choice, "{mode:?} {held:?} {newest:?} {given} {serving:?}");
        }
    }

    fn deployments(folder: &tempfile::TempDir) -> Deployments {
        Deployments::new(StateDir::open(folder.path()).unwrap())
    }

    #[test]
    fn deployments_are_stored() {
        let folder = tempfile::tempdir().unwrap();
        let deployments = deployments(&folder);
        assert_eq!(deployments.get("hits"), None);
        let bad = version("bad", "g");
        let deployment = Deployment::rollback(&version("good", "g"), &bad, "it traps".to_owned());
        deployments.put("hits", &deployment).unwrap();
        assert_eq!(deployments.get("hits"), Some(deployment));
        assert_eq!(deployments.get("carts"), None);
        deployments.set_reason("hits", &bad, "it traps. Its rows are rebuilt").unwrap();
        let held = deployments.held("hits");
        assert_eq!(held.failed(&bad).unwrap().reason, "it traps. Its rows are rebuilt");
        assert_eq!(held.deployment.unwrap().reason, "it traps. Its rows are rebuilt");
        std::fs::write(deployments.path("hits"), "{ no JSON").unwrap();
        assert_eq!(deployments.held("hits"), Held::default());
    }

    #[test]
    fn versions_that_failed_are_remembered_until_they_are_deployed() {
        let folder = tempfile::tempdir().unwrap();
        let deployments = deployments(&folder);
        let failed = |build: &str| deployments.held("hits").failed(&version(build, "g")).is_some();
        let digest = |build: &str| Digest::of(build.as_bytes());
        for build in ["2", "3", "4"] {
            let rollback = Deployment::rollback(&version("1", "g"), &version(build, "g"), build.to_owned());
            deployments.put("hits", &rollback).unwrap();
        }
        let by_hand = Deployment::new(&digest("1"), &digest("4"), "by hand".to_owned());
        deployments.put("hits", &by_hand).unwrap();
        assert_eq!(["1", "2", "3", "4"].map(failed), [false, true, true, true]);
        deployments.put("hits", &Deployment::new(&digest("2"), &digest("4"), "by hand".to_owned())).unwrap();
        deployments.remove("hits", &digest("4")).unwrap();
        assert_eq!(deployments.get("hits"), None);
        assert_eq!(["2", "3", "4"].map(failed), [false, true, false]);
        deployments.remove("hits", &digest("3")).unwrap();
        assert!(deployments.held("hits").failed.is_empty());
        for build in 0..100 {
            let rollback = Deployment::rollback(&version("1", "g"), &version(&format!("b{build}"), "g"), String::new());
            deployments.put("hits", &rollback).unwrap();
        }
        assert_eq!(deployments.held("hits").failed.len(), FAILED_MAX);
        assert!(failed("b99") && !failed("b0"));
    }

    #[test]
    fn rebuilds_are_remembered_until_they_are_done() {
        let folder = tempfile::tempdir().unwrap();
        let deployments = deployments(&folder);
        let (good, bad) = (version("good", "g"), version("bad", "g"));
        let rebuild = UnfinishedRebuild::new(&bad, &good, "it traps".to_owned(), &[], 7);
        deployments.add_rebuild("hits", &rebuild).unwrap();
        assert_eq!(deployments.rebuilds("hits"), std::slice::from_ref(&rebuild));
        // A kill came before the version was blocked.
        deployments.complete_rollbacks("hits").unwrap();
        let held = deployments.held("hits");
        assert_eq!(held.deployment.as_ref().map(Deployment::plugin), Some(good.clone()));
        assert!(held.failed(&bad).is_some());
        deployments.remove_rebuild("hits", &rebuild).unwrap();
        assert!(deployments.rebuilds("hits").is_empty());
        deployments.add_rebuild("hits", &rebuild).unwrap();
        deployments.remove("hits", &Digest::parse(&bad.digest).unwrap()).unwrap();
        assert!(deployments.rebuilds("hits").is_empty(), "somebody deployed the version on purpose");
    }

    #[test]
    fn versions_that_were_rejected_are_remembered_until_they_are_validated_or_deployed() {
        let folder = tempfile::tempdir().unwrap();
        let deployments = deployments(&folder);
        let digest = |build: &str| Digest::of(build.as_bytes());
        let is_refused = |build: &str, given: &str| deployments.held("hits").refused(&version(build, given)).is_some();
        let reject = |build: &str, given: &str| {
            let rejected = FailedVersion::rejected(&version(build, given), &version("1", "g"), "it rejects".to_owned());
            deployments.add_rejected("hits", rejected).unwrap();
        };
        for build in ["2", "3", "4"] {
            reject(build, "g");
        }
        // The build that serves, with other settings: these are at fault.
        reject("1", "h");
        assert!(is_refused("2", "g") && is_refused("2", "h") && is_refused("1", "h") && !is_refused("1", "g"));
        assert!(deployments.held("hits").failed(&version("2", "g")).is_none(), "it can be validated again");
        assert!(!deployments.path("hits").exists(), "no reloader looks again");
        deployments.remove_rejected("hits", &digest("2")).unwrap();
        deployments.put("hits", &Deployment::new(&digest("3"), &digest("4"), String::new())).unwrap();
        assert!(!is_refused("2", "g") && !is_refused("3", "g") && is_refused("4", "g"));
        deployments.remove("hits", &digest("4")).unwrap();
        assert!(!is_refused("4", "g"));
    }

    #[test]
    fn another_build_ends_what_somebody_deployed() {
        let folder = tempfile::tempdir().unwrap();
        let deployments = deployments(&folder);
        let [one, two, three] = ["1", "2", "3"].map(|build| Digest::of(build.as_bytes()));
        let by_hand = Deployment::new(&one, &two, String::new());
        deployments.put("hits", &by_hand).unwrap();
        deployments.end_by_hand("hits", &two).unwrap();
        assert_eq!(deployments.get("hits"), Some(by_hand));
        deployments.end_by_hand("hits", &three).unwrap();
        assert_eq!(deployments.get("hits"), None);
        let rollback = Deployment::rollback(&version("1", "g"), &version("2", "g"), String::new());
        deployments.put("hits", &rollback).unwrap();
        deployments.end_by_hand("hits", &three).unwrap();
        assert_eq!(deployments.get("hits"), Some(rollback));
    }

    #[test]
    fn deployments_keep_their_format_on_disk() {
        let text = r#"{"use":"a","instead_of":"b","why":"it traps","at_ms":7,"rolled_back":true}"#;
        let deployment: Deployment = serde_json::from_str(text).unwrap();
        assert_eq!((&*deployment.version, &*deployment.instead_of, &*deployment.reason), ("a", "b", "it traps"));
        assert_eq!(serde_json::to_string(&deployment).unwrap(), text);
        let before = r#"{"use":"a","instead_of":"b","why":"it traps","at_ms":7}"#;
        assert!(!serde_json::from_str::<Deployment>(before).unwrap().rolled_back);
        // The file of an earlier silverd: the version failed with any settings.
        let folder = tempfile::tempdir().unwrap();
        let deployments = deployments(&folder);
        std::fs::write(deployments.path("hits"), text).unwrap();
        let held = deployments.held("hits");
        assert_eq!(held.deployment, Some(deployment));
        let bad = PluginVersion { digest: "b".to_owned(), given: Some("g".to_owned()) };
        assert_eq!(held.failed(&bad).map(|failed| &*failed.reason), Some("it traps"));
        // With more than that, an earlier silverd still reads the deployment.
        let text = serde_json::to_string(&held).unwrap();
        assert_eq!(serde_json::from_str::<Deployment>(&text).unwrap(), held.deployment.unwrap());
    }
}
