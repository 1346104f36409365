//! Sends a notification by POST to a URL.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use chrono::DateTime;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Response, Url};
use silverd_core::config::{Webhook, WebhookFormat};
use silverd_core::notify::retry::{Answer, answer_of_status};
use silverd_core::notify::{Notification, json, slack, teams};
use silverd_core::zone::Zone;

use super::signature::signature;
use super::{SendError, authority, one_line, secret};
use crate::runtime::{causes, clock};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A shorter part of a URL is no secret without the rest, but a word.
const PART_BYTES_MIN: usize = 7;
const ANSWER_BYTES_MAX: usize = 2 << 10;
/// A receiver that asks for more time gets no more than this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60 * 60);

pub(super) async fn send(
    webhook: &Webhook,
    notification: &Notification,
    zone: Zone,
    timeout: Duration,
    base_dir: &Path,
) -> Result<(), SendError> {
    let url = secret::read(&webhook.url, base_dir).await?;
    if let Some(fault) = Webhook::fault(&url, webhook.insecure) {
        return Err(SendError::retry(format!("the URL of the webhook cannot be used: {fault}")));
    }
    let key = match &webhook.secret {
        Some(key) => Some(secret::read(key, base_dir).await?),
        None => None,
    };
    let body = body(webhook, notification, zone);
    let request = async {
        let client = client(webhook, &url, timeout, base_dir).await?;
        let headers = headers(webhook, notification, key.as_deref(), &body)?;
        anyhow::Ok(client.post(url.as_str()).headers(headers).body(body.clone()))
    };
    // An answer may repeat a part of the URL.
    let parsed = Url::parse(&url).ok();
    let mut secrets = vec![url.as_str()];
    secrets.extend(parsed.iter().flat_map(|url| [Some(url.path()), url.query(), url.password()].into_iter().flatten()));
    let parts =
        parsed.iter().flat_map(|url| url.path().split('/').chain(url.query().unwrap_or_default().split(['&', '='])));
    secrets.extend(parts.filter(|part| part.len() >= PART_BYTES_MIN));
    secrets.extend(key.as_deref());
    // Without the scheme, such as `Bearer`, too.
    let values = webhook.headers.iter().map(|(_, value)| value.expose());
    secrets.extend(values.flat_map(|value| [Some(value), value.split_once(' ').map(|(_, rest)| rest)]).flatten());
    let hidden = |text: &str| secret::hide(text, &secrets);
    let request = request.await.map_err(|failure| SendError::retry(hidden(&causes(&failure))))?;
    match request.send().await {
        Ok(response) => outcome(response, &hidden).await,
        Err(failure) => {
            let failure = anyhow::Error::from(failure.without_url());
            Err(SendError::retry(format!("post to the webhook: {}", hidden(&causes(&failure)))))
        }
    }
}

fn body(webhook: &Webhook, notification: &Notification, zone: Zone) -> String {
    match (&webhook.template, webhook.format) {
        (Some(template), _) => template.render(notification, zone),
        (None, WebhookFormat::Json) => json::body(notification, zone).to_string(),
        (None, WebhookFormat::Slack) => slack::body(notification, zone).to_string(),
        (None, WebhookFormat::Teams) => teams::body(notification, zone).to_string(),
    }
}

/// A client for one request: notifications are rare, and a certificate can be replaced at any time.
async fn client(webhook: &Webhook, url: &str, timeout: Duration, base_dir: &Path) -> anyhow::Result<Client> {
    let mut builder = Client::builder()
        .user_agent(concat!("silverd/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(timeout)
        // Only the configured URL gets the notification.
        .redirect(Policy::none());
    if Webhook::is_loopback(url) {
        builder = builder.no_proxy();
    }
    if url.starts_with("http:") {
        // It needs no certificates, and the system may have none.
        builder = builder.tls_certs_only([]);
    } else if let Some(path) = &webhook.tls_ca {
        let pem = authority::read(path, base_dir).await?;
        builder = builder.tls_certs_merge(Certificate::from_pem_bundle(&pem).with_context(|| format!("read {path}"))?);
    }
    // This reads the system's certificates.
    let build = tokio::task::spawn_blocking(move || builder.build());
    build.await?.context("set up a connection to the webhook")
}

fn headers(webhook: &Webhook, notification: &Notification, key: Option<&str>, body: &str) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in &webhook.headers {
        let mut value = HeaderValue::from_str(value.expose()).with_context(|| format!("set the header {name}"))?;
        value.set_sensitive(true);
        headers.insert(HeaderName::from_bytes(name.as_bytes())?, value);
    }
    headers.insert("idempotency-key", HeaderValue::from_str(&notification.id)?);
    if let Some(key) = key {
        let signature = signature(key, clock::now_ms() / 1_000, body);
        headers.insert("silverd-signature", HeaderValue::from_str(&signature)?);
    }
    Ok(headers)
}

async fn outcome(response: Response, hidden: &impl Fn(&str) -> String) -> Result<(), SendError> {
    let status = response.status();
    let answer = answer_of_status(status.as_u16());
    if answer == Answer::Delivered {
        return Ok(());
    }
    let after = retry_after(response.headers());
    let is_redirect = status.is_redirection() && response.headers().contains_key(LOCATION);
    let text = start_of(response).await;
    let mut reason = format!("the webhook answered {status}");
    if is_redirect {
        reason += ", a redirect: write the URL that it leads to";
    } else if !text.trim().is_empty() {
        reason += &format!(": {}", hidden(&text));
    }
    let reason = one_line(&reason);
    Err(match answer {
        Answer::Retry => SendError::Retry { reason, after },
        Answer::Delivered | Answer::Refused => SendError::Refused { reason },
    })
}

/// Seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = match text.parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => {
            let at = DateTime::parse_from_rfc2822(text).ok()?.timestamp_millis();
            u64::try_from((at - clock::now_ms()) / 1_000).ok()?
        }
    };
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// The first bytes of an answer. One that breaks off has given what it has.
async fn start_of(mut response: Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < ANSWER_BYTES_MAX
        && let Ok(Some(chunk)) = response.chunk().await
    {
        bytes.extend_from_slice(&chunk[..chunk.len().min(ANSWER_BYTES_MAX - bytes.len())]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_receiver_may_ask_for_time() {
        let check = |text: &str, expected: Option<u64>| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(text).unwrap())]);
            assert_eq!(retry_after(&headers), expected.map(Duration::from_secs), "{text}");
        };
        check("0", Some(0));
        check(" 120 ", Some(120));
        check("86400", Some(3_600));
        check("Fri, 31 Dec 2100 23:59:59 GMT", Some(3_600));
        check("Fri, 31 Dec 1999 23:59:59 GMT", None);
        check("-5", None);
        check("soon", None);
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
