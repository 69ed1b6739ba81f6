//! The rooms for programs that speak plain HTTP.
//!
//! `GET /api/rooms/{room}` is the state, `POST /api/rooms/{room}/actions` takes an action,
//! `GET /api/rooms/{room}/journal` tells what happened; `GET /api/export` and `POST /api/import`
//! carry values from one server to another.

pub mod actions;
pub mod context;
pub mod journal;
pub mod key;
pub mod query;
pub mod state;
pub mod transfer;

use actix_web::web;

use self::context::Api;
use super::methods::{postable, readable};
use crate::model::Model;

/// The routes under `/api`.
pub fn routes<M: Model>(api: web::Data<Api<M>>) -> impl FnOnce(&mut web::ServiceConfig) {
    move |config| {
        config
            .app_data(api)
            .service(readable("/api/rooms/{room}", state::get::<M>))
            .service(postable("/api/rooms/{room}/actions", actions::post::<M>))
            .service(readable("/api/rooms/{room}/journal", journal::get::<M>))
            .service(readable("/api/export", transfer::export::<M>))
            .service(postable("/api/import", transfer::import::<M>));
    }
}
