//! Runs all measurements that were asked for, one after the other, and reports them.

use std::path::Path;

use anyhow::ensure;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::args::{BenchArgs, Codec, Measurement, Transforms, name_of};
use crate::drain_process::DrainProcess;
use crate::topic::TopicSpec;
use crate::{drain, running};

/// A variant is measured by one drain of this fraction of the events.
const VARIANT_FRACTION: u64 = 4;
const VARIANT_BYTES_MAX: u64 = 500_000_000;

type Report = Map<String, Value>;

pub(crate) async fn run(config: &Path, args: &BenchArgs, stop: &CancellationToken) -> anyhow::Result<Report> {
    let suite = Suite { config, args, stop };
    let mut report = suite.drains().await?;
    let mut variants = Map::new();
    if args.wants(Measurement::Partitions) {
        for partitions in [1, 2, 4] {
            let spec = TopicSpec { partitions, ..suite.variant_topic() };
            suite.variant(&mut variants, &format!("{partitions} partitions"), &spec).await?;
        }
    }
    if args.wants(Measurement::Codecs) {
        let topic = suite.variant_topic().create(stop).await?;
        for codec in Codec::ALL {
            let name = format!("codec {}", name_of(codec));
            suite.drain_variant(&mut variants, &name, &topic.name, Some(codec)).await?;
        }
        topic.delete().await?;
    }
    if args.wants(Measurement::Sizes) {
        for bytes in [100, 300, 1_000, 3_000, 10_000_usize] {
            let spec = suite.variant_topic();
            let events = spec.events.min(VARIANT_BYTES_MAX / bytes as u64);
            let spec = TopicSpec { events, file: None, event_bytes: Some(bytes), ..spec };
            suite.variant(&mut variants, &format!("events of {bytes} B"), &spec).await?;
        }
    }
    if !variants.is_empty() {
        report.insert("variants".to_owned(), Value::Object(variants));
    }
    for (what, name) in [(Measurement::Latency, "latency"), (Measurement::Start, "start"), (Measurement::Idle, "idle")]
    {
        if args.wants(what) {
            let measured = match what {
                Measurement::Latency => running::latency(config, args, stop).await?,
                Measurement::Start => running::start(config, args, stop).await?,
                _ => running::idle(config, args, stop).await?,
            };
            suite.print(&format!("{name}: {measured}"));
            report.insert(name.to_owned(), measured);
        }
    }
    Ok(report)
}

struct Suite<'a> {
    config: &'a Path,
    args: &'a BenchArgs,
    stop: &'a CancellationToken,
}

impl Suite<'_> {
    /// The drain with WebAssembly, with native functions, and of Bronze alone, in turns: other load on the machine then slows
    /// all three alike.
    async fn drains(&self) -> anyhow::Result<Report> {
        if let Some(topic) = &self.args.topic {
            return self.drains_of(topic).await;
        }
        let topic = self.args.topic_spec().create(self.stop).await?;
        let report = self.drains_of(&topic.name).await?;
        topic.delete().await?;
        Ok(report)
    }

    async fn drains_of(&self, topic: &str) -> anyhow::Result<Report> {
        let (mut wasm, mut native, mut bronze) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.args.runs {
            wasm.push(self.drain(topic, Transforms::Wasm, self.args.codec).await?);
            native.push(self.drain(topic, Transforms::Native, self.args.codec).await?);
            bronze.push(self.drain(topic, Transforms::None, self.args.codec).await?);
        }
        for (wasm, native) in wasm.iter().zip(&native) {
            ensure!(rows(wasm) == rows(native), "WebAssembly and native functions give different numbers of rows");
        }
        let runs: Vec<f64> = wasm.iter().map(rate).collect();
        let peak = wasm.iter().filter_map(|report| report["peak_rss_mib"].as_u64()).max();
        let (mut report, native, bronze) = (median(wasm), median(native), median(bronze));
        if !self.args.json {
            drain::print(&report);
        }
        let (wasm_tax, wasm_cpu_tax) = (rate(&native) / rate(&report), cpu(&report) / cpu(&native));
        self.print(&format!(
            "{:>12.0} events/s with native functions instead of WebAssembly: {wasm_tax:.2} times as many",
            rate(&native)
        ));
        self.print(&format!("{:>12.0} events/s into Bronze alone", rate(&bronze)));
        report.insert("wasm_tax".to_owned(), json!(wasm_tax));
        report.insert("wasm_cpu_tax".to_owned(), json!(wasm_cpu_tax));
        report.insert("peak_rss_mib".to_owned(), json!(peak));
        report.insert("runs".to_owned(), json!(runs));
        report.insert("native".to_owned(), summary(&native));
        report.insert("bronze_only".to_owned(), summary(&bronze));
        Ok(report)
    }

    /// The topic of a variant: as asked for, with fewer events.
    fn variant_topic(&self) -> TopicSpec {
        let spec = self.args.topic_spec();
        TopicSpec { events: (spec.events / VARIANT_FRACTION).max(1), ..spec }
    }

    async fn variant(&self, variants: &mut Report, name: &str, spec: &TopicSpec) -> anyhow::Result<()> {
        let topic = spec.create(self.stop).await?;
        self.drain_variant(variants, name, &topic.name, self.args.codec).await?;
        topic.delete().await
    }

    async fn drain_variant(
        &self,
        variants: &mut Report,
        name: &str,
        topic: &str,
        codec: Option<Codec>,
    ) -> anyhow::Result<()> {
        let report = self.drain(topic, Transforms::Wasm, codec).await?;
        let (megabytes, peak) = (report["megabytes_per_second"].as_f64().unwrap_or_default(), &report["peak_rss_mib"]);
        let stored = report["tables"]["bronze"]["bytes"].as_f64().unwrap_or_default() / 1e6;
        self.print(&format!(
            "{name:<16} {:>10.0} events/s {megabytes:>6.0} MB/s   peak RSS {peak} MiB   {stored:.1} MB in Bronze",
            rate(&report)
        ));
        variants.insert(name.to_owned(), summary(&report));
        Ok(())
    }

    async fn drain(&self, topic: &str, transforms: Transforms, codec: Option<Codec>) -> anyhow::Result<Report> {
        ensure!(!self.stop.is_cancelled(), "stopped before all drains were done");
        DrainProcess { config: self.config, brokers: &self.args.brokers, topic, transforms, codec }.run().await
    }

    fn print(&self, line: &str) {
        if !self.args.json {
            println!("{line}");
        }
    }
}

fn rate(report: &Report) -> f64 {
    report["events_per_second"].as_f64().unwrap_or_default()
}

fn cpu(report: &Report) -> f64 {
    report["cpu_seconds"].as_f64().unwrap_or_default()
}

/// The run with the median rate.
fn median(mut runs: Vec<Report>) -> Report {
    runs.sort_by(|a, b| rate(a).total_cmp(&rate(b)));
    let middle = runs.len() / 2;
    runs.swap_remove(middle)
}

fn rows(report: &Report) -> Vec<(String, u64)> {
    let tables = report["tables"].as_object().into_iter().flatten();
    tables.map(|(name, table)| (name.clone(), table["rows"].as_u64().unwrap_or_default())).collect()
}

fn summary(report: &Report) -> Value {
    let names = ["events", "seconds", "events_per_second", "megabytes_per_second", "cpu_seconds", "peak_rss_mib"];
    let mut summary: Report = names.iter().map(|name| ((*name).to_owned(), report[*name].clone())).collect();
    summary.insert("bronze_bytes".to_owned(), report["tables"]["bronze"]["bytes"].clone());
    Value::Object(summary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_run_with_the_middle_rate() {
        let run = |rate: u64| Report::from_iter([("events_per_second".to_owned(), json!(rate))]);
        assert_eq!(rate(&median(vec![run(9), run(1), run(5)])), 5.0);
        assert_eq!(rate(&median(vec![run(3)])), 3.0);
    }
}
