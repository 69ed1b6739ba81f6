//! What clients and the server say to each other; nothing here knows of sockets.
//!
//! A dialect turns events into JSON; [`read_action`] turns what a client sent into an action of
//! the model. Each event is encoded once per batch and shared by all sessions.

pub mod classic;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::{fields::Fields, model::Model, rejection::Rejection};

/// Reads the action that a client's message asks for.
///
/// # Errors
///
/// What the client is told: `not_json`, `not_an_object`, `missing_field`, `bad_field`,
/// `unknown_action`, or `internal` where the model's code panics.
pub fn read_action<M: Model>(text: &str) -> Result<M::Action, Rejection> {
    let fields = Fields::parse(text)?;
    // Reading changes nothing, so there is nothing that a panic could leave half done.
    catch_unwind(AssertUnwindSafe(|| M::parse(&fields)))
        .unwrap_or_else(|_| Err(Rejection::internal()))
}

/// The answer to a binary message where the model takes JSON.
pub fn binary_not_allowed() -> Rejection {
    Rejection::new(
        "binary_not_allowed",
        "send the JSON as a text message, not as a binary one",
    )
}
