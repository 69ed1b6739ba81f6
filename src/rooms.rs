//! The registry: from a room's name to its owner, started on demand, put to rest when idle.
//!
//! It alone starts owners, hands out leases and stops owners, one message after the other: so there
//! is no moment in which a room goes to rest while somebody joins it. An owner is stopped only when
//! no lease is out and nothing is underway; nobody keeps an address beyond its lease.

pub mod leases;

use std::{
    collections::HashMap,
    future::ready,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use actix::prelude::*;
use futures_util::future::join_all;
use tokio::sync::oneshot;

use crate::{
    ids::{OwnerId, RoomName},
    journal::Journal,
    limits::Limits,
    model::Model,
    room::{Rest, Room, Settle},
    waiting::Waiting,
};

/// The actor that knows every room in memory.
pub struct Rooms<M: Model> {
    journal: Arc<dyn Journal>,
    limits: Arc<Limits>,
    waiting: Waiting,
    slots: HashMap<RoomName, Slot<M>>,
}

struct Slot<M: Model> {
    owner: OwnerId,
    room: Addr<Room<M>>,
    leases: usize,
    idle_since: Instant,
    /// Set while the room goes to rest: who wants it meanwhile.
    resting: Option<Vec<oneshot::Sender<Lease<M>>>>,
}

/// Keeps a room awake, and reaches its owner.
pub struct Lease<M: Model> {
    name: RoomName,
    owner: OwnerId,
    room: Addr<Room<M>>,
    rooms: Addr<Rooms<M>>,
    waiting: Waiting,
}

impl<M: Model> Lease<M> {
    pub fn name(&self) -> &RoomName {
        &self.name
    }

    pub fn owner(&self) -> OwnerId {
        self.owner
    }

    pub fn room(&self) -> &Addr<Room<M>> {
        &self.room
    }

    /// How much waits in all rooms.
    pub fn waiting(&self) -> &Waiting {
        &self.waiting
    }
}

impl<M: Model> Drop for Lease<M> {
    fn drop(&mut self) {
        // One for each lease handed out, so that the mailbox is bounded by the leases.
        self.rooms.do_send(Return {
            name: self.name.clone(),
            owner: self.owner,
        });
    }
}

/// Asks for a lease of a room, which is started where it is not in memory.
#[derive(Message)]
#[rtype(result = "Result<Lease<M>, AcquireError>")]
pub struct Acquire<M: Model> {
    name: RoomName,
    model: std::marker::PhantomData<fn() -> M>,
}

impl<M: Model> Acquire<M> {
    pub fn new(name: RoomName) -> Self {
        Self {
            name,
            model: std::marker::PhantomData,
        }
    }
}

/// No lease of a room can be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcquireError {
    #[error("{max} rooms are in memory, as many as may be (--max-rooms); try again later")]
    TooMany { max: usize },
    #[error("the room went away while it was waited for; try again")]
    Gone,
}

/// A lease is no longer used.
#[derive(Message)]
#[rtype(result = "()")]
struct Return {
    name: RoomName,
    owner: OwnerId,
}

impl<M: Model> Rooms<M> {
    pub fn new(journal: Arc<dyn Journal>, limits: Arc<Limits>) -> Self {
        Self {
            journal,
            limits,
            waiting: Waiting::default(),
            slots: HashMap::new(),
        }
    }

    fn start_room(&mut self, name: &RoomName) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let owner = OwnerId(NEXT.fetch_add(1, Ordering::Relaxed));
        let room = Room::new(
            owner,
            name.clone(),
            self.journal.clone(),
            self.limits.clone(),
            &self.waiting,
        );
        let slot = Slot {
            owner,
            room: room.start(),
            leases: 0,
            idle_since: Instant::now(),
            resting: None,
        };
        self.slots.insert(name.clone(), slot);
    }

    fn lease(&mut self, name: &RoomName, rooms: Addr<Self>) -> Option<Lease<M>> {
        let slot = self.slots.get_mut(name)?;
        slot.leases += 1;
        Some(Lease {
            name: name.clone(),
            owner: slot.owner,
            room: slot.room.clone(),
            rooms,
            waiting: self.waiting.clone(),
        })
    }

    fn put_idle_to_rest(&mut self, ctx: &mut Context<Self>) {
        let Some(room_idle) = self.limits.room_idle else {
            return;
        };
        for (name, slot) in &mut self.slots {
            let idle = slot.leases == 0 && slot.idle_since.elapsed() >= room_idle;
            if !idle || slot.resting.is_some() {
                continue;
            }
            slot.resting = Some(Vec::new());
            let name = name.clone();
            // Resolves when the owner has stopped, or at once where it is dead already.
            let rested = fut::wrap_future::<_, Self>(slot.room.send(Rest));
            ctx.spawn(rested.map(move |_, rooms, ctx| rooms.rested(&name, ctx)));
        }
    }

    fn rested(&mut self, name: &RoomName, ctx: &mut Context<Self>) {
        let Some(slot) = self.slots.remove(name) else {
            return;
        };
        let mut waiting = slot.resting.into_iter().flatten().peekable();
        if waiting.peek().is_some() {
            self.start_room(name);
        }
        for reply in waiting {
            if let Some(lease) = self.lease(name, ctx.address()) {
                // A lease that nobody waits for any more comes back by being dropped.
                let _ = reply.send(lease);
            }
        }
    }
}

impl<M: Model> Actor for Rooms<M> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Some(room_idle) = self.limits.room_idle {
            let tick = room_idle / 8;
            let tick = tick.clamp(Duration::from_millis(10), Duration::from_secs(5));
            ctx.run_interval(tick, Self::put_idle_to_rest);
        }
    }
}

impl<M: Model> Handler<Acquire<M>> for Rooms<M> {
    type Result = ResponseFuture<Result<Lease<M>, AcquireError>>;

    fn handle(
        &mut self,
        Acquire { name, .. }: Acquire<M>,
        ctx: &mut Self::Context,
    ) -> Self::Result {
        match self.slots.get_mut(&name) {
            Some(Slot {
                resting: Some(waiting),
                ..
            }) => {
                let (reply, lease) = oneshot::channel();
                waiting.push(reply);
                return Box::pin(async { lease.await.map_err(|_| AcquireError::Gone) });
            }
            Some(slot) if slot.room.connected() => {}
            Some(_) => {
                log::error!("room {name}: its owner died; another one is started");
                self.start_room(&name);
            }
            None => {
                if let Some(max) = self.limits.max_rooms
                    && self.slots.len() >= max
                {
                    return Box::pin(ready(Err(AcquireError::TooMany { max })));
                }
                self.start_room(&name);
            }
        }
        let lease = self.lease(&name, ctx.address()).ok_or(AcquireError::Gone);
        Box::pin(ready(lease))
    }
}

impl<M: Model> Handler<Return> for Rooms<M> {
    type Result = ();

    fn handle(&mut self, Return { name, owner }: Return, _: &mut Self::Context) {
        // A lease of an owner that died is not one of its successor's.
        if let Some(slot) = self.slots.get_mut(&name)
            && slot.owner == owner
        {
            slot.leases -= 1;
            slot.idle_since = Instant::now();
        }
    }
}

impl<M: Model> Handler<Settle> for Rooms<M> {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Settle, _: &mut Self::Context) -> Self::Result {
        let rooms = self.slots.values().map(|slot| slot.room.send(Settle));
        let settled = join_all(rooms);
        Box::pin(async {
            // A room that died has nothing underway.
            settled.await;
        })
    }
}
