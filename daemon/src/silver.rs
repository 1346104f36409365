//! Silver: one worker for each table, off Bronze's path. It takes chunks from the live flow while it keeps up; when it
//! does not (a slow plugin, a broken one, a table that is new), it lets go of them and reads the same offsets from Bronze.
//!
//! ```text
//!            ┌──────────── a chunk that follows on ────────────┐
//!   live ────┤                                                 ├──▶ transform ─▶ encode ─▶ wait for Bronze ─▶ commit
//!            └─ one that leaves a gap, or none: behind Bronze? ┘
//!                        └── yes: read the next window from Bronze
//!   any error: forget everything, wait, open the table again; its log says where to go on
//! ```

mod dedup;
mod open;
mod swap;
mod table;
mod task;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use deltalake_core::logstore::LogStoreRef;
use silverd_core::breaker::Breaker;
use silverd_core::chunk::Chunk;
use silverd_core::config::{Pipeline, Reload, SilverTable, TableName};
use silverd_core::offsets::Offsets;
use silverd_core::route::Router;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{Span, info};

use crate::live::Fresh;
use crate::reload::{Desk, Keeper, Kit, Wanted, Watch};
use crate::side::SideTable;
use crate::telemetry::{Stages, TableStats};
use crate::transform::{Host, Limits, Plugin};

pub use dedup::Dedup;
pub use table::{Blame, fit, fits, given, load_file, load_kept, load_plugin};
pub(crate) use table::{by_day, properties, properties_with, spec};
use task::Task;

/// Whether a chunk has come to lie in Bronze.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landing {
    Pending,
    Landed,
    Abandoned,
}

/// A chunk of the live flow, with the records that are a table's.
#[derive(Clone)]
pub struct Offer {
    pub chunk: Arc<Chunk>,
    pub records: Arc<[u32]>,
    pub landing: watch::Receiver<Landing>,
    /// The chunk's, which the table's turn is a part of.
    pub span: Span,
}

/// Plugins that are loaded, by their tables.
pub type Loaded = BTreeMap<TableName, Arc<Plugin>>;

/// What all workers share.
#[derive(Clone)]
pub struct Shared {
    pub host: Arc<Host>,
    pub loaded: Loaded,
    pub pipeline: Arc<Pipeline>,
    pub limits: Limits,
    /// Tells of new versions of plugins; `None`: what is loaded stays.
    pub watch: Option<Watch>,
    /// Begin with what lies in the plugin's place, whatever filled the table before: pipeline.toml names another place, and
    /// was checked with what lies there.
    pub anew: bool,
    pub quarantine: Arc<SideTable>,
    /// Where a table lists its late events.
    pub late: Option<Arc<SideTable>>,
    pub bronze: LogStoreRef,
    pub head: watch::Receiver<Offsets>,
    pub rows_max: usize,
    pub bytes_max: usize,
    pub stages: Arc<Stages>,
    /// Given the rows of every commit, for those who watch.
    pub fresh: Arc<Fresh>,
    /// Paths of pipeline.toml count from here.
    pub base: PathBuf,
}

impl Shared {
    /// The tables beside Silver.
    pub fn sides(&self) -> impl Iterator<Item = &Arc<SideTable>> {
        std::iter::once(&self.quarantine).chain(&self.late)
    }
}

/// A table's worker, seen from the flow.
pub struct Worker {
    pub name: TableName,
    pub stats: Arc<TableStats>,
    state: StateOf,
    offers: mpsc::Sender<Offer>,
    keeps_up: Arc<AtomicBool>,
    hurry: CancellationToken,
    thread: JoinHandle<anyhow::Result<()>>,
    wanted: watch::Sender<Wanted>,
    keeper: Option<tokio::task::JoinHandle<()>>,
}

/// What a worker is at, in a few words.
#[derive(Clone, Default)]
pub struct StateOf(Arc<Mutex<String>>);

impl StateOf {
    pub fn get(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the table is written to, or on its way there.
    pub fn works(&self) -> bool {
        let state = self.get();
        !state.starts_with("waiting") && !state.starts_with("paused")
    }

    pub(super) fn set(&self, state: impl Into<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = state.into();
    }
}

/// Chunks that wait for a worker. One: what does not fit is in Bronze.
const OFFERS_WAITING_MAX: usize = 1;
/// How long Bronze's next chunk may wait for a worker that falls behind, once.
const ROOM_PATIENCE: Duration = Duration::from_secs(2);
/// How long a table may go on to catch up once silverd was told to stop, and how long its step at hand may then take.
const PATIENCE_AFTER_STOP: Duration = Duration::from_secs(10);
const HURRY_MAX: Duration = Duration::from_secs(5);

impl Worker {
    /// Starts once `before` is over: the worker that has filled the table until now.
    pub fn start(
        table: &SilverTable,
        shared: Shared,
        before: impl Future<Output = ()> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let (offers, waiting) = mpsc::channel(OFFERS_WAITING_MAX);
        let (stats, state) = (Arc::<TableStats>::default(), StateOf::default());
        let (hurry, keeps_up) = (CancellationToken::new(), Arc::<AtomicBool>::default());
        let desk = Arc::<Desk>::default();
        let plugin = shared.loaded.get(&table.name).cloned();
        if let Some(plugin) = &plugin {
            open::tell_loaded(&table.name, plugin);
        }
        let wanted = Wanted { table: table.clone(), reload: shared.pipeline.reload.clone() };
        let (wanted, asked) = watch::channel(wanted);
        let keeper = shared.watch.clone().map(|watch| {
            let kit = Kit {
                host: shared.host.clone(),
                limits: shared.limits.clone(),
                bronze: shared.bronze.clone(),
                base: shared.base.clone(),
            };
            tokio::spawn(Keeper { wanted: asked, desk: desk.clone(), stats: stats.clone(), kit, watch }.run())
        });
        let task = Task {
            config: table.clone(),
            router: Router::new(std::slice::from_ref(table)),
            shared,
            desk,
            offers: waiting,
            stats: stats.clone(),
            state: state.clone(),
            keeps_up: keeps_up.clone(),
            hurry: hurry.clone(),
            plugin,
            trial: None,
            arriving: None,
            open: None,
            breaker: Breaker::default(),
            told: None,
        };
        let runtime = tokio::runtime::Handle::current();
        let work = move || {
            runtime.block_on(async {
                before.await;
                task.run().await
            })
        };
        let thread = std::thread::Builder::new().name(format!("silver-{}", table.name)).spawn(work)?;
        Ok(Self { name: table.name.clone(), stats, state, offers, keeps_up, hurry, thread, wanted, keeper })
    }

    /// Offers a chunk. A worker that has no room finds it in Bronze, which costs it the decoding; so while Kafka holds
    /// more than Bronze can write, one that keeps up is waited for. Bronze has its own chunk to write meanwhile.
    ///
    /// | room | backlog | the worker keeps up | |
    /// |---|---|---|---|
    /// | yes | | | it takes the chunk |
    /// | no | no | | it is let go |
    /// | no | yes | no | it is let go |
    /// | no | yes | yes | `ROOM_PATIENCE` for room; without, it is let go, and not waited for until it has caught up |
    pub async fn offer(&self, offer: Offer, backlog: bool) {
        let Err(TrySendError::Full(offer)) = self.offers.try_send(offer) else { return };
        if backlog && self.keeps_up.load(Relaxed) {
            let sent = tokio::time::timeout(ROOM_PATIENCE, self.offers.send(offer)).await;
            self.keeps_up.fetch_and(sent.is_ok(), Relaxed);
        }
    }

    /// Asks for another plugin, or for another way to bring it. The table is the same but for that.
    pub fn want(&self, table: &SilverTable, reload: &Reload) {
        let wanted = Wanted { table: table.clone(), reload: reload.clone() };
        self.wanted.send_if_modified(|now| {
            let other = *now != wanted;
            *now = wanted;
            other
        });
    }

    /// Ends after the turn at hand, and leaves the rest to whoever comes.
    pub async fn replace(self) {
        let name = self.name.clone();
        self.hurry.cancel();
        if let Err(failure) = self.finish(Duration::ZERO, CancellationToken::new()).await {
            info!(table = %name, "{failure:#}");
        }
    }

    pub fn state_of(&self) -> StateOf {
        self.state.clone()
    }

    /// Lets the worker come to Bronze's end, or as far as it gets before `patience` runs out, and ends it.
    ///
    /// After `stop` patience is short, whatever it was. A worker that is deep in work then (a plugin that hangs, a build)
    /// is left behind: it goes on from its last commit at the next start, as after a kill.
    pub async fn finish(self, patience: Duration, stop: CancellationToken) -> anyhow::Result<()> {
        drop(self.offers);
        if let Some(keeper) = self.keeper {
            keeper.abort();
        }
        let (thread, name) = (self.thread, &self.name);
        let mut joined = tokio::task::spawn_blocking(move || thread.join());
        let stopped = async {
            stop.cancelled().await;
            tokio::time::sleep(patience.min(PATIENCE_AFTER_STOP)).await;
        };
        let ended = tokio::select! {
            ended = &mut joined => ended?,
            () = async { tokio::select! { () = tokio::time::sleep(patience) => {} () = stopped => {} } } => {
                self.hurry.cancel();
                match tokio::time::timeout(HURRY_MAX, joined).await {
                    Ok(ended) => ended?,
                    Err(_) => bail!("table {name} did not come to an end; it goes on from its last commit next time"),
                }
            }
        };
        ended.map_err(|_| anyhow!("the worker of {name} panicked"))?.with_context(|| format!("fill table {name}"))
    }
}
