//! Who is let in: tokens with roles, proxies in front, TLS, and connections that nobody uses.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned,
};

use super::super::harness::{Daemon, Project, Response, until, wait_for};
use super::{no_response_contains, project};

const TOKEN: &str = "a-token-that-nobody-guesses";
const VIEW_TOKEN: &str = "another-token-for-the-wall";
const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");
const JSON: (&str, &str) = ("Content-Type", "application/json");

fn start(name: &str, http: &str) -> (Project, Daemon) {
    let project = project(name, &format!("[http]\nlisten = \"127.0.0.1:0\"\n{http}"));
    let daemon = Daemon::start_with(&project, &["run"], &[]);
    (project, daemon)
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn log_in(daemon: &Daemon, path: &str, headers: &[(&str, &str)], token: &str) -> Response {
    daemon.request("POST", path, &[headers, &[FORM]].concat(), &format!("token={token}"))
}

/// The cookie of a response, without its attributes.
fn cookie(response: &Response) -> &str {
    response.header("set-cookie").split(';').next().unwrap()
}

#[test]
fn other_hosts_need_the_token() {
    let http = "[http]\nlisten = \"0.0.0.0:0\"\ntoken = \"${DASHBOARD_TOKEN:-0123456789abcdef}\"\n";
    let project = project("token", http);
    let daemon = Daemon::start_with(&project, &["run"], &[("DASHBOARD_TOKEN", TOKEN), ("SILVERD_LOG", "debug")]);
    let status_of = |headers: &[(&str, &str)], path: &str| daemon.request("GET", path, headers, "").status;
    for path in ["/api/status", "/api/stream", "/metrics", "/api/log", "/assets/app.js", "/api/openapi.json"] {
        assert_eq!(status_of(&[], path), 401, "{path}");
        assert_eq!(status_of(&[("Authorization", "Bearer a-token-that-nobody-guesse")], path), 401, "{path}");
    }
    assert_eq!(status_of(&[], "/health/live"), 200);
    assert_eq!(status_of(&[("Authorization", &bearer(TOKEN)), ("Host", "silverd.example.org")], "/api/status"), 200);
    let to_login = daemon.get("/");
    assert_eq!((to_login.status, to_login.header("location")), (303, "/login"));
    let form = daemon.get("/login");
    assert!(form.body.contains("<form"));
    // With `no-referrer`, browsers send the form with `Origin: null`.
    assert_eq!(form.header("referrer-policy"), "same-origin");

    let wrong = log_in(&daemon, "/login", &[], "wrong");
    assert_eq!((wrong.status, wrong.header("set-cookie"), wrong.header("location")), (303, "", "/login?wrong"));
    assert!(daemon.get("/login?wrong").body.contains("This token is wrong"));
    let port = daemon.port();
    let right = log_in(&daemon, "/login", &[("Origin", &format!("http://localhost:{port}"))], TOKEN);
    let set = right.header("set-cookie");
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Strict") && set.contains("Path=/;"), "{set}");
    assert!(!set.contains(TOKEN) && !set.contains("Secure"), "{set}");
    assert_eq!((right.status, right.header("location")), (303, "/"));
    let cookie = cookie(&right);
    assert_eq!(status_of(&[("Cookie", cookie)], "/"), 200);
    assert_eq!(status_of(&[("Cookie", cookie)], "/api/status"), 200);
    for foreign in [("Sec-Fetch-Site", "cross-site"), ("Origin", "null"), ("Origin", "http://localhost:1")] {
        assert_eq!(log_in(&daemon, "/login", &[foreign], TOKEN).status, 403, "{foreign:?}");
    }
    let out = daemon.request("POST", "/logout", &[("Cookie", cookie)], "");
    assert_eq!((out.status, out.header("location")), (303, "/login"));
    assert!(out.header("set-cookie").contains("Max-Age=0"), "{}", out.header("set-cookie"));
    no_response_contains(&daemon, TOKEN);
}

#[test]
fn roles_limit_what_a_token_may_do() {
    let http = format!("token = \"{TOKEN}\"\n[http.tokens.wall]\nrole = \"view\"\ntoken_file = \"wall.token\"\n");
    let project = project("roles", &format!("[http]\nlisten = \"127.0.0.1:0\"\n{http}"));
    let file = project.folder.path().join("wall.token");
    fs::write(&file, format!("{VIEW_TOKEN}\n")).unwrap();
    let daemon = Daemon::start_with(&project, &["run"], &[]);
    let session = |token: &str| {
        let response = daemon.request("GET", "/api/session", &[("Authorization", &bearer(token))], "");
        (response.status, response.body)
    };
    assert_eq!(session(TOKEN), (200, r#"{"can_log_out":false,"name":"token","role":"operate"}"#.to_owned()));
    assert_eq!(session(VIEW_TOKEN), (200, r#"{"can_log_out":false,"name":"wall","role":"view"}"#.to_owned()));
    let put = |token: &str, filter: &str| {
        let headers = [("Authorization", bearer(token)), (JSON.0, JSON.1.to_owned())];
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        daemon.request("PUT", "/api/log", &headers, &format!("{{\"filter\": \"{filter}\"}}"))
    };
    let refused = put(VIEW_TOKEN, "off");
    assert_eq!(refused.status, 403);
    assert!(refused.body.contains("`wall`") && refused.body.contains("`view`"), "{}", refused.body);
    assert_eq!(put(TOKEN, "off").status, 200);
    // Whatever the filter is.
    until("an audit line", || daemon.log().contains("`token` changed the log filter to `off` from 127.0.0.1"));
    let response = log_in(&daemon, "/login", &[], VIEW_TOKEN);
    assert!(daemon.log().contains("127.0.0.1 logged in with the token `wall`, role view"), "{}", daemon.log());
    let cookie = cookie(&response);
    let seen = daemon.request("GET", "/api/session", &[("Cookie", cookie)], "").body;
    assert_eq!(seen, r#"{"can_log_out":true,"name":"wall","role":"view"}"#);

    // A new token in the file: the old one and its cookies are of no use any more.
    let next = "the-next-token-for-the-wall";
    fs::write(&file, next).unwrap();
    until("the new token", || session(next).0 == 200);
    assert_eq!(session(VIEW_TOKEN).0, 401);
    assert_eq!(daemon.request("GET", "/api/session", &[("Cookie", cookie)], "").status, 401);
    // One that can be guessed is not taken.
    assert_eq!(put(TOKEN, "warn").status, 200);
    fs::write(&file, "short").unwrap();
    until("a warning", || daemon.log().contains("`wall`: read") && daemon.log().contains("tokens of before stay"));
    assert_eq!((session(next).0, session("short").0), (200, 401));
}

#[test]
fn guesses_are_counted() {
    let (_project, daemon) = start("guesses", &format!("token = \"{TOKEN}\"\ntrusted_proxies = [\"127.0.0.1\"]\n"));
    let from = |address: &str, token: &str| {
        let headers = [("Authorization", bearer(token)), ("X-Forwarded-For", address.to_owned())];
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        daemon.request("GET", "/api/status", &headers, "")
    };
    for number in 0..10 {
        assert_eq!(from("203.0.113.7", &format!("guess {number}")).status, 401);
    }
    let blocked = from("203.0.113.7", TOKEN);
    assert_eq!(blocked.status, 429, "{}", blocked.body);
    assert!((1..=60).contains(&blocked.header("retry-after").parse().unwrap()), "{:?}", blocked.headers);
    assert_eq!(log_in(&daemon, "/login", &[("X-Forwarded-For", "203.0.113.7")], TOKEN).status, 429);
    assert_eq!(from("203.0.113.8", TOKEN).status, 200, "other addresses are not affected");
    assert!(daemon.log().contains("203.0.113.7 sent too many wrong tokens"), "{}", daemon.log());
}

#[test]
fn a_proxy_may_serve_silverd_below_a_path() {
    let http = format!("token = \"{TOKEN}\"\nbase_path = \"/silverd\"\ntrusted_proxies = [\"127.0.0.1\"]\n");
    let (_project, daemon) = start("base-path", &http);
    assert!(
        wait_for("the address", || Some(daemon.log()).filter(|log| log.contains("/silverd"))).contains("localhost")
    );
    let through = [("Host", "127.0.0.1:1"), ("X-Forwarded-Host", "shop.example.org"), ("X-Forwarded-Proto", "https")];
    let get =
        |path: &str, cookie: &str| daemon.request("GET", path, &[&through[..], &[("Cookie", cookie)]].concat(), "");
    // Proxies that keep the prefix, and proxies that remove it.
    for prefix in ["/silverd", ""] {
        let to_login = get(&format!("{prefix}/"), "");
        assert_eq!((to_login.status, to_login.header("location")), (303, "/silverd/login"));
        let origin = [("Origin", "https://shop.example.org")];
        let response = log_in(&daemon, &format!("{prefix}/login"), &[&through[..], &origin].concat(), TOKEN);
        assert_eq!((response.status, response.header("location")), (303, "/silverd/"));
        let set = response.header("set-cookie");
        assert!(set.contains("Path=/silverd/;") && set.ends_with("; Secure"), "{set}");
        let cookie = cookie(&response);
        assert_eq!(get(&format!("{prefix}/api/status"), cookie).status, 200);
        let filter = r#"{"filter": "info"}"#;
        let headers = [&through[..], &origin, &[JSON, ("Cookie", cookie)]].concat();
        assert_eq!(daemon.request("PUT", &format!("{prefix}/api/log"), &headers, filter).status, 200);
    }
    let bare = get("/silverd", "");
    assert_eq!((bare.status, bare.header("location")), (308, "/silverd/"));
    assert_eq!(get("/silverdx/health/live", "").status, 401);
    assert_eq!(get("/silverd/health/live", "").status, 200);
    // A browser behind a proxy that sends another Host, and of which silverd knows nothing, says itself whose page it is.
    let browser = [("Host", "upstream"), ("Origin", "https://shop.example.org"), ("Sec-Fetch-Site", "same-origin")];
    assert_eq!(log_in(&daemon, "/login", &browser, TOKEN).status, 303);
    assert_eq!(log_in(&daemon, "/login", &browser[..2], TOKEN).status, 403);
}

/// Neither silent connections nor halves of requests keep anybody out.
#[test]
fn idle_connections_give_way() {
    let (_project, daemon) = start("idle", &format!("token = \"{TOKEN}\"\n"));
    let mut idle = Vec::new();
    for number in 0..540 {
        let mut connection = TcpStream::connect(("127.0.0.1", daemon.port())).unwrap();
        if number % 3 > 0 {
            connection.write_all(b"GET /api/status HTTP/1.1\r\nHost: localhost\r\n").unwrap();
        }
        // A body that never comes, from somebody who is not known.
        if number % 3 > 1 {
            connection.write_all(b"\r\n").unwrap();
            connection.write_all(b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n").unwrap();
        }
        idle.push(connection);
    }
    for _ in 0..3 {
        assert_eq!(daemon.get("/health/live").status, 200);
        assert_eq!(daemon.get("/login").status, 200);
        for path in ["/metrics", "/", "/api/status"] {
            assert_eq!(daemon.request("GET", path, &[("Authorization", &bearer(TOKEN))], "").status, 200, "{path}");
        }
    }
    assert_eq!(log_in(&daemon, "/login", &[], TOKEN).status, 303);
    // The first of them were closed.
    let closed = |mut connection: &TcpStream| {
        connection.set_nonblocking(true).unwrap();
        connection.read(&mut [0; 4096]).is_ok_and(|read| read == 0) || connection.take_error().unwrap().is_some()
    };
    until("the longest idle connection is closed", || closed(&idle[0]));
}

#[test]
fn connections_are_used_again() {
    let (_project, daemon) = start("keep-alive", &format!("token = \"{TOKEN}\"\n"));
    let mut connection = TcpStream::connect(("127.0.0.1", daemon.port())).unwrap();
    for _ in 0..3 {
        connection.write_all(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut response = Vec::new();
        while !response.ends_with(b"alive\n") {
            let mut bytes = [0; 1024];
            let read = connection.read(&mut bytes).unwrap();
            assert!(read > 0, "closed after {}", String::from_utf8_lossy(&response));
            response.extend(&bytes[..read]);
        }
    }
}

#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Asks over TLS, and returns the server's certificate and its answer.
fn ask_over_tls(port: u16, request: &str) -> (CertificateDer<'static>, String) {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth();
    let client = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(client, TcpStream::connect(("127.0.0.1", port)).unwrap());
    stream.write_all(format!("{request}\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).unwrap();
    let certificate = stream.conn.peer_certificates().unwrap()[0].clone().into_owned();
    (certificate, String::from_utf8(response).unwrap())
}

#[test]
fn tls_has_a_certificate_that_can_be_replaced() {
    let pem = |name: &str| super::super::harness::root().join("daemon/tests/it/fixtures/tls").join(name);
    let certificate = |name: &str| CertificateDer::from_pem_file(pem(&format!("{name}.cert.pem"))).unwrap();
    let http = format!(
        "[http]\nlisten = \"127.0.0.1:0\"\ntoken = \"{TOKEN}\"\n[http.tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n"
    );
    let project = project("tls", &http);
    let folder = project.folder.path().to_owned();
    let output = project.output(&["check"]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && errors.contains("[http.tls] certificate") && errors.contains("cert.pem"),
        "{errors}"
    );
    let install = |certificate: &str, key: &str| {
        fs::copy(pem(&format!("{certificate}.cert.pem")), folder.join("cert.pem")).unwrap();
        fs::copy(pem(&format!("{key}.key.pem")), folder.join("key.pem")).unwrap();
    };
    install("one", "two");
    let output = project.output(&["check"]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && errors.contains("do not belong together"), "{errors}");
    install("one", "one");
    assert!(project.output(&["check"]).status.success());

    let daemon = Daemon::start_with(&project, &["run"], &[]);
    let port = daemon.port();
    assert!(daemon.log().contains("https://localhost:"), "{}", daemon.log());
    let (first, answer) = ask_over_tls(port, "GET /health/live HTTP/1.1");
    assert!(first == certificate("one") && answer.starts_with("HTTP/1.1 200"), "{answer}");
    let login = format!("POST /login HTTP/1.1\r\nContent-Length: {}\r\nX: x", 6 + TOKEN.len());
    let (_, answer) =
        ask_over_tls(port, &format!("{login}\r\nHost: localhost\r\nConnection: close\r\n\r\ntoken={TOKEN}"));
    assert!(answer.contains("; Secure"), "{answer}");
    // Plain HTTP gets no answer, and does not keep the others out.
    let mut plain = TcpStream::connect(("127.0.0.1", port)).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");

    install("two", "two");
    until("the new certificate", || ask_over_tls(port, "GET /health/live HTTP/1.1").0 == certificate("two"));
    fs::write(folder.join("cert.pem"), "nonsense").unwrap();
    until("a warning", || daemon.log().contains("the certificate and the tokens of before stay"));
    assert!(ask_over_tls(port, "GET /health/live HTTP/1.1").0 == certificate("two"));
}

#[test]
fn without_a_token_beyond_loopback_the_log_says_what_that_means() {
    let project = project("no-token", "");
    let daemon = Daemon::start_with(&project, &["run", "--listen", "0.0.0.0:0", "--no-token"], &[]);
    until("a warning", || daemon.log().contains("--no-token: whoever reaches 0.0.0.0:"));
    assert_eq!(daemon.request("GET", "/api/status", &[("Host", "example.org")], "").status, 403);
    assert_eq!(daemon.get("/api/status").status, 200);
    assert_eq!(daemon.get("/api/session").body, r#"{"can_log_out":false,"name":null,"role":"operate"}"#);
}
