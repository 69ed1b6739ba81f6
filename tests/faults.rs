//! What goes wrong inside: a model's code that fails, a store that fails at each step in turn. It
//! costs those whom it concerns an answer, and nobody a count.

mod support;

use std::{
    sync::{Arc, atomic::Ordering},
    thread,
};

use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use support::{
    Event, PLUS, await_that,
    faulty::{Fault, Faulty, OPEN},
    in_process::InProcess,
};
use tallyroom::{
    fields::Fields,
    ids::RoomName,
    journal::{Journal, memory::MemoryJournal},
    limits::Limits,
    model::{By, Model, counter::Counter},
    rejection::Rejection,
};

/// A count whose code fails in each place where a model's can.
struct Fragile;

#[derive(Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
enum FragileAction {
    Plus,
    Panic,
    PanicHalfway,
    RefuseHalfway,
    /// Leaves a state on which the view panics.
    Hide,
}

impl Model for Fragile {
    const NAME: &'static str = "fragile";
    type State = i64;
    type Action = FragileAction;

    fn parse(fields: &Fields<'_>) -> Result<FragileAction, Rejection> {
        assert_ne!(fields.text("action")?, "panic_in_parse");
        fields.to_action()
    }

    fn apply(state: &mut i64, action: &FragileAction, _: &By) -> Result<(), Rejection> {
        match action {
            FragileAction::Plus => *state += 1,
            FragileAction::Panic => panic!("on purpose"),
            FragileAction::PanicHalfway => {
                *state += 100;
                panic!("on purpose, halfway");
            }
            FragileAction::RefuseHalfway => {
                *state += 100;
                return Err(Rejection::new("too_late", "it was changed already"));
            }
            FragileAction::Hide => *state = -1,
        }
        Ok(())
    }

    fn view(state: &i64) -> impl Serialize + '_ {
        assert!(*state >= 0, "on purpose, in the view");
        state
    }
}

#[test]
fn a_model_that_fails_on_an_action_refuses_that_one_and_no_other() {
    let server = InProcess::of(Fragile);
    let (mut ann, mut bob) = (server.client(), server.client());
    ann.expect_users(2);
    let failing = [
        ("panic", "internal"),
        ("panic_halfway", "internal"),
        ("panic_in_parse", "internal"),
        ("hide", "internal"),
        ("refuse_halfway", "too_late"),
    ];
    for (value, (action, code)) in (1..).zip(failing) {
        bob.send(&format!(r#"{{"action":"{action}"}}"#));
        bob.expect_error(code);
        bob.plus();
        assert_eq!(bob.next(), Event::State(value), "{action}");
        assert_eq!(ann.next(), Event::State(value), "{action}");
    }
    // In one burst, so that they are judged together.
    let actions = failing.iter().flat_map(|(action, _)| [*action, "plus"]);
    let before = failing.len() as i64;
    bob.send_all(actions.map(|action| format!(r#"{{"action":"{action}"}}"#)));
    let expected: Vec<i64> = (1..=before).map(|nth| before + nth).collect();
    assert_eq!(ann.next_states(failing.len()), expected);
    let mut told: Vec<Event> = (0..2 * failing.len()).map(|_| bob.next()).collect();
    told.retain(|event| matches!(event, Event::State(_)));
    assert_eq!(
        told,
        expected.into_iter().map(Event::State).collect::<Vec<_>>()
    );
}

fn counter(journal: &Arc<Faulty>) -> InProcess {
    InProcess::start(Counter, journal.clone(), Limits::default())
}

#[test]
fn a_store_that_takes_nothing_is_said_so_and_the_next_action_is_tried_again() {
    for (fault, code) in [
        (Fault::Full, "store_full"),
        (Fault::Unavailable, "unavailable"),
    ] {
        let journal = Faulty::new(&[fault, fault]);
        let server = counter(&journal);
        let (mut ann, mut bob) = (server.client(), server.client());
        ann.expect_users(2);
        for _ in 0..2 {
            bob.plus();
            bob.expect_error(code);
        }
        bob.plus();
        assert_eq!(bob.next(), Event::State(1), "{fault:?}");
        assert_eq!(ann.next(), Event::State(1), "{fault:?}");
    }
}

#[test]
fn an_append_of_unknown_outcome_is_in_once_and_answered_once() {
    use Fault::{UnknownAfter, UnknownBefore};
    for faults in [
        &[UnknownBefore][..],
        &[UnknownAfter],
        &[UnknownBefore, UnknownBefore],
        &[UnknownBefore, UnknownAfter],
    ] {
        let journal = Faulty::new(faults);
        let server = counter(&journal);
        let (mut ann, mut bob) = (server.client(), server.client());
        ann.expect_users(2);
        bob.send_all(
            [PLUS, r#"{"action":"set","value":9007199254740992}"#, PLUS].map(String::from),
        );
        assert_eq!(ann.next_states(2), [1, 2], "{faults:?}");
        let mut told: Vec<Event> = (0..3).map(|_| bob.next()).collect();
        told.retain(|event| !matches!(event, Event::Error(_)));
        assert_eq!(told, [Event::State(1), Event::State(2)], "{faults:?}");
        bob.plus();
        assert_eq!(bob.next(), Event::State(3), "{faults:?}");
        assert_eq!(ann.next(), Event::State(3), "{faults:?}");
        assert_eq!(server.client().first(), 3);
    }
}

#[test]
fn two_owners_of_one_room_count_every_action_once() {
    const EACH: usize = 1000;
    let journal = Arc::new(MemoryJournal::new());
    let start = || InProcess::start(Counter, journal.clone(), Limits::default());
    let servers = [start(), start()];
    let mut clients = [servers[0].client(), servers[1].client()];
    thread::scope(|scope| {
        for client in &mut clients {
            scope.spawn(move || {
                let mut own = 0;
                let mut value = 0;
                while own < EACH {
                    client.send_often(PLUS, 50);
                    own += 50;
                    // At least its own are told, and with them what the other did before.
                    for state in client.next_states(50) {
                        assert_eq!(state, value + 1, "a state was left out");
                        value = state;
                    }
                }
            });
        }
    });
    let all = 2 * EACH as i64;
    // An owner hears of the other's batches when it appends; all are to be in before the last ones.
    let end = || {
        let opened = journal.open(&RoomName::main()).now_or_never();
        opened.unwrap().unwrap().end.rev.0
    };
    await_that("all actions are committed", || end() == all as u64);
    let [one, two] = &mut clients;
    one.plus();
    one.expect_state(all + 1);
    two.plus();
    two.expect_state(all + 2);
    one.plus();
    one.expect_state(all + 3);
    assert_eq!(servers[0].client().first(), all + 3);
}

#[test]
fn while_an_append_is_in_flight_the_next_batch_gathers() {
    const ACTIONS: usize = 100;
    let journal = Faulty::new(&[]);
    let server = counter(&journal);
    let mut client = server.client();
    journal.gate.forget_permits(OPEN);
    client.plus();
    await_that("the append begins", || {
        journal.begun.load(Ordering::SeqCst) == 1
    });
    client.send_often(PLUS, ACTIONS);
    client.send("{}");
    // Nobody is told before it is committed.
    assert_eq!(client.next(), Event::Error("missing_field".to_owned()));
    journal.gate.add_permits(OPEN);
    let expected: Vec<i64> = (1..=ACTIONS as i64 + 1).collect();
    assert_eq!(client.next_states(ACTIONS + 1), expected);
    let batches = journal.begun.load(Ordering::SeqCst);
    assert!(batches < ACTIONS / 4, "{batches} batches");
}

#[test]
fn a_room_that_cannot_be_read_closes_its_sessions_and_may_be_tried_again() {
    let journal = Faulty::new(&[]);
    journal.fail_reads(&[Fault::Unavailable, Fault::Unavailable]);
    let server = counter(&journal);
    for _ in 0..2 {
        let mut client = support::open(server.port(), "/").unwrap();
        assert_eq!(client.next(), Event::Closed(Some(1011)));
    }
    let mut client = server.client();
    client.plus();
    client.expect_state(1);
}

#[test]
fn an_owner_that_dies_closes_its_sessions_and_another_goes_on_from_what_was_committed() {
    let journal = Faulty::new(&[]);
    let server = counter(&journal);
    let mut elsewhere = server.client_in("/r/elsewhere");
    for life in 0..3 {
        let (mut ann, mut bob) = (server.client(), server.client());
        assert_eq!((ann.users, ann.first()), (1, life));
        ann.expect_users(2);
        ann.plus();
        assert_eq!((ann.next_state(), bob.next_state()), (life + 1, life + 1));
        journal
            .appends
            .lock()
            .unwrap()
            .push_back(Fault::PanicBefore);
        ann.plus();
        assert_eq!(ann.expect_close(), Some(1011));
        assert_eq!(bob.expect_close(), Some(1011));
        // Another room does not notice.
        elsewhere.plus();
        assert_eq!(elsewhere.next(), Event::State(life + 1));
    }
    assert_eq!(server.client().first(), 3);
}

#[test]
fn a_snapshot_that_is_not_kept_loses_nothing() {
    let mut journal = Faulty::new(&[]);
    Arc::get_mut(&mut journal).unwrap().saves_fail = true;
    let limits = Limits {
        room_idle: Some(std::time::Duration::from_millis(50)),
        ..Limits::default()
    };
    let server = InProcess::start(Counter, journal.clone(), limits);
    let mut client = server.client();
    client.send_often(PLUS, 3500);
    client.expect_state(3500);
    client.close();
    // A newcomer gets it from whichever owner there is: the old one, or one that replayed it all.
    journal.fail_reads(&[Fault::Unavailable]);
    await_that("the room went to rest", || {
        let mut newcomer = support::open(server.port(), "/").unwrap();
        let rested = newcomer.next() == Event::Closed(Some(1011));
        drop(newcomer);
        // Longer than the time after which an empty room goes to rest.
        thread::sleep(std::time::Duration::from_millis(if rested {
            0
        } else {
            200
        }));
        rested
    });
    assert_eq!(server.client().first(), 3500);
}
