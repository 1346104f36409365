//! `[notify.<name>]`: who gets the notifications of alerts, and how.

mod smtp;
mod webhook;

use toml::de::DeValue;

pub use smtp::{MailAddress, Smtp, SmtpLogin, SmtpTls};
pub use webhook::{Webhook, WebhookFormat};

use super::error::ConfigError;
use super::pipeline::Secret;
use super::read;
use super::section::{self, Root, Section};
use super::value::{Value, expected};
use super::walk::Walk;
use crate::notify::{Quiet, QuietHours};
use crate::zone::Zone;

const SECOND_MS: u64 = 1_000;
const TIMEOUT_MS_MAX: u64 = 5 * 60 * SECOND_MS;

/// `[notify.<name>]`.
#[derive(Debug, Clone, PartialEq)]
pub struct NotifyReceiver {
    pub name: Box<str>,
    pub kind: NotifyKind,
    /// Of the times in what it gets.
    pub zone: Zone,
    /// When it gets nothing.
    pub quiet: Option<Quiet>,
    /// A try takes at most so long.
    pub timeout_ms: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub enum NotifyKind {
    Webhook(Webhook),
    Command(NotifyCommand),
    Smtp(Smtp),
}

/// `command`: a program that gets each notification as JSON on its standard input, and in its environment.
#[derive(Debug, Clone, PartialEq)]
pub struct NotifyCommand {
    /// A name that is searched for in `PATH`, or a path.
    pub program: String,
    /// They may contain passwords.
    pub arguments: Vec<Secret>,
}

impl NotifyReceiver {
    const TIMEOUT_MS: u64 = 30 * SECOND_MS;
}

impl NotifyKind {
    pub fn as_str(&self) -> &'static str {
        match self {
            NotifyKind::Webhook(_) => "webhook",
            NotifyKind::Command(_) => "command",
            NotifyKind::Smtp(_) => "smtp",
        }
    }

    /// Where notifications go, without secrets: a host, a program, or a file that holds an address.
    pub fn target(&self) -> String {
        match self {
            NotifyKind::Webhook(webhook) => webhook.target(),
            NotifyKind::Command(command) => command.program.clone(),
            NotifyKind::Smtp(smtp) => format!("{}:{}", smtp.host, smtp.port),
        }
    }
}

pub(super) fn receivers(walk: &mut Walk, root: &Root, zone: Zone) -> Vec<Option<NotifyReceiver>> {
    let help = "write one section for every receiver, such as [notify.shop]";
    let mut receivers = Vec::new();
    for (key, value) in root.tables(walk, "notify", help) {
        let name = read::receiver_name(walk, key);
        let title = format!("notify.{}", key.get_ref());
        if let Some(section) = Section::open(walk, &title, section::NOTIFY, value) {
            receivers.push(receiver(walk, name, &section, zone));
        }
    }
    receivers
}

fn receiver(walk: &mut Walk, name: Option<String>, section: &Section, zone: Zone) -> Option<NotifyReceiver> {
    let quiet = quiet(walk, section, zone);
    let timeout = section.optional(walk, "timeout", read::duration(SECOND_MS..=TIMEOUT_MS_MAX));
    let kind = match kind_of(walk, section)? {
        "webhook" => NotifyKind::Webhook(webhook::webhook(walk, section)?),
        "command" => NotifyKind::Command(section.optional(walk, "command", command)?),
        _ => NotifyKind::Smtp(smtp::smtp(walk, section)?),
    };
    let timeout_ms = timeout.unwrap_or(NotifyReceiver::TIMEOUT_MS);
    Some(NotifyReceiver { name: name?.into(), kind, zone, quiet, timeout_ms })
}

/// The key that says how this receiver is reached, with the keys that belong to it.
const KINDS: [(&str, &[&str]); 3] = [
    ("webhook", &["webhook_file", "format", "template", "headers", "secret", "secret_file", "insecure", "tls_ca"]),
    ("command", &[]),
    ("smtp", &["tls", "from", "to", "user", "password", "password_file", "tls_ca"]),
];

fn kind_of(walk: &mut Walk, section: &Section) -> Option<&'static str> {
    let is_there = |kind: &str| section.has(kind) || (kind == "webhook" && section.has("webhook_file"));
    let kinds: Vec<_> = KINDS.into_iter().filter(|(kind, _)| is_there(kind)).collect();
    let title = section.title();
    let Some(((kind, own), others)) = kinds.split_first() else {
        let what = format!("[{title}] has none of `webhook`, `command` and `smtp`");
        let help = "add `webhook = \"https://…\"`, `command = [\"program\", \"argument\"]` or \
                    `smtp = \"smtp.example.com:587\"`";
        let label = "needs one of the three";
        walk.report_missing(ConfigError::new(section.span(), what, label, Some(help.to_owned())));
        return None;
    };
    for (other, _) in others {
        if let Some((span, _)) = section.key(other) {
            let what = format!("[{title}] has `{kind}` and `{other}`");
            let help =
                format!("write another section, such as [{title}_{other}], and name both in `notify` of the alert");
            walk.report(ConfigError::new(span, what, "a second way to reach this receiver", Some(help)));
        }
    }
    let mut seen = own.to_vec();
    for (other, keys) in KINDS.into_iter().filter(|_| others.is_empty()) {
        for key in keys {
            if seen.contains(key) {
                continue;
            }
            seen.push(*key);
            if let Some((span, _)) = section.key(key) {
                let what = format!("`{key}` in [{title}] has no effect");
                let label = format!("a key of receivers with `{other}`");
                walk.report(ConfigError::new(span, what, label, Some(format!("remove it: this one has `{kind}`"))));
            }
        }
    }
    Some(*kind)
}

fn quiet(walk: &mut Walk, section: &Section, zone: Zone) -> Option<Quiet> {
    let hours = section.optional(walk, "quiet_hours", |walk, value| {
        let text = read::expanded(walk, value)?;
        let hours = QuietHours::parse(&text);
        if hours.is_none() {
            let what = format!("`{text}` is not a span of hours");
            let help = "write two different times, such as \"22:00-07:00\"";
            walk.report(ConfigError::new(value.span(), what, "expected hh:mm-hh:mm", Some(help.to_owned())));
        }
        hours
    });
    let critical = section.optional(walk, "quiet_critical", read::boolean);
    if let Some((span, _)) = section.key("quiet_critical")
        && !section.has("quiet_hours")
    {
        let help = "add `quiet_hours = \"22:00-07:00\"`, or remove it";
        let what = format!("`quiet_critical` in [{}] has no effect", section.title());
        walk.report(ConfigError::new(span, what, "without `quiet_hours`", Some(help.to_owned())));
    }
    Some(Quiet { hours: hours?, zone, critical: critical.unwrap_or_default() })
}

fn command(walk: &mut Walk, value: Value) -> Option<NotifyCommand> {
    let help = "write the program and its arguments, such as [\"./notify.sh\", \"shop\"]";
    let DeValue::Array(parts) = value.get_ref() else {
        walk.report(expected("a list of a program and its arguments", value).with_help(help));
        return None;
    };
    let mut parts = parts.iter();
    let Some(program) = parts.next() else {
        let what = "this list is empty";
        walk.report(ConfigError::new(value.span(), what, "expected a program", Some(help.to_owned())));
        return None;
    };
    let program = plain(walk, program, read::expanded);
    let arguments: Vec<_> = parts.map(|argument| plain(walk, argument, read::scalar).map(Secret::new)).collect();
    Some(NotifyCommand { program: program?, arguments: arguments.into_iter().collect::<Option<_>>()? })
}

/// A text that can be passed to a program.
fn plain<'t>(
    walk: &mut Walk,
    value: Value<'t>,
    read: impl FnOnce(&mut Walk, Value<'t>) -> Option<String>,
) -> Option<String> {
    let text = read(walk, value)?;
    if text.contains('\0') {
        let what = "this text contains a zero character";
        walk.report(ConfigError::new(value.span(), what, "cannot be passed to a program", None));
        return None;
    }
    Some(text)
}
