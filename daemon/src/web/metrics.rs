//! `/metrics`, in Prometheus' text format. Every name stands in README.md, and begins with `silverd_`.

use std::fmt::{Display, Write};

use super::health::{Health, Partition, Table};
use crate::gold;
use crate::maintenance::Shown;
use crate::telemetry::{STAGES, Stages};

/// Builds the text: one family after the other, each with its help and type.
#[derive(Default)]
pub struct Metrics(String);

impl Metrics {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP silverd_{name} {help}\n# TYPE silverd_{name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "silverd_{name}{labels} {value}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn each_table<V: Display>(
        &mut self,
        health: &Health,
        (name, kind, help): (&str, &str, &str),
        of: impl Fn(&Table) -> Option<V>,
    ) {
        self.family(name, kind, help);
        for table in &health.tables {
            if let Some(value) = of(table) {
                self.sample(name, &[("table", &table.name)], value);
            }
        }
    }

    fn each_gold<V: Display>(
        &mut self,
        health: &Health,
        (name, kind, help): (&str, &str, &str),
        of: impl Fn(&gold::Shown) -> Option<V>,
    ) {
        if !health.gold.is_empty() {
            self.family(name, kind, help);
        }
        for table in &health.gold {
            if let Some(value) = of(table) {
                self.sample(name, &[("table", &table.name)], value);
            }
        }
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

pub fn text(health: &Health, stages: Option<&Stages>) -> String {
    let mut metrics = Metrics::default();
    process(&mut metrics, health);
    tables(&mut metrics, health);
    if let Some(stages) = stages {
        metrics.family(
            "stage_seconds_total",
            "counter",
            "CPU time of each stage; of commits, time by the wall's clock.",
        );
        for (stage, name) in STAGES {
            metrics.sample("stage_seconds_total", &[("stage", name)], stages.seconds(stage));
        }
    }
    plugins(&mut metrics, health);
    gold(&mut metrics, health);
    maintenance(&mut metrics, health);
    metrics.0
}

fn process(metrics: &mut Metrics, health: &Health) {
    metrics.family("build_info", "gauge", "Always 1; the version is a label.");
    metrics.sample("build_info", &[("version", health.version)], 1);
    let uptime = (health.at_ms - health.started_at_ms) as f64 / 1000.0;
    metrics.one("uptime_seconds", "gauge", "Since the start of the process.", uptime);
    metrics.one(
        "running",
        "gauge",
        "1 once the tables are open and the topic is read.",
        u8::from(health.state == "running"),
    );
    metrics.one("resident_memory_bytes", "gauge", "Resident set of the process.", health.memory_bytes);
    metrics.one("resident_memory_peak_bytes", "gauge", "The largest it was.", health.memory_peak_bytes);
    metrics.one("cpu_seconds_total", "counter", "CPU time of the process.", health.cpu_seconds);
    metrics.one("page_watchers", "gauge", "Pages that are open.", health.watchers);
    metrics.one("unrouted_events_total", "counter", "Events that no Silver table takes.", health.unrouted);
    metrics.one("lag_events", "gauge", "Offsets that Kafka has and Bronze has not.", health.lag);
    let lag: fn(&Partition) -> i64 = |partition| partition.lag;
    let end: fn(&Partition) -> i64 = |partition| partition.end;
    for (name, help, of) in [
        ("partition_lag_events", "The same, of each partition.", lag),
        ("partition_end_offset", "Where each partition ends in Kafka.", end),
    ] {
        metrics.family(name, "gauge", help);
        for partition in &health.partitions {
            let number = partition.partition.to_string();
            metrics.sample(name, &[("topic", &partition.topic), ("partition", &number)], of(partition));
        }
    }
}

fn tables(metrics: &mut Metrics, health: &Health) {
    let counter = |name, help| (name, "counter", help);
    let gauge = |name, help| (name, "gauge", help);
    let seconds = |ms: f64| ms / 1000.0;
    metrics.each_table(health, counter("events_total", "Events that came to the table."), |t| Some(t.events));
    metrics.each_table(health, counter("rows_total", "Rows committed."), |t| Some(t.rows));
    metrics.each_table(health, counter("rejected_total", "Events that went to the quarantine."), |t| Some(t.rejected));
    metrics
        .each_table(health, counter("dropped_total", "Events that the plugin gave no row for."), |t| Some(t.dropped));
    metrics.each_table(health, counter("commits_total", "Commits."), |t| Some(t.commits));
    metrics.each_table(health, counter("files_written_total", "Files committed."), |t| Some(t.files_written));
    metrics.each_table(health, counter("bytes_written_total", "Their bytes."), |t| Some(t.bytes_written));
    metrics.each_table(health, gauge("table_version", "Version of the last commit."), |t| {
        (t.commits > 0).then_some(t.version)
    });
    metrics.each_table(
        health,
        gauge("table_lag_events", "Events that Bronze has (Kafka, for Bronze) and the table has not."),
        |t| Some(t.lag),
    );
    metrics.each_table(health, gauge("table_up", "0 while the table cannot be written, and waits."), |t| {
        Some(u8::from(t.works))
    });
    metrics.each_table(health, gauge("last_commit_timestamp_seconds", "When the last commit was."), |t| {
        t.committed_at_ms.map(|ms| seconds(ms as f64))
    });
    metrics.each_table(
        health,
        gauge("newest_event_timestamp_seconds", "When silverd took the newest event that gave a row."),
        |t| t.newest_at_ms.map(|ms| seconds(ms as f64)),
    );
    metrics.each_table(
        health,
        gauge("delay_seconds", "From Kafka to the commit, of the last commit's oldest event."),
        |t| t.delay_ms.map(|ms| seconds(ms as f64)),
    );
    metrics.each_table(health, gauge("commit_seconds_last", "How long the last commit took."), |t| {
        Some(seconds(t.commit_ms_last))
    });
    metrics.each_table(health, gauge("commit_seconds_max", "How long the longest took."), |t| {
        Some(seconds(t.commit_ms_max))
    });
    metrics.each_table(health, counter("commit_seconds_total", "How long all took."), |t| {
        Some(seconds(t.commit_ms_mean * t.commits as f64))
    });
}

fn plugins(metrics: &mut Metrics, health: &Health) {
    metrics.family("plugin_info", "gauge", "Always 1; what fills the table is in the labels.");
    for plugin in &health.plugins {
        if let (Some(interface), Some(digest)) = (&plugin.interface, &plugin.digest) {
            let labels = [("table", plugin.table.as_str()), ("interface", interface), ("digest", digest)];
            metrics.sample("plugin_info", &labels, 1);
        }
    }
    metrics.family("plugin_swaps_total", "counter", "How often a new version took the place of another.");
    for plugin in &health.plugins {
        metrics.sample("plugin_swaps_total", &[("table", &plugin.table)], plugin.swaps);
    }
    metrics.family("plugin_swap_seconds_max", "gauge", "For how long the table stood still for a swap, at most.");
    for plugin in &health.plugins {
        if let Some(ms) = plugin.swap_ms_max {
            metrics.sample("plugin_swap_seconds_max", &[("table", &plugin.table)], format!("{:e}", ms / 1e3));
        }
    }
    metrics.family("plugin_refused", "gauge", "1 while the newest version of the plugin stays out.");
    for plugin in &health.plugins {
        metrics.sample("plugin_refused", &[("table", &plugin.table)], u8::from(plugin.refused.is_some()));
    }
    metrics.family("plugin_event_seconds", "gauge", "CPU time of the plugin and the lift for one event, on average.");
    for plugin in &health.plugins {
        if let Some(nanos) = plugin.ns_per_event {
            metrics.sample("plugin_event_seconds", &[("table", &plugin.table)], format!("{:e}", nanos / 1e9));
        }
    }
}

fn gold(metrics: &mut Metrics, health: &Health) {
    metrics.each_gold(health, ("gold_up", "gauge", "0 while the Gold table's SQL fails."), |t| {
        Some(u8::from(t.state != "failing"))
    });
    metrics.each_gold(health, ("gold_commits_total", "counter", "Commits of the Gold table."), |t| Some(t.commits));
    metrics.each_gold(
        health,
        ("gold_refreshed_timestamp_seconds", "gauge", "When it was last found or made up to date."),
        |t| t.refreshed_at_ms.map(|ms| ms as f64 / 1000.0),
    );
    metrics.each_gold(health, ("gold_refresh_seconds", "gauge", "How long it took to make the last days anew."), |t| {
        Some(t.took_ms as f64 / 1000.0)
    });
}

fn maintenance(metrics: &mut Metrics, health: &Health) {
    type Family = (&'static str, &'static str, &'static str, fn(&Shown) -> u64);
    let families: [Family; 6] = [
        (
            "maintenance_up",
            "gauge",
            "0 while the table's small files cannot be merged, or its old ones removed.",
            |t| u64::from(!matches!(t.state, "paused" | "failing")),
        ),
        ("merges_total", "counter", "Files that were made of small ones.", |t| t.merges),
        ("files_merged_total", "counter", "Small files that were merged.", |t| t.files_merged),
        ("bytes_merged_total", "counter", "Their bytes.", |t| t.bytes_merged),
        ("files_removed_total", "counter", "Data files removed that no version has any more.", |t| t.files_removed),
        ("log_files_removed_total", "counter", "Old entries and checkpoints removed from the log.", |t| {
            t.log_files_removed
        }),
    ];
    for (name, kind, help, of) in families {
        if !health.maintenance.is_empty() {
            metrics.family(name, kind, help);
        }
        for table in &health.maintenance {
            metrics.sample(name, &[("table", &table.table)], of(table));
        }
    }
}
