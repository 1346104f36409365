//! Invalid output: pointers, lengths, discriminants, UTF-8, counts of rows and rejects.

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;

use super::{OVER_BUDGET, check, invalid};
use crate::harness::guest::limits;
use crate::harness::hostile_guest::{chunk, component, transform, transformer};

/// Writes a word into the row of the event. The layout: text 0, maybe 8 and 12, note 16 and 20, kind 28, numbers 32,
/// letter 40, price 48, words 56, marks 64, grid 72. A string or list is a pointer and a length.
fn row(offset: u32, word: u32) -> String {
    format!("(i32.store offset={offset} (local.get $row) (i32.const {word:#x}))")
}

/// Writes a word into the output: rows 0, row-events 8, rejects 16.
fn output(offset: u32, word: u32) -> String {
    format!("(i32.store offset={offset} (local.get $output) (i32.const {word:#x}))")
}

/// Writes a word into the guest's scratch space.
fn scratch(at: u32, word: u32) -> String {
    format!("(i32.store (i32.const {at}) (i32.const {word:#x}))")
}

/// Rejects the event this many times, with the codes and reasons that are at 512.
fn rejects(count: u32) -> String {
    let reject = |at: u32| format!("(i32.store (i32.const {}) (local.get $event))", 512 + 16 * at);
    (0..count).map(reject).chain([output(16, 512), output(20, count)]).collect()
}

#[test]
fn invalid_strings_are_rejected() {
    check(invalid(
        row(0, 0x7fff_ffff) + &row(4, 6),
        "its answer is not valid: a string or list of 6 bytes at 0x7fffffff is outside of its memory",
    ));
    check(invalid(row(4, 0xffff_ffff), OVER_BUDGET));
    check(invalid(row(0, 0xffff_ffff) + &row(4, 0xffff_ffff), OVER_BUDGET));
    check(invalid(
        row(0, 0x40_0000) + &row(4, 1),
        "its answer is not valid: a string or list of 1 bytes at 0x400000 is outside of its memory",
    ));
    check(invalid(row(0, 16) + &row(4, 1), "its answer is not valid: a string is not UTF-8"));
    check(invalid(row(16, 1) + &row(20, 16) + &row(24, 2), "its answer is not valid: a string is not UTF-8"));
    check(invalid(row(0, 17) + &row(4, 1), "its answer is not valid: a string is not UTF-8"));
}

/// "é" in two strings: both are invalid, although the bytes of the column are valid.
#[test]
fn character_split_over_two_strings_is_rejected() {
    let halves = scratch(32, 17) + &scratch(36, 1) + &scratch(40, 18) + &scratch(44, 1);
    check(invalid(halves + &row(56, 32) + &row(60, 2), "its answer is not valid: a string is not UTF-8"));
}

#[test]
fn unknown_discriminants_are_rejected() {
    check(invalid(row(8, 2), "its answer is not valid: an option has the discriminant 2"));
    check(invalid(row(8, 255), "its answer is not valid: an option has the discriminant 255"));
    check(invalid(row(16, 2), "its answer is not valid: an option has the discriminant 2"));
    check(invalid(row(28, 3), "column `kind` has discriminant 3, which is no valid case of its enum"));
    check(invalid(row(28, 255), "column `kind` has discriminant 255, which is no valid case of its enum"));
}

#[test]
fn values_outside_their_type_are_rejected() {
    check(invalid(row(40, 0xd800), "column `letter` has 55296, which is no valid character"));
    check(invalid(row(40, 0x11_0000), "column `letter` has 1114112, which is no valid character"));
    check(invalid(row(52, 0x7fff_ffff), "column `price` has 9223372032559808512, which is no valid decimal(18,2)"));
}

#[test]
fn invalid_lists_in_rows_are_rejected() {
    check(invalid(
        row(32, 0x7fff_fff8) + &row(36, 1),
        "its answer is not valid: a list of 1 items at 0x7ffffff8 is outside of its memory of 4194304 bytes",
    ));
    check(invalid(row(32, 20) + &row(36, 1), "its answer is not valid: a list's pointer 0x14 is not aligned to 8"));
    check(invalid(
        row(32, 16) + &row(36, 0x2000_0001),
        "its answer is not valid: a list of 536870913 items at 0x10 is outside of its memory of 4194304 bytes",
    ));
    check(invalid(
        row(32, 0xffff_fff8) + &row(36, 0xffff_ffff),
        "its answer is not valid: a list of 4294967295 items at 0xfffffff8 is outside of its memory of 4194304 bytes",
    ));
    check(invalid(row(56, 18) + &row(60, 1), "its answer is not valid: a list's pointer 0x12 is not aligned to 4"));
    check(invalid(
        row(56, 32) + &row(60, 0x2000_0001),
        "its answer is not valid: a list of 536870913 items at 0x20 is outside of its memory of 4194304 bytes",
    ));
    check(invalid(
        row(64, 0x3f_ffff) + &row(68, 2),
        "its answer is not valid: a list of 2 items at 0x3fffff is outside of its memory of 4194304 bytes",
    ));
}

/// Many cells that point to the same bytes need little of the guest's memory, and would need much of the daemon's.
#[test]
fn cells_that_share_bytes_count_against_the_output_limit() {
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
    // 40,000 strings of 40 KiB: 1.6 GB, which fits into an array's 32-bit offsets.
    check(invalid(fill(at, 40 << 10, 40_000) + &row(56, at) + &row(60, 40_000), OVER_BUDGET));
    // 64 lists of half a million bytes.
    check(invalid(fill(at, 0x1_0000, 64) + &row(72, at) + &row(76, 64), OVER_BUDGET));
    // One list as long as the memory, and one within the limit, to whose small items the pointers are larger than the
    // items.
    check(invalid(row(64, 0) + &row(68, 0x40_0000), OVER_BUDGET));
    check(invalid(row(64, 0) + &row(68, 0xf_0000), OVER_BUDGET));
}

#[test]
fn invalid_list_of_rows_is_rejected() {
    check(invalid(
        output(0, 0x7fff_fff8),
        "its answer is not valid: a list of 1 items at 0x7ffffff8 is outside of its memory of 4194304 bytes",
    ));
    check(invalid(output(0, 0x404), "its answer is not valid: a list's pointer 0x404 is not aligned to 8"));
    check(invalid(
        output(0, 0x400) + &output(4, 0x40_0000),
        "its answer is not valid: a list of 4194304 items at 0x400 is outside of its memory of 4194304 bytes",
    ));
    // 80 times this is 2^32 + 64.
    check(invalid(
        output(0, 0x400) + &output(4, 0x0333_3334),
        "its answer is not valid: a list of 53687092 items at 0x400 is outside of its memory of 4194304 bytes",
    ));
    check(invalid(
        output(0, 0x400) + &output(4, 0xffff_ffff),
        "its answer is not valid: a list of 4294967295 items at 0x400 is outside of its memory of 4194304 bytes",
    ));
    check(invalid(
        "(global.set $answer (i32.const 0x7ffffff8))",
        "its answer is not valid: pointer out of bounds of memory",
    ));
    check(invalid("(global.set $answer (i32.const 18))", "its answer is not valid: return pointer not aligned"));
    check(invalid("(global.set $answer (i32.const -4))", "its answer is not valid: pointer out of bounds of memory"));
}

#[test]
fn inconsistent_row_events_and_rejects_are_rejected() {
    check(invalid(output(4, 0), "the plugin returned 0 rows and 1 row-events; each row needs one row-event"));
    check(invalid(output(12, 1_001), "the plugin returned 1 rows and 1001 row-events; each row needs one row-event"));
    check(invalid(
        scratch(32, 1_000_000) + &output(8, 32) + &output(12, 1) + &output(4, 1),
        "the plugin named event 1000000 of a batch of 1",
    ));
    check(invalid(output(8, 18), "its answer is not valid: list pointer is not aligned"));
    check(invalid(output(8, 0x7fff_fffc), "its answer is not valid: list pointer/length out of bounds of memory"));
    check(invalid(rejects(1), "the plugin rejected event 0 and also returned a row for it"));
    check(invalid(rejects(2), "the plugin rejected event 0 twice"));
    check(invalid(rejects(1) + &scratch(512, 0xffff_ffff), "the plugin named event 4294967295 of a batch of 1"));
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

/// The payload of an option that is `none` is neither read nor stored.
#[test]
fn garbage_in_a_null_cell_is_ignored() {
    let garbage = row(12, 0xdead_beef) + &row(20, 0x7fff_fff1) + &row(24, 0xffff_ffff);
    let mut guest = transformer(&component(&garbage, "", "table"), limits());
    let output = transform(&mut guest, &chunk(["poison".to_owned(), "value".to_owned()]));
    assert_eq!((output.counts.rows, output.counts.rejected), (2, 0), "{:?}", output.rejected);
    let maybe = output.rows[0].column_by_name("maybe").unwrap().as_primitive::<Int64Type>();
    assert_eq!((maybe.is_valid(0), maybe.values()[..].to_vec()), (false, vec![0, 0]));
    assert_eq!(output.rows[0].column_by_name("note").unwrap().as_string::<i32>().value_data(), b"");
}
