//! `webhook` of `[notify.<name>]`: a URL that gets each notification by POST.

use url::{Host, Url};

use super::super::error::ConfigError;
use super::super::pipeline::{Secret, Token};
use super::super::place::place_in_string;
use super::super::read;
use super::super::secret::{SecretText, secret_text};
use super::super::section::Section;
use super::super::value::{Value, expected, in_file_order};
use super::super::walk::Walk;
use crate::notify::Template;

#[derive(Debug, Clone, PartialEq)]
pub struct Webhook {
    /// Who knows it can post there.
    pub url: SecretText,
    pub format: WebhookFormat,
    /// The body, instead of that of the format.
    pub template: Option<Template>,
    /// In the order of the file.
    pub headers: Vec<(String, Secret)>,
    /// The key of the signature that each request gets.
    pub secret: Option<SecretText>,
    /// The path of a PEM file with certificates of authorities that are trusted in addition to those of the system.
    pub tls_ca: Option<String>,
    /// Whether a URL of another machine may begin with `http://`.
    pub insecure: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WebhookFormat {
    #[default]
    Json,
    Slack,
    Teams,
}

/// Headers that silverd sets, or that are about the connection.
const OWN_HEADERS: [&str; 8] = [
    "connection",
    "content-length",
    "host",
    "idempotency-key",
    "silverd-signature",
    "te",
    "transfer-encoding",
    "upgrade",
];

impl Webhook {
    /// What is wrong with a URL. The text does not repeat it: it is a secret.
    pub fn fault(url: &str, insecure: bool) -> Option<String> {
        let Ok(url) = Url::parse(url) else {
            return Some("expected a URL such as https://example.com/hook".to_owned());
        };
        match url.scheme() {
            "https" => None,
            "http" if insecure || is_loopback(&url) => None,
            "http" => Some("expected https://, because this is another machine".to_owned()),
            _ => Some("expected a URL that begins with https://".to_owned()),
        }
    }

    /// Whether the URL is one of this machine.
    pub fn is_loopback(url: &str) -> bool {
        Url::parse(url).is_ok_and(|url| is_loopback(&url))
    }

    pub(super) fn target(&self) -> String {
        match &self.url {
            SecretText::File(path) => path.clone(),
            SecretText::Here(url) => {
                match Url::parse(url.expose()).ok().as_ref().map(|url| (url.host_str(), url.port())) {
                    Some((Some(host), Some(port))) => format!("{host}:{port}"),
                    Some((Some(host), None)) => host.to_owned(),
                    _ => String::new(),
                }
            }
        }
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

pub(super) fn webhook(walk: &mut Walk, section: &Section) -> Option<Webhook> {
    let insecure = section.optional(walk, "insecure", read::boolean).unwrap_or_default();
    let url = secret_text(walk, section, "webhook", |walk, value| url(walk, value, insecure));
    let formats = [("json", WebhookFormat::Json), ("slack", WebhookFormat::Slack), ("teams", WebhookFormat::Teams)];
    let format = section.optional(walk, "format", read::choice("format", formats)).unwrap_or_default();
    let template = section.optional(walk, "template", template);
    if let Some((span, _)) = section.key("template")
        && format != WebhookFormat::Json
    {
        let what = format!("[{}] has `template` and `format`", section.title());
        let help = "remove one of the two: a template is a format of its own";
        walk.report(ConfigError::new(span, what, "another format", Some(help.to_owned())));
    }
    let headers = section.optional(walk, "headers", headers);
    let secret = secret_text(walk, section, "secret", signing_key);
    let tls_ca = section.optional(walk, "tls_ca", read::expanded);
    Some(Webhook { url: url?, format, template, headers: headers.unwrap_or_default(), secret, tls_ca, insecure })
}

fn url(walk: &mut Walk, value: Value, insecure: bool) -> Option<SecretText> {
    let url = read::expanded(walk, value)?;
    let Some(label) = Webhook::fault(&url, insecure) else { return Some(SecretText::Here(Secret::new(url))) };
    let help = match url.starts_with("http:") {
        true => {
            "a notification may say what your shop earns: use https://, or set `insecure = true` to send it unencrypted"
        }
        false => {
            "write the URL that the service gave you, and pass it in an environment variable, such as \"${SLACK_URL}\""
        }
    };
    walk.report(ConfigError::new(value.span(), "this URL cannot be used", label, Some(help.to_owned())));
    None
}

fn signing_key(walk: &mut Walk, value: Value) -> Option<SecretText> {
    let key = read::expanded(walk, value)?;
    let Some(label) = Token::fault(&key) else { return Some(SecretText::Here(Secret::new(key))) };
    let help = "generate one with `openssl rand -hex 16`, and pass it in an environment variable";
    walk.report(ConfigError::new(value.span(), "this secret cannot be used", label, Some(help.to_owned())));
    None
}

fn template(walk: &mut Walk, value: Value) -> Option<Template> {
    let text = read::expanded(walk, value)?;
    let fault = match Template::parse(&text) {
        Ok(template) => return Some(template),
        Err(fault) => fault,
    };
    // Where variables were replaced, the place is another one.
    let is_as_written = value.get_ref().as_str() == Some(text.as_str());
    let place = if is_as_written { place_in_string(walk.text, &value.span(), &fault.at) } else { value.span() };
    walk.report(ConfigError::new(place, fault.message, fault.label, Some(fault.help)));
    None
}

fn headers(walk: &mut Walk, value: Value) -> Option<Vec<(String, Secret)>> {
    let Some(table) = value.get_ref().as_table() else {
        let help = "write headers = { Authorization = \"Bearer ${TOKEN}\" }";
        walk.report(expected("a table", value).with_help(help));
        return None;
    };
    let mut headers = Vec::new();
    for (key, value) in in_file_order(table) {
        let name = key.get_ref();
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let lower = name.to_ascii_lowercase();
        if name.is_empty() || !name.bytes().all(is_token) {
            let what = format!("`{name}` is not the name of an HTTP header");
            walk.report(ConfigError::new(key.span(), what, "expected letters, digits and `-`", None));
            continue;
        }
        if OWN_HEADERS.contains(&&*lower) {
            let what = format!("the header `{name}` cannot be set here");
            let help = Some("remove this line".to_owned());
            walk.report(ConfigError::new(key.span(), what, "silverd sets it", help));
            continue;
        }
        let Some(text) = read::scalar(walk, value) else { continue };
        if !text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
            let label = "expected ASCII letters, digits, punctuation and spaces";
            walk.report(ConfigError::new(value.span(), "this text cannot be sent in a header", label, None));
            continue;
        }
        headers.push((name.to_string(), Secret::new(text)));
    }
    Some(headers)
}
