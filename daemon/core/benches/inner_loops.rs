//! The core's inner loops: every event passes through them. Run with `cargo bench`.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use silverd_core::chunk::{Chunk, ChunkBuilder, LogIndex, Record, TimestampType};
use silverd_core::config;
use silverd_core::generate::{Generator, Options};
use silverd_core::input::{Decoder, EventType, Image, Input, Records};
use silverd_core::json::Tape;
use silverd_core::offsets::LogPartition;
use silverd_core::outcome::count_outcomes;
use silverd_core::route::Router;
use wit_parser::Resolve;

const EVENTS: usize = 10_000;

type NoHeaders = std::iter::Empty<(std::borrow::Cow<'static, str>, Option<&'static [u8]>)>;

fn events() -> Vec<(String, Vec<u8>)> {
    let mut generator = Generator::new(Options { seed: 1, ..Options::default() });
    (0..EVENTS).map(|_| generator.next(1_750_000_000_000_000)).map(|event| (event.key, event.value)).collect()
}

fn collect((builder, log): &mut (ChunkBuilder, LogIndex), events: &[(String, Vec<u8>)]) -> Chunk {
    for (offset, (key, value)) in events.iter().enumerate() {
        let record = Record {
            offset: offset as i64,
            timestamp: Some((1_750_000_000_000, TimestampType::CreateTime)),
            key: Some(key.as_bytes()),
            value: Some(value),
            headers: NoHeaders::default(),
        };
        builder.push(*log, offset as i64, record);
    }
    builder.finish(1_750_000_000_000_000)
}

const PIPELINE: &str = r#"
[source]
brokers = "localhost:9092"
topic = "events"
group = "bench"
[silver.page_view]
plugin = "page_view.wasm"
path = "page_view"
match = { field = "event_type", equals = "page_view" }
event_time = "ts"
[silver.add_to_cart]
plugin = "add_to_cart.wasm"
path = "add_to_cart"
match = { field = "event_type", equals = "add_to_cart" }
event_time = "ts"
"#;

/// What the shop's page views are decoded to; the other events of the shop do not fit it.
fn page_view() -> EventType {
    let mut resolve = Resolve::default();
    resolve.push_str("types.wit", include_str!("../../../wit/types.wit")).expect("the contract");
    let table = include_str!("../../../wit/silver/page-view.wit");
    let package = resolve.push_str("page-view.wit", table).expect("the table");
    let world = resolve.select_world(&[package], None).expect("one world");
    match Input::of_world(&resolve, world, Some(table)) {
        Ok(Input::Typed(ty)) => ty,
        other => panic!("no typed input: {other:?}"),
    }
}

fn inner_loops(criterion: &mut Criterion) {
    let events = events();
    let mut builder = ChunkBuilder::of(&LogPartition::new("cluster", "events", 0));
    let chunk = collect(&mut builder, &events);
    let pipeline = config::check(PIPELINE, &|_| None).expect("a valid pipeline");
    let router = Router::new(&pipeline.silver);
    let every: Vec<u32> = (0..EVENTS as u32).collect();

    let mut group = criterion.benchmark_group("10,000 events of the shop");
    group.throughput(Throughput::Elements(EVENTS as u64));
    group.bench_function("collect into a chunk", |bench| bench.iter(|| collect(&mut builder, black_box(&events))));
    group.bench_function("route", |bench| bench.iter(|| router.route(black_box(&chunk))));
    let mut tape = Tape::default();
    group.bench_function("tape of the JSON", |bench| {
        bench.iter(|| events.iter().for_each(|(_, value)| tape.read(black_box(value)).expect("JSON")));
    });
    group.bench_function("serde_json, skipping everything", |bench| {
        bench.iter(|| {
            events.iter().for_each(|(_, value)| {
                black_box(serde_json::from_slice::<serde::de::IgnoredAny>(black_box(value)).expect("JSON"));
            });
        });
    });
    group.bench_function("days", |bench| bench.iter(|| black_box(&chunk).days()));
    group.bench_function("check an output", |bench| {
        bench.iter(|| count_outcomes(EVENTS, EVENTS, black_box(&every), &[]))
    });
    group.finish();

    let page_views: Vec<_> =
        events.iter().filter(|(_, value)| value.windows(11).any(|part| part == b"\"page_view\"")).cloned().collect();
    let (chunk, ty) = (collect(&mut builder, &page_views), page_view());
    let (records, mut decoder, mut image) = (Records::new(&chunk), Decoder::default(), Image::default());
    let mut group = criterion.benchmark_group("page views");
    group.throughput(Throughput::Elements(page_views.len() as u64));
    group.bench_function("decode", |bench| {
        bench.iter(|| {
            image.clear();
            for row in 0..page_views.len() {
                decoder.decode(&ty, &records, row, &mut image, 1 << 20).expect("a page view");
            }
        });
    });
    group.finish();
}

criterion_group!(benches, inner_loops);
criterion_main!(benches);
