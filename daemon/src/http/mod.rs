//! The dashboard, the API and the metrics. None of it can delay the pipeline: it reads counters and committed tables,
//! and its queries run one at a time in a process of their own.

mod api;
mod assets;
mod auth;
mod event_broadcast;
mod health;
mod history;
mod listener;
mod metrics;
mod panel_result;
mod panel_runner;
mod rejects;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use axum::serve::Listener;
use parking_lot::Mutex;
use silverd_core::config::{Panel, Pipeline, Secret};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::gold::GoldStatus;
use crate::maintenance::MaintenanceStatus;
use crate::pipeline::status::Status;
use crate::runtime::clock;
use crate::sql::{PanelQueries, Tables};
use crate::telemetry;

use auth::Auth;
use event_broadcast::EventBroadcast;
use health::{Health, TableSizes};
use history::{History, SAMPLE_INTERVAL};
use listener::BoundedListener;

pub(crate) use listener::ListenAddress;
pub(crate) use panel_runner::PanelRunner;

/// What the dashboard shows.
pub(crate) struct Dashboard {
    topic: String,
    panels: Vec<Panel>,
    token: Option<Secret>,
    status: watch::Receiver<Option<Arc<Status>>>,
    gold: Arc<GoldStatus>,
    maintenance: Arc<MaintenanceStatus>,
}

/// The state that all request handlers share.
struct App {
    topic: String,
    panels: Vec<String>,
    /// `None` until the pipeline runs.
    status: watch::Receiver<Option<Arc<Status>>>,
    gold: Arc<GoldStatus>,
    maintenance: Arc<MaintenanceStatus>,
    events: Arc<EventBroadcast>,
    history: History,
    table_sizes: Arc<Mutex<TableSizes>>,
    auth: Arc<Auth>,
    started_at_ms: i64,
    ended: CancellationToken,
}

impl Dashboard {
    pub(crate) fn new(
        pipeline: &Pipeline,
        token: Option<Secret>,
        status: watch::Receiver<Option<Arc<Status>>>,
        gold: Arc<GoldStatus>,
        maintenance: Arc<MaintenanceStatus>,
    ) -> Self {
        let (topic, panels) = (pipeline.source.topics.to_string(), pipeline.panels.clone());
        Self { topic, panels, token, status, gold, maintenance }
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
    let listener = match BoundedListener::bind(&listen).await {
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
    let app = Arc::new(App {
        topic: dashboard.topic,
        panels: dashboard.panels.into_iter().map(|panel| panel.name).collect(),
        status: dashboard.status,
        gold: dashboard.gold,
        maintenance: dashboard.maintenance,
        events,
        history: History::default(),
        table_sizes,
        auth: Arc::new(Auth::new(dashboard.token.as_ref())),
        started_at_ms: telemetry::process_started_at_ms(),
        ended: ended.clone(),
    });
    tokio::spawn(sample(app.clone()));
    let server = axum::serve(listener, router(app)).with_graceful_shutdown(ended.cancelled_owned());
    tokio::spawn(async move {
        if let Err(error) = server.await {
            warn!("the dashboard stopped: {error}");
        }
    });
    let host = if bound.ip().is_loopback() { "localhost".to_owned() } else { bound.ip().to_string() };
    info!("dashboard: http://{host}:{}", bound.port());
    Some(panel_runner)
}

fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(api::dashboard))
        .route("/login", get(api::login_form).merge(post(api::login)))
        .route("/assets/{name}", get(assets::file))
        .route("/api/status", get(api::status))
        .route("/api/history", get(api::history))
        .route("/api/panels", get(api::panels))
        .route("/api/panels/{name}", get(api::panel))
        .route("/api/rejects", get(api::rejects))
        .route("/api/stream", get(api::stream))
        .route("/api/log", get(api::log).put(api::set_log))
        .route("/api/openapi.json", get(api::openapi))
        .route("/metrics", get(api::metrics))
        .route("/health/live", get(api::live))
        .route("/health/ready", get(api::ready))
        .fallback(api::not_found)
        .layer(axum::middleware::from_fn_with_state(app.auth.clone(), auth::authorize))
        .with_state(app)
}

/// Adds a sample to the history once a second, and sends the status to the clients.
async fn sample(app: Arc<App>) {
    let mut ticks = tokio::time::interval(SAMPLE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while app.ended.run_until_cancelled(ticks.tick()).await.is_some() {
        let status = app.status.borrow().clone();
        if let Some(status) = status {
            app.history.sample(&status);
        }
        if app.events.clients() > 0 {
            app.events.publish("status", "", &app.health());
        }
    }
}

impl App {
    fn health(&self) -> Health {
        let status = self.status.borrow().clone();
        let pipeline = match status {
            Some(status) => Health::of_running(&status, &self.history, &self.table_sizes.lock()),
            None => Health::default(),
        };
        Health {
            at_ms: clock::now_ms(),
            started_at_ms: self.started_at_ms,
            version: env!("CARGO_PKG_VERSION"),
            topic: self.topic.clone(),
            memory_bytes: telemetry::rss_bytes(),
            memory_peak_bytes: telemetry::peak_rss_bytes(),
            cpu_seconds: telemetry::process_cpu().as_secs_f64(),
            clients: self.events.clients(),
            gold: self.gold.tables(),
            maintenance: self.maintenance.tables(),
            ..pipeline
        }
    }
}
