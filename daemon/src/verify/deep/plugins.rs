//! The plugins that made a table's rows, as far as they are available.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use silverd_core::config::{Limits, SilverTable};
use silverd_core::rows::file_schema;
use silverd_core::verify::{Attribution, Lineage, NotComparedReason, PluginVersion, Problem, Replay, Writer};
use tracing::warn;

use crate::plugin::{Current, Host, KeptVersion, Plugin, Transformer, kept_version, load_current};

/// The plugins by their index in [`Attribution::versions`].
#[derive(Default)]
pub(super) struct Plugins {
    pub(super) transformers: BTreeMap<usize, Transformer>,
    /// Those whose events another version of the decoder read.
    of_other_decoder: BTreeSet<usize>,
    /// The schema of the table's files: that of the current plugin, or else of the newest version that is available. `None` if
    /// none is.
    pub(super) schema: Option<SchemaRef>,
    /// An event that was replayed may have been a duplicate by then, so its row need not be there.
    has_dedup: bool,
}

impl Plugins {
    /// Loads the versions that are kept. One that is not may be the current one. A version that does not load is not available.
    pub(super) fn load(
        config: &SilverTable,
        base_dir: &Path,
        host: &Arc<Host>,
        limits: &Limits,
        attribution: &Attribution,
        last_writer: Option<&PluginVersion>,
    ) -> Self {
        let table = &config.name;
        let current = match load_current(config, base_dir, host, limits, last_writer) {
            Ok(Current { plugin, .. }) => Some(Arc::new(plugin)),
            Err(error) => {
                warn!(%table, "load the current plugin: {error:#}; only rows of versions that are kept are compared");
                None
            }
        };
        let is_current = |version: &PluginVersion| {
            let is_same = |current: &&Arc<Plugin>| {
                let has_given = |given: &String| current.config_digest.as_str() == given;
                current.digest.as_str() == version.digest && version.given.as_ref().is_none_or(has_given)
            };
            current.as_ref().filter(is_same).cloned()
        };
        let kept = |version: &PluginVersion| match kept_version(config, base_dir, host.clone(), limits.clone(), version)
        {
            Ok(KeptVersion::Loaded(plugin)) => Some(Arc::new(*plugin)),
            Ok(KeptVersion::NoPlugin | KeptVersion::NoGiven) => None,
            Err(error) => {
                warn!(%table, "load a version that wrote rows: {error:#}");
                None
            }
        };
        let schema = current.as_ref().map(|current| file_schema(&current.schema));
        let mut plugins = Self { schema, has_dedup: config.dedup.is_some(), ..Self::default() };
        for (id, Lineage { plugin: version, decoder }) in attribution.versions().iter().enumerate() {
            let Some(plugin) = is_current(version).or_else(|| kept(version)) else { continue };
            if current.is_none() {
                plugins.schema = Some(file_schema(&plugin.schema));
            }
            if plugin.has_decoder(*decoder) {
                plugins.transformers.insert(id, Transformer::new(plugin));
            } else {
                plugins.of_other_decoder.insert(id);
            }
        }
        plugins
    }

    /// The index of the plugin that derives the rows of a writer; `None` if that is not known.
    fn of(&self, writer: Writer) -> Option<usize> {
        match writer {
            Writer::Plugin { replay: Replay::By(id), .. } if !self.has_dedup => Some(id),
            Writer::Plugin { id, .. } => Some(id),
            Writer::Mixed => None,
        }
    }

    /// The same, if the plugin is available.
    pub(super) fn available(&self, writer: Writer) -> Option<usize> {
        self.of(writer).filter(|id| self.transformers.contains_key(id))
    }

    /// Whether rejects of the writer may have rows that cannot be compared.
    pub(super) fn may_be_replayed(&self, writer: Writer) -> bool {
        match writer {
            Writer::Plugin { replay: Replay::Some, .. } => true,
            Writer::Plugin { replay: Replay::By(_), .. } => self.has_dedup,
            Writer::Plugin { replay: Replay::Never, .. } | Writer::Mixed => false,
        }
    }

    /// The offsets that cannot be compared, by plugin.
    pub(super) fn not_compared(&self, attribution: &Attribution) -> Vec<Problem> {
        let mut offsets = BTreeMap::<Option<usize>, i64>::new();
        for (_, range, writer) in attribution.iter().filter(|(_, _, writer)| self.available(*writer).is_none()) {
            *offsets.entry(self.of(writer)).or_default() += range.len();
        }
        let problem = |(plugin, offsets): (Option<usize>, i64)| Problem::NotCompared {
            digest: plugin.map(|id| attribution.versions()[id].plugin.digest.clone()),
            offsets,
            rows: None,
            reason: match plugin {
                Some(id) if self.of_other_decoder.contains(&id) => NotComparedReason::OtherDecoder,
                Some(_) => NotComparedReason::PluginMissing,
                None => NotComparedReason::WriterUnknown,
            },
        };
        offsets.into_iter().map(problem).collect()
    }
}
