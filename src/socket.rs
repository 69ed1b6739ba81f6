//! Room sockets: who is let in, and the transports that carry them.
//!
//! One admission check serves every transport. [`Sockets`] is what a transport needs to open a
//! session; it may be cloned and sent to any thread.

pub mod admission;
pub mod embedded;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use actix::prelude::*;
use actix_web::rt::time::timeout;
use uuid::Uuid;

use self::admission::{Admission, Denial};
use crate::{
    fanout::Fanouts,
    ids::{ClientId, RoomName},
    limits::{Limits, MAX_SETTLE},
    model::Model,
    protocol::{Dialect, Negotiated},
    room::{Seat, Settle},
    rooms::Rooms,
};

/// Opens sessions in the rooms of one model.
pub struct Sockets<M: Model> {
    rooms: Addr<Rooms<M>>,
    fanouts: Arc<Fanouts>,
    admission: Arc<Admission>,
    limits: Arc<Limits>,
    open: Arc<AtomicUsize>,
}

impl<M: Model> Sockets<M> {
    pub fn new(rooms: Addr<Rooms<M>>, admission: Admission, limits: Arc<Limits>) -> Self {
        Self {
            rooms,
            fanouts: Arc::default(),
            admission: Arc::new(admission),
            limits,
            open: Arc::default(),
        }
    }

    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    pub fn rooms(&self) -> &Addr<Rooms<M>> {
        &self.rooms
    }

    pub fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    /// Whether the server stops, and takes no more actions.
    pub fn is_draining(&self) -> bool {
        self.fanouts.is_draining()
    }

    /// Finishes what is underway, in all rooms, and then closes every session with 1012.
    ///
    /// Resolves when the sessions are told so, after [`MAX_SETTLE`] at the latest.
    pub async fn drain(&self) {
        let settle = async {
            self.fanouts.drain().await;
            // Without its registry there is no room either.
            let _ = self.rooms.send(Settle).await;
        };
        if timeout(MAX_SETTLE, settle).await.is_err() {
            log::warn!("actions are still underway; their sessions are closed without an answer");
        }
        self.fanouts.close();
    }

    /// The check that every transport makes before it answers a handshake.
    ///
    /// # Errors
    ///
    /// The HTTP answer to give: a foreign host or origin, no such room, a bad id of a client, or no
    /// place.
    fn admit(&self, request: &admission::Request<'_>, room: &str) -> Result<Admitted, Denial> {
        self.admission.check_host(request)?;
        self.admission.check_origin(request)?;
        let room = room.parse().map_err(Denial::no_such_room)?;
        let Negotiated { dialect, client } = request.negotiate()?;
        let seat = match dialect {
            Dialect::Classic => Seat::Classic,
            Dialect::V1 => Seat::V1 {
                client: client.unwrap_or_else(|| ClientId(Uuid::new_v4())),
                permissions: request.permissions(),
            },
        };
        if self.fanouts.is_draining() {
            return Err(Denial::overloaded("the server stops; connect again later"));
        }
        let place = Place::take(&self.open, self.limits.max_connections)?;
        Ok(Admitted { room, seat, place })
    }
}

impl<M: Model> Clone for Sockets<M> {
    fn clone(&self) -> Self {
        Self {
            rooms: self.rooms.clone(),
            fanouts: self.fanouts.clone(),
            admission: self.admission.clone(),
            limits: self.limits.clone(),
            open: self.open.clone(),
        }
    }
}

/// A session that may be opened.
struct Admitted {
    room: RoomName,
    seat: Seat,
    place: Place,
}

/// One of the connections that may be open; dropping it makes place.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(open: &Arc<AtomicUsize>, max: Option<usize>) -> Result<Self, Denial> {
        let place = Self(open.clone());
        let others = open.fetch_add(1, Ordering::Relaxed);
        match max {
            Some(max) if others >= max => Err(Denial::overloaded(&format!(
                "{max} connections are open, as many as may be (--max-connections)"
            ))),
            _ => Ok(place),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
