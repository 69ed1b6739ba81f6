//! What the clients of a run have seen of the room, each for itself and all together.

use serde::Serialize;

/// What one client has seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The last state.
    pub state: Option<State>,
    /// The last count of users.
    pub users: Option<u64>,
    /// In `tallyroom.v1` the server greets once.
    pub welcomed: bool,
    /// The last state of the run was seen.
    pub arrived: bool,
    /// The server ended its connection while it read nothing.
    pub dropped: bool,
}

/// A state of the room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Counts the actions in effect, from wherever the room began.
    pub place: i64,
    pub value: i64,
}

/// How a state follows the one before it, for the same client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is so many actions further; those between were left out.
    Forward(u64),
    Repeated,
    Back,
}

impl Step {
    pub fn between(before: State, after: State) -> Self {
        match after.place.checked_sub(before.place) {
            Some(further @ 1..) => Self::Forward(further as u64),
            Some(0) => Self::Repeated,
            _ => Self::Back,
        }
    }
}

/// What all clients were told in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// States, until the last client saw the last one.
    pub events: u64,
    /// States that a client was never told because newer ones took their place.
    pub skipped: u64,
    pub repeated: u64,
    pub back: u64,
}

impl Told {
    pub fn count(&mut self, step: Step) {
        match step {
            Step::Forward(further) => self.skipped += further - 1,
            Step::Repeated => self.repeated += 1,
            Step::Back => self.back += 1,
        }
    }
}

/// What became of the clients that read nothing while the run went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Stalled {
    pub count: usize,
    /// How many came to the last state.
    pub caught_up: usize,
    /// How many others the server dropped.
    pub dropped: usize,
}

impl Stalled {
    /// How many neither came to the last state nor were dropped.
    pub fn left(&self) -> usize {
        self.count - self.caught_up - self.dropped
    }
}

/// Why a run cannot begin yet.
///
/// All must have been told the same count of users, of them at least, and the same state: only then is everybody in,
/// and the room at rest.
pub fn missing(clients: &[Seen]) -> Option<String> {
    let of = clients.len();
    let told = clients
        .iter()
        .filter(|client| client.state.is_some())
        .count();
    if told < of {
        return Some(format!("{told} of {of} clients were told the state"));
    }
    let users = clients.iter().map(|client| client.users.unwrap_or(0));
    let (least, most) = (users.clone().min().unwrap_or(0), users.max().unwrap_or(0));
    if least != most || least < of as u64 {
        let count = match least == most {
            true => most.to_string(),
            false => format!("{least} to {most}"),
        };
        return Some(format!(
            "{of} clients are in and were told of {count} users"
        ));
    }
    let state = clients.first()?.state;
    let differ = clients.iter().any(|client| client.state != state);
    differ.then(|| "the clients were told different values".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(place: i64) -> State {
        State {
            place,
            value: place,
        }
    }

    #[test]
    fn each_state_is_held_against_the_one_before() {
        let mut told = Told::default();
        for (before, after) in [
            (4, 5),
            (5, 9),
            (9, 9),
            (9, 7),
            (7, 10),
            (i64::MIN, i64::MAX),
        ] {
            told.count(Step::between(at(before), at(after)));
        }
        let expected = Told {
            events: 0,
            skipped: 3 + 2,
            repeated: 1,
            back: 2,
        };
        assert_eq!(told, expected);
    }

    #[test]
    fn all_must_be_in_and_the_room_at_rest() {
        let seen = |users, place: Option<i64>| Seen {
            users,
            state: place.map(at),
            ..Seen::default()
        };
        for (clients, what) in [
            (
                vec![seen(Some(2), Some(7)), seen(Some(2), None)],
                Some("1 of 2 clients"),
            ),
            (
                vec![seen(Some(2), Some(7)), seen(Some(1), Some(7))],
                Some("1 to 2 users"),
            ),
            (
                vec![seen(None, Some(7)), seen(None, Some(7))],
                Some("of 0 users"),
            ),
            (
                vec![seen(Some(1), Some(7)), seen(Some(1), Some(7))],
                Some("of 1 users"),
            ),
            (
                vec![seen(Some(5), Some(7)), seen(Some(5), Some(8))],
                Some("different values"),
            ),
            (vec![seen(Some(5), Some(7)), seen(Some(5), Some(7))], None),
        ] {
            let missing = missing(&clients);
            assert_eq!(missing.is_some(), what.is_some(), "{missing:?}");
            assert!(
                what.is_none_or(|what| missing.unwrap().contains(what)),
                "{what:?}"
            );
        }
    }
}
