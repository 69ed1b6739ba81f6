use std::sync::LazyLock;

use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::ids::{Epoch, Millis, Revision};

mod exactly_once;

/// A client whose chance is always the same: it waits half of the longest pause.
fn machine(now: Instant) -> Machine {
    let mut ids = 1 << 127;
    let chance = move || {
        ids += 1;
        ids
    };
    Machine::new(now, Box::new(chance))
}

fn after(start: Instant, seconds: f64) -> Instant {
    start + Duration::from_secs_f64(seconds)
}

/// By clocks that agree.
fn moment(now: Instant) -> Moment {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let since_start = now.saturating_duration_since(*START);
    let millis = u64::try_from(since_start.as_millis()).unwrap();
    Moment {
        monotonic: now,
        wall: Millis(millis),
    }
}

fn epoch(number: u128) -> Epoch {
    Epoch(Uuid::from_u128(number))
}

fn say(machine: &mut Machine, now: Instant, message: serde_json::Value) {
    machine.heard(moment(now), message.to_string().as_bytes());
}

fn effects(machine: &mut Machine) -> Vec<Effect> {
    std::iter::from_fn(|| machine.next_effect()).collect()
}

/// The id of the connection that the machine wants now.
fn opens(machine: &mut Machine) -> ClientId {
    match effects(machine).last() {
        Some(Effect::Open(id)) => *id,
        other => panic!("it wants no connection: {other:?}"),
    }
}

fn welcome(id: ClientId, life: u128, n: u64) -> serde_json::Value {
    json!({"type": "welcome", "client": id, "epoch": epoch(life), "rev": 40, "n": n, "window": 3,
        "refused": [], "beat_ms": 1000})
}

fn state(life: u128, rev: u64) -> serde_json::Value {
    json!({"type": "state", "epoch": epoch(life), "rev": rev, "value": 7})
}

/// A machine with an open connection that knows the state.
fn live(now: Instant) -> (Machine, ClientId) {
    let mut machine = machine(now);
    let id = reconnect(&mut machine, now, 1, 0);
    (machine, id)
}

fn reconnect(machine: &mut Machine, now: Instant, life: u128, n: u64) -> ClientId {
    machine.due(now);
    let id = opens(machine);
    machine.opened(now);
    say(machine, now, welcome(id, life, n));
    say(machine, now, state(life, 40));
    id
}

fn submit(machine: &mut Machine, ticket: u64) {
    let action = Action::new(&json!({"action": "plus"})).unwrap();
    machine.submit(Ticket(ticket), action, None);
}

fn sent(machine: &mut Machine, now: Instant) -> Vec<u64> {
    let texts = std::iter::from_fn(|| machine.next_message(moment(now)));
    texts
        .map(|text| {
            let message: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(message["action"], "plus");
            message["n"].as_u64().unwrap()
        })
        .collect()
}

fn told(machine: &mut Machine) -> Vec<(u64, Outcome)> {
    effects(machine)
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Tell(Ticket(ticket), outcome) => Some((ticket, outcome)),
            _ => None,
        })
        .collect()
}

fn accepted(life: u128, rev: u64) -> Outcome {
    Outcome::Judged(Verdict::Accepted {
        epoch: epoch(life),
        rev: Revision(rev),
    })
}

fn refused(message: &str) -> Outcome {
    Outcome::Judged(Verdict::Refused(Rejection::out_of_range(message)))
}

#[test]
fn actions_are_json_objects_without_a_number_of_their_own() {
    let text = |value: serde_json::Value| Action::new(&value).map(|_| ());
    assert_eq!(text(json!({})), Ok(()));
    for wrong in [json!(7), json!([]), json!(null), json!({"n": 1})] {
        assert!(text(wrong).is_err());
    }
    let now = Instant::now();
    let (mut machine, _) = live(now);
    machine.submit(Ticket(1), Action::new(&json!({})).unwrap(), None);
    assert_eq!(machine.next_message(moment(now)).unwrap(), r#"{"n":1}"#);
}

#[test]
fn numbers_begin_with_1_and_no_more_than_the_window_is_sent() {
    let now = Instant::now();
    let mut machine = machine(now);
    for ticket in 1..=5 {
        submit(&mut machine, ticket);
    }
    assert!(sent(&mut machine, now).is_empty());
    reconnect(&mut machine, now, 1, 0);
    assert_eq!(sent(&mut machine, now), [1, 2, 3]);
    say(&mut machine, now, json!({"type": "ack", "n": 2, "rev": 42}));
    assert_eq!(
        told(&mut machine),
        [(1, accepted(1, 42)), (2, accepted(1, 42))]
    );
    assert_eq!(sent(&mut machine, now), [4, 5]);
}

#[test]
fn a_refusal_is_told_at_once_and_the_ack_tells_the_rest() {
    let now = Instant::now();
    let (mut machine, _) = live(now);
    (1..=3).for_each(|ticket| submit(&mut machine, ticket));
    assert_eq!(sent(&mut machine, now), [1, 2, 3]);
    let error = json!({"type": "error", "code": "out_of_range", "message": "no", "n": 2});
    say(&mut machine, now, error.clone());
    assert_eq!(told(&mut machine), [(2, refused("no"))]);
    say(&mut machine, now, json!({"type": "ack", "n": 3, "rev": 9}));
    assert_eq!(
        told(&mut machine),
        [(1, accepted(1, 9)), (3, accepted(1, 9))]
    );
    say(&mut machine, now, error);
    assert_eq!((told(&mut machine), machine.waiting()), (vec![], 0));
}

#[test]
fn after_a_cut_it_sends_again_what_the_welcome_does_not_settle() {
    let now = Instant::now();
    let (mut machine, id) = live(now);
    (1..=4).for_each(|ticket| submit(&mut machine, ticket));
    assert_eq!(sent(&mut machine, now), [1, 2, 3]);
    machine.lost(now, Loss::Cut("cut".to_owned()));
    assert_eq!(machine.view().connection, Connection::Lost("cut".into()));
    assert_eq!(machine.deadline(), Some(after(now, 0.25)));
    assert!(sent(&mut machine, now).is_empty());
    let now = after(now, 0.25);
    machine.due(now);
    assert_eq!(opens(&mut machine), id);
    machine.opened(now);
    let mut greeting = welcome(id, 1, 2);
    greeting["refused"] = json!([{"n": 1, "code": "out_of_range", "message": "no"}]);
    say(&mut machine, now, greeting);
    assert_eq!(
        told(&mut machine),
        [(1, refused("no")), (2, accepted(1, 40))]
    );
    assert_eq!(sent(&mut machine, now), [3, 4]);
}

#[test]
fn a_retry_is_obeyed_once_after_the_longest_pause_from_the_number_expected() {
    let start = Instant::now();
    let (mut machine, _) = live(start);
    (1..=4).for_each(|ticket| submit(&mut machine, ticket));
    assert_eq!(sent(&mut machine, start), [1, 2, 3]);
    let retry = |n: u64, after_ms: u64| json!({"type": "retry", "n": n, "expected": 2, "code": "gap", "message": "", "after_ms": after_ms});
    say(&mut machine, start, retry(2, 300));
    say(&mut machine, start, retry(3, 500));
    say(
        &mut machine,
        start,
        json!({"type": "ack", "n": 1, "rev": 41}),
    );
    machine.due(after(start, 0.4));
    assert!(sent(&mut machine, start).is_empty());
    assert_eq!(machine.deadline(), Some(after(start, 0.5)));
    machine.due(after(start, 0.5));
    assert_eq!(sent(&mut machine, start), [2, 3, 4]);
}

#[test]
fn it_waits_for_the_rest_of_the_answers_before_it_sends_again_but_not_for_ever() {
    let start = Instant::now();
    let (mut machine, _) = live(start);
    (1..=3).for_each(|ticket| submit(&mut machine, ticket));
    assert_eq!(sent(&mut machine, start), [1, 2, 3]);
    let retry = |n: u64| {
        json!({"type": "retry", "n": n, "expected": 1, "code": "gap", "message": "",
        "after_ms": 1})
    };
    say(&mut machine, start, retry(1));
    machine.due(after(start, 1.0));
    assert!(sent(&mut machine, start).is_empty());
    say(&mut machine, after(start, 1.0), retry(2));
    machine.stirred(after(start, 2.0));
    machine.due(after(start, 3.1));
    assert_eq!(sent(&mut machine, start), [1, 2, 3]);
}

#[test]
fn a_forgotten_client_goes_on_under_a_fresh_id_with_what_was_never_sent() {
    for (life, n) in [(2, 0), (2, 2), (1, 0), (1, 9)] {
        let now = Instant::now();
        let (mut machine, id) = live(now);
        (1..=5).for_each(|ticket| submit(&mut machine, ticket));
        sent(&mut machine, now);
        say(&mut machine, now, json!({"type": "ack", "n": 1, "rev": 41}));
        told(&mut machine);
        machine.lost(now, Loss::Closed(1012));
        let now = after(now, 0.25);
        machine.due(now);
        assert_eq!(opens(&mut machine), id);
        machine.opened(now);
        say(&mut machine, now, welcome(id, life, n));
        let unsure = Outcome::Judged(Verdict::Unsure);
        assert_eq!(
            told(&mut machine),
            [(2, unsure.clone()), (3, unsure)],
            "{life} {n}"
        );
        assert!(sent(&mut machine, now).is_empty());
        let now = after(now, 0.5);
        let fresh = reconnect(&mut machine, now, life, 0);
        assert_ne!(fresh, id);
        assert_eq!(sent(&mut machine, now), [1, 2]);
    }
}

#[test]
fn who_may_be_forgotten_since_its_first_action_was_sent_does_not_send_it_again() {
    let minutes = |count: u64| Duration::from_secs(60 * count);
    let unsure = Outcome::Judged(Verdict::Unsure);
    for (passed, n, again) in [
        (minutes(58), 0, vec![1, 2, 3]),
        (minutes(60), 0, vec![]),
        (minutes(60 * 24 * 31), 0, vec![]),
        (minutes(60), 1, vec![2, 3, 4]),
    ] {
        let now = Instant::now();
        let (mut machine, id) = live(now);
        (1..=4).for_each(|ticket| submit(&mut machine, ticket));
        assert_eq!(sent(&mut machine, now), [1, 2, 3]);
        machine.lost(now, Loss::Cut(String::new()));
        let now = now + passed;
        assert_eq!(reconnect(&mut machine, now, 1, n), id);
        assert_eq!(sent(&mut machine, now), again, "{passed:?} {n}");
        if again.is_empty() {
            let lost = [1, 2, 3].map(|ticket| (ticket, unsure.clone()));
            assert_eq!(told(&mut machine), lost);
            let now = now + minutes(1);
            assert_ne!(reconnect(&mut machine, now, 1, 0), id);
            assert_eq!(sent(&mut machine, now), [1], "it was never sent");
            machine.lost(now, Loss::Cut(String::new()));
            let now = now + minutes(1);
            reconnect(&mut machine, now, 1, 0);
            assert_eq!(sent(&mut machine, now), [1], "under this id just now");
        }
    }
}

#[test]
fn a_machine_that_slept_or_whose_clock_was_set_back_may_be_forgotten() {
    let hour = 3600 * 1000;
    for wall in [3 * hour, hour] {
        let now = Instant::now();
        let (mut machine, id) = live(now);
        submit(&mut machine, 1);
        let sent_at = Moment {
            monotonic: now,
            wall: Millis(2 * hour),
        };
        machine.next_message(sent_at).unwrap();
        machine.lost(now, Loss::Cut(String::new()));
        let now = after(now, 0.5);
        machine.due(now);
        machine.opened(now);
        let back = Moment {
            monotonic: now,
            wall: Millis(wall),
        };
        machine.heard(back, welcome(id, 1, 0).to_string().as_bytes());
        assert_eq!(told(&mut machine), [(1, Outcome::Judged(Verdict::Unsure))]);
    }
}

#[test]
fn who_has_sent_nothing_lives_through_a_change_of_epochs() {
    let now = Instant::now();
    let (mut machine, id) = live(now);
    say(&mut machine, now, welcome(id, 2, 0));
    say(&mut machine, now, state(2, 0));
    assert_eq!(effects(&mut machine), []);
    submit(&mut machine, 1);
    assert_eq!(sent(&mut machine, now), [1]);
    say(&mut machine, now, json!({"type": "ack", "n": 1, "rev": 1}));
    assert_eq!(told(&mut machine), [(1, accepted(2, 1))]);
    say(&mut machine, now, welcome(id, 3, 0));
    assert_eq!(effects(&mut machine), [Effect::HangUp]);
}

#[test]
fn what_cannot_be_makes_it_connect_anew() {
    let now = Instant::now();
    let other = ClientId(Uuid::from_u128(99));
    for nonsense in [
        json!({"type": "ack", "n": 2, "rev": 41}),
        json!({"type": "error", "n": 2, "code": "x", "message": ""}),
        json!({"type": "retry", "n": 2, "expected": 1, "code": "gap", "after_ms": 1}),
        json!({"type": "retry", "n": 1, "expected": 0, "code": "gap", "after_ms": 1}),
        json!({"type": "ack"}),
        welcome(other, 1, 0),
    ] {
        let (mut machine, _) = live(now);
        submit(&mut machine, 1);
        assert_eq!(sent(&mut machine, now), [1]);
        say(&mut machine, now, nonsense);
        assert_eq!(effects(&mut machine), [Effect::HangUp]);
        assert!(matches!(machine.view().connection, Connection::Lost(_)));
    }
}

#[test]
fn a_silent_server_is_left_after_twice_its_beat() {
    let start = Instant::now();
    let (mut machine, _) = live(start);
    assert_eq!(machine.deadline(), Some(after(start, 2.0)));
    say(&mut machine, after(start, 1.5), json!({"type": "beat"}));
    machine.due(after(start, 2.0));
    assert_eq!(effects(&mut machine), []);
    machine.due(after(start, 3.5));
    assert_eq!(effects(&mut machine), [Effect::HangUp]);
}

#[test]
fn a_connection_without_welcome_or_state_is_given_up() {
    let start = Instant::now();
    let mut machine = machine(start);
    machine.due(start);
    let id = opens(&mut machine);
    machine.due(after(start, 10.0));
    assert_eq!(effects(&mut machine), [Effect::HangUp]);
    let start = after(start, 10.25);
    machine.due(start);
    opens(&mut machine);
    machine.opened(start);
    let mut quiet = welcome(id, 1, 0);
    quiet["beat_ms"] = json!(null);
    say(&mut machine, start, quiet);
    machine.due(after(start, 9.9));
    assert_eq!(effects(&mut machine), []);
    machine.due(after(start, 10.0));
    assert_eq!(effects(&mut machine), [Effect::HangUp]);
}

#[test]
fn pauses_grow_to_15_seconds_and_start_small_after_a_steady_connection() {
    let mut now = Instant::now();
    let mut machine = machine(now);
    machine.due(now);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        opens(&mut machine);
        machine.lost(now, Loss::Cut(String::new()));
        let next = machine.deadline().unwrap();
        pauses.push((next - now).as_secs_f64());
        now = next;
        machine.due(now);
    }
    assert_eq!(pauses, [0.25, 0.5, 1.0, 2.0, 4.0, 7.5, 7.5, 7.5]);
    machine.opened(now);
    now = after(now, 5.0);
    machine.lost(now, Loss::Closed(1011));
    assert_eq!(machine.deadline(), Some(after(now, 0.25)));
}

#[test]
fn a_bye_says_when_to_come_back() {
    let now = Instant::now();
    let (mut machine, _) = live(now);
    let bye = json!({"type": "bye", "code": 1012, "reconnect_after_ms": 1840});
    say(&mut machine, now, bye);
    machine.lost(now, Loss::Closed(1012));
    assert_eq!(machine.deadline(), Some(after(now, 1.84)));
    machine.due(after(now, 1.84));
    opens(&mut machine);
    machine.lost(after(now, 1.84), Loss::Cut(String::new()));
    assert_eq!(machine.deadline(), Some(after(now, 1.84 + 0.5)));
}

#[test]
fn only_some_ends_are_for_good() {
    let cut = || Loss::Cut("cut".to_owned());
    let back = [1001, 1006, 1011, 1012, 1013].map(Loss::Closed);
    let statuses = [408, 429, 500, 502, 503, 504].map(Loss::Denied);
    for loss in back.into_iter().chain(statuses).chain([cut()]) {
        let (mut machine, _) = live(Instant::now());
        machine.lost(Instant::now(), loss.clone());
        assert!(machine.end().is_none(), "{loss:?}");
    }
    let done = [1000, 1002, 1007, 1009, 4401, 4403, 4404, 4409].map(Loss::Closed);
    let statuses = [200, 302, 400, 401, 403, 404, 421].map(Loss::Denied);
    for loss in done.into_iter().chain(statuses).chain([Loss::Foreign]) {
        let now = Instant::now();
        let (mut machine, _) = live(now);
        (1..=4).for_each(|ticket| submit(&mut machine, ticket));
        sent(&mut machine, now);
        machine.lost(now, loss.clone());
        assert!(machine.end().is_some(), "{loss:?}");
        let sent = [true, true, true, false].map(|sent| Outcome::Ended { sent });
        assert_eq!(told(&mut machine), (1..=4).zip(sent).collect::<Vec<_>>());
        assert_eq!(machine.deadline(), None);
        submit(&mut machine, 5);
        assert_eq!(told(&mut machine), [(5, Outcome::Ended { sent: false })]);
    }
}

#[test]
fn what_a_server_says_before_it_shuts_the_door_is_kept() {
    let now = Instant::now();
    let mut machine = machine(now);
    machine.due(now);
    machine.opened(now);
    let error = json!({"type": "error", "code": "unauthorized", "message": "the token expired"});
    say(&mut machine, now, error);
    machine.lost(now, Loss::Closed(4401));
    let said = machine.end().unwrap().to_string();
    assert_eq!(
        said,
        "the server closed the connection with 4401: the token expired"
    );
}

#[test]
fn who_waits_no_longer_hears_whether_the_action_was_sent() {
    let start = Instant::now();
    let (mut machine, _) = live(start);
    let action = || Action::new(&json!({"action": "plus"})).unwrap();
    for ticket in 1..=4 {
        machine.submit(Ticket(ticket), action(), Some(after(start, 1.0)));
    }
    assert_eq!(sent(&mut machine, start), [1, 2, 3]);
    say(
        &mut machine,
        start,
        json!({"type": "ack", "n": 1, "rev": 41}),
    );
    told(&mut machine);
    machine.due(after(start, 1.0));
    let out = |sent| Outcome::TimedOut { sent };
    assert_eq!(
        told(&mut machine),
        [(2, out(true)), (3, out(true)), (4, out(false))]
    );
    submit(&mut machine, 5);
    assert_eq!(sent(&mut machine, start), [4]);
    say(
        &mut machine,
        start,
        json!({"type": "ack", "n": 4, "rev": 44}),
    );
    assert_eq!(told(&mut machine), [(5, accepted(1, 44))]);
}

#[test]
fn the_newest_of_everything_is_shown() {
    let now = Instant::now();
    let mut machine = machine(now);
    assert!(!machine.take_view_changed());
    machine.due(now);
    let id = opens(&mut machine);
    machine.opened(now);
    say(&mut machine, now, welcome(id, 1, 0));
    let users = json!({"type": "users", "count": 3, "exact": false});
    say(&mut machine, now, users);
    assert_eq!(machine.view().connection, Connection::Connecting);
    say(&mut machine, now, state(1, 40));
    assert!(machine.take_view_changed() && !machine.take_view_changed());
    let view = machine.view();
    assert_eq!(view.connection, Connection::Live);
    let users = view.users.unwrap();
    assert_eq!((users.count, users.exact), (3, false));
    let shown = view.state.as_ref().unwrap();
    assert_eq!((shown.rev, &*shown.value), (Revision(40), &json!(7)));
    machine.close();
    assert_eq!(effects(&mut machine), [Effect::HangUp]);
    assert_eq!(machine.end(), Some(&End::Closed));
}
