//! The alerts that need no SQL: what each goes by, and what it says.

use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value};
use silverd_core::alerts::{AlertRule, Report, Seen};
use silverd_core::config::{BuiltInAlerts, Pipeline};
use silverd_core::plain_text::first_chars;

use super::disks::{DaysLeft, Disk, DiskWatch};
use super::observed::{BRONZE, Observed, REJECTS_WINDOW, Samples, Table};
use crate::gold::GoldState;
use crate::maintenance::MaintenanceState;
use crate::notify::Severity;
use crate::runtime::inert::inert_line;
use crate::tables::writer_state::WriterState;

/// The names of built-in alerts begin so; those of pipeline.toml have no dot.
const PREFIX: &str = "silverd";
/// After so many evaluations in a row that failed, an alert counts as one that cannot be evaluated.
pub(super) const FAILURES_MAX: u32 = 3;
/// A share of fewer events says nothing.
const EVENTS_MIN: u64 = 100;
const REJECTED_MIN: u64 = 10;
const SUMMARY_CHARS_MAX: usize = 500;
/// An alert about a figure ends once that is as far as this from its limit: one that goes up and down at the limit would
/// be notified again and again.
const NEAR_SHARE: f64 = 0.8;

/// A built-in alert.
#[derive(Clone, Debug)]
pub(crate) struct BuiltIn {
    pub(crate) name: String,
    pub(crate) severity: Severity,
    pub(crate) description: &'static str,
    pub(super) rule: AlertRule,
    about: About,
}

/// What it is about.
#[derive(Clone, Debug)]
enum About {
    Bronze,
    Source,
    Events,
    Lag(String),
    TableStuck(String),
    PluginStopped(String),
    PluginRejected(String),
    Rejects(String),
    Gold(String),
    Maintenance,
    DiskLow(String),
    DiskFills(String),
    Evaluation,
}

/// What all built-in alerts go by.
pub(super) struct Known<'a> {
    pub(super) config: &'a BuiltInAlerts,
    pub(super) free_bytes_min: u64,
    pub(super) observed: &'a Observed,
    pub(super) samples: &'a Samples,
    pub(super) disks: &'a DiskWatch,
    /// The alerts that cannot be evaluated, with the reason.
    pub(super) failing: &'a [(String, String)],
}

/// The built-in alerts of a pipeline. Without `built_in`, there is only the one about alerts that cannot be evaluated, and
/// only if there is an alert.
pub(crate) fn built_in_alerts(pipeline: &Pipeline, base_dir: &Path) -> Vec<BuiltIn> {
    of_pipeline(pipeline, &super::disks::disks_of(pipeline, base_dir))
}

pub(super) fn of_pipeline(pipeline: &Pipeline, disks: &[Disk]) -> Vec<BuiltIn> {
    let config = &pipeline.built_in_alerts;
    let (steady, at_once) = (config.rule, AlertRule { for_ms: 0, ..config.rule });
    let mut alerts = Vec::new();
    let mut add = |kind: &str, of: Option<&str>, severity, rule, description, about| {
        let name = [PREFIX, kind].into_iter().chain(of).collect::<Vec<_>>().join(".");
        alerts.push(BuiltIn { name, severity, description, rule, about });
    };
    if !pipeline.alerts.is_empty() {
        let text = "Correct its SQL in pipeline.toml; `silverd alert test NAME` runs it.";
        add("evaluation_failing", None, Severity::Warning, at_once, text, About::Evaluation);
    }
    if !config.enabled {
        return alerts;
    }
    let text =
        "No event reaches any table until Bronze can be written. Kafka keeps them as long as its retention says.";
    add("bronze_stuck", None, Severity::Critical, steady, text, About::Bronze);
    let text = "Look whether the brokers can be reached and the topics exist.";
    add("source_stopped", None, Severity::Critical, steady, text, About::Source);
    if config.no_events_ms.is_some() {
        let text = "Look whether the producers still send.";
        add("no_events", None, Severity::Critical, at_once, text, About::Events);
    }
    let lag = "Events arrive faster than they are written, or they are not written at all.";
    add("lag_grows", Some(BRONZE), Severity::Warning, at_once, lag, About::Lag(BRONZE.to_owned()));
    for table in &pipeline.silver {
        let name = || table.name.to_string();
        add("lag_grows", Some(&*table.name), Severity::Warning, at_once, lag, About::Lag(name()));
        let text = "The table is not written; silverd tries again and again. Bronze has its events.";
        add("table_stuck", Some(&*table.name), Severity::Critical, steady, text, About::TableStuck(name()));
        let text = "The plugin fails on every event, so the table waits for another version. Bronze has its events.";
        add("plugin_stopped", Some(&*table.name), Severity::Critical, steady, text, About::PluginStopped(name()));
        let text = "The version before it serves. `silverd plugin list` says which versions do not, and why.";
        add("plugin_rejected", Some(&*table.name), Severity::Warning, steady, text, About::PluginRejected(name()));
        let text = "`silverd quarantine list` shows the rejected events with their reasons.";
        add("quarantine_grows", Some(&*table.name), Severity::Warning, at_once, text, About::Rejects(name()));
    }
    for table in &pipeline.gold {
        let text = "Its figures are those of the last refresh that succeeded.";
        let about = About::Gold(table.name.to_string());
        add("gold_failing", Some(&*table.name), Severity::Warning, steady, text, about);
    }
    if pipeline.maintenance.enabled {
        let text = "Small files stay, and queries become slower; expired files may stay, too.";
        add("maintenance_failing", None, Severity::Warning, steady, text, About::Maintenance);
    }
    for Disk { name, .. } in disks {
        let text = "Make room, or move tables: when the disk is full, nothing is written any more.";
        add("disk_low", Some(name.as_str()), Severity::Critical, steady, text, About::DiskLow(name.clone()));
        add("disk_fills", Some(name.as_str()), Severity::Warning, at_once, text, About::DiskFills(name.clone()));
    }
    alerts
}

impl BuiltIn {
    /// Whether it is about the alerts in SQL.
    pub(super) fn is_of_evaluation(&self) -> bool {
        matches!(self.about, About::Evaluation)
    }

    pub(super) fn seen(&self, known: &Known) -> Seen {
        match &self.about {
            About::Bronze => bronze(known),
            About::Source => source(known),
            About::Events => events(known),
            About::Lag(name) => of_table(known, name, |table| lag(known, name, table)),
            About::TableStuck(name) => of_table(known, name, |table| match &table.state {
                WriterState::Retrying { reason } => is_true(format!("table {name} cannot be written: {reason}"), name),
                _ => false_if(known.samples.is_known_to_write(name, table)),
            }),
            About::PluginStopped(name) => of_table(known, name, |table| match &table.state {
                WriterState::Paused { reason, .. } => {
                    is_true(format!("the plugin of {name} is stopped: {reason}"), name)
                }
                _ => false_if(known.samples.is_known_to_write(name, table)),
            }),
            About::PluginRejected(name) => of_table(known, name, |table| match &table.rejection {
                Some(reason) => is_true(format!("the newest plugin version of {name} does not serve: {reason}"), name),
                None => false_if(known.samples.is_known_to_write(name, table)),
            }),
            About::Rejects(name) => of_table(known, name, |table| rejects(known, name, table)),
            About::Gold(name) => gold(known, name),
            About::Maintenance => maintenance(known),
            About::DiskLow(name) => disk_low(known, name),
            About::DiskFills(name) => disk_fills(known, name),
            About::Evaluation => evaluation(known),
        }
    }
}

fn is_true(summary: String, table: &str) -> Seen {
    report(summary, [("table", Value::from(table))])
}

/// The first line of the reasons is what a person needs first; the log has the rest.
fn report<const N: usize>(summary: String, values: [(&str, Value); N]) -> Seen {
    let summary = first_chars(&inert_line(summary.lines().next().unwrap_or_default()), SUMMARY_CHARS_MAX);
    let values: Map<String, Value> = values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Seen::True(Report { summary, values })
}

fn false_if(is_known: bool) -> Seen {
    if is_known { Seen::False } else { Seen::Unknown }
}

/// Unknown while the pipeline is being opened, and of a table that it does not have yet.
fn of_table(known: &Known, name: &str, seen: impl FnOnce(&Table) -> Seen) -> Seen {
    known.observed.pipeline.as_ref().and_then(|tables| tables.get(name)).map_or(Seen::Unknown, seen)
}

fn bronze(known: &Known) -> Seen {
    if let Some(reason) = &known.observed.cannot_open {
        return report(format!("no event is written: {reason}"), []);
    }
    of_table(known, BRONZE, |table| match &table.state {
        WriterState::Retrying { reason } => report(format!("Bronze cannot be written: {reason}"), []),
        _ => false_if(table.is_known_to_write()),
    })
}

fn source(known: &Known) -> Seen {
    if known.observed.pipeline.is_none() {
        return Seen::Unknown;
    }
    // The one that has lasted longest.
    match known.observed.source_problems.iter().max_by_key(|(_, lasts)| *lasts) {
        Some((text, lasts)) => {
            let problems = known.observed.source_problems.len();
            let summary = format!("records are not read, for {}: {text}", span(*lasts));
            report(summary, [("problems", problems.into())])
        }
        None => Seen::False,
    }
}

fn events(known: &Known) -> Seen {
    let (Some(limit_ms), Some(lasts)) = (known.config.no_events_ms, known.samples.without_events(known.observed.at))
    else {
        return Seen::Unknown;
    };
    if known.observed.pipeline.is_none() {
        return Seen::Unknown;
    }
    match lasts >= Duration::from_millis(limit_ms) {
        true => report(format!("no event has arrived for {}", span(lasts)), [("seconds", lasts.as_secs().into())]),
        false => false_if(known.samples.has_events()),
    }
}

fn lag(known: &Known, name: &str, table: &Table) -> Seen {
    let (config, now) = (known.config, table.lag);
    let lag_events = i64::try_from(config.lag_events).unwrap_or(i64::MAX);
    if now < lag_events {
        return Seen::False;
    }
    let window = Duration::from_millis(config.lag_window_ms);
    match known.samples.lag_before(name, known.observed.at, window) {
        Some(before) if now > before => report(
            format!("{name} is {now} events behind, {} more than {} before", now - before, span(window)),
            [("table", name.into()), ("lag", now.into()), ("lag_before", before.into())],
        ),
        // A lag that goes up and down a little neither ends nor begins anything.
        Some(before) if now <= before - lag_events / 10 => Seen::False,
        Some(_) | None => Seen::Unknown,
    }
}

fn rejects(known: &Known, name: &str, table: &Table) -> Seen {
    let at = known.observed.at;
    let Some((events, rejected)) = known.samples.rejected_since(name, table, at, REJECTS_WINDOW) else {
        return Seen::Unknown;
    };
    let is_enough = events >= EVENTS_MIN && rejected >= REJECTED_MIN;
    if is_enough && rejected as f64 > known.config.quarantine_share * events as f64 {
        let percent = rejected as f64 * 100.0 / events as f64;
        let summary = format!("{name} has rejected {rejected} of the last {events} events ({percent:.1} %)");
        return report(summary, [("table", name.into()), ("events", events.into()), ("rejected", rejected.into())]);
    }
    // Near the limit, it neither begins nor ends.
    if is_enough && rejected as f64 > known.config.quarantine_share * NEAR_SHARE * events as f64 {
        return Seen::Unknown;
    }
    false_if(events >= EVENTS_MIN || known.samples.cover(at, REJECTS_WINDOW))
}

fn gold(known: &Known, name: &str) -> Seen {
    let Some(table) = known.observed.gold.iter().find(|table| table.name == name) else { return Seen::Unknown };
    match table.state {
        GoldState::Failing => {
            let reason = table.reason.as_deref().unwrap_or_default();
            is_true(format!("gold.{name} cannot be refreshed: {reason}"), &format!("gold.{name}"))
        }
        GoldState::Waiting => Seen::Unknown,
        GoldState::Ok | GoldState::CatchingUp => Seen::False,
    }
}

fn maintenance(known: &Known) -> Seen {
    let tables = &known.observed.maintenance;
    let failing: Vec<_> = tables.iter().filter(|table| !table.state.is_up()).collect();
    if let Some(first) = failing.first() {
        let names: Vec<_> = failing.iter().map(|table| table.table.as_str()).collect();
        let reason = first.reason.as_deref().unwrap_or_default();
        let summary = format!("table maintenance is {} for {}: {reason}", first.state, names.join(", "));
        return report(summary, [("tables", names.len().into())]);
    }
    false_if(tables.iter().any(|table| table.state == MaintenanceState::Ok))
}

fn disk_low(known: &Known, name: &str) -> Seen {
    match known.disks.free_bytes(name) {
        Some(free) if free < known.free_bytes_min => {
            let summary = format!("the disk of {name} has {} free", bytes(free));
            report(summary, [("disk", name.into()), ("free_bytes", free.into())])
        }
        Some(free) if (free as f64) * NEAR_SHARE < known.free_bytes_min as f64 => Seen::Unknown,
        Some(_) => Seen::False,
        None => Seen::Unknown,
    }
}

fn disk_fills(known: &Known, name: &str) -> Seen {
    match (known.disks.full_in_days(name), known.disks.free_bytes(name)) {
        (Some(DaysLeft(Some(days))), Some(free)) if days < f64::from(known.config.disk_days) => {
            let summary =
                format!("the disk of {name} is full in {days:.1} days at this week's growth: {} are free", bytes(free));
            report(summary, [("disk", name.into()), ("days", days.into()), ("free_bytes", free.into())])
        }
        (Some(DaysLeft(Some(days))), _) if days * NEAR_SHARE < f64::from(known.config.disk_days) => Seen::Unknown,
        (Some(_), _) => Seen::False,
        (None, _) => Seen::Unknown,
    }
}

fn evaluation(known: &Known) -> Seen {
    let Some((name, reason)) = known.failing.first() else { return Seen::False };
    let summary = match known.failing.len() {
        1 => format!("alert {name} cannot be evaluated: {reason}"),
        more => format!("{more} alerts cannot be evaluated, among them {name}: {reason}"),
    };
    report(summary, [("alerts", known.failing.len().into())])
}

fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_073_741_824 => format!("{} MiB", bytes >> 20),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Instant;

    use silverd_core::config;

    use super::super::observed::Tables;
    use super::super::store::Disks;
    use super::*;

    const CONFIG: &str = "[source]\nbrokers = \"localhost:1\"\ntopic = \"t\"\n\
                          [alerts]\nbuilt_in = true\nno_events = \"1h\"\nlag_events = 100\n\
                          [silver.hits]\nplugin = \"hits\"\nmatch = \"everything\"\nevent_time = \"ts\"\n\
                          [gold.daily]\nsql = \"SELECT event_date FROM hits\"\n";

    fn table(state: WriterState) -> Table {
        Table { state, lag: 0, events: 1_000, rejected: 0, commits: 1, rejection: None }
    }

    fn observed(at: Instant, tables: Option<Vec<(&str, Table)>>) -> Observed {
        let pipeline = tables.map(|tables| tables.into_iter().map(|(name, table)| (name.to_owned(), table)).collect());
        let (cannot_open, source_problems) = (None, Vec::new());
        Observed { at, at_ms: 0, pipeline, cannot_open, source_problems, gold: Vec::new(), maintenance: Vec::new() }
    }

    /// What an alert sees: `true: …`, `false` or `unknown`.
    fn seen(name: &str, observed: &Observed, samples: &Samples) -> String {
        let pipeline = config::check(CONFIG, &|_| None).unwrap();
        let disks = DiskWatch::new(Disks::new());
        let known = Known {
            config: &pipeline.built_in_alerts,
            free_bytes_min: 1 << 30,
            observed,
            samples,
            disks: &disks,
            failing: &[],
        };
        let alerts = of_pipeline(&pipeline, &[]);
        let alert = alerts.iter().find(|alert| alert.name == name);
        match alert.unwrap_or_else(|| panic!("{:?}", alerts.iter().map(|alert| &alert.name))).seen(&known) {
            Seen::True(report) => format!("true: {}", report.summary),
            Seen::False => "false".to_owned(),
            Seen::Unknown => "unknown".to_owned(),
        }
    }

    fn no_samples() -> Samples {
        Samples::new(Duration::from_secs(900))
    }

    #[test]
    fn a_table_that_cannot_be_written_is_seen() {
        let retrying = || WriterState::Retrying { reason: "commit: disk full\nos error 28".to_owned() };
        let paused = || WriterState::Paused { seconds: 5, reason: "it fails on every event".to_owned() };
        let check = |alert: &str, state: WriterState, expected: &str| {
            let observed =
                observed(Instant::now(), Some(vec![("bronze", table(state.clone())), ("hits", table(state))]));
            assert_eq!(seen(alert, &observed, &no_samples()), expected, "{alert}");
        };
        check("silverd.bronze_stuck", retrying(), "true: Bronze cannot be written: commit: disk full");
        check("silverd.bronze_stuck", WriterState::Live, "false");
        check("silverd.table_stuck.hits", retrying(), "true: table hits cannot be written: commit: disk full");
        check("silverd.table_stuck.hits", paused(), "unknown");
        check("silverd.plugin_stopped.hits", paused(), "true: the plugin of hits is stopped: it fails on every event");
        check("silverd.plugin_stopped.hits", WriterState::Opening, "unknown");
        check("silverd.plugin_rejected.hits", WriterState::Live, "false");
        check("silverd.source_stopped", WriterState::Live, "false");
        check("silverd.gold_failing.daily", WriterState::Live, "unknown");
    }

    #[test]
    fn nothing_is_known_while_the_pipeline_is_opened() {
        let mut observed = observed(Instant::now(), None);
        for alert in ["silverd.bronze_stuck", "silverd.source_stopped", "silverd.lag_grows.hits", "silverd.no_events"] {
            assert_eq!(seen(alert, &observed, &no_samples()), "unknown", "{alert}");
        }
        observed.cannot_open = Some("open bronze: \u{1b}[1mno".to_owned());
        let text = seen("silverd.bronze_stuck", &observed, &no_samples());
        assert_eq!(text, "true: no event is written: open bronze: \\u{1b}[1mno");
    }

    /// Tables of which Bronze has so many events, and `hits` so many rejects and so much lag.
    fn tables(events: u64, rejected: u64, lag: i64) -> Vec<(&'static str, Table)> {
        let live = || table(WriterState::Live);
        vec![("bronze", Table { events, ..live() }), ("hits", Table { events, rejected, lag, ..live() })]
    }

    #[test]
    fn growth_and_shares_are_seen_over_their_windows() {
        let (start, minute) = (Instant::now(), Duration::from_secs(60));
        let mut samples = no_samples();
        let mut look = |minutes: u32, events: u64, rejected: u64, lag: i64| {
            let observed = observed(start + minute * minutes, Some(tables(events, rejected, lag)));
            let now: &Tables = observed.pipeline.as_ref().unwrap();
            samples.add(observed.at, now);
            ["lag_grows.hits", "quarantine_grows.hits", "no_events"]
                .map(|alert| seen(&format!("silverd.{alert}"), &observed, &samples))
        };
        assert_eq!(look(0, 0, 0, 50), ["false", "unknown", "unknown"]);
        assert_eq!(look(1, 1_000, 10, 150), ["unknown", "false", "false"]);
        let [lag, share, events] = look(16, 2_000, 200, 200);
        assert_eq!(lag, "true: hits is 200 events behind, 50 more than 15 min before");
        assert_eq!(share, "true: hits has rejected 200 of the last 2000 events (10.0 %)");
        assert_eq!(events, "false");
        assert_eq!(look(17, 2_000, 200, 150), ["unknown", &share, "false"].map(str::to_owned), "it does not grow");
        assert_eq!(look(18, 2_000, 200, 140), ["false", &share, "false"].map(str::to_owned), "it falls");
        let [_, share, events] = look(80, 2_000, 200, 0);
        assert_eq!((share.as_str(), events.as_str()), ("false", "true: no event has arrived for 64 min"));
    }

    #[test]
    fn the_alerts_are_those_of_the_pipeline() {
        let names = |text: &str| -> Vec<String> {
            let pipeline = config::check(text, &|_| None).unwrap();
            of_pipeline(&pipeline, &[]).into_iter().map(|alert| alert.name).collect()
        };
        let off = CONFIG.replace("built_in = true", "built_in = false");
        assert_eq!(names(&off), [""; 0]);
        let alert = "[alert.a]\nsql = \"SELECT 1 AS n\"\nwhen = \"n > 0\"\n";
        assert_eq!(names(&format!("{off}{alert}")), ["silverd.evaluation_failing"]);
        let all = names(CONFIG);
        assert!(all.contains(&"silverd.gold_failing.daily".to_owned()), "{all:?}");
        assert!(!names(&CONFIG.replace("no_events = \"1h\"", "")).contains(&"silverd.no_events".to_owned()));
    }
}
