//! Guests that break the canonical ABI, trap, never end or eat memory: the events that they do it on are rejected with
//! the reason, the others come through, and the daemon lives.

use std::borrow::Cow;
use std::iter::Empty;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, AsArray};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use silverd::transform::{Config, Host, Limits, Plugin, Transformer, Tripped, Verdicts};
use silverd_core::account::Counts;
use silverd_core::breaker::{SUSPECT, TRIP};
use silverd_core::chunk::{Chunk, ChunkBuilder, Record};
use silverd_core::rows::file_schema;
use silverd_core::verdict::Code;
use wit_component::StringEncoding;

use crate::allocation::largest;
use crate::guest::{self, ALLOCATOR, REALLOC, limits};

pub static HOST: LazyLock<Arc<Host>> = LazyLock::new(|| Host::new().unwrap());
pub const WIT: &str = include_str!("fixtures/hostile.wit");

/// What the guest does to an event with "poison" in it, and what becomes of that event.
struct Case {
    misbehave: String,
    code: Code,
    reason: &'static str,
}

fn invalid(misbehave: impl Into<String>, reason: &'static str) -> Case {
    Case { misbehave: misbehave.into(), code: Code::InvalidOutput, reason }
}

fn trap(misbehave: impl Into<String>, reason: &'static str) -> Case {
    Case { misbehave: misbehave.into(), code: Code::Trap, reason }
}

const OVER_BUDGET: &str = "its answer is larger than limits.output_bytes_max, 1048576 bytes";

/// Writes a word into the row of the event. The layout: text 0, maybe 8 and 12, note 16 and 20, kind 28, numbers 32,
/// letter 40, price 48, words 56, marks 64, grid 72; a string or list is its pointer and its length.
fn row(offset: u32, word: u32) -> String {
    format!("(i32.store offset={offset} (local.get $row) (i32.const {word:#x}))")
}

/// Writes a word into the answer: rows 0, row-events 8, rejects 16.
fn output(offset: u32, word: u32) -> String {
    format!("(i32.store offset={offset} (local.get $output) (i32.const {word:#x}))")
}

/// Writes a word into the memory that the guest keeps for this.
fn scratch(at: u32, word: u32) -> String {
    format!("(i32.store (i32.const {at}) (i32.const {word:#x}))")
}

/// Gives this many rejects of the event, with code and reason as they stand at 512.
fn rejects(count: u32) -> String {
    let reject = |at: u32| format!("(i32.store (i32.const {}) (local.get $event))", 512 + 16 * at);
    (0..count).map(reject).chain([output(16, 512), output(20, count)]).collect()
}

/// The guest as a component.
pub fn component(misbehave: &str, functions: &str, world: &str) -> Vec<u8> {
    guest::component(&module(misbehave, functions, world, StringEncoding::UTF8))
}

/// The guest as a core module.
pub fn module(misbehave: &str, functions: &str, world: &str, strings: StringEncoding) -> Vec<u8> {
    let hook = format!("(func $misbehave (param $row i32) (param $event i32) (param $output i32) {misbehave})");
    // A test that lies about memory brings a `cabi_realloc` of its own.
    let realloc = if functions.contains("cabi_realloc") { "" } else { REALLOC };
    let code = [ALLOCATOR, realloc, include_str!("fixtures/hostile.wat"), &hook, functions].concat();
    guest::module(&code, guest::TYPES, WIT, world, strings)
}

fn transformer(plugin: &[u8], limits: Limits) -> Transformer {
    Transformer::new(Arc::new(Plugin::compile(HOST.clone(), "hits", plugin, Config::default(), limits).unwrap()))
}

pub fn chunk(values: impl IntoIterator<Item = String>) -> Chunk {
    let mut builder = ChunkBuilder::new("cluster".into(), "topic".into());
    for (offset, value) in values.into_iter().enumerate() {
        let headers: Empty<(Cow<str>, Option<&[u8]>)> = std::iter::empty();
        let (partition, offset, value) = (0, offset as i64, Some(value.as_bytes()));
        builder.push(offset, Record { partition, offset, timestamp: None, key: None, value, headers });
    }
    builder.finish(0)
}

pub fn transform(transformer: &mut Transformer, chunk: &Chunk) -> Verdicts {
    let records: Vec<u32> = (0..chunk.records.num_rows() as u32).collect();
    transformer.transform(chunk, &records).unwrap()
}

/// Of these events, exactly those with "poison" are rejected, and the others give their rows, in order.
#[track_caller]
fn check_events(transformer: &mut Transformer, events: usize, poison: &[usize], code: Code, reason: &str) {
    let value = |at: usize| if poison.contains(&at) { format!("some poison {at}") } else { format!("value {at}") };
    let chunk = chunk((0..events).map(value));
    let verdicts = transform(transformer, &chunk);
    let (rows, rejected) = ((events - poison.len()) as u64, poison.len() as u64);
    assert_eq!(
        verdicts.counts,
        Counts { events: rows + rejected, with_rows: rows, rows, rejected, ..Counts::default() }
    );
    for (reject, record) in verdicts.rejected.iter().zip(poison) {
        assert_eq!((reject.record, reject.code, reject.reason.as_str()), (*record as u32, code, reason));
    }
    assert_eq!(verdicts.rejected.len(), poison.len());
    let table = concat_batches(&file_schema(&transformer.plugin().schema), &verdicts.rows).unwrap();
    let innocent: Vec<usize> = (0..events).filter(|at| !poison.contains(at)).collect();
    let offsets = table.column_by_name("_offset").unwrap().as_primitive::<Int64Type>();
    assert!(offsets.values().iter().map(|offset| *offset as usize).eq(innocent.iter().copied()));
    assert!(table.column(0).as_string::<i32>().iter().flatten().eq(innocent.iter().map(|at| value(*at))));
}

/// A plugin gives a row for each event that has no poison in it.
#[track_caller]
fn check_clean(transformer: &mut Transformer) {
    check_events(transformer, 10, &[], Code::Other, "");
}

/// Three of a thousand events are poison; no room is made for more than what the limits allow to come out.
#[track_caller]
fn check(case: Case) {
    let mut transformer = transformer(&component(&case.misbehave, "", "table"), limits());
    let work = || check_events(&mut transformer, 1_000, &[0, 499, 998], case.code, case.reason);
    let ((), bytes) = largest(work);
    assert!(bytes <= 2 * limits().output_bytes_max, "a block of {bytes} bytes, for {}", case.misbehave);
    check_clean(&mut transformer);
    check_clean(&mut transformer_of_good_plugin());
}

fn transformer_of_good_plugin() -> Transformer {
    static GOOD: LazyLock<Arc<Plugin>> = LazyLock::new(|| {
        let plugin = component("", "", "table");
        Arc::new(Plugin::compile(HOST.clone(), "hits", &plugin, Config::default(), limits()).unwrap())
    });
    Transformer::new(GOOD.clone())
}

#[test]
fn strings() {
    check(invalid(
        row(0, 0x7fff_ffff) + &row(4, 6),
        "its answer is not valid: a string or list of 6 bytes at 0x7fffffff lies outside of its memory",
    ));
    check(invalid(row(4, 0xffff_ffff), OVER_BUDGET));
    check(invalid(row(0, 0xffff_ffff) + &row(4, 0xffff_ffff), OVER_BUDGET));
    check(invalid(
        row(0, 0x40_0000) + &row(4, 1),
        "its answer is not valid: a string or list of 1 bytes at 0x400000 lies outside of its memory",
    ));
    check(invalid(row(0, 16) + &row(4, 1), "its answer is not valid: a string is not UTF-8"));
    check(invalid(row(16, 1) + &row(20, 16) + &row(24, 2), "its answer is not valid: a string is not UTF-8"));
    check(invalid(row(0, 17) + &row(4, 1), "its answer is not valid: a string is not UTF-8"));
}

/// "é" cut in two: both halves are invalid, and the column's bytes are not.
#[test]
fn a_character_over_two_strings() {
    let halves = scratch(32, 17) + &scratch(36, 1) + &scratch(40, 18) + &scratch(44, 1);
    check(invalid(halves + &row(56, 32) + &row(60, 2), "its answer is not valid: a string is not UTF-8"));
}

#[test]
fn discriminants() {
    check(invalid(row(8, 2), "its answer is not valid: an option has the discriminant 2"));
    check(invalid(row(8, 255), "its answer is not valid: an option has the discriminant 255"));
    check(invalid(row(16, 2), "its answer is not valid: an option has the discriminant 2"));
    check(invalid(row(28, 3), "column `kind` has discriminant 3, which is no case of its enum"));
    check(invalid(row(28, 255), "column `kind` has discriminant 255, which is no case of its enum"));
}

#[test]
fn values_that_their_type_has_not() {
    check(invalid(row(40, 0xd800), "column `letter` has 55296, which is no character"));
    check(invalid(row(40, 0x11_0000), "column `letter` has 1114112, which is no character"));
    check(invalid(row(52, 0x7fff_ffff), "column `price` has 9223372032559808512, which is no decimal(18,2)"));
}

#[test]
fn lists_in_rows() {
    check(invalid(
        row(32, 0x7fff_fff8) + &row(36, 1),
        "its answer is not valid: a list of 1 items at 0x7ffffff8 lies outside of its memory of 4194304 bytes",
    ));
    check(invalid(row(32, 20) + &row(36, 1), "its answer is not valid: a list's pointer 0x14 is not aligned to 8"));
    check(invalid(
        row(32, 16) + &row(36, 0x2000_0001),
        "its answer is not valid: a list of 536870913 items at 0x10 lies outside of its memory of 4194304 bytes",
    ));
    check(invalid(
        row(32, 0xffff_fff8) + &row(36, 0xffff_ffff),
        "its answer is not valid: a list of 4294967295 items at 0xfffffff8 lies outside of its memory of 4194304 bytes",
    ));
    check(invalid(row(56, 18) + &row(60, 1), "its answer is not valid: a list's pointer 0x12 is not aligned to 4"));
    check(invalid(
        row(56, 32) + &row(60, 0x2000_0001),
        "its answer is not valid: a list of 536870913 items at 0x20 lies outside of its memory of 4194304 bytes",
    ));
    check(invalid(
        row(64, 0x3f_ffff) + &row(68, 2),
        "its answer is not valid: a list of 2 items at 0x3fffff lies outside of its memory of 4194304 bytes",
    ));
}

/// Many cells of the same bytes, which are few in the guest's memory and would be many in the daemon's.
#[test]
fn the_same_bytes_many_times() {
    let fill = |at: u32, len: u32, pairs: u32| {
        format!(
            "(local $at i32) (local.set $at (i32.const {at}))
             (loop $next
               (i32.store (local.get $at) (i32.const 0))
               (i32.store offset=4 (local.get $at) (i32.const {len}))
               (local.set $at (i32.add (local.get $at) (i32.const 8)))
               (br_if $next (i32.lt_u (local.get $at) (i32.const {}))))",
            at + pairs * 8
        )
    };
    let at = 0x20_0000;
    // 100,000 strings of 40 KiB: 4 GB.
    check(invalid(fill(at, 40 << 10, 100_000) + &row(56, at) + &row(60, 100_000), OVER_BUDGET));
    // 40,000 strings of 40 KiB: 1.6 GB, which an array's offsets could count.
    check(invalid(fill(at, 40 << 10, 40_000) + &row(56, at) + &row(60, 40_000), OVER_BUDGET));
    // 64 lists of half a million bytes.
    check(invalid(fill(at, 0x1_0000, 64) + &row(72, at) + &row(76, 64), OVER_BUDGET));
    // One list as long as the memory, and one that is within the budget, whose items are small; pointers to them are not.
    check(invalid(row(64, 0) + &row(68, 0x40_0000), OVER_BUDGET));
    check(invalid(row(64, 0) + &row(68, 0xf_0000), OVER_BUDGET));
}

#[test]
fn the_rows_themselves() {
    check(invalid(
        output(0, 0x7fff_fff8),
        "its answer is not valid: a list of 1 items at 0x7ffffff8 lies outside of its memory of 4194304 bytes",
    ));
    check(invalid(output(0, 0x404), "its answer is not valid: a list's pointer 0x404 is not aligned to 8"));
    check(invalid(
        output(0, 0x400) + &output(4, 0x40_0000),
        "its answer is not valid: a list of 4194304 items at 0x400 lies outside of its memory of 4194304 bytes",
    ));
    // 80 times this is 2^32 + 64.
    check(invalid(
        output(0, 0x400) + &output(4, 0x0333_3334),
        "its answer is not valid: a list of 53687092 items at 0x400 lies outside of its memory of 4194304 bytes",
    ));
    check(invalid(
        output(0, 0x400) + &output(4, 0xffff_ffff),
        "its answer is not valid: a list of 4294967295 items at 0x400 lies outside of its memory of 4194304 bytes",
    ));
    check(invalid(
        "(global.set $answer (i32.const 0x7ffffff8))",
        "its answer is not valid: pointer out of bounds of memory",
    ));
    check(invalid("(global.set $answer (i32.const 18))", "its answer is not valid: return pointer not aligned"));
    check(invalid("(global.set $answer (i32.const -4))", "its answer is not valid: pointer out of bounds of memory"));
}

#[test]
fn the_verdicts_on_events() {
    check(invalid(output(4, 0), "it gave 0 rows and 1 row-events; there must be one row-event for each row"));
    check(invalid(output(12, 1_001), "it gave 1 rows and 1001 row-events; there must be one row-event for each row"));
    check(invalid(
        scratch(32, 1_000_000) + &output(8, 32) + &output(12, 1) + &output(4, 1),
        "it named event 1000000 of a batch of 1",
    ));
    check(invalid(output(8, 18), "its answer is not valid: list pointer is not aligned"));
    check(invalid(output(8, 0x7fff_fffc), "its answer is not valid: list pointer/length out of bounds of memory"));
    check(invalid(rejects(1), "it both rejected event 0 and made a row of it"));
    check(invalid(rejects(2), "it rejected event 0 twice"));
    check(invalid(rejects(1) + &scratch(512, 0xffff_ffff), "it named event 4294967295 of a batch of 1"));
    check(invalid(rejects(1) + &scratch(516, 4), "its answer is not valid: unexpected discriminant: 4"));
    check(invalid(
        rejects(1) + &scratch(520, 16) + &scratch(524, 1),
        "its answer is not valid: invalid utf-8 sequence of 1 bytes from index 0",
    ));
    check(invalid(
        rejects(1) + &scratch(520, 0x7fff_ffff) + &scratch(524, 1),
        "its answer is not valid: string pointer/length out of bounds of memory",
    ));
    check(invalid(output(16, 0) + &output(20, 0x3_ffff), OVER_BUDGET));
    check(invalid(
        output(16, 0x7fff_fffc) + &output(20, 1),
        "its answer is not valid: list pointer/length out of bounds of memory",
    ));
}

#[test]
fn traps() {
    check(trap("unreachable", "it trapped: wasm `unreachable` instruction executed in misbehave"));
    check(trap("(drop (i32.div_u (i32.const 1) (i32.const 0)))", "it trapped: integer divide by zero in misbehave"));
    check(trap("(drop (i32.load (i32.const -4)))", "it trapped: out of bounds memory access in misbehave"));
    check(trap(
        "(call $misbehave (local.get 0) (local.get 1) (local.get 2))",
        "it trapped: call stack exhausted in misbehave < misbehave < misbehave < misbehave",
    ));
    // A well-formed answer, and a trap when the host has read it.
    check(trap("(global.set $answer (i32.const 96))", "it trapped: wasm `unreachable` instruction executed in post"));
}

/// What a guest does on its own account, and not on an event's, is told of each event.
#[track_caller]
fn check_always(functions: &str, code: Code, reason: &str) {
    let mut transformer = transformer(&component("", functions, "table"), limits());
    check_events(&mut transformer, 2, &[0, 1], code, reason);
    check_clean(&mut transformer_of_good_plugin());
}

#[test]
fn allocators_that_lie() {
    let realloc = |body: &str| format!("(func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) {body})");
    check_always(
        &realloc("(i32.const 0x7ffffff8)"),
        Code::InvalidOutput,
        "its answer is not valid: realloc return: beyond end of memory",
    );
    check_always(
        &realloc("(i32.const 0x3ffffc)"),
        Code::InvalidOutput,
        "its answer is not valid: realloc return: beyond end of memory",
    );
    check_always(
        &realloc("(i32.const 0x401)"),
        Code::InvalidOutput,
        "its answer is not valid: realloc return: result not aligned",
    );
    check_always(&realloc("unreachable"), Code::Trap, "it trapped: wasm `unreachable` instruction executed");
}

#[test]
fn strings_that_are_not_utf8_by_their_own_word() {
    let plugin = guest::component(&module("", "", "table", StringEncoding::UTF16));
    check_events(
        &mut transformer(&plugin, limits()),
        2,
        &[0, 1],
        Code::InvalidOutput,
        "its answer is not valid: its strings are not UTF-8",
    );
}

#[test]
fn an_endless_loop() {
    let limits = Limits { transform_ms_max: 300, ..limits() };
    let mut transformer = transformer(&component("(loop $again (br $again))", "", "table"), limits);
    check_events(
        &mut transformer,
        8,
        &[5],
        Code::Timeout,
        "it ran for longer than 100 ms, its share of the 300 ms that limits.transform_ms_max allows a batch",
    );
    check_clean(&mut transformer_of_good_plugin());
}

#[test]
fn a_memory_hog() {
    let hog = "(loop $again (br_if $again (i32.ge_s (memory.grow (i32.const 16)) (i32.const 0)))) unreachable";
    let limits = Limits { memory_bytes_max: 6 << 20, ..limits() };
    let mut transformer = transformer(&component(hog, "", "table"), limits);
    check_events(
        &mut transformer,
        1_000,
        &[3, 4, 999],
        Code::Memory,
        "it asked for 7340032 bytes of memory; limits.memory_bytes_max allows 6291456",
    );
    check_clean(&mut transformer_of_good_plugin());
}

/// What lies under a null is the guest's own affair: it is neither followed nor kept.
#[test]
fn garbage_under_a_null() {
    let garbage = row(12, 0xdead_beef) + &row(20, 0x7fff_fff1) + &row(24, 0xffff_ffff);
    let mut transformer = transformer(&component(&garbage, "", "table"), limits());
    let verdicts = transform(&mut transformer, &chunk(["poison".to_owned(), "value".to_owned()]));
    assert_eq!((verdicts.counts.rows, verdicts.counts.rejected), (2, 0), "{:?}", verdicts.rejected);
    let maybe = verdicts.rows[0].column_by_name("maybe").unwrap().as_primitive::<Int64Type>();
    assert_eq!((maybe.is_valid(0), maybe.values()[..].to_vec()), (false, vec![0, 0]));
    assert_eq!(verdicts.rows[0].column_by_name("note").unwrap().as_string::<i32>().value_data(), b"");
}

/// Gives the chunk of these values up, after so many events.
#[track_caller]
fn check_tripped(transformer: &mut Transformer, values: &[&str], events: usize) {
    let chunk = chunk(values.iter().map(|value| (*value).to_owned()));
    let records: Vec<u32> = (0..values.len() as u32).collect();
    let failure = transformer.transform(&chunk, &records).err().expect("the plugin is given up");
    let tripped = failure.downcast_ref::<Tripped>().expect("because it fails on everything");
    assert_eq!((tripped.events, tripped.fault.code), (events, Code::Trap));
    assert_eq!(
        failure.to_string(),
        format!(
            "the plugin fails on everything: {events} events in a row. trap on the last: it trapped: wasm `unreachable` \
             instruction executed in misbehave"
        )
    );
}

#[test]
fn a_plugin_that_fails_on_everything_is_given_up() {
    let plugin = component("unreachable", "", "table");
    let mut broken = transformer(&plugin, limits());
    check_tripped(&mut broken, &["poison"; 5_000], TRIP);
    // It is remembered, also by the next transformer. Others are probed at once.
    let breaker = broken.breaker().clone();
    let mut broken = transformer(&plugin, limits()).with_breaker(breaker);
    check_tripped(&mut broken, &["poison"; 5_000], TRIP + 8);
    // A chunk without events of the table says nothing of the plugin.
    assert_eq!(transform(&mut broken, &chunk([])).counts.events, 0);
    // The first event that succeeds, and all is forgotten.
    check_clean(&mut broken);
    check_events(
        &mut broken,
        100,
        &[17],
        Code::Trap,
        "it trapped: wasm `unreachable` instruction executed in misbehave",
    );
    check_tripped(&mut broken, &["poison"; 20], TRIP);
}

#[test]
fn small_chunks_add_up() {
    let mut broken = transformer(&component("unreachable", "", "table"), limits());
    for _ in 1..TRIP {
        assert_eq!(transform(&mut broken, &chunk(["poison".to_owned()])).rejected.len(), 1);
    }
    check_tripped(&mut broken, &["poison"], TRIP);
    check_tripped(&mut broken, &["poison"], TRIP + 1);
}

/// However many bad events stand in a row: where the probes find a good one, the plugin is not to blame.
#[test]
fn many_bad_events_are_no_bad_plugin() {
    let mut transformer = transformer(&component("unreachable", "", "table"), limits());
    let reason = "it trapped: wasm `unreachable` instruction executed in misbehave";
    for bad in [SUSPECT - 1, SUSPECT, TRIP, 300] {
        let poison: Vec<usize> = (500..500 + bad).collect();
        check_events(&mut transformer, 1_000, &poison, Code::Trap, reason);
    }
    check_events(&mut transformer, 1_000, &(0..800).collect::<Vec<_>>(), Code::Trap, reason);
}
