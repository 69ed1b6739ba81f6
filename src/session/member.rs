//! A session's place in its room.

use std::rc::Rc;

use crate::{
    ids::SessionId,
    model::Model,
    replica::Asked,
    room::{Leave, Origin, Submit},
    rooms::leases::Shared,
};

/// A session's place in a room: dropping it leaves the room.
pub struct Member<M: Model> {
    pub lease: Rc<Shared<M>>,
    pub session: SessionId,
}

impl<M: Model> Member<M> {
    fn origin(&self) -> Origin {
        Origin {
            worker: self.lease.worker(),
            session: self.session,
        }
    }

    /// Forwards actions, and the bytes of their messages.
    pub fn submit(&self, actions: Vec<(Asked<M::Action>, usize)>, bytes: usize) {
        // The mailbox is bounded by what each session may have underway, and all of them may.
        self.lease.room().do_send(Submit {
            from: self.origin(),
            waits: self.lease.waiting().count(actions.len(), bytes),
            actions,
        });
    }
}

impl<M: Model> Drop for Member<M> {
    fn drop(&mut self) {
        self.lease.room().do_send(Leave(self.origin()));
    }
}
