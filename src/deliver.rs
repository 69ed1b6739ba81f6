//! What a room tells one worker thread: one message per batch, whatever the number of sessions.

use actix::prelude::*;
use actix_web::web::Bytes;

use crate::{
    ids::{OwnerId, SessionId},
    limits::MAX_EVENTS_BEHIND,
    outbox::{States, Takes, TellFrame, UsersFrame},
};

/// What a room tells the sessions of one worker.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Deliver {
    pub owner: OwnerId,
    /// Sessions whose clients have a newer one: they close.
    pub replaced: Vec<SessionId>,
    /// Sessions that are let in; what follows is for them too.
    pub entered: Vec<Entered>,
    pub answers: Vec<Answer>,
    pub users: Option<UsersFrame>,
    pub states: Option<States>,
    /// Messages of the model's own.
    pub tells: Vec<TellFrame>,
    /// Some of them were too many to be kept until now: whoever is in by now has missed them.
    pub missed: bool,
}

/// What a newcomer is told first.
#[derive(Debug)]
pub struct Entered {
    pub session: SessionId,
    pub takes: Takes,
    /// What comes before everything else; may be empty.
    pub welcome: Bytes,
    pub users: UsersFrame,
    pub state: Bytes,
    /// The number that the room takes next from its client.
    pub next: u64,
}

/// What one session is told alone.
#[derive(Debug)]
pub struct Answer {
    pub session: SessionId,
    /// What of its actions is done with, accepted or not.
    pub done: Underway,
    /// May be empty.
    pub frames: Bytes,
    /// The number that the room takes next from its client, where that is known to it.
    pub next: Option<u64>,
}

/// Actions on their way through a room, and the bytes of the messages that asked for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Underway {
    pub actions: usize,
    pub bytes: usize,
}

impl Underway {
    pub fn add(&mut self, other: Self) {
        self.actions += other.actions;
        self.bytes += other.bytes;
    }
}

impl Deliver {
    pub fn new(owner: OwnerId) -> Self {
        Self {
            owner,
            replaced: Vec::new(),
            entered: Vec::new(),
            answers: Vec::new(),
            users: None,
            states: None,
            tells: Vec::new(),
            missed: false,
        }
    }

    /// Goes on with a later delivery; gives it back where it must follow by itself, since it lets
    /// sessions in that must not hear this one.
    #[must_use]
    pub fn merge(&mut self, later: Self, max_bytes: usize) -> Option<Self> {
        if !later.entered.is_empty() {
            return Some(later);
        }
        self.replaced.extend(later.replaced);
        for answer in later.answers {
            self.answer(answer);
        }
        self.users = later.users.or(self.users.take());
        self.states = match (self.states.take(), later.states) {
            (Some(mut states), Some(later)) => {
                states.append(later, max_bytes);
                Some(states)
            }
            (states, later) => later.or(states),
        };
        self.tells.extend(later.tells);
        self.missed |= later.missed;
        let bytes: usize = self.tells.iter().map(|tell| tell.frame.len()).sum();
        if bytes > max_bytes || self.tells.len() as u64 > MAX_EVENTS_BEHIND {
            self.tells = Vec::new();
            self.missed = true;
        }
        None
    }

    /// Adds an answer, to the one before it if that is for the same session.
    pub fn answer(&mut self, answer: Answer) {
        match self.answers.last_mut() {
            Some(last) if last.session == answer.session => {
                last.done.add(answer.done);
                last.next = answer.next.or(last.next);
                if !answer.frames.is_empty() {
                    last.frames = [&last.frames[..], &answer.frames[..]].concat().into();
                }
            }
            _ => self.answers.push(answer),
        }
    }
}

/// A room's owner is gone, and with it what its sessions wait for.
#[derive(Message, Clone, Debug)]
#[rtype(result = "()")]
pub struct OwnerGone {
    pub owner: OwnerId,
    /// Those of the worker's sessions that were let in and not told so yet.
    pub waiting: Vec<SessionId>,
}

/// The server stops: sessions take no further actions.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Drain;

/// What was underway is told: sessions close when they took what is theirs.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Close;
