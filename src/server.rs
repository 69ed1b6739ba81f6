//! Builds the parts, serves, and drains: [`run`] is the whole life of a server.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use actix::prelude::*;
use actix_web::{App, HttpServer};
use socket2::{Domain, SockRef, Socket, Type};

use crate::{
    config::Listen,
    http::{page::Page, site},
    journal::Journal,
    limits::Limits,
    model::Model,
    rooms::Rooms,
    socket::{Sockets, admission::Admission},
};

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 4096;

/// How long connections may take to end once the server stops: longer than sessions may.
const SHUTDOWN_TIMEOUT: u64 = 8;

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
    } = server;
    let limits = Arc::new(limits);
    let owners = Arbiter::new();
    let rooms = {
        let limits = limits.clone();
        Rooms::<M>::start_in_arbiter(&owners.handle(), move |_| Rooms::new(journal, limits))
    };
    let sockets = Sockets::new(rooms, admission, limits.clone());
    let fanouts = sockets.fanouts().clone();
    let mut http =
        HttpServer::new(move || App::new().configure(site(sockets.clone(), page.clone())))
            .disable_signals()
            .shutdown_timeout(SHUTDOWN_TIMEOUT)
            .client_request_timeout(limits.handshake_timeout.unwrap_or(Duration::ZERO))
            .h1_write_buffer_size(WRITE_BUFFER)
            .max_connections(limits.max_connections.unwrap_or(usize::MAX >> 8))
            .tcp_nodelay(true)
            .on_connect({
                let slow_timeout = limits.slow_timeout;
                move |connection, _| {
                    if let Some(stream) = connection.downcast_ref::<actix_web::rt::net::TcpStream>()
                    {
                        tune(&SockRef::from(stream), slow_timeout);
                    }
                }
            });
    if workers > 0 {
        http = http.workers(workers);
    }
    for listener in listeners {
        http = http.listen(listener)?;
    }
    let serving = http.run();
    let handle = serving.handle();
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        ended = &mut serving => return ended,
        () = shutdown => {}
    }
    let stopped = handle.stop(true);
    fanouts.drain();
    let (ended, ()) = tokio::join!(serving, stopped);
    owners.stop();
    ended
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

/// Binds the listeners of an address: `localhost` is both 127.0.0.1 and \[::1\], as far as the
/// machine has them, on one port.
///
/// # Errors
///
/// Names the address, and says so where its port is taken.
pub fn bind(listen: &Listen) -> io::Result<Vec<TcpListener>> {
    const TRIES: usize = 20;
    let mut last = None;
    for _ in 0..TRIES {
        match bind_once(listen) {
            // A free port of one family may be taken in the other.
            Err(err) if listen.port == 0 && err.kind() == io::ErrorKind::AddrInUse => {
                last = Some(err);
            }
            bound => return bound.map_err(|err| explain(listen, &err)),
        }
    }
    let err = last.unwrap_or_else(|| io::ErrorKind::AddrInUse.into());
    Err(explain(listen, &err))
}

fn bind_once(listen: &Listen) -> io::Result<Vec<TcpListener>> {
    let mut port = listen.port;
    let mut listeners = Vec::new();
    let mut missing = None;
    for ip in addresses(listen)? {
        match bind_address(SocketAddr::new(ip, port)) {
            Ok(listener) => {
                port = listener.local_addr()?.port();
                listeners.push(listener);
            }
            Err(err) if is_missing_family(&err) => missing = Some(err),
            Err(err) => return Err(err),
        }
    }
    match missing {
        Some(err) if listeners.is_empty() => Err(err),
        _ => Ok(listeners),
    }
}

fn addresses(listen: &Listen) -> io::Result<Vec<IpAddr>> {
    if listen.host.eq_ignore_ascii_case("localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let mut found = (listen.host.as_str(), listen.port).to_socket_addrs()?;
    let first = found.next().map(|address| address.ip());
    first
        .map(|ip| vec![ip])
        .ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn bind_address(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if let IpAddr::V6(ip) = address.ip() {
        socket.set_only_v6(!ip.is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Whether the machine lacks the address family, or only loopback of it.
fn is_missing_family(err: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    err.kind() == io::ErrorKind::AddrNotAvailable || err.raw_os_error() == Some(EAFNOSUPPORT)
}

fn explain(listen: &Listen, err: &io::Error) -> io::Error {
    let why = match err.kind() {
        io::ErrorKind::AddrInUse => {
            "the port is taken, perhaps by another tallyroom; stop that, or choose another port \
             with --listen"
                .to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "it is not allowed; ports below 1024 need a privilege".to_owned()
        }
        _ => err.to_string(),
    };
    io::Error::new(err.kind(), format!("cannot listen on {listen}: {why}"))
}

/// Where to point a browser: one URL for each address that somebody can reach.
pub fn urls(listen: &Listen, listeners: &[TcpListener]) -> Vec<String> {
    let Some(address) = listeners
        .first()
        .and_then(|listener| listener.local_addr().ok())
    else {
        return Vec::new();
    };
    let url = |host: &str| format!("http://{host}:{}/", address.port());
    if !address.ip().is_unspecified() {
        return match listen.host.contains(':') {
            true => vec![url(&format!("[{}]", listen.host))],
            false => vec![url(&listen.host)],
        };
    }
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let reached = interfaces
        .iter()
        .filter(|interface| !interface.is_loopback() && !interface.is_link_local())
        .filter(|interface| address.is_ipv6() || interface.ip().is_ipv4())
        .map(|interface| match interface.ip() {
            IpAddr::V4(ip) => url(&ip.to_string()),
            IpAddr::V6(ip) => url(&format!("[{ip}]")),
        });
    std::iter::once(url("localhost")).chain(reached).collect()
}

/// How many connections the limit of open files allows, which is raised as far as it may be.
pub fn max_connections() -> Option<usize> {
    /// Files, listeners and workers need some, too.
    const KEPT: u64 = 128;
    let files = rlimit::increase_nofile_limit(u64::MAX).ok()?;
    usize::try_from(files.saturating_sub(KEPT).max(1)).ok()
}
