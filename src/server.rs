//! Builds the parts, serves, and drains: [`run`] is the whole life of a server.

use std::{
    fmt,
    future::pending,
    io,
    net::{Shutdown, SocketAddr, TcpListener},
    sync::Arc,
    thread::available_parallelism,
    time::Duration,
};

use actix::prelude::*;
use actix_codec::{AsyncRead, AsyncWrite};
use actix_http::{
    HttpServiceBuilder, Protocol, Request, Response, body::BoxBody, error::DispatchError,
};
use actix_server::{GracefulShutdownSignal, Server as Serving, ServerBuilder};
use actix_service::{Service, ServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_web::{
    App, Error, HttpServer,
    dev::{AppConfig, ServiceResponse},
    rt::{
        self,
        net::TcpStream,
        signal::unix::{SignalKind, signal},
        time::sleep,
    },
};
use socket2::SockRef;
use tokio::sync::oneshot;
use tokio_rustls::server::TlsStream;

use crate::{
    config::Listen,
    http::{page::Page, site},
    journal::{Journal, memory::MemoryJournal},
    limits::Limits,
    listen,
    model::Model,
    rooms::Rooms,
    socket::{
        Sockets, Transport, admission::Admission, direct::UpgradeFactory, handshake::ListensOn,
    },
    tls::{Handshakes, Tls},
};

/// How long requests may take to end once the server stops and its sessions are gone, in seconds.
const SHUTDOWN_TIMEOUT: u64 = 2;

/// After this the thread that accepts connections has heard that it is not to.
const ACCEPTS_NO_MORE: Duration = Duration::from_millis(50);

/// How many bytes the embedded transport buffers of what a socket does not take; what is more waits
/// in the outbox, where it is conflated.
const WRITE_BUFFER: usize = 4096;

/// How many bytes the kernel takes of what a peer has not yet asked for, for the same reason.
#[cfg(target_os = "linux")]
const NOT_SENT_LOW_WATER: u32 = 4096;

/// What a server serves and how.
pub struct Server {
    pub journal: Arc<dyn Journal>,
    pub limits: Limits,
    pub admission: Admission,
    pub page: Page,
    /// Worker threads; 0: as many as there are processors.
    pub workers: usize,
    pub transport: Transport,
    /// By what certificate to speak TLS; `None`: plain HTTP.
    pub tls: Option<Tls>,
}

/// Serves the rooms of a model at an address, in memory and with the default limits, until the
/// process is asked to stop: the shortest way to a server of one's own.
///
/// # Errors
///
/// Where the address is none, or cannot be listened on.
pub async fn serve<M: Model>(address: &str) -> io::Result<()> {
    let shutdown = stop_signal()?;
    let listen: Listen = address.parse().map_err(|allowed| {
        let message = format!("cannot listen on {address:?}: {allowed}");
        io::Error::new(io::ErrorKind::InvalidInput, message)
    })?;
    let listeners = listen::bind(&listen)?;
    let urls = listen::urls(&listen, &listeners, "http");
    log::info!("open {}", urls.join(" or "));
    let server = Server {
        journal: Arc::new(MemoryJournal::new()),
        limits: Limits::default(),
        admission: Admission::default(),
        page: Page::default(),
        workers: 0,
        transport: Transport::default(),
        tls: None,
    };
    run::<M>(server, listeners, shutdown).await
}

/// Serves the rooms of a model on the listeners until `shutdown` resolves, then stops: no more
/// connections, what is underway is finished, sessions close with 1012.
///
/// Needs an actix system (`#[actix_web::main]`). Returns within 10 s of `shutdown`, whoever does
/// not answer.
///
/// # Errors
///
/// Where the listeners cannot be served.
pub async fn run<M: Model>(
    server: Server,
    listeners: Vec<TcpListener>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let Server {
        journal,
        limits,
        admission,
        page,
        workers,
        transport,
        tls,
    } = server;
    let limits = Arc::new(limits);
    let handshakes = tls
        .as_ref()
        .map(|tls| tls.handshakes(limits.handshake_timeout));
    let handshakes = handshakes.transpose().map_err(io::Error::other)?;
    let owners = Arbiter::new();
    let rooms = {
        let (journal, limits) = (journal.clone(), limits.clone());
        Rooms::<M>::start_in_arbiter(&owners.handle(), move |_| Rooms::new(journal, limits))
    };
    let sockets = Sockets::new(rooms, admission, limits);
    let assembly = Assembly {
        sockets: sockets.clone(),
        journal,
        page,
    };
    // Held, so that they can be shut when the server stops.
    let held: io::Result<Vec<_>> = listeners.iter().map(TcpListener::try_clone).collect();
    let held = held?;
    let workers = match workers {
        0 => available_parallelism()?.get(),
        workers => workers,
    };
    let serving = match (transport, handshakes) {
        (Transport::Direct, None) => assembly.direct(listeners, workers)?,
        (Transport::Embedded, None) => assembly.embedded(listeners, workers)?,
        (_, Some(handshakes)) => assembly.secure(transport, &handshakes, listeners, workers)?,
    };
    let handle = serving.handle();
    let mut serving = std::pin::pin!(serving);
    let never = async {
        match tls {
            Some(tls) => tls.watch().await,
            None => pending().await,
        }
    };
    tokio::select! {
        ended = &mut serving => return ended,
        never = never => match never {},
        () = shutdown => {}
    }
    let refuse = async {
        handle.pause().await;
        // The thread that accepts hears of it a little later, and would take an end for an error.
        sleep(ACCEPTS_NO_MORE).await;
        for listener in &held {
            // Where the kernel does not do that for a listener, who comes waits for the end.
            let _ = SockRef::from(listener).shutdown(Shutdown::Read);
        }
    };
    let stop = async {
        // Sessions are no connections of the server's any more, and end before its workers do.
        tokio::join!(sockets.drain(), refuse);
        handle.stop(true).await;
    };
    let (ended, ()) = tokio::join!(serving, stop);
    owners.stop();
    // The journal is closed when the last owner is gone.
    if owners.join().is_err() {
        log::error!("the owners' thread panicked");
    }
    ended
}

/// A connection on which TLS is agreed on, and what is spoken over it by whom.
type Secured = (TlsStream<TcpStream>, Protocol, Option<SocketAddr>);

/// What is put together on every worker.
struct Assembly<M: Model> {
    sockets: Sockets<M>,
    journal: Arc<dyn Journal>,
    page: Page,
}

impl<M: Model> Assembly<M> {
    fn direct(self, listeners: Vec<TcpListener>, workers: usize) -> io::Result<Serving> {
        let (mut server, stopping) = self.build(workers);
        let assembly = Arc::new(self);
        for listener in listeners {
            let address = listener.local_addr()?;
            let (assembly, stopping) = (assembly.clone(), stopping.clone());
            server = server.listen(address.to_string(), listener, move || {
                assembly.service(address, stopping.clone())
            })?;
        }
        Ok(server.run())
    }

    /// Serves by TLS.
    ///
    /// Not by what `HttpServer` has for it: that offers HTTP/2 first, since our client has it compiled
    /// in, and a WebSocket is one of HTTP/1.1. It also takes 256 handshakes at a time and then nobody,
    /// so that as many clients that say nothing would keep all others out.
    fn secure(
        self,
        transport: Transport,
        handshakes: &Handshakes,
        listeners: Vec<TcpListener>,
        workers: usize,
    ) -> io::Result<Serving> {
        let (mut server, stopping) = self.build(workers);
        let assembly = Arc::new(self);
        for listener in listeners {
            let address = listener.local_addr()?;
            let name = address.to_string();
            let (assembly, stopping) = (assembly.clone(), stopping.clone());
            let handshakes = handshakes.clone();
            server = match transport {
                Transport::Direct => server.listen(name, listener, move || {
                    let http = assembly.http(address, stopping.clone());
                    let (sockets, app) = (assembly.sockets.clone(), assembly.app(address));
                    let upgrade = UpgradeFactory::new(sockets, app);
                    let http = http.upgrade(upgrade).finish(assembly.app(address));
                    assembly.after_handshake(handshakes.clone(), http)
                })?,
                Transport::Embedded => server.listen(name, listener, move || {
                    let http = assembly.http(address, stopping.clone());
                    let http = http.h1_write_buffer_size(WRITE_BUFFER);
                    assembly.after_handshake(handshakes.clone(), http.finish(assembly.app(address)))
                })?,
            };
        }
        Ok(server.run())
    }

    fn build(&self, workers: usize) -> (ServerBuilder, GracefulShutdownSignal) {
        let server = Serving::build()
            .disable_signals()
            .workers(workers)
            .shutdown_timeout(SHUTDOWN_TIMEOUT)
            .max_concurrent_connections(max_concurrent(self.sockets.limits()));
        let stopping = server.graceful_shutdown_signal();
        (server, stopping)
    }

    /// What serves the connections of one listener on one worker.
    fn service(
        &self,
        address: SocketAddr,
        stopping: GracefulShutdownSignal,
    ) -> impl ServiceFactory<
        TcpStream,
        Config = (),
        Response = (),
        Error = DispatchError,
        InitError = (),
    > + use<M> {
        let slow_timeout = self.sockets.limits().slow_timeout;
        self.http(address, stopping)
            .tcp_nodelay(true)
            .on_connect_ext(move |stream: &TcpStream, _| tune(&SockRef::from(stream), slow_timeout))
            .upgrade(UpgradeFactory::new(self.sockets.clone(), self.app(address)))
            .finish(self.app(address))
            .tcp()
    }

    /// HTTP as it is on every connection, whatever carries its bytes.
    fn http<T, S>(
        &self,
        address: SocketAddr,
        stopping: GracefulShutdownSignal,
    ) -> HttpServiceBuilder<T, S>
    where
        T: AsyncRead + AsyncWrite + Unpin + 'static,
        S: ServiceFactory<Request, Config = ()>,
        S::Error: Into<Response<BoxBody>> + 'static,
        S::InitError: fmt::Debug,
        <S::Service as Service<Request>>::Future: 'static,
    {
        let request_timeout = self.sockets.limits().handshake_timeout;
        HttpServiceBuilder::default()
            .graceful_shutdown_signal(move || {
                let stopping = stopping.clone();
                async move { stopping.notified().await }
            })
            .client_disconnect_timeout(Duration::ZERO)
            .client_request_timeout(request_timeout.unwrap_or(Duration::ZERO))
            .local_addr(address)
    }

    /// What shakes hands by TLS, and then serves HTTP.
    fn after_handshake<H>(
        &self,
        handshakes: Handshakes,
        http: H,
    ) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = (), InitError = ()> + use<M, H>
    where
        H: ServiceFactory<
                Secured,
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
                // Where the kernel does not know it, what is written may wait a moment for more.
                let _ = stream.set_nodelay(true);
                tune(&SockRef::from(&stream), slow_timeout);
                let peer = stream.peer_addr().ok();
                let accepted = handshakes.accept(stream).await;
                // A client's mistake, which it is told by TLS.
                let stream = accepted.map_err(|err| log::debug!("no TLS was agreed on: {err}"))?;
                Ok((stream, Protocol::Http1, peer))
            }
        });
        shake_hands.and_then(http.map_err(drop))
    }

    /// The application as one listener has it.
    fn app(
        &self,
        address: SocketAddr,
    ) -> impl ServiceFactory<
        Request,
        Config = (),
        Response = ServiceResponse,
        Error = Error,
        InitError = (),
    > + use<M> {
        let site = site(
            self.sockets.clone(),
            self.journal.clone(),
            self.page.clone(),
        );
        let app = App::new().app_data(ListensOn(address)).configure(site);
        map_config(app, |()| AppConfig::default())
    }

    fn embedded(self, listeners: Vec<TcpListener>, workers: usize) -> io::Result<Serving> {
        let limits = self.sockets.limits().clone();
        let slow_timeout = limits.slow_timeout;
        let mut http = HttpServer::new(move || {
            let site = site(
                self.sockets.clone(),
                self.journal.clone(),
                self.page.clone(),
            );
            App::new().configure(site)
        })
        .disable_signals()
        .workers(workers)
        .shutdown_timeout(SHUTDOWN_TIMEOUT)
        // Zero: a closed session's connection ends at once. What a client still sends after a breach
        // is read by its session for a while, so that the close frame reaches it.
        .client_disconnect_timeout(Duration::ZERO)
        .client_request_timeout(limits.handshake_timeout.unwrap_or(Duration::ZERO))
        .h1_write_buffer_size(WRITE_BUFFER)
        .max_connections(max_concurrent(&limits))
        .tcp_nodelay(true)
        .on_connect(move |connection, _| {
            if let Some(stream) = connection.downcast_ref::<TcpStream>() {
                tune(&SockRef::from(stream), slow_timeout);
            }
        });
        for listener in listeners {
            http = http.listen(listener)?;
        }
        Ok(http.run())
    }
}

/// As many as may be at a time on one worker; handshakes that are one too many are answered with 503.
fn max_concurrent(limits: &Limits) -> usize {
    limits.max_connections.unwrap_or(usize::MAX >> 8)
}

/// Lets a socket say early that its peer takes nothing, and end if that goes on.
fn tune(socket: &SockRef<'_>, slow_timeout: Option<Duration>) {
    // Where the kernel does not know an option, the outbox and the heartbeat still hold.
    #[cfg(target_os = "linux")]
    {
        let _ = socket.set_tcp_notsent_lowat(NOT_SENT_LOW_WATER);
        let _ = socket.set_tcp_user_timeout(slow_timeout);
    }
}

/// How many connections the limit of open files allows, which is raised as far as it may be.
pub fn max_connections() -> Option<usize> {
    /// Files, listeners and workers need some, too.
    const KEPT: u64 = 128;
    let files = rlimit::increase_nofile_limit(u64::MAX).ok()?;
    usize::try_from(files.saturating_sub(KEPT).max(1)).ok()
}

/// Resolves at the first SIGTERM or SIGINT; a second one ends the process at once.
///
/// # Errors
///
/// Where the process may not listen to signals.
pub fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (stop, stopped) = oneshot::channel();
    rt::spawn(async move {
        let mut stop = Some(stop);
        loop {
            let code = tokio::select! {
                _ = terminate.recv() => 128 + SignalKind::terminate().as_raw_value(),
                _ = interrupt.recv() => 128 + SignalKind::interrupt().as_raw_value(),
            };
            match stop.take() {
                Some(stop) => {
                    log::info!("stopping; a second signal stops at once");
                    let _ = stop.send(());
                }
                None => std::process::exit(code),
            }
        }
    });
    Ok(async {
        // The sender lives as long as the system does.
        let _ = stopped.await;
    })
}
