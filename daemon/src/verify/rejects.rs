//! Compares the events that a plugin rejects now with those in the quarantine.

use std::collections::BTreeMap;

use anyhow::Context;
use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::DataType;
use futures::TryStreamExt;
use silverd_core::chunk::column;
use silverd_core::outcome::Code;
use silverd_core::verify::{Problem, SideOutputKind, SideOutputVerifier, SilverVerifier, Verifier};

use super::verified::VerifiedTable;
use crate::delta::{list_files_at, read_columns};
use crate::plugin::Rejected;
use crate::tables::event_set::{Coordinates, EventSet, RECORD_COORDINATES};

/// The events that the plugins reject.
#[derive(Default)]
pub(super) struct Rejects {
    all: EventSet,
    by_code: BTreeMap<&'static str, EventSet>,
}

/// The most rejects that are shown.
const EXAMPLES_MAX: usize = 10;

impl Rejects {
    pub(super) fn add(&mut self, records: &Coordinates, rejected: &[Rejected]) {
        for code in Code::ALL {
            let mut mask = vec![false; records.rows()];
            let of_code = rejected.iter().filter(|reject| reject.code == code);
            of_code.for_each(|reject| mask[reject.record as usize] = true);
            if mask.contains(&true) {
                let mask = BooleanArray::from(mask);
                self.all.insert_some(records, &mask);
                self.by_code.entry(code.as_str()).or_default().insert_some(records, &mask);
            }
        }
    }

    pub(super) fn all(&self) -> &EventSet {
        &self.all
    }

    pub(super) fn len(&self) -> u64 {
        self.all.len()
    }
}

/// The rejects of a table in the quarantine.
#[derive(Default)]
pub(super) struct Quarantined {
    pub(super) any: EventSet,
    unresolved: EventSet,
    pub(super) by_code: BTreeMap<&'static str, EventSet>,
}

/// Compares the rejects of a table with the quarantine. Of the events `without_replay`, no unresolved event may be in
/// the quarantine that the plugin does not reject.
pub(super) async fn compare_rejects(
    expected: &Rejects,
    without_replay: &EventSet,
    silver: &SilverVerifier,
    name: &str,
    quarantine: &VerifiedTable<SideOutputVerifier>,
) -> anyhow::Result<Option<Problem>> {
    let found = match &quarantine.log {
        Some(_) => quarantined(name, &Code::ALL.map(Code::as_str), quarantine).await.context("read the quarantine")?,
        None => Quarantined::default(),
    };
    let mut missing = expected.all.without(&found.any);
    let announcements = silver.announcements(&SideOutputKind::QUARANTINE);
    let is_pending = !quarantine.verifier.has_all(silver.id(), announcements);
    if announcements.last.as_ref().is_some_and(|file| is_pending && missing.len() <= file.rows) {
        // They were announced but not published yet; the verification of the logs has checked that their file exists.
        missing = EventSet::default();
    }
    let unresolved = found.unresolved.without(&found.unresolved.without(without_replay));
    // A table that was replaced by a new one has left its rejects under the same name.
    let is_only_table = !quarantine.verifier.has_rows_of_former(name, silver.id());
    let unexpected = if is_only_table { unresolved.without(&expected.all) } else { EventSet::default() };
    let mut other_code = EventSet::default();
    if is_only_table && silver.corrections().commits == 0 {
        let none = EventSet::default();
        for (code, of) in &expected.by_code {
            other_code.merge(&of.without(found.by_code.get(code).unwrap_or(&none)).without(&missing));
        }
    }
    let examples = examples(&missing, &unexpected, &other_code);
    let (missing, unexpected, other_code) = (missing.len(), unexpected.len(), other_code.len());
    Ok((!examples.is_empty()).then_some(Problem::Rejects { missing, unexpected, other_code, examples }))
}

/// The first events that differ.
pub(super) fn examples(missing: &EventSet, unexpected: &EventSet, other_code: &EventSet) -> Vec<String> {
    let kinds = [("missing", missing), ("unexpected", unexpected), ("of another code", other_code)];
    let examples = kinds.into_iter().flat_map(|(what, events)| {
        events.first(EXAMPLES_MAX).into_iter().map(move |(log, offset)| format!("{log}, offset {offset}, {what}"))
    });
    examples.take(EXAMPLES_MAX).collect()
}

/// The events of a table in the quarantine, and which of them have these codes.
pub(super) async fn quarantined(
    name: &str,
    codes: &[&'static str],
    quarantine: &VerifiedTable<SideOutputVerifier>,
) -> anyhow::Result<Quarantined> {
    let Some(log) = &quarantine.log else { return Ok(Quarantined::default()) };
    let names = ["table", "code", "resolved_at", column::CLUSTER_ID, column::TOPIC, column::PARTITION, column::OFFSET];
    let mut found = Quarantined::default();
    for file in list_files_at(log, quarantine.verifier.version()).await? {
        let mut read = read_columns(log.object_store(None), &file, Some(&names)).await?;
        while let Some(batch) = read.batches.try_next().await? {
            let tables = text(&batch, "table")?;
            let mask: BooleanArray = tables.as_string::<i32>().iter().map(|table| Some(table == Some(name))).collect();
            let batch = filter_record_batch(&batch, &mask)?;
            let events = Coordinates::of(&batch, RECORD_COORDINATES)?;
            found.any.insert(&events);
            let unresolved: BooleanArray = match batch.column_by_name("resolved_at") {
                Some(resolved) => (0..batch.num_rows()).map(|row| Some(resolved.is_null(row))).collect(),
                None => vec![true; batch.num_rows()].into(),
            };
            found.unresolved.insert_some(&events, &unresolved);
            let code_of_rows = text(&batch, "code")?;
            for code in codes {
                let is_code = |of: Option<&str>| Some(of == Some(code));
                let mask: BooleanArray = code_of_rows.as_string::<i32>().iter().map(is_code).collect();
                if mask.true_count() > 0 {
                    found.by_code.entry(code).or_default().insert_some(&events, &mask);
                }
            }
        }
    }
    Ok(found)
}

fn text(batch: &RecordBatch, name: &str) -> anyhow::Result<arrow::array::ArrayRef> {
    Ok(cast(batch.column_by_name(name).with_context(|| format!("no column {name}"))?, &DataType::Utf8)?)
}
