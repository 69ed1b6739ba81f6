//! The leases that the sessions of one worker share: one for each room that any of them is in.
//!
//! So whoever enters a room that others on its thread are in needs not ask the registry, and a session
//! keeps no addresses of its own.

use std::{
    cell::RefCell,
    collections::HashMap,
    ops::Deref,
    rc::{Rc, Weak},
    sync::Arc,
};

use actix::prelude::*;

use super::{Acquire, AcquireError, Lease, Rooms};
use crate::{
    ids::{RoomName, WorkerId},
    model::Model,
};

/// The shared leases of one worker.
pub struct Leases<M: Model> {
    worker: WorkerId,
    model: Arc<M>,
    rooms: Addr<Rooms<M>>,
    held: RefCell<HashMap<RoomName, Weak<Shared<M>>>>,
}

/// A lease that sessions share; the last of them gives it back.
pub struct Shared<M: Model> {
    lease: Lease<M>,
    leases: Rc<Leases<M>>,
}

impl<M: Model> Leases<M> {
    pub fn new(worker: WorkerId, model: Arc<M>, rooms: Addr<Rooms<M>>) -> Self {
        Self {
            worker,
            model,
            rooms,
            held: RefCell::default(),
        }
    }

    /// The model with its settings.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// The lease of a room that is held already, if its owner lives.
    pub fn held(&self, room: &RoomName) -> Option<Rc<Shared<M>>> {
        let shared = self.held.borrow().get(room)?.upgrade()?;
        shared.room().connected().then_some(shared)
    }

    /// Asks for the lease of a room.
    ///
    /// # Errors
    ///
    /// [`AcquireError`]; [`AcquireError::Gone`] where there is no registry any more.
    pub async fn acquire(self: Rc<Self>, room: RoomName) -> Result<Rc<Shared<M>>, AcquireError> {
        let lease = self.rooms.send(Acquire::new(room.clone())).await;
        let lease = lease.unwrap_or(Err(AcquireError::Gone))?;
        if let Some(shared) = self.held(&room) {
            // Another session was faster.
            return Ok(shared);
        }
        let leases = self.clone();
        let shared = Rc::new(Shared { lease, leases });
        let mut held = self.held.borrow_mut();
        held.insert(room, Rc::downgrade(&shared));
        Ok(shared)
    }
}

impl<M: Model> Shared<M> {
    /// Whose sessions share it.
    pub fn worker(&self) -> WorkerId {
        self.leases.worker
    }

    /// The model with its settings.
    pub fn model(&self) -> &M {
        self.leases.model()
    }
}

impl<M: Model> Deref for Shared<M> {
    type Target = Lease<M>;

    fn deref(&self) -> &Lease<M> {
        &self.lease
    }
}

impl<M: Model> Drop for Shared<M> {
    fn drop(&mut self) {
        let mut held = self.leases.held.borrow_mut();
        // That of an owner that died may have a successor.
        let gone = |shared: &Weak<Self>| shared.strong_count() == 0;
        if held.get(self.lease.name()).is_some_and(gone) {
            held.remove(self.lease.name());
        }
    }
}
