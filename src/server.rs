//! Builds the parts, serves, and drains: [`run`] is the whole life of a server.

use std::{io, net::TcpListener, sync::Arc, time::Duration};

use actix::prelude::*;
use actix_web::{
    App, HttpServer,
    rt::{
        self,
        signal::unix::{SignalKind, signal},
    },
};
use socket2::SockRef;
use tokio::sync::oneshot;

use crate::{
    config::Listen,
    http::{page::Page, site},
    journal::{Journal, memory::MemoryJournal},
    limits::Limits,
    listen,
    model::Model,
    rooms::Rooms,
    socket::{Sockets, admission::Admission},
};

/// How long connections may take to end once the server stops: longer than sessions may.
const SHUTDOWN_TIMEOUT: u64 = 7;

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
    log::info!("open {}", listen::urls(&listen, &listeners).join(" or "));
    let server = Server {
        journal: Arc::new(MemoryJournal::new()),
        limits: Limits::default(),
        admission: Admission::default(),
        page: Page::default(),
        workers: 0,
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
    } = server;
    let limits = Arc::new(limits);
    let owners = Arbiter::new();
    let rooms = {
        let (journal, limits) = (journal.clone(), limits.clone());
        Rooms::<M>::start_in_arbiter(&owners.handle(), move |_| Rooms::new(journal, limits))
    };
    let sockets = Sockets::new(rooms, admission, limits.clone());
    let drained = sockets.clone();
    let mut http = HttpServer::new(move || {
        App::new().configure(site(sockets.clone(), journal.clone(), page.clone()))
    })
    .disable_signals()
    .shutdown_timeout(SHUTDOWN_TIMEOUT)
    // Zero: a closed session's connection ends at once. What a client still sends after a breach
    // is read by its session for a while, so that the close frame reaches it.
    .client_disconnect_timeout(Duration::ZERO)
    .client_request_timeout(limits.handshake_timeout.unwrap_or(Duration::ZERO))
    .h1_write_buffer_size(WRITE_BUFFER)
    .max_connections(limits.max_connections.unwrap_or(usize::MAX >> 8))
    .tcp_nodelay(true)
    .on_connect({
        let slow_timeout = limits.slow_timeout;
        move |connection, _| {
            if let Some(stream) = connection.downcast_ref::<actix_web::rt::net::TcpStream>() {
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
    let (ended, (), ()) = tokio::join!(serving, stopped, drained.drain());
    owners.stop();
    // The journal is closed when the last owner is gone.
    if owners.join().is_err() {
        log::error!("the owners' thread panicked");
    }
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
