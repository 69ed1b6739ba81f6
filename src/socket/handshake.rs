//! The answer to a handshake, whichever transport carries the session.

use std::net::SocketAddr;

use actix_http::{
    ResponseBuilder,
    body::{BoxBody, MessageBody},
    ws::{HandshakeError, handshake},
};
use actix_web::{
    HttpMessage, HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web,
};

use super::{
    Sockets,
    admission::{Denial, Request},
    direct::Takeover,
};
use crate::{
    ids::RoomName,
    model::{Model, Seat},
    protocol::{Dialect, v1},
};

/// Where a listener is bound: a connection's data, where no `HttpServer` made the service and was told.
#[derive(Clone, Copy, Debug)]
pub struct ListensOn(pub SocketAddr);

/// Whether a request asks for a WebSocket, and for nothing else: what stands in a list with others
/// may be passed over (RFC 9110, section 7.8), and actix would send our frames in chunks of HTTP.
pub fn is_handshake(request: &HttpRequest) -> bool {
    let mut upgrades = request.headers().get_all(header::UPGRADE);
    let first = upgrades.next().map(|value| value.as_bytes().trim_ascii());
    let websocket = first.is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"));
    websocket && upgrades.next().is_none()
}

/// What the admission check looks at in a request.
pub fn admission_request(request: &HttpRequest) -> Request<'_> {
    let listener = request.conn_data::<ListensOn>();
    Request {
        headers: request.headers(),
        listener: listener.map_or_else(
            || request.app_config().local_addr(),
            |ListensOn(address)| *address,
        ),
        peer: request.peer_addr(),
    }
}

impl<M: Model> Sockets<M> {
    /// Answers the handshake of a socket in the room of that name, whatever the request's path: when its
    /// session is in the room, or after a second at the latest.
    ///
    /// The response must be given back as it is: with the direct transport it is what opens the session,
    /// else its body is what the session is sent.
    ///
    /// # Errors
    ///
    /// The HTTP answer to give, where the client is not let in or its handshake is wrong.
    pub async fn handle(
        &self,
        request: &HttpRequest,
        payload: web::Payload,
        room: &str,
    ) -> Result<HttpResponse, Denial> {
        let room = room.parse::<RoomName>();
        let seat = room.map(Seat::from).map_err(Denial::no_such_room);
        self.handle_seated(request, payload, seat).await
    }

    /// The same, where the model says to which room the request's path leads.
    ///
    /// # Errors
    ///
    /// As [`Sockets::handle`].
    pub async fn handle_path(
        &self,
        request: &HttpRequest,
        payload: web::Payload,
    ) -> Result<HttpResponse, Denial> {
        let seat = self.seat(request.path()).ok_or_else(Denial::leads_nowhere);
        self.handle_seated(request, payload, seat).await
    }

    async fn handle_seated(
        &self,
        request: &HttpRequest,
        payload: web::Payload,
        seat: Result<Seat, Denial>,
    ) -> Result<HttpResponse, Denial> {
        let admitted = self.admit(&admission_request(request), seat)?;
        let mut response = handshake(request.head()).map_err(bad_handshake)?;
        if admitted.peer.dialect() == Dialect::V1 {
            response.insert_header((header::SEC_WEBSOCKET_PROTOCOL, v1::SUBPROTOCOL));
        }
        if let Some(takeover) = request.extensions().get::<Takeover>() {
            takeover.admit(admitted);
            return with_body(response, ());
        }
        let frames = self.embed(admitted, payload).await;
        with_body(response, frames)
    }
}

fn with_body(
    mut response: ResponseBuilder,
    body: impl MessageBody + 'static,
) -> Result<HttpResponse, Denial> {
    let response = response.message_body(BoxBody::new(body));
    response.map(HttpResponse::from).map_err(|err| {
        log::error!("a handshake could not be answered: {err}");
        Denial {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            code: "internal",
            detail: "the server made a mistake; try again".to_owned(),
        }
    })
}

fn bad_handshake(err: HandshakeError) -> Denial {
    let status = match err {
        HandshakeError::GetMethodRequired => StatusCode::METHOD_NOT_ALLOWED,
        HandshakeError::UnsupportedVersion => StatusCode::UPGRADE_REQUIRED,
        _ => StatusCode::BAD_REQUEST,
    };
    Denial {
        status,
        code: "bad_handshake",
        detail: format!("the WebSocket handshake is wrong: {err}"),
    }
}
