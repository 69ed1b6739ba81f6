//! What the handlers of the API share, and what each asks first.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex},
};

use actix_web::HttpRequest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    http::problem::Problem,
    ids::{ClientId, RoomName},
    journal::Journal,
    limits::MAX_READINGS,
    model::Model,
    rate::Rates,
    rejection::Rejection,
    rooms::{Acquire, Lease},
    socket::{Sockets, admission::Denial, handshake::admission_request},
};

/// What the handlers share.
pub struct Api<M: Model> {
    pub sockets: Sockets<M>,
    pub journal: Arc<dyn Journal>,
    /// Of those who act without a session.
    pub rates: Option<Mutex<Rates<Actor>>>,
    readings: Arc<Semaphore>,
}

/// A place among those who are told a journal or an export.
pub struct Place {
    _permit: OwnedSemaphorePermit,
}

/// Whose actions are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Actor {
    Client(ClientId),
    /// Whoever does not say who it is; `None`: not known, as behind a socket file.
    Address(Option<IpAddr>),
}

impl<M: Model> Api<M> {
    pub fn new(sockets: Sockets<M>, journal: Arc<dyn Journal>) -> Self {
        let rates = sockets.limits().session_rate;
        Self {
            rates: rates.map(|rate| Mutex::new(Rates::new(rate))),
            sockets,
            journal,
            readings: Arc::new(Semaphore::new(MAX_READINGS)),
        }
    }

    /// Lets a request read much, which it may do at its own pace.
    pub fn read(&self) -> Result<Place, Problem> {
        let permit = self.readings.clone().try_acquire_owned();
        permit.map(|_permit| Place { _permit }).map_err(|_| {
            let most =
                format!("{MAX_READINGS} journals and exports are being told, as many as may be");
            Problem::overloaded(format!("{most}; try again later"))
        })
    }

    /// Keeps a room awake while a request is answered.
    pub async fn lease(&self, room: RoomName) -> Result<Lease<M>, Problem> {
        let lease = self.sockets.rooms().send(Acquire::new(room)).await;
        match lease {
            Ok(Ok(lease)) => Ok(lease),
            Ok(Err(err)) => Err(Problem::overloaded(err.to_string())),
            Err(_) => Err(Problem::overloaded("the server stops; try again later")),
        }
    }
}

/// The room that a path names.
pub fn room_name(name: &str) -> Result<RoomName, Problem> {
    name.parse().map_err(|err| Denial::no_such_room(err).into())
}

/// A page of another origin may not act for its visitor.
pub fn check_origin<M: Model>(api: &Api<M>, request: &HttpRequest) -> Result<(), Problem> {
    let checked = api
        .sockets
        .admission()
        .check_origin(&admission_request(request));
    Ok(checked?)
}

/// Whether whoever asks may do everything.
pub fn is_admin(request: &HttpRequest) -> bool {
    admission_request(request).permissions().admin
}

/// Refuses whoever may not do everything.
pub fn check_admin(request: &HttpRequest) -> Result<(), Problem> {
    if is_admin(request) {
        return Ok(());
    }
    let message = "only who asks on the server's own machine, and through no proxy, may do this";
    Err(Rejection::new("forbidden", message).into())
}
