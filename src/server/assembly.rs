//! How an application is put together for each listener on every worker, by transport, with TLS or without.

use std::{
    fmt::Debug,
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_codec::{AsyncRead, AsyncWrite};
use actix_http::{
    Extensions, HttpServiceBuilder, Protocol, Request, body::MessageBody, error::DispatchError,
};
use actix_server::{GracefulShutdownSignal, Server as Serving};
use actix_service::{Service, ServiceFactory, ServiceFactoryExt, fn_service};
use actix_web::{Error, dev::ServiceResponse, rt::net::TcpStream};
use socket2::SockRef;
use tokio_rustls::server::TlsStream;

use crate::{
    limits::Limits,
    model::Model,
    socket::{Sockets, Transport, direct::UpgradeFactory, handshake::ListensOn},
    tls::Handshakes,
};

/// How long requests may take to end once the server stops and its sessions are gone, in seconds.
const SHUTDOWN_TIMEOUT: u64 = 2;

/// How many bytes the embedded transport buffers of what a socket does not take; what is more waits
/// in the outbox, where it is conflated.
const WRITE_BUFFER: usize = 4096;

/// How many bytes the kernel takes of what a peer has not yet asked for, for the same reason.
#[cfg(target_os = "linux")]
const NOT_SENT_LOW_WATER: u32 = 4096;

/// What is put together on every worker.
pub struct Assembly<M: Model, F> {
    pub sockets: Sockets<M>,
    /// Makes the application that answers requests, and handshakes by the sockets.
    pub app: F,
    pub transport: Transport,
    pub handshakes: Option<Handshakes>,
}

/// A connection, what is spoken over it, and by whom.
type Connection<T> = (T, Protocol, Option<SocketAddr>);

impl<M, F, A, B> Assembly<M, F>
where
    M: Model,
    F: Fn() -> A + Send + Sync + 'static,
    A: ServiceFactory<Request, Config = (), Response = ServiceResponse<B>, Error = Error> + 'static,
    A::InitError: Debug,
    A::Future: 'static,
    A::Service: 'static,
    <A::Service as Service<Request>>::Future: 'static,
    B: MessageBody + 'static,
{
    /// Serves on the listeners, by so many workers.
    ///
    /// # Errors
    ///
    /// Where a listener cannot be served.
    pub fn serve(self, listeners: Vec<TcpListener>, workers: usize) -> io::Result<Serving> {
        let mut server = Serving::build()
            .disable_signals()
            .workers(workers)
            .shutdown_timeout(SHUTDOWN_TIMEOUT)
            .max_concurrent_connections(max_concurrent(self.sockets.limits()));
        let stopping = server.graceful_shutdown_signal();
        let assembly = Arc::new(self);
        for listener in listeners {
            let address = listener.local_addr()?;
            let name = address.to_string();
            let (this, stopping) = (assembly.clone(), stopping.clone());
            let http = move || (this.clone(), address, stopping.clone());
            server = match (assembly.transport, assembly.handshakes.clone()) {
                (Transport::Direct, None) => server.listen(name, listener, move || {
                    let (this, address, stopping) = http();
                    this.plain(this.direct(address, stopping))
                })?,
                (Transport::Embedded, None) => server.listen(name, listener, move || {
                    let (this, address, stopping) = http();
                    this.plain(this.embedded(address, stopping))
                })?,
                (Transport::Direct, Some(handshakes)) => {
                    server.listen(name, listener, move || {
                        let (this, address, stopping) = http();
                        this.secure(handshakes.clone(), this.direct(address, stopping))
                    })?
                }
                (Transport::Embedded, Some(handshakes)) => {
                    server.listen(name, listener, move || {
                        let (this, address, stopping) = http();
                        this.secure(handshakes.clone(), this.embedded(address, stopping))
                    })?
                }
            };
        }
        Ok(server.run())
    }

    /// HTTP whose connections are taken over by rooms' sockets.
    fn direct<T: AsyncRead + AsyncWrite + Unpin + 'static>(
        &self,
        address: SocketAddr,
        stopping: GracefulShutdownSignal,
    ) -> impl ServiceFactory<
        Connection<T>,
        Config = (),
        Response = (),
        Error = DispatchError,
        InitError = (),
    > + use<M, F, A, B, T> {
        let upgrade = UpgradeFactory::new(self.sockets.clone(), (self.app)());
        let http = self.http(address, stopping).upgrade(upgrade);
        http.finish((self.app)())
    }

    /// HTTP that carries rooms' sockets itself.
    fn embedded<T: AsyncRead + AsyncWrite + Unpin + 'static>(
        &self,
        address: SocketAddr,
        stopping: GracefulShutdownSignal,
    ) -> impl ServiceFactory<
        Connection<T>,
        Config = (),
        Response = (),
        Error = DispatchError,
        InitError = (),
    > + use<M, F, A, B, T> {
        let http = self.http(address, stopping);
        http.h1_write_buffer_size(WRITE_BUFFER).finish((self.app)())
    }

    /// HTTP as it is on every connection, whatever carries its bytes.
    fn http<T: AsyncRead + AsyncWrite + Unpin + 'static>(
        &self,
        address: SocketAddr,
        stopping: GracefulShutdownSignal,
    ) -> HttpServiceBuilder<T, A> {
        let request_timeout = self.sockets.limits().handshake_timeout;
        HttpServiceBuilder::default()
            .graceful_shutdown_signal(move || {
                let stopping = stopping.clone();
                async move { stopping.notified().await }
            })
            // Zero: a closed session's connection ends at once. What a client still sends after a breach
            // is read by its session for a while, so that the close frame reaches it.
            .client_disconnect_timeout(Duration::ZERO)
            .client_request_timeout(request_timeout.unwrap_or(Duration::ZERO))
            .local_addr(address)
            .on_connect_ext(move |_, data: &mut Extensions| {
                data.insert(ListensOn(address));
            })
    }

    /// Serves HTTP without more ado.
    fn plain<H>(
        &self,
        http: H,
    ) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = (), InitError = ()>
    + use<M, F, A, B, H>
    where
        H: ServiceFactory<
                Connection<TcpStream>,
                Config = (),
                Response = (),
                Error = DispatchError,
                InitError = (),
            >,
    {
        let slow_timeout = self.sockets.limits().slow_timeout;
        let accept = fn_service(move |stream: TcpStream| async move {
            tune(&stream, slow_timeout);
            let peer = stream.peer_addr().ok();
            Ok((stream, Protocol::Http1, peer))
        });
        accept.and_then(http.map_err(drop))
    }

    /// Shakes hands by TLS, and then serves HTTP.
    ///
    /// Not by what actix has for it: that offers HTTP/2 first, since our client has it compiled in, and a
    /// WebSocket is one of HTTP/1.1. It also takes 256 handshakes at a time and then nobody, so that as
    /// many clients that say nothing would keep all others out.
    fn secure<H>(
        &self,
        handshakes: Handshakes,
        http: H,
    ) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = (), InitError = ()>
    + use<M, F, A, B, H>
    where
        H: ServiceFactory<
                Connection<TlsStream<TcpStream>>,
                Config = (),
                Response = (),
                Error = DispatchError,
                InitError = (),
            >,
    {
        let slow_timeout = self.sockets.limits().slow_timeout;
        let shake_hands = fn_service(move |stream: TcpStream| {
            let handshakes = handshakes.clone();
            async move {
                tune(&stream, slow_timeout);
                let peer = stream.peer_addr().ok();
                let accepted = handshakes.accept(stream).await;
                // A client's mistake, which it is told by TLS.
                let stream = accepted.map_err(|err| log::debug!("no TLS was agreed on: {err}"))?;
                Ok((stream, Protocol::Http1, peer))
            }
        });
        shake_hands.and_then(http.map_err(drop))
    }
}

/// As many as may be at a time on one worker; handshakes that are one too many are answered with 503.
fn max_concurrent(limits: &Limits) -> usize {
    limits.max_connections.unwrap_or(usize::MAX >> 8)
}

/// Lets a connection send at once, say early that its peer takes nothing, and end if that goes on.
fn tune(stream: &TcpStream, slow_timeout: Option<Duration>) {
    // Where the kernel does not know an option, the outbox and the heartbeat still hold.
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    {
        let socket = SockRef::from(stream);
        let _ = socket.set_tcp_notsent_lowat(NOT_SENT_LOW_WATER);
        let _ = socket.set_tcp_user_timeout(slow_timeout);
    }
}
