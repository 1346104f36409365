//! The circuit breaker: a plugin that fails on every event is stopped, and one that fails on some is not.

use silverd::plugin::{TransformError, Transformer};
use silverd_core::breaker::{SUSPECT_AFTER, TRIP_AFTER};
use silverd_core::outcome::Code;

use super::{check_clean, check_events};
use crate::harness::guest::limits;
use crate::harness::hostile_guest::{chunk, component, transform, transformer};

/// Transforms a chunk of these values, in which the breaker trips after this many events in a row.
#[track_caller]
fn check_tripped(guest: &mut Transformer, values: &[&str], events: usize) {
    let chunk = chunk(values.iter().map(|value| (*value).to_owned()));
    let records: Vec<u32> = (0..values.len() as u32).collect();
    let tripped = match guest.transform(&chunk, &records) {
        Err(TransformError::Tripped(tripped)) => tripped,
        Err(TransformError::Failed(failure)) => panic!("{failure:#}"),
        Ok(_) => panic!("the breaker did not trip"),
    };
    assert_eq!((tripped.events, tripped.fault.code), (events, Code::Trap));
    assert_eq!(
        tripped.to_string(),
        format!(
            "the plugin fails on everything: {events} events in a row. trap on the last: it trapped: wasm `unreachable` \
             instruction executed in misbehave"
        )
    );
}

#[test]
fn plugin_that_fails_on_every_event_is_stopped() {
    let plugin = component("unreachable", "", "table");
    let mut broken = transformer(&plugin, limits());
    check_tripped(&mut broken, &["poison"; 5_000], TRIP_AFTER);
    // The next transformer of the plugin starts with its breaker, which probes at once.
    let breaker = broken.breaker().clone();
    let mut broken = transformer(&plugin, limits()).with_breaker(breaker);
    check_tripped(&mut broken, &["poison"; 5_000], TRIP_AFTER + 8);
    // A chunk without events of the table says nothing about the plugin.
    assert_eq!(transform(&mut broken, &chunk([])).counts.events, 0);
    // The first event that succeeds closes the breaker.
    check_clean(&mut broken);
    check_events(
        &mut broken,
        100,
        &[17],
        Code::Trap,
        "it trapped: wasm `unreachable` instruction executed in misbehave",
    );
    check_tripped(&mut broken, &["poison"; 20], TRIP_AFTER);
}

#[test]
fn failures_are_counted_over_several_chunks() {
    let mut broken = transformer(&component("unreachable", "", "table"), limits());
    for _ in 1..TRIP_AFTER {
        assert_eq!(transform(&mut broken, &chunk(["poison".to_owned()])).rejected.len(), 1);
    }
    check_tripped(&mut broken, &["poison"], TRIP_AFTER);
    check_tripped(&mut broken, &["poison"], TRIP_AFTER + 1);
}

/// However many events in a row fail: if one of the probes succeeds, the events are bad, and not the plugin.
#[test]
fn many_bad_events_do_not_stop_a_plugin() {
    let mut guest = transformer(&component("unreachable", "", "table"), limits());
    let reason = "it trapped: wasm `unreachable` instruction executed in misbehave";
    for bad in [SUSPECT_AFTER - 1, SUSPECT_AFTER, TRIP_AFTER, 300] {
        let poison: Vec<usize> = (500..500 + bad).collect();
        check_events(&mut guest, 1_000, &poison, Code::Trap, reason);
    }
    check_events(&mut guest, 1_000, &(0..800).collect::<Vec<_>>(), Code::Trap, reason);
}
