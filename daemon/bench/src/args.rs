//! The command line of the drain and of what is measured with it.

use std::path::PathBuf;

use clap::ValueEnum;
use silverd_core::config::Compression;

use crate::topic::TopicSpec;

const EVENTS: u64 = 2_000_000;

#[derive(clap::Args, Debug, Clone)]
pub(crate) struct BenchArgs {
    /// Kafka's brokers
    #[arg(long, default_value = "localhost:9092", value_name = "HOST:PORT")]
    pub(crate) brokers: String,
    /// Start an embedded broker instead, which holds about 20,000 events: enough to try it, not to compare
    #[arg(long, conflicts_with_all = ["brokers", "topic", "also", "once"])]
    pub(crate) embedded: bool,
    /// Events of the new topic [default: 2000000, or what the embedded broker holds]
    #[arg(long)]
    pub(crate) events: Option<u64>,
    /// Drain this topic as it is, instead of a new one
    #[arg(long, conflicts_with_all = ["events", "file", "partitions", "also"])]
    pub(crate) topic: Option<String>,
    /// Partitions of the new topic
    #[arg(long, default_value_t = 4)]
    pub(crate) partitions: i32,
    /// Fill the topic with the lines of this file, repeated with new ids, instead of generated events
    #[arg(long, value_name = "EVENTS.JSONL")]
    pub(crate) file: Option<PathBuf>,
    /// The folder of the tables, which must be new or empty [default: a temporary one, which is deleted]
    #[arg(long, value_name = "FOLDER", requires = "once")]
    pub(crate) out: Option<PathBuf>,
    /// How often the topic is drained with each kind of transforms; the medians are reported
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: u32,
    /// What else to measure: names, separated by commas, or `all`
    #[arg(long, value_delimiter = ',', value_name = "WHAT")]
    pub(crate) also: Vec<Measurement>,
    /// How long each measurement of a running silverd takes, in seconds
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(5..))]
    pub(crate) seconds: u64,
    /// What fills the Silver tables
    #[arg(long, value_enum, default_value_t = Transforms::Wasm, requires = "once")]
    pub(crate) transforms: Transforms,
    /// How files are compressed, instead of what pipeline.toml says
    #[arg(long, value_enum)]
    pub(crate) codec: Option<Codec>,
    /// Drain once, in this process, and report this drain alone
    #[arg(long)]
    pub(crate) once: bool,
    /// Run until stopped, as `silverd run` does
    #[arg(long, hide = true, requires = "once")]
    pub(crate) serve: bool,
    /// The commit interval of --serve, in milliseconds
    #[arg(long, hide = true, requires = "serve")]
    pub(crate) interval_ms: Option<u64>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub(crate) json: bool,
    /// The name of the topic to fill; `None`: a new name
    #[arg(skip)]
    pub(crate) topic_name: Option<String>,
}

/// What fills the Silver tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Transforms {
    /// The plugins, in WebAssembly
    Wasm,
    /// The same functions, linked into this program
    Native,
    /// Nothing: only Bronze is written
    None,
}

/// A measurement besides the drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Measurement {
    All,
    /// Topics of 1, 2 and 4 partitions
    Partitions,
    /// Files compressed with zstd, snappy, lz4, and uncompressed
    Codecs,
    /// Events of 100 bytes to 10 kB
    Sizes,
    /// From sending an event to a row that others can read, at 1,000 events per second
    Latency,
    /// From the start of the process to its first commits
    Start,
    /// Memory at 100 events per second
    Idle,
}

/// How files are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Codec {
    Zstd,
    Snappy,
    Lz4,
    None,
}

impl Codec {
    pub(crate) const ALL: [Self; 4] = [Self::Zstd, Self::Snappy, Self::Lz4, Self::None];

    pub(crate) fn compression(self) -> Compression {
        match self {
            Self::Zstd => Compression::Zstd(1),
            Self::Snappy => Compression::Snappy,
            Self::Lz4 => Compression::Lz4,
            Self::None => Compression::Uncompressed,
        }
    }
}

/// The name of a value on the command line.
pub(crate) fn name_of(value: impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

impl BenchArgs {
    pub(crate) fn wants(&self, what: Measurement) -> bool {
        self.also.contains(&Measurement::All) || self.also.contains(&what)
    }

    pub(crate) fn topic_spec(&self) -> TopicSpec {
        TopicSpec {
            brokers: self.brokers.clone(),
            name: self.topic_name.clone(),
            events: self.events.unwrap_or(EVENTS),
            partitions: self.partitions,
            file: self.file.clone(),
            event_bytes: None,
        }
    }
}
