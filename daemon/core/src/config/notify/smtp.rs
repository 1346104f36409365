//! `smtp` of `[notify.<name>]`: a mail server that takes each notification as a mail.

use std::fmt;
use std::net::IpAddr;

use super::super::error::ConfigError;
use super::super::read;
use super::super::secret::{SecretText, any_secret, secret_text};
use super::super::section::Section;
use super::super::value::Value;
use super::super::walk::Walk;
use crate::plain_text::is_obeyed;

#[derive(Debug, Clone, PartialEq)]
pub struct Smtp {
    /// A name, or an IP address without brackets.
    pub host: String,
    pub port: u16,
    pub tls: SmtpTls,
    pub from: MailAddress,
    pub to: Vec<MailAddress>,
    pub login: Option<SmtpLogin>,
    /// The path of a PEM file with certificates of authorities that are trusted in addition to those of the system.
    pub tls_ca: Option<String>,
}

/// How the connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SmtpTls {
    /// From the command STARTTLS on; without it, nothing is sent.
    #[default]
    StartTls,
    /// From its start.
    Tls,
    /// Not at all: only to this machine.
    None,
}

#[derive(Debug, Clone, PartialEq)]
pub struct SmtpLogin {
    pub user: String,
    pub password: SecretText,
}

/// `user@domain`, or `Name <user@domain>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailAddress {
    pub name: Option<String>,
    pub user: String,
    pub domain: String,
}

impl SmtpTls {
    fn port(self) -> u16 {
        match self {
            SmtpTls::StartTls => 587,
            SmtpTls::Tls => 465,
            SmtpTls::None => 25,
        }
    }
}

impl MailAddress {
    const NAME_CHARS_MAX: usize = 100;

    /// Reads the forms above, in ASCII except for the name.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (name, address) = match text.strip_suffix('>').and_then(|text| text.split_once('<')) {
            Some((name, address)) => (Some(name.trim().trim_matches('"').to_owned()), address),
            None => (None, text),
        };
        let (user, domain) = address.split_once('@')?;
        let is_atom = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte);
        let is_user = user.len() <= 64 && user.split('.').all(|part| !part.is_empty() && part.bytes().all(is_atom));
        let is_name = |name: &String| {
            !name.is_empty()
                && name.chars().count() <= Self::NAME_CHARS_MAX
                && !name.contains(|character: char| is_obeyed(character) || "<>\"\\".contains(character))
        };
        let is_valid = is_user && is_host_name(domain) && name.as_ref().is_none_or(is_name);
        is_valid.then(|| Self { name, user: user.to_owned(), domain: domain.to_owned() })
    }
}

impl fmt::Display for MailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} <{}@{}>", self.user, self.domain),
            None => write!(f, "{}@{}", self.user, self.domain),
        }
    }
}

pub(super) fn smtp(walk: &mut Walk, section: &Section) -> Option<Smtp> {
    let server = section.optional(walk, "smtp", server);
    let choices = [("starttls", SmtpTls::StartTls), ("tls", SmtpTls::Tls), ("none", SmtpTls::None)];
    let tls = section.optional(walk, "tls", read::choice("tls", choices)).unwrap_or_default();
    if let (Some((host, _)), Some((_, value)), SmtpTls::None) = (&server, section.key("tls"), tls)
        && !is_loopback(host)
    {
        let what = "mails to another machine must be encrypted";
        let help = "write \"starttls\" or \"tls\"; `tls_ca` names the authority of a certificate of your own";
        walk.report(ConfigError::new(value.span(), what, "only for a server on this machine", Some(help.to_owned())));
    }
    let from = section.required(walk, "from", "from = \"silverd@example.com\"", address);
    let to = section.required(walk, "to", "to = [\"you@example.com\"]", addresses);
    let user = section.optional(walk, "user", read::expanded);
    let password = secret_text(walk, section, "password", any_secret);
    for (key, has_other, other) in [
        ("user", section.has("password") || section.has("password_file"), "password = \"${SMTP_PASSWORD}\""),
        ("password", section.has("user"), "user = \"…\""),
        ("password_file", section.has("user"), "user = \"…\""),
    ] {
        if let Some((span, _)) = section.key(key)
            && !has_other
        {
            let what = format!("[{}] has `{key}`, and not the other half of a login", section.title());
            walk.report(ConfigError::new(span, what, "half of a login", Some(format!("add `{other}`"))));
        }
    }
    let tls_ca = section.optional(walk, "tls_ca", read::expanded);
    let (host, port) = server?;
    let login = user.zip(password).map(|(user, password)| SmtpLogin { user, password });
    Some(Smtp { host, port: port.unwrap_or(tls.port()), tls, from: from?, to: to?, login, tls_ca })
}

/// `host`, `host:port` or `[ipv6]:port`.
fn server(walk: &mut Walk, value: Value) -> Option<(String, Option<u16>)> {
    let text = read::expanded(walk, value)?;
    let server = parse_server(&text);
    if server.is_none() {
        let help = "write the name of the mail server and its port, such as \"smtp.example.com:587\"";
        let what = "this is not the address of a mail server";
        walk.report(ConfigError::new(value.span(), what, "expected host:port", Some(help.to_owned())));
    }
    server
}

fn parse_server(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']')? {
            (host, "") => (host, None),
            (host, port) => (host, Some(port.strip_prefix(':')?)),
        },
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let is_host = host.parse::<IpAddr>().is_ok() || (!text.starts_with('[') && is_host_name(host));
    let port = match port {
        None => None,
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(port.parse().ok().filter(|port: &u16| *port > 0)?)
        }
        Some(_) => return None,
    };
    is_host.then(|| (host.to_owned(), port))
}

fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn address(walk: &mut Walk, value: Value) -> Option<MailAddress> {
    let text = read::expanded(walk, value)?;
    let address = MailAddress::parse(&text);
    if address.is_none() {
        let what = format!("`{text}` is not a mail address");
        let help = "write \"user@example.com\", or \"Name <user@example.com>\"";
        walk.report(ConfigError::new(value.span(), what, "expected user@domain", Some(help.to_owned())));
    }
    address
}

fn addresses(walk: &mut Walk, value: Value) -> Option<Vec<MailAddress>> {
    let help = "write a list of mail addresses, such as [\"you@example.com\"]";
    let mut addresses = Vec::new();
    read::list(walk, value, "a list of mail addresses", help, |walk, value| {
        let address = address(walk, value)?;
        let text = format!("{}@{}", address.user, address.domain);
        addresses.push(address);
        Some(text)
    })?;
    Some(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_hosts_with_ports() {
        for (text, host, port) in [
            ("smtp.example.com", "smtp.example.com", None),
            ("smtp.example.com:2525", "smtp.example.com", Some(2525)),
            ("127.0.0.1:25", "127.0.0.1", Some(25)),
            ("[::1]:25", "::1", Some(25)),
            ("[::1]", "::1", None),
        ] {
            assert_eq!(parse_server(text), Some((host.to_owned(), port)), "{text}");
        }
        for text in
            ["", ":25", "a b", "smtp://a", "a:0", "a:65536", "a:+1", "a:", "::1", "[a]", "[::1]25", "-a", "a..b"]
        {
            assert_eq!(parse_server(text), None, "{text}");
        }
    }

    #[test]
    fn addresses_are_plain() {
        let check = |text: &str, name: Option<&str>, address: (&str, &str)| {
            let (user, domain) = (address.0.to_owned(), address.1.to_owned());
            assert_eq!(MailAddress::parse(text), Some(MailAddress { name: name.map(str::to_owned), user, domain }));
        };
        check("a@b.example", None, ("a", "b.example"));
        check(" first.last+x@shop.example ", None, ("first.last+x", "shop.example"));
        check("Größe 2 <a@b>", Some("Größe 2"), ("a", "b"));
        check("\"Shop\" <a@b>", Some("Shop"), ("a", "b"));
        for text in [
            "",
            "a",
            "@b",
            "a@",
            "a@b@c",
            "a b@c",
            "a..b@c",
            ".a@b",
            "a@-b",
            "<a@b>",
            "N <a@b",
            "N\r\nBcc: x <a@b>",
            "a@b\r\nBcc: c@d",
            "ä@b",
            "a@ä",
            "N <<a@b>>",
            "a@b>",
            "a@b, c@d",
        ] {
            assert_eq!(MailAddress::parse(text), None, "{text}");
        }
        assert_eq!(MailAddress::parse("A <a@b>").map(|address| address.to_string()), Some("A <a@b>".to_owned()));
    }
}
