//! `silverd plugin wit`: prints the WIT of a table with SQL, for a plugin that takes the table over without a new schema.

use std::path::Path;

use anyhow::bail;
use silverd_core::config::{SqlInput, Transform};
use silverd_core::input::InputWit;
use silverd_core::schema::table_wit;

use super::scaffold::package_of;
use super::selected::SelectedPlugin;
use crate::app::wrong_use;
use crate::runtime::out::out;

#[derive(clap::Args, Debug)]
pub(super) struct WitArgs {
    /// A table of pipeline.toml that has `sql`
    table: String,
}

pub(super) fn wit(config: &Path, args: &WitArgs) -> anyhow::Result<()> {
    let selected = SelectedPlugin::find(config, &args.table, None)?;
    let (Some((_, table)), Some(setup)) = (&selected.table, &selected.setup) else {
        wrong_use!("{} is no table of pipeline.toml", args.table);
    };
    let Transform::Sql(transform) = &table.transform else {
        wrong_use!(
            "[silver.{}] has a plugin, whose WIT is in its folder or in wit/silver/; expected a table with `sql`",
            table.name
        );
    };
    let plugin = tokio::task::block_in_place(|| selected.load())?;
    let input = match &transform.input.value {
        SqlInput::Fields(input) => input.clone(),
        SqlInput::File(file) => {
            let records = format!("  // The record `input`, and what it uses, stand in {file}: copy them here.\n\n");
            InputWit { records, ..InputWit::default() }
        }
    };
    let package = package_of(&setup.base_dir.join("wit/silver"));
    match table_wit(&package, &table.name, &plugin.schema, &input) {
        Ok(text) => out!("{}", text.trim_end()),
        Err(column) => bail!(
            "column `{column}` has no name in WIT, where each part of a name begins with a letter: give the column another \
             name with `… AS name` if a plugin is to take the table over"
        ),
    }
    Ok(())
}
