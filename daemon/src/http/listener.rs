//! A listening socket with a bounded number of connections.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections at a time. Further ones wait in the backlog of the operating system.
const CONNECTIONS_MAX: usize = 256;
/// A port in use is tried again: the dashboard of before a restart may be about to release it.
const BIND_RETRIES: usize = 10;
const BIND_RETRY_INTERVAL: Duration = Duration::from_millis(50);
/// How many of the next ports are tried.
const NEXT_PORTS_MAX: u16 = 20;

/// Where to listen.
pub(crate) struct ListenAddress {
    pub address: SocketAddr,
    /// Listen on one of the next ports if this one is in use.
    pub try_next_ports: bool,
}

pub(super) struct BoundedListener {
    listener: TcpListener,
    connections: Arc<Semaphore>,
}

impl BoundedListener {
    pub(super) async fn bind(listen: &ListenAddress) -> io::Result<Self> {
        let address = listen.address;
        let mut result = TcpListener::bind(address).await;
        for _ in 0..BIND_RETRIES {
            if !is_in_use(&result) {
                break;
            }
            tokio::time::sleep(BIND_RETRY_INTERVAL).await;
            result = TcpListener::bind(address).await;
        }
        if listen.try_next_ports {
            for port in (1..=NEXT_PORTS_MAX).map_while(|offset| address.port().checked_add(offset)) {
                if !is_in_use(&result) {
                    break;
                }
                result = TcpListener::bind(SocketAddr::new(address.ip(), port)).await;
            }
        }
        Ok(Self { listener: result?, connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)) })
    }
}

fn is_in_use(result: &io::Result<TcpListener>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::AddrInUse)
}

impl Listener for BoundedListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let permit = self.connections.clone().acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let _ = stream.set_nodelay(true);
        (Connection { stream, _permit: permit }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection, and its permit out of `CONNECTIONS_MAX`.
pub(super) struct Connection {
    stream: TcpStream,
    _permit: Option<OwnedSemaphorePermit>,
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
