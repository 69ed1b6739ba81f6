//! What an owner is asked.

use actix::prelude::*;

use super::audience::{Listener, Origin};
use crate::{model::Model, replica::Asked};

/// Lets a session into the room; the answer is that it is in.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Join {
    pub from: Origin,
    pub listener: Listener,
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
}

/// Answered when nothing is underway any more.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Settle;

/// Stops the owner when nothing is underway. Only the registry sends it, when no lease is out.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Rest;
