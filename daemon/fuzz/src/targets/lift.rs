//! Rows that a guest returns: what is in its memory are the bytes that are fuzzed, with all pointers, lengths and
//! discriminants.

use std::sync::LazyLock;

use arrow::array::{Array, AsArray};
use serde_json::Value;
use silverd::plugin::Rows;
use wasmtime::component::{Component, ComponentExportIndex, InstancePre, Lift, Linker};
use wasmtime::{Engine, Store};
use wit_component::StringEncoding;

use super::{guest, planted};
use cells::Cell;
use echo::exports::test::lift::rows::Row;

#[path = "../../../tests/it/lift/cells.rs"]
mod cells;

mod echo {
    wasmtime::component::bindgen!({ path: "../tests/it/fixtures/lift.wit", additional_derives: [Clone] });
}

const WIT: &str = include_str!("../../../tests/it/fixtures/lift.wit");

/// Returns as many rows as the first word of its bytes says. They begin eight bytes later.
const CODE: &str = r#"
  (func (export "test:lift/rows@0.1.0#echo") (param $at i32) (param $len i32) (result i32)
    (i32.store (i32.const 16) (i32.and (i32.add (local.get $at) (i32.const 15)) (i32.const -8)))
    (i32.store (i32.const 20) (i32.load (local.get $at)))
    (i32.const 16))
  (func (export "cabi_post_test:lift/rows@0.1.0#echo") (param i32) (call $free-all))
"#;

/// Bytes that may be copied from the guest. wasmtime's values are larger than Arrow's, so that only silverd's run out.
const BYTES_MAX: usize = 4 << 20;
const BYTES_OF_WASMTIME_MAX: usize = 64 << 20;

struct Guest {
    engine: Engine,
    pre: InstancePre<()>,
    echo: ComponentExportIndex,
}

static GUEST: LazyLock<Guest> = LazyLock::new(|| {
    let wit = WIT.replace("echo: func(rows: list<row>)", "echo: func(bytes: list<u8>)");
    assert_ne!(wit, WIT);
    let code = [guest::ALLOCATOR, guest::REALLOC, CODE].concat();
    let module = guest::module(&code, guest::TYPES, &wit, "lift", StringEncoding::UTF8);
    let engine = Engine::default();
    let component = Component::from_binary(&engine, &guest::component(&module)).expect("a component");
    let rows = component.get_export_index(None, "test:lift/rows@0.1.0").expect("the interface");
    let echo = component.get_export_index(Some(&rows), "echo").expect("the function");
    let pre = Linker::new(&engine).instantiate_pre(&component).expect("no imports");
    Guest { engine, pre, echo }
});

/// Calls the guest, whose answer is lifted as `R`. The instance is a new one, since it cannot be used after a fault.
fn call<R: Lift + 'static>(bytes: &[u8], bytes_max: usize) -> wasmtime::Result<R> {
    let Guest { engine, pre, echo } = &*GUEST;
    let mut store = Store::new(engine, ());
    store.set_hostcall_fuel(bytes_max);
    let instance = pre.instantiate(&mut store).expect("an instance");
    let echo = instance.get_typed_func::<(&[u8],), (R,)>(&mut store, echo).expect("the guest's type");
    let (answer,) = echo.call(&mut store, (bytes,))?;
    Ok(answer)
}

/// What silverd reads of a guest's memory is what wasmtime reads.
pub fn lift(bytes: &[u8]) {
    if bytes.len() < 8 {
        return;
    }
    let ours = call::<Rows>(bytes, BYTES_MAX);
    let theirs = call::<Vec<Row>>(bytes, BYTES_OF_WASMTIME_MAX);
    if let Ok(rows) = &ours {
        for column in &rows.columns {
            assert_eq!(column.len(), rows.len);
            column.to_data().validate_full().expect("a valid column");
        }
    }
    match (&ours, &theirs) {
        (Ok(ours), Ok(theirs)) => {
            let row = |row| ours.columns.iter().map(|column| cells::of_array(column, row)).collect();
            let ours: Vec<Value> = (0..ours.len).map(row).collect();
            let theirs: Vec<Value> = theirs.iter().map(Cell::json).collect();
            assert!(ours == theirs, "ours: {ours:#?}\ntheirs: {theirs:#?}");
        }
        (Ok(_), Err(error)) => {
            let error = format!("{error:#}");
            assert!(is_checked_later(&error), "silverd takes what wasmtime refuses: {error}");
        }
        (Err(error), Ok(_)) => {
            let error = format!("{error:#}");
            assert!(error.contains("hostcalls"), "silverd refuses what wasmtime takes: {error}");
        }
        (Err(_), Err(_)) => {}
    }
    planted(|| ours.is_ok_and(|rows| has_option_list_and_text(&rows)));
}

/// Whether silverd finds it when it makes the columns of the table: cases of enums and characters. The pointer of an empty list
/// is not read.
fn is_checked_later(error: &str) -> bool {
    ["unexpected discriminant", "`char`", "list pointer"].iter().any(|of| error.contains(of))
}

fn has_option_list_and_text(rows: &Rows) -> bool {
    let text = rows.columns[1].as_string::<i32>();
    let options = rows.columns[4].as_struct();
    let tags = rows.columns[11].as_list::<i32>();
    let present: usize = options.columns().iter().map(|column| column.len() - column.null_count()).sum();
    present > 0 && !tags.values().is_empty() && !text.value_data().is_empty()
}
