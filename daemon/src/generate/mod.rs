//! `silverd generate`: sends synthetic events of a web shop, or the events of a file, to a Kafka topic.

mod file;
mod rate_limiter;
mod sender;
mod sized_events;

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use chrono::NaiveDate;
use silverd_core::generate::{Generator, Options, UserAgents};
use tokio_util::sync::CancellationToken;

use crate::runtime::clock;
use crate::runtime::out::out;
use file::EventFile;
pub use sender::Sender;
use sized_events::SizedEvents;

/// Send synthetic shop events, or the lines of a file, to a Kafka topic.
#[derive(clap::Args, Debug, Clone, PartialEq)]
pub struct GenerateArgs {
    /// The Kafka brokers: host:port, or several separated by commas
    #[arg(
        long,
        visible_alias = "brokers",
        env = "KAFKA_BROKERS",
        default_value = "localhost:9092",
        value_name = "HOST:PORT"
    )]
    pub bootstrap: String,
    /// The topic to send to; created if it does not exist
    #[arg(long, default_value = "events.raw")]
    pub topic: String,
    /// Events per second; 0: as fast as possible
    #[arg(long, default_value_t = 100.0, value_parser = events_per_second, allow_negative_numbers = true)]
    pub eps: f64,
    /// The number of the shop's users
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub users: u32,
    /// The percentage of events that are sent twice
    #[arg(long, default_value_t = 1.5, value_parser = percent, value_name = "PERCENT", allow_negative_numbers = true)]
    pub dup_pct: f64,
    /// The largest difference between an event's ts and the current time, in both directions
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    pub skew: u32,
    /// User agents: `browsers` (a few hundred), `distinct` (each page view has its own), or a number of them, the one of
    /// rank n 1/n as often as the first
    #[arg(long, default_value = "browsers", value_parser = user_agents, value_name = "browsers|distinct|N")]
    pub user_agents: UserAgents,
    /// Give the events a ts on this day, to practise backfills
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub backdate: Option<NaiveDate>,
    /// Stop after this number of events, including duplicates
    #[arg(long, value_name = "EVENTS")]
    pub count: Option<u64>,
    /// Create the same events, including event_ids, for the same seed; without it, every run creates others
    #[arg(long)]
    pub seed: Option<u64>,
    /// Send this file instead, with one JSON event per line, byte for byte; the key is the top-level event_id
    #[arg(long, value_name = "EVENTS.JSONL", conflicts_with_all = ["users", "dup_pct", "skew", "user_agents", "backdate", "seed"])]
    pub file: Option<PathBuf>,
    /// Send the file repeatedly; from the second pass on with new event_ids
    #[arg(long, requires = "file")]
    pub repeat: bool,
    /// The number of partitions if the topic is created
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..))]
    pub partitions: i32,
    /// The size of each event; fields are left out or padding is added.
    #[arg(skip)]
    pub event_bytes: Option<usize>,
}

/// The arguments of a command line without options.
impl Default for GenerateArgs {
    fn default() -> Self {
        let options = Options::default();
        Self {
            bootstrap: "localhost:9092".to_owned(),
            topic: "events.raw".to_owned(),
            eps: 100.0,
            users: options.users,
            dup_pct: options.dup_pct,
            skew: options.skew_seconds,
            user_agents: options.user_agents,
            backdate: None,
            count: None,
            seed: None,
            file: None,
            repeat: false,
            partitions: 4,
            event_bytes: None,
        }
    }
}

/// The events that the broker has confirmed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Including duplicates.
    pub sent: u64,
    /// Of the values, without keys and before compression.
    pub bytes: u64,
    /// Events that were sent a second time.
    pub duplicates: u64,
}

/// Sends events until the count or the end of the file is reached, or `shutdown` is cancelled. Then prints a summary
/// line.
///
/// # Errors
///
/// If the broker has not confirmed every event.
pub async fn run(args: GenerateArgs, shutdown: CancellationToken) -> anyhow::Result<Report> {
    // A wrong file name must be reported before waiting for the broker.
    EventSource::open(&args)?;
    let sender = Sender::connect(&args.bootstrap, &args.topic, args.partitions, &shutdown).await?;
    let started = Instant::now();
    let target = format!("{} at {}", args.topic, args.bootstrap);
    let report = sender.produce(args, || true, shutdown).await?;
    out!("{}", Summary { report, target: &target, elapsed: started.elapsed() });
    Ok(report)
}

enum EventSource {
    Synthetic(Box<Generator>),
    Sized(SizedEvents),
    File(EventFile),
}

/// An event that is sent to Kafka.
#[derive(Debug, PartialEq, Eq)]
struct Outgoing {
    key: Option<String>,
    value: Vec<u8>,
    duplicate: bool,
}

impl EventSource {
    fn open(args: &GenerateArgs) -> anyhow::Result<Self> {
        if let Some(path) = &args.file {
            return Ok(Self::File(EventFile::open(path, args.repeat)?));
        }
        if let Some(bytes) = args.event_bytes {
            return Ok(Self::Sized(SizedEvents::new(bytes)));
        }
        let options = Options {
            users: args.users,
            dup_pct: args.dup_pct,
            skew_seconds: args.skew,
            seed: args.seed.unwrap_or_else(rand::random),
            backdate: args.backdate.map(|day| day.to_epoch_days()),
            user_agents: args.user_agents,
        };
        Ok(Self::Synthetic(Box::new(Generator::new(options))))
    }

    /// The last event, for messages.
    fn position(&self) -> String {
        match self {
            Self::File(file) => file.position(),
            Self::Synthetic(_) | Self::Sized(_) => "a synthetic event".to_owned(),
        }
    }

    fn next(&mut self) -> anyhow::Result<Option<Outgoing>> {
        match self {
            Self::File(file) => file.next(),
            Self::Sized(sizes) => Ok(Some(sizes.next())),
            Self::Synthetic(generator) => {
                let event = generator.next(clock::now_micros());
                Ok(Some(Outgoing { key: Some(event.key), value: event.value, duplicate: event.duplicate }))
            }
        }
    }
}

struct Summary<'a> {
    report: Report,
    target: &'a str,
    elapsed: Duration,
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { sent, bytes, duplicates } = self.report;
        let seconds = self.elapsed.as_secs_f64();
        let rate = if seconds > 0.0 { sent as f64 / seconds } else { 0.0 };
        write!(f, "sent {} events ({} duplicates) to {}", grouped(sent), grouped(duplicates), self.target)?;
        write!(f, " in {seconds:.1} s: {} events/s, {} bytes", grouped(rate.round() as u64), grouped(bytes))
    }
}

/// Groups digits: 1234567 is `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && i % 3 == first {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn events_per_second(text: &str) -> Result<f64, String> {
    number(text, |eps| eps >= 0.0 && eps.is_finite(), "events per second: 0 or more")
}

fn user_agents(text: &str) -> Result<UserAgents, String> {
    match text {
        "browsers" => Ok(UserAgents::Browsers),
        "distinct" => Ok(UserAgents::Distinct),
        number => match number.parse() {
            Ok(count @ 1..=10_000_000) => Ok(UserAgents::Zipf(count)),
            _ => Err("expected browsers, distinct, or a number from 1 to 10000000".to_owned()),
        },
    }
}

fn percent(text: &str) -> Result<f64, String> {
    number(text, |percent| (0.0..=100.0).contains(&percent), "a percentage: 0 to 100")
}

fn number(text: &str, fits: impl Fn(f64) -> bool, expected: &str) -> Result<f64, String> {
    text.parse().ok().filter(|number| fits(*number)).ok_or_else(|| format!("expected {expected}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Cli {
        #[command(flatten)]
        args: GenerateArgs,
    }

    fn parse(args: &[&str]) -> Result<GenerateArgs, clap::Error> {
        let line = ["generate", "--bootstrap", "localhost:9092"].iter().chain(args);
        Cli::try_parse_from(line).map(|cli| cli.args)
    }

    #[test]
    fn default_equals_an_empty_command_line() {
        assert_eq!(parse(&[]).expect("defaults parse"), GenerateArgs::default());
    }

    #[test]
    fn backdate_parses_a_day() {
        let args = parse(&["--backdate", "2023-03-01"]).expect("a date parses");
        assert_eq!(args.backdate.map(|day| day.to_epoch_days()), Some(19_417));
    }

    #[test]
    fn invalid_arguments_are_refused() {
        for (args, expected) in [
            (&["--eps=-1"][..], "expected events per second: 0 or more"),
            (&["--eps", "NaN"], "expected events per second: 0 or more"),
            (&["--dup-pct", "101"], "expected a percentage: 0 to 100"),
            (&["--users", "0"], "0 is not in 1.."),
            (&["--partitions", "0"], "0 is not in 1.."),
            (&["--backdate", "yesterday"], "invalid value 'yesterday' for '--backdate <YYYY-MM-DD>'"),
            (&["--repeat"], "--file <EVENTS.JSONL>"),
            (&["--file", "x", "--seed", "1"], "cannot be used with"),
        ] {
            let message = parse(args).expect_err("invalid arguments").to_string();
            assert!(message.contains(expected), "{args:?}: {message}");
        }
    }

    #[test]
    fn the_summary_is_one_line() {
        let report = Report { sent: 1_234_567, bytes: 335_000_000, duplicates: 999 };
        let summary = Summary { report, target: "events.raw at kafka:9092", elapsed: Duration::from_millis(2_500) };
        insta::assert_snapshot!(
            summary,
            @"sent 1,234,567 events (999 duplicates) to events.raw at kafka:9092 in 2.5 s: 493,827 events/s, 335,000,000 bytes"
        );
    }
}
