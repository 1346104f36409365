//! What a plugin's file declares, without compiling it.

use wit_parser::{IndexMap, WorldItem, WorldKey};

use super::binary::{decode_world, encode};

/// What a plugin's file declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct About {
    /// It is a core module, which silverd turns into a component.
    pub(crate) module: bool,
    /// The names of the imports and exports of its world, as in WIT.
    pub(crate) imports: Vec<String>,
    pub(crate) exports: Vec<String>,
}

impl About {
    pub(crate) fn of(bytes: &[u8]) -> anyhow::Result<Self> {
        let encoded = encode(bytes)?;
        let (resolve, world) = decode_world(encoded.as_deref().unwrap_or(bytes))?;
        let world = &resolve.worlds[world];
        // Nobody has to provide an interface that has only types.
        let has_functions = |item: &WorldItem| match item {
            WorldItem::Interface { id, .. } => !resolve.interfaces[*id].functions.is_empty(),
            _ => true,
        };
        let names = |items: &IndexMap<WorldKey, WorldItem>| {
            let items = items.iter().filter(|(_, item)| has_functions(item));
            items.map(|(key, _)| resolve.name_world_key(key)).collect::<Vec<_>>()
        };
        Ok(Self { module: encoded.is_some(), imports: names(&world.imports), exports: names(&world.exports) })
    }
}
