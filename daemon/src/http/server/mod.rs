//! The HTTP server: connections with time limits, TLS, and the path that a proxy serves silverd under.

mod connections;
mod listen;
mod timed_writes;
mod tls;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::api::problem;
use crate::runtime::log_once::LogOnce;
use connections::{BusyBody, Connections};
use timed_writes::TimedWrites;

pub(super) use connections::Connection;
pub(crate) use listen::ListenAddress;
pub(super) use listen::bind;
pub(super) use tls::ServerTls;

/// For how long a connection may be idle, and how long a client may take for the headers of a request.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may take for the body of its request, and silverd for the beginning of its response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// A client that takes nothing of a response for so long is disconnected.
const STALLED_MAX: Duration = Duration::from_secs(10);
const TLS_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the requests in progress may take when silverd ends.
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// After an error of `accept`, such as too many open files.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// Bytes of the headers of a request.
const HEADERS_BYTES_MAX: usize = 64 << 10;

/// The client's side of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub address: SocketAddr,
    pub is_tls: bool,
}

/// Serves one address.
pub(super) struct Server {
    router: TowerToHyperService<Router>,
    /// Empty, or as `/silverd`.
    base_path: String,
    tls: Option<Arc<ServerTls>>,
    connections: Arc<Connections>,
    ended: CancellationToken,
}

impl Server {
    pub(super) fn new(
        router: Router,
        base_path: String,
        tls: Option<Arc<ServerTls>>,
        ended: CancellationToken,
    ) -> Arc<Self> {
        let router = TowerToHyperService::new(router);
        Arc::new(Self { router, base_path, tls, connections: Arc::default(), ended })
    }

    /// Accepts connections until silverd ends.
    pub(super) async fn run(self: Arc<Self>, listener: TcpListener) {
        let mut error_of_before = LogOnce::default();
        while let Some(accepted) = self.ended.run_until_cancelled(listener.accept()).await {
            match accepted {
                Ok((stream, address)) => {
                    error_of_before.clear();
                    let _ = stream.set_nodelay(true);
                    // Without a connection that can give way, all of them being busy, this one is closed at once.
                    if let Some(connection) = self.connections.admit() {
                        tokio::spawn(self.clone().serve(stream, address, connection));
                    }
                }
                Err(error) => {
                    let text = error.to_string();
                    if error_of_before.is_new(&text) {
                        warn!("the dashboard cannot accept connections: {text}; it tries again");
                    }
                    tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await;
                }
            }
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, address: SocketAddr, connection: Arc<Connection>) {
        let peer = Peer { address, is_tls: self.tls.is_some() };
        let stream = TimedWrites::new(stream, STALLED_MAX);
        let Some(tls) = self.tls.clone() else {
            return self.serve_stream(stream, peer, connection).await;
        };
        let handshake = tokio::time::timeout(TLS_TIMEOUT, tls.acceptor().accept(stream));
        match connection.closed().run_until_cancelled(handshake).await {
            Some(Ok(Ok(stream))) => self.serve_stream(stream, peer, connection).await,
            Some(Ok(Err(error))) => debug!("{address} did not complete the TLS handshake: {error}"),
            Some(Err(_)) | None => debug!("{address} took too long for the TLS handshake"),
        }
    }

    /// Serves a client whose connection is there already, without TLS.
    pub(super) async fn serve_client<S>(self: Arc<Self>, stream: S, address: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if let Some(connection) = self.connections.admit() {
            let stream = TimedWrites::new(stream, STALLED_MAX);
            self.serve_stream(stream, Peer { address, is_tls: false }, connection).await;
        }
    }

    async fn serve_stream<S>(self: Arc<Self>, stream: S, peer: Peer, connection: Arc<Connection>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let requests = service_fn(|request| {
            let response = self.clone().respond(request, peer, connection.clone());
            async { Ok::<_, Infallible>(response.await) }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEADERS_TIMEOUT).max_buf_size(HEADERS_BYTES_MAX);
        let mut http = pin!(http.serve_connection(TokioIo::new(stream), requests));
        let result = tokio::select! {
            result = http.as_mut() => result,
            () = connection.closed().cancelled() => return,
            () = self.ended.cancelled() => {
                http.as_mut().graceful_shutdown();
                tokio::time::timeout(END_TIMEOUT, http).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = result {
            debug!("the connection of {} ended: {error}", peer.address);
        }
    }

    async fn respond(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: Peer,
        connection: Arc<Connection>,
    ) -> Response<BusyBody> {
        let (mut parts, body) = request.into_parts();
        parts.extensions.insert(peer);
        parts.extensions.insert(connection);
        let mut response = match below(&self.base_path, &parts.uri) {
            Below::Same => self.route(Request::from_parts(parts, body)).await,
            Below::At(uri) => {
                parts.uri = uri;
                self.route(Request::from_parts(parts, body)).await
            }
            Below::Redirect => Redirect::permanent(&format!("{}/", self.base_path)).into_response(),
        };
        let busy = response.extensions_mut().remove();
        response.map(|body| BusyBody::new(body, busy))
    }

    async fn route(&self, request: Request<Incoming>) -> Response<Body> {
        match tokio::time::timeout(RESPONSE_TIMEOUT, self.router.call(request)).await {
            Ok(Ok(response)) => response,
            Err(_) => {
                let text = format!("the request took longer than {} s", RESPONSE_TIMEOUT.as_secs());
                let mut response = problem(StatusCode::REQUEST_TIMEOUT, &text);
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                response
            }
        }
    }
}

/// Where a request's path is, seen from the base path.
enum Below {
    /// There is no base path, or the proxy has removed it.
    Same,
    At(Uri),
    /// At the base path without its `/`, where relative links would lead elsewhere.
    Redirect,
}

fn below(base_path: &str, uri: &Uri) -> Below {
    if base_path.is_empty() {
        return Below::Same;
    }
    match uri.path().strip_prefix(base_path) {
        Some("") => Below::Redirect,
        Some(path) if path.starts_with('/') => {
            let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
            format!("{path}{query}").parse().map_or(Below::Same, Below::At)
        }
        _ => Below::Same,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_found_below_the_base_path() {
        let at = |uri: &str| match below("/silverd", &uri.parse().expect(uri)) {
            Below::Same => "same".to_owned(),
            Below::At(uri) => uri.to_string(),
            Below::Redirect => "redirect".to_owned(),
        };
        assert_eq!(at("/silverd/"), "/");
        assert_eq!(at("/silverd/api/panels/x?a=b"), "/api/panels/x?a=b");
        assert_eq!(at("/silverd"), "redirect");
        assert_eq!(at("/silverdx/"), "same");
        assert_eq!(at("/api/status"), "same");
        assert!(matches!(below("", &"/silverd".parse().expect("a path")), Below::Same));
    }
}
