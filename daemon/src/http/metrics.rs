//! `/metrics` in the Prometheus text format. docs/metrics.md describes every family.

use std::fmt::{Display, Write};

use silverd_core::alerts::PhaseName;

use super::health::{Health, PartitionHealth, PipelineState, PluginHealth, TableHealth};
use super::history::{BRONZE, QUARANTINE};
use crate::alerts::ShownAlerts;
use crate::days::LastFinalDay;
use crate::delta::sync_times;
use crate::gold::{GoldState, GoldTable};
use crate::maintenance::TableMaintenance;
use crate::pipeline::status::Status;
use crate::telemetry::{CommitDurations, STAGES};

pub(super) fn text(health: &Health, shown: &ShownAlerts, status: Option<&Status>) -> String {
    let mut metrics = Metrics::default();
    process(&mut metrics, health);
    source(&mut metrics, health);
    tables(&mut metrics, &health.tables);
    if let Some(status) = status {
        commit_durations(&mut metrics, status);
        stages(&mut metrics, status);
    }
    plugins(&mut metrics, &health.plugins);
    gold(&mut metrics, &health.gold);
    maintenance(&mut metrics, &health.maintenance);
    alerts(&mut metrics, shown);
    days(&mut metrics, &health.last_final_days);
    metrics.0
}

const GAUGE: &str = "gauge";
const COUNTER: &str = "counter";
const HISTOGRAM: &str = "histogram";

/// The text, one family after the other: its help and type, then its samples.
#[derive(Default)]
struct Metrics(String);

impl Metrics {
    fn family(&mut self, kind: &str, name: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn single(&mut self, kind: &str, name: &str, help: &str, value: impl Display) {
        self.family(kind, name, help);
        self.sample(name, &[], value);
    }

    /// The samples of a histogram for one table.
    fn histogram(&mut self, name: &str, table: &str, durations: &CommitDurations) {
        let bucket = format!("{name}_bucket");
        for (upper_bound, count) in durations.buckets {
            self.sample(&bucket, &[("table", table), ("le", &upper_bound.to_string())], count);
        }
        self.sample(&bucket, &[("table", table), ("le", "+Inf")], durations.count);
        self.sample(&format!("{name}_sum"), &[("table", table)], durations.sum_seconds);
        self.sample(&format!("{name}_count"), &[("table", table)], durations.count);
    }

    /// A family with one sample for each item that has a value.
    fn per_table<T: OfTable, V: Display>(
        &mut self,
        items: &[T],
        (kind, name, help): (&str, &str, &str),
        value: impl Fn(&T) -> Option<V>,
    ) {
        if items.is_empty() {
            return;
        }
        self.family(kind, name, help);
        for item in items {
            if let Some(value) = value(item) {
                self.sample(name, &[("table", item.table())], value);
            }
        }
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

/// Whose samples have the label `table`.
trait OfTable {
    fn table(&self) -> &str;
}

impl OfTable for TableHealth {
    fn table(&self) -> &str {
        &self.name
    }
}

impl OfTable for PluginHealth {
    fn table(&self) -> &str {
        &self.table
    }
}

impl OfTable for GoldTable {
    fn table(&self) -> &str {
        &self.name
    }
}

impl OfTable for LastFinalDay {
    fn table(&self) -> &str {
        &self.table
    }
}

impl OfTable for TableMaintenance {
    fn table(&self) -> &str {
        &self.table
    }
}

fn process(metrics: &mut Metrics, health: &Health) {
    metrics.family(GAUGE, "silverd_build_info", "Always 1; the version is a label.");
    metrics.sample("silverd_build_info", &[("version", health.version)], 1);
    let uptime = seconds(health.at_ms - health.started_at_ms);
    metrics.single(GAUGE, "silverd_uptime_seconds", "Time since the process started.", uptime);
    let is_running = u8::from(health.state == PipelineState::Running);
    let help = "1 once the tables are open and the topic is being read.";
    metrics.single(GAUGE, "silverd_running", help, is_running);
    let help = "Open dashboards: clients of /api/stream.";
    metrics.single(GAUGE, "silverd_dashboard_clients", help, health.clients);
    let help = "Start time of the process since the Unix epoch.";
    metrics.single(GAUGE, "process_start_time_seconds", help, seconds(health.started_at_ms));
    let help = "Resident memory of the process.";
    metrics.single(GAUGE, "process_resident_memory_bytes", help, health.memory_bytes);
    let help = "Largest resident memory since the process started.";
    metrics.single(GAUGE, "process_resident_memory_peak_bytes", help, health.memory_peak_bytes);
    let help = "User and system CPU time of the process.";
    metrics.single(COUNTER, "process_cpu_seconds_total", help, health.cpu_seconds);
    let (syncs, sync_seconds) = sync_times();
    let help = "Times that commits were written to the disk (fsync).";
    metrics.single(COUNTER, "silverd_syncs_total", help, syncs);
    let help = "Time that commits waited for the disk (fsync).";
    metrics.single(COUNTER, "silverd_sync_seconds_total", help, sync_seconds);
}

fn source(metrics: &mut Metrics, health: &Health) {
    let (help, is_up) = ("0 while records are not read from Kafka.", health.source_problems.is_empty());
    metrics.single(GAUGE, "silverd_source_up", help, u8::from(is_up));
    let help = "Events that match no Silver table.";
    metrics.single(COUNTER, "silverd_unrouted_events_total", help, health.unrouted);
    let (name, help) = ("silverd_unrouted_events_by_reason_total", "Events that match no Silver table, by reason.");
    metrics.family(COUNTER, name, help);
    for (reason, count) in &health.unrouted_by_reason {
        metrics.sample(name, &[("reason", reason)], count);
    }
    metrics.single(GAUGE, "silverd_lag_events", "Records in Kafka that are not in Bronze yet.", health.lag);
    type Family = (&'static str, &'static str, fn(&PartitionHealth) -> i64);
    let families: [Family; 2] = [
        ("silverd_partition_lag_events", "Records of the partition that are not in Bronze yet.", |p| p.lag),
        ("silverd_partition_end_offset", "End offset of the partition in Kafka.", |p| p.end),
    ];
    for (name, help, value) in families {
        metrics.family(GAUGE, name, help);
        for partition in &health.partitions {
            let number = partition.partition.to_string();
            metrics.sample(name, &[("topic", &partition.topic), ("partition", &number)], value(partition));
        }
    }
}

fn tables(metrics: &mut Metrics, tables: &[TableHealth]) {
    type Counter = (&'static str, &'static str, fn(&TableHealth) -> u64);
    let counters: [Counter; 7] = [
        ("silverd_events_total", "Events that the table received.", |t| t.events),
        ("silverd_rows_total", "Rows committed.", |t| t.rows),
        ("silverd_rejected_total", "Events sent to the quarantine.", |t| t.rejected),
        ("silverd_dropped_total", "Events for which the plugin returned no row.", |t| t.dropped),
        ("silverd_commits_total", "Delta commits.", |t| t.commits),
        ("silverd_files_written_total", "Data files committed.", |t| t.files_written),
        ("silverd_bytes_written_total", "Bytes of the data files committed.", |t| t.bytes_written),
    ];
    for (name, help, value) in counters {
        metrics.per_table(tables, (COUNTER, name, help), |t| Some(value(t)));
    }
    let help = "Delta version of the last commit.";
    metrics.per_table(tables, (GAUGE, "silverd_table_version", help), |t| (t.commits > 0).then_some(t.version));
    let help = "Events that the table has still to process: from Bronze, or for Bronze from Kafka.";
    metrics.per_table(tables, (GAUGE, "silverd_table_lag_events", help), |t| Some(t.lag));
    let help = "0 while the table cannot be written.";
    metrics.per_table(tables, (GAUGE, "silverd_table_up", help), |t| Some(u8::from(t.is_writing)));
    let help = "Seconds for which the table has been in its state.";
    metrics.per_table(tables, (GAUGE, "silverd_table_state_seconds", help), |t| Some(t.state_seconds));
    type Time = (&'static str, &'static str, fn(&TableHealth) -> Option<i64>);
    let times: [Time; 3] = [
        ("silverd_last_commit_timestamp_seconds", "Time of the last commit since the Unix epoch.", |t| {
            t.committed_at_ms
        }),
        (
            "silverd_newest_event_timestamp_seconds",
            "When silverd read the newest event with a committed row from Kafka, since the Unix epoch.",
            |t| t.newest_at_ms,
        ),
        (
            "silverd_ingest_latency_seconds",
            "Time from Kafka to the commit for the oldest event of the last commit.",
            |t| t.ingest_latency_ms,
        ),
    ];
    for (name, help, value) in times {
        metrics.per_table(tables, (GAUGE, name, help), |t| value(t).map(seconds));
    }
}

fn commit_durations(metrics: &mut Metrics, status: &Status) {
    let name = "silverd_commit_duration_seconds";
    metrics.family(HISTOGRAM, name, "How long commits took.");
    metrics.histogram(name, BRONZE, &status.bronze.commit_durations());
    for silver in &status.silver {
        metrics.histogram(name, &silver.name, &silver.stats.commit_durations());
    }
    metrics.histogram(name, QUARANTINE, &status.quarantine.commit_durations());
}

fn stages(metrics: &mut Metrics, status: &Status) {
    let name = "silverd_stage_seconds_total";
    metrics.family(COUNTER, name, "CPU time spent in each stage; for commits, wall-clock time.");
    for (stage, label) in STAGES {
        metrics.sample(name, &[("stage", label)], status.stages.seconds(stage));
    }
}

fn plugins(metrics: &mut Metrics, plugins: &[PluginHealth]) {
    let name = "silverd_plugin_info";
    metrics.family(GAUGE, name, "Always 1; the labels name the plugin that fills the table.");
    for plugin in plugins {
        if let (Some(interface), Some(digest)) = (&plugin.interface, &plugin.digest) {
            let labels = [("table", plugin.table.as_str()), ("interface", interface), ("digest", digest)];
            metrics.sample(name, &labels, 1);
        }
    }
    let help = "How often a new plugin version replaced the current one.";
    metrics.per_table(plugins, (COUNTER, "silverd_plugin_swaps_total", help), |p| Some(p.swaps));
    let help = "Longest pause of the table for a plugin swap.";
    metrics.per_table(plugins, (GAUGE, "silverd_plugin_swap_seconds_max", help), |p| p.swap_ms_max.map(|ms| ms / 1e3));
    let help = "1 while the newest plugin version is rejected and the current one keeps running.";
    metrics.per_table(plugins, (GAUGE, "silverd_plugin_update_rejected", help), |p| {
        Some(u8::from(p.update_rejected.is_some()))
    });
    let help = "Mean CPU time of the plugin and the lift for one event.";
    metrics.per_table(plugins, (GAUGE, "silverd_plugin_event_seconds", help), |p| p.ns_per_event.map(|ns| ns / 1e9));
}

fn days(metrics: &mut Metrics, last_final: &[LastFinalDay]) {
    let help = "When the newest final day of the table ended, since the Unix epoch.";
    metrics.per_table(last_final, (GAUGE, "silverd_last_final_day_timestamp_seconds", help), |day| {
        Some(seconds(day.ended_at_ms))
    });
}

fn gold(metrics: &mut Metrics, tables: &[GoldTable]) {
    let help = "0 while the SQL of the Gold table fails.";
    metrics.per_table(tables, (GAUGE, "silverd_gold_up", help), |t| Some(u8::from(t.state != GoldState::Failing)));
    let help = "Commits of the Gold table.";
    metrics.per_table(tables, (COUNTER, "silverd_gold_commits_total", help), |t| Some(t.commits));
    let help = "When the Gold table was last up to date, since the Unix epoch.";
    metrics.per_table(tables, (GAUGE, "silverd_gold_refreshed_timestamp_seconds", help), |t| {
        t.refreshed_at_ms.map(seconds)
    });
    let help = "How long the last refresh that wrote rows took.";
    metrics.per_table(tables, (GAUGE, "silverd_gold_refresh_seconds", help), |t| Some(seconds(t.took_ms as i64)));
}

fn maintenance(metrics: &mut Metrics, tables: &[TableMaintenance]) {
    let help = "0 while table maintenance is paused or fails.";
    metrics.per_table(tables, (GAUGE, "silverd_maintenance_up", help), |t| Some(u8::from(t.state.is_up())));
    type Counter = (&'static str, &'static str, fn(&TableMaintenance) -> u64);
    let counters: [Counter; 5] = [
        ("silverd_compactions_total", "Compactions: files written from small files.", |t| t.compactions),
        ("silverd_files_compacted_total", "Small files that were compacted.", |t| t.files_compacted),
        ("silverd_bytes_compacted_total", "Bytes of the small files that were compacted.", |t| t.bytes_compacted),
        ("silverd_files_removed_total", "Data files removed by vacuum.", |t| t.files_removed),
        ("silverd_log_files_removed_total", "Old entries and checkpoints removed from the Delta log.", |t| {
            t.log_files_removed
        }),
    ];
    for (name, help, value) in counters {
        metrics.per_table(tables, (COUNTER, name, help), |t| Some(value(t)));
    }
}

fn alerts(metrics: &mut Metrics, shown: &ShownAlerts) {
    if !shown.alerts.is_empty() {
        let name = "silverd_alert_state";
        metrics.family(
            GAUGE,
            name,
            "0 while the alert is inactive or resolved, 1 while it is pending, 2 while it fires.",
        );
        for alert in &shown.alerts {
            let state = match alert.state {
                PhaseName::Inactive | PhaseName::Resolved => 0,
                PhaseName::Pending => 1,
                PhaseName::Firing => 2,
            };
            metrics.sample(name, &[("alert", &alert.name), ("severity", alert.severity.as_str())], state);
        }
        let name = "silverd_alert_evaluation_failures";
        metrics.family(GAUGE, name, "Evaluations of the alert in a row that failed.");
        for alert in shown.alerts.iter().filter(|alert| !alert.built_in) {
            metrics.sample(name, &[("alert", &alert.name)], alert.failures);
        }
    }
    if shown.receivers.is_empty() {
        return;
    }
    let name = "silverd_alert_notifications_total";
    metrics.family(
        COUNTER,
        name,
        "Tries to deliver a notification, by outcome: delivered, failed, or given_up for good.",
    );
    for receiver in &shown.receivers {
        let outcomes =
            [("delivered", receiver.delivered), ("failed", receiver.failed_tries), ("given_up", receiver.given_up)];
        for (outcome, count) in outcomes {
            metrics.sample(name, &[("receiver", &receiver.name), ("outcome", outcome)], count);
        }
    }
    let name = "silverd_alert_notifications_waiting";
    metrics.family(GAUGE, name, "Notifications that are not delivered yet.");
    for receiver in &shown.receivers {
        metrics.sample(name, &[("receiver", &receiver.name)], receiver.waiting);
    }
}
