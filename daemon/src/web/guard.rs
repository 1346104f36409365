//! Who may ask: no other site through a visitor's browser, and where others can reach the address, only who has the token.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use sha2::{Digest, Sha256};
use silverd_core::config::Secret;
use std::sync::Arc;
use std::time::Duration;

const COOKIE: &str = "silverd";
/// What is open without a token: it tells nothing.
const OPEN: [&str; 4] = ["/health/live", "/health/ready", "/login", "/assets/style.css"];
/// Whoever guesses tokens, guesses slowly.
const WRONG_TOKEN_PAUSE: Duration = Duration::from_millis(500);
/// No script, style or connection but our own; no frame around the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// The rules of one address.
pub struct Guard {
    token: Option<[u8; 32]>,
    /// Only this machine is meant to ask: a name that is not its own is another site's, pointed here.
    local: bool,
}

impl Guard {
    pub fn new(token: Option<&Secret>) -> Self {
        Self { token: token.map(|token| digest(token.expose())), local: token.is_none() }
    }

    fn knows(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        if bearer.is_some_and(|bearer| same(&digest(bearer), token)) {
            return true;
        }
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut cookies = cookies.flat_map(|cookies| cookies.split("; ")).filter_map(|cookie| cookie.split_once('='));
        cookies.any(|(name, value)| name == COOKIE && same(value.as_bytes(), of_cookie(token).as_bytes()))
    }

    /// The answer to a token that was typed into the login page.
    pub async fn login(&self, typed: &str) -> Response {
        let Some(token) = &self.token else { return Redirect::to("/").into_response() };
        if !same(&digest(typed.trim()), token) {
            tokio::time::sleep(WRONG_TOKEN_PAUSE).await;
            return Redirect::to("/login?wrong").into_response();
        }
        let cookie = format!("{COOKIE}={}; HttpOnly; SameSite=Strict; Path=/; Max-Age=2592000", of_cookie(token));
        let mut response = Redirect::to("/").into_response();
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            response.headers_mut().insert(header::SET_COOKIE, cookie);
        }
        response
    }

    fn refuses(&self, request: &Request) -> Option<Response> {
        let headers = request.headers();
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        if self.local && !is_this_machine(host) {
            let text = "silverd answers to localhost alone here. Open it as http://localhost, or set a token in [http] and \
                        listen on another address";
            return Some((StatusCode::FORBIDDEN, text).into_response());
        }
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        if !reads && comes_from_elsewhere(headers, host) {
            return Some((StatusCode::FORBIDDEN, "another site may not change anything here").into_response());
        }
        let path = request.uri().path();
        if OPEN.contains(&path) || self.knows(headers) {
            return None;
        }
        if path == "/" {
            return Some(Redirect::to("/login").into_response());
        }
        let text = "the token is missing or wrong: send it as `Authorization: Bearer …`, or log in at /login";
        let challenge = [(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))];
        Some((StatusCode::UNAUTHORIZED, challenge, text).into_response())
    }
}

/// Lets through what may pass, and gives every answer the headers that keep a browser from misusing it.
pub async fn guard(State(guard): State<Arc<Guard>>, request: Request<Body>, next: Next) -> Response {
    let mut response = match guard.refuses(&request) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// A page of another site can be given this machine's address by its name server, but not this machine's name.
fn is_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _port)| name),
    };
    let name = name.to_ascii_lowercase();
    let name = name.trim_end_matches('.');
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn comes_from_elsewhere(headers: &HeaderMap, host: &str) -> bool {
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("?"));
    let site = text(header::HeaderName::from_static("sec-fetch-site"));
    let origin = text(header::ORIGIN);
    site.is_some_and(|site| !matches!(site, "same-origin" | "none"))
        || origin.is_some_and(|origin| origin.split_once("://").map(|(_, origin)| origin) != Some(host))
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// What a browser keeps instead of the token.
fn of_cookie(token: &[u8; 32]) -> String {
    let digest = Sha256::new().chain_update(b"cookie").chain_update(token).finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Takes the same time wherever the two differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine() {
        for host in ["localhost", "localhost:8080", "LOCALHOST:1", "127.0.0.1:8080", "[::1]:8080", "silverd.localhost"]
        {
            assert!(is_this_machine(host), "{host}");
        }
        for host in
            ["", "example.org", "localhost.example.org:8080", "192.168.1.2", "127.0.0.1.example.org", "[::2]:80"]
        {
            assert!(!is_this_machine(host), "{host}");
        }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), value.parse().expect("good")))
            .collect()
    }

    #[test]
    fn other_sites_change_nothing() {
        let from = |pairs: &[(&'static str, &str)]| comes_from_elsewhere(&headers(pairs), "localhost:8080");
        assert!(!from(&[]), "curl says nothing of a site");
        assert!(!from(&[("origin", "http://localhost:8080"), ("sec-fetch-site", "same-origin")]));
        assert!(from(&[("origin", "http://example.org")]));
        assert!(from(&[("origin", "null")]));
        assert!(from(&[("origin", "http://localhost:9999")]));
        assert!(from(&[("sec-fetch-site", "cross-site")]));
        assert!(from(&[("sec-fetch-site", "same-site")]));
    }

    #[test]
    fn the_token_opens_by_header_and_by_cookie() {
        let guard = Guard::new(Some(&Secret::new("0123456789abcdef".to_owned())));
        assert!(!guard.local);
        assert!(!guard.knows(&headers(&[])));
        assert!(!guard.knows(&headers(&[("authorization", "Bearer 0123456789abcdeg")])));
        assert!(guard.knows(&headers(&[("authorization", "Bearer 0123456789abcdef")])));
        let cookie = of_cookie(&digest("0123456789abcdef"));
        assert!(guard.knows(&headers(&[("cookie", &format!("a=b; silverd={cookie}"))])));
        assert!(!guard.knows(&headers(&[("cookie", "silverd=0123456789abcdef")])));
        assert!(Guard::new(None).knows(&headers(&[])));
    }
}
