//! The numbers of a room's sessions: 1, 2, 3… by their first actions, none twice.

use std::collections::HashMap;

use crate::{entry::Batch, ids::SessionId};

/// Which number each session has, as far as what is committed says.
#[derive(Debug, Default)]
pub struct Ordinals {
    last: u64,
    sessions: HashMap<SessionId, u64>,
}

/// The numbers that a batch would give, before it is committed, and those that it goes on from.
#[derive(Clone, Debug, Default)]
pub struct Given {
    last: u64,
    sessions: HashMap<SessionId, u64>,
}

impl Ordinals {
    /// So many were given before.
    pub fn after(last: u64) -> Self {
        let sessions = HashMap::new();
        Self { last, sessions }
    }

    pub fn last(&self) -> u64 {
        self.last
    }

    /// What is given next goes on from here.
    pub fn begin(&self) -> Given {
        Given {
            last: self.last,
            sessions: HashMap::new(),
        }
    }

    /// The number that a session has, or will have if its first action is accepted.
    pub fn of(&self, session: SessionId, given: &Given) -> u64 {
        let known = self.sessions.get(&session);
        let known = known.or_else(|| given.sessions.get(&session));
        known.copied().unwrap_or(given.last + 1)
    }

    /// What was given is committed.
    pub fn adopt(&mut self, given: Given) {
        self.last = self.last.max(given.last);
        self.sessions.extend(given.sessions);
    }

    /// Takes note of what others gave.
    pub fn pass(&mut self, batch: &Batch) {
        let given = batch.entries.iter().filter_map(|entry| entry.ordinal());
        self.last = given.fold(self.last, u64::max);
    }

    /// A session is gone, and acts no more.
    pub fn forget(&mut self, session: SessionId) {
        self.sessions.remove(&session);
    }
}

impl Given {
    /// A session's action is accepted: the number is its own.
    pub fn take(&mut self, session: SessionId, ordinal: u64) {
        if ordinal > self.last {
            self.last = ordinal;
            self.sessions.insert(session, ordinal);
        }
    }
}
