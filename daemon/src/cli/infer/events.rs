//! Where the events come from: a topic, Bronze, or a file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use silverd_core::config::{self, OnDataLoss, Start, Topics};
use silverd_core::infer::{Event, Newest, Place};
use tokio_util::sync::CancellationToken;

use crate::app::setup::Setup;
use crate::app::wrong_use;
use crate::bronze::newest_events;
use crate::source;

/// The most bytes of events in memory.
const BYTES_MAX: usize = 64 << 20;

/// Where to look for events.
pub(in crate::cli) enum EventSource {
    File(PathBuf),
    /// The events of a topic, or of all.
    Bronze {
        topic: Option<String>,
    },
    /// The topic of pipeline.toml, or another one; with brokers, pipeline.toml is not read.
    Topic {
        topic: Option<String>,
        brokers: Option<String>,
    },
}

/// Events to look at, the oldest first. At least one.
pub(in crate::cli) struct Events {
    pub(in crate::cli) events: Vec<Event>,
    /// What they are the events of, for messages.
    pub(in crate::cli) origin: String,
    /// Why there are not as many as there could be.
    pub(in crate::cli) notes: Vec<String>,
}

impl Events {
    /// Reads the newest events.
    pub(in crate::cli) async fn read(
        config: &Path,
        from: &EventSource,
        count: usize,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        let mut newest = Newest::new(count, BYTES_MAX);
        let mut notes = Vec::new();
        let origin = match from {
            EventSource::File(file) => tokio::task::block_in_place(|| read_file(file, &mut newest))?,
            EventSource::Bronze { topic } => read_bronze(&Setup::read(config)?, topic.as_deref(), &mut newest).await?,
            EventSource::Topic { topic, brokers } => {
                let (source, topic) = source_of(config, topic.as_deref(), brokers.as_deref())?;
                let read = || source::newest_events(&source, &topic, &mut newest, &stop);
                let unread = tokio::task::block_in_place(read)?;
                notes.extend(unread_note(&unread));
                format!("topic {topic}")
            }
        };
        if newest.is_cut() {
            notes.push(format!("older events were left out: they have more than {} MiB together", BYTES_MAX >> 20));
        }
        let events = newest.into_events();
        ensure!(!events.is_empty(), "{origin} has no events");
        Ok(Self { events, origin, notes })
    }
}

fn unread_note(unread: &[i32]) -> Option<String> {
    let partitions: Vec<_> = unread.iter().map(i32::to_string).collect();
    let note = || format!("Kafka stopped giving events before the ends of these partitions: {}", partitions.join(", "));
    (!unread.is_empty()).then(note)
}

/// The brokers with their security, and the topic.
fn source_of(config: &Path, topic: Option<&str>, brokers: Option<&str>) -> anyhow::Result<(config::Source, String)> {
    if let (Some(brokers), Some(topic)) = (brokers, topic) {
        return Ok((unsecured(brokers, topic), topic.to_owned()));
    }
    let source = Setup::read(config)?.pipeline.source;
    let topic = match (topic, source.topics.single()) {
        (Some(topic), _) | (None, Some(topic)) => topic.to_owned(),
        (None, None) => wrong_use!(
            "{} reads several topics ({}): name one, as in `silverd infer TOPIC`, or look at all that were read with \
             --bronze",
            config.display(),
            source.topics
        ),
    };
    Ok((source, topic))
}

/// Brokers that need neither a password nor a certificate.
fn unsecured(brokers: &str, topic: &str) -> config::Source {
    config::Source {
        brokers: brokers.to_owned(),
        topics: Topics::one(topic),
        group: "silverd".to_owned(),
        start: Start::default(),
        on_data_loss: OnDataLoss::default(),
        kafka: BTreeMap::new(),
    }
}

async fn read_bronze(setup: &Setup, topic: Option<&str>, newest: &mut Newest) -> anyhow::Result<String> {
    let bronze = newest_events::open(&setup.base_dir.join(&**setup.pipeline.bronze.path))?;
    newest_events::add_newest(&bronze, topic, newest).await.context("read the newest events of bronze")?;
    Ok(topic.map_or_else(|| "bronze".to_owned(), |topic| format!("topic {topic} in bronze")))
}

fn read_file(file: &Path, newest: &mut Newest) -> anyhow::Result<String> {
    if file == Path::new("-") {
        read_lines(&mut io::stdin().lock(), newest).context("read standard input")?;
        return Ok("standard input".to_owned());
    }
    let name = file.display().to_string();
    match File::open(file) {
        Ok(opened) => read_lines(&mut BufReader::new(opened), newest).with_context(|| format!("read {name}"))?,
        Err(error) if error.kind() == ErrorKind::NotFound => wrong_use!("--file {name}: there is no such file"),
        Err(error) => return Err(error).with_context(|| format!("open {name}")),
    }
    Ok(name)
}

fn read_lines(lines: &mut impl BufRead, newest: &mut Newest) -> anyhow::Result<()> {
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        // One byte more than a line may have, so that a longer one is noticed.
        let length = lines.by_ref().take(BYTES_MAX as u64 + 1).read_until(b'\n', &mut line)?;
        if length == 0 {
            break;
        }
        ensure!(
            length <= BYTES_MAX,
            "line {number} has more than {} MiB: expected one event per line",
            BYTES_MAX >> 20
        );
        let value = line.strip_suffix(b"\n").unwrap_or(&line);
        let value = value.strip_suffix(b"\r").unwrap_or(value).to_vec();
        let place = Place { topic: None, partition: None, offset: number };
        newest.add(0, Event { place, value: Some(value), ..Event::default() });
    }
    Ok(())
}
