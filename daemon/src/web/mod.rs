//! The page, the API and the metrics. Nothing here can delay the pipeline: it reads counts and committed tables, and its
//! questions run on a thread of their own, one at a time.

mod api;
mod asker;
mod assets;
mod guard;
mod health;
mod hub;
mod listener;
mod metrics;
mod rejects;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::routing::{get, post};
use axum::serve::Listener;
use silverd_core::config::{Panel, Pipeline, Secret};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::gold::Board;
use crate::maintenance;
use crate::sql::Tables;
use crate::status::Status;
use crate::{clock, telemetry};
pub use asker::Asker;
use guard::Guard;
use health::{Health, Past, SAMPLE_INTERVAL, Sizes};
use hub::Hub;
use listener::Bounded;

/// What the page is made of.
pub struct Page {
    pub topic: String,
    pub panels: Vec<Panel>,
    pub token: Option<Secret>,
    pub status: watch::Receiver<Option<Arc<Status>>>,
    pub board: Arc<Board>,
    pub kept: Arc<maintenance::Board>,
}

impl Page {
    pub fn new(
        pipeline: &Pipeline,
        token: Option<Secret>,
        status: watch::Receiver<Option<Arc<Status>>>,
        board: Arc<Board>,
        kept: Arc<maintenance::Board>,
    ) -> Self {
        Self { topic: pipeline.source.topic.clone(), panels: pipeline.panels.clone(), token, status, board, kept }
    }
}

/// What all requests share.
struct App {
    topic: String,
    panels: Vec<String>,
    status: watch::Receiver<Option<Arc<Status>>>,
    board: Arc<Board>,
    kept: Arc<maintenance::Board>,
    hub: Arc<Hub>,
    past: Past,
    sizes: Arc<Mutex<Sizes>>,
    guard: Arc<Guard>,
    started_at_ms: i64,
    ended: CancellationToken,
}

/// Where to listen; on one of the next ports, too, if `elsewhere`.
pub struct Place {
    pub address: SocketAddr,
    pub elsewhere: bool,
}

/// Serves the page until `ended`. Gives what asks its questions, which somebody must run; nothing if the port is taken.
pub async fn serve(page: Page, place: Place, tables: Arc<Tables>, ended: CancellationToken) -> Option<Asker> {
    let address = place.address;
    let listener = match Bounded::bind(address, place.elsewhere).await {
        Ok(listener) => listener,
        Err(error) => {
            warn!(
                "the page is not served: listen on {address}: {error}. Name another address with --listen or in [http], or \
                 none with --listen off; the pipeline goes on without the page"
            );
            return None;
        }
    };
    let bound = listener.local_addr().unwrap_or(address);
    let (hub, sizes) = (Arc::<Hub>::default(), Arc::<Mutex<Sizes>>::default());
    let asker = Asker::new(hub.clone(), page.panels.clone(), tables, sizes.clone());
    let app = Arc::new(App {
        topic: page.topic,
        panels: page.panels.into_iter().map(|panel| panel.name).collect(),
        status: page.status,
        board: page.board,
        kept: page.kept,
        hub,
        past: Past::default(),
        sizes,
        guard: Arc::new(Guard::new(page.token.as_ref())),
        started_at_ms: clock::now_ms(),
        ended: ended.clone(),
    });
    tokio::spawn(sample(app.clone()));
    let serving = axum::serve(listener, router(app)).with_graceful_shutdown(ended.cancelled_owned());
    tokio::spawn(async move {
        if let Err(error) = serving.await {
            warn!("the page is served no more: {error}");
        }
    });
    let name = if bound.ip().is_loopback() { "localhost".to_owned() } else { bound.ip().to_string() };
    info!("the page: http://{name}:{}", bound.port());
    Some(asker)
}

fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(api::page))
        .route("/login", get(api::login_page).merge(post(api::login)))
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
        .layer(axum::middleware::from_fn_with_state(app.guard.clone(), guard::guard))
        .with_state(app)
}

/// Looks at the pipeline once a second, and shows those who watch.
async fn sample(app: Arc<App>) {
    let mut ticks = tokio::time::interval(SAMPLE_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while app.ended.run_until_cancelled(ticks.tick()).await.is_some() {
        let status = app.status.borrow().clone();
        if let Some(status) = status {
            app.past.sample(&status);
        }
        if app.hub.watchers() > 0 {
            app.hub.publish("status", "", &app.health());
        }
    }
}

impl App {
    fn health(&self) -> Health {
        let status = self.status.borrow().clone();
        let sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let known = status.map(|status| Health::of(&status, &self.past, &sizes));
        Health {
            at_ms: clock::now_ms(),
            started_at_ms: self.started_at_ms,
            version: env!("CARGO_PKG_VERSION"),
            topic: self.topic.clone(),
            memory_bytes: telemetry::rss_bytes(),
            memory_peak_bytes: telemetry::peak_rss_bytes(),
            cpu_seconds: telemetry::process_cpu().as_secs_f64(),
            watchers: self.hub.watchers(),
            gold: self.board.shown(),
            maintenance: self.kept.shown(),
            ..known.unwrap_or_else(|| Health { state: "starting", ..Health::default() })
        }
    }
}
