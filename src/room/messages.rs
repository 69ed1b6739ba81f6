//! What an owner is asked.

use actix::prelude::*;
use tokio::sync::oneshot;

use super::audience::{Listener, Origin, Peer};
use crate::{
    deliver::OwnerGone,
    ids::{Epoch, OwnerId, Revision},
    model::Model,
    rejection::Rejection,
    replica::{Asked, Retry},
    waiting::Waits,
};

/// Lets a session into the room: its worker is told so, or that the owner is gone.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Join {
    pub from: Origin,
    pub peer: Peer,
    owner: OwnerId,
    listener: Option<Listener>,
}

impl Join {
    /// `owner` is the one that is asked.
    pub fn new(from: Origin, peer: Peer, owner: OwnerId, listener: Listener) -> Self {
        Self {
            from,
            peer,
            owner,
            listener: Some(listener),
        }
    }

    /// For the owner, which tells the session from now on: who hears what it tells.
    ///
    /// # Panics
    ///
    /// When called again.
    pub(super) fn heard(&mut self) -> Listener {
        self.listener
            .take()
            .expect("a join is heard once, by its handler")
    }
}

impl Drop for Join {
    /// An owner that ends with this in its mailbox lets nobody in any more.
    fn drop(&mut self) {
        if let Some(listener) = &self.listener {
            listener.gone.do_send(OwnerGone {
                owner: self.owner,
                waiting: vec![self.from.session],
            });
        }
    }
}

/// Takes a session out of the room. One that is not in is passed over.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Leave(pub Origin);

/// A session's actions, in its order, each with the bytes of the message that asked for it.
///
/// The session is answered by a [`Deliver`](crate::deliver::Deliver). How much may be underway is the session's to bound.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Submit<M: Model> {
    pub from: Origin,
    pub actions: Vec<(Asked<M::Action>, usize)>,
    pub waits: Waits,
}

/// One action without a session; answered when it is committed or will not be.
#[derive(Message)]
#[rtype(result = "Result<Outcome, Gone>")]
pub struct Act<M: Model> {
    pub asked: Asked<M::Action>,
    /// Of the message that asked for it.
    pub bytes: usize,
    pub waits: Waits,
}

/// What became of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Accepted {
        made: Seen,
        /// It was accepted before, and not applied again.
        replayed: bool,
    },
    Refused {
        why: Rejection,
        replayed: bool,
    },
    Retry(Retry),
}

/// A room's value at a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub epoch: Epoch,
    pub rev: Revision,
    /// As JSON.
    pub value: Vec<u8>,
}

/// The owner died before it could answer: whether the action is in is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the room failed, and what became of the action is not known; send it again")]
pub struct Gone;

/// Asks for the present value and how many sessions there are.
#[derive(Message)]
#[rtype(result = "(Seen, usize)")]
pub struct Look;

/// Begins a new epoch with this state; answered when that is committed.
#[derive(Message)]
#[rtype(result = "Result<(), ImportError>")]
pub struct Import<M: Model>(pub M::State);

/// A state that waits until nothing is in flight.
pub struct WaitingImport<M: Model> {
    pub state: M::State,
    pub reply: oneshot::Sender<Result<(), ImportError>>,
}

/// A room was not begun anew, or it is not known.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// Nothing was changed.
    #[error("it was not imported: {0}")]
    Refused(String),
    /// The store did not say whether it wrote, or the owner died.
    #[error("it is not known whether it was imported: {0}")]
    Unknown(String),
}

/// Answered when nothing is underway any more.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Settle;

/// Stops the owner when nothing is underway. Only the registry sends it, when no lease is out.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Rest;
