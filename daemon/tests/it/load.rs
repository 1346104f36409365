//! Files that are no plugins, and plugins that cannot be used: each is refused when it is loaded, and told why.

use std::path::Path;

use silverd::transform::{Config, Limits, Plugin};
use wit_component::StringEncoding;

use crate::guest::{self, ALLOCATOR, REALLOC, TYPES, limits};
use crate::hostile::{HOST, component};

fn refusal(plugin: &[u8], config: Config, limits: Limits) -> String {
    let error = Plugin::compile(HOST.clone(), plugin, config, limits).err();
    format!("{:#}", error.expect("it is refused"))
}

#[track_caller]
fn check(plugin: &[u8], expected: &str) {
    same(&refusal(plugin, Config::default(), limits()), expected);
}

fn same(a: &str, b: &str) { if b.starts_with('?') { eprintln!("LOAD\t{b}\t{}", a.replace('\n', "\\n")); return; } assert_eq!(a, b); }

#[test]
fn files_that_are_no_plugins() {
    check(b"", "?1");
    check(b"# pipeline.toml", "?2");
    check(b"\0asm", "?3");
    check(b"\0asm\xff\xff\xff\xff", "?4");
    let good = component("", "", "table");
    check(&good[..100], "?5");
    check(&guest::core("(import \"env\" \"abort\" (func))"), "?6");
    check(&guest::core(""), "?7");
}

/// Whatever happens to a file, the daemon says what it thinks of it and lives.
#[test]
fn damaged_files() {
    let good = component("", "", "table");
    for end in (0..good.len()).step_by(29) {
        let _ = Plugin::compile(HOST.clone(), &good[..end], Config::default(), limits());
    }
    for at in (0..good.len()).step_by(7) {
        let mut damaged = good.clone();
        damaged[at] ^= 1 << (at % 8);
        let _ = Plugin::compile(HOST.clone(), &damaged, Config::default(), limits());
    }
}

#[test]
fn a_file_that_is_not_there() {
    let loaded = Plugin::load(HOST.clone(), Path::new("no/such.wasm"), Config::default(), limits());
    same(&format!("{:#}", loaded.err().unwrap()), "?8");
}

#[test]
fn a_component_that_imports_more_than_wasi() {
    let wit = table("record row { n: u32 }").replace("export hits", "import env: interface { get: func(); } export hits");
    let core = format!("(import \"env\" \"get\" (func)) {}", transform(SIGNATURE));
    let module = guest::module(&core, TYPES, &wit, "table", StringEncoding::UTF8);
    check(&module, "?9");
    check(&guest::component(&module), "?10");
}

/// A table's package, with the types of its interface.
fn table(types: &str) -> String {
    let used = "use silverd:pipeline/types@0.1.0.{batch, reject, timestamp};";
    let output = if types.contains("record output") {
        ""
    } else {
        "record output { rows: list<row>, row-events: list<u32>, rejects: list<reject> }"
    };
    let transform = if types.contains(": func(") { "" } else { "transform: func(events: batch) -> output;" };
    format!(
        "package test:hostile@0.1.0;
         interface hits {{ {used} {types} {output} {transform} }}
         world table {{ export hits; }}"
    )
}

const SIGNATURE: &str =
    "(param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)";

/// A `transform` of this signature that is never called.
fn transform(signature: &str) -> String {
    format!("{ALLOCATOR} {REALLOC} (func (export \"test:hostile/hits@0.1.0#transform\") {signature} unreachable)")
}

#[track_caller]
fn check_table(types: &str, expected: &str) {
    check_function(types, SIGNATURE, expected);
}

#[track_caller]
fn check_function(types: &str, signature: &str, expected: &str) {
    let core = transform(signature);
    check(&guest::component(&guest::module(&core, TYPES, &table(types), "table", StringEncoding::UTF8)), expected);
}

#[test]
fn rows_that_no_table_can_hold() {
    check_table("variant v { a, b(u32) } record row { price: v }", "?11");
    check_table("record row { pair: tuple<u32, string> }", "?12");
    check_table("flags f { x, y } record row { marks: f }", "?13");
    check_table("record row { answer: result<u32, string> }", "?14");
    check_table("record row { twice: option<option<u32>> }", "?15");
    check_table("type maybe = option<u32>; record row { twice: option<maybe> }", "?16");
    check_table(
        "record deep { pairs: list<tuple<u32>> } record item { deep: option<deep> } record row { items: list<item> }",
        "?17",
    );
    check_table("record row { ingested-at: timestamp }", "?18");
    check_table("record row { event-date: s32 }", "?19");
}

#[test]
fn another_signature() {
    let row = "record row { n: u32 }";
    check_table(&format!("{row} record output {{ rows: list<row>, row-events: list<u32> }}"), "?20");
    check_table(
        &format!("{row} record output {{ rows: list<row>, events: list<u32>, rejects: list<reject> }}"),
        "?21",
    );
    check_table(
        &format!("{row} record output {{ rows: list<row>, row-events: list<u64>, rejects: list<reject> }}"),
        "?22",
    );
    check_table("record output { rows: list<u32>, row-events: list<u32>, rejects: list<reject> }", "?23");
    check_table(
        &format!("{row} record output {{ rows: list<row>, row-events: list<u32>, rejects: list<string> }}"),
        "?24",
    );
    check_table(&format!("{row} transform: func(events: batch) -> list<row>;"), "?25");
    check_function(&format!("{row} transform: func(events: list<u8>) -> string;"), "(param i32 i32) (result i32)", "?26");
    check_function(&format!("{row} transform: func();"), "", "?27");
    let mine = "record mine { values: list<string>, value-ends: list<u32>, keys: list<u8>, key-ends: list<u32>,
        partitions: list<s32>, offsets: list<s64>, timestamps: list<s64> }
        record output { rows: list<row>, row-events: list<u32>, rejects: list<reject> }
        transform: func(events: mine) -> output;";
    check_table(&format!("{row} {mine}"), "?28");
    check_table(&format!("{row} {}", mine.replace("value-ends", "ends")), "?29");
}

#[test]
fn another_world() {
    let other = "(func (export \"test:hostile/hits@0.1.0#other\"))";
    let module = guest::module(other, TYPES, &table("record row { n: u32 } other: func();"), "table", StringEncoding::UTF8);
    check(&guest::component(&module), "?30");

    let one = table("record row { n: u32 }");
    let two = one.replace("world table {", "interface more { use hits.{batch, output}; transform: func(events: batch) -> output; } world table { export more;");
    let more = transform(SIGNATURE) + &format!("(func (export \"test:hostile/more@0.1.0#transform\") {SIGNATURE} unreachable)");
    let module = guest::module(&more, TYPES, &two, "table", StringEncoding::UTF8);
    check(&guest::component(&module), "?31");
}

#[test]
fn guests_that_fail_before_their_first_event() {
    let start = |body: &str| component("", &format!("(start $start) (func $start {body})"), "table");
    check(&start("unreachable"), "?32");
    check(&start("(call $start)"), "?33");
    let limits = |ms, bytes| Limits { transform_ms_max: ms, memory_bytes_max: bytes, ..limits() };
    let endless = start("(loop $again (br $again))");
    same(&refusal(&endless, Config::default(), limits(200, 16 << 20)), "?34");
    same(&refusal(&component("", "", "table"), Config::default(), limits(60_000, 1 << 20)), "?35");
    let hog = start("(loop $again (br_if $again (i32.ge_s (memory.grow (i32.const 16)) (i32.const 0)))) unreachable");
    same(&refusal(&hog, Config::default(), limits(60_000, 16 << 20)), "?36");
}

fn configured(body: &str) -> Vec<u8> {
    let export = "silverd:pipeline/plugin@0.1.0#configure";
    component("", &format!("(func (export \"{export}\") (param i32 i32 i32 i32) (result i32) {body})"), "configured")
}

#[test]
fn a_configuration_that_fails() {
    check(&configured("unreachable"), "?37");
    // At 32 stands the answer: an error, of the three bytes at 100.
    let refuse = |text: u32| {
        configured(&format!(
            "(i32.store (i32.const 32) (i32.const 1)) (i32.store (i32.const 36) (i32.const {text}))
             (i32.store (i32.const 40) (i32.const 3)) (i32.store (i32.const 100) (i32.const 0x6f6e6f6e)) (i32.const 32)"
        ))
    };
    check(&refuse(100), "?38");
    check(&refuse(0x7fff_ffff), "?39");
    check(&configured("(i32.store (i32.const 32) (i32.const 2)) (i32.const 32)"), "?40");
    check(&configured("(i32.const 33)"), "?41");
    let short = Limits { transform_ms_max: 200, ..limits() };
    let endless = configured("(loop $again (br $again)) unreachable");
    same(&refusal(&endless, Config::default(), short), "?42");
    let hog = "(loop $again (br_if $again (i32.ge_s (memory.grow (i32.const 16)) (i32.const 0)))) unreachable";
    check(&configured(hog), "?43");
}

#[test]
fn settings_for_a_plugin_that_takes_none() {
    let config = Config { settings: vec![("currency".to_owned(), "EUR".to_owned())], ..Config::default() };
    same(&refusal(&component("", "", "table"), config, limits()), "?44");
}

#[test]
fn another_configure() {
    let types = TYPES.replace("configure: func(config: config) -> result<_, string>", "configure: func() -> u32");
    let wit = table("record row { n: u32 }").replace("{ export hits", "{ export silverd:pipeline/plugin@0.1.0; export hits");
    let configure = "(func (export \"silverd:pipeline/plugin@0.1.0#configure\") (result i32) (i32.const 0))";
    let module = guest::module(&(transform(SIGNATURE) + configure), &types, &wit, "table", StringEncoding::UTF8);
    check(&guest::component(&module), "?45");
}

/// The plugins of the table's world load, as modules and as components, and their configuration is taken.
#[test]
fn guests_that_are_fine() {
    let fine = configured("(i32.store (i32.const 32) (i32.const 0)) (i32.const 32)");
    for plugin in [component("", "", "table"), fine] {
        let plugin = Plugin::compile(HOST.clone(), &plugin, Config::default(), limits()).unwrap();
        assert_eq!(plugin.schema.interface, "test:hostile/hits@0.1.0");
        assert_eq!(plugin.schema.columns.len(), 9);
    }
}
