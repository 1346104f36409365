//! Sends a notification as a mail.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use lettre::address::Envelope;
use lettre::message::header::{ContentType, HeaderName, HeaderValue, MIME_VERSION_1_0};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::Error as SmtpError;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use silverd_core::config::{MailAddress, Smtp, SmtpTls};
use silverd_core::notify::{Notification, mail};
use silverd_core::zone::Zone;
use tracing::warn;

use super::{SendError, authority, secret};
use crate::runtime::{causes, clock};

/// What a server answers to a login (RFC 4954): another recipient would get the same.
const LOGIN_CODES: RangeInclusive<u16> = 530..=538;

type Transport = AsyncSmtpTransport<Tokio1Executor>;

pub(super) async fn send(
    smtp: &Smtp,
    notification: &Notification,
    zone: Zone,
    timeout: Duration,
    base_dir: &Path,
) -> Result<(), SendError> {
    let password = match &smtp.login {
        Some(login) => Some(secret::read(&login.password, base_dir).await?),
        None => None,
    };
    let secrets: Vec<&str> = password.as_deref().into_iter().collect();
    let server = format!("{}:{}", smtp.host, smtp.port);
    let failed = |failure: &anyhow::Error| secret::hide(&format!("mail by {server}: {}", causes(failure)), &secrets);
    let prepared = async {
        let transport = transport(smtp, password.clone(), timeout, base_dir).await?;
        anyhow::Ok((transport, message(smtp, notification, zone)?))
    };
    let (transport, message) = prepared.await.map_err(|failure| SendError::retry(failed(&failure)))?;
    let raw = message.formatted();
    let sent = transport.send_raw(message.envelope(), &raw).await;
    let Err(failure) = sent else { return Ok(()) };
    let is_permanent = failure.is_permanent();
    let is_login = failure.status().is_some_and(|code| LOGIN_CODES.contains(&u16::from(code)));
    let of_all = failed(&failure.into());
    match is_permanent && !is_login && smtp.to.len() > 1 {
        // One unknown address must not keep the mail from the others.
        true => to_each(&transport, message.envelope(), &raw, &failed).await,
        false if is_permanent => Err(SendError::refused(of_all)),
        false => Err(SendError::retry(of_all)),
    }
}

/// To each recipient on its own: it is sent if one of them gets it.
async fn to_each(
    transport: &Transport,
    envelope: &Envelope,
    raw: &[u8],
    failed: &impl Fn(&anyhow::Error) -> String,
) -> Result<(), SendError> {
    let (mut is_sent, mut is_refused, mut reasons) = (false, true, Vec::new());
    for to in envelope.to() {
        let sent = match Envelope::new(envelope.from().cloned(), vec![to.clone()]) {
            Ok(envelope) => transport.send_raw(&envelope, raw).await.map_err(|failure: SmtpError| {
                is_refused &= failure.is_permanent();
                anyhow::Error::from(failure)
            }),
            Err(failure) => Err(failure.into()),
        };
        match sent {
            Ok(_) => is_sent = true,
            Err(failure) => reasons.push(format!("{to}: {}", failed(&failure))),
        }
    }
    let reason = reasons.join("; ");
    match (is_sent, is_refused) {
        (true, _) => {
            if !reason.is_empty() {
                warn!("a notification did not reach all of its recipients: {}", super::one_line(&reason));
            }
            Ok(())
        }
        (false, true) => Err(SendError::refused(reason)),
        (false, false) => Err(SendError::retry(reason)),
    }
}

async fn transport(
    smtp: &Smtp,
    password: Option<String>,
    timeout: Duration,
    base_dir: &Path,
) -> anyhow::Result<Transport> {
    let mut builder = Transport::builder_dangerous(&smtp.host)
        .port(smtp.port)
        .timeout(Some(timeout))
        .hello_name(ClientId::Domain(smtp.from.domain.clone()));
    builder = match smtp.tls {
        SmtpTls::StartTls => builder.tls(Tls::Required(tls(smtp, base_dir).await?)),
        SmtpTls::Tls => builder.tls(Tls::Wrapper(tls(smtp, base_dir).await?)),
        SmtpTls::None => builder.tls(Tls::None),
    };
    if let (Some(login), Some(password)) = (&smtp.login, password) {
        builder = builder.credentials(Credentials::new(login.user.clone(), password));
    }
    Ok(builder.build())
}

async fn tls(smtp: &Smtp, base_dir: &Path) -> anyhow::Result<TlsParameters> {
    let mut builder = TlsParameters::builder(smtp.host.clone());
    if let Some(path) = &smtp.tls_ca {
        let pem = authority::read(path, base_dir).await?;
        builder = builder.add_root_certificate(Certificate::from_pem(&pem).with_context(|| format!("read {path}"))?);
    }
    // This reads the system's certificates.
    let build = tokio::task::spawn_blocking(move || builder.build());
    build.await?.context("set up TLS")
}

fn message(smtp: &Smtp, notification: &Notification, zone: Zone) -> anyhow::Result<Message> {
    let mut builder = Message::builder()
        .from(mailbox(&smtp.from)?)
        .date(clock::now())
        .subject(mail::subject(notification))
        .message_id(Some(format!("<{}@silverd>", notification.id)))
        // No one is there to read an answer such as "out of office" (RFC 3834).
        .raw_header(HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned()))
        .header(MIME_VERSION_1_0)
        .header(ContentType::TEXT_PLAIN);
    for to in &smtp.to {
        builder = builder.to(mailbox(to)?);
    }
    builder.body(mail::text(notification, zone)).context("write the mail")
}

pub(super) fn mailbox(address: &MailAddress) -> anyhow::Result<Mailbox> {
    let parsed =
        Address::new(&address.user, &address.domain).with_context(|| format!("address a mail to {address}"))?;
    Ok(Mailbox::new(address.name.clone(), parsed))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use silverd_core::notify::{NotifiedState, Severity};

    use super::*;

    fn smtp() -> Smtp {
        Smtp {
            host: "localhost".to_owned(),
            port: 25,
            tls: SmtpTls::None,
            from: MailAddress::parse("Größe <silverd@shop.example>").unwrap(),
            to: ["ann@shop.example", "ben@localhost"].map(|to| MailAddress::parse(to).unwrap()).to_vec(),
            login: None,
            tls_ca: None,
        }
    }

    fn mail_of(summary: &str, description: &str) -> String {
        let notification = Notification {
            id: "0a1b2c".to_owned(),
            alert: "no_orders".to_owned(),
            state: NotifiedState::Firing,
            severity: Severity::Warning,
            summary: summary.to_owned(),
            description: description.to_owned(),
            since_ms: 0,
            at_ms: 0,
            repeat: 0,
            values: serde_json::Map::new(),
            url: None,
        };
        let message = message(&smtp(), &notification.bounded(), Zone::UTC).unwrap();
        String::from_utf8(message.formatted()).unwrap()
    }

    #[test]
    fn a_mail_has_its_headers() {
        let mail = mail_of("no orders", "See the runbook.");
        let (head, body) = mail.split_once("\r\n\r\n").unwrap();
        for header in [
            "Subject: [silverd] Warning: no_orders: no orders",
            "Message-ID: <0a1b2c@silverd>",
            "Auto-Submitted: auto-generated",
            "To: ann@shop.example, ben@localhost",
            "Content-Type: text/plain; charset=utf-8",
        ] {
            assert!(head.lines().any(|line| line == header), "no {header} in:\n{head}");
        }
        assert!(head.is_ascii() && head.contains("silverd@shop.example"), "{head}");
        assert!(body.contains("See the runbook."), "{body}");
    }

    #[test]
    fn no_text_becomes_a_header() {
        for text in [
            "a\r\nBcc: mallory@example.com",
            "a\nBcc: mallory@example.com",
            "a\rBcc: mallory@example.com",
            "ä\r\n\r\nx",
        ] {
            let mail = mail_of(text, text);
            let (head, _) = mail.split_once("\r\n\r\n").unwrap();
            let mut names: Vec<&str> = head
                .split("\r\n")
                .filter(|line| !line.starts_with(' '))
                .filter_map(|line| line.split_once(':').map(|(name, _)| name))
                .collect();
            names.sort_unstable();
            let expected =
                "Auto-Submitted Content-Transfer-Encoding Content-Type Date From MIME-Version Message-ID Subject To";
            assert_eq!(names.join(" "), expected, "{head}");
            assert!(mail.is_ascii() && !mail.replace("\r\n", "").contains(['\r', '\n']), "{mail}");
        }
    }
}
