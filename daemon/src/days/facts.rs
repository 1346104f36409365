//! What is known of the tables: from the pipeline that runs, and from the logs.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::json;
use silverd_core::config::{Gold, Pipeline, SilverTable};
use silverd_core::days::{CompleteUntil, End, PartitionFacts, complete_until};
use silverd_core::offsets::LogPartition;
use silverd_core::route::Router;
use silverd_core::zone::Zone;
use tokio::sync::watch;

use super::quarantine::QuarantineCounts;
use super::table_log::TableLog;
use crate::day_status::{DayLedger, DayRow};
use crate::gold::{name_in_queries, sources};
use crate::pipeline::status::{RunState, Status};
use crate::runtime::clock;

/// The tables of a pipeline, and what is known of their days.
pub(super) struct Facts {
    pub(super) silver: Vec<SilverFacts>,
    pub(super) gold: Vec<GoldTableFacts>,
    pub(super) quarantine: QuarantineCounts,
    /// In microseconds.
    pub(super) now: i64,
    /// Where each Silver table is in `silver`.
    silver_at: HashMap<String, usize>,
    status: watch::Receiver<RunState>,
}

pub(super) struct SilverFacts {
    pub(super) name: String,
    pub(super) zone: Zone,
    /// How long after a day's end late events are waited for, in microseconds.
    pub(super) late_after: i64,
    pub(super) log: TableLog,
    pub(super) complete: CompleteUntil,
    /// Offsets that are not processed.
    pub(super) lag: i64,
    pub(super) is_corrected: bool,
    /// Those of the topics that the table can take.
    partitions: Vec<(LogPartition, PartitionFacts)>,
    router: Router,
}

pub(super) struct GoldTableFacts {
    /// The name in queries.
    pub(super) name: String,
    pub(super) zone: Zone,
    pub(super) lookback_days: i32,
    /// By their names in queries.
    pub(super) sources: Vec<String>,
    pub(super) log: TableLog,
}

/// The version after which the log of a table, by its name, is read at first.
pub(super) type ReadFrom = BTreeMap<String, u64>;

impl Facts {
    pub(super) fn new(pipeline: &Pipeline, base_dir: &Path, status: watch::Receiver<RunState>) -> Self {
        let waits = pipeline.days.wait_for_quarantine;
        let zones = pipeline.silver.iter().filter(|_| waits).map(|table| (table.name.to_string(), table.time_zone));
        let quarantine = QuarantineCounts::new(base_dir.join(&*pipeline.quarantine.path), zones.collect());
        let final_after_ms = pipeline.days.final_after_ms;
        let silver = pipeline.silver.iter().map(|table| SilverFacts::new(table, base_dir, final_after_ms));
        let gold = pipeline.gold.iter().map(|gold| GoldTableFacts::new(gold, base_dir));
        let (silver, gold): (Vec<_>, Vec<_>) = (silver.collect(), gold.collect());
        let silver_at = silver.iter().enumerate().map(|(at, table)| (table.name.clone(), at)).collect();
        Self { silver, gold, quarantine, now: clock::now_micros(), silver_at, status }
    }

    /// Looks again. Whatever is read here is as new as the call, or newer.
    pub(super) async fn read(&mut self, ledger: &DayLedger, from: &ReadFrom) -> anyhow::Result<()> {
        self.now = clock::now_micros();
        let status = self.status.borrow().running();
        let partitions = status.as_ref().map(|status| status.log_partitions()).unwrap_or_default();
        for table in &mut self.silver {
            table.partitions = table.facts_of(status.as_deref(), &partitions);
            table.read(ledger, from).await?;
        }
        // After their sources: a Gold table that is computed from newer versions than these is not behind.
        for table in &mut self.gold {
            table.log.follow(None).await?;
            let computed = table.log.followed().and_then(|log| log.computed_from.clone()).unwrap_or_default();
            for source in &mut self.silver {
                if let Some(version) = computed.versions.get(&source.name) {
                    // It may have been computed from a commit since the look at the source.
                    source.log.follow_to(*version).await?;
                    source.log.reach_back(*version).await?;
                }
            }
        }
        self.quarantine.follow().await
    }

    pub(super) fn silver_of(&self, name: &str) -> Option<&SilverFacts> {
        self.silver_at.get(name).map(|at| &self.silver[*at])
    }

    /// The zone of a table, by its name in queries.
    pub(super) fn zone_of(&self, name: &str) -> Option<Zone> {
        let gold = || self.gold.iter().find(|table| table.name == name).map(|table| table.zone);
        self.silver_of(name).map(|table| table.zone).or_else(gold)
    }
}

/// For each table the version after which rows are late events that are not counted yet: that of the oldest day that was
/// final and is not, or the newest one.
pub(super) fn read_from(rows: &mut dyn Iterator<Item = &DayRow>) -> ReadFrom {
    let (mut newest, mut oldest) = (ReadFrom::new(), ReadFrom::new());
    for row in rows {
        let Some(version) = row.commit_version.and_then(|version| u64::try_from(version).ok()) else { continue };
        let known = newest.entry(row.table.clone()).or_insert(version);
        *known = (*known).max(version);
        if row.first_final_at.is_some() && row.reason.is_some() {
            let known = oldest.entry(row.table.clone()).or_insert(version);
            *known = (*known).min(version);
        }
    }
    newest.extend(oldest);
    newest
}

impl SilverFacts {
    fn new(table: &SilverTable, base_dir: &Path, final_after_ms: u64) -> Self {
        let late_after_ms = table.late_after_ms.unwrap_or(final_after_ms);
        Self {
            name: table.name.to_string(),
            zone: table.time_zone,
            late_after: i64::try_from(late_after_ms.saturating_mul(1_000)).unwrap_or(i64::MAX),
            log: TableLog::new(base_dir.join(&*table.path)),
            complete: CompleteUntil::Unknown { partitions: 0 },
            lag: 0,
            is_corrected: false,
            partitions: Vec::new(),
            router: Router::new(std::slice::from_ref(table)),
        }
    }

    async fn read(&mut self, ledger: &DayLedger, from: &ReadFrom) -> anyhow::Result<()> {
        self.complete = complete_until(self.partitions.iter().map(|(_, facts)| facts));
        self.lag = self.partitions.iter().map(|(_, facts)| facts.lag()).sum();
        self.is_corrected = ledger.is_corrected(&self.name)?;
        self.log.follow(from.get(&self.name).copied()).await
    }

    /// How far the table has processed the partitions that it can take.
    fn facts_of(
        &self,
        status: Option<&Status>,
        partitions: &[(LogPartition, Option<End>)],
    ) -> Vec<(LogPartition, PartitionFacts)> {
        let Some(status) = status else { return Vec::new() };
        let Some(silver) = status.silver.iter().find(|silver| silver.name == self.name) else { return Vec::new() };
        let takes = partitions.iter().filter(|(log, _)| self.router.takes(0, &log.topic));
        let facts = takes.map(|(log, end)| {
            let processed = silver.progress.of(log);
            let facts = PartitionFacts {
                next: processed.map_or_else(|| status.begin_of(log), |processed| processed.next),
                last_timestamp: processed.and_then(|processed| processed.last_timestamp),
                end: *end,
            };
            (log.clone(), facts)
        });
        facts.collect()
    }

    /// The next offset of each partition, as JSON.
    pub(super) fn offsets(&self) -> Option<String> {
        let offset =
            |(log, facts): &(LogPartition, PartitionFacts)| (format!("{}/{}", log.topic, log.partition), facts.next);
        let offsets: BTreeMap<String, i64> = self.partitions.iter().map(offset).collect();
        (!offsets.is_empty()).then(|| json!(offsets).to_string())
    }
}

impl GoldTableFacts {
    fn new(gold: &Gold, base_dir: &Path) -> Self {
        Self {
            name: name_in_queries(gold),
            zone: gold.time_zone,
            lookback_days: gold.lookback_days as i32,
            sources: sources(gold),
            log: TableLog::new(base_dir.join(&*gold.path)),
        }
    }
}
