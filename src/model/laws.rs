//! The laws that every model keeps, tried with random actions.

use proptest::{
    prelude::*,
    test_runner::{Config, TestCaseError, TestRunner},
};
use uuid::Uuid;

use super::{
    contract::{By, Events, Model},
    tell::Tell,
};
use crate::{
    fields::Fields,
    ids::{ClientId, Millis, Name, Revision},
    limits::Limits,
    rejection::Rejection,
};

/// How many actions a trial has at most.
const MOST: usize = 64;

/// An action, by one of a few clients.
type Asked<A> = (A, u8);

/// What an action made: what is told beside the state, or why it was refused.
type Made = Result<Vec<Tell>, Rejection>;

/// Tries the laws of a model with random actions: `tallyroom::model::laws::<MyModel>()` in a test.
///
/// 1. The same actions in the same order make the same states, messages and refusals.
/// 2. Judging an action on a copy of a state leaves the state itself as it was.
/// 3. A state that was written down and read back goes on as the original does, and so do actions.
/// 4. What clients see can be written as JSON, whatever happened.
/// 5. Where clients speak JSON, an action is read from the form that it is stored in.
/// 6. What was exported can be imported, and makes the same state.
/// 7. So few actions do not fill a room: the state stays within [`Limits::max_state_bytes`].
///
/// # Panics
///
/// Where one is broken: names it, and the fewest actions that were found to break it.
pub fn laws<M: Model>()
where
    M::Action: Arbitrary,
{
    let asked = any::<(M::Action, u8)>().prop_map(|(action, client)| (action, client % 3));
    let trials = prop::collection::vec(asked, 0..MOST);
    let stored = trials.prop_map(|asked| {
        let stored = |(action, client): Asked<M::Action>| (write(&action), client);
        asked.into_iter().map(stored).collect::<Vec<_>>()
    });
    // Shrunk in memory: a file of what failed would lie in the folder of whoever runs this.
    let config = Config {
        failure_persistence: None,
        ..Config::default()
    };
    let tried = TestRunner::new(config).run(&stored, |asked| try_laws::<M>(&asked));
    if let Err(broken) = tried {
        panic!("the model {:?} breaks a law: {broken}", M::NAME);
    }
}

fn try_laws<M: Model>(asked: &[Asked<String>]) -> Result<(), TestCaseError> {
    let (mut state, mut again) = (M::State::default(), M::State::default());
    for (nth, (text, client)) in asked.iter().enumerate() {
        let action: M::Action = read("an action", text)?;
        prop_assert_eq!(write(&action), text.clone(), "an action reads back");
        if M::EVENTS == Events::Json {
            let parsed = Fields::parse(text).and_then(|fields| M::parse(&fields));
            let parsed = parsed.map(|action| write(&action));
            prop_assert_eq!(
                parsed,
                Ok(text.clone()),
                "a client's action is the stored one"
            );
        }
        let by = by(nth, *client);
        let before = write(&state);
        let (judged, made) = judge::<M>(&state, &action, &by);
        prop_assert_eq!(write(&state), before, "a state is not changed by a copy");
        let stored: M::State = read("a state", &write(&again))?;
        let (judged_again, made_again) = judge::<M>(&stored, &action, &by);
        prop_assert_eq!(made, made_again, "the same is told or refused");
        prop_assert_eq!(
            write(&judged),
            write(&judged_again),
            "the same state is made"
        );
        (state, again) = (judged, judged_again);
        let shown = serde_json::to_string(&M::view(&state));
        prop_assert!(shown.is_ok(), "what clients see is JSON: {:?}", shown);
    }
    let bytes = write(&state).len();
    let max = Limits::default().max_state_bytes.unwrap_or(usize::MAX);
    prop_assert!(
        bytes <= max,
        "a state is bounded: it has {} bytes, and {} fit",
        bytes,
        max
    );
    let exported = M::export(&state).map_err(|err| TestCaseError::fail(err.to_string()))?;
    let exported = write(&exported);
    let imported = Fields::parse(&exported).and_then(|fields| M::import(&fields));
    let imported = imported.map(|state| write(&state));
    prop_assert_eq!(imported, Ok(write(&state)), "what was exported is imported");
    Ok(())
}

/// As a room does: on a copy, which is thrown away where the action is refused.
fn judge<M: Model>(state: &M::State, action: &M::Action, by: &By) -> (M::State, Made) {
    let mut draft = state.clone();
    match M::apply(&mut draft, action, by) {
        Ok(()) => {
            let tells = M::tell(&draft, action, by);
            (draft, Ok(tells))
        }
        Err(refused) => (state.clone(), Err(refused)),
    }
}

fn by(nth: usize, client: u8) -> By {
    let nth = nth as u64;
    By {
        client: Some(ClientId(Uuid::from_u128(client.into()))),
        name: ["ann", "bob"]
            .get(usize::from(client))
            .and_then(|name| name.parse::<Name>().ok()),
        ordinal: Some(u64::from(client) + 1),
        rev: Revision(nth + 1),
        at: Millis(1_800_000_000_000 + nth),
    }
}

fn write(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("states and actions can be written as JSON")
}

fn read<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Result<T, TestCaseError> {
    serde_json::from_str(text)
        .map_err(|err| TestCaseError::fail(format!("{what} does not read back: {err}: {text}")))
}
