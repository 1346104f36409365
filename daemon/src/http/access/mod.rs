//! Access control: who may ask for what. Rejects requests of other sites through a browser, and asks for a token where
//! others can connect.

mod client;
mod guesses;
mod refusal;
mod tokens;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use parking_lot::RwLock;
use silverd_core::config::{Http, Role};
use tokio::sync::Semaphore;
use tracing::{info, warn};

use super::api::HTML;
use super::assets;
use super::server::Connection;
use guesses::Guesses;
use refusal::Refusal;
use tokens::Tokens;

pub(super) use client::Client;

/// The target of the log lines that say who changed what. It is logged whatever the filter is.
pub(crate) const AUDIT: &str = "silverd::audit";
/// Requests in progress at a time, besides those for health and metrics.
pub(super) const REQUESTS_MAX: usize = 256;
/// Tries to log in at a time: nobody is known yet, so these cannot take the place of other requests.
const LOGINS_MAX: usize = 16;
/// How long a browser stays logged in.
const COOKIE_SECONDS: u32 = 30 * 24 * 60 * 60;
/// Slows down guessing.
const WRONG_TOKEN_DELAY: Duration = Duration::from_millis(500);
/// Scripts, styles and connections of silverd only, and no frame around the dashboard.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// What needs no token: these show nothing of the data.
fn is_public(path: &str) -> bool {
    matches!(path, "/health/live" | "/health/ready" | "/login" | "/logout" | "/assets/style.css" | "/assets/icon.svg")
}

/// Monitoring is answered however many other requests there are.
fn is_monitoring(path: &str) -> bool {
    path == "/metrics" || path.starts_with("/health/")
}

/// The access rules of one listening address.
pub(super) struct Access {
    settings: Http,
    base_dir: PathBuf,
    tokens: RwLock<Tokens>,
    guesses: Guesses,
    requests: Semaphore,
    logins: Semaphore,
}

/// Who sends a request.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    /// The name of the token; `None` where no token is asked for.
    pub name: Option<Arc<str>>,
    pub role: Role,
    pub can_log_out: bool,
    /// False for a request that needs no token where others do.
    is_known: bool,
}

impl Identity {
    /// Where no token is asked for.
    const ANYBODY: Self = Self { name: None, role: Role::Operate, can_log_out: false, is_known: true };
    const UNKNOWN: Self = Self { name: None, role: Role::View, can_log_out: false, is_known: false };
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "`{name}`"),
            None => f.write_str("somebody without a token"),
        }
    }
}

/// The middleware that rejects requests, and adds the security headers to every response.
pub(super) async fn authorize(State(access): State<Arc<Access>>, mut request: Request<Body>, next: Next) -> Response {
    let client = Client::of(&request, &access.settings.trusted_proxies);
    let mut response = match access.identify(&client, &request) {
        Err(refusal) => refusal.into_response(),
        Ok(identity) => {
            // Until somebody is known, and asks for more than to log in, the connection can give way to others.
            let connection = request.extensions().get::<Arc<Connection>>().filter(|_| identity.is_known).cloned();
            let busy_connection = connection.map(|connection| Arc::new(connection.start_request()));
            let is_counted = identity.is_known && !is_monitoring(request.uri().path());
            let permit = is_counted.then(|| access.requests.try_acquire());
            let is_refused = matches!(permit, Some(Err(_)));
            request.extensions_mut().insert(client);
            request.extensions_mut().insert(identity);
            let mut response = match is_refused {
                true => Refusal::Busy.into_response(),
                false => next.run(request).await,
            };
            if let Some(busy_connection) = busy_connection {
                response.extensions_mut().insert(busy_connection);
            }
            response
        }
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Without a referrer, browsers send the form of the login page with `Origin: null`.
        (header::REFERRER_POLICY, "same-origin"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

impl Access {
    /// Fails if a token's file cannot be read.
    pub(super) fn new(settings: Http, base_dir: &Path) -> anyhow::Result<Self> {
        let tokens = RwLock::new(Tokens::read(&settings.tokens, base_dir)?);
        Ok(Self {
            settings,
            base_dir: base_dir.to_path_buf(),
            tokens,
            guesses: Guesses::default(),
            requests: Semaphore::new(REQUESTS_MAX),
            logins: Semaphore::new(LOGINS_MAX),
        })
    }

    pub(super) fn lets_everybody_in(&self) -> bool {
        self.tokens.read().is_empty()
    }

    /// The files with tokens.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        Tokens::files(&self.settings.tokens, &self.base_dir)
    }

    /// Reads the files with tokens again. If that fails, the tokens of before stay.
    pub(super) fn reload(&self) -> anyhow::Result<()> {
        *self.tokens.write() = Tokens::read(&self.settings.tokens, &self.base_dir)?;
        Ok(())
    }

    /// The path of the dashboard, as browsers see it.
    fn home(&self) -> String {
        format!("{}/", self.settings.base_path)
    }

    fn identify(&self, client: &Client, request: &Request) -> Result<Identity, Refusal> {
        let headers = request.headers();
        let asks_for_token = !self.lets_everybody_in();
        // Any other name may be that of another site, which resolves to this address (DNS rebinding). This keeps out
        // browsers alone: a program can send any name.
        if !asks_for_token && !client.asks_loopback(headers) {
            return Err(Refusal::OtherHost);
        }
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        if !is_read && client.is_cross_site(headers) {
            return Err(Refusal::OtherSite);
        }
        if !asks_for_token {
            return Ok(Identity::ANYBODY);
        }
        let path = request.uri().path();
        if is_public(path) {
            return Ok(Identity::UNKNOWN);
        }
        match self.identity(client, headers)? {
            Some(identity) if is_read || identity.role == Role::Operate => Ok(identity),
            Some(identity) => Err(Refusal::ReadsOnly { name: identity.name }),
            None if path == "/" => Err(Refusal::LoggedOut { login: format!("{}login", self.home()) }),
            None => Err(Refusal::WrongToken),
        }
    }

    fn identity(&self, client: &Client, headers: &HeaderMap) -> Result<Option<Identity>, Refusal> {
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        if let Some(bearer) = bearer
            && let Some(identity) = self.check(client, bearer)?
        {
            return Ok(Some(identity));
        }
        Ok(self.tokens.read().of_cookies(headers))
    }

    /// Whose token this is. Counts the wrong ones, and refuses all after too many.
    fn check(&self, client: &Client, token: &str) -> Result<Option<Identity>, Refusal> {
        let now = Instant::now();
        if let Some(seconds) = self.guesses.blocked_seconds(client.address, now) {
            return Err(Refusal::TooManyGuesses { seconds });
        }
        let identity = self.tokens.read().of_text(token);
        if identity.is_none() && self.guesses.add(client.address, token, now) {
            let from = client.address;
            warn!(target: AUDIT, "{from} sent too many wrong tokens: no token is taken from there for a while");
        }
        Ok(identity)
    }

    /// The response to a token from the login form.
    pub(super) async fn login(&self, client: &Client, token: &str) -> Response {
        if self.lets_everybody_in() {
            return Redirect::to(&self.home()).into_response();
        }
        let Ok(_permit) = self.logins.try_acquire() else { return Refusal::Busy.into_response() };
        let identity = match self.check(client, token.trim()) {
            Ok(Some(identity)) => identity,
            Ok(None) => {
                tokio::time::sleep(WRONG_TOKEN_DELAY).await;
                info!(target: AUDIT, "{} tried to log in with a wrong token", client.address);
                return Redirect::to(&format!("{}login?wrong", self.home())).into_response();
            }
            // For a browser: the page again.
            Err(refusal) => {
                let mut response = refusal.into_response();
                let message = "Too many wrong tokens came from your address. Try again in a minute.";
                *response.body_mut() = Body::from(assets::login_page(Some(message)));
                response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(HTML));
                return response;
            }
        };
        info!(target: AUDIT, "{} logged in with the token {identity}, role {}", client.address, identity.role.as_str());
        let mut response = Redirect::to(&self.home()).into_response();
        if let Some((name, value)) = self.tokens.read().cookie_of(token.trim()) {
            self.set_cookie(&mut response, client, &name, &value, COOKIE_SECONDS);
        }
        response
    }

    pub(super) fn logout(&self, client: &Client, headers: &HeaderMap) -> Response {
        let tokens = self.tokens.read();
        if let Some(identity) = tokens.of_cookies(headers) {
            info!(target: AUDIT, "{} logged out, token {identity}", client.address);
        }
        let mut response = Redirect::to(&format!("{}login", self.home())).into_response();
        for name in tokens.cookie_names() {
            self.set_cookie(&mut response, client, &name, "", 0);
        }
        response
    }

    fn set_cookie(&self, response: &mut Response, client: &Client, name: &str, value: &str, seconds: u32) {
        let secure = if client.is_tls { "; Secure" } else { "" };
        let path = self.home();
        let cookie = format!("{name}={value}; HttpOnly; SameSite=Strict; Path={path}; Max-Age={seconds}{secure}");
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
    }
}
