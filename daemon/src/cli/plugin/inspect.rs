//! `silverd plugin inspect`: what a plugin declares.

use std::path::Path;

use anyhow::Context;
use silverd_core::schema::evolve::DeltaType;
use silverd_core::schema::{Kind, TableSchema};

use super::subject::Subject;
use super::{counted, size, text_table};
use crate::silver;
use crate::transform::{About, Digest};

#[derive(clap::Args, Debug)]
pub struct InspectArgs {
    /// A plugin's folder, a .wasm file, or a table of pipeline.toml
    plugin: String,
    /// The table that it is held against, if it is not the one that has this plugin
    #[arg(long)]
    table: Option<String>,
}

pub async fn inspect(config: &Path, args: &InspectArgs) -> anyhow::Result<()> {
    let subject = Subject::find(config, &args.plugin, args.table.as_deref())?;
    let wasm = subject.wasm()?;
    let bytes = std::fs::read(&wasm).with_context(|| format!("read {}", wasm.display()))?;
    let about = About::of(&bytes).with_context(|| format!("read plugin {}", wasm.display()))?;
    let list = |names: &[String]| if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    println!("file     {}", wasm.display());
    println!("digest   {}", Digest::of(&bytes).as_str());
    println!("size     {}", size(bytes.len() as u64));
    println!("kind     {}", if about.module { "core module, of which silverd makes a component" } else { "component" });
    println!("exports  {}", list(&about.exports));
    println!("imports  {}", list(&about.imports));
    let plugin = tokio::task::block_in_place(|| subject.load())?;
    println!("{}", schema(&plugin.schema)?);
    let (Some((_, table)), Some(setup)) = (&subject.table, &subject.setup) else {
        println!("No table of pipeline.toml has this plugin.");
        return Ok(());
    };
    let place = format!("table {} in {}", table.name, setup.base.join(&**table.path).display());
    match silver::fit(table, &plugin, &setup.base).await? {
        None => println!("It fits {place}, which is made when the first rows come."),
        Some(fit) if fit.changes.is_empty() && fit.notices.is_empty() => {
            println!("It fits {place}, as it stands there.")
        }
        Some(fit) => {
            println!("It fits {place}:");
            for change in &fit.changes {
                println!("  with the first rows, {change}");
            }
            for notice in &fit.notices {
                println!("  {notice}");
            }
        }
    }
    Ok(())
}

fn schema(schema: &TableSchema) -> anyhow::Result<String> {
    let row = |column: &silverd_core::schema::Column| {
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
