//! Faults: what a failed call says about the guest.

use silverd_core::config::Limits;
use silverd_core::outcome::Code;
use wasmtime::{Store, Trap, WasmBacktrace};

use super::guest_state::GuestState;
use crate::row_sql::SqlFault;

/// The end of wasmtime's message if an answer exceeds its budget. wasmtime keeps the type of this error private.
const HOSTCALL_FUEL_EXHAUSTED: &str = "fuel allocated for hostcalls has been exhausted";
/// How many functions of a backtrace the reason names.
const FRAMES_MAX: usize = 4;

/// Why an instance returned no valid output for a batch. The instance cannot be used again.
#[derive(Clone, Debug)]
pub struct Fault {
    pub code: Code,
    /// What the guest did, as a sentence.
    pub reason: String,
}

/// The fault of a call that failed and was allowed to take `ms` milliseconds.
pub(super) fn fault_of(store: &mut Store<GuestState>, limits: &Limits, ms: u64, error: wasmtime::Error) -> Fault {
    // A guest that is denied memory traps with `unreachable`, so the limiter is asked first.
    if let Some(requested) = store.data().memory.refused {
        let allowed = limits.memory_bytes_max;
        let reason = format!("it asked for {requested} bytes of memory; limits.memory_bytes_max allows {allowed}");
        return Fault { code: Code::Memory, reason };
    }
    let (code, reason) = match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => (Code::Timeout, timeout_reason(limits, ms)),
        Some(trap) => {
            let explanation = store.data_mut().output.take_trap_reason();
            (Code::Trap, trap_reason(explanation, *trap, &innermost_functions(&error)))
        }
        None if error.root_cause().to_string().ends_with(HOSTCALL_FUEL_EXHAUSTED) => {
            (Code::InvalidOutput, too_large(limits))
        }
        None => (Code::InvalidOutput, format!("its answer is not valid: {}", error.root_cause())),
    };
    Fault { code, reason }
}

/// The fault of a process that evaluates SQL, for a batch that was allowed to take `ms` milliseconds.
pub(super) fn sql_fault(fault: SqlFault, limits: &Limits, ms: u64) -> Fault {
    let (code, reason) = match fault {
        SqlFault::Timeout => (Code::Timeout, timeout_reason(limits, ms)),
        SqlFault::Memory => (
            Code::Memory,
            format!("its SQL needs more than limits.memory_bytes_max, {} bytes", limits.memory_bytes_max),
        ),
        SqlFault::TooLarge => (Code::InvalidOutput, too_large(limits)),
        SqlFault::Ended(how) => (Code::Trap, how),
    };
    Fault { code, reason }
}

fn too_large(limits: &Limits) -> String {
    format!("its answer is larger than limits.output_bytes_max, {} bytes", limits.output_bytes_max)
}

fn timeout_reason(limits: &Limits, ms: u64) -> String {
    let allowed = limits.transform_ms_max;
    if ms < allowed {
        return format!(
            "it ran for longer than {ms} ms, its share of the {allowed} ms that limits.transform_time_max allows a \
             batch"
        );
    }
    format!("it ran for longer than limits.transform_time_max, {ms} ms")
}

/// `explanation` is what the guest wrote before the trap.
fn trap_reason(explanation: Option<String>, trap: Trap, functions: &[String]) -> String {
    let functions = if functions.is_empty() { String::new() } else { format!(" in {}", functions.join(" < ")) };
    match (explanation, trap) {
        // This trap follows a panic in Rust and other languages: the guest's text explains it completely.
        (Some(explanation), Trap::UnreachableCodeReached) if functions.is_empty() => explanation,
        (Some(explanation), Trap::UnreachableCodeReached) => format!("{explanation};{functions}"),
        (explanation, trap) => {
            let explanation = explanation.map_or(String::new(), |explanation| format!("{explanation}; "));
            let trap = trap.to_string();
            format!("{explanation}it trapped: {}{functions}", trap.trim_start_matches("wasm trap: "))
        }
    }
}

/// The names of the innermost functions of a trap's backtrace, without those of Rust's own panic handling.
fn innermost_functions(error: &wasmtime::Error) -> Vec<String> {
    let Some(trace) = error.downcast_ref::<WasmBacktrace>() else { return Vec::new() };
    let is_runtime = |name: &String| {
        let modules = ["core::", "std::", "alloc::", "__rustc::"];
        name == "abort" || name.contains("panic") || modules.iter().any(|module| name.starts_with(module))
    };
    let names = trace.frames().iter().filter_map(|frame| frame.func_name());
    let names = names.map(|name| format!("{:#}", rustc_demangle::demangle(name)));
    names.filter(|name| !is_runtime(name)).take(FRAMES_MAX).collect()
}
