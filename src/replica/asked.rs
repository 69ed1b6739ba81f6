//! What clients ask of a room, and what becomes of it.

use std::time::Duration;

use crate::{
    ids::{ClientId, Name, Revision, SessionId},
    rejection::Rejection,
};

/// What a client asks for.
#[derive(Clone, Debug)]
pub struct Asked<A> {
    /// Who asks, and the number; `None` where the client did not say: then it is not remembered.
    pub number: Option<Number>,
    pub action: Result<A, Declined>,
    /// How long the client was told to wait already: a retry says at least as much.
    pub hold: Duration,
    /// By which session, and the name that its client bears there; none for a request.
    pub session: Option<SessionId>,
    pub name: Option<Name>,
}

/// A client's number of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    pub client: ClientId,
    /// From 1 to [`MAX_NUMBER`](crate::ids::MAX_NUMBER).
    pub n: u64,
}

/// Why an action is not even judged by the model.
#[derive(Clone, Debug)]
pub enum Declined {
    /// It cannot be understood: its number is settled by a refusal.
    Refused(Rejection),
    /// It is over a limit: its number is not taken.
    NotTaken(Rejection),
}

/// What becomes of an action, when its batch is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It made this revision.
    Accepted(Revision),
    /// It changes nothing, for good.
    Refused(Rejection),
    /// Its number was settled before: [`Settled::first`](crate::settled::Settled::first) has what was said then.
    Repeated,
    /// It was not taken, and nothing is settled.
    Retry(Retry),
}

/// Why an action was not taken, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    pub why: Rejection,
    /// The number that the room takes next, where the action had one.
    pub expected: Option<u64>,
    /// How long to wait at least.
    pub after: Duration,
}

impl Retry {
    pub fn new(why: Rejection, expected: Option<u64>, after: Duration) -> Self {
        Self {
            why,
            expected,
            after,
        }
    }
}

/// What is said to a number that is not the expected one.
pub fn gap(n: u64, expected: u64) -> Rejection {
    let message = format!("number {n} came where {expected} was expected; send from there");
    Rejection::new("gap", message)
}
