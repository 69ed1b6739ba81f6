//! What a room tells everybody, as it goes on the wire.

use bytes::Bytes;

use crate::{
    ids::{Name, SessionId},
    limits::MAX_EVENTS_BEHIND,
};

/// Which states a session is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Each of them, in order, until it falls too far behind.
    Every,
    /// The newest: one that it has not been sent yet is replaced by the next.
    Newest,
}

/// What one batch has for everybody: its `state` events as they go on the wire, for those who take
/// every one and for those who take the newest; `None` where there is nobody of the kind.
#[derive(Clone, Debug, Default)]
pub struct States {
    pub every: Option<StateFrames>,
    pub newest: Option<Bytes>,
}

impl States {
    /// Goes on with a later batch's.
    pub fn append(&mut self, later: States, max_bytes: usize) {
        self.newest = later.newest.or(self.newest.take());
        match (&mut self.every, later.every) {
            (Some(every), Some(later)) => every.append(later, max_bytes),
            (every, Some(later)) => *every = Some(later),
            (_, None) => {}
        }
    }
}

/// The `state` events of one batch, for those who take every one.
#[derive(Clone, Debug)]
pub struct StateFrames {
    /// All of them, oldest first.
    pub every: Bytes,
    /// The last of them alone.
    pub newest: Bytes,
    /// How many there are in `every`.
    pub events: u64,
}

impl StateFrames {
    /// Goes on with a later batch's; past the limits of [`Recent`](super::Recent) only the newest is
    /// kept.
    pub fn append(&mut self, later: StateFrames, max_bytes: usize) {
        let bytes = self.every.len() + later.every.len();
        if self.events + later.events > MAX_EVENTS_BEHIND || bytes > max_bytes {
            *self = later;
        } else {
            self.every = [&self.every[..], &later.every[..]].concat().into();
            self.newest = later.newest;
            self.events += later.events;
        }
    }
}

/// How many sessions there are, as it goes on the wire.
#[derive(Clone, Debug)]
pub struct UsersFrame {
    pub count: usize,
    pub frame: Bytes,
}

/// A message of the model's own, as it goes on the wire.
#[derive(Clone, Debug)]
pub struct TellFrame {
    pub to: Whom,
    pub frame: Bytes,
}

/// To whom of a room's sessions something goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    Everyone,
    Only(SessionId),
    AllBut(SessionId),
    Named(Name),
    NotNamed(Name),
}

/// The same among the sessions of one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Among {
    Everyone,
    Only(Vec<SessionId>),
    AllBut(Vec<SessionId>),
}

impl Among {
    pub fn includes(&self, session: SessionId) -> bool {
        match self {
            Self::Everyone => true,
            Self::Only(sessions) => sessions.contains(&session),
            Self::AllBut(sessions) => !sessions.contains(&session),
        }
    }
}
