//! The embedded transport: room sockets as a handler in anybody's actix-web `App`.
//!
//! The response's body yields the outbox's frames and the request's payload is what the session
//! reads, so that middleware, TLS and other routes stay the application's own.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use actix_http::{
    body::{BodySize, BoxBody, MessageBody},
    ws::{HandshakeError, handshake},
};
use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web::{self, Bytes},
};
use futures_util::StreamExt;

use super::{
    Admitted, Place, Sockets,
    admission::{self, Denial},
};
use crate::{
    link::Link,
    model::Model,
    protocol::{Dialect, v1},
    session::{Opening, Session},
};

/// Whether a request asks for a WebSocket, and for nothing else: what stands in a list with others
/// may be passed over (RFC 9110, section 7.8), and actix would send our frames in chunks of HTTP.
pub fn is_handshake(request: &HttpRequest) -> bool {
    let mut upgrades = request.headers().get_all(header::UPGRADE);
    let first = upgrades.next().map(|value| value.as_bytes().trim_ascii());
    let websocket = first.is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"));
    websocket && upgrades.next().is_none()
}

/// What the admission check looks at in a request.
pub fn admission_request(request: &HttpRequest) -> admission::Request<'_> {
    admission::Request {
        headers: request.headers(),
        listener: request.app_config().local_addr(),
        peer: request.peer_addr(),
    }
}

impl<M: Model> Sockets<M> {
    /// Answers the handshake of a socket in the room of that name.
    ///
    /// # Errors
    ///
    /// The HTTP answer to give, where the client is not let in or its handshake is wrong.
    pub fn handle(
        &self,
        request: &HttpRequest,
        payload: web::Payload,
        room: &str,
    ) -> Result<HttpResponse, Denial> {
        let Admitted { room, seat, place } = self.admit(&admission_request(request), room)?;
        let mut response = handshake(request.head()).map_err(bad_handshake)?;
        if seat.dialect() == Dialect::V1 {
            response.insert_header((header::SEC_WEBSOCKET_PROTOCOL, v1::SUBPROTOCOL));
        }
        let worker = self.fanouts.worker(&self.limits);
        let link = worker.connect();
        let body = Frames {
            link: link.clone(),
            _place: place,
        };
        let socket = payload.scan((), |(), bytes| std::future::ready(bytes.ok()));
        let response = response
            .message_body(BoxBody::new(body))
            .map_err(|err| internal(&err))?;
        let opening = Opening {
            worker,
            link,
            limits: self.limits.clone(),
            room,
            seat,
        };
        Session::start_on(opening, self.rooms.clone(), socket.boxed_local());
        Ok(response.into())
    }
}

/// The response's body: what a session is sent, until it ends.
struct Frames {
    link: Rc<Link>,
    _place: Place,
}

impl MessageBody for Frames {
    type Error = std::convert::Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        self.link.poll_frames(task).map(|frames| frames.map(Ok))
    }
}

impl Drop for Frames {
    /// The connection is gone, whoever ended it.
    fn drop(&mut self) {
        self.link.cut();
    }
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

fn internal(err: &dyn std::fmt::Display) -> Denial {
    log::error!("a handshake could not be answered: {err}");
    Denial {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        code: "internal",
        detail: "the server made a mistake; try again".to_owned(),
    }
}
