//! The dashboard, the API and the metrics. None of it can delay the pipeline: it reads counters and committed tables,
//! and its queries run one at a time in a process of their own.

mod access;
mod api;
mod api_days;
mod assets;
mod event_broadcast;
mod health;
mod history;
mod metrics;
mod one_client;
mod panel_result;
mod panel_runner;
mod rejects;
mod server;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use parking_lot::Mutex;
use silverd_core::config::{Http, Panel, Pipeline};
use silverd_core::zone::Zone;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::alerts::AlertBoard;
use crate::day_status::DayLedger;
use crate::days::DaysStatus;
use crate::gold::{GoldStatus, name_in_queries};
use crate::maintenance::MaintenanceStatus;
use crate::pipeline::status::RunState;
use crate::runtime::clock;
use crate::runtime::file_watch::{FileStamp, FileWatch};
use crate::sql::{PanelQueries, Tables};
use crate::telemetry;

use access::Access;
use event_broadcast::EventBroadcast;
use health::{Health, TableSizes};
use history::{History, SAMPLE_INTERVAL};

use server::{Server, ServerTls};

pub(crate) use access::AUDIT;
pub(crate) use one_client::serve_client;
pub(crate) use panel_runner::PanelRunner;
pub(crate) use server::ListenAddress;

/// Bytes of the body of a request.
const BODY_BYTES_MAX: usize = 64 << 10;

/// What the dashboard shows.
pub(crate) struct Dashboard {
    topic: String,
    /// That of times and days.
    time_zone: Zone,
    panels: Vec<Panel>,
    endpoint: Endpoint,
    shown: Shown,
    /// The tables that have days, by their names in queries, with their zones.
    zones: Vec<(String, Zone)>,
}

/// The states that others keep up to date.
#[derive(Clone)]
pub(crate) struct Shown {
    /// `Starting` until the pipeline runs.
    pub(crate) status: watch::Receiver<RunState>,
    pub(crate) gold: Arc<GoldStatus>,
    pub(crate) maintenance: Arc<MaintenanceStatus>,
    pub(crate) alerts: Arc<AlertBoard>,
    pub(crate) days: Days,
}

/// Which days are final.
#[derive(Clone)]
pub(crate) struct Days {
    /// `None`: nothing says it.
    pub(crate) ledger: Option<Arc<DayLedger>>,
    pub(crate) status: Arc<DaysStatus>,
}

/// The state that all request handlers share.
struct App {
    topic: String,
    time_zone: Zone,
    panels: Vec<String>,
    shown: Shown,
    /// The tables that have days, by their names in queries, with their zones.
    zones: Vec<(String, Zone)>,
    events: Arc<EventBroadcast>,
    history: History,
    table_sizes: Arc<Mutex<TableSizes>>,
    access: Arc<Access>,
    started_at_ms: i64,
    ended: CancellationToken,
}

/// How the dashboard is reached: the path, the tokens and the certificate, read from their files.
pub(crate) struct Endpoint {
    base_path: String,
    access: Arc<Access>,
    tls: Option<Arc<ServerTls>>,
}

impl Endpoint {
    /// Fails if a file cannot be read. Without `asks_for_token`, anybody is let in.
    pub(crate) fn load(http: &Http, asks_for_token: bool, base_dir: &Path) -> anyhow::Result<Self> {
        let mut settings = http.clone();
        if !asks_for_token {
            settings.tokens.clear();
        }
        let tls = http.tls.as_ref().map(|tls| ServerTls::load(tls, base_dir)).transpose()?.map(Arc::new);
        Ok(Self { base_path: http.base_path.clone(), access: Arc::new(Access::new(settings, base_dir)?), tls })
    }

    fn files(&self) -> Vec<PathBuf> {
        let tls = self.tls.iter().flat_map(|tls| tls.files()).map(Path::to_path_buf);
        tls.chain(self.access.files()).collect()
    }

    fn reload(&self) -> anyhow::Result<()> {
        self.access.reload()?;
        self.tls.as_ref().map_or(Ok(()), |tls| tls.reload())
    }
}

impl Dashboard {
    pub(crate) fn new(pipeline: &Pipeline, endpoint: Endpoint, shown: Shown) -> Self {
        let (topic, panels) = (pipeline.source.topics.to_string(), pipeline.panels.clone());
        let silver = pipeline.silver.iter().map(|table| (table.name.to_string(), table.time_zone));
        let of_gold = pipeline.gold.iter().map(|gold| (name_in_queries(gold), gold.time_zone));
        let zones = silver.chain(of_gold).collect();
        Self { topic, time_zone: pipeline.time_zone, panels, endpoint, shown, zones }
    }
}

/// Serves the dashboard until `ended`. The caller must run the returned [`PanelRunner`]; `None` if the port is in use.
pub(crate) async fn serve(
    dashboard: Dashboard,
    listen: ListenAddress,
    tables: Tables,
    queries: PanelQueries,
    ended: CancellationToken,
) -> Option<PanelRunner> {
    let address = listen.address;
    let listener = match server::bind(&listen).await {
        Ok(listener) => listener,
        Err(error) => {
            warn!(
                "the dashboard is off: listen on {address}: {error}. Set another address with --listen or in [http]; \
                 the pipeline runs without the dashboard"
            );
            return None;
        }
    };
    let bound = listener.local_addr().unwrap_or(address);
    let (events, table_sizes) = (Arc::<EventBroadcast>::default(), Arc::<Mutex<TableSizes>>::default());
    let panel_runner = PanelRunner::new(events.clone(), dashboard.panels.clone(), tables, queries, table_sizes.clone());
    let app = App::new(&dashboard, events, table_sizes, ended.clone());
    let endpoint = dashboard.endpoint;
    tokio::spawn(sample(app.clone()));
    let server = Server::new(router(app), endpoint.base_path.clone(), endpoint.tls.clone(), ended.clone());
    tokio::spawn(server.run(listener));
    let (scheme, base_path) = (if endpoint.tls.is_some() { "https" } else { "http" }, endpoint.base_path.clone());
    let host = if bound.ip().is_loopback() { "localhost".to_owned() } else { bound.ip().to_string() };
    info!("dashboard: {scheme}://{host}:{}{base_path}", bound.port());
    if endpoint.access.lets_everybody_in() && !bound.ip().is_loopback() {
        warn!(
            "--no-token: whoever reaches {bound} sees the data and can change the log filter. That only the host name \
             localhost is answered keeps out other web sites, and no program"
        );
    }
    tokio::spawn(async move { ended.run_until_cancelled(reload_files(endpoint)).await });
    Some(panel_runner)
}

/// Reads the certificate and the tokens again when their files have changed.
async fn reload_files(endpoint: Endpoint) {
    let files = endpoint.files();
    if files.is_empty() {
        return;
    }
    let folders: Vec<_> = files.iter().filter_map(|file| Some(file.parent()?.to_path_buf())).collect();
    let read_stamp = || (FileStamp::of(&files), folders.clone());
    let mut watch = FileWatch::start();
    let (mut stamp, _) = read_stamp();
    loop {
        stamp = watch.changed(&stamp, read_stamp).await;
        match endpoint.reload() {
            Ok(()) => info!("the certificate and the tokens of [http] are read again: their files have changed"),
            Err(error) => warn!("{error:#}; the certificate and the tokens of before stay"),
        }
    }
}

fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(api::dashboard))
        .route("/login", get(api::login_form).merge(post(api::login)))
        .route("/logout", post(api::logout))
        .route("/assets/{name}", get(assets::file))
        .route("/api/status", get(api::status))
        .route("/api/alerts", get(api::alerts))
        .route("/api/history", get(api::history))
        .route("/api/panels", get(api::panels))
        .route("/api/panels/{name}", get(api::panel))
        .route("/api/rejects", get(api::rejects))
        .route("/api/days", get(api_days::days))
        .route("/api/stream", get(api::stream))
        .route("/api/session", get(api::session))
        .route("/api/log", get(api::log).put(api::set_log))
        .route("/api/openapi.json", get(api::openapi))
        .route("/metrics", get(api::metrics))
        .route("/health/live", get(api::live))
        .route("/health/ready", get(api::ready))
        .fallback(api::not_found)
        .method_not_allowed_fallback(api::method_not_allowed)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(axum::middleware::from_fn_with_state(app.access.clone(), access::authorize))
        .with_state(app)
}

/// Adds a sample to the history once a second, and sends the status to the clients.
async fn sample(app: Arc<App>) {
    let mut ticks = tokio::time::interval(SAMPLE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while app.ended.run_until_cancelled(ticks.tick()).await.is_some() {
        let status = app.shown.status.borrow().running();
        if let Some(status) = status {
            app.history.sample(&status);
        }
        app.events.publish_if_new("alerts", "", &app.shown.alerts.shown());
        if app.events.clients() > 0 {
            app.events.publish("status", "", &app.health());
        }
    }
}

impl App {
    fn new(
        dashboard: &Dashboard,
        events: Arc<EventBroadcast>,
        table_sizes: Arc<Mutex<TableSizes>>,
        ended: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            topic: dashboard.topic.clone(),
            time_zone: dashboard.time_zone,
            panels: dashboard.panels.iter().map(|panel| panel.name.clone()).collect(),
            shown: dashboard.shown.clone(),
            zones: dashboard.zones.clone(),
            events,
            history: History::default(),
            table_sizes,
            access: dashboard.endpoint.access.clone(),
            started_at_ms: telemetry::process_started_at_ms(),
            ended,
        })
    }

    fn health(&self) -> Health {
        let state = self.shown.status.borrow().clone();
        let pipeline = match state {
            RunState::Starting => Health::default(),
            RunState::Waiting(problem) => Health { source_problems: vec![problem.into()], ..Health::default() },
            RunState::Running(status) => Health::of_running(&status, &self.history, &self.table_sizes.lock()),
        };
        Health {
            at_ms: clock::now_ms(),
            started_at_ms: self.started_at_ms,
            version: env!("CARGO_PKG_VERSION"),
            topic: self.topic.clone(),
            time_zone: self.time_zone,
            memory_bytes: telemetry::rss_bytes(),
            memory_peak_bytes: telemetry::peak_rss_bytes(),
            cpu_seconds: telemetry::process_cpu().as_secs_f64(),
            clients: self.events.clients(),
            gold: self.shown.gold.tables(),
            maintenance: self.shown.maintenance.tables(),
            last_final_days: self.shown.days.status.last_final_days(),
            ..pipeline
        }
    }
}
