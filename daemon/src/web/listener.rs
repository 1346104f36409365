//! A listening socket that keeps a bounded number of connections.

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

/// Connections at a time; those behind wait in the system's own queue.
const CONNECTIONS_MAX: usize = 256;
/// A port that is taken is tried again so often, so far apart.
const TRIES: usize = 10;
const PAUSE: Duration = Duration::from_millis(50);
/// The demo looks for a free port among so many.
const PORTS_TRIED: u16 = 20;

pub struct Bounded {
    listener: TcpListener,
    room: Arc<Semaphore>,
}

impl Bounded {
    /// Listens there, or where `elsewhere` allows it on one of the next ports.
    pub async fn bind(address: SocketAddr, elsewhere: bool) -> io::Result<Self> {
        let mut result = TcpListener::bind(address).await;
        // The page of before may just be going.
        for _ in 0..TRIES {
            if !matches!(&result, Err(error) if error.kind() == io::ErrorKind::AddrInUse) {
                break;
            }
            tokio::time::sleep(PAUSE).await;
            result = TcpListener::bind(address).await;
        }
        for further in 1..=PORTS_TRIED {
            let taken = matches!(&result, Err(error) if error.kind() == io::ErrorKind::AddrInUse);
            let Some(port) = address.port().checked_add(further).filter(|_| taken && elsewhere) else { break };
            result = TcpListener::bind(SocketAddr::new(address.ip(), port)).await;
        }
        Ok(Self { listener: result?, room: Arc::new(Semaphore::new(CONNECTIONS_MAX)) })
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let permit = self.room.clone().acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let _ = stream.set_nodelay(true);
        (Connection { stream, _permit: permit }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection, and its place among those that may be.
pub struct Connection {
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
