//! A plugin's file, before it is compiled: its form, its imports, its world, and the schema of its table.

use anyhow::{Context, anyhow, bail};
use silverd_core::input::Input;
use silverd_core::schema::TableSchema;
use wasmparser::{Parser, Payload};
use wit_parser::decoding::{DecodedWasm, decode};
use wit_parser::{Resolve, WorldId};

use super::events::Rooms;

/// How the interfaces that a plugin may import begin: WASI 0.2 and `wasi:logging`. What else begins so, the linker refuses.
const WASI: &str = "wasi:";

/// The custom section in which the SDK stores the table's WIT text, with its doc comments.
const WIT_SECTION: &str = "silverd:wit";

/// The custom section by which the SDK says that its allocator can free parts of a block.
const ONE_BLOCK_SECTION: &str = "silverd:one-block";

/// Turns a core module into a component; `None` if it is a component already.
pub(super) fn encode(bytes: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
    if !bytes.starts_with(b"\0asm") {
        bail!("it is no WebAssembly file: its first bytes are not `\\0asm`");
    }
    if Parser::is_component(bytes) {
        return Ok(None);
    }
    let imports = core_imports(bytes).context("parse it")?;
    if let Some((module, name)) = imports.iter().find(|(module, _)| !module.starts_with(WASI)) {
        bail!(
            "it is a core module that imports `{module}.{name}`. Build it with `cargo build --release --target \
             wasm32-unknown-unknown`, or as a component with `cargo component build --release`"
        );
    }
    let encoded = wit_component::ComponentEncoder::default()
        .validate(true)
        .module(bytes)
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| anyhow!("{error:#}"))
        .context("make a component of it: is it built with the silverd-plugin SDK or with wit-bindgen?")?;
    Ok(Some(encoded))
}

/// The world of a component.
pub(super) fn decode_world(component: &[u8]) -> anyhow::Result<(Resolve, WorldId)> {
    let decoded = decode(component).map_err(|error| anyhow!("{error:#}")).context("read its world")?;
    match decoded {
        DecodedWasm::Component(resolve, world) => Ok((resolve, world)),
        DecodedWasm::WitPackage(..) => bail!("it is a WIT package, not a component"),
    }
}

/// What a component says of itself.
pub(super) struct Declared {
    /// The schema of the table that it fills.
    pub(super) schema: TableSchema,
    /// What it takes of an event, and how it gives room for that.
    pub(super) input: Input,
    pub(super) rooms: Rooms,
}

impl Declared {
    /// `wit` is the WIT text of the table, for a component that carries none.
    pub(super) fn of(component: &[u8], wit: Option<&str>) -> anyhow::Result<Self> {
        let (resolve, world) = decode_world(component)?;
        let carried = section(component, WIT_SECTION).and_then(|text| String::from_utf8(text).ok());
        let docs = carried.or(wit.map(str::to_owned));
        let input = Input::of_world(&resolve, world, docs.as_deref())?;
        let schema = TableSchema::of_world(&resolve, world, docs.as_deref())?;
        let rooms = section(component, ONE_BLOCK_SECTION).map_or(Rooms::Each, |_| Rooms::OneBlock);
        Ok(Self { schema, input, rooms })
    }
}

fn core_imports(bytes: &[u8]) -> anyhow::Result<Vec<(String, String)>> {
    let mut imports = Vec::new();
    for payload in Parser::new(0).parse_all(bytes) {
        if let Payload::ImportSection(section) = payload? {
            for import in section.into_imports() {
                let import = import?;
                imports.push((import.module.to_owned(), import.name.to_owned()));
            }
        }
    }
    Ok(imports)
}

/// The content of a custom section of the component or of a core module in it.
fn section(component: &[u8], name: &str) -> Option<Vec<u8>> {
    for payload in Parser::new(0).parse_all(component) {
        if let Payload::CustomSection(section) = payload.ok()?
            && section.name() == name
        {
            return Some(section.data().to_vec());
        }
    }
    None
}
