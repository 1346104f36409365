//! The end of a run: Bronze is the topic, Silver is what the plugins make of Bronze, and no daemon has panicked.
//!
//! A wrong clock changes what Bronze has as `ingested_at`, and so which events are late. Both are compared with each other,
//! and not with the true time: `ingested_at` is a part of Bronze, and Silver is a function of it.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use futures::TryStreamExt;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use silverd::delta::{TableReader, read_columns};
use silverd::maintenance::{MaintainedTable, TableKind};
use silverd_core::chunk::column;
use silverd_core::config::Compression;

use super::events::Sent;
use super::fleet::Fleet;
use super::kafka::Kafka;
use super::project::Project;
use super::run::PARTITIONS;

const DRAIN_MAX: Duration = Duration::from_secs(600);
const VERIFY_MAX: Duration = Duration::from_secs(1_800);
const TOPIC_MAX: Duration = Duration::from_secs(300);
/// Offsets that a violation names.
const NAMED_MAX: usize = 5;

/// The records of each partition: the offset, and a hash of the key and the value. Sorted.
type Records = BTreeMap<i32, Vec<(i64, u64)>>;

/// What is wrong with the tables, after a drain.
pub(super) async fn check(
    project: &Project,
    fleet: &Fleet,
    kafka: &Kafka,
    topic: &str,
    sent: Sent,
) -> anyhow::Result<Vec<String>> {
    let mut violations = Vec::new();
    let status = finish(fleet, "drain", &["run", "--drain"], Stdio::null(), DRAIN_MAX).await?;
    if !status.success() {
        violations.push(format!("`silverd run --drain` ended with {status}"));
    }
    let (address, name) = (kafka.address().to_owned(), topic.to_owned());
    let produced = tokio::task::spawn_blocking(move || read_topic(&address, &name)).await??;
    let in_topic = produced.values().map(Vec::len).sum::<usize>() as u64;
    if !(sent.confirmed..=sent.confirmed + sent.uncertain).contains(&in_topic) {
        violations.push(format!(
            "Kafka has {in_topic} events, and confirmed {}; of {} more it is not known",
            sent.confirmed, sent.uncertain
        ));
    }
    violations.extend(differences(&produced, &read_bronze(&project.bronze()).await?));
    let report = project.folder.join("verify.json");
    let file = std::fs::File::create(&report).context("create verify.json")?;
    let status = finish(fleet, "verify", &["verify", "--deep", "--json"], file.into(), VERIFY_MAX).await?;
    if !status.success() {
        violations.push(format!("`silverd verify --deep` ended with {status}: {}", report.display()));
    }
    violations.extend(panics_in(&fleet.logs())?);
    Ok(violations)
}

/// Runs a command to its end.
async fn finish(
    fleet: &Fleet,
    name: &str,
    arguments: &[&str],
    output: Stdio,
    limit: Duration,
) -> anyhow::Result<ExitStatus> {
    let mut command = fleet.command(arguments, &fleet.logs().join(name))?;
    let mut child = command.stdout(output).spawn().with_context(|| format!("start silverd {name}"))?;
    let ended = tokio::time::timeout(limit, child.wait()).await;
    ended
        .with_context(|| format!("silverd {name} did not end within {} s", limit.as_secs()))?
        .context("wait for silverd")
}

fn hash_of(key: Option<&[u8]>, value: Option<&[u8]>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key, value).hash(&mut hasher);
    hasher.finish()
}

/// All records of the topic, by a plain consumer.
fn read_topic(brokers: &str, topic: &str) -> anyhow::Result<Records> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", "silverd-chaos").set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.set("enable.auto.commit", "false").create().context("set up a consumer")?;
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&all)?;
    let (mut records, mut at_end) = (Records::new(), BTreeSet::new());
    let deadline = Instant::now() + TOPIC_MAX;
    while at_end.len() < PARTITIONS as usize {
        if Instant::now() > deadline {
            bail!("the topic could not be read to its end within {} s", TOPIC_MAX.as_secs());
        }
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let hash = hash_of(message.key(), message.payload());
                records.entry(message.partition()).or_default().push((message.offset(), hash));
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(at_end.insert(partition)),
            Some(Err(failure)) => eprintln!("read the topic: {failure}"),
            None => {}
        }
    }
    records.values_mut().for_each(|records| records.sort_unstable());
    Ok(records)
}

/// All rows of Bronze, by its newest version.
async fn read_bronze(path: &Path) -> anyhow::Result<Records> {
    let table = MaintainedTable::new("bronze", path.to_path_buf(), TableKind::Bronze, Compression::default());
    let (_, files) = table.open().await?.context("there is no Bronze table")?;
    let reader = TableReader::open(path)?.context("there is no Bronze table")?;
    let mut records = Records::new();
    for file in files {
        let names = [column::PARTITION, column::OFFSET, column::KEY, column::VALUE];
        let mut columns = read_columns(reader.log().object_store(None), &file, Some(&names)).await?;
        while let Some(batch) = columns.batches.try_next().await? {
            add_rows(&batch, &mut records).with_context(|| format!("read {}", file.path))?;
        }
    }
    records.values_mut().for_each(|records| records.sort_unstable());
    Ok(records)
}

fn add_rows(batch: &RecordBatch, records: &mut Records) -> anyhow::Result<()> {
    let column = |name: &str| batch.column_by_name(name).with_context(|| format!("there is no column {name}"));
    let partitions = column(column::PARTITION)?.as_primitive_opt::<Int32Type>().context("partition is no integer")?;
    let offsets = column(column::OFFSET)?.as_primitive_opt::<Int64Type>().context("offset is no long")?;
    let keys = column(column::KEY)?.as_binary_opt::<i32>().context("key is not binary")?;
    let values = column(column::VALUE)?.as_binary_opt::<i32>().context("value is not binary")?;
    for row in 0..batch.num_rows() {
        let key = keys.is_valid(row).then(|| keys.value(row));
        let value = values.is_valid(row).then(|| values.value(row));
        let record = (offsets.value(row), hash_of(key, value));
        records.entry(partitions.value(row)).or_default().push(record);
    }
    Ok(())
}

/// Where Bronze is not the topic, by partition.
fn differences(topic: &Records, bronze: &Records) -> Vec<String> {
    let mut found = Vec::new();
    let partitions: BTreeSet<i32> = topic.keys().chain(bronze.keys()).copied().collect();
    for partition in partitions {
        let records = |of: &Records| of.get(&partition).cloned().unwrap_or_default();
        let (sent, rows) = (records(topic), records(bronze));
        let (sent_once, rows_once): (BTreeMap<i64, u64>, BTreeMap<i64, u64>) =
            (sent.iter().copied().collect(), rows.iter().copied().collect());
        let twice = rows.windows(2).filter(|pair| pair[0].0 == pair[1].0).map(|pair| pair[0].0);
        let lacks = sent_once.keys().filter(|offset| !rows_once.contains_key(*offset)).copied();
        let other = rows_once.keys().filter(|offset| !sent_once.contains_key(*offset)).copied();
        let changed = sent_once.iter().filter(|(offset, hash)| rows_once.get(*offset).is_some_and(|row| row != *hash));
        let changed = changed.map(|(offset, _)| *offset);
        for (what, offsets) in [
            ("has twice", twice.collect::<Vec<_>>()),
            ("lacks", lacks.collect()),
            ("has, and Kafka has not,", other.collect()),
            ("has with another key or value", changed.collect()),
        ] {
            if !offsets.is_empty() {
                let named = &offsets[..offsets.len().min(NAMED_MAX)];
                found.push(format!("Bronze {what} {} events of partition {partition}: {named:?}", offsets.len()));
            }
        }
    }
    found
}

/// The logs in which a panic is.
fn panics_in(logs: &Path) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(logs).with_context(|| format!("read {}", logs.display()))? {
        let path = entry?.path();
        let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        if let Some(line) = String::from_utf8_lossy(&bytes).lines().find(|line| line.contains("panicked")) {
            found.push(format!("a panic in {}: {line}", path.display()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(of: &[(i32, &[(i64, u64)])]) -> Records {
        of.iter().map(|(partition, records)| (*partition, records.to_vec())).collect()
    }

    #[test]
    fn every_difference_is_named() {
        let topic = records(&[(0, &[(0, 10), (1, 11), (2, 12)]), (1, &[(0, 20)])]);
        let check = |bronze: &[(i32, &[(i64, u64)])], expected: &[&str]| {
            assert_eq!(differences(&topic, &records(bronze)), expected);
        };
        check(&[(0, &[(0, 10), (1, 11), (2, 12)]), (1, &[(0, 20)])], &[]);
        check(
            &[(0, &[(0, 10), (0, 10), (2, 13), (3, 14)]), (1, &[(0, 20)])],
            &[
                "Bronze has twice 1 events of partition 0: [0]",
                "Bronze lacks 1 events of partition 0: [1]",
                "Bronze has, and Kafka has not, 1 events of partition 0: [3]",
                "Bronze has with another key or value 1 events of partition 0: [2]",
            ],
        );
        check(&[(0, &[(0, 10), (1, 11), (2, 12)])], &["Bronze lacks 1 events of partition 1: [0]"]);
    }

    #[test]
    fn no_value_is_not_an_empty_value() {
        assert_ne!(hash_of(None, None), hash_of(None, Some(b"")));
        assert_ne!(hash_of(Some(b"a"), Some(b"")), hash_of(Some(b""), Some(b"a")));
        assert_eq!(hash_of(Some(b"a"), None), hash_of(Some(b"a"), None));
    }
}
