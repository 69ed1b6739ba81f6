//! Room sockets: who is let in, and the transports that carry them.
//!
//! One admission check serves every transport. [`Sockets`] is what a transport needs to open a
//! session; it may be cloned and sent to any thread.

pub mod admission;
pub mod direct;
pub mod embedded;
pub mod handshake;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use actix::prelude::*;
use actix_web::{rt::time::timeout, web::Bytes};
use percent_encoding::percent_decode_str;
use uuid::Uuid;

use self::admission::{Admission, Denial};
use crate::{
    connections::{Connections, Place},
    fanout::Fanouts,
    ids::ClientId,
    limits::{Limits, MAX_GOODBYE, MAX_SETTLE},
    model::{Events, Model, Seat},
    protocol::{Dialect, Negotiated},
    room::{Peer, Settle},
    rooms::{Rooms, leases::Leases},
    session::{Opening, Source},
};

/// How sessions are carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Transport {
    /// Their connections are taken over from the HTTP server.
    #[default]
    Direct,
    /// By the HTTP server, as in an application of one's own.
    Embedded,
}

/// Opens sessions in the rooms of one model.
pub struct Sockets<M: Model> {
    model: Arc<M>,
    rooms: Addr<Rooms<M>>,
    fanouts: Arc<Fanouts>,
    admission: Arc<Admission>,
    limits: Arc<Limits>,
    connections: Connections,
}

impl<M: Model> Sockets<M> {
    pub fn new(model: M, rooms: Addr<Rooms<M>>, admission: Admission, limits: Arc<Limits>) -> Self {
        Self {
            model: Arc::new(model),
            rooms,
            fanouts: Arc::default(),
            admission: Arc::new(admission),
            limits,
            connections: Connections::default(),
        }
    }

    /// Where a path leads, which is as it stands in a request.
    pub fn seat(&self, path: &str) -> Option<Seat> {
        let path = percent_decode_str(path).decode_utf8().ok()?;
        let seat = || self.model.seat(&path);
        catch_unwind(AssertUnwindSafe(seat)).unwrap_or_else(|_| {
            log::error!("the model {:?} failed on a path", M::NAME);
            None
        })
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
    /// Resolves when all connections are gone, after [`MAX_SETTLE`] and [`MAX_GOODBYE`] at the latest.
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
        if timeout(MAX_GOODBYE, self.connections.none()).await.is_err() {
            log::warn!("connections are still open; they are cut");
        }
    }

    /// The check that every transport makes before it answers a handshake.
    ///
    /// # Errors
    ///
    /// The HTTP answer to give: a foreign host or origin, no such room, a bad id of a client, or no
    /// place.
    fn admit(
        &self,
        request: &admission::Request<'_>,
        seat: Result<Seat, Denial>,
    ) -> Result<Admitted, Denial> {
        self.admission.check_host(request)?;
        self.admission.check_origin(request)?;
        let seat = seat?;
        let Negotiated { dialect, client } = request.negotiate()?;
        let dialect = match M::EVENTS {
            Events::Json => dialect,
            Events::None => Dialect::Classic,
        };
        let peer = match dialect {
            Dialect::Classic => Peer::Classic,
            Dialect::V1 => Peer::V1 {
                client: client.unwrap_or_else(|| ClientId(Uuid::new_v4())),
                permissions: request.permissions(),
            },
        };
        if self.fanouts.is_draining() {
            return Err(Denial::overloaded("the server stops; connect again later"));
        }
        let place = self.connections.take(self.limits.max_connections);
        let place = place.map_err(|err| Denial::overloaded(&err.to_string()))?;
        Ok(Admitted { seat, peer, place })
    }

    /// What a session is opened with on this thread; its link is connected, and nothing of what it is
    /// sent has an effect before it is started.
    fn opening(&self, seat: Seat, peer: Peer, source: Source) -> Opening<M> {
        let worker = self.fanouts.worker(&self.limits);
        let (model, rooms) = (&self.model, &self.rooms);
        let leases = worker.keep(|| Leases::new(worker.id(), model.clone(), rooms.clone()));
        let link = worker.connect();
        if let Some(name) = seat.name {
            link.set_name(name);
        }
        Opening {
            link,
            worker,
            leases,
            source,
            came: Bytes::new(),
            room: seat.room,
            peer,
        }
    }
}

impl<M: Model> Clone for Sockets<M> {
    fn clone(&self) -> Self {
        Self {
            model: self.model.clone(),
            rooms: self.rooms.clone(),
            fanouts: self.fanouts.clone(),
            admission: self.admission.clone(),
            limits: self.limits.clone(),
            connections: self.connections.clone(),
        }
    }
}

/// A session that may be opened.
#[derive(Debug)]
pub struct Admitted {
    seat: Seat,
    peer: Peer,
    place: Place,
}
