//! Access control: rejects requests of other sites through a browser, and asks for the token where others can connect.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use sha2::{Digest, Sha256};
use silverd_core::config::Secret;

const COOKIE: &str = "silverd";
/// Paths without a token: they show nothing of the data.
const PUBLIC_PATHS: [&str; 4] = ["/health/live", "/health/ready", "/login", "/assets/style.css"];
/// Slows down guessing.
const WRONG_TOKEN_DELAY: Duration = Duration::from_millis(500);
/// Scripts, styles and connections of silverd only, and no frame around the dashboard.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// The access rules of one listening address.
pub(super) struct Auth {
    token_digest: Option<[u8; 32]>,
    /// Without a token, only requests to a loopback host name are answered: any other name may be that of another site,
    /// which resolves to this address (DNS rebinding).
    loopback_only: bool,
}

/// The middleware that rejects requests, and adds the security headers to every response.
pub(super) async fn authorize(State(auth): State<Arc<Auth>>, request: Request<Body>, next: Next) -> Response {
    let mut response = match auth.rejection(&request) {
        Some(rejection) => rejection,
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

impl Auth {
    pub(super) fn new(token: Option<&Secret>) -> Self {
        Self { token_digest: token.map(|token| digest(token.expose())), loopback_only: token.is_none() }
    }

    /// The response to a token from the login form.
    pub(super) async fn login(&self, token: &str) -> Response {
        let Some(expected) = &self.token_digest else { return Redirect::to("/").into_response() };
        if !constant_time_eq(&digest(token.trim()), expected) {
            tokio::time::sleep(WRONG_TOKEN_DELAY).await;
            return Redirect::to("/login?wrong").into_response();
        }
        let cookie = format!("{COOKIE}={}; HttpOnly; SameSite=Strict; Path=/; Max-Age=2592000", cookie_value(expected));
        let mut response = Redirect::to("/").into_response();
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            response.headers_mut().insert(header::SET_COOKIE, cookie);
        }
        response
    }

    fn rejection(&self, request: &Request) -> Option<Response> {
        let headers = request.headers();
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        if self.loopback_only && !is_loopback_host(host) {
            let text = "silverd answers requests to localhost only. Open http://localhost, or set `token` in [http] \
                        and listen on another address";
            return Some((StatusCode::FORBIDDEN, text).into_response());
        }
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        if !is_read && is_cross_site(headers, host) {
            return Some((StatusCode::FORBIDDEN, "requests of other sites cannot change anything").into_response());
        }
        let path = request.uri().path();
        if PUBLIC_PATHS.contains(&path) || self.is_authorized(headers) {
            return None;
        }
        if path == "/" {
            return Some(Redirect::to("/login").into_response());
        }
        let text = "the token is missing or wrong: send it as `Authorization: Bearer …`, or log in at /login";
        let challenge = [(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))];
        Some((StatusCode::UNAUTHORIZED, challenge, text).into_response())
    }

    fn is_authorized(&self, headers: &HeaderMap) -> bool {
        let Some(expected) = &self.token_digest else { return true };
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        if bearer.is_some_and(|bearer| constant_time_eq(&digest(bearer), expected)) {
            return true;
        }
        let expected = cookie_value(expected);
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut cookies = cookies.flat_map(|cookies| cookies.split("; ")).filter_map(|cookie| cookie.split_once('='));
        cookies.any(|(name, value)| name == COOKIE && constant_time_eq(value.as_bytes(), expected.as_bytes()))
    }
}

/// Whether a `Host` header names this machine. Another site can let its name resolve to this machine's address, but it
/// cannot use this machine's names.
fn is_loopback_host(host: &str) -> bool {
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

fn is_cross_site(headers: &HeaderMap, host: &str) -> bool {
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("?"));
    let site = text(header::HeaderName::from_static("sec-fetch-site"));
    let origin = text(header::ORIGIN);
    site.is_some_and(|site| !matches!(site, "same-origin" | "none"))
        || origin.is_some_and(|origin| origin.split_once("://").map(|(_, origin)| origin) != Some(host))
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// What the browser stores instead of the token.
fn cookie_value(token_digest: &[u8; 32]) -> String {
    let digest = Sha256::new().chain_update(b"cookie").chain_update(token_digest).finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_hosts_are_recognized() {
        for host in ["localhost", "localhost:8080", "LOCALHOST:1", "127.0.0.1:8080", "[::1]:8080", "silverd.localhost"]
        {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in
            ["", "example.org", "localhost.example.org:8080", "192.168.1.2", "127.0.0.1.example.org", "[::2]:80"]
        {
            assert!(!is_loopback_host(host), "{host}");
        }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), value.parse().expect("valid header")))
            .collect()
    }

    #[test]
    fn cross_site_requests_are_recognized() {
        let from = |pairs: &[(&'static str, &str)]| is_cross_site(&headers(pairs), "localhost:8080");
        assert!(!from(&[]), "curl sends neither header");
        assert!(!from(&[("origin", "http://localhost:8080"), ("sec-fetch-site", "same-origin")]));
        assert!(from(&[("origin", "http://example.org")]));
        assert!(from(&[("origin", "null")]));
        assert!(from(&[("origin", "http://localhost:9999")]));
        assert!(from(&[("sec-fetch-site", "cross-site")]));
        assert!(from(&[("sec-fetch-site", "same-site")]));
    }

    #[test]
    fn token_is_accepted_as_bearer_and_as_cookie() {
        let auth = Auth::new(Some(&Secret::new("0123456789abcdef".to_owned())));
        assert!(!auth.loopback_only);
        assert!(!auth.is_authorized(&headers(&[])));
        assert!(!auth.is_authorized(&headers(&[("authorization", "Bearer 0123456789abcdeg")])));
        assert!(auth.is_authorized(&headers(&[("authorization", "Bearer 0123456789abcdef")])));
        let cookie = cookie_value(&digest("0123456789abcdef"));
        assert!(auth.is_authorized(&headers(&[("cookie", &format!("a=b; silverd={cookie}"))])));
        assert!(!auth.is_authorized(&headers(&[("cookie", "silverd=0123456789abcdef")])));
        assert!(Auth::new(None).is_authorized(&headers(&[])));
    }
}
