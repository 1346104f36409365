//! A mail server on this machine: it records mails, and refuses what it is asked to.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;

use super::tcp_server::TcpServer;
use super::tls;

/// A mail that was taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Mail {
    pub from: String,
    pub to: Vec<String>,
    /// Headers and text, with lines that end with `\n`.
    pub text: String,
    pub is_encrypted: bool,
    pub user: Option<String>,
}

pub struct SmtpServer {
    server: TcpServer,
    shared: Arc<Shared>,
}

struct Shared {
    /// Without it, the server offers no STARTTLS, and wants no login.
    password: Option<&'static str>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Answers to the next commands MAIL; then it takes them.
    refuse_mail: VecDeque<&'static str>,
    /// Answers to RCPT, by address.
    refuse_to: BTreeMap<&'static str, &'static str>,
    mails: Vec<Mail>,
    /// All that clients sent without encryption.
    unencrypted: String,
}

impl SmtpServer {
    /// Wants STARTTLS, and this password of the user `shop`.
    pub fn with_starttls(password: &'static str) -> Self {
        Self::serve(Some(password))
    }

    pub fn unencrypted() -> Self {
        Self::serve(None)
    }

    fn serve(password: Option<&'static str>) -> Self {
        let shared = Arc::new(Shared { password, state: Mutex::default() });
        let of_server = shared.clone();
        Self { server: TcpServer::start(move |stream| of_server.talk(stream)), shared }
    }

    /// `localhost:<port>`.
    pub fn address(&self) -> String {
        format!("localhost:{}", self.server.port())
    }

    pub fn refuse_mail(&self, answer: &'static str) {
        self.shared.state.lock().refuse_mail.push_back(answer);
    }

    pub fn refuse_to(&self, address: &'static str, answer: &'static str) {
        self.shared.state.lock().refuse_to.insert(address, answer);
    }

    pub fn mails(&self) -> Vec<Mail> {
        self.shared.state.lock().mails.clone()
    }

    /// What clients sent without encryption.
    pub fn seen_unencrypted(&self) -> String {
        self.shared.state.lock().unencrypted.clone()
    }
}

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

impl Shared {
    fn talk(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.write_all(b"220 localhost ESMTP\r\n")?;
        let starts_tls = self.session(&mut stream, false)?;
        if starts_tls {
            self.session(&mut tls::accept(stream), true)?;
        }
        Ok(())
    }

    /// Up to the end of the connection, or to STARTTLS; whether it was that.
    fn session(&self, stream: &mut dyn Stream, is_encrypted: bool) -> io::Result<bool> {
        let (mut user, mut from, mut to) = (None, String::new(), Vec::new());
        while let Some(line) = self.line(stream, is_encrypted)? {
            let (command, rest) = line.split_once([' ', ':']).unwrap_or((&line, ""));
            let answer = match command.to_uppercase().as_str() {
                "EHLO" => match (self.password, is_encrypted) {
                    (None, _) => "250 localhost".to_owned(),
                    (Some(_), false) => "250-localhost\r\n250 STARTTLS".to_owned(),
                    (Some(_), true) => "250-localhost\r\n250 AUTH PLAIN LOGIN".to_owned(),
                },
                "STARTTLS" => {
                    stream.write_all(b"220 go ahead\r\n")?;
                    return Ok(true);
                }
                "AUTH" => match self.user_of(rest) {
                    Some(name) => {
                        user = Some(name);
                        "235 welcome".to_owned()
                    }
                    None => "535 5.7.8 the password is not right".to_owned(),
                },
                "MAIL" if self.password.is_some() && user.is_none() => "530 5.7.0 who are you".to_owned(),
                "MAIL" => {
                    (from, to) = (address_of(&line), Vec::new());
                    self.state.lock().refuse_mail.pop_front().unwrap_or("250 ok").to_owned()
                }
                "RCPT" => {
                    let address = address_of(&line);
                    let refused = self.state.lock().refuse_to.get(address.as_str()).copied();
                    if refused.is_none() {
                        to.push(address);
                    }
                    refused.unwrap_or("250 ok").to_owned()
                }
                "DATA" => {
                    stream.write_all(b"354 go on\r\n")?;
                    let mut text = String::new();
                    while let Some(line) = self.line(stream, is_encrypted)?.filter(|line| line != ".") {
                        text.push_str(line.strip_prefix('.').unwrap_or(&line));
                        text.push('\n');
                    }
                    let mail = Mail { from: from.clone(), to: to.clone(), text, is_encrypted, user: user.clone() };
                    self.state.lock().mails.push(mail);
                    "250 taken".to_owned()
                }
                "QUIT" => {
                    stream.write_all(b"221 bye\r\n")?;
                    return Ok(false);
                }
                _ => "250 ok".to_owned(),
            };
            stream.write_all(format!("{answer}\r\n").as_bytes())?;
            stream.flush()?;
        }
        Ok(false)
    }

    /// A line, byte by byte: what follows STARTTLS must not be read with it.
    fn line(&self, stream: &mut dyn Stream, is_encrypted: bool) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        let mut byte = [0];
        while stream.read(&mut byte)? == 1 {
            if byte == *b"\n" {
                let line = String::from_utf8(line).unwrap().trim_end_matches('\r').to_owned();
                if !is_encrypted {
                    self.state.lock().unencrypted += &format!("{line}\n");
                }
                return Ok(Some(line));
            }
            line.push(byte[0]);
        }
        Ok(None)
    }

    /// `PLAIN <base64 of zero, name, zero, password>`.
    fn user_of(&self, auth: &str) -> Option<String> {
        let decoded = STANDARD.decode(auth.strip_prefix("PLAIN ")?).ok()?;
        let text = String::from_utf8(decoded).ok()?;
        let (user, password) = text.strip_prefix('\0')?.split_once('\0')?;
        (user == "shop" && Some(password) == self.password).then(|| user.to_owned())
    }
}

/// `a@b` of `MAIL FROM:<a@b>`.
fn address_of(line: &str) -> String {
    line.split(['<', '>']).nth(1).unwrap_or_default().to_owned()
}
