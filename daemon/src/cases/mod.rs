//! The cases of a plugin: events with the outcome that its author expects. `silverd plugin test` runs them, and so does
//! a daemon before it takes up a new version.

mod case;
mod diff;
mod outcome;

use std::sync::Arc;

pub(crate) use case::{Case, CaseFile, cases_folder};
pub(crate) use diff::differences;
pub(crate) use outcome::{chunk_of, json_rows, outcome_of};

use crate::plugin::{Plugin, Source, Transformer};

/// The cases of a plugin that have another outcome than the expected one.
pub(crate) struct FailedCases {
    pub(crate) cases: usize,
    pub(crate) failed: usize,
    /// The name of the first, and how it differs.
    first: String,
}

/// Runs the cases of a table, without those for which no outcome is expected yet. `None` if all pass.
pub(crate) fn failed_cases(source: &Source, plugin: &Arc<Plugin>) -> anyhow::Result<Option<FailedCases>> {
    let columns: Vec<_> = plugin.schema.columns.iter().map(|column| column.name.clone()).collect();
    let mut transformer = Transformer::new(plugin.clone());
    let mut found = FailedCases { cases: 0, failed: 0, first: String::new() };
    for case in CaseFile::read_all(source)?.iter().flat_map(|file| &file.cases) {
        let Some(expected) = &case.expected else { continue };
        found.cases += 1;
        let differences = differences(expected, &outcome_of(&mut transformer, case)?, &columns);
        if differences.is_empty() {
            continue;
        }
        if found.failed == 0 {
            found.first = format!("{}: {}", case.name, differences.join("; "));
        }
        found.failed += 1;
    }
    Ok((found.failed > 0).then_some(found))
}

impl std::fmt::Display for FailedCases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of its {} cases failed; {}", self.failed, self.cases, self.first)
    }
}
