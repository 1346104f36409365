//! Guests that say something: lines by `wasi:logging` reach the daemon's log under the plugin's name, escaped and limited;
//! the last words before a trap reach the quarantine.

use std::io;
use std::sync::{Arc, Mutex};

use silverd::transform::{Config, Limits, Plugin, Transformer};
use silverd_core::verdict::Code;
use wit_component::StringEncoding;

use crate::guest::{self, ALLOCATOR, REALLOC, limits};
use crate::hostile::{self, HOST};

const IMPORT: &str = r#"(import "wasi:logging/logging@0.1.0-draft" "log" (func $log (param i32 i32 i32 i32 i32)))"#;

const STDERR: &str = r#"
  (import "wasi:cli/stderr@0.2.0" "get-stderr" (func $stderr (result i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush"
    (func $write (param i32 i32 i32 i32)))
"#;
/// As much of WASI as these take.
const WASI: &str = "
  package wasi:io@0.2.0 {
    interface error { resource error; }
    interface streams {
      use error.{error};
      variant stream-error { last-operation-failed(error), closed }
      resource output-stream { blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>; }
    }
  }
  package wasi:cli@0.2.0 {
    interface stderr { use wasi:io/streams@0.2.0.{output-stream}; get-stderr: func() -> output-stream; }
  }
";

/// The guest of `hostile.wat` that may log, as a core module.
fn logger(misbehave: &str) -> Vec<u8> {
    let wit = hostile::WIT.replace("world table {", "world table { import wasi:logging/logging@0.1.0-draft;");
    module(IMPORT, &wit, misbehave)
}

/// One that may write to standard error, as a component.
fn writer(misbehave: &str) -> Vec<u8> {
    let world = "world table { import wasi:cli/stderr@0.2.0; import wasi:io/streams@0.2.0;";
    guest::component(&module(STDERR, &(hostile::WIT.replace("world table {", world) + WASI), misbehave))
}

fn module(imports: &str, wit: &str, misbehave: &str) -> Vec<u8> {
    let hook = format!("(func $misbehave (param $row i32) (param $event i32) (param $output i32) {misbehave})");
    let code = [imports, ALLOCATOR, REALLOC, include_str!("fixtures/hostile.wat"), &hook].concat();
    guest::module(&code, guest::TYPES, wit, "table", StringEncoding::UTF8)
}

/// Logs the text, of level 0 (trace) to 5 (critical), in no context.
fn log(level: u32, text: &str) -> String {
    let stores = store(text);
    let call = format!(
        "(call $log (i32.const {level}) (i32.const 0) (i32.const 0) (i32.const 100) (i32.const {}))",
        text.len()
    );
    stores + &call
}

/// Writes the text to standard error.
fn write(text: &str) -> String {
    store(text) + &format!("(call $write (call $stderr) (i32.const 100) (i32.const {}) (i32.const 32))", text.len())
}

/// Puts the text where the guest keeps nothing.
fn store(text: &str) -> String {
    let store = |(at, byte)| format!("(i32.store8 (i32.const {}) (i32.const {byte}))", 100 + at);
    text.bytes().enumerate().map(store).collect()
}

/// What the log holds, and what became of the only event.
fn run(plugin: &[u8], limits: Limits) -> (String, Option<(Code, String)>) {
    let told = Told::default();
    let writer = told.clone();
    let subscriber = tracing_subscriber::fmt()
        .without_time()
        .with_ansi(false)
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(move || writer.clone())
        .finish();
    let rejected = tracing::subscriber::with_default(subscriber, || {
        let plugin = Plugin::compile(HOST.clone(), "hits", plugin, Config::default(), limits).unwrap();
        let mut transformer = Transformer::new(Arc::new(plugin));
        let verdicts = hostile::transform(&mut transformer, &hostile::chunk(["poison".to_owned()]));
        verdicts.rejected.into_iter().next().map(|reject| (reject.code, reject.reason))
    });
    let told = String::from_utf8(told.0.lock().unwrap().clone()).unwrap();
    (told, rejected)
}

#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<u8>>>);

impl io::Write for Told {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_line_is_told_with_its_plugin_and_its_level() {
    let check = |level, expected: &str| {
        let (told, rejected) = run(&logger(&log(level, "a line\n\u{1b}[2J")), limits());
        assert_eq!(rejected, None);
        let (head, digest) = told.split_once(" digest=").unwrap_or((&told, ""));
        assert_eq!(head.trim(), expected);
        assert_eq!(digest.trim().len(), if expected.is_empty() { 0 } else { 12 }, "{told}");
    };
    let line = |level: &str| {
        format!("{level} silverd::plugin: a line\\n\\u{{1b}}[2J table=hits plugin=test:hostile/hits@0.1.0")
    };
    check(0, "");
    check(1, &line("DEBUG"));
    check(2, &line("INFO"));
    check(3, &line("WARN"));
    check(4, &line("ERROR"));
    // The guest has survived it.
    check(5, &line("ERROR"));
}

#[test]
fn the_last_words_before_a_trap_are_its_reason() {
    let check = |misbehave: String, code, expected: &str| {
        let (told, rejected) = run(&logger(&misbehave), limits());
        assert_eq!(rejected, Some((code, expected.to_owned())));
        assert!(
            told.contains(&format!("no verdict on partition 0, offset 0: {}: {expected}", code.as_str())),
            "{told}"
        );
    };
    let words = log(5, "panicked at src/lib.rs:41:9: oh\nno");
    check(words.clone() + "unreachable", Code::Trap, "panicked at src/lib.rs:41:9: oh\\nno; in misbehave");
    check(
        words + "(drop (i32.div_u (i32.const 1) (i32.const 0)))",
        Code::Trap,
        "panicked at src/lib.rs:41:9: oh\\nno; it trapped: integer divide by zero in misbehave",
    );
    check(
        log(4, "not critical") + "unreachable",
        Code::Trap,
        "it trapped: wasm `unreachable` instruction executed in misbehave",
    );
}

/// It costs its deadline and no more, and only the first lines of a second are told.
#[test]
fn a_guest_that_logs_without_end() {
    let flood = format!("(loop $again {} (br $again))", log(2, "again"));
    let limits = Limits { transform_ms_max: 300, log_lines_per_second: 3, ..limits() };
    let begun = std::time::Instant::now();
    let ((told, rejected), bytes) = crate::allocation::largest(|| run(&logger(&flood), limits));
    assert_eq!(rejected.unwrap().0, Code::Timeout);
    let lines = told.lines().filter(|line| line.contains(" again table")).count() as u64;
    assert!((1..=3 * (begun.elapsed().as_secs() + 2)).contains(&lines), "{lines} lines in {:?}", begun.elapsed());
    assert!(told.contains("more lines were not told: limits.log_lines_per_second is 3"), "{told}");
    assert!(bytes < 16 << 20, "a block of {bytes} bytes");
}

#[test]
fn a_line_that_is_no_text_costs_the_line_or_the_event() {
    let at = |at: u32, len: u32| {
        format!("(call $log (i32.const 2) (i32.const 0) (i32.const 0) (i32.const {at}) (i32.const {len}))")
    };
    // At 16 the guest keeps a byte that begins no character.
    let (told, rejected) = run(&logger(&at(16, 1)), limits());
    assert_eq!(rejected, None);
    assert!(told.contains("INFO silverd::plugin: (a line that is not UTF-8) table="), "{told}");
    let (_, rejected) = run(&logger(&at(0x7fff_fff0, 100)), limits());
    assert_eq!(
        rejected,
        Some((
            Code::InvalidOutput,
            "its answer is not valid: string pointer/length out of bounds of memory".to_owned()
        ))
    );
}

/// As Rust and others do it that were not built with the SDK.
#[test]
fn what_is_written_to_standard_error() {
    let (told, rejected) = run(&writer(&write("one\ntwo \u{1b}[31m\nthr")), limits());
    assert_eq!(rejected, None);
    for line in ["WARN silverd::plugin: one table=hits", ": two \\u{1b}[31m table=hits", ": thr table=hits"] {
        assert!(told.contains(line), "{told}");
    }
    let panic =
        "thread '<unnamed>' (1) panicked at src/lib.rs:4:1:\nout of bounds\nnote: run with `RUST_BACKTRACE=1` ...\n";
    let (_, rejected) = run(&writer(&(write(panic) + "unreachable")), limits());
    let reason = "thread '<unnamed>' (1) panicked at src/lib.rs:4:1: out of bounds; in misbehave";
    assert_eq!(rejected, Some((Code::Trap, reason.to_owned())));
}

#[test]
fn a_guest_that_writes_without_end() {
    let flood = format!("(loop $again {} (br $again))", write("never a line's end"));
    let limits = Limits { transform_ms_max: 300, ..limits() };
    let ((_, rejected), bytes) = crate::allocation::largest(|| run(&writer(&flood), limits));
    assert_eq!(rejected.unwrap().0, Code::Timeout);
    assert!(bytes < 16 << 20, "a block of {bytes} bytes");
}
