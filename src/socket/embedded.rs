//! The embedded transport: room sockets as a handler in anybody's actix-web `App`.
//!
//! The response's body yields the outbox's frames and the request's payload is what the session
//! reads, so that middleware, TLS and other routes stay the application's own.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Instant,
};

use actix_http::body::{BodySize, MessageBody};
use actix_web::web::{self, Bytes};
use futures_util::StreamExt;

use super::{Admitted, Sockets};
use crate::{
    connections::Place,
    fanout::Worker,
    link::Link,
    model::Model,
    session::{Session, Source},
};

impl<M: Model> Sockets<M> {
    /// Opens a session, and waits for a while until it is in its room; gives the body of the response,
    /// which is what it is sent.
    pub(super) async fn embed(&self, admitted: Admitted, payload: web::Payload) -> Frames {
        let Admitted { seat, peer, place } = admitted;
        let payload = payload.scan((), |(), bytes| std::future::ready(bytes.ok()));
        let opening = self.opening(seat, peer, Source::Payload(payload.boxed_local()));
        let body = Frames {
            link: opening.link.clone(),
            worker: opening.worker.clone(),
            _place: place,
        };
        Session::start_on(opening);
        poll_fn(|task| body.link.poll_released(task)).await;
        body
    }
}

/// What a session is sent, until it ends.
pub struct Frames {
    link: Rc<Link>,
    worker: Rc<Worker>,
    _place: Place,
}

impl MessageBody for Frames {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let now = self.worker.tick(Instant::now());
        self.link
            .poll_frames(now, task)
            .map(|frames| frames.map(Ok))
    }
}

impl Drop for Frames {
    /// The connection is gone, whoever ended it.
    fn drop(&mut self) {
        self.link.cut();
    }
}
