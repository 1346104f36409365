//! The guest of `fixtures/hostile.wat`, which misbehaves on the events that a test chooses.

use std::borrow::Cow;
use std::iter::Empty;
use std::sync::{Arc, LazyLock};

use silverd::plugin::{Config, Host, Limits, Plugin, TransformOutput, Transformer};
use silverd_core::chunk::{Chunk, ChunkBuilder, Record};
use silverd_core::offsets::LogPartition;
use wit_component::StringEncoding;

use super::guest::{self, ALLOCATOR, REALLOC};

pub static HOST: LazyLock<Arc<Host>> = LazyLock::new(|| Host::new().unwrap());
pub const WIT: &str = include_str!("../fixtures/hostile.wit");

/// The guest as a component. It runs `misbehave` on every event whose value contains "poison".
pub fn component(misbehave: &str, functions: &str, world: &str) -> Vec<u8> {
    guest::component(&module(misbehave, functions, world, StringEncoding::UTF8))
}

/// The guest as a core module.
pub fn module(misbehave: &str, functions: &str, world: &str, strings: StringEncoding) -> Vec<u8> {
    // A test of a bad allocator has its own `cabi_realloc`.
    let realloc = if functions.contains("cabi_realloc") { "" } else { REALLOC };
    let code = code(&[ALLOCATOR, realloc], misbehave) + functions;
    guest::module(&code, guest::TYPES_0_1, WIT, world, strings)
}

/// The guest with imports, as a core module with another WIT text.
pub fn module_with_imports(imports: &str, wit: &str, misbehave: &str) -> Vec<u8> {
    guest::module(
        &code(&[imports, ALLOCATOR, REALLOC], misbehave),
        guest::TYPES_0_1,
        wit,
        "table",
        StringEncoding::UTF8,
    )
}

fn code(before: &[&str], misbehave: &str) -> String {
    let hook = format!("(func $misbehave (param $row i32) (param $event i32) (param $output i32) {misbehave})");
    before.concat() + include_str!("../fixtures/hostile.wat") + &hook
}

pub fn transformer(plugin: &[u8], limits: Limits) -> Transformer {
    Transformer::new(Arc::new(Plugin::compile(HOST.clone(), "hits", plugin, Config::default(), limits).unwrap()))
}

/// A chunk of one partition with these values.
pub fn chunk(values: impl IntoIterator<Item = String>) -> Chunk {
    let (mut builder, log) = ChunkBuilder::of(&LogPartition::new("cluster", "topic", 0));
    for (offset, value) in values.into_iter().enumerate() {
        let headers: Empty<(Cow<str>, Option<&[u8]>)> = std::iter::empty();
        let (offset, value) = (offset as i64, Some(value.as_bytes()));
        builder.push(log, offset, Record { offset, timestamp: None, key: None, value, headers });
    }
    builder.finish(0)
}

/// Transforms all records of a chunk.
pub fn transform(transformer: &mut Transformer, chunk: &Chunk) -> TransformOutput {
    let records: Vec<u32> = (0..chunk.records.num_rows() as u32).collect();
    transformer.transform(chunk, &records).unwrap()
}
