//! The direct transport: a connection whose handshake is answered is taken over from the HTTP server,
//! so that a session has none of its buffers, and an event costs what the kernel takes for it.
//!
//! The handshake goes through the application as every request does, middleware and all, and is
//! answered there by [`Sockets::handle`]. With that answer in hand [`Upgrade`] opens the session on the
//! connection itself. Any other request that wants to be upgraded is answered as if it did not.

use std::{cell::RefCell, error::Error as StdError, future::poll_fn, io, pin::Pin, rc::Rc};

use actix_codec::{AsyncRead, AsyncWrite, Encoder, Framed};
use actix_http::{
    ConnectionType, Request, Response,
    body::{BodySize, BoxBody, MessageBody},
    h1,
};
use actix_service::{Service, ServiceFactory};
use actix_web::{
    Error, HttpMessage, dev::ServiceResponse, http::StatusCode, rt::time::timeout, web::Bytes,
};
use futures_util::{SinkExt, future::LocalBoxFuture};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, sink};

use super::{Admitted, Sockets};
use crate::{
    limits::{MAX_CLOSE_WAIT, MAX_DISCARDED},
    model::Model,
    session::{Opening, Session, Source},
};

/// Stands in a request whose connection may be taken over: who is let in.
#[derive(Clone, Debug, Default)]
pub struct Takeover(Rc<RefCell<Option<Admitted>>>);

impl Takeover {
    pub(super) fn admit(&self, admitted: Admitted) {
        *self.0.borrow_mut() = Some(admitted);
    }
}

/// Makes the service that answers requests for an upgrade, for
/// [`HttpServiceBuilder::upgrade`](actix_http::HttpServiceBuilder::upgrade).
pub struct UpgradeFactory<M: Model, A> {
    sockets: Sockets<M>,
    app: A,
}

impl<M: Model, A> UpgradeFactory<M, A> {
    /// `app` answers the handshakes, by [`Sockets::handle`] of these sockets.
    pub fn new(sockets: Sockets<M>, app: A) -> Self {
        Self { sockets, app }
    }
}

impl<M, A, B, T> ServiceFactory<(Request, Framed<T, h1::Codec>)> for UpgradeFactory<M, A>
where
    M: Model,
    A: ServiceFactory<Request, Config = (), Response = ServiceResponse<B>, Error = Error>,
    A::Future: 'static,
    <A::Service as Service<Request>>::Future: 'static,
    B: MessageBody + 'static,
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    type Response = ();
    type Error = Error;
    type Config = ();
    type Service = Upgrade<M, A::Service>;
    type InitError = A::InitError;
    type Future = LocalBoxFuture<'static, Result<Self::Service, Self::InitError>>;

    fn new_service(&self, (): ()) -> Self::Future {
        let sockets = self.sockets.clone();
        let app = self.app.new_service(());
        Box::pin(async {
            let app = app.await?;
            Ok(Upgrade { sockets, app })
        })
    }
}

/// Answers requests for an upgrade.
pub struct Upgrade<M: Model, A> {
    sockets: Sockets<M>,
    app: A,
}

impl<M, A, B, T> Service<(Request, Framed<T, h1::Codec>)> for Upgrade<M, A>
where
    M: Model,
    A: Service<Request, Response = ServiceResponse<B>, Error = Error>,
    A::Future: 'static,
    B: MessageBody + 'static,
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    type Response = ();
    type Error = Error;
    type Future = LocalBoxFuture<'static, Result<(), Error>>;

    actix_service::forward_ready!(app);

    fn call(&self, (request, framed): (Request, Framed<T, h1::Codec>)) -> Self::Future {
        let takeover = Takeover::default();
        request.extensions_mut().insert(takeover.clone());
        let response = self.app.call(request);
        let sockets = self.sockets.clone();
        Box::pin(async move {
            let response = match response.await {
                Ok(response) => response.map_into_boxed_body().into_parts().1,
                Err(err) => err.error_response(),
            };
            let admitted = takeover.0.take();
            match admitted.filter(|_| response.status() == StatusCode::SWITCHING_PROTOCOLS) {
                Some(admitted) => Ok(sockets.take_over(admitted, response.into(), framed)?),
                None => {
                    answer(response.into(), framed).await;
                    Ok(())
                }
            }
        })
    }
}

impl<M: Model> Sockets<M> {
    /// Opens a session on the connection; what it is told first goes out with the answer to the
    /// handshake.
    fn take_over<T>(
        &self,
        admitted: Admitted,
        response: Response<BoxBody>,
        framed: Framed<T, h1::Codec>,
    ) -> io::Result<()>
    where
        T: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let Admitted { seat, peer, place } = admitted;
        let mut parts = framed.into_parts();
        let head = h1::Message::Item((response.drop_body(), BodySize::None));
        parts.codec.encode(head, &mut parts.write_buf)?;
        // Copied, since the HTTP server's buffers are larger than what is in them.
        let opening = Opening {
            came: Bytes::copy_from_slice(&parts.read_buf),
            ..self.opening(seat, peer, Source::Wire(place))
        };
        opening.link.take_over(Box::new(parts.io));
        opening.link.push(Bytes::copy_from_slice(&parts.write_buf));
        Session::start_on(opening);
        Ok(())
    }
}

/// Answers as plain HTTP; the connection ends with it.
async fn answer<T>(mut response: Response<BoxBody>, mut framed: Framed<T, h1::Codec>)
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    response
        .head_mut()
        .set_connection_type(ConnectionType::Close);
    if let Err(err) = send(response, &mut framed).await {
        log::debug!("an answer was not sent to its end: {err}");
        return;
    }
    // What it sent already is read, so that it gets to read the answer.
    let mut rest = framed.into_parts().io.take(MAX_DISCARDED as u64);
    let _ = timeout(MAX_CLOSE_WAIT, copy(&mut rest, &mut sink())).await;
}

/// Sends an answer and nothing after it.
///
/// Not by actix-http's `SendResponse`: where the peer does not take the last of it at once, that one
/// waits for ever.
async fn send<T>(
    response: Response<BoxBody>,
    framed: &mut Framed<T, h1::Codec>,
) -> Result<(), Box<dyn StdError>>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (head, mut body) = response.into_parts();
    let head = h1::Message::Item((head, body.size()));
    framed.send(head).await?;
    while let Some(chunk) = poll_fn(|task| Pin::new(&mut body).poll_next(task)).await {
        framed.send(h1::Message::Chunk(Some(chunk?))).await?;
    }
    framed.send(h1::Message::Chunk(None)).await?;
    framed.io_mut().shutdown().await?;
    Ok(())
}
