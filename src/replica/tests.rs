use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::*;
use crate::{
    ids::Epoch,
    model::counter::{Counter, CounterAction, CounterState, MAX_VALUE},
};

fn start<M: Model>() -> Replica<M> {
    Replica::new(Position::start(Epoch(Uuid::from_u128(1))))
}

fn asked<A>(action: A) -> Asked<A> {
    Asked {
        client: None,
        action,
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
    let judged = replica.judge(&asked, id, Millis(now), Some(1000));
    let batch = judged.batch.clone();
    let code = |verdict: &Result<_, Rejection>| match verdict {
        Ok(_) => "ok".to_owned(),
        Err(refused) => refused.code.to_string(),
    };
    let codes = judged.verdicts.iter().map(code).collect();
    if !batch.entries.is_empty() {
        replica.adopt(judged);
    }
    (batch, codes)
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
                restored = Some(Replica::<Counter>::restore(&serde_json::from_str(&snapshot).unwrap()).unwrap());
            }
            let (batch, _) = commit(&mut owner, actions, number as u64);
            prop_assert!(in_range(owner.state()));
            if batch.entries.is_empty() {
                continue;
            }
            // As a store gives it back.
            let batch: Batch = serde_json::from_str(&serde_json::to_string(&*batch).unwrap()).unwrap();
            let views = follower.replay(&batch).unwrap();
            prop_assert_eq!(views.iter().last().unwrap(), owner.view().unwrap());
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
    assert_eq!(second.entries[0].at, Millis(100));
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
fn a_batch_that_the_model_does_not_take_again_changes_nothing() {
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
        Replica::<Fickle>::restore(&snapshot),
        Err(RestoreError::OtherModel { .. })
    ));
    let newer = Snapshot {
        version: 2,
        ..snapshot
    };
    assert!(matches!(
        Replica::<Counter>::restore(&newer),
        Err(RestoreError::OtherVersion {
            found: 2,
            expected: 1
        })
    ));
}

#[test]
fn nothing_is_adopted_before_it_is_committed() {
    let replica = start::<Counter>();
    let asked = [asked(CounterAction::Plus { by: 5 })];
    let judged = replica.judge(&asked, BatchId(Uuid::nil()), Millis(1), None);
    assert_eq!(judged.views.iter().collect::<Vec<_>>(), [b"5"]);
    assert_eq!(
        (replica.state().value, replica.position().rev),
        (0, Revision(0))
    );
}
