//! A table that stands ready for its next rows, and the plugin that fills it.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use arrow::datatypes::SchemaRef;
use silverd_core::config::SilverTable;
use silverd_core::offsets::Offsets;
use tracing::info;

use super::Shared;
use super::dedup::Dedup;
use super::table::{load_plugin, properties, spec};
use super::task::Task;
use crate::delta::{Encoder, Table};
use crate::reload;
use crate::replay::Replay;
use crate::transform::{Plugin, Transformer};

pub(super) struct Open {
    pub(super) table: Table,
    pub(super) transformer: Transformer,
    pub(super) encoder: Arc<Encoder>,
    pub(super) dedup: Option<Dedup>,
    /// Up to where the table has come, in memory: at least as far as its last commit.
    pub(super) next: Offsets,
    pub(super) committed_at: Instant,
    pub(super) replay: Option<Replay>,
    /// Another silverd's progress was passed by the last commit.
    pub(super) passed: bool,
}

impl Task {
    pub(super) async fn open_up(&mut self) -> anyhow::Result<Open> {
        self.state.set("opening");
        let plugin = match &self.plugin {
            Some(plugin) => plugin.clone(),
            None => self.plugin.insert(self.load_plugin().await?).clone(),
        };
        self.desk.serve(plugin.clone());
        self.stats.plugin_loaded(&plugin.schema.interface.to_string(), plugin.digest.as_str());
        let spec = spec(&self.config, &plugin.schema, &self.shared.base);
        let mut table = Table::open(&spec).await?;
        let encoder = Encoder::new(
            table.layout()?,
            properties(&self.config.compression, &plugin.schema)?,
            &self.config.compression,
        );
        table.widen(&encoder).await?;
        if self.told.take().is_some() {
            info!(table = %self.config.name, "ready again");
        }
        for side in self.shared.sides() {
            side.settle(&table).await.with_context(|| format!("bring {} up to the table", side.kind.name))?;
        }
        let dedup = Dedup::open(&self.config, &table.layout()?, table.log()).await?;
        let next = table.offsets();
        let transformer = Transformer::new(plugin).with_breaker(self.breaker.clone());
        Ok(Open {
            table,
            transformer,
            encoder: Arc::new(encoder),
            dedup,
            next,
            committed_at: Instant::now(),
            replay: None,
            passed: false,
        })
    }

    async fn load_plugin(&self) -> anyhow::Result<Arc<Plugin>> {
        let Shared { base, host, limits, watch, anew, .. } = &self.shared;
        let plugin = match watch {
            Some(_) if !anew => reload::first(&self.config, base, host, limits).await?,
            // Nobody would bring what lies there later, or it is what is wanted now.
            _ => {
                let (config, base, host, limits) = (self.config.clone(), base.clone(), host.clone(), limits.clone());
                tokio::task::spawn_blocking(move || load_plugin(&config, &base, host, limits)).await??
            }
        };
        tell_loaded(&self.config.name, &plugin);
        Ok(Arc::new(plugin))
    }
}

impl Open {
    /// Goes on with another version. False if the table must be opened anew for it.
    ///
    /// # Errors
    ///
    /// If the table cannot take its rows; then nothing has changed.
    pub(super) fn turn_to(
        &mut self,
        transformer: Transformer,
        config: &SilverTable,
        base: &Path,
    ) -> anyhow::Result<bool> {
        let schema = &transformer.plugin().schema;
        let before = self.table.layout()?;
        let properties = properties(&config.compression, schema)?;
        self.table.turn_to(&spec(config, schema, base)).context("its rows do not fit the table")?;
        let layout = self.table.layout()?;
        if !same_keys(config, &before, &layout) || self.table.fit().widens() {
            return Ok(false);
        }
        self.encoder = Arc::new(Encoder::new(layout, properties, &config.compression));
        self.transformer = transformer;
        Ok(true)
    }
}

/// Whether the columns that name an event are what they were.
fn same_keys(config: &SilverTable, before: &SchemaRef, now: &SchemaRef) -> bool {
    let ty = |schema: &SchemaRef, name: &str| schema.field_with_name(name).map(|field| field.data_type().clone()).ok();
    let names = config.dedup.iter().flat_map(|dedup| dedup.by.iter());
    names.into_iter().all(|name| ty(before, name) == ty(now, name))
}

pub(super) fn tell_loaded(table: &str, plugin: &Plugin) {
    info!(table, digest = %plugin.digest, interface = %plugin.schema.interface, "plugin loaded");
}
