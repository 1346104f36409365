//! Log lines of guests: they reach the daemon's log with the plugin's name, escaped and limited, and the last line
//! before a trap becomes the reason of the rejected event.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use silverd::plugin::{Config, Limits, Plugin, Transformer};
use silverd_core::outcome::Code;

use crate::harness::allocation::largest;
use crate::harness::guest::{self, limits};
use crate::harness::hostile_guest::{HOST, WIT, chunk, module_with_imports, transform};

const LOGGING: &str = r#"(import "wasi:logging/logging@0.1.0-draft" "log" (func $log (param i32 i32 i32 i32 i32)))"#;

const STDERR: &str = r#"
  (import "wasi:cli/stderr@0.2.0" "get-stderr" (func $stderr (result i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush"
    (func $write (param i32 i32 i32 i32)))
"#;
/// The part of WASI that these imports are from.
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

/// The hostile guest with `wasi:logging`, as a core module.
fn logger(misbehave: &str) -> Vec<u8> {
    let wit = WIT.replace("world table {", "world table { import wasi:logging/logging@0.1.0-draft;");
    module_with_imports(LOGGING, &wit, misbehave)
}

/// The hostile guest with standard error, as a component.
fn writer(misbehave: &str) -> Vec<u8> {
    let world = "world table { import wasi:cli/stderr@0.2.0; import wasi:io/streams@0.2.0;";
    guest::component(&module_with_imports(STDERR, &(WIT.replace("world table {", world) + WASI), misbehave))
}

/// Logs a text with a level from 0 (trace) to 5 (critical) and an empty context.
fn log(level: u32, text: &str) -> String {
    let stores = store(text);
    let call = format!(
        "(call $log (i32.const {level}) (i32.const 0) (i32.const 0) (i32.const 100) (i32.const {}))",
        text.len()
    );
    stores + &call
}

/// Writes a text to standard error, whose handle is stored at 40.
fn write(text: &str) -> String {
    let open = "(if (i32.eqz (i32.load (i32.const 40))) (then (i32.store (i32.const 40) (call $stderr))))";
    let (handle, len) = ("(i32.load (i32.const 40))", text.len());
    format!("{open} {} (call $write {handle} (i32.const 100) (i32.const {len}) (i32.const 48))", store(text))
}

/// Stores a text in the scratch space, at 100.
fn store(text: &str) -> String {
    let store = |(at, byte)| format!("(i32.store8 (i32.const {}) (i32.const {byte}))", 100 + at);
    text.bytes().enumerate().map(store).collect()
}

/// Transforms one event. Returns what was logged, and the reject.
fn run(plugin: &[u8], limits: Limits) -> (String, Option<(Code, String)>) {
    let log = LogBuffer::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .without_time()
        .with_ansi(false)
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(move || writer.clone())
        .finish();
    let rejected = tracing::subscriber::with_default(subscriber, || {
        let plugin = Plugin::compile(HOST.clone(), "hits", plugin, Config::default(), limits).unwrap();
        let mut guest = Transformer::new(Arc::new(plugin));
        let output = transform(&mut guest, &chunk(["poison".to_owned()]));
        output.rejected.into_iter().next().map(|reject| (reject.code, reject.reason))
    });
    let log = String::from_utf8(log.0.lock().clone()).unwrap();
    (log, rejected)
}

#[derive(Clone, Default)]
struct LogBuffer(Arc<Mutex<Vec<u8>>>);

impl io::Write for LogBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn lines_are_logged_with_plugin_and_level() {
    let check = |level, expected: &str| {
        let (log, rejected) = run(&logger(&log(level, "a line\n\u{1b}[2J")), limits());
        assert_eq!(rejected, None);
        let (head, digest) = log.split_once(" digest=").unwrap_or((&log, ""));
        assert_eq!(head.trim(), expected);
        assert_eq!(digest.trim().len(), if expected.is_empty() { 0 } else { 12 }, "{log}");
    };
    let line = |level: &str| {
        format!("{level} silverd::plugin: a line\\n\\u{{1b}}[2J table=hits plugin=test:hostile/hits@0.1.0")
    };
    check(0, "");
    check(1, &line("DEBUG"));
    check(2, &line("INFO"));
    check(3, &line("WARN"));
    check(4, &line("ERROR"));
    // The guest did not trap after its critical line.
    check(5, &line("ERROR"));
}

#[test]
fn critical_line_before_a_trap_is_the_reason() {
    let check = |misbehave: String, code, expected: &str| {
        let (log, rejected) = run(&logger(&misbehave), limits());
        assert_eq!(rejected, Some((code, expected.to_owned())));
        assert!(
            log.contains(&format!("the plugin failed on partition 0, offset 0: {}: {expected}", code.as_str())),
            "{log}"
        );
    };
    let panic = log(5, "panicked at src/lib.rs:41:9: oh\nno");
    check(panic.clone() + "unreachable", Code::Trap, "panicked at src/lib.rs:41:9: oh\\nno; in misbehave");
    check(
        panic + "(drop (i32.div_u (i32.const 1) (i32.const 0)))",
        Code::Trap,
        "panicked at src/lib.rs:41:9: oh\\nno; it trapped: integer divide by zero in misbehave",
    );
    check(
        log(4, "not critical") + "unreachable",
        Code::Trap,
        "it trapped: wasm `unreachable` instruction executed in misbehave",
    );
}

/// A guest that logs without end is stopped at its deadline, and only the first lines of each second are logged.
#[test]
fn flood_of_lines_is_limited() {
    let flood = format!("(loop $again {} (br $again))", log(2, "again"));
    let limits = Limits { transform_ms_max: 300, log_lines_per_second: 3, ..limits() };
    let started = Instant::now();
    let ((log, rejected), bytes) = largest(|| run(&logger(&flood), limits));
    assert_eq!(rejected.unwrap().0, Code::Timeout);
    let lines = log.lines().filter(|line| line.contains(" again table")).count() as u64;
    assert!((1..=3 * (started.elapsed().as_secs() + 2)).contains(&lines), "{lines} lines in {:?}", started.elapsed());
    assert!(log.contains("more lines were suppressed: limits.log_lines_per_second is 3"), "{log}");
    assert!(bytes < 16 << 20, "a block of {bytes} bytes");
}

#[test]
fn invalid_utf8_is_replaced_and_an_invalid_pointer_rejects_the_event() {
    let at = |at: u32, len: u32| {
        format!("(call $log (i32.const 2) (i32.const 0) (i32.const 0) (i32.const {at}) (i32.const {len}))")
    };
    // The byte at 16 is no valid UTF-8.
    let (log, rejected) = run(&logger(&at(16, 1)), limits());
    assert_eq!(rejected, None);
    assert!(log.contains("INFO silverd::plugin: (a line that is not UTF-8) table="), "{log}");
    let (_, rejected) = run(&logger(&at(0x7fff_fff0, 100)), limits());
    assert_eq!(
        rejected,
        Some((
            Code::InvalidOutput,
            "its answer is not valid: string pointer/length out of bounds of memory".to_owned()
        ))
    );
}

/// Guests that were not built with the SDK write their panics there.
#[test]
fn standard_error_is_logged_and_the_reason_of_a_trap() {
    let (log, rejected) = run(&writer(&write("one\ntwo \u{1b}[31m\nthr")), limits());
    assert_eq!(rejected, None);
    for line in ["WARN silverd::plugin: one table=hits", ": two \\u{1b}[31m table=hits", ": thr table=hits"] {
        assert!(log.contains(line), "{log}");
    }
    let panic =
        "thread '<unnamed>' (1) panicked at src/lib.rs:4:1:\nout of bounds\nnote: run with `RUST_BACKTRACE=1` ...\n";
    let (_, rejected) = run(&writer(&(write(panic) + "unreachable")), limits());
    let reason = "thread '<unnamed>' (1) panicked at src/lib.rs:4:1: out of bounds; in misbehave";
    assert_eq!(rejected, Some((Code::Trap, reason.to_owned())));
}

#[test]
fn standard_error_without_line_ends_is_bounded() {
    let flood = format!("(loop $again {} (br $again))", write("a line without an end"));
    let limits = Limits { transform_ms_max: 300, ..limits() };
    let ((_, rejected), bytes) = largest(|| run(&writer(&flood), limits));
    assert_eq!(rejected.unwrap().0, Code::Timeout);
    assert!(bytes < 16 << 20, "a block of {bytes} bytes");
}
