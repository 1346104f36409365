//! A small HTTP client for the dashboard of a running daemon.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use super::{Daemon, wait_for};

const TIMEOUT: Duration = Duration::from_secs(60);

pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Daemon {
    /// The port of the dashboard, which the log contains.
    pub fn port(&self) -> u16 {
        *self.port.get_or_init(|| {
            wait_for("the address of the dashboard", || {
                let log = self.log();
                let (_, url) = log.split_once("dashboard: http")?;
                let (_, address) = url.split_once("://")?;
                let (_, port) = address.split_once(':')?;
                let (port, _) = port.split_once(|character: char| !character.is_ascii_digit())?;
                port.parse().ok()
            })
        })
    }

    pub fn get(&self, path: &str) -> Response {
        self.request("GET", path, &[], "")
    }

    pub fn json(&self, path: &str) -> Value {
        let response = self.get(path);
        assert_eq!(response.status, 200, "{path}: {}", response.body);
        serde_json::from_str(&response.body).unwrap_or_else(|error| panic!("{path}: {error}\n{}", response.body))
    }

    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        let mut stream = self.send(method, path, headers, body);
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or(0);
        let headers: Vec<_> = lines.filter_map(|line| line.split_once(": ")).collect();
        let headers = headers.into_iter().map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        Response { status, headers, body: body.to_owned() }
    }

    /// Sends a request, and returns the connection.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> TcpStream {
        let port = self.port();
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        if !headers.iter().any(|(name, _)| *name == "Host") {
            request += &format!("Host: localhost:{port}\r\n");
        }
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        stream.write_all(format!("{request}\r\n{body}").as_bytes()).unwrap();
        stream
    }

    /// Reads a stream of server-sent events until one satisfies `wanted`.
    pub fn wait_for_event(stream: TcpStream, wanted: impl Fn(&str, &Value) -> bool) -> Value {
        let mut event = String::new();
        for line in BufReader::new(stream).lines() {
            let line = line.expect("an open stream");
            if let Some(name) = line.strip_prefix("event: ") {
                event = name.to_owned();
            } else if let Some(data) = line.strip_prefix("data: ") {
                let data: Value = serde_json::from_str(data).unwrap();
                if wanted(&event, &data) {
                    return data;
                }
            }
        }
        panic!("the stream ended");
    }
}

impl Response {
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}
