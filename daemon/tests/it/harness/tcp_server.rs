//! A server on this machine that has a thread for each connection.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Accepts connections until it is dropped.
pub struct TcpServer {
    port: u16,
    is_closed: Arc<AtomicBool>,
}

impl TcpServer {
    pub fn start(talk: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (talk, is_closed) = (Arc::new(talk), Arc::<AtomicBool>::default());
        let server = Self { port, is_closed: is_closed.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if is_closed.load(Relaxed) {
                    return;
                }
                let (talk, stream) = (talk.clone(), stream.unwrap());
                // A client that goes away is none of the test's business.
                std::thread::spawn(move || talk(stream).ok());
            }
        });
        server
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for TcpServer {
    fn drop(&mut self) {
        self.is_closed.store(true, Relaxed);
        // Ends the thread that accepts connections.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}
