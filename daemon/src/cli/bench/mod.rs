//! `silverd bench`: what silverd takes for its work on this machine, measured anew by anyone who asks.
//!
//! A drain runs in a process of its own, so that its memory and CPU time are its own, too; the median of several counts.

mod drain;
mod fill;
mod live;
mod native;
mod suite;

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueEnum;
use serde_json::{Map, Value};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::ingest::EmbeddedBroker;
use crate::transform::this_program;
use fill::Fill;

const EVENTS: u64 = 2_000_000;
const EMBEDDED_TOPIC: &str = "silverd-bench";
/// What the embedded broker needs for an event, at most on average.
const EVENT_BYTES: u64 = 512;

#[derive(clap::Args, Debug, Clone)]
pub struct BenchArgs {
    /// Kafka's brokers
    #[arg(long, default_value = "localhost:9092", value_name = "HOST:PORT")]
    brokers: String,
    /// Start an embedded broker instead, which holds some 20,000 events: to see it work, not to compare it
    #[arg(long, conflicts_with_all = ["brokers", "topic", "also", "once"])]
    embedded: bool,
    /// Fill a new topic with so many events first [default: 2000000, or what the embedded broker holds]
    #[arg(long)]
    events: Option<u64>,
    /// Fill nothing: drain this topic as it is
    #[arg(long, conflicts_with_all = ["events", "file", "partitions", "also"])]
    topic: Option<String>,
    /// Partitions of the new topic
    #[arg(long, default_value_t = 4)]
    partitions: i32,
    /// Fill the topic with the lines of this file over and over, under fresh ids, instead of made-up events
    #[arg(long, value_name = "EVENTS.JSONL")]
    file: Option<PathBuf>,
    /// Where the tables are made; the folder must be new or empty [default: a temporary one, which is deleted]
    #[arg(long, value_name = "FOLDER", requires = "once")]
    out: Option<PathBuf>,
    /// How often the topic is drained with each kind of transforms; the medians are told
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// What else is measured: names with commas between, or `all`
    #[arg(long, value_delimiter = ',', value_name = "WHAT")]
    also: Vec<Also>,
    /// How long each measurement of a running silverd takes, in seconds
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(5..))]
    seconds: u64,
    /// What the tables are made with
    #[arg(long, value_enum, default_value_t = Transforms::Wasm, requires = "once")]
    transforms: Transforms,
    /// How files are compressed, instead of what pipeline.toml says: zstd, snappy, lz4 or none
    #[arg(long)]
    codec: Option<String>,
    /// Drain once, in this process, and tell of that alone
    #[arg(long)]
    once: bool,
    /// Run until told to stop, as `silverd run` does
    #[arg(long, hide = true, requires = "once")]
    serve: bool,
    /// Its commit interval
    #[arg(long, hide = true, requires = "serve")]
    interval_ms: Option<u64>,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// What fills the Silver tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Transforms {
    /// The plugins, in WebAssembly
    Wasm,
    /// The same functions, linked into this program
    Native,
    /// Nothing: Bronze alone is written
    None,
}

/// What is measured besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Also {
    All,
    /// Topics of 1, 2 and 4 partitions
    Partitions,
    /// Files compressed by zstd, snappy, lz4 and not at all
    Codecs,
    /// Events of 100 bytes to 10 kB
    Sizes,
    /// From sending an event to a row that others can read, at 1,000 events a second
    Latency,
    /// From a process's start to its first commit
    Start,
    /// Memory at 100 events a second
    Idle,
}

impl BenchArgs {
    fn wants(&self, what: Also) -> bool {
        self.also.contains(&Also::All) || self.also.contains(&what)
    }

    fn fill(&self) -> Fill {
        let (brokers, file) = (self.brokers.clone(), self.file.clone());
        let topic = self.embedded.then(|| EMBEDDED_TOPIC.to_owned());
        let events = self.events.unwrap_or(EVENTS);
        Fill { brokers, topic, events, partitions: self.partitions, file, event_bytes: None }
    }
}

pub async fn bench(file: &Path, mut args: BenchArgs, stop: CancellationToken) -> anyhow::Result<()> {
    if args.serve {
        return live::serve(file, args, stop).await;
    }
    if args.once {
        return drain::once(file, args, stop).await;
    }
    let embedded = args.embedded.then(|| EmbeddedBroker::start(EMBEDDED_TOPIC, args.partitions)).transpose()?;
    if let Some(broker) = &embedded {
        args.brokers = broker.bootstrap();
        let holds = broker.ahead_bytes_max() / EVENT_BYTES;
        let events = *args.events.get_or_insert(holds);
        anyhow::ensure!(
            events <= holds,
            "--events {events}: the embedded broker holds some {holds} with {} partitions. Ask for no more, or name \
             Kafka's brokers with --brokers",
            args.partitions
        );
    }
    let report = suite::run(file, &args, &stop).await?;
    if embedded.is_some() {
        let (asked, drained) = (args.events.unwrap_or_default(), report["events"].as_u64().unwrap_or_default());
        anyhow::ensure!(
            asked == drained,
            "the embedded broker has dropped {} of {asked} events, which were larger than usual: ask for fewer with --events",
            asked.saturating_sub(drained)
        );
    }
    if args.json {
        println!("{}", Value::Object(report));
    }
    Ok(())
}

/// A drain in a process of its own.
struct Drain<'a> {
    config: &'a Path,
    brokers: &'a str,
    topic: &'a str,
    transforms: Transforms,
    codec: Option<&'a str>,
}

impl Drain<'_> {
    fn command(&self) -> Command {
        let mut command = Command::new(this_program());
        command.args(["bench", "--once", "--brokers", self.brokers, "--topic", self.topic, "--log", "warn"]);
        let transforms = match self.transforms {
            Transforms::Wasm => "wasm",
            Transforms::Native => "native",
            Transforms::None => "none",
        };
        command.args(["--transforms", transforms]).arg("--config").arg(self.config);
        if let Some(codec) = self.codec {
            command.args(["--codec", codec]);
        }
        command.kill_on_drop(true);
        command
    }

    /// What it says of itself.
    async fn run(&self) -> anyhow::Result<Map<String, Value>> {
        let output = self.command().arg("--json").stderr(std::process::Stdio::inherit()).output().await?;
        anyhow::ensure!(output.status.success(), "a drain failed; see above");
        serde_json::from_slice(&output.stdout).context("read what a drain says of itself")
    }
}

/// The folder of the tables; a temporary one goes with it.
pub(super) struct Out {
    pub(super) path: PathBuf,
    temporary: bool,
}

impl Out {
    pub(super) fn of(path: Option<PathBuf>) -> anyhow::Result<Self> {
        let temporary = path.is_none();
        let path = path.unwrap_or_else(|| std::env::temp_dir().join(format!("silverd-bench-{}", uuid::Uuid::new_v4())));
        std::fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        let mut entries = std::fs::read_dir(&path).with_context(|| format!("read {}", path.display()))?;
        anyhow::ensure!(entries.next().is_none(), "--out {} is not empty: name a new folder", path.display());
        Ok(Self { path, temporary })
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        if self.temporary {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
