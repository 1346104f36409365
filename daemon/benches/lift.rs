//! Benchmark of the plugin boundary: a batch of page views goes in, rows come out. Run with `cargo bench`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use silverd::plugin::{Config, Host, Limits, Plugin, Transformer, build};
use silverd_core::chunk::{Chunk, ChunkBuilder, Record, TimestampType};
use silverd_core::generate::{Generator, Options};
use silverd_core::offsets::LogPartition;

/// A full batch under the default limits.
const EVENTS: usize = 4_096;

type NoHeaders = std::iter::Empty<(std::borrow::Cow<'static, str>, Option<&'static [u8]>)>;

/// A chunk of page views.
fn page_views() -> Chunk {
    let mut generator = Generator::new(Options { seed: 1, ..Options::default() });
    let (mut builder, log) = ChunkBuilder::of(&LogPartition::new("cluster", "events", 0));
    while builder.rows() < EVENTS {
        let event = generator.next(1_750_000_000_000_000);
        if !event.value.windows(11).any(|part| part == b"\"page_view\"") {
            continue;
        }
        let offset = builder.rows() as i64;
        let record = Record {
            offset,
            timestamp: Some((1_750_000_000_000, TimestampType::CreateTime)),
            key: Some(event.key.as_bytes()),
            value: Some(&event.value),
            headers: NoHeaders::default(),
        };
        builder.push(log, offset, record);
    }
    builder.finish(1_750_000_000_000_000)
}

fn plugin_boundary(criterion: &mut Criterion) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let wasm = build::wasm_of(&root.join("plugins/page_view")).expect("build the plugin");
    let bytes = std::fs::read(wasm).expect("read the plugin");
    let host = Host::new().expect("start the engine");
    let limits = Limits::default();
    let plugin =
        Plugin::compile(host, "page_view", &bytes, Config::default(), limits.clone()).expect("compile the plugin");
    let mut transformer = Transformer::new(Arc::new(plugin));
    let chunk = page_views();
    let rows: Vec<u32> = (0..EVENTS as u32).collect();
    let mut transform = || match transformer.transform(&chunk, &rows) {
        Ok(output) => output,
        Err(error) => panic!("transform the events: {error}"),
    };
    assert_eq!(transform().counts.rows, EVENTS as u64);

    let mut group = criterion.benchmark_group("4,096 page views");
    group.throughput(Throughput::Elements(EVENTS as u64));
    group.bench_function("in, transform, and out", |bench| bench.iter(&mut transform));
    // Both measure their own CPU time.
    group.bench_function("decode", |bench| {
        bench.iter_custom(|times| (0..times).map(|_| transform().decode).sum::<Duration>());
    });
    group.bench_function("lift", |bench| {
        bench.iter_custom(|times| (0..times).map(|_| transform().lift).sum::<Duration>());
    });
    group.finish();
}

criterion_group!(benches, plugin_boundary);
criterion_main!(benches);
