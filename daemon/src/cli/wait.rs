//! `silverd wait`: until a day is final. Reads the published table; no daemon has to answer.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::bail;
use silverd_core::config::Pipeline;
use silverd_core::days::DayState;
use silverd_core::zone::Zone;
use tokio_util::sync::CancellationToken;

use super::parse_time;
use super::process::TimedOut;
use crate::app::setup::Setup;
use crate::app::{WrongUse, wrong_use};
use crate::day_status::{DayRow, days_of};
use crate::delta::{day_number, format_day};
use crate::gold::name_in_queries;
use crate::runtime::causes;
use crate::runtime::clock;
use crate::runtime::out::out;

/// Between two looks at the table.
const INTERVAL: Duration = Duration::from_secs(1);

#[derive(clap::Args, Debug)]
pub(super) struct WaitArgs {
    /// The day, such as 2026-11-25; or `yesterday` or `today`, in the table's time zone
    #[arg(long, value_name = "DAY")]
    day: String,
    /// A Silver table, or a Gold table as `gold.<name>`
    #[arg(long, value_name = "TABLE")]
    table: String,
    /// Give up after this time, e.g. 90s, 1h, with exit code 3; 0s looks once [default: wait for as long as it takes]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    timeout: Option<Duration>,
    /// Print what is known of the day as a JSON object, or null
    #[arg(long)]
    json: bool,
}

pub(super) async fn wait(file: &Path, args: WaitArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let setup = Setup::read(file)?;
    let (table, zone) = table(&setup.pipeline, &args.table)?;
    let day = day(&args.day, zone, &table)?;
    let path = setup.base_dir.join(&*setup.pipeline.days.path);
    let (began, date) = (Instant::now(), format_day(day));
    loop {
        let found = days_of(&path, &table, day..=day).await;
        let row = found.as_ref().ok().and_then(|rows| rows.as_ref()?.first());
        if let Some(row) = row.filter(|row| row.state == DayState::Final) {
            print_row(Some(row), args.json)?;
            return Ok(());
        }
        if let Some(timeout) = args.timeout.filter(|timeout| began.elapsed() >= *timeout) {
            if args.json {
                print_row(row, true)?;
            }
            let why = match (&found, row) {
                (Err(failure), _) => format!("gold.day_status cannot be read: {}", causes(failure)),
                (Ok(_), Some(row)) => row.may_change_because.clone().unwrap_or_default(),
                (Ok(_), None) => format!(
                    "no state of the day is published in {}: a running silverd publishes it (`silverd run`)",
                    path.display()
                ),
            };
            let timeout = humantime::format_duration(timeout);
            return Err(TimedOut::error(format!("{date} of {table} is not final after {timeout}: {why}")));
        }
        let pause = args.timeout.map_or(INTERVAL, |timeout| timeout.saturating_sub(began.elapsed()).min(INTERVAL));
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            bail!("stopped before {date} of {table} was final");
        }
    }
}

/// The table's name in queries, and its zone.
fn table(pipeline: &Pipeline, name: &str) -> anyhow::Result<(String, Zone)> {
    let silver = pipeline.silver.iter().map(|table| (table.name.to_string(), table.time_zone));
    let gold = pipeline.gold.iter().map(|gold| (name_in_queries(gold), gold.time_zone));
    let known: Vec<_> = silver.chain(gold).collect();
    let found = known.iter().find(|(known, _)| known == name);
    found.cloned().ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
        WrongUse::error(format!("there is no table `{name}` with days; the tables are {}", names.join(", ")))
    })
}

/// A day since the epoch, which has begun.
fn day(text: &str, zone: Zone, table: &str) -> anyhow::Result<i32> {
    let today = zone.day_of(clock::now_micros());
    let day = match text {
        "today" => today,
        "yesterday" => today - 1,
        text => match day_number(text) {
            Some(day) => day,
            None => wrong_use!("--day {text}: expected a day such as 2026-11-25, `yesterday` or `today`"),
        },
    };
    if day > today {
        let (name, today) = (zone.name(), format_day(today));
        wrong_use!("--day {text}: this day has not begun; in the time zone of {table}, {name}, today is {today}")
    }
    Ok(day)
}

fn print_row(row: Option<&DayRow>, json: bool) -> anyhow::Result<()> {
    if json {
        out!("{}", serde_json::to_string(&row)?);
        return Ok(());
    }
    if let Some(row) = row {
        let date = format_day(row.day);
        let late = match row.late_events {
            0 => String::new(),
            late => format!("; {late} rows were added after it was final for the first time"),
        };
        out!("{date} of {} is {}{late}", row.table, row.state);
    }
    Ok(())
}
