//! Builds the parts, serves, and drains: [`run`] is the whole life of a server.

mod assembly;

use std::{
    fmt::Debug,
    future::pending,
    io,
    net::{Shutdown, TcpListener},
    sync::Arc,
    thread::available_parallelism,
    time::Duration,
};

use actix::prelude::*;
use actix_http::{Request, body::MessageBody};
use actix_service::{IntoServiceFactory, Service, ServiceFactory, map_config};
use actix_web::{
    App, Error,
    dev::{AppConfig, ServiceResponse},
    rt::{
        self,
        signal::unix::{SignalKind, signal},
        time::sleep,
    },
};
use socket2::SockRef;
use tokio::sync::oneshot;

use self::assembly::Assembly;
use crate::{
    config::Listen,
    http::{page::Page, site},
    journal::{Journal, memory::MemoryJournal, passing::PassingJournal},
    limits::Limits,
    listen,
    model::{Keep, Model},
    rooms::Rooms,
    socket::{Sockets, Transport, admission::Admission},
    tls::Tls,
};

/// After this the thread that accepts connections has heard that it is not to.
const ACCEPTS_NO_MORE: Duration = Duration::from_millis(50);

/// What a server serves and how.
pub struct Server {
    pub journal: Arc<dyn Journal>,
    pub limits: Limits,
    pub admission: Admission,
    pub page: Page,
    pub carrying: Carrying,
}

/// How connections are carried.
#[derive(Default)]
pub struct Carrying {
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
pub async fn serve<M: Model>(model: M, address: &str) -> io::Result<()> {
    let shutdown = stop_signal()?;
    let listen: Listen = address.parse().map_err(|allowed| {
        let message = format!("cannot listen on {address:?}: {allowed}");
        io::Error::new(io::ErrorKind::InvalidInput, message)
    })?;
    let (listeners, urls) = listen::bind_all(&[listen], "http")?;
    log::info!("open {}", urls.join(" or "));
    let server = Server {
        journal: Arc::new(MemoryJournal::new()),
        limits: Limits::default(),
        admission: Admission::default(),
        page: Page::default(),
        carrying: Carrying::default(),
    };
    run(model, server, listeners, shutdown).await
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
    model: M,
    server: Server,
    listeners: Vec<TcpListener>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let Server {
        journal,
        limits,
        admission,
        page,
        carrying,
    } = server;
    let owners = Owners::start(model, journal, limits, admission);
    let (sockets, journal) = (owners.sockets.clone(), owners.journal.clone());
    let app = move || {
        let site = site(sockets.clone(), journal.clone(), page.clone());
        App::new().configure(site)
    };
    owners.serve(app, listeners, carrying, shutdown).await
}

/// The owners of all rooms, on a thread of their own, and what an application needs to open sockets in
/// them.
pub struct Owners<M: Model> {
    arbiter: Arbiter,
    pub sockets: Sockets<M>,
    /// What [`site`] needs beside the sockets.
    pub journal: Arc<dyn Journal>,
}

impl<M: Model> Owners<M> {
    /// Starts them. Needs an actix system.
    pub fn start(
        model: M,
        journal: Arc<dyn Journal>,
        limits: Limits,
        admission: Admission,
    ) -> Self {
        let journal = match M::KEEP {
            Keep::Durable => journal,
            Keep::Nothing => Arc::new(PassingJournal::new()),
        };
        let limits = Arc::new(limits);
        let arbiter = Arbiter::new();
        let rooms = {
            let (journal, limits) = (journal.clone(), limits.clone());
            Rooms::<M>::start_in_arbiter(&arbiter.handle(), move |_| Rooms::new(journal, limits))
        };
        Self {
            arbiter,
            sockets: Sockets::new(model, rooms, admission, limits),
            journal,
        }
    }

    /// Serves an application of one's own, in which these sockets are, until `shutdown` resolves, and then
    /// stops as [`run`] does. `app` makes it, once for each worker and listener.
    ///
    /// # Errors
    ///
    /// Where the listeners cannot be served.
    pub async fn serve<F, I, S, B>(
        self,
        app: F,
        listeners: Vec<TcpListener>,
        carrying: Carrying,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()>
    where
        F: Fn() -> I + Send + Sync + 'static,
        I: IntoServiceFactory<S, Request>,
        S: ServiceFactory<
                Request,
                Config = AppConfig,
                Response = ServiceResponse<B>,
                Error = Error,
            > + 'static,
        S::InitError: Debug,
        <S::Service as Service<Request>>::Future: 'static,
        B: MessageBody + 'static,
    {
        let Carrying {
            workers,
            transport,
            tls,
        } = carrying;
        let within = self.sockets.limits().handshake_timeout;
        let handshakes = tls.as_ref().map(|tls| tls.handshakes(within));
        let assembly = Assembly {
            sockets: self.sockets.clone(),
            app: move || map_config(app(), |()| AppConfig::default()),
            transport,
            handshakes: handshakes.transpose().map_err(io::Error::other)?,
        };
        // Held, so that they can be shut when the server stops.
        let held: io::Result<Vec<_>> = listeners.iter().map(TcpListener::try_clone).collect();
        let held = held?;
        let workers = match workers {
            0 => available_parallelism()?.get(),
            workers => workers,
        };
        let serving = assembly.serve(listeners, workers)?;
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
            tokio::join!(self.sockets.drain(), refuse);
            handle.stop(true).await;
        };
        let (ended, ()) = tokio::join!(serving, stop);
        self.arbiter.stop();
        // The journal is closed when the last owner is gone.
        if self.arbiter.join().is_err() {
            log::error!("the owners' thread panicked");
        }
        ended
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
