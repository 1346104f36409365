use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const MINUTE_MS: u64 = 60_000;
const RULE: AlertRule = AlertRule { for_ms: 2 * MINUTE_MS, repeat_ms: Some(10 * MINUTE_MS), resolved: true };

fn receivers(names: &[&str]) -> Vec<Box<str>> {
    names.iter().map(|name| Box::from(*name)).collect()
}

fn is_true(summary: &str) -> Seen {
    Seen::True(Report { summary: summary.to_owned(), values: Map::new() })
}

/// Evaluates at these minutes; each but the first follows on the one before it in the same process.
fn evaluate(state: &mut AlertState, rule: &AlertRule, seen: Seen, minute: i64, elapsed_minutes: Option<u64>) {
    let moment =
        Moment { now_ms: minute * MINUTE_MS as i64, elapsed_ms: elapsed_minutes.map(|minutes| minutes * MINUTE_MS) };
    state.step(rule, seen, &receivers(&["shop"]), moment);
}

/// Takes what is owed: the state, the minute of `since`, and the number.
fn take_owed(state: &mut AlertState) -> Vec<(NotifiedState, i64, u32)> {
    let mut taken = Vec::new();
    while let Some(owed) = state.owed().cloned() {
        taken.push((owed.state, owed.since_ms / MINUTE_MS as i64, owed.repeat));
        state.notified();
    }
    taken
}

#[test]
fn an_alert_is_pending_fires_repeats_and_is_resolved() {
    let mut state = AlertState::default();
    let mut check = |seen: Seen, minute: i64, phase: PhaseName, owed: &[(NotifiedState, i64, u32)]| {
        evaluate(&mut state, &RULE, seen, minute, Some(1));
        assert_eq!(state.phase().name(), phase, "minute {minute}");
        assert_eq!(take_owed(&mut state), owed, "minute {minute}");
    };
    check(Seen::False, 0, PhaseName::Inactive, &[]);
    check(is_true("a"), 1, PhaseName::Pending, &[]);
    check(is_true("b"), 2, PhaseName::Pending, &[]);
    check(is_true("c"), 3, PhaseName::Firing, &[(NotifiedState::Firing, 3, 0)]);
    check(is_true("d"), 12, PhaseName::Firing, &[]);
    check(is_true("e"), 13, PhaseName::Firing, &[(NotifiedState::Firing, 3, 1)]);
    check(Seen::Unknown, 30, PhaseName::Firing, &[]);
    check(Seen::False, 31, PhaseName::Resolved, &[(NotifiedState::Resolved, 3, 0)]);
    check(Seen::Unknown, 32, PhaseName::Resolved, &[]);
    check(is_true("f"), 33, PhaseName::Pending, &[]);
    check(Seen::False, 34, PhaseName::Inactive, &[]);
}

#[test]
fn without_for_it_fires_at_once() {
    let rule = AlertRule { for_ms: 0, repeat_ms: None, resolved: false };
    let mut state = AlertState::default();
    evaluate(&mut state, &rule, is_true("a"), 1, None);
    evaluate(&mut state, &rule, is_true("a"), 100_000, Some(1));
    assert_eq!(take_owed(&mut state), [(NotifiedState::Firing, 1, 0)], "and is never repeated");
    evaluate(&mut state, &rule, Seen::False, 100_001, Some(1));
    assert_eq!(state.phase().name(), PhaseName::Resolved);
    assert!(state.owed().is_none(), "its end is not notified");
}

#[test]
fn what_was_not_seen_does_not_count_for_the_time() {
    let mut state = AlertState::default();
    evaluate(&mut state, &RULE, is_true("a"), 0, None);
    evaluate(&mut state, &RULE, Seen::Unknown, 1, Some(1));
    evaluate(&mut state, &RULE, is_true("a"), 5, Some(4));
    assert_eq!(state.phase().name(), PhaseName::Pending, "the condition was not known in between");
    // A restart: the first evaluation of a process.
    evaluate(&mut state, &RULE, is_true("a"), 100, None);
    assert_eq!(state.phase().name(), PhaseName::Pending, "nothing was evaluated in between");
    evaluate(&mut state, &RULE, is_true("a"), 101, Some(1));
    evaluate(&mut state, &RULE, is_true("a"), 102, Some(1));
    assert_eq!(state.phase().name(), PhaseName::Firing);
}

#[test]
fn a_clock_that_steps_makes_nothing_fire_early_and_delays_no_repeat_for_good() {
    let mut state = AlertState::default();
    evaluate(&mut state, &RULE, is_true("a"), 0, Some(1));
    evaluate(&mut state, &RULE, is_true("a"), 10_000, Some(1));
    assert_eq!(state.phase().name(), PhaseName::Pending, "forwards");
    evaluate(&mut state, &RULE, is_true("a"), 10_001, Some(1));
    assert_eq!(take_owed(&mut state), [(NotifiedState::Firing, 10_001, 0)]);
    evaluate(&mut state, &RULE, is_true("a"), 50, Some(1));
    assert!(state.owed().is_none(), "backwards");
    evaluate(&mut state, &RULE, is_true("a"), 60, Some(10));
    assert_eq!(take_owed(&mut state), [(NotifiedState::Firing, 10_001, 1)]);
    // Another firing has another beginning, whatever the clock says.
    evaluate(&mut state, &RULE, Seen::False, 61, Some(1));
    let rule = AlertRule { for_ms: 0, ..RULE };
    evaluate(&mut state, &rule, is_true("b"), 62, Some(1));
    let Phase::Firing { since_ms, .. } = state.phase() else { panic!("{state:?}") };
    assert_eq!(*since_ms, 10_001 * MINUTE_MS as i64 + 1);
}

#[test]
fn its_end_is_notified_to_those_who_know_of_it() {
    let mut state = AlertState::default();
    let rule = AlertRule { for_ms: 0, ..RULE };
    let at = |minute: i64| Moment { now_ms: minute * MINUTE_MS as i64, elapsed_ms: Some(MINUTE_MS) };
    let mut all = Vec::new();
    // `notify` is edited meanwhile.
    for (seen, names, minute) in
        [(is_true("a"), &["shop"][..], 0), (is_true("a"), &["shop", "night"][..], 10), (Seen::False, &[][..], 11)]
    {
        state.step(&rule, seen, &receivers(names), at(minute));
        while let Some(owed) = state.owed().cloned() {
            all.push((owed.state, owed.receivers.len()));
            state.notified();
        }
    }
    assert_eq!(all, [(NotifiedState::Firing, 1), (NotifiedState::Firing, 2), (NotifiedState::Resolved, 2)]);
}

#[test]
fn nobody_is_owed_anything_without_receivers() {
    let mut state = AlertState::default();
    let moment = Moment { now_ms: 0, elapsed_ms: None };
    let transition = state.step(&AlertRule { for_ms: 0, ..RULE }, is_true("a"), &[], moment);
    assert_eq!(transition, Some(Transition { from: PhaseName::Inactive, to: PhaseName::Firing }));
    assert_eq!(state.owed(), None);
}

#[test]
fn an_alert_that_owes_much_keeps_its_phase() {
    let rule = AlertRule { for_ms: 0, ..RULE };
    let mut state = AlertState::default();
    for minute in 0..100 {
        let seen = if minute % 2 == 0 { is_true("a") } else { Seen::False };
        evaluate(&mut state, &rule, seen, minute, Some(1));
    }
    let owed = take_owed(&mut state);
    assert!(owed.len() <= OWED_MAX && owed.len() >= OWED_MAX - 2, "{owed:?}");
    evaluate(&mut state, &rule, Seen::False, 101, Some(1));
    evaluate(&mut state, &rule, is_true("a"), 102, Some(1));
    assert_eq!(state.phase().name(), PhaseName::Firing);
}

#[test]
fn a_state_is_stored_and_read() {
    let mut state = AlertState::default();
    for minute in 0..5 {
        let stored = serde_json::to_string(&state).expect("a text");
        assert_eq!(serde_json::from_str::<AlertState>(&stored).expect(&stored), state);
        evaluate(&mut state, &RULE, is_true("a"), minute, Some(1));
    }
    assert!(state.owed().is_some());
    let resolved: AlertState =
        serde_json::from_str(r#"{"phase": "resolved", "since_ms": 1, "at_ms": 2}"#).expect("a state");
    assert_eq!(resolved.phase(), &Phase::Resolved { since_ms: 1, at_ms: 2 });
}

/// What happens to an alert and to the silverd that evaluates it.
#[derive(Debug, Clone)]
enum Event {
    Evaluated(Option<bool>, u64),
    /// The clock is set.
    Stepped(i64),
    /// Killed, and started again: before the state is stored, before or after a notification was taken.
    Killed(KilledBefore),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum KilledBefore {
    Store,
    Taken,
    Recorded,
}

fn event() -> impl Strategy<Value = Event> {
    let killed = prop_oneof![Just(KilledBefore::Store), Just(KilledBefore::Taken), Just(KilledBefore::Recorded)];
    let seen = prop::option::weighted(0.9, any::<bool>());
    prop_oneof![
        6 => (seen, 1..5u64).prop_map(|(seen, minutes)| Event::Evaluated(seen, minutes)),
        1 => (-30..30i64).prop_map(Event::Stepped),
        2 => killed.prop_map(Event::Killed),
    ]
}

/// By the id of a notification: how often it was taken, and with which content.
type Outbox = BTreeMap<(bool, i64, u32), (usize, Owed)>;

fn take(outbox: &mut Outbox, owed: &Owed) {
    let id = (owed.state == NotifiedState::Firing, owed.since_ms, owed.repeat);
    let (times, known) = outbox.entry(id).or_insert_with(|| (0, owed.clone()));
    *times += 1;
    assert_eq!(known, owed, "another content with the same id");
}

proptest! {
    /// Whatever the restarts: no alert fires early, each firing is notified once for each number, and its end once.
    #[test]
    fn notifications_follow_from_the_states_that_were_stored(events in prop::collection::vec(event(), 1..120)) {
        let (mut stored, mut outbox) = (AlertState::default(), Outbox::new());
        let (mut now_ms, mut is_first, mut doubled) = (1_000 * MINUTE_MS as i64, true, 0);
        // By the beginning of each firing that was stored: the highest number, and whether it has ended.
        let mut firings: BTreeMap<i64, (u32, bool)> = BTreeMap::new();
        // For how long the condition was seen to be true without a break, in this process and those before it.
        let (mut held_ms, mut was_true) = (0, false);
        let mut killed = None;
        for event in events {
            match event {
                Event::Stepped(minutes) => now_ms += minutes * MINUTE_MS as i64,
                Event::Killed(before) => killed = Some(before),
                Event::Evaluated(seen, minutes) => {
                    now_ms += (minutes * MINUTE_MS) as i64;
                    let mut state = stored.clone();
                    let elapsed_ms = (!is_first).then_some(minutes * MINUTE_MS);
                    let (held_before, true_before) = (held_ms, was_true);
                    match seen {
                        Some(true) => held_ms += elapsed_ms.filter(|_| was_true).unwrap_or(0),
                        Some(false) => held_ms = 0,
                        None => {}
                    }
                    was_true = seen == Some(true);
                    let seen = match seen {
                        Some(true) => is_true("a"),
                        Some(false) => Seen::False,
                        None => Seen::Unknown,
                    };
                    let phase_before = state.phase().name();
                    state.step(&RULE, seen, &receivers(&["shop"]), Moment { now_ms, elapsed_ms });
                    if phase_before != PhaseName::Firing && state.phase().name() == PhaseName::Firing {
                        prop_assert!(held_ms >= RULE.for_ms, "{held_ms} ms");
                    }
                    if killed == Some(KilledBefore::Store) {
                        (held_ms, was_true, is_first, killed) = (held_before, true_before, true, None);
                        continue;
                    }
                    stored = state.clone();
                    match stored.phase() {
                        Phase::Firing { since_ms, repeat, .. } => {
                            firings.insert(*since_ms, (*repeat, false));
                        }
                        Phase::Resolved { since_ms, .. } => {
                            let ended = firings.get_mut(since_ms).expect("a firing before its end");
                            ended.1 = true;
                        }
                        Phase::Inactive | Phase::Pending { .. } => {}
                    }
                    while let Some(owed) = state.owed().cloned() {
                        if killed == Some(KilledBefore::Taken) {
                            break;
                        }
                        take(&mut outbox, &owed);
                        if killed == Some(KilledBefore::Recorded) {
                            doubled += 1;
                            break;
                        }
                        state.notified();
                        stored = state.clone();
                    }
                    is_first = killed.take().is_some();
                }
            }
        }
        // The next start hands over what is left.
        while let Some(owed) = stored.owed().cloned() {
            take(&mut outbox, &owed);
            stored.notified();
        }
        for (since_ms, (repeat, has_ended)) in &firings {
            for number in 0..=*repeat {
                prop_assert!(outbox.contains_key(&(true, *since_ms, number)), "number {} of {}", number, since_ms);
            }
            prop_assert_eq!(outbox.contains_key(&(false, *since_ms, 0)), *has_ended);
        }
        let of_firing = |(repeat, has_ended): &(u32, bool)| *repeat as usize + 1 + usize::from(*has_ended);
        let numbers: usize = firings.values().map(of_firing).sum();
        prop_assert_eq!(outbox.len(), numbers, "a notification of no firing");
        let again: usize = outbox.values().map(|(times, _)| times - 1).sum();
        prop_assert!(again <= doubled, "{} repeats, but {} kills between taking and recording", again, doubled);
    }
}
