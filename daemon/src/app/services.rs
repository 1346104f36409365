//! What runs besides the pipeline and never delays it: the status on the terminal, Gold, table maintenance, the dashboard.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use silverd_core::config::diff::Changes;
use silverd_core::config::{Http, Pipeline};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::wrong_use;
use crate::gold::{GoldRefresher, GoldStatus};
use crate::http::{self, Dashboard, Endpoint, ListenAddress, PanelRunner};
use crate::maintenance::{MaintenanceScheduler, MaintenanceStatus};
use crate::pipeline::status::{self, RunState};
use crate::pipeline::{self, RunOptions};
use crate::runtime::TABLE_OPENS_MAX;
use crate::sql::{PanelQueries, Tables};
use crate::tables::recent_rows::RecentRows;

#[derive(clap::Args, Debug, Default)]
pub(crate) struct DashboardArgs {
    /// Where the dashboard listens, instead of [http] in pipeline.toml: an address and a port, or `off`
    #[arg(long, env = "SILVERD_LISTEN", value_name = "ADDRESS")]
    listen: Option<String>,
    /// Ask nobody for a token, though others may reach the address: whoever reaches it sees the data and can change the
    /// log filter. For a container whose port is published to loopback alone
    #[arg(long)]
    no_token: bool,
    /// Try the next ports if this one is taken
    #[arg(skip)]
    pub(crate) try_next_ports: bool,
}

impl DashboardArgs {
    /// The address; `None` if the dashboard is off. Nothing listens where others can reach it without a token.
    fn address(&self, http: &Http) -> anyhow::Result<Option<SocketAddr>> {
        let address = match self.listen.as_deref() {
            None => http.listen,
            Some("off") => None,
            Some(text) => match text.replacen("localhost:", "127.0.0.1:", 1).parse() {
                Ok(address) => Some(address),
                Err(_) => {
                    wrong_use!("--listen {text}: expected an IP address and a port, such as 127.0.0.1:8080, or off")
                }
            },
        };
        match address {
            Some(address) if !address.ip().is_loopback() && http.tokens.is_empty() && !self.no_token => wrong_use!(
                "--listen {address}: others can reach this address, and [http] has no token. Add \
                 `token = \"${{SILVERD_TOKEN}}\"` to [http] in pipeline.toml, or listen on 127.0.0.1:{}. In a container whose \
                 port is published to loopback alone, --no-token will do",
                address.port()
            ),
            address => Ok(address),
        }
    }

    /// Where to listen, and who is let in; `None` if the dashboard is off.
    fn open(&self, http: &Http, base_dir: &Path) -> anyhow::Result<Option<(SocketAddr, Endpoint)>> {
        let Some(address) = self.address(http)? else { return Ok(None) };
        match Endpoint::load(http, !self.no_token, base_dir) {
            Ok(endpoint) => Ok(Some((address, endpoint))),
            Err(error) => wrong_use!("{error:#}"),
        }
    }
}

/// How long a compaction may take to stop.
const MAINTENANCE_STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// How long Gold may take at the end to refresh what has changed.
const GOLD_STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs a pipeline with all its services until it ends.
pub(crate) async fn run(
    options: RunOptions,
    args: DashboardArgs,
    status: watch::Receiver<RunState>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let pipeline = options.pipeline.borrow().clone();
    args.open(&pipeline.http, &options.base_dir)?;
    let pipeline_ended = CancellationToken::new();
    let status_line = tokio::spawn(status::show(status.clone(), pipeline_ended.clone()));
    let services =
        Services { args, base_dir: options.base_dir.clone(), recent_rows: options.recent_rows.clone(), status };
    let gold_timeout = if options.drain { Duration::MAX } else { GOLD_STOP_TIMEOUT };
    let run_services = services.run(options.pipeline.clone(), pipeline_ended.clone(), gold_timeout, stop.clone());
    let services = tokio::spawn(run_services);
    let result = pipeline::run(options, stop).await;
    pipeline_ended.cancel();
    let _ = status_line.await;
    let _ = services.await;
    result
}

/// Gold, table maintenance and the dashboard.
struct Services {
    args: DashboardArgs,
    base_dir: PathBuf,
    recent_rows: Arc<RecentRows>,
    status: watch::Receiver<RunState>,
}

/// The services of one version of pipeline.toml, running.
struct RunningServices {
    sql_thread: SqlThread,
    /// Completes once table maintenance has ended.
    maintenance_ended: oneshot::Receiver<()>,
    finish: CancellationToken,
    ended: CancellationToken,
}

impl Services {
    /// Runs until the pipeline has ended, and restarts the services when pipeline.toml changes them.
    async fn run(
        self,
        mut pipeline: watch::Receiver<Arc<Pipeline>>,
        pipeline_ended: CancellationToken,
        gold_timeout: Duration,
        stop: CancellationToken,
    ) {
        let mut current = pipeline.borrow_and_update().clone();
        let mut running = self.start(&current).await;
        loop {
            let next = tokio::select! {
                () = pipeline_ended.cancelled() => break,
                next = pipeline::config_change(&mut pipeline) => next,
            };
            let changes = Changes::between(&current, &next);
            if !changes.services && !changes.all {
                continue;
            }
            if let Some(running) = running.take() {
                running.end(GOLD_STOP_TIMEOUT, &stop).await;
            }
            current = next;
            running = self.start(&current).await;
        }
        if let Some(running) = running {
            running.end(gold_timeout, &stop).await;
        }
    }

    async fn start(&self, pipeline: &Pipeline) -> Option<RunningServices> {
        let endpoint = match self.args.open(&pipeline.http, &self.base_dir) {
            Ok(endpoint) => endpoint,
            Err(failure) => {
                warn!("the dashboard is off: {failure:#}");
                None
            }
        };
        self.recent_rows.set_enabled(endpoint.is_some());
        let tables = Tables::new(pipeline, &self.base_dir);
        let gold_status = Arc::new(GoldStatus::new(pipeline));
        let gold = GoldRefresher::new(pipeline, &self.base_dir, &tables, gold_status.clone());
        let maintenance_status = Arc::<MaintenanceStatus>::default();
        let maintenance = MaintenanceScheduler::new(pipeline, &self.base_dir, maintenance_status.clone());
        let (finish, ended) = (CancellationToken::new(), CancellationToken::new());
        let panels = match endpoint {
            Some((address, endpoint)) => {
                let dashboard =
                    Dashboard::new(pipeline, endpoint, self.status.clone(), gold_status, maintenance_status);
                let listen = ListenAddress { address, try_next_ports: self.args.try_next_ports };
                let queries = PanelQueries::new(&tables, &pipeline.sql_limits, self.recent_rows.clone());
                http::serve(dashboard, listen, tables, queries, ended.clone()).await
            }
            None => None,
        };
        let started = SqlThread::start(gold, panels, finish.clone(), ended.clone())
            .and_then(|sql_thread| Ok((sql_thread, maintenance.start(finish.clone())?)));
        match started {
            Ok((sql_thread, maintenance_ended)) => {
                Some(RunningServices { sql_thread, maintenance_ended, finish, ended })
            }
            Err(failure) => {
                warn!("start Gold, the dashboard and table maintenance: {failure:#}; the pipeline runs without them");
                None
            }
        }
    }
}

impl RunningServices {
    /// Ends the services once Gold is up to date, or the timeout is over.
    async fn end(self, gold_timeout: Duration, stop: &CancellationToken) {
        self.finish.cancel();
        self.sql_thread.finish(gold_timeout, stop).await;
        let _ = tokio::time::timeout(MAINTENANCE_STOP_TIMEOUT, self.maintenance_ended).await;
        self.ended.cancel();
    }
}

/// The thread that asks the processes for SQL, of Gold and of the panels: each runs one statement at a time, on one core
/// at most.
struct SqlThread {
    gold_ended: oneshot::Receiver<()>,
}

impl SqlThread {
    fn start(
        gold: GoldRefresher,
        panels: Option<PanelRunner>,
        finish: CancellationToken,
        ended: CancellationToken,
    ) -> anyhow::Result<Self> {
        let (done, gold_ended) = oneshot::channel();
        // A multi-thread runtime with one worker: on a current-thread runtime, delta-rs starts a runtime of its own each time
        // it reads a log.
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).max_blocking_threads(TABLE_OPENS_MAX).thread_name("sql").enable_all();
        let runtime = runtime.build()?;
        let run_gold = async move {
            gold.run(finish).await;
            let _ = done.send(());
        };
        let run_panels = async {
            if let Some(panels) = panels {
                panels.run(ended).await;
            }
        };
        std::thread::Builder::new()
            .name("sql".to_owned())
            .spawn(move || runtime.block_on(futures::future::join(run_gold, run_panels)))?;
        Ok(Self { gold_ended })
    }

    /// Waits until Gold has refreshed what has changed, or the timeout is over.
    async fn finish(self, timeout: Duration, stop: &CancellationToken) {
        let over = async {
            if timeout == Duration::MAX {
                stop.cancelled().await;
            }
            tokio::time::sleep(timeout.min(GOLD_STOP_TIMEOUT)).await;
        };
        tokio::select! {
            _ = self.gold_ended => {}
            () = over => warn!("the Gold tables are not up to date; the next start refreshes them"),
        }
    }
}
