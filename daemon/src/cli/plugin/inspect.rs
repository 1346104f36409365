//! `silverd plugin inspect`: what a plugin reads and declares, and whether it fits the existing table.

use std::path::Path;

use anyhow::Context;
use silverd_core::schema::evolve::DeltaType;
use silverd_core::schema::{Column, Kind, TableSchema};

use super::input_text::input_text;
use super::selected::SelectedPlugin;
use super::{counted, size, text_table};
use crate::plugin::{About, Digest, VersionFile};
use crate::runtime::out::out;
use crate::tables::silver::check_fit;

#[derive(clap::Args, Debug)]
pub(super) struct InspectArgs {
    /// A plugin's folder, a .wasm file, or a table of pipeline.toml
    plugin: String,
    /// Compare with this table, instead of the one that uses the plugin
    #[arg(long)]
    table: Option<String>,
}

pub(super) async fn inspect(config: &Path, args: &InspectArgs) -> anyhow::Result<()> {
    let selected = SelectedPlugin::find(config, &args.plugin, args.table.as_deref())?;
    let version = selected.version()?;
    let bytes = version.read()?;
    match &version {
        VersionFile::File(file) => out!("file     {}", file.display()),
        VersionFile::Sql(_) => out!("SQL      in {}", config.display()),
    }
    out!("digest   {}", Digest::of(&bytes).as_str());
    out!("size     {}", size(bytes.len() as u64));
    if matches!(version, VersionFile::File(_)) {
        let about = About::of(&bytes).with_context(|| format!("read {version}"))?;
        let list = |names: &[String]| if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        out!(
            "kind     {}",
            if about.module { "core module, which silverd turns into a component" } else { "component" }
        );
        out!("exports  {}", list(&about.exports));
        out!("imports  {}", list(&about.imports));
    }
    let plugin = tokio::task::block_in_place(|| selected.load())?;
    out!("{}", input_text(&plugin.input)?);
    out!("{}", schema_text(&plugin.schema)?);
    let (Some((_, table)), Some(setup)) = (&selected.table, &selected.setup) else {
        out!("No table of pipeline.toml uses this plugin.");
        return Ok(());
    };
    let path = setup.base_dir.join(&**table.path);
    match check_fit(table, &plugin, &setup.base_dir).await? {
        None => out!("Table {} does not exist yet: the first rows create it in {}.", table.name, path.display()),
        Some(fit) if fit.changes.is_empty() && fit.notices.is_empty() => {
            out!("It fits table {} in {}, and changes no column.", table.name, path.display());
        }
        Some(fit) => {
            out!("It fits table {} in {}:", table.name, path.display());
            for change in &fit.changes {
                out!("  the next rows change the table: {change}");
            }
            for notice in &fit.notices {
                out!("  {notice}");
            }
        }
    }
    Ok(())
}

/// The row as a table.
fn schema_text(schema: &TableSchema) -> anyhow::Result<String> {
    let row = |column: &Column| {
        let nullable = if column.nullable { "or null" } else { "" };
        let doc = column.doc.clone().unwrap_or_default();
        let mut ty = DeltaType::from(&column.kind).to_string();
        if let Kind::Enum(cases) = &column.kind {
            ty += &format!(": {}", cases.join(", "));
        }
        vec![column.name.clone(), ty, nullable.to_owned(), doc]
    };
    let rows: Vec<_> = schema.columns.iter().map(row).collect();
    let doc = schema.doc.as_ref().map(|doc| format!(": {doc}")).unwrap_or_default();
    let table = text_table(&["column", "Delta type", "", "comment"], &rows)?;
    Ok(format!("\nrow of {}, {}{doc}\n{table}", schema.interface, counted(rows.len() as u64, "column")))
}
