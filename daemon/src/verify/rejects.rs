//! The rejects that a plugin gives now, and those of the quarantine: the same events, for the same kind of reason.

use std::collections::BTreeMap;

use anyhow::Context;
use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::DataType;
use futures::TryStreamExt;
use silverd_core::chunk::column;
use silverd_core::verdict::Code;
use silverd_core::verify::{Problem, Proof, Side, SideKind, Silver};

use super::Table;
use crate::correct::{Coordinates, OF_RECORDS, Places};
use crate::delta::{columns, files_at};
use crate::transform::Rejected;

/// Rejected events, as sets.
#[derive(Default)]
pub struct Rejects {
    all: Places,
    by_code: BTreeMap<&'static str, Places>,
}

/// Rejects that are shown.
const EXAMPLES_MAX: usize = 10;

impl Rejects {
    pub fn add(&mut self, records: &Coordinates, rejected: &[Rejected]) {
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

    pub fn all(&self) -> &Places {
        &self.all
    }

    pub fn len(&self) -> u64 {
        self.all.len()
    }
}

/// What the quarantine has of a table.
#[derive(Default)]
struct Quarantined {
    any: Places,
    unresolved: Places,
    by_code: BTreeMap<String, Places>,
}

/// Holds the rejects of some offsets against the quarantine; the second of `places` are those without a replay, in which
/// no event may wait that is not rejected.
pub async fn compare(
    expected: &Rejects,
    places: &[Places; 2],
    silver: &Silver,
    name: &str,
    quarantine: &Table<Side>,
) -> anyhow::Result<Option<Problem>> {
    let found = match &quarantine.log {
        Some(_) => quarantined(name, quarantine).await.context("read the quarantine")?,
        None => Quarantined::default(),
    };
    let mut missing = expected.all.without(&found.any);
    let announced = silver.announcements(&SideKind::QUARANTINE);
    let waits = !quarantine.proof.has_all(silver.id(), announced);
    if announced.last.as_ref().is_some_and(|file| waits && missing.len() <= file.rows) {
        // They were announced, and wait for their commit; whether their file is there was looked after.
        missing = Places::default();
    }
    let waiting = found.unresolved.without(&found.unresolved.without(&places[1]));
    // A table that was made anew has left its rejects under the same name.
    let alone = !quarantine.proof.has_others_named(name, silver.id());
    let unexpected = if alone { waiting.without(&expected.all) } else { Places::default() };
    let mut other_code = Places::default();
    if alone && silver.corrections().commits == 0 {
        let none = Places::default();
        for (code, of) in &expected.by_code {
            other_code.merge(of.without(found.by_code.get(*code).unwrap_or(&none)).without(&missing));
        }
    }
    let kinds = [("missing", &missing), ("unexpected", &unexpected), ("of another code", &other_code)];
    let examples = kinds.into_iter().flat_map(|(what, events)| {
        events.first(EXAMPLES_MAX).into_iter().map(move |(log, offset)| format!("{log}, offset {offset}, {what}"))
    });
    let examples: Vec<String> = examples.take(EXAMPLES_MAX).collect();
    let (missing, unexpected, other_code) = (missing.len(), unexpected.len(), other_code.len());
    Ok((!examples.is_empty()).then_some(Problem::Rejects { missing, unexpected, other_code, examples }))
}

async fn quarantined(name: &str, quarantine: &Table<Side>) -> anyhow::Result<Quarantined> {
    let Some(log) = &quarantine.log else { return Ok(Quarantined::default()) };
    let names = ["table", "code", "resolved_at", column::CLUSTER_ID, column::TOPIC, column::PARTITION, column::OFFSET];
    let mut found = Quarantined::default();
    for file in files_at(log, quarantine.proof.version()).await? {
        let mut read = columns(log.object_store(None), file.path.clone(), file.size, Some(&names)).await?;
        while let Some(batch) = read.batches.try_next().await? {
            let tables = text(&batch, "table")?;
            let mask: BooleanArray = tables.as_string::<i32>().iter().map(|table| Some(table == Some(name))).collect();
            let batch = filter_record_batch(&batch, &mask)?;
            let places = Coordinates::of(&batch, OF_RECORDS)?;
            found.any.insert(&places);
            let waits: BooleanArray = match batch.column_by_name("resolved_at") {
                Some(resolved) => (0..batch.num_rows()).map(|row| Some(resolved.is_null(row))).collect(),
                None => vec![true; batch.num_rows()].into(),
            };
            found.unresolved.insert_some(&places, &waits);
            let codes = text(&batch, "code")?;
            let codes = codes.as_string::<i32>();
            for code in Code::ALL {
                let mask: BooleanArray = codes.iter().map(|of| Some(of == Some(code.as_str()))).collect();
                if mask.true_count() > 0 {
                    found.by_code.entry(code.as_str().to_owned()).or_default().insert_some(&places, &mask);
                }
            }
        }
    }
    Ok(found)
}

fn text(batch: &RecordBatch, name: &str) -> anyhow::Result<arrow::array::ArrayRef> {
    Ok(cast(batch.column_by_name(name).with_context(|| format!("no column {name}"))?, &DataType::Utf8)?)
}
