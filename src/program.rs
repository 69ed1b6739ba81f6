//! A program of its own around a model: its flags, its log and its server.
//!
//! The model is its own flags: whatever it derives by [`clap::Args`] stands on the command line beside those
//! that every such program has, and its documentation is what `--help` says first.

use std::{fmt::Debug, io, net::TcpListener, process::ExitCode, sync::Arc};

use actix_http::{Request, body::MessageBody};
use actix_service::{IntoServiceFactory, Service, ServiceFactory};
use actix_web::{
    App, Error,
    dev::{AppConfig, ServiceResponse},
};
use clap::{ArgMatches, Args, Command, FromArgMatches, error::ErrorKind};
use env_logger::Env;

use crate::{
    config::{Listen, Store, tls::TlsFlags, values::Size},
    http::{page::Page, site},
    journal::{Journal, disk::DiskJournal, memory::MemoryJournal},
    limits::Limits,
    listen,
    model::{Events, Keep, Model, ModelId},
    server::{self, Carrying, Owners},
    socket::{
        Sockets, Transport,
        admission::{Admission, AllowedOrigin},
    },
};

/// What the flags of every such program say.
#[derive(Args, Clone, Debug)]
struct Flags {
    /// Address to listen on, HOST:PORT; may be given several times. `localhost` is both `127.0.0.1` and
    /// `[::1]`
    #[arg(long, value_name = "ADDR")]
    listen: Vec<Listen>,

    /// Origin whose pages may open sockets, beside the program's own; may be given several times:
    /// `https://example.org`, `null` (pages opened as files) or `*` (all)
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<AllowedOrigin>,

    /// Size of one message from a client; past it the session closes with 1009
    #[arg(long, value_name = "SIZE", default_value_t = Size(Some(MAX_MESSAGE)))]
    max_message_bytes: Size,

    /// Where rooms are kept: `memory`, or `disk:DIR`, in that folder
    #[arg(long, value_name = "STORE")]
    store: Store,

    /// What carries the sockets
    #[arg(long, env = "TALLYROOM_TRANSPORT", default_value = "direct")]
    transport: Transport,

    #[command(flatten)]
    tls: TlsFlags,
}

/// How large a message may be unless a flag says otherwise.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// Serves a model's rooms until the process is asked to stop: all of a program's `main`.
///
/// `listen` is where, unless a flag says otherwise. What is wrong with a flag ends the process with 2;
/// otherwise it ends with 0, or with 1 and a sentence.
pub fn main<M: Model + Args>(listen: &'static str, page: Page) -> ExitCode {
    let program = Program::<M>::parse(listen);
    match actix_web::rt::System::new().block_on(program.serve(page)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("{}: {err}", M::NAME);
            ExitCode::FAILURE
        }
    }
}

/// What the command line says.
pub struct Program<M: Model> {
    model: M,
    flags: Flags,
}

impl<M: Model + Args> Program<M> {
    /// Reads the command line, and starts logging. What is wrong with a flag ends the process with 2.
    pub fn parse(listen: &'static str) -> Self {
        let mut matches = command::<M>(listen).get_matches();
        let program = Self::from_matches(&mut matches).unwrap_or_else(|err| err.exit());
        let log = Env::new().filter_or("TALLYROOM_LOG", "info,actix_server=warn,actix_http=off");
        env_logger::Builder::from_env(log).init();
        program
    }

    fn from_matches(matches: &mut ArgMatches) -> Result<Self, clap::Error> {
        let flags = Flags::from_arg_matches_mut(matches)?;
        if M::KEEP == Keep::Nothing && flags.store != Store::Memory {
            let message = format!(
                "--store {}: nothing is kept of what happens here; leave it out, or say memory\n",
                flags.store
            );
            return Err(clap::Error::raw(ErrorKind::ValueValidation, message));
        }
        let model = M::from_arg_matches_mut(matches)?;
        Ok(Self { model, flags })
    }
}

impl<M: Model> Program<M> {
    /// Serves the rooms and a page by a server of their own.
    ///
    /// # Errors
    ///
    /// Names what cannot be opened or listened on.
    pub async fn serve(self, page: Page) -> io::Result<()> {
        let shutdown = server::stop_signal()?;
        let opened = self.open()?;
        let (sockets, journal) = (opened.sockets(), opened.journal());
        let app = move || {
            let site = site(sockets.clone(), journal.clone(), page.clone());
            App::new().configure(site)
        };
        opened.serve(app, shutdown).await
    }

    /// Listens, and starts the owners of the rooms, for an application of one's own. Needs an actix
    /// system.
    ///
    /// # Errors
    ///
    /// Names what cannot be opened or listened on.
    pub fn open(self) -> io::Result<Opened<M>> {
        let carrying = Carrying {
            workers: 0,
            transport: self.flags.transport,
            tls: self.flags.tls.open()?,
        };
        let journal = self.journal()?;
        let scheme = if carrying.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let (listeners, urls) = listen::bind_all(&self.flags.listen, scheme)?;
        log::info!("{}: open {}", M::NAME, urls.join(" or "));
        let (limits, admission) = (self.limits(), self.admission());
        Ok(Opened {
            owners: Owners::start(self.model, journal, limits, admission),
            listeners,
            carrying,
        })
    }

    fn journal(&self) -> io::Result<Arc<dyn Journal>> {
        Ok(match &self.flags.store {
            Store::Memory => Arc::new(MemoryJournal::new()),
            Store::Disk(folder) => {
                let opened = DiskJournal::open(folder, ModelId::of::<M>(), Default::default());
                Arc::new(opened.map_err(io::Error::other)?)
            }
        })
    }

    fn admission(&self) -> Admission {
        Admission {
            allow_origins: self.flags.allow_origin.clone(),
            ..Admission::default()
        }
    }

    /// Messages of the model's own are not conflated: a few of the largest may wait.
    fn limits(&self) -> Limits {
        let limits = Limits {
            max_message_bytes: self.flags.max_message_bytes.0,
            max_connections: server::max_connections(),
            ..Limits::default()
        };
        match (M::EVENTS, limits.max_message_bytes) {
            (Events::Json, _) => limits,
            (Events::None, Some(max)) => Limits {
                backlog_bytes: limits.backlog_bytes.map(|backlog| backlog.max(4 * max)),
                ..limits
            },
            (Events::None, None) => Limits {
                backlog_bytes: None,
                ..limits
            },
        }
    }
}

/// A program that listens, whose application is yet to be put together.
pub struct Opened<M: Model> {
    owners: Owners<M>,
    listeners: Vec<TcpListener>,
    carrying: Carrying,
}

impl<M: Model> Opened<M> {
    /// For the application: opens sockets in the rooms.
    pub fn sockets(&self) -> Sockets<M> {
        self.owners.sockets.clone()
    }

    /// For [`site`]: what happened in the rooms.
    pub fn journal(&self) -> Arc<dyn Journal> {
        self.owners.journal.clone()
    }

    /// Serves the application until `shutdown` resolves; `app` makes it, once for each worker and
    /// listener.
    ///
    /// # Errors
    ///
    /// Where the listeners cannot be served.
    pub async fn serve<F, I, S, B>(
        self,
        app: F,
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
        let Self {
            owners,
            listeners,
            carrying,
        } = self;
        owners.serve(app, listeners, carrying, shutdown).await
    }
}

fn command<M: Model + Args>(listen: &'static str) -> Command {
    let store = match M::KEEP {
        Keep::Durable => format!("disk:data/{}", M::NAME),
        Keep::Nothing => "memory".to_owned(),
    };
    let command = Flags::augment_args(Command::new(M::NAME))
        .next_help_heading(None)
        .mut_arg("listen", |arg| arg.required(false).default_value(listen))
        .mut_arg("store", |arg| arg.required(false).default_value(store));
    M::augment_args(command).max_term_width(100)
}
