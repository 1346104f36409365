//! What runs besides the pipeline and never delays it: the status on the terminal, Gold, the states of days, table
//! maintenance, the alerts, the dashboard.

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
use crate::alerts::{AlertBoard, AlertInputs, AlertService};
use crate::day_status::DayLedger;
use crate::days::{DayPublisher, DaysStatus};
use crate::gold::{GoldRefresher, GoldStatus};
use crate::http::{self, Dashboard, Days, Endpoint, ListenAddress, PanelRunner, Shown};
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
/// How long the alerts may take to stop: a delivery may be under way.
const ALERTS_STOP_TIMEOUT: Duration = Duration::from_secs(7);
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
    let services = Services {
        args,
        base_dir: options.base_dir.clone(),
        recent_rows: options.recent_rows.clone(),
        days: options.days.clone(),
        status,
        alert_board: Arc::default(),
        evaluates_alerts: !options.drain,
    };
    let gold_timeout = if options.drain { Duration::MAX } else { GOLD_STOP_TIMEOUT };
    let run_services = services.run(options.pipeline.clone(), pipeline_ended.clone(), gold_timeout, stop.clone());
    let services = tokio::spawn(run_services);
    let result = pipeline::run(options, stop).await;
    pipeline_ended.cancel();
    let _ = status_line.await;
    let _ = services.await;
    result
}

/// Gold, the states of days, table maintenance, the alerts and the dashboard.
struct Services {
    args: DashboardArgs,
    base_dir: PathBuf,
    recent_rows: Arc<RecentRows>,
    days: Option<Arc<DayLedger>>,
    status: watch::Receiver<RunState>,
    alert_board: Arc<AlertBoard>,
    /// A drain is over before any alert could be.
    evaluates_alerts: bool,
}

/// The alerts, which run on while the other services restart.
struct RunningAlerts {
    inputs: watch::Sender<AlertInputs>,
    stop: CancellationToken,
    /// Completes once their thread has ended.
    ended: oneshot::Receiver<()>,
}

/// The services of one version of pipeline.toml, running.
struct RunningServices {
    sql_thread: SqlThread,
    gold_status: Arc<GoldStatus>,
    maintenance_status: Arc<MaintenanceStatus>,
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
        let alerts = self.start_alerts(&current, running.as_ref());
        loop {
            let next = tokio::select! {
                () = pipeline_ended.cancelled() => break,
                next = pipeline::config_change(&mut pipeline) => next,
            };
            let changes = Changes::between(&current, &next);
            if !changes.services && !changes.all {
                if changes.alerts {
                    // The others keep what they run with, which is the same.
                    current = next;
                    self.keep_rows_for(&current);
                    self.apply_to_alerts(alerts.as_ref(), &current, running.as_ref());
                }
                continue;
            }
            if let Some(running) = running.take() {
                running.end(GOLD_STOP_TIMEOUT, &stop).await;
            }
            current = next;
            running = self.start(&current).await;
            self.apply_to_alerts(alerts.as_ref(), &current, running.as_ref());
        }
        if let Some(running) = running {
            running.end(gold_timeout, &stop).await;
        }
        if let Some(alerts) = alerts {
            alerts.stop.cancel();
            let _ = tokio::time::timeout(ALERTS_STOP_TIMEOUT, alerts.ended).await;
        }
    }

    /// Starts the thread of the alerts; `None` if it cannot be started, or if none are evaluated.
    fn start_alerts(&self, pipeline: &Arc<Pipeline>, running: Option<&RunningServices>) -> Option<RunningAlerts> {
        if !self.evaluates_alerts {
            return None;
        }
        let (inputs, receiver) = watch::channel(self.alert_inputs(pipeline, running));
        let service = AlertService {
            base_dir: self.base_dir.clone(),
            state_dir: self.base_dir.join(&*pipeline.state.path),
            status: self.status.clone(),
            recent_rows: self.recent_rows.clone(),
            board: self.alert_board.clone(),
        };
        let stop = CancellationToken::new();
        match service.start(receiver, stop.clone()) {
            Ok(ended) => Some(RunningAlerts { inputs, stop, ended }),
            Err(failure) => {
                warn!("start the alerts: {failure:#}; the pipeline runs without them");
                None
            }
        }
    }

    fn apply_to_alerts(
        &self,
        alerts: Option<&RunningAlerts>,
        pipeline: &Arc<Pipeline>,
        running: Option<&RunningServices>,
    ) {
        if let Some(alerts) = alerts {
            alerts.inputs.send_replace(self.alert_inputs(pipeline, running));
        }
    }

    fn alert_inputs(&self, pipeline: &Arc<Pipeline>, running: Option<&RunningServices>) -> AlertInputs {
        AlertInputs {
            pipeline: pipeline.clone(),
            tables: Tables::new(pipeline, &self.base_dir),
            gold: running.map(|running| running.gold_status.clone()).unwrap_or_default(),
            maintenance: running.map(|running| running.maintenance_status.clone()).unwrap_or_default(),
        }
    }

    /// The newest rows stay in memory if the dashboard or an alert may ask for them.
    fn keep_rows_for(&self, pipeline: &Pipeline) {
        let has_dashboard = self.args.address(&pipeline.http).is_ok_and(|address| address.is_some());
        let has_alerts = self.evaluates_alerts && !pipeline.alerts.is_empty();
        self.recent_rows.set_enabled(has_dashboard || has_alerts);
    }

    async fn start(&self, pipeline: &Pipeline) -> Option<RunningServices> {
        let endpoint = match self.args.open(&pipeline.http, &self.base_dir) {
            Ok(endpoint) => endpoint,
            Err(failure) => {
                warn!("the dashboard is off: {failure:#}");
                None
            }
        };
        self.keep_rows_for(pipeline);
        let tables = Tables::new(pipeline, &self.base_dir);
        let gold_status = Arc::new(GoldStatus::new(pipeline));
        let gold = GoldRefresher::new(pipeline, &self.base_dir, &tables, gold_status.clone());
        let days_status = Arc::<DaysStatus>::default();
        let publisher = self.days.as_ref().map(|ledger| {
            let run_state = self.status.clone();
            DayPublisher::new(pipeline, &self.base_dir, ledger.clone(), run_state, days_status.clone())
        });
        let maintenance_status = Arc::<MaintenanceStatus>::default();
        let maintenance = MaintenanceScheduler::new(pipeline, &self.base_dir, maintenance_status.clone());
        let (finish, ended) = (CancellationToken::new(), CancellationToken::new());
        let panels = match endpoint {
            Some((address, endpoint)) => {
                let days = Days { ledger: self.days.clone(), status: days_status };
                let shown = Shown {
                    status: self.status.clone(),
                    gold: gold_status.clone(),
                    maintenance: maintenance_status.clone(),
                    alerts: self.alert_board.clone(),
                    days,
                };
                let dashboard = Dashboard::new(pipeline, endpoint, shown);
                let listen = ListenAddress { address, try_next_ports: self.args.try_next_ports };
                let queries = PanelQueries::new(&tables, &pipeline.sql_limits, self.recent_rows.clone());
                http::serve(dashboard, listen, tables, queries, ended.clone()).await
            }
            None => None,
        };
        let started = SqlThread::start(gold, publisher, panels, finish.clone(), ended.clone())
            .and_then(|sql_thread| Ok((sql_thread, maintenance.start(finish.clone())?)));
        match started {
            Ok((sql_thread, maintenance_ended)) => {
                Some(RunningServices { sql_thread, gold_status, maintenance_status, maintenance_ended, finish, ended })
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

/// The thread that asks the processes for SQL, of Gold and of the panels (each runs one statement at a time, on one core
/// at most), and that publishes which days are final.
struct SqlThread {
    gold_ended: oneshot::Receiver<()>,
}

impl SqlThread {
    fn start(
        gold: GoldRefresher,
        days: Option<DayPublisher>,
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
        // The futures need not move to another thread.
        let run = move || {
            let gold_is_done = CancellationToken::new();
            let run_gold = async {
                gold.run(finish).await;
                gold_is_done.cancel();
            };
            let run_days = async {
                if let Some(days) = days {
                    days.run(gold_is_done.clone()).await;
                }
                let _ = done.send(());
            };
            let run_panels = async {
                if let Some(panels) = panels {
                    panels.run(ended).await;
                }
            };
            runtime.block_on(futures::future::join3(run_gold, run_days, run_panels));
        };
        std::thread::Builder::new().name("sql".to_owned()).spawn(run)?;
        Ok(Self { gold_ended })
    }

    /// Waits until Gold has refreshed what has changed and the states of its days are published, or the timeout is over.
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
