//! The open connections. Their number is bounded; at the bound, the one that has waited longest for a request gives way to
//! a new one, so that idle connections cannot keep anybody out.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// More than the requests that can be in progress: see `access::REQUESTS_MAX`.
const CONNECTIONS_MAX: usize = 512;

#[derive(Default)]
pub(super) struct Connections(Mutex<Open>);

#[derive(Default)]
struct Open {
    by_number: BTreeMap<u64, State>,
    next_number: u64,
}

struct State {
    requests: usize,
    idle_since: Instant,
    closed: CancellationToken,
}

impl Connections {
    /// `None` if there is no room: every connection has a request in progress.
    pub(super) fn admit(self: &Arc<Self>) -> Option<Arc<Connection>> {
        let open = &mut *self.0.lock();
        if open.by_number.len() >= CONNECTIONS_MAX {
            let idle = open.by_number.iter().filter(|(_, state)| state.requests == 0);
            let longest = *idle.min_by_key(|(_, state)| state.idle_since)?.0;
            if let Some(state) = open.by_number.remove(&longest) {
                state.closed.cancel();
            }
        }
        let (number, closed) = (open.next_number, CancellationToken::new());
        open.next_number += 1;
        open.by_number.insert(number, State { requests: 0, idle_since: Instant::now(), closed: closed.clone() });
        Some(Arc::new(Connection { connections: self.clone(), number, closed }))
    }
}

/// An open connection, an extension of each of its requests. Its place is free once the last clone is dropped.
pub(in crate::http) struct Connection {
    connections: Arc<Connections>,
    number: u64,
    closed: CancellationToken,
}

impl Connection {
    /// Cancelled when the connection has to give way.
    pub(super) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    pub(in crate::http) fn start_request(self: &Arc<Self>) -> Busy {
        self.update(|state| state.requests += 1);
        Busy(self.clone())
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        if let Some(state) = self.connections.0.lock().by_number.get_mut(&self.number) {
            change(state);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.connections.0.lock().by_number.remove(&self.number);
    }
}

/// A request in progress.
pub(in crate::http) struct Busy(Arc<Connection>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.update(|state| {
            state.requests -= 1;
            state.idle_since = Instant::now();
        });
    }
}

/// The body of a response; the request is in progress until it is sent.
pub(super) struct BusyBody {
    body: Body,
    _busy: Option<Arc<Busy>>,
}

impl BusyBody {
    pub(super) fn new(body: Body, busy: Option<Arc<Busy>>) -> Self {
        Self { body, _busy: busy }
    }
}

impl HttpBody for BusyBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_idle_connection_gives_way() {
        let connections = Arc::<Connections>::default();
        let mut open: Vec<_> = (0..CONNECTIONS_MAX).filter_map(|_| connections.admit()).collect();
        assert_eq!(open.len(), CONNECTIONS_MAX);
        let busy = open[0].start_request();
        let newest = connections.admit().expect("a place");
        assert!(open[1].closed().is_cancelled() && !open[0].closed().is_cancelled(), "the first is busy");
        drop(busy);
        assert!(connections.admit().is_some());
        assert!(
            open[2].closed().is_cancelled() && !open[0].closed().is_cancelled(),
            "the first is the newest idle one"
        );
        assert!(!newest.closed().is_cancelled());
        open.drain(1..3);
        let mut requests: Vec<_> = open.iter().map(Connection::start_request).collect();
        requests.push(newest.start_request());
        while let Some(connection) = connections.admit() {
            requests.push(connection.start_request());
            assert!(requests.len() <= CONNECTIONS_MAX);
        }
        assert_eq!(requests.len(), CONNECTIONS_MAX, "all are busy");
        requests.pop();
        assert!(connections.admit().is_some());
    }
}
