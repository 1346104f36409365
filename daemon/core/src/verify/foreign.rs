//! Commits of other writers that changed rows. Such a commit is an error until a rebuild has replaced the rows of its days.
//!
//! | since the commit                                                          | the commit is |
//! |---------------------------------------------------------------------------|---------------|
//! | nothing                                                                   | an error      |
//! | `rebuild` of everything, or of all its days, which left none of its files | a notice      |
//! | `rebuild` of some of its days                                             | an error      |
//! | `rebuild` that was computed before the commit, so that its files are left | an error      |
//! | `undo`, `replay`                                                          | an error      |

use std::collections::BTreeMap;

use silverd_values::{Scalar, date};

use super::entry::Entry;
use super::finding::{Findings, Problem};
use super::ledger::RowChange;
use super::state::{FileKey, TableState, file_key};

/// The foreign commits of a log, in their order.
#[derive(Default)]
pub(super) struct ForeignCommits(Vec<ForeignCommit>);

struct ForeignCommit {
    version: u64,
    change: RowChange,
    /// The first and the last day of its files.
    days: Option<[String; 2]>,
    /// The days of which no rebuild has replaced the rows since, each with the files that the commit added. `None` for files
    /// that are of no day.
    pending: BTreeMap<Option<String>, Vec<FileKey>>,
    rebuilt_in: Option<u64>,
}

/// More commits than that are reported without looking for a rebuild.
const COMMITS_MAX: usize = 1_000;

impl ForeignCommits {
    pub(super) fn add(&mut self, entry: &Entry, change: RowChange, findings: &mut Findings) {
        let mut pending = BTreeMap::<Option<String>, Vec<FileKey>>::new();
        for add in &entry.adds {
            pending.entry(add.day.clone()).or_default().push(file_key(&add.path));
        }
        for remove in &entry.removes {
            pending.entry(remove.day.clone()).or_default();
        }
        let days = || pending.keys().flatten();
        let days = days().next().cloned().zip(days().next_back().cloned()).map(|(first, last)| [first, last]);
        let commit = ForeignCommit { version: entry.version, change, days, pending, rebuilt_in: None };
        match self.0.len() < COMMITS_MAX {
            true => self.0.push(commit),
            false => commit.report(findings),
        }
    }

    /// A rebuild has replaced the rows of these days since the epoch, or of all. `state` is the table's after it.
    pub(super) fn rebuilt(&mut self, version: u64, days: Option<(i32, i32)>, state: &TableState) {
        let covers = |day: &Option<String>| match (days, day) {
            (None, _) => true,
            (Some((first, last)), Some(day)) => date(Scalar::Text(day)).is_ok_and(|day| (first..=last).contains(&day)),
            (Some(_), None) => false,
        };
        for commit in self.0.iter_mut().filter(|commit| commit.rebuilt_in.is_none()) {
            let is_left = |file: &FileKey| state.files.contains_key(file);
            commit.pending.retain(|day, added| !covers(day) || added.iter().any(is_left));
            if commit.pending.is_empty() {
                commit.rebuilt_in = Some(version);
            }
        }
    }

    /// Reports them, once.
    pub(super) fn report(&mut self, findings: &mut Findings) {
        for commit in std::mem::take(&mut self.0) {
            commit.report(findings);
        }
    }
}

impl ForeignCommit {
    fn report(self, findings: &mut Findings) {
        let RowChange { added, removed } = self.change;
        let problem = Problem::ForeignCommit { added, removed, days: self.days, rebuilt_in: self.rebuilt_in };
        findings.at(self.version, problem);
    }
}
