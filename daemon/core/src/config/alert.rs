//! `[alert.<name>]`: conditions in SQL whose beginning and end people are notified of; `[alerts]`: those that need no SQL.

use super::error::ConfigError;
use super::nearest;
use super::pipeline::Located;
use super::place::place_in_string;
use super::read;
use super::section::{self, Root, Section};
use super::value::{Value, expected};
use super::walk::Walk;
use crate::alerts::{AlertRule, SummaryTemplate};
use crate::notify::Severity;

const SECOND_MS: u64 = 1_000;
const MINUTE_MS: u64 = 60 * SECOND_MS;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
/// What `repeat` has instead of a duration.
const NEVER: &str = "never";

/// `[alert.<name>]`: an alert whose condition is SQL.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    pub name: String,
    /// The alert fires because of the first row of its result for which `when` is true.
    pub sql: Located<String>,
    /// An expression over the columns of the result.
    pub when: Located<String>,
    pub rule: AlertRule,
    /// Between two evaluations.
    pub every_ms: u64,
    /// The names of `[notify.<name>]`.
    pub notify: Vec<Box<str>>,
    pub severity: Severity,
    pub summary: Option<SummaryTemplate>,
    pub description: String,
}

impl Alert {
    pub(super) const EVERY_MS: u64 = 30 * SECOND_MS;
}

/// `[alerts]`: the alerts that need no SQL, and what all alerts have in common.
#[derive(Debug, Clone, PartialEq)]
pub struct BuiltInAlerts {
    pub enabled: bool,
    /// The names of `[notify.<name>]`; also of an alert that has none of its own.
    pub notify: Vec<Box<str>>,
    pub rule: AlertRule,
    /// Events that Bronze, or a Silver table, must be behind by, and further than `lag_window_ms` before.
    pub lag_events: u64,
    pub lag_window_ms: u64,
    /// The share of the events of an hour that a table may reject, from 0 to 1.
    pub quarantine_share: f64,
    /// A disk that will be full within so many days, at this week's growth.
    pub disk_days: u32,
    /// A topic without events for so long. `None`: as long as it likes.
    pub no_events_ms: Option<u64>,
    /// Where the people who are notified find the dashboard.
    pub url: Option<String>,
}

impl Default for BuiltInAlerts {
    fn default() -> Self {
        BuiltInAlerts {
            enabled: false,
            notify: Vec::new(),
            rule: AlertRule { for_ms: MINUTE_MS, repeat_ms: Some(4 * HOUR_MS), resolved: true },
            lag_events: 10_000,
            lag_window_ms: 15 * MINUTE_MS,
            quarantine_share: 0.05,
            disk_days: 14,
            no_events_ms: None,
            url: None,
        }
    }
}

/// `[alerts]`, and `[alert.<name>]` in the order of the file; `None` for one with an error.
pub(super) fn alerts(walk: &mut Walk, root: &Root) -> (BuiltInAlerts, Vec<Option<Alert>>) {
    let receivers = root.names("notify");
    let built_in = built_in(walk, root, &receivers);
    let help = "write one section for every alert, such as [alert.no_orders]";
    let mut alerts = Vec::new();
    for (key, value) in root.tables(walk, "alert", help) {
        let name = read::alert_name(walk, key);
        let title = format!("alert.{}", key.get_ref());
        if let Some(section) = Section::open(walk, &title, section::ALERT, value) {
            alerts.push(alert(walk, name, &section, &built_in, &receivers));
        }
    }
    (built_in, alerts)
}

fn built_in(walk: &mut Walk, root: &Root, receivers: &[String]) -> BuiltInAlerts {
    let section = root.section(walk, "alerts");
    let default = BuiltInAlerts::default();
    let lag_events = section.optional(walk, "lag_events", read::count(1..=1_000_000_000_000));
    let disk_days = section.optional(walk, "disk_days", read::count(1..=365));
    BuiltInAlerts {
        enabled: section.optional(walk, "built_in", read::boolean).unwrap_or(default.enabled),
        notify: notify(walk, &section, receivers).unwrap_or_default(),
        rule: rule(walk, &section, default.rule),
        lag_events: lag_events.map_or(default.lag_events, |events| events as u64),
        lag_window_ms: section
            .optional(walk, "lag_time", read::duration(MINUTE_MS..=DAY_MS))
            .unwrap_or(default.lag_window_ms),
        quarantine_share: section.optional(walk, "quarantine_share", read::percent).unwrap_or(default.quarantine_share),
        disk_days: disk_days.map_or(default.disk_days, |days| days as u32),
        no_events_ms: section.optional(walk, "no_events", read::duration(MINUTE_MS..=30 * DAY_MS)),
        url: section.optional(walk, "url", url),
    }
}

fn alert(
    walk: &mut Walk,
    name: Option<String>,
    section: &Section,
    built_in: &BuiltInAlerts,
    receivers: &[String],
) -> Option<Alert> {
    let sql =
        section.required(walk, "sql", "sql = \"SELECT count(*) AS orders FROM live.order_placed\"", read::located);
    let when = section.required(walk, "when", "when = \"orders < 1\"", read::located);
    let default = AlertRule { for_ms: 0, ..built_in.rule };
    let rule = rule(walk, section, default);
    let every_ms = section.optional(walk, "every", read::duration(SECOND_MS..=DAY_MS)).unwrap_or(Alert::EVERY_MS);
    let notify = notify(walk, section, receivers);
    let severities = [("warning", Severity::Warning), ("critical", Severity::Critical)];
    let severity = section.optional(walk, "severity", read::choice("severity", severities)).unwrap_or_default();
    let summary = section.optional(walk, "summary", summary);
    let description = section.optional(walk, "description", read::string).unwrap_or_default();
    Some(Alert {
        name: name?,
        sql: sql?,
        when: when?,
        rule,
        every_ms,
        notify: notify.unwrap_or_else(|| built_in.notify.clone()),
        severity,
        summary,
        description,
    })
}

/// `for`, `repeat` and `resolved` of a section.
fn rule(walk: &mut Walk, section: &Section, default: AlertRule) -> AlertRule {
    AlertRule {
        for_ms: section.optional(walk, "for", read::duration(0..=30 * DAY_MS)).unwrap_or(default.for_ms),
        repeat_ms: section.optional(walk, "repeat", repeat).unwrap_or(default.repeat_ms),
        resolved: section.optional(walk, "resolved", read::boolean).unwrap_or(default.resolved),
    }
}

fn repeat(walk: &mut Walk, value: Value) -> Option<Option<u64>> {
    if value.get_ref().as_str() == Some(NEVER) {
        return Some(None);
    }
    read::duration(MINUTE_MS..=30 * DAY_MS)(walk, value).map(Some)
}

/// `notify`: names of receivers, which must exist. `None` if the section has none.
fn notify(walk: &mut Walk, section: &Section, receivers: &[String]) -> Option<Vec<Box<str>>> {
    let help = "write a list of receivers, such as [\"shop\"]; [notify.shop] says who that is";
    let known: Vec<&str> = receivers.iter().map(String::as_str).collect();
    let names = section.optional(walk, "notify", |walk, value| {
        // An empty list is one, too: this alert is for the dashboard alone.
        if value.get_ref().as_array().is_some_and(|items| items.is_empty()) {
            return Some(Vec::new());
        }
        read::list(walk, value, "a list of names", help, |walk, value| {
            let name = read::string(walk, value)?;
            if known.contains(&name.as_str()) {
                return Some(name);
            }
            let what = format!("there is no receiver `{name}`");
            let help = match known.is_empty() {
                true => format!("add a section [notify.{name}] that says how it is reached"),
                false => nearest::help(&name, &known, "receivers"),
            };
            walk.report(ConfigError::new(value.span(), what, format!("there is no [notify.{name}]"), Some(help)));
            None
        })
    })?;
    Some(names.into_iter().map(String::into_boxed_str).collect())
}

fn summary(walk: &mut Walk, value: Value) -> Option<SummaryTemplate> {
    let text = read::string(walk, value)?;
    match SummaryTemplate::parse(&text) {
        Ok(template) => Some(template),
        Err(fault) => {
            let place = place_in_string(walk.text, &value.span(), &fault.place);
            let help =
                "write the name of a column between braces, such as {orders}, and {{ and }} for braces".to_owned();
            walk.report(ConfigError::new(place, fault.message, "in this summary", Some(help)));
            None
        }
    }
}

/// The address of the dashboard: it becomes a link in messages.
fn url(walk: &mut Walk, value: Value) -> Option<String> {
    let text = read::expanded(walk, value)?;
    let is_web = text.starts_with("https://") || text.starts_with("http://");
    if is_web && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some(text);
    }
    let help = "write the address at which people open the dashboard, such as \"https://silverd.example.com\"";
    walk.report(expected("a URL that begins with https:// or http://", value).with_help(help));
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Pipeline, check};
    use super::*;

    const BASE: &str = "[source]\nbrokers = \"localhost:9092\"\ntopic = \"events.raw\"\n";

    fn pipeline(text: &str) -> Pipeline {
        let text = format!("{BASE}{text}");
        check(&text, &|_| None).unwrap_or_else(|errors| panic!("{}", errors.render("pipeline.toml", &text, false)))
    }

    #[track_caller]
    fn check_error(text: &str, expected: &str) {
        let text = format!("{BASE}{text}");
        let errors = check(&text, &|_| None).unwrap_err().render("pipeline.toml", &text, false);
        assert!(errors.contains(expected), "{errors}");
    }

    #[test]
    fn an_alert_has_defaults() {
        let alert = pipeline("[alert.a]\nsql = \"SELECT 1 AS n\"\nwhen = \"n > 0\"").alerts.remove(0);
        assert_eq!(alert.rule, AlertRule { for_ms: 0, repeat_ms: Some(4 * HOUR_MS), resolved: true });
        assert_eq!((alert.every_ms, alert.severity, alert.notify.len()), (30 * SECOND_MS, Severity::Warning, 0));
    }

    #[test]
    fn an_alert_takes_over_what_all_have_in_common() {
        let text = "[alerts]\nrepeat = \"never\"\nresolved = false\nfor = \"5m\"\n\
                    [alert.a]\nsql = \"SELECT 1 AS n\"\nwhen = \"n > 0\"\n\
                    [alert.b]\nsql = \"SELECT 1 AS n\"\nwhen = \"n > 0\"\nrepeat = \"1h\"\nfor = \"10s\"";
        let pipeline = pipeline(text);
        let rules: Vec<_> = pipeline.alerts.iter().map(|alert| alert.rule).collect();
        let a = AlertRule { for_ms: 0, repeat_ms: None, resolved: false };
        assert_eq!(rules, [a, AlertRule { for_ms: 10_000, repeat_ms: Some(HOUR_MS), ..a }]);
        assert_eq!(pipeline.built_in_alerts.rule, AlertRule { for_ms: 5 * MINUTE_MS, ..a });
        assert!(!pipeline.built_in_alerts.enabled);
    }

    #[test]
    fn faults_are_reported_at_their_place() {
        let alert = "[alert.a]\nsql = \"SELECT 1 AS n\"\nwhen = \"n > 0\"\n";
        check_error("[alert.a]\nsql = \"SELECT 1\"", "missing key `when` in [alert.a]");
        check_error("[alert.No-Orders]\nsql = \"SELECT 1\"\nwhen = \"true\"", "use a name such as `no_orders`");
        check_error(&format!("{alert}notify = [\"shop\"]"), "add a section [notify.shop]");
        check_error(&format!("{alert}summary = \"{{n orders\""), "this `{` has no `}` after it");
        check_error(&format!("{alert}repeat = \"1s\""), "expected \"1m\" to \"30d\"");
        check_error(&format!("{alert}severity = \"page\""), "`severity` cannot be `page`");
        check_error("[alerts]\nurl = \"silverd.example.com\"", "a URL that begins with https://");
        check_error("[alerts]\nbuild_in = true", "did you mean `built_in`?");
    }
}
