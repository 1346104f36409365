//! Why records are not read, for those who show the pipeline's state.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// The problems of a source, by what has them. Empty while everything is read.
#[derive(Default)]
pub(crate) struct SourceProblems(Mutex<BTreeMap<String, String>>);

impl SourceProblems {
    pub(super) fn set(&self, of: impl Into<String>, text: impl Into<String>) {
        self.0.lock().insert(of.into(), text.into());
    }

    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }

    pub(crate) fn texts(&self) -> Vec<String> {
        self.0.lock().values().cloned().collect()
    }
}
