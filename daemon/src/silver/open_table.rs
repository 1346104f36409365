//! A table that is open for its next rows, with the plugin instance that makes them.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use arrow::datatypes::SchemaRef;
use silverd_core::breaker::Breaker;
use silverd_core::config::SilverTable;
use silverd_core::offsets::Offsets;
use tracing::info;

use super::WorkerContext;
use crate::bronze::replay::Replay;
use crate::delta::{Encoder, Table};
use crate::plugin::{Plugin, Transformer};
use crate::reload::{self, Preferred, StartupVersion};
use crate::tables::dedup::Dedup;
use crate::tables::silver::{properties, table_spec};

pub(super) struct OpenTable {
    pub(super) table: Table,
    pub(super) transformer: Transformer,
    pub(super) encoder: Arc<Encoder>,
    pub(super) dedup: Option<Dedup>,
    /// The next offset of each log partition: at least what the last commit says.
    pub(super) next: Offsets,
    pub(super) committed_at: Instant,
    pub(super) replay: Option<Replay>,
    /// The last commit passed offsets that another silverd had committed: the replay is out of date.
    pub(super) overtook_replay: bool,
}

impl OpenTable {
    /// Opens the table for a plugin's rows, and publishes what its side outputs miss after a crash.
    pub(super) async fn open(
        context: &WorkerContext,
        config: &SilverTable,
        plugin: Arc<Plugin>,
        breaker: Breaker,
    ) -> anyhow::Result<Self> {
        let mut table = Table::open(&table_spec(config, &plugin.schema, &context.base_dir)).await?;
        table.check_progress()?;
        let compression = &config.compression;
        let encoder = Encoder::new(table.layout()?, properties(compression, &plugin.schema)?, compression);
        table.widen(&encoder).await?;
        for side in context.side_outputs() {
            side.recover(&table).await.with_context(|| format!("recover the side output {}", side.kind.name))?;
        }
        let dedup = Dedup::open(config, &table.layout()?, table.log()).await?;
        let next = table.offsets();
        Ok(Self {
            table,
            transformer: Transformer::new(plugin).with_breaker(breaker),
            encoder: Arc::new(encoder),
            dedup,
            next,
            committed_at: Instant::now(),
            replay: None,
            overtook_replay: false,
        })
    }

    /// Switches to another plugin version. False if the table must be opened again for it.
    ///
    /// # Errors
    ///
    /// If the table cannot take its rows; then nothing has changed.
    pub(super) fn switch_to(
        &mut self,
        transformer: Transformer,
        config: &SilverTable,
        base_dir: &Path,
    ) -> anyhow::Result<bool> {
        let schema = &transformer.plugin().schema;
        let before = self.table.layout()?;
        let properties = properties(&config.compression, schema)?;
        let spec = table_spec(config, schema, base_dir);
        self.table.switch_to(&spec).context("its rows do not fit the table")?;
        let layout = self.table.layout()?;
        if !has_same_dedup_keys(config, &before, &layout) || self.table.fit().widens() {
            return Ok(false);
        }
        self.encoder = Arc::new(Encoder::new(layout, properties, &config.compression));
        self.transformer = transformer;
        Ok(true)
    }
}

/// Whether the dedup columns have the types that they had.
fn has_same_dedup_keys(config: &SilverTable, before: &SchemaRef, now: &SchemaRef) -> bool {
    let ty = |schema: &SchemaRef, name: &str| schema.field_with_name(name).map(|field| field.data_type().clone()).ok();
    let mut names = config.dedup.iter().flat_map(|dedup| dedup.by.iter());
    names.all(|name| ty(before, name) == ty(now, name))
}

/// Loads the version that a table starts with. `loaded` is the newest build, if it was loaded before.
pub(super) async fn load_first_plugin(
    context: &WorkerContext,
    config: &SilverTable,
    loaded: Option<Arc<Plugin>>,
) -> anyhow::Result<StartupVersion> {
    let WorkerContext { base_dir, host, limits, watch, ignore_kept_plugin, .. } = context;
    let preferred = match (loaded, watch) {
        (Some(plugin), _) => Preferred::Loaded(plugin),
        (None, Some(_)) if *ignore_kept_plugin => Preferred::NamedPlugin,
        (None, Some(_)) => Preferred::LastWriter,
        (None, None) => Preferred::NewestBuild,
    };
    let first = reload::startup_version(config, base_dir, host, limits, preferred).await?;
    let (table, plugin) = (&config.name, &first.plugin);
    info!(%table, digest = %plugin.digest, interface = %plugin.schema.interface, "plugin loaded");
    Ok(first)
}
