//! A service on this machine that takes webhooks: it records requests, and answers as it is asked to.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::tcp_server::TcpServer;
use super::tls;

/// How the next request is answered.
#[derive(Clone, Debug)]
pub enum Answer {
    Status(u16),
    /// Status, a header, and a body.
    Full(u16, &'static str, String, &'static str),
    /// Not before the receiver is dropped, or [`WebhookReceiver::release`] is called.
    Hang,
    /// The connection ends.
    Reset,
}

#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// With lower-case names.
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub at: Instant,
}

pub struct WebhookReceiver {
    server: TcpServer,
    is_tls: bool,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    released: Condvar,
}

#[derive(Default)]
struct State {
    answers: VecDeque<Answer>,
    requests: Vec<Request>,
    is_released: bool,
}

impl WebhookReceiver {
    /// Answers 200 to each request.
    pub fn start() -> Self {
        Self::with_answers([])
    }

    /// Answers these, then 200.
    pub fn with_answers(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self::serve(answers, false)
    }

    /// Over TLS, with the certificate of [`tls::authority`].
    pub fn with_tls() -> Self {
        Self::serve([], true)
    }

    fn serve(answers: impl IntoIterator<Item = Answer>, is_tls: bool) -> Self {
        let shared = Arc::new(Shared::default());
        shared.state.lock().answers = answers.into_iter().collect();
        let of_server = shared.clone();
        let server = TcpServer::start(move |stream| match is_tls {
            true => of_server.talk(tls::accept(stream)),
            false => of_server.talk(stream),
        });
        Self { server, is_tls, shared }
    }

    pub fn url(&self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://localhost:{}/hook/hunter2", self.server.port())
    }

    pub fn requests(&self) -> Vec<Request> {
        self.shared.state.lock().requests.clone()
    }

    /// Answers the requests that hang, and those that would, by 200.
    pub fn release(&self) {
        self.shared.state.lock().is_released = true;
        self.shared.released.notify_all();
    }
}

impl Drop for WebhookReceiver {
    fn drop(&mut self) {
        self.release();
    }
}

impl Shared {
    /// One request, and its answer.
    fn talk(&self, mut stream: impl Read + Write) -> io::Result<()> {
        let Some(request) = read_request(&mut stream)? else { return Ok(()) };
        let mut state = self.state.lock();
        state.requests.push(request);
        let answer = state.answers.pop_front().unwrap_or(Answer::Status(200));
        let (status, header, body) = match answer {
            Answer::Status(status) => (status, String::new(), ""),
            Answer::Full(status, name, value, body) => (status, format!("{name}: {value}\r\n"), body),
            Answer::Reset => return Ok(()),
            Answer::Hang => {
                self.released.wait_while(&mut state, |state| !state.is_released);
                (200, String::new(), "")
            }
        };
        drop(state);
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 {status} Status\r\n{header}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )?;
        stream.flush()
    }
}

/// `None` if the client sent nothing.
fn read_request(stream: impl Read) -> io::Result<Option<Request>> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut first = lines[0].split(' ').map(str::to_owned);
    let headers: Vec<(String, String)> = lines[1..]
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length").map(|(_, length)| length.parse().unwrap());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    Ok(Some(Request {
        method: first.next().unwrap(),
        path: first.next().unwrap(),
        headers,
        body: String::from_utf8(body).unwrap(),
        at: Instant::now(),
    }))
}

impl Request {
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}
