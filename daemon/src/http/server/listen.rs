//! The listening socket.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;

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

pub(in crate::http) async fn bind(listen: &ListenAddress) -> io::Result<TcpListener> {
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
    result
}

fn is_in_use(result: &io::Result<TcpListener>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::AddrInUse)
}
