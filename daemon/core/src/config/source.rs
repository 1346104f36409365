//! `[source]` and `[source.kafka]`: where events come from.

use std::collections::BTreeMap;

use toml::de::DeValue;

use super::error::ConfigError;
use super::literal;
use super::pipeline::{OnDataLoss, Secret, Source, Start};
use super::read;
use super::section::Root;
use super::topics;
use super::value::{Key, Value, in_file_order, wrong_type};
use super::walk::Walk;

/// librdkafka properties that silverd sets: why, and what to do instead.
const OWN: [(&[&str], &str, &str); 5] = [
    (
        &["bootstrap.servers", "metadata.broker.list"],
        "silverd sets it from `brokers`",
        "write the brokers as `brokers` in [source]",
    ),
    (&["group.id"], "silverd sets it from `group`", "write the group as `group` in [source]"),
    (
        &["enable.auto.commit", "auto.commit.enable", "enable.auto.offset.store"],
        "silverd keeps the offsets in the Delta tables, with the rows",
        "remove this line: progress is committed with the data, never by a timer",
    ),
    (
        &["auto.offset.reset"],
        "silverd sets it: it decides itself where to resume",
        "write `start = \"earliest\"` or `start = \"latest\"` in [source] for new partitions, and \
         `on_data_loss = \"fail\"` or `on_data_loss = \"skip\"` for offsets that Kafka has deleted",
    ),
    (&["enable.partition.eof"], "silverd sets it, to know when it has caught up", "remove this line"),
];

pub(super) fn source(walk: &mut Walk, root: &Root) -> Option<Source> {
    let section = root.source(walk)?;
    let example = "brokers = \"localhost:9092\"";
    let brokers = section.required(walk, "brokers", example, read::parsed(literal::brokers));
    let topics = topics::topics(walk, &section);
    let group = section.optional(walk, "group", read::expanded);
    let start = section.optional(
        walk,
        "start",
        read::choice("start", [("earliest", Start::Earliest), ("latest", Start::Latest)]),
    );
    let choices = [("fail", OnDataLoss::Fail), ("skip", OnDataLoss::Skip)];
    let on_data_loss = section.optional(walk, "on_data_loss", read::choice("on_data_loss", choices));
    let kafka = section.optional(walk, "kafka", kafka);
    Some(Source {
        brokers: brokers?,
        topics: topics?,
        group: group.unwrap_or_else(|| "silverd".to_owned()),
        start: start.unwrap_or_default(),
        on_data_loss: on_data_loss.unwrap_or_default(),
        kafka: kafka.unwrap_or_default(),
    })
}

fn kafka(walk: &mut Walk, value: Value) -> Option<BTreeMap<String, Secret>> {
    if !value.get_ref().is_table() {
        let help = "write [source.kafka] on a line of its own, and the properties below it";
        walk.report(wrong_type("source.kafka", "a table", value).with_help(help));
        return None;
    }
    let mut properties = BTreeMap::new();
    flatten(walk, "", value, &mut properties);
    Some(properties)
}

/// In TOML, `security.protocol = "SSL"` without quotes is a table; here it is the property of that name.
fn flatten(walk: &mut Walk, prefix: &str, value: Value, properties: &mut BTreeMap<String, Secret>) {
    let Some(table) = value.get_ref().as_table() else { return };
    for (key, value) in in_file_order(table) {
        let name = if prefix.is_empty() { key.to_string() } else { format!("{prefix}.{key}") };
        if let DeValue::Table(_) = value.get_ref() {
            flatten(walk, &name, value, properties);
        } else {
            property(walk, name, key, value, properties);
        }
    }
}

fn property(walk: &mut Walk, name: String, key: Key, value: Value, properties: &mut BTreeMap<String, Secret>) {
    if let Some((_, why, instead)) = OWN.iter().find(|(names, ..)| names.contains(&name.as_str())) {
        let what = format!("the property `{name}` cannot be set here");
        walk.report(ConfigError::new(key.span(), what, *why, Some((*instead).to_owned())));
        return;
    }
    let Some(text) = read::scalar(walk, value) else { return };
    if properties.insert(name.clone(), Secret::new(text)).is_some() {
        let help = "keep one of the two: with and without quotes, it is the same property".to_owned();
        let what = format!("the property `{name}` is set twice");
        walk.report(ConfigError::new(key.span(), what, "set a second time", Some(help)));
    }
}
