//! A server that keeps one shared value per *room* and keeps every open browser in step with it.
//!
//! The value is a counter out of the box; with a [`Model`] it is anything. One sentence carries
//! everything: **a room is a deterministic state machine with an ordered journal, owned by one
//! actor; sessions forward actions to it, and it pushes what changed to everybody.**
//!
//! The files lie on floors, by how much of the outside world they know; each imports only from
//! floors below it.
//!
//! **Ground floor: rules and values**, without IO, clock, randomness, async or actix. [`ids`],
//! [`limits`], [`rejection`] and [`fields`] are the small values; [`model`] is what a room holds;
//! [`protocol`] what clients and server say; [`entry`] what a journal keeps. [`replica`] judges
//! actions on a copy of the state and adopts it on commit. [`presence`], [`outbox`], [`pulse`] and
//! [`rate`] decide who is told what and when; they are told the time.
//!
//! **First floor: the room.** [`journal`] is the trait of a store and its backends. [`framing`] puts
//! events into WebSocket frames, once. [`fanout`] hands them to the sessions of one worker thread.
//! [`room`] is the owner: judge, append, tell. [`rooms`] starts owners and puts them to rest.
//!
//! **Second floor: transport.** [`session`] is the actor of one WebSocket. [`socket`] checks who is
//! let in and carries sessions. [`http`] serves the page and assembles the routes. [`client`] is the
//! other end: a client of a room for programs.
//!
//! **Top.** [`config`] reads flags, [`command`] asks a running server, [`listen`] binds addresses,
//! [`tls`] has the server's certificate, [`server`] builds the parts, serves and drains; [`program`] is
//! all of that around a model of your own.
//!
//! # Put into an `App` of one's own
//!
//! ```
//! use std::sync::Arc;
//!
//! use actix::Actor;
//! use actix_web::{App, HttpRequest, HttpResponse, web};
//! use tallyroom::{
//!     Counter, http::problem::Problem, journal::memory::MemoryJournal, limits::Limits, rooms::Rooms,
//!     socket::{Sockets, admission::Admission},
//! };
//!
//! async fn room(
//!     request: HttpRequest,
//!     payload: web::Payload,
//!     sockets: web::Data<Sockets<Counter>>,
//! ) -> HttpResponse {
//!     let answered = sockets.handle(&request, payload, "main").await;
//!     answered.unwrap_or_else(|denial| Problem::from(denial).to_response())
//! }
//!
//! # #[actix_web::main]
//! # async fn main() {
//! let limits = Arc::new(Limits::default());
//! let rooms = Rooms::new(Arc::new(MemoryJournal::new()), limits.clone()).start();
//! let sockets = Sockets::new(Counter, rooms, Admission::default(), limits);
//! let app = App::new()
//!     .app_data(web::Data::new(sockets))
//!     .route("/count", web::get().to(room));
//! # drop(app);
//! # }
//! ```

pub mod check;
pub mod client;
pub mod command;
pub mod config;
pub mod connections;
pub mod deliver;
pub mod entry;
pub mod fanout;
pub mod fields;
pub mod framing;
pub mod http;
pub mod ids;
pub mod journal;
pub mod limits;
pub mod link;
pub mod listen;
pub mod model;
pub mod outbox;
pub mod permissions;
pub mod presence;
pub mod program;
pub mod protocol;
pub mod pulse;
pub mod rate;
pub mod rejection;
pub mod replica;
pub mod room;
pub mod rooms;
pub mod server;
pub mod session;
pub mod settled;
pub mod socket;
pub mod tls;
pub mod waiting;

pub use crate::{
    fields::Fields,
    model::{By, Model, counter::Counter},
    rejection::Rejection,
    server::serve,
};

/// The README's Rust blocks are compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
