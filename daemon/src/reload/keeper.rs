//! Watches what a table's plugin is made of, and brings each new version to the table's desk once it is proven.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use silverd_core::config::{Reload, SilverTable};
use tokio::sync::watch;
use tracing::{error, info};

use super::prove::start;
use super::{Candidate, Desk, Held, Kit, Print, Watch, prove};
use crate::silver::load_kept;
use crate::spans;
use crate::telemetry::TableStats;
use crate::transform::build::{Place, wasm_of};
use crate::transform::{Digest, Plugin};

/// What pipeline.toml asks of a table and its plugin, as it stands now.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    pub table: SilverTable,
    pub reload: Reload,
}

/// The keeper of one table's plugin.
pub struct Keeper {
    pub wanted: watch::Receiver<Wanted>,
    pub desk: Arc<Desk>,
    pub stats: Arc<TableStats>,
    pub kit: Kit,
    pub watch: Watch,
}

/// How soon a plugin is looked for again whose place cannot be found.
const RETRY: Duration = Duration::from_secs(5);

impl Keeper {
    /// Works until it is dropped.
    pub async fn run(mut self) {
        self.desk.served().await;
        let mut first = true;
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            let plugin = self.kit.base.join(&*wanted.table.plugin);
            let place = tokio::task::spawn_blocking(move || Place::of(&plugin)).await;
            match place.map_err(anyhow::Error::new).and_then(|place| place) {
                Ok(place) => self.follow(&wanted, &place, first).await,
                Err(failure) => {
                    self.refuse(None, &failure);
                    tokio::select! { () = tokio::time::sleep(RETRY) => {} _ = self.wanted.changed() => {} }
                }
            }
            first = false;
        }
    }

    /// Looks at one place until something else is wanted.
    async fn follow(&self, wanted: &Wanted, place: &Place, first: bool) {
        let files = || self.files(&wanted.table, place);
        let (mut seen, _) = files();
        // What the daemon began with may be older than its sources.
        let wasm = if first { build(self.kit.base.join(&*wanted.table.plugin)).await } else { lies(place) };
        self.consider(wanted, wasm).await;
        let (mut watch, mut asked) = (self.watch.clone(), self.wanted.clone());
        loop {
            let look = || self.files(&wanted.table, place);
            tokio::select! {
                now = watch.changed(&seen, look) => seen = now,
                changed = asked.changed() => {
                    if changed.is_err() {
                        std::future::pending::<()>().await;
                    }
                    return;
                }
            }
            self.consider(wanted, lies(place)).await;
        }
    }

    /// What a version is made of, and where it lies.
    fn files(&self, table: &SilverTable, place: &Place) -> (Print, Vec<PathBuf>) {
        let mut files: Vec<PathBuf> = place.wasm().into_iter().collect();
        files.extend(table.reference.values().map(|file| self.kit.base.join(&**file)));
        let mut folders = place.folders();
        folders.extend(files.iter().skip(1).filter_map(|file| file.parent().map(Path::to_path_buf)));
        if let Some(holds) = &self.kit.host.holds {
            files.push(holds.path(&table.name));
            folders.push(holds.folder());
        }
        (Print::of(files), folders)
    }

    /// Proves what lies in the plugin's place, if it is another version than the one that serves.
    async fn consider(&self, wanted: &Wanted, wasm: anyhow::Result<PathBuf>) {
        loop {
            let Some(serving) = self.desk.serving() else { return };
            let proven = async {
                let wasm = wasm.as_ref().map_err(|failure| anyhow!("{failure:#}"))?;
                let lies = digest_of(wasm.clone()).await?;
                let holds = self.kit.host.holds.as_ref();
                match holds.and_then(|holds| holds.held_off(&wanted.table.name, &lies)) {
                    Some(held) => self.put_back(&wanted.table, &held, &serving).await,
                    None => {
                        self.stats.plugin_refused(None);
                        let proof = prove(&self.kit, &wanted.table, &wanted.reload, (wasm, &lies), &serving);
                        spans::tell(spans::plugin_proof(&wanted.table.name), proof).await
                    }
                }
            };
            match proven.await {
                Ok(Some(candidate)) => return self.bring(candidate),
                Ok(None) => {
                    // Back to what it was: whatever waited does not any more, unless it was taken up a moment ago.
                    self.desk.clear();
                    if self.desk.serving().is_some_and(|now| Arc::ptr_eq(&now, &serving)) {
                        return;
                    }
                }
                Err(failure) => return self.refuse(Some(&serving), &failure),
            }
        }
    }

    /// The version that is used instead of one that is held off; `None` if it serves.
    async fn put_back(
        &self,
        table: &SilverTable,
        held: &Held,
        serving: &Arc<Plugin>,
    ) -> anyhow::Result<Option<Candidate>> {
        let told = format!(
            "version {} is held off, and {} used instead: {}. Another wasm in its place ends that, or `silverd plugin \
             rollback {} --release`",
            Digest::short(&held.instead_of),
            Digest::short(&held.used),
            held.why,
            table.name
        );
        info!(table = %table.name, "{told}");
        self.stats.plugin_refused(Some(told));
        if serving.digest.as_str() == held.used {
            return Ok(None);
        }
        let (kit, config, digest) = (self.kit.clone(), table.clone(), held.used.clone());
        let load = move || {
            let plugin = load_kept(&config, &kit.base, kit.host, kit.limits, &digest)?;
            start(Arc::new(plugin.with_context(|| format!("version {digest} is not kept"))?))
        };
        let transformer = tokio::task::spawn_blocking(load).await?.context("roll back")?;
        let config = table.clone();
        Ok(Some(Candidate { transformer, config, shadow: None, max_new_rejects: 1.0, written_at: None, back: true }))
    }

    fn bring(&self, candidate: Candidate) {
        let (plugin, table) = (candidate.plugin(), &candidate.config.name);
        let (digest, interface) = (&plugin.digest, &plugin.schema.interface);
        match (&candidate.shadow, candidate.back) {
            (_, true) => info!(%table, %digest, %interface, "rolling back to an earlier version"),
            (Some(shadow), _) => info!(%table, %digest, %interface, "a new version is proven; shadow run: {shadow}"),
            (None, _) => info!(%table, %digest, %interface, "a new version is proven, without a shadow run"),
        }
        self.desk.put(candidate);
    }

    fn refuse(&self, serving: Option<&Arc<Plugin>>, failure: &anyhow::Error) {
        let table = &self.wanted.borrow().table.name;
        // What was proven before lies there no more.
        self.desk.clear();
        self.stats.plugin_refused(Some(format!("{failure:#}")));
        match serving {
            Some(serving) => {
                error!(%table, "the new version stays out: {failure:#}. Version {} goes on", serving.digest)
            }
            None => error!(%table, "look for a new version: {failure:#}"),
        }
    }
}

fn lies(place: &Place) -> anyhow::Result<PathBuf> {
    place.wasm().context("there is no wasm in the plugin's place: `cargo component build --release` makes it")
}

async fn digest_of(wasm: PathBuf) -> anyhow::Result<Digest> {
    let read =
        move || Ok(Digest::of(&std::fs::read(&wasm).with_context(|| format!("read plugin {}", wasm.display()))?));
    tokio::task::spawn_blocking(read).await?
}

async fn build(plugin: PathBuf) -> anyhow::Result<PathBuf> {
    tokio::task::spawn_blocking(move || wasm_of(&plugin)).await?
}
