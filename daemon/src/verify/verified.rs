//! The result of verification: the tables of a pipeline, with the findings of each.

use std::collections::{BTreeMap, BTreeSet};

use deltalake_core::logstore::LogStoreRef;
use object_store::path::Path;
use silverd_core::route::Router;
use silverd_core::verify::{BronzeVerifier, SideOutputVerifier, SilverVerifier};

/// The tables of a pipeline, verified.
pub struct Verified {
    pub bronze: VerifiedTable<BronzeVerifier>,
    /// The selected tables, in the order of pipeline.toml.
    pub silver: Vec<VerifiedTable<SilverVerifier>>,
    /// The quarantine, then the late events.
    pub side_outputs: [VerifiedTable<SideOutputVerifier>; 2],
    /// What a deep verification compared, by Silver table.
    pub compared: Vec<(String, Compared)>,
    /// What each Silver table takes.
    pub(super) matches: BTreeMap<String, Router>,
}

impl Verified {
    /// Whether events of a topic can go to a Silver table.
    pub(super) fn takes(&self, table: &str, topic: &str) -> bool {
        self.matches.get(table).is_none_or(|router| router.takes(0, topic))
    }
}

/// A table with its log, if it exists, and the verifier of that log.
pub struct VerifiedTable<V> {
    pub name: String,
    pub log: Option<LogStoreRef>,
    pub verifier: V,
    /// Live files that are missing or damaged, which were reported.
    pub(super) broken_files: BTreeSet<Path>,
}

/// How much of a table was compared.
#[derive(Clone, Debug, Default)]
pub struct Compared {
    pub events: u64,
    pub rows: u64,
    pub rejects: u64,
}
