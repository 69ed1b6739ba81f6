//! `POST /api/rooms/{room}/actions`: one action, answered when it is committed.

use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{HeaderName, HeaderValue},
    web,
};

use super::{
    context::{Actor, Api, check_origin, room_name},
    key, state,
};
use crate::{
    fields::Fields,
    http::{
        body::{self, Expected},
        problem::Problem,
    },
    ids::RoomName,
    model::Model,
    protocol,
    rejection::Rejection,
    replica::{Asked, Declined, Number, Retry},
    room::{Act, Outcome},
};

/// Stands on the answer to an action that was answered before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// `{"room":"main","epoch":"…","rev":42,"value":7}`: what the action made.
pub async fn post<M: Model>(
    request: HttpRequest,
    payload: web::Payload,
    api: web::Data<Api<M>>,
    name: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    check_origin(&api, &request)?;
    let room = room_name(&name)?;
    let limits = api.sockets.limits();
    let expected = Expected {
        media_type: "application/json",
        max_bytes: limits.max_message_bytes,
        timeout: limits.body_timeout,
    };
    let text = body::read(&request, payload, expected).await?;
    let number = key::number(request.headers())?;
    check_rate(&request, &api, number)?;
    if api.sockets.is_draining() {
        return Err(Problem::overloaded("the server stops; try again later"));
    }
    let asked = read::<M>(&text, number)?;
    let lease = api.lease(room.clone()).await?;
    if lease.waiting().is_full() {
        return Err(Problem::overloaded(
            "the server cannot keep up; the action was not taken, try again later",
        ));
    }
    let bytes = text.len();
    let waits = lease.waiting().count(1, bytes);
    let act = Act {
        asked,
        bytes,
        waits,
    };
    match lease.room().send(act).await {
        Ok(Ok(outcome)) => Ok(answer(&room, outcome)),
        Ok(Err(gone)) => Err(Problem::unavailable(gone.to_string())),
        Err(_) => Err(Problem::unavailable(
            "the room failed; send the action again",
        )),
    }
}

/// An object with a number is a numbered action, whatever else is wrong with it.
fn read<M: Model>(text: &str, number: Option<Number>) -> Result<Asked<M::Action>, Rejection> {
    let fields = Fields::parse(text)?;
    let action = protocol::action_of::<M>(&fields);
    let action = match number {
        Some(_) => action.map_err(Declined::Refused),
        None => Ok(action?),
    };
    Ok(Asked {
        number,
        action,
        hold: Duration::ZERO,
        session: None,
        name: None,
    })
}

fn check_rate<M: Model>(
    request: &HttpRequest,
    api: &Api<M>,
    number: Option<Number>,
) -> Result<(), Problem> {
    let Some(rates) = &api.rates else {
        return Ok(());
    };
    let address = || Actor::Address(request.peer_addr().map(|peer| peer.ip()));
    let actor = number.map_or_else(address, |number| Actor::Client(number.client));
    // A table of times is whole between any two operations on it.
    let mut rates = rates.lock().unwrap_or_else(PoisonError::into_inner);
    rates.check(actor, Instant::now()).map_err(|after| {
        let message = "too many actions a second (--session-rate); the action was not taken";
        let why = Rejection::new("rate_limited", message);
        let expected = None;
        Problem::from(Retry {
            why,
            expected,
            after,
        })
    })
}

fn answer(room: &RoomName, outcome: Outcome) -> HttpResponse {
    let (mut response, replayed) = match outcome {
        Outcome::Accepted { made, replayed } => {
            let made = state::json(room, &made, "");
            let response = HttpResponse::Ok()
                .content_type("application/json")
                .body(made);
            (response, replayed)
        }
        Outcome::Refused { why, replayed } => (Problem::from(why).to_response(), replayed),
        Outcome::Retry(retry) => (Problem::from(retry).to_response(), false),
    };
    if replayed {
        let headers = response.headers_mut();
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}
