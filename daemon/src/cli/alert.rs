//! `silverd alert`: where the alerts are, and a notification to try out how one arrives.

use std::path::Path;
use std::sync::Arc;

use anyhow::bail;
use chrono::SecondsFormat;
use clap::{Args, Subcommand};
use serde::Serialize;
use silverd_core::alerts::{PhaseName, Report};
use silverd_core::config::{Alert, NotifyReceiver};
use silverd_core::zone::Zone;

use super::plugin::text_table;
use crate::alerts::{
    BuiltIn, Evaluation, InvalidAlert, ShownAlert, StoredAlert, StoredAlerts, built_in_alerts, check_alert, evaluate,
    sort, statement, summary, test_notification, text_of,
};
use crate::app::setup::Setup;
use crate::app::wrong_use;
use crate::notify::{self, Notification};
use crate::runtime::inert::inert_line;
use crate::runtime::out::out;
use crate::sql::{PanelQueries, QueryError, Tables, table_references};
use crate::tables::recent_rows::RecentRows;

#[derive(Args, Debug)]
pub(super) struct AlertArgs {
    #[command(subcommand)]
    command: AlertCommand,
}

#[derive(Subcommand, Debug)]
enum AlertCommand {
    /// Show which alerts fire, since when, and whether a silverd evaluates them
    List(ListArgs),
    /// Evaluate an alert once, and send a test notification to its receivers, whether or not it would fire
    Test(TestArgs),
}

#[derive(Args, Debug)]
struct ListArgs {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Also the built-in alerts that do not fire
    #[arg(long)]
    all: bool,
}

#[derive(Args, Debug)]
struct TestArgs {
    /// The name in [alert.<name>], or that of a built-in alert, as `silverd alert list --all` prints it
    #[arg(value_name = "NAME")]
    name: String,
}

pub(super) async fn alert(config: &Path, args: AlertArgs) -> anyhow::Result<()> {
    let setup = Setup::read(config)?;
    match args.command {
        AlertCommand::List(args) => list(&setup, &args),
        AlertCommand::Test(args) => test(&setup, &args.name).await,
    }
}

#[derive(Serialize)]
struct Listed {
    /// Whether a silverd runs that evaluates the alerts.
    running: bool,
    saved_at_ms: Option<i64>,
    alerts: Vec<ShownAlert>,
}

fn list(setup: &Setup, args: &ListArgs) -> anyhow::Result<()> {
    let stored = StoredAlerts::read(&setup.base_dir.join(&*setup.pipeline.state.path))?;
    let zone = setup.pipeline.time_zone;
    let mut alerts = all_alerts(setup, &stored);
    sort(&mut alerts);
    if args.json {
        let listed = Listed { running: stored.is_running, saved_at_ms: stored.saved_at_ms, alerts };
        out!("{}", serde_json::to_string_pretty(&listed)?);
        return Ok(());
    }
    match (stored.is_running, stored.saved_at_ms) {
        (true, _) => out!("silverd runs and evaluates the alerts"),
        (false, Some(at_ms)) => out!("no silverd evaluates the alerts: this is how they were at {}", time(at_ms, zone)),
        (false, None) => out!("no silverd has evaluated the alerts yet"),
    }
    if alerts.is_empty() {
        out!("pipeline.toml has no alert: add a section [alert.<name>], or [alerts] with built_in = true");
        return Ok(());
    }
    let is_shown = |alert: &&ShownAlert| {
        args.all || !alert.built_in || matches!(alert.state, PhaseName::Firing | PhaseName::Pending)
    };
    let shown: Vec<_> = alerts.iter().filter(is_shown).collect();
    let rows: Vec<_> = shown.iter().map(|alert| row(alert, zone)).collect();
    if !rows.is_empty() {
        out!("{}", text_table(&["alert", "severity", "state", "since", "notified", "last row"], &rows)?);
    }
    for alert in &shown {
        if let Some(summary) = &alert.summary {
            out!("{}: {}", alert.name, inert_line(summary));
        }
        if let Some(reason) = &alert.reason {
            let what = if alert.failures > 0 { "cannot be evaluated" } else { "waits" };
            out!("{}: {what}: {}", alert.name, inert_line(reason));
        }
    }
    let hidden = alerts.len() - shown.len();
    if hidden > 0 {
        out!("{hidden} built-in alerts do not fire; --all lists them, too");
    }
    Ok(())
}

/// The alerts of pipeline.toml with what is stored of them.
fn all_alerts(setup: &Setup, stored: &StoredAlerts) -> Vec<ShownAlert> {
    let none = StoredAlert::default();
    let of = |name: &str| stored.alerts.get(name).unwrap_or(&none);
    let in_sql = setup.pipeline.alerts.iter().map(|alert| {
        let shown = ShownAlert::new(&alert.name, false, &alert.notify, of(&alert.name));
        ShownAlert { severity: alert.severity, ..shown }
    });
    let built_in = built_in_alerts(&setup.pipeline, &setup.base_dir).into_iter().map(|alert| {
        let shown = ShownAlert::new(&alert.name, true, &setup.pipeline.built_in_alerts.notify, of(&alert.name));
        ShownAlert { severity: alert.severity, ..shown }
    });
    in_sql.chain(built_in).collect()
}

fn row(alert: &ShownAlert, zone: Zone) -> Vec<String> {
    let values: Vec<_> = alert.values.iter().map(|(name, value)| format!("{name}={}", text_of(value))).collect();
    vec![
        alert.name.clone(),
        alert.severity.as_str().to_owned(),
        alert.state.as_str().to_owned(),
        alert.since_ms.map(|at_ms| time(at_ms, zone)).unwrap_or_default(),
        alert.notified_at_ms.map(|at_ms| time(at_ms, zone)).unwrap_or_default(),
        inert_line(&values.join(" ")),
    ]
}

/// As the clocks of pipeline.toml's zone show it, with the offset.
fn time(at_ms: i64, zone: Zone) -> String {
    zone.local(at_ms).to_rfc3339_opts(SecondsFormat::Secs, true)
}

async fn test(setup: &Setup, name: &str) -> anyhow::Result<()> {
    let pipeline = &setup.pipeline;
    let built_in = built_in_alerts(pipeline, &setup.base_dir);
    let url = pipeline.built_in_alerts.url.as_deref();
    let (notification, names) = if let Some(alert) = pipeline.alerts.iter().find(|alert| alert.name == name) {
        let report = report_of(setup, alert).await?;
        (test_notification(name, alert.severity, &alert.description, report, url), &alert.notify)
    } else if let Some(BuiltIn { severity, description, .. }) = built_in.iter().find(|alert| alert.name == name) {
        let report = Report { summary: "a test of a built-in alert".to_owned(), ..Report::default() };
        (test_notification(name, *severity, description, report, url), &pipeline.built_in_alerts.notify)
    } else {
        let known = pipeline.alerts.iter().map(|alert| alert.name.as_str());
        let known: Vec<_> = known.chain(built_in.iter().map(|alert| alert.name.as_str())).collect();
        match known.is_empty() {
            true => wrong_use!("there is no alert `{name}`: pipeline.toml has none; add a section [alert.{name}]"),
            false => wrong_use!("there is no alert `{name}`; the alerts are {}", known.join(", ")),
        }
    };
    let receivers: Vec<_> = pipeline.notify.iter().filter(|receiver| names.contains(&receiver.name)).collect();
    if receivers.is_empty() {
        wrong_use!("alert {name} has no receivers: add notify = [\"…\"] to its section, or to [alerts]");
    }
    send(setup, &receivers, &notification).await
}

/// Sends the notification to each of them, and fails if one does not get it.
async fn send(setup: &Setup, receivers: &[&NotifyReceiver], notification: &Notification) -> anyhow::Result<()> {
    let mut failed = Vec::new();
    for receiver in receivers {
        match notify::send_now(receiver, notification, &setup.base_dir).await {
            Ok(()) => out!("{}: notified", receiver.name),
            Err(failure) => {
                out!("{}: not notified: {failure}", receiver.name);
                failed.push(&*receiver.name);
            }
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("the test notification did not reach {}", failed.join(", "))
}

/// Evaluates an alert, and prints what it finds.
async fn report_of(setup: &Setup, alert: &Alert) -> anyhow::Result<Report> {
    let tables = Tables::new(&setup.pipeline, &setup.base_dir);
    if let Err(InvalidAlert::Sql(failure) | InvalidAlert::When(failure)) = check_alert(&tables, alert) {
        wrong_use!("[alert.{}] {failure}", alert.name);
    }
    if table_references(&alert.sql)?.iter().any(|name| name.starts_with("live.")) {
        out!("live.<name> has no rows here: they are in the memory of a running silverd");
    }
    let mut queries = PanelQueries::new(&tables, &setup.pipeline.sql_limits, Arc::<RecentRows>::default());
    let Evaluation { fires, values } = match evaluate(&mut queries, &statement(alert), setup.pipeline.time_zone).await {
        Ok(evaluation) => evaluation,
        Err(waiting @ QueryError::NotWritten(_)) => {
            out!("{}: {waiting}: the alert waits for its first row", alert.name);
            Evaluation::default()
        }
        Err(failure) => bail!("evaluate [alert.{}]: {failure}", alert.name),
    };
    for (name, value) in &values {
        out!("{} = {}", inert_line(name), inert_line(&text_of(value)));
    }
    let whether = if fires { "is true: the alert would fire" } else { "is not true: the alert would not fire" };
    out!("`{}` {whether}", inert_line(&alert.when));
    Ok(Report { summary: summary(alert, &values), values })
}
