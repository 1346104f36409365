//! Why a request is refused, and how that is answered.

use std::sync::Arc;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};

use crate::http::api::problem;

#[derive(Debug)]
pub(super) enum Refusal {
    /// Without a token, only requests to a loopback host name are answered.
    OtherHost,
    /// A page of another site asks for a change.
    OtherSite,
    /// Nobody is logged in who asks for the dashboard, whose login page is at this path.
    LoggedOut {
        login: String,
    },
    WrongToken,
    TooManyGuesses {
        seconds: u64,
    },
    /// The role of this token does not allow changes.
    ReadsOnly {
        name: Option<Arc<str>>,
    },
    /// Too many requests are in progress, or too many tries to log in.
    Busy,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Refusal::OtherHost => {
                let text = "silverd answers requests to localhost only. Open http://localhost, or set `token` in \
                            [http] and listen on another address";
                problem(StatusCode::FORBIDDEN, text)
            }
            Refusal::OtherSite => {
                let text = "requests of other sites cannot change anything. If this is the dashboard behind a proxy, \
                            the proxy has to pass on the browser's `Host`, or send it as `X-Forwarded-Host` from an \
                            address in `trusted_proxies` of [http]";
                problem(StatusCode::FORBIDDEN, text)
            }
            Refusal::LoggedOut { login } => Redirect::to(&login).into_response(),
            Refusal::WrongToken => {
                let text = "the token is missing or wrong: send it as `Authorization: Bearer …`, or log in at /login";
                with_header(problem(StatusCode::UNAUTHORIZED, text), header::WWW_AUTHENTICATE, "Bearer")
            }
            Refusal::TooManyGuesses { seconds } => {
                let text = format!("too many wrong tokens came from this address: try again in {seconds} s");
                let mut response = problem(StatusCode::TOO_MANY_REQUESTS, &text);
                response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
                response
            }
            Refusal::ReadsOnly { name } => {
                let name = name.as_deref().unwrap_or_default();
                let text = format!("the token `{name}` has the role `view`, which cannot change anything");
                problem(StatusCode::FORBIDDEN, &text)
            }
            Refusal::Busy => {
                let text = "too many requests are in progress: try again in a second";
                with_header(problem(StatusCode::SERVICE_UNAVAILABLE, text), header::RETRY_AFTER, "1")
            }
        }
    }
}

fn with_header(mut response: Response, name: HeaderName, value: &'static str) -> Response {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}
