use std::{collections::HashMap, time::Duration};

use proptest::{prelude::*, sample::Index};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::*;
use crate::{
    ids::{ClientId, Epoch, Revision},
    limits::WINDOW,
    model::{
        Stored,
        counter::{Counter, CounterAction, CounterState, MAX_VALUE},
    },
    settled::First,
};

fn start<M: Model>() -> Replica<M> {
    Replica::new(Position::start(Epoch(Uuid::from_u128(1))), limits())
}

fn limits() -> Arc<Limits> {
    Arc::new(Limits {
        max_state_bytes: Some(1000),
        ..Limits::default()
    })
}

fn asked<A>(action: A) -> Asked<A> {
    Asked {
        number: None,
        action: Ok(action),
        hold: Duration::ZERO,
        session: None,
        name: None,
    }
}

/// Judges and commits one batch, and gives what it appended and answered.
fn commit<M: Model>(
    replica: &mut Replica<M>,
    actions: impl IntoIterator<Item = M::Action>,
    now: u64,
) -> (Arc<Batch>, Vec<String>) {
    let asked: Vec<_> = actions.into_iter().map(asked).collect();
    let id = BatchId(Uuid::from_u128(u128::from(now)));
    let judged = replica.judge(None, &asked, id, Millis(now));
    let batch = judged.batch.clone();
    let codes = judged.verdicts.iter().map(code).collect();
    if !batch.is_empty() {
        replica.adopt(judged);
    }
    (batch, codes)
}

fn code(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accepted(_) => "ok".to_owned(),
        Verdict::Refused(refused) => refused.code.to_string(),
        Verdict::Repeated => "repeated".to_owned(),
        Verdict::Retry(retry) => format!("retry {} from {:?}", retry.why.code, retry.expected),
    }
}

fn any_action() -> impl Strategy<Value = CounterAction> {
    let step = prop_oneof![Just(1), Just(1_000_000), 1..=1_000_000i64];
    let value = prop_oneof![-5..=5i64, Just(MAX_VALUE), Just(-MAX_VALUE), any::<i64>()];
    let limit = prop::option::of(prop::option::of(-1_000_000..=1_000_000i64));
    prop_oneof![
        step.clone().prop_map(|by| CounterAction::Plus { by }),
        step.prop_map(|by| CounterAction::Minus { by }),
        value.prop_map(|value| CounterAction::Set { value }),
        Just(CounterAction::Reset),
        (limit.clone(), limit).prop_map(|(min, max)| CounterAction::Limits { min, max }),
    ]
}

fn any_batches() -> impl Strategy<Value = Vec<Vec<CounterAction>>> {
    prop::collection::vec(prop::collection::vec(any_action(), 1..20), 1..20)
}

fn in_range(state: &CounterState) -> bool {
    let low = state.min.unwrap_or(-MAX_VALUE);
    let high = state.max.unwrap_or(MAX_VALUE);
    (low..=high).contains(&state.value) && state.value.abs() <= MAX_VALUE
}

proptest! {
    #[test]
    fn the_same_entries_give_the_same_state_and_a_snapshot_goes_on_as_the_original(
        batches in any_batches(),
        snapshot_after in 0usize..20,
    ) {
        let mut owner = start::<Counter>();
        let mut follower = start::<Counter>();
        let mut restored = None;
        for (number, actions) in batches.into_iter().enumerate() {
            if number == snapshot_after {
                let snapshot = serde_json::to_string(&owner.snapshot().unwrap()).unwrap();
                restored = Some(Replica::<Counter>::restore(&serde_json::from_str(&snapshot).unwrap(), limits()).unwrap());
            }
            let (batch, _) = commit(&mut owner, actions, number as u64);
            prop_assert!(in_range(owner.state()));
            if batch.is_empty() {
                continue;
            }
            // As a store gives it back.
            let batch: Batch = serde_json::from_str(&serde_json::to_string(&*batch).unwrap()).unwrap();
            let changes = follower.replay(&batch).unwrap();
            prop_assert_eq!(changes.views.iter().last().unwrap(), owner.view().unwrap());
            if let Some(restored) = &mut restored {
                restored.replay(&batch).unwrap();
            }
        }
        for other in [&follower].into_iter().chain(&restored) {
            prop_assert_eq!(other.state(), owner.state());
            prop_assert_eq!(other.position(), owner.position());
        }
    }

    #[test]
    fn what_is_refused_or_panics_leaves_no_trace(
        whims in prop::collection::vec(prop_oneof![
            Just(Whim::Add), Just(Whim::Refuse), Just(Whim::Panic), Just(Whim::Grow),
        ], 0..40),
    ) {
        let mut replica = start::<Fickle>();
        let (batch, codes) = silently(|| commit(&mut replica, whims.clone(), 1));
        let added = whims.iter().filter(|whim| **whim == Whim::Add).count();
        prop_assert_eq!(replica.state(), &vec![1; added]);
        prop_assert_eq!(batch.entries.len(), added);
        let revs: Vec<u64> = batch.entries.iter().map(|entry| entry.rev.0).collect();
        prop_assert_eq!(revs, (1..=added as u64).collect::<Vec<_>>());
        for (whim, code) in whims.iter().zip(&codes) {
            let expected = match whim {
                Whim::Add => "ok",
                Whim::Refuse => "fickle",
                Whim::Panic => "internal",
                Whim::Grow => "too_large",
            };
            prop_assert_eq!(code, expected);
        }
    }
}

/// A model that changes its state and only then thinks better of it.
struct Fickle;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Whim {
    Add,
    Refuse,
    Panic,
    Grow,
}

impl Model for Fickle {
    const NAME: &'static str = "fickle";
    type State = Vec<u8>;
    type Action = Whim;

    fn apply(state: &mut Vec<u8>, whim: &Whim, _: &By) -> Result<(), Rejection> {
        state.push(1);
        match whim {
            Whim::Add => Ok(()),
            Whim::Refuse => Err(Rejection::new("fickle", "no")),
            Whim::Panic => panic!("a whim"),
            Whim::Grow => {
                state.extend([7; 1000]);
                Ok(())
            }
        }
    }
}

/// Runs without the panics' own messages, which would drown the test's.
fn silently<T>(run: impl FnOnce() -> T) -> T {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let result = run();
    std::panic::set_hook(hook);
    result
}

#[test]
fn a_batch_names_the_one_before_it_and_time_never_falls() {
    let mut replica = start::<Counter>();
    let plus = || [CounterAction::Plus { by: 1 }];
    let (first, _) = commit(&mut replica, plus(), 100);
    let (second, _) = commit(&mut replica, plus(), 50);
    assert_eq!(first.after.batch, None);
    assert_eq!(second.after, first.end());
    assert_eq!(second.after.batch, Some(first.id));
    assert_eq!(second.at, Millis(100));
    assert_eq!(replica.position(), second.end());
}

#[test]
fn a_batch_that_does_not_follow_is_not_applied() {
    let mut owner = start::<Counter>();
    let plus = || [CounterAction::Plus { by: 1 }];
    let (first, _) = commit(&mut owner, plus(), 1);
    let (second, _) = commit(&mut owner, plus(), 2);
    let mut follower = start::<Counter>();
    let gap = follower.replay(&second).unwrap_err();
    assert!(matches!(
        gap,
        ReplayError::Gap {
            expected: Revision(1)
        }
    ));
    follower.replay(&first).unwrap();
    assert!(follower.replay(&first).is_err(), "not twice");
    assert_eq!(follower.state().value, 1);
}

#[test]
fn a_batch_that_the_model_does_not_take_again_is_not_passed_over() {
    let mut owner = start::<Counter>();
    let (batch, _) = commit(&mut owner, [CounterAction::Reset, CounterAction::Reset], 1);
    let mut batch = Batch::clone(&batch);
    batch.entries[1].action = to_raw_value(&"nonsense").unwrap();
    let mut follower = start::<Counter>();
    let refused = follower.replay(&batch).unwrap_err();
    assert!(matches!(
        refused,
        ReplayError::Refused {
            rev: Revision(2),
            ..
        }
    ));
    assert_eq!(follower.position().rev, Revision(0));
}

#[test]
fn another_models_snapshot_is_refused() {
    let snapshot = start::<Counter>().snapshot().unwrap();
    assert!(matches!(
        Replica::<Fickle>::restore(&snapshot, limits()),
        Err(RestoreError::OtherModel { .. })
    ));
    let newer = Snapshot {
        version: 2,
        ..snapshot
    };
    assert!(matches!(
        Replica::<Counter>::restore(&newer, limits()),
        Err(RestoreError::Newer {
            found: 2,
            expected: 1
        })
    ));
}

#[test]
fn nothing_is_adopted_before_it_is_committed() {
    let replica = start::<Counter>();
    let asked = [asked(CounterAction::Plus { by: 5 })];
    let judged = replica.judge(None, &asked, BatchId(Uuid::nil()), Millis(1));
    assert_eq!(judged.changes.views.iter().collect::<Vec<_>>(), [b"5"]);
    assert_eq!(
        (replica.state().value, replica.position().rev),
        (0, Revision(0))
    );
}

fn client(id: u128) -> ClientId {
    ClientId(Uuid::from_u128(id))
}

fn numbered(client: ClientId, n: u64, action: CounterAction) -> Asked<CounterAction> {
    Asked {
        number: Some(Number { client, n }),
        ..asked(action)
    }
}

/// Judges and commits what was asked, and says what became of each.
fn settle(replica: &mut Replica<Counter>, asked: &[Asked<CounterAction>]) -> Vec<String> {
    let judged = replica.judge(None, asked, BatchId(Uuid::new_v4()), Millis(1));
    let codes = judged.verdicts.iter().map(code).collect();
    if !judged.batch.is_empty() {
        replica.adopt(judged);
    }
    codes
}

const PLUS: CounterAction = CounterAction::Plus { by: 1 };

#[test]
fn a_number_is_taken_once_and_only_if_it_is_the_next() {
    let (ann, bob) = (client(1), client(2));
    let mut replica = start::<Counter>();
    let far = CounterAction::Set { value: i64::MAX };
    let asked = [
        numbered(ann, 2, PLUS),
        numbered(ann, 1, PLUS),
        numbered(ann, 1, PLUS),
        numbered(bob, 1, far),
        numbered(ann, 2, PLUS),
        numbered(ann, 4, PLUS),
        numbered(bob, 2, PLUS),
    ];
    let codes = settle(&mut replica, &asked);
    let expected = [
        "retry gap from Some(1)",
        "ok",
        "repeated",
        "out_of_range",
        "ok",
        "retry gap from Some(3)",
        "ok",
    ];
    assert_eq!(codes, expected);
    assert_eq!(
        (replica.state().value, replica.position().rev),
        (3, Revision(3))
    );
    let again = settle(&mut replica, &asked[1..5]);
    assert_eq!(again, ["repeated"; 4]);
    assert_eq!((replica.state().value, replica.settled().last(ann)), (3, 2));
    assert!(matches!(replica.settled().first(bob, 1), First::Refused(_)));
}

#[test]
fn what_cannot_be_understood_is_refused_and_what_is_over_a_limit_is_not_taken() {
    let ann = client(1);
    let mut replica = start::<Counter>();
    let declined = |n, declined| Asked {
        action: Err(declined),
        hold: Duration::from_millis(300),
        session: None,
        name: None,
        ..numbered(ann, n, PLUS)
    };
    let malformed = || Declined::Refused(Rejection::missing_field("action"));
    let limited = || Declined::NotTaken(Rejection::new("rate_limited", "slower"));
    let asked = [
        declined(1, malformed()),
        declined(2, limited()),
        declined(3, malformed()),
        declined(1, limited()),
    ];
    let expected = [
        "missing_field",
        "retry rate_limited from Some(2)",
        "retry gap from Some(2)",
        "repeated",
    ];
    assert_eq!(settle(&mut replica, &asked), expected);
    let judged = replica.judge(None, &asked[2..3], BatchId(Uuid::nil()), Millis(1));
    assert!(judged.batch.is_empty());
    match &judged.verdicts[0] {
        Verdict::Retry(retry) => assert_eq!(retry.after, Duration::from_millis(300)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_room_that_remembers_all_it_may_takes_no_new_clients_and_goes_on_with_the_others() {
    let limits = Limits {
        max_clients_per_room: Some(3),
        ..Limits::default()
    };
    let mut replica =
        Replica::<Counter>::new(Position::start(Epoch(Uuid::from_u128(1))), Arc::new(limits));
    let newcomers: Vec<_> = (1..=4).map(|id| numbered(client(id), 1, PLUS)).collect();
    let crowded = "retry overloaded from Some(1)";
    assert_eq!(
        settle(&mut replica, &newcomers),
        ["ok", "ok", "ok", crowded]
    );
    let far = CounterAction::Set { value: i64::MAX };
    let known = [
        numbered(client(1), 2, PLUS),
        numbered(client(1), 3, far),
        numbered(client(4), 1, PLUS),
        asked(PLUS),
    ];
    assert_eq!(
        settle(&mut replica, &known),
        ["ok", "out_of_range", crowded, "ok"]
    );
}

#[test]
fn a_room_that_remembers_all_the_refusals_it_may_takes_only_what_it_need_not_refuse() {
    let mut replica = start::<Counter>();
    let refuse = || Asked {
        action: Err(Declined::Refused(Rejection::new("no", "x".repeat(10_000)))),
        ..asked(PLUS)
    };
    let mut refused = 0;
    let crowded = 'crowding: loop {
        refused += 1;
        for n in 1..=WINDOW {
            let number = Some(Number {
                client: client(refused),
                n,
            });
            let asked = Asked { number, ..refuse() };
            match &settle(&mut replica, &[asked])[0][..] {
                "no" => {}
                other => break 'crowding (n, other.to_owned()),
            }
        }
    };
    let (n, code) = crowded;
    assert_eq!(code, format!("retry overloaded from Some({n})"));
    let fine = [
        numbered(client(refused), n, PLUS),
        numbered(client(9999), 1, PLUS),
    ];
    assert_eq!(settle(&mut replica, &fine), ["ok", "ok"]);
    let text = serde_json::to_string(&replica.snapshot().unwrap()).unwrap();
    assert!(text.len() < 32 * 1024 * 1024, "{}", text.len());
}

#[test]
fn numbers_beyond_the_window_are_not_taken() {
    let ann = client(1);
    let mut replica = start::<Counter>();
    let many: Vec<_> = (1..=WINDOW + 1).map(|n| numbered(ann, n, PLUS)).collect();
    let codes = settle(&mut replica, &many);
    assert!(codes[..WINDOW as usize].iter().all(|code| code == "ok"));
    let next = format!("retry overloaded from Some({})", WINDOW + 1);
    assert_eq!(codes.last(), Some(&next));
    assert_eq!(settle(&mut replica, &many[WINDOW as usize..]), ["ok"]);
}

proptest! {
    /// Whatever is sent, how often and in which order: each client's numbers are settled once and
    /// in order, and whoever replays the batches knows the same.
    #[test]
    fn every_number_is_applied_once(
        sent in prop::collection::vec(prop::collection::vec((1..4u128, 1..12u64, any::<bool>()), 1..12), 1..30),
        ahead in any::<bool>(),
        restored_at in any::<Index>(),
    ) {
        let mut owner = start::<Counter>();
        let mut follower = start::<Counter>();
        let (mut value, mut last) = (0, HashMap::new());
        let restored_at = restored_at.index(sent.len());
        let mut in_flight: Option<Judged<Counter>> = None;
        for (turn, batch) in sent.into_iter().enumerate() {
            let action = |fits| if fits { PLUS } else { CounterAction::Set { value: i64::MAX } };
            let asked: Vec<_> = batch.iter().map(|(id, n, fits)| numbered(client(*id), *n, action(*fits))).collect();
            for (id, n, fits) in batch {
                let last = last.entry(id).or_insert(0);
                if n == *last + 1 {
                    *last = n;
                    value += i64::from(fits);
                }
            }
            let id = BatchId(Uuid::from_u128(turn as u128));
            let judged = owner.judge(in_flight.as_ref(), &asked, id, Millis(turn as u64));
            if let Some(judged) = in_flight.take() {
                follower.replay(&judged.batch).unwrap();
                owner.adopt(judged);
            }
            if judged.batch.is_empty() {
                continue;
            }
            if ahead {
                in_flight = Some(judged);
            } else {
                follower.replay(&judged.batch).unwrap();
                owner.adopt(judged);
            }
            if turn == restored_at {
                follower = Replica::restore(&follower.snapshot().unwrap(), limits()).unwrap();
            }
        }
        if let Some(judged) = in_flight {
            follower.replay(&judged.batch).unwrap();
            owner.adopt(judged);
        }
        prop_assert_eq!(owner.state().value, value);
        for (id, n) in last {
            prop_assert_eq!(owner.settled().last(client(id)), n);
        }
        prop_assert_eq!(owner.settled().to_remembered(), follower.settled().to_remembered());
        prop_assert_eq!(owner.position(), follower.position());
    }
}

/// A count that once was kept as text, and whose action once had another name.
struct Newer;

#[derive(Serialize, Deserialize)]
struct Add(i64);

impl Model for Newer {
    const NAME: &'static str = "counter";
    const VERSION: u32 = 2;
    type State = i64;
    type Action = Add;

    fn apply(state: &mut i64, Add(by): &Add, _: &By) -> Result<(), Rejection> {
        *state += by;
        Ok(())
    }

    fn migrate(stored: Stored, from: u32) -> Result<serde_json::Value, Rejection> {
        assert_eq!(from, 1);
        let field = |value: &serde_json::Value, name: &str| value[name].clone();
        Ok(match stored {
            Stored::State(state) => field(&state, "value"),
            Stored::Action(action) => field(&action, "by"),
        })
    }
}

#[test]
fn what_an_older_version_stored_is_brought_up_and_what_a_newer_one_stored_is_refused() {
    let mut older = start::<Counter>();
    let by = |by| [CounterAction::Plus { by }];
    commit(&mut older, by(5), 1);
    let snapshot = older.snapshot().unwrap();
    let (batch, _) = commit(&mut older, by(3), 2);
    let mut newer = Replica::<Newer>::restore(&snapshot, limits()).unwrap();
    newer.replay(&batch).unwrap();
    assert_eq!(*newer.state(), 8);

    let (batch, _) = commit(&mut newer, [Add(1)], 3);
    assert_eq!(batch.version, 2);
    let refused = older.replay(&batch).unwrap_err();
    assert!(refused.to_string().contains("version 2"), "{refused}");
    let unknown = Replica::<Fickle>::restore(
        &Snapshot {
            model: "fickle".to_owned(),
            version: 0,
            ..snapshot
        },
        limits(),
    );
    assert!(matches!(unknown, Err(RestoreError::Migrate(_))));
}
