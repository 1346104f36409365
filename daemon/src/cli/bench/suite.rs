//! All that is measured, one thing after the other, and told.

use std::path::Path;

use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::fill::Fill;
use super::{Also, BenchArgs, Drain, Transforms, drain, live};

/// Of the variants a single drain is measured, of a part of the events.
const VARIANT_SHARE: u64 = 4;
/// And of so many bytes at most.
const VARIANT_BYTES_MAX: u64 = 500_000_000;

type Report = Map<String, Value>;

pub(super) async fn run(config: &Path, args: &BenchArgs, stop: &CancellationToken) -> anyhow::Result<Report> {
    let suite = Suite { config, args, stop };
    let mut report = suite.drains().await?;
    let mut variants = Map::new();
    if args.wants(Also::Partitions) {
        for partitions in [1, 2, 4] {
            let fill = Fill { partitions, ..suite.share() };
            suite.variant(&mut variants, &format!("{partitions} partitions"), &fill, None).await?;
        }
    }
    if args.wants(Also::Codecs) {
        let topic = suite.share().topic(stop).await?;
        for codec in ["zstd", "snappy", "lz4", "none"] {
            suite.drain_variant(&mut variants, &format!("codec {codec}"), &topic.name, Some(codec)).await?;
        }
        topic.delete().await?;
    }
    if args.wants(Also::Sizes) {
        for bytes in [100, 300, 1_000, 3_000, 10_000_usize] {
            let events = suite.share().events.min(VARIANT_BYTES_MAX / bytes as u64);
            let fill = Fill { events, file: None, event_bytes: Some(bytes), ..suite.share() };
            suite.variant(&mut variants, &format!("events of {bytes} B"), &fill, None).await?;
        }
    }
    if !variants.is_empty() {
        report.insert("variants".to_owned(), Value::Object(variants));
    }
    for (what, name) in [(Also::Latency, "latency"), (Also::Start, "start"), (Also::Idle, "idle")] {
        if args.wants(what) {
            let measured = match what {
                Also::Latency => live::latency(config, args, stop).await?,
                Also::Start => live::start(config, args, stop).await?,
                _ => live::idle(config, args, stop).await?,
            };
            suite.say(&format!("{name}: {measured}"));
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
    /// The drain itself, with WebAssembly and without, in turns: what else the machine does then meets both.
    async fn drains(&self) -> anyhow::Result<Report> {
        if let Some(topic) = &self.args.topic {
            return self.drains_of(topic).await;
        }
        let topic = self.args.fill().topic(self.stop).await?;
        let report = self.drains_of(&topic.name).await?;
        topic.delete().await?;
        Ok(report)
    }

    async fn drains_of(&self, topic: &str) -> anyhow::Result<Report> {
        let (mut wasm, mut native, mut bronze) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.args.runs {
            wasm.push(self.drain(topic, Transforms::Wasm, self.args.codec.as_deref()).await?);
            native.push(self.drain(topic, Transforms::Native, self.args.codec.as_deref()).await?);
            bronze.push(self.drain(topic, Transforms::None, self.args.codec.as_deref()).await?);
        }
        for (wasm, native) in wasm.iter().zip(&native) {
            anyhow::ensure!(rows(wasm) == rows(native), "WebAssembly and native functions give different rows");
        }
        let runs: Vec<f64> = wasm.iter().map(rate).collect();
        let peak = wasm.iter().filter_map(|report| report["peak_rss_mib"].as_u64()).max();
        let (mut report, native, bronze) = (median(wasm), median(native), median(bronze));
        let cpu_tax = cpu(&report) / cpu(&native);
        if !self.args.json {
            drain::print(&report);
        }
        let tax = rate(&native) / rate(&report);
        self.say(&format!(
            "{:>12.0} events/s with native functions instead of WebAssembly: a tax of {tax:.2}",
            rate(&native)
        ));
        self.say(&format!("{:>12.0} events/s into Bronze alone", rate(&bronze)));
        report.insert("wasm_tax".to_owned(), json!(tax));
        report.insert("wasm_cpu_tax".to_owned(), json!(cpu_tax));
        report.insert("peak_rss_mib".to_owned(), json!(peak));
        report.insert("runs".to_owned(), json!(runs));
        report.insert("native".to_owned(), short(&native));
        report.insert("bronze_only".to_owned(), short(&bronze));
        Ok(report)
    }

    fn share(&self) -> Fill {
        let mut fill = self.args.fill();
        fill.events = (fill.events / VARIANT_SHARE).max(1);
        fill
    }

    async fn variant(&self, to: &mut Report, name: &str, fill: &Fill, codec: Option<&str>) -> anyhow::Result<()> {
        let topic = fill.topic(self.stop).await?;
        self.drain_variant(to, name, &topic.name, codec).await?;
        topic.delete().await
    }

    async fn drain_variant(&self, to: &mut Report, name: &str, topic: &str, codec: Option<&str>) -> anyhow::Result<()> {
        let report = self.drain(topic, Transforms::Wasm, codec.or(self.args.codec.as_deref())).await?;
        let (megabytes, peak) = (report["megabytes_per_second"].as_f64().unwrap_or_default(), &report["peak_rss_mib"]);
        let stored = report["tables"]["bronze"]["bytes"].as_f64().unwrap_or_default() / 1e6;
        self.say(&format!(
            "{name:<16} {:>10.0} events/s {megabytes:>6.0} MB/s   peak RSS {peak} MiB   {stored:.1} MB in Bronze",
            rate(&report)
        ));
        to.insert(name.to_owned(), short(&report));
        Ok(())
    }

    async fn drain(&self, topic: &str, transforms: Transforms, codec: Option<&str>) -> anyhow::Result<Report> {
        anyhow::ensure!(!self.stop.is_cancelled(), "told to stop");
        let (config, brokers) = (self.config, self.args.brokers.as_str());
        Drain { config, brokers, topic, transforms, codec }.run().await
    }

    fn say(&self, line: &str) {
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

/// The run whose rate is the median one.
fn median(mut runs: Vec<Report>) -> Report {
    runs.sort_by(|a, b| rate(a).total_cmp(&rate(b)));
    let middle = runs.len() / 2;
    runs.swap_remove(middle)
}

fn rows(report: &Report) -> Vec<(String, u64)> {
    let tables = report["tables"].as_object().into_iter().flatten();
    tables.map(|(name, table)| (name.clone(), table["rows"].as_u64().unwrap_or_default())).collect()
}

fn short(report: &Report) -> Value {
    let names = ["events", "seconds", "events_per_second", "megabytes_per_second", "cpu_seconds", "peak_rss_mib"];
    let mut short: Report = names.iter().map(|name| ((*name).to_owned(), report[*name].clone())).collect();
    short.insert("bronze_bytes".to_owned(), report["tables"]["bronze"]["bytes"].clone());
    Value::Object(short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_run_is_the_one_in_the_middle() {
        let run = |rate: u64| Report::from_iter([("events_per_second".to_owned(), json!(rate))]);
        assert_eq!(rate(&median(vec![run(9), run(1), run(5)])), 5.0);
        assert_eq!(rate(&median(vec![run(3)])), 3.0);
    }
}
