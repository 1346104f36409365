//! The days of Gold tables: which days of other tables they depend on, and what their newest rows were computed from.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use silverd_core::config::{Gold, Pipeline};

use super::model::Progress;
use crate::day_status::{DayLedger, Dependents};
use crate::sql;

/// What a commit of a Gold table was computed from.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ComputedFrom {
    /// The version of each source, by the source's name in queries.
    pub(crate) versions: BTreeMap<String, u64>,
    /// Days, as the log writes them, that had changed and were not computed again.
    pub(crate) pending: Vec<String>,
}

/// The name of a Gold table in queries.
pub(crate) fn name_in_queries(gold: &Gold) -> String {
    format!("gold.{}", gold.name)
}

/// The tables that a Gold table is computed from, by their names in queries; empty if its SQL is wrong.
pub(crate) fn sources(gold: &Gold) -> Vec<String> {
    sql::table_references(&gold.sql.value).unwrap_or_default()
}

/// Which Gold tables are computed from which tables.
pub(crate) fn dependents(pipeline: &Pipeline) -> Dependents {
    let mut dependents = Dependents::default();
    for gold in &pipeline.gold {
        for source in sources(gold) {
            dependents.add(&source, &name_in_queries(gold), gold.lookback_days);
        }
    }
    dependents
}

/// `gold.day_status` of a pipeline.
pub(crate) fn day_ledger(pipeline: &Pipeline, base_dir: &Path) -> DayLedger {
    DayLedger::new(base_dir.join(&*pipeline.days.path), dependents(pipeline))
}

/// What silverd's info of a commit says of a Gold table; `None` if it says nothing, as after a compaction.
pub(crate) fn computed_from(info: Value) -> Option<ComputedFrom> {
    let progress: Progress = serde_json::from_value(info).ok()?;
    let versions = progress.sources.into_iter().map(|(name, source)| (name, source.version)).collect();
    Some(ComputedFrom { versions, pending: progress.pending.iter().map(ToString::to_string).collect() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn the_info_of_a_commit_says_what_it_was_computed_from() {
        let info = json!({
            "sources": { "orders": { "version": 7, "mark": "ab" } }, "pending": ["2025-01-02"], "sql": "cd",
            "days": ["2025-01-01"], "rows": 3, "txns": 1,
        });
        let found = computed_from(info).unwrap();
        assert_eq!(found.versions, BTreeMap::from([("orders".to_owned(), 7)]));
        assert_eq!(found.pending, ["2025-01-02"]);
        assert_eq!(computed_from(json!({ "maintenance": {}, "txns": 1 })), None);
    }
}
