//! Compares the events that no table takes with those in the quarantine. Where the tables matched on something else when
//! the events came, nothing is compared: tables that were added or removed since then take others.

use std::collections::BTreeMap;

use anyhow::Context;
use arrow::array::BooleanArray;
use deltalake_core::logstore::LogStoreRef;
use silverd_core::config::Pipeline;
use silverd_core::route::Router;
use silverd_core::unrouted::{NO_TABLE, UnroutedReason};
use silverd_core::verify::{Problem, SideOutputVerifier};

use crate::bronze::replay_clusters::ReplayClusters;
use crate::tables::event_set::{Coordinates, EventSet, RECORD_COORDINATES};
use crate::tables::quarantine::routing_id;
use crate::verify::rejects::{examples, quarantined};
use crate::verify::verified::VerifiedTable;

pub(super) async fn compare(
    pipeline: &Pipeline,
    bronze: &LogStoreRef,
    quarantine: &VerifiedTable<SideOutputVerifier>,
    lost: &EventSet,
) -> anyhow::Result<Option<Problem>> {
    let offsets = quarantine.verifier.unrouted_offsets(&routing_id(&pipeline.silver));
    if offsets.is_empty() {
        return Ok(None);
    }
    let router = Router::new(&pipeline.silver);
    let mut expected = BTreeMap::<UnroutedReason, EventSet>::new();
    for ranges in &offsets {
        let commit = &pipeline.commit;
        let mut replay = ReplayClusters::new(bronze.clone(), ranges.clone(), commit.rows_max, commit.bytes_max);
        while let Some(chunk) = replay.next().await.context("read bronze")? {
            let records = Coordinates::of(&chunk.records, RECORD_COORDINATES)?;
            let mut masks = BTreeMap::<UnroutedReason, Vec<bool>>::new();
            for (row, reason) in router.route(&chunk).unrouted.in_order() {
                masks.entry(reason).or_insert_with(|| vec![false; records.rows()])[row as usize] = true;
            }
            for (reason, mask) in masks {
                expected.entry(reason).or_default().insert_some(&records, &BooleanArray::from(mask));
            }
        }
    }
    let codes = UnroutedReason::ALL.map(UnroutedReason::as_str);
    let found = quarantined(NO_TABLE, &codes, quarantine).await.context("read the quarantine")?;
    let mut all = EventSet::default();
    expected.values().for_each(|events| all.merge(events));
    let missing = all.without(&found.any);
    let covered = EventSet::of_ranges(&offsets);
    let elsewhere = found.any.without(&covered);
    let unexpected = found.any.without(&elsewhere).without(&all).without(lost);
    let (mut other_code, none) = (EventSet::default(), EventSet::default());
    for (reason, events) in &expected {
        let of_code = found.by_code.get(reason.as_str()).unwrap_or(&none);
        other_code.merge(&events.without(of_code).without(&missing));
    }
    let examples = examples(&missing, &unexpected, &other_code);
    let (missing, unexpected, other_code) = (missing.len(), unexpected.len(), other_code.len());
    Ok((!examples.is_empty()).then_some(Problem::Unrouted { missing, unexpected, other_code, examples }))
}
