//! The dashboard for one client whose connection is no socket, with panels that have a result already.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::server::Server;
use super::{App, Dashboard, EventBroadcast, router};

/// Serves the client until the connection is closed.
pub(crate) async fn serve_client<S>(dashboard: Dashboard, stream: S, address: SocketAddr)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let ended = CancellationToken::new();
    let events = Arc::<EventBroadcast>::default();
    for panel in &dashboard.panels {
        events.publish("panel", &panel.name, &json!({ "name": panel.name }));
    }
    events.publish("rejects", "", &json!({ "rejects": [] }));
    let app = App::new(&dashboard, events, Arc::default(), ended.clone());
    let server = Server::new(router(app), dashboard.endpoint.base_path, None, ended);
    server.serve_client(stream, address).await;
}
