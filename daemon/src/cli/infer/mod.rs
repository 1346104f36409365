//! `silverd infer`: looks at the newest events of a topic, of Bronze or of a file, and says what is in them.

mod events;

use std::path::{Path, PathBuf};

use silverd_core::infer::{self, By, Report, Values};
use tokio_util::sync::CancellationToken;

use crate::app::wrong_use;
use crate::runtime::inert::inert_lines;
use crate::runtime::out::out;

pub(super) use events::{EventSource, Events};

#[derive(clap::Args, Debug)]
pub(super) struct InferArgs {
    /// The topic [default: that of pipeline.toml]; with --bronze, only the events of this topic
    topic: Option<String>,
    /// How many of the newest events
    #[arg(long, default_value_t = 1_000, value_name = "EVENTS", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    events: u32,
    /// Look at this file instead, with one JSON event per line; `-` is standard input
    #[arg(long, value_name = "EVENTS.JSONL", conflicts_with_all = ["topic", "bronze", "brokers"])]
    file: Option<PathBuf>,
    /// Look at the events in Bronze instead
    #[arg(long, conflicts_with = "brokers")]
    bronze: bool,
    /// The Kafka brokers, instead of [source] in pipeline.toml: host:port, or several separated by commas
    #[arg(long, value_name = "HOST:PORT", requires = "topic")]
    brokers: Option<String>,
    /// The field that splits events into kinds, such as event_type or meta.type; `none`: all are of one kind
    /// [default: the field that best decides which keys an event has]
    #[arg(long, value_name = "FIELD")]
    by: Option<String>,
    /// Show values that look like a person's data, instead of masking them
    #[arg(long)]
    show_values: bool,
    /// Print one JSON object
    #[arg(long, group = "form")]
    json: bool,
    /// Print a WIT record `input` for each kind of event
    #[arg(long, group = "form")]
    wit: bool,
    /// Print a section [silver.<kind>] for pipeline.toml for each kind of event
    #[arg(long, group = "form")]
    toml: bool,
}

pub(super) async fn infer(config: &Path, args: InferArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let from = match (&args.file, args.bronze) {
        (Some(file), _) => EventSource::File(file.clone()),
        (None, true) => EventSource::Bronze { topic: args.topic.clone() },
        (None, false) => EventSource::Topic { topic: args.topic.clone(), brokers: args.brokers.clone() },
    };
    let events = Events::read(config, &from, args.events as usize, stop).await?;
    let values = if args.show_values { Values::Shown } else { Values::Masked };
    let report = look_by(&events, &parse_by(args.by.as_deref(), &events)?, values);
    print(&report, &args)
}

/// Looks at events.
pub(super) fn look_by(events: &Events, by: &By, values: Values) -> Report {
    let mut report = infer::look(&events.events, by, values);
    report.notes.clone_from(&events.notes);
    report
}

/// What the command line says of kinds.
fn parse_by(by: Option<&str>, events: &Events) -> anyhow::Result<By> {
    match by {
        None => Ok(By::Auto),
        Some("none") => Ok(By::Nothing),
        Some(name) => match infer::field_named(name, &events.events) {
            Some(field) => Ok(By::Field(field)),
            None => wrong_use!(
                "--by {name}: no event of {} has a text, a number or a boolean in this field. Without --by, silverd \
                 chooses a field; with `--by none`, all events are of one kind",
                events.origin
            ),
        },
    }
}

fn print(report: &Report, args: &InferArgs) -> anyhow::Result<()> {
    if args.json {
        out!("{}", serde_json::to_string(report)?);
        return Ok(());
    }
    let text = match (args.wit, args.toml) {
        (true, _) => infer::wit(report),
        (_, true) => infer::toml(report),
        _ => infer::text(report),
    };
    out!("{}", inert_lines(text.trim_end()));
    Ok(())
}
