//! Files that are no plugins, and plugins that cannot be used: loading them fails with a reason.

use std::path::Path;

use silverd::plugin::{Config, Limits, Plugin};
use wit_component::StringEncoding;

use crate::harness::guest::{self, ALLOCATOR, REALLOC, TYPES_0_1 as TYPES, limits};
use crate::harness::hostile_guest::{HOST, component, module};

/// Loading the plugin fails with this message.
#[track_caller]
fn check(plugin: &[u8], expected: &str) {
    check_with(plugin, Config::default(), limits(), expected);
}

#[track_caller]
fn check_with(plugin: &[u8], config: Config, limits: Limits, expected: &str) {
    let error = Plugin::compile(HOST.clone(), "hits", plugin, config, limits).err();
    assert_eq!(format!("{:#}", error.expect("an error")), expected);
}

#[test]
fn files_that_are_no_plugins_are_rejected() {
    check(b"", "it is no WebAssembly file: its first bytes are not `\\0asm`");
    check(b"# pipeline.toml", "it is no WebAssembly file: its first bytes are not `\\0asm`");
    check(b"\0asm", "parse it: unexpected end-of-file (at offset 0x4)");
    check(b"\0asm\xff\xff\xff\xff", "parse it: unknown binary version: 0xffffffff (at offset 0x4)");
    let good = component("", "", "table");
    check(&good[..100], "read its world: unexpected end-of-file (at offset 0xb)");
    check(
        &guest::core("(import \"env\" \"abort\" (func))"),
        "it is a core module that imports `env.abort`. Build it with `cargo build --release --target \
         wasm32-unknown-unknown`, or as a component with `cargo component build --release`",
    );
    check(
        &guest::core(""),
        "the component exports no interface with a `transform` function; its world exports nothing. Expected a world \
         such as `world page-view-plugin { export silverd:pipeline/plugin@0.2.0; export page-view; }` (see \
         wit/silver/)",
    );
}

/// However a file is damaged, loading it does not panic.
#[test]
fn damaged_files_cause_no_panic() {
    let good = component("", "", "table");
    for end in (0..good.len()).step_by(29) {
        let _ = Plugin::compile(HOST.clone(), "hits", &good[..end], Config::default(), limits());
    }
    for at in (0..good.len()).step_by(7) {
        let mut damaged = good.clone();
        damaged[at] ^= 1 << (at % 8);
        let _ = Plugin::compile(HOST.clone(), "hits", &damaged, Config::default(), limits());
    }
}

#[test]
fn missing_file_is_reported() {
    let loaded = Plugin::load(HOST.clone(), "hits", Path::new("no/such.wasm"), Config::default(), limits());
    assert_eq!(
        format!("{:#}", loaded.err().unwrap()),
        "read plugin no/such.wasm: No such file or directory (os error 2)"
    );
}

#[test]
fn imports_other_than_wasi_and_logging_are_rejected() {
    let wit =
        table("record row { n: u32 }").replace("export hits", "import env: interface { get: func(); } export hits");
    let core = format!("(import \"env\" \"get\" (func)) {}", transform(SIGNATURE));
    let module = guest::module(&core, TYPES, &wit, "table", StringEncoding::UTF8);
    check(
        &module,
        "it is a core module that imports `env.get`. Build it with `cargo build --release --target \
         wasm32-unknown-unknown`, or as a component with `cargo component build --release`",
    );
    check(
        &guest::component(&module),
        "link it: a plugin may import WASI 0.2 and wasi:logging 0.1.0-draft, and nothing else: component imports \
         instance `env`, but a matching implementation was not found in the linker: instance export `get` has the \
         wrong type: function implementation is missing",
    );
}

/// The WIT package of a table, with these types in its interface.
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

const SIGNATURE: &str = "(param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)";

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
fn types_without_a_column_type_are_rejected() {
    check_table(
        "variant v { a, b(u32) } record row { price: v }",
        "field `price` of the row has type `variant`, which has no column type; use an enum for the case and an \
         option for each payload",
    );
    check_table(
        "record row { pair: tuple<u32, string> }",
        "field `pair` of the row has type `tuple`, which has no column type; use a record, whose fields have names",
    );
    check_table(
        "flags f { x, y } record row { marks: f }",
        "field `marks` of the row has type `flags`, which has no column type; use one bool for each flag",
    );
    check_table(
        "record row { answer: result<u32, string> }",
        "field `answer` of the row has type `result`, which has no column type; use an option, and a reject for the \
         error",
    );
    check_table(
        "record row { twice: option<option<u32>> }",
        "field `twice` of the row has type `option<option<…>>`, which has no column type; a column is either nullable \
         or not: use one option",
    );
    check_table(
        "type maybe = option<u32>; record row { twice: option<maybe> }",
        "field `twice` of the row has type `option<option<…>>`, which has no column type; a column is either nullable \
         or not: use one option",
    );
    check_table(
        "record deep { pairs: list<tuple<u32>> } record item { deep: option<deep> } record row { items: list<item> }",
        "field `items.element.deep.pairs.element` of the row has type `tuple`, which has no column type; use a \
         record, whose fields have names",
    );
    check_table(
        "record row { ingested-at: timestamp }",
        "the row has a field `ingested_at`, a name that silverd reserves for its own columns",
    );
    check_table(
        "record row { event-date: s32 }",
        "the row has a field `event_date`, a name that silverd reserves for its own columns",
    );
}

/// The message for an interface that differs from the contract.
fn contract_error(interface: &str, field: &str, expected: &str, found: &str) -> String {
    format!(
        "`{interface}` does not match the contract: `{field}`: expected {expected}, found {found}. Use wit/types.wit \
         and the SDK of this silverd, keep `output` and `transform` of the table's WIT file as in \
         wit/silver/page-view.wit, and build the plugin again: `cargo build --release --target wasm32-unknown-unknown`"
    )
}

/// The message for the table's interface.
fn hits(field: &str, expected: &str, found: &str) -> String {
    contract_error("test:hostile/hits@0.1.0", field, expected, found)
}

#[test]
fn other_signatures_of_transform_are_rejected() {
    let row = "record row { n: u32 }";
    let output = |fields: &str| format!("{row} record output {{ {fields} }}");
    let three = "record { rows, row-events, rejects }";
    check_table(
        &output("rows: list<row>, row-events: list<u32>"),
        &hits("output", three, "record { rows, row-events }"),
    );
    check_table(
        &output("rows: list<row>, events: list<u32>, rejects: list<reject>"),
        &hits("output", three, "record { rows, events, rejects }"),
    );
    check_table(
        &output("rows: list<row>, row-events: list<u64>, rejects: list<reject>"),
        &hits("output.row-events", "list<u32>", "list<u64>"),
    );
    check_table(
        "record output { rows: list<u32>, row-events: list<u32>, rejects: list<reject> }",
        &hits("output.rows", "a list of records", "list<u32>"),
    );
    check_table(
        &output("rows: list<row>, row-events: list<u32>, rejects: list<string>"),
        &hits("output.rejects[]", "record { event, code, reason }", "string"),
    );
    let few = "enum few { malformed, other } record mine { event: u32, code: few, reason: string }";
    check_table(
        &format!("{few} {}", output("rows: list<row>, row-events: list<u32>, rejects: list<mine>")),
        &hits(
            "output.rejects[].code",
            "enum { malformed, missing-field, out-of-range, other }",
            "enum { malformed, other }",
        ),
    );
    check_table(
        &format!("{row} transform: func(events: batch) -> list<row>;"),
        &hits("the result of transform", "record output", "list<record { n }>"),
    );
    check_function(
        &format!("{row} transform: func(events: list<u8>) -> string;"),
        "(param i32 i32) (result i32)",
        &hits("events", "`events: batch`; typed events need silverd:pipeline@0.2.0", "list<u8>"),
    );
    check_function(
        &format!("{row} transform: func();"),
        "",
        &hits("transform", "one parameter, `events: list<input>` or `events: batch`", "0 parameters"),
    );
    let mine = "record mine { values: list<string>, value-ends: list<u32>, keys: list<u8>, key-ends: list<u32>,
        partitions: list<s32>, offsets: list<s64>, timestamps: list<s64> }
        record output { rows: list<row>, row-events: list<u32>, rejects: list<reject> }
        transform: func(events: mine) -> output;";
    check_table(&format!("{row} {mine}"), &hits("events.values[]", "u8", "string"));
    check_table(
        &format!("{row} {}", mine.replace("list<string>", "list<u8>").replace("value-ends", "ends")),
        &hits("events.value-ends", "value-ends", "a field `ends`"),
    );
}

#[test]
fn worlds_without_exactly_one_transform_are_rejected() {
    let other = "(func (export \"test:hostile/hits@0.1.0#other\"))";
    let module =
        guest::module(other, TYPES, &table("record row { n: u32 } other: func();"), "table", StringEncoding::UTF8);
    check(
        &guest::component(&module),
        "the component exports no interface with a `transform` function; its world exports `test:hostile/hits@0.1.0`. \
         Expected a world such as `world page-view-plugin { export silverd:pipeline/plugin@0.2.0; export page-view; \
         }` (see wit/silver/)",
    );

    let one = table("record row { n: u32 }");
    let interface = "interface more { use hits.{batch, output}; transform: func(events: batch) -> output; }";
    let two = one.replace("world table {", &format!("{interface} world table {{ export more;"));
    let more = transform(SIGNATURE)
        + &format!("(func (export \"test:hostile/more@0.1.0#transform\") {SIGNATURE} unreachable)");
    let module = guest::module(&more, TYPES, &two, "table", StringEncoding::UTF8);
    check(
        &guest::component(&module),
        "the component exports `transform` in more than one interface (test:hostile/hits@0.1.0, \
         test:hostile/more@0.1.0); a plugin fills one table",
    );
}

#[test]
fn faults_at_the_start_are_reported() {
    let start = |body: &str| component("", &format!("(start $start) (func $start {body})"), "table");
    check(&start("unreachable"), "instantiate it: it trapped: wasm `unreachable` instruction executed in start");
    check(&start("(call $start)"), "instantiate it: it trapped: call stack exhausted in start < start < start < start");
    let limits = |ms, bytes| Limits { transform_ms_max: ms, memory_bytes_max: bytes, ..limits() };
    let endless = start("(loop $again (br $again))");
    check_with(
        &endless,
        Config::default(),
        limits(200, 16 << 20),
        "instantiate it: it ran for longer than limits.transform_time_max, 200 ms",
    );
    check_with(
        &component("", "", "table"),
        Config::default(),
        limits(60_000, 1 << 20),
        "instantiate it: it asked for 4194304 bytes of memory; limits.memory_bytes_max allows 1048576",
    );
    let hog = start("(loop $again (br_if $again (i32.ge_s (memory.grow (i32.const 16)) (i32.const 0)))) unreachable");
    check_with(
        &hog,
        Config::default(),
        limits(60_000, 16 << 20),
        "instantiate it: it asked for 17825792 bytes of memory; limits.memory_bytes_max allows 16777216",
    );
}

fn configured(body: &str) -> Vec<u8> {
    let export = "silverd:pipeline/plugin@0.1.0#configure";
    component("", &format!("(func (export \"{export}\") (param i32 i32 i32 i32) (result i32) {body})"), "configured")
}

#[test]
fn faults_in_configure_are_reported() {
    check(&configured("unreachable"), "call its `configure`: it trapped: wasm `unreachable` instruction executed");
    // The result at 32 is an error with the three bytes at 100.
    let refuse = |text: u32| {
        configured(&format!(
            "(i32.store (i32.const 32) (i32.const 1)) (i32.store (i32.const 36) (i32.const {text}))
             (i32.store (i32.const 40) (i32.const 3)) (i32.store (i32.const 100) (i32.const 0x6f6e6f6e)) (i32.const 32)"
        ))
    };
    check(&refuse(100), "it refuses its configuration: non");
    check(
        &refuse(0x7fff_ffff),
        "call its `configure`: its answer is not valid: string pointer/length out of bounds of memory",
    );
    check(
        &configured("(i32.store (i32.const 32) (i32.const 2)) (i32.const 32)"),
        "call its `configure`: its answer is not valid: invalid expected discriminant",
    );
    check(&configured("(i32.const 33)"), "call its `configure`: its answer is not valid: return pointer not aligned");
    let short = Limits { transform_ms_max: 200, ..limits() };
    let endless = configured("(loop $again (br $again)) unreachable");
    check_with(
        &endless,
        Config::default(),
        short,
        "call its `configure`: it ran for longer than limits.transform_time_max, 200 ms",
    );
    let hog = "(loop $again (br_if $again (i32.ge_s (memory.grow (i32.const 16)) (i32.const 0)))) unreachable";
    check(
        &configured(hog),
        "call its `configure`: it asked for 17825792 bytes of memory; limits.memory_bytes_max allows 16777216",
    );
}

#[test]
fn settings_need_a_plugin_with_configure() {
    let config = Config { settings: vec![("currency".to_owned(), "EUR".to_owned())], ..Config::default() };
    check_with(
        &component("", "", "table"),
        config,
        limits(),
        "pipeline.toml gives it settings or reference data, and it does not export `silverd:pipeline/plugin@0.2.0`, \
         which takes them",
    );
}

#[test]
fn other_signatures_of_configure_are_rejected() {
    let types = TYPES.replace("configure: func(config: config) -> result<_, string>", "configure: func() -> u32");
    let wit =
        table("record row { n: u32 }").replace("{ export hits", "{ export silverd:pipeline/plugin@0.1.0; export hits");
    let configure = "(func (export \"silverd:pipeline/plugin@0.1.0#configure\") (result i32) (i32.const 0))";
    let module = guest::module(&(transform(SIGNATURE) + configure), &types, &wit, "table", StringEncoding::UTF8);
    check(
        &guest::component(&module),
        &contract_error(
            "silverd:pipeline/plugin",
            "configure",
            "func(record { settings, reference }) -> result<_, string>",
            "func() -> u32",
        ),
    );
}

#[test]
fn valid_guests_are_loaded() {
    // Accepts exactly one setting: the discriminant of its result is 0 if the list has one item.
    let takes_one = configured("(i32.store (i32.const 32) (i32.ne (local.get 1) (i32.const 1))) (i32.const 32)");
    let config = Config { settings: vec![("currency".to_owned(), "EUR".to_owned())], ..Config::default() };
    let module = module("", "", "table", StringEncoding::UTF8);
    let plain = component("", "", "table");
    for (plugin, config) in [(module, Config::default()), (plain, Config::default()), (takes_one, config)] {
        let plugin = Plugin::compile(HOST.clone(), "hits", &plugin, config, limits()).unwrap();
        assert_eq!(plugin.schema.interface, "test:hostile/hits@0.1.0");
        assert_eq!(plugin.schema.columns.len(), 10);
    }
}
