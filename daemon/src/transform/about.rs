//! What a plugin's file says of itself, before anything of it is compiled.

use anyhow::{Context, anyhow, bail};
use wit_parser::decoding::{DecodedWasm, decode};
use wit_parser::{IndexMap, WorldItem, WorldKey};

use super::plugin::encode;

/// What is in a plugin's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// A core module, of which silverd makes a component itself.
    pub module: bool,
    /// What its world imports and exports, by the names that WIT gives them.
    pub imports: Vec<String>,
    pub exports: Vec<String>,
}

impl About {
    pub fn of(bytes: &[u8]) -> anyhow::Result<Self> {
        let encoded = encode(bytes)?;
        let component = encoded.as_deref().unwrap_or(bytes);
        let decoded = decode(component).map_err(|error| anyhow!("{error:#}")).context("read its world")?;
        let DecodedWasm::Component(resolve, world) = decoded else { bail!("it is a WIT package, not a component") };
        let world = &resolve.worlds[world];
        // An interface of nothing but types is no import that anybody must provide.
        let works = |item: &WorldItem| match item {
            WorldItem::Interface { id, .. } => !resolve.interfaces[*id].functions.is_empty(),
            _ => true,
        };
        let names = |items: &IndexMap<WorldKey, WorldItem>| {
            let items = items.iter().filter(|(_, item)| works(item));
            items.map(|(key, _)| resolve.name_world_key(key)).collect::<Vec<_>>()
        };
        Ok(Self { module: encoded.is_some(), imports: names(&world.imports), exports: names(&world.exports) })
    }
}
