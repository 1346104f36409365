//! Guests that violate the canonical ABI, trap, loop or use too much memory. The events on which they do so are
//! rejected with a reason, all other events become rows, and the daemon is not affected.

mod breaker;
mod faults;
mod output;

use std::sync::{Arc, LazyLock};

use arrow::array::AsArray;
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use silverd::plugin::{Config, Plugin, Transformer};
use silverd_core::counts::Counts;
use silverd_core::outcome::Code;
use silverd_core::rows::file_schema;

use crate::harness::allocation::largest;
use crate::harness::guest::limits;
use crate::harness::hostile_guest::{HOST, chunk, component, transform, transformer};

const OVER_BUDGET: &str = "its answer is larger than limits.output_bytes_max, 1048576 bytes";

/// What the guest does on an event with "poison" in it, and why that event is rejected.
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

/// Checks a case with three such events in a thousand. No allocation of the daemon may exceed what the limits allow as
/// output.
#[track_caller]
fn check(case: Case) {
    let mut guest = transformer(&component(&case.misbehave, "", "table"), limits());
    let ((), bytes) = largest(|| check_events(&mut guest, 1_000, &[0, 499, 998], case.code, case.reason));
    assert!(bytes <= 2 * limits().output_bytes_max, "a block of {bytes} bytes, for {}", case.misbehave);
    check_clean(&mut guest);
    check_clean(&mut good_guest());
}

/// Transforms this many events, of which exactly those at `poison` are rejected. The others become rows, in order.
#[track_caller]
fn check_events(guest: &mut Transformer, events: usize, poison: &[usize], code: Code, reason: &str) {
    let value = |at: usize| if poison.contains(&at) { format!("some poison {at}") } else { format!("value {at}") };
    let chunk = chunk((0..events).map(value));
    let output = transform(guest, &chunk);
    let (rows, rejected) = ((events - poison.len()) as u64, poison.len() as u64);
    assert_eq!(output.counts, Counts { events: rows + rejected, with_rows: rows, rows, rejected, ..Counts::default() });
    for (reject, record) in output.rejected.iter().zip(poison) {
        assert_eq!((reject.record, reject.code, reject.reason.as_str()), (*record as u32, code, reason));
    }
    assert_eq!(output.rejected.len(), poison.len());
    let table = concat_batches(&file_schema(&guest.plugin().schema), &output.rows).unwrap();
    let good: Vec<usize> = (0..events).filter(|at| !poison.contains(at)).collect();
    let offsets = table.column_by_name("_offset").unwrap().as_primitive::<Int64Type>();
    assert!(offsets.values().iter().map(|offset| *offset as usize).eq(good.iter().copied()));
    assert!(table.column(0).as_string::<i32>().iter().flatten().eq(good.iter().map(|at| value(*at))));
}

/// A guest returns a row for each event without poison.
#[track_caller]
fn check_clean(guest: &mut Transformer) {
    check_events(guest, 10, &[], Code::Other, "");
}

/// A guest that never misbehaves.
fn good_guest() -> Transformer {
    static GOOD: LazyLock<Arc<Plugin>> = LazyLock::new(|| {
        let plugin = component("", "", "table");
        Arc::new(Plugin::compile(HOST.clone(), "hits", &plugin, Config::default(), limits()).unwrap())
    });
    Transformer::new(GOOD.clone())
}
