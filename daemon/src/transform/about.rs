//! What a plugin's file says of itself, before anything of it is compiled.

use anyhow::{Context, anyhow, bail};
use wit_parser::decoding::{DecodedWasm, decode};

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
        let names = |items: &mut dyn Iterator<Item = &wit_parser::WorldKey>| {
            items.map(|key| resolve.name_world_key(key)).collect::<Vec<_>>()
        };
        Ok(Self {
            module: encoded.is_some(),
            imports: names(&mut world.imports.keys()),
            exports: names(&mut world.exports.keys()),
        })
    }
}
