//! The program: parse, start logging, run, exit code.

use std::{
    fmt::Display,
    io,
    process::{self, ExitCode},
    sync::Arc,
};

use actix_web::rt;
use clap::Parser;
use env_logger::Env;
use tallyroom::{
    command,
    config::{Cli, Command, Serve, Store},
    http::page::Page,
    journal::{Journal, disk::DiskJournal, memory::MemoryJournal},
    listen,
    model::{ModelId, counter::Counter},
    server::{self, Carrying, Server},
    socket::admission::Admission,
};

fn main() -> ExitCode {
    let asked = Cli::parse().into_command();
    let log = Env::new().filter_or("TALLYROOM_LOG", default_log(&asked));
    env_logger::Builder::from_env(log).init();
    let system = rt::System::new();
    match asked {
        Command::Serve(serve) => status(system.block_on(run(*serve))).into(),
        Command::Check(check) => status(command::check(&check)).into(),
        // A host's name that is still looked up would keep the system from ending.
        Command::Ask(ask) => process::exit(status(system.block_on(command::run(ask))).into()),
    }
}

fn status<E: Display>(done: Result<(), E>) -> u8 {
    match done {
        Ok(()) => 0,
        Err(err) => {
            eprintln!("tallyroom: {err}");
            1
        }
    }
}

fn default_log(asked: &Command) -> String {
    // What actix says of its own start and stop is said by us; what clients do wrong is no error.
    let default = match asked {
        Command::Serve(_) => "info,actix_server=warn,actix_http=off",
        Command::Check(_) | Command::Ask(_) => "off",
    };
    std::env::var("RUST_LOG").unwrap_or_else(|_| default.to_owned())
}

async fn run(serve: Serve) -> io::Result<()> {
    let shutdown = server::stop_signal()?;
    let tls = serve.tls.open()?;
    let journal: Arc<dyn Journal> = match &serve.store {
        Store::Memory => Arc::new(MemoryJournal::new()),
        Store::Disk(folder) => {
            let keep = serve.limits.to_keep();
            let opened = DiskJournal::open(folder, ModelId::of::<Counter>(), keep);
            Arc::new(opened.map_err(io::Error::other)?)
        }
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let (listeners, urls) = listen::bind_all(&serve.listen, scheme)?;
    let beyond_loopback = listeners
        .iter()
        .filter_map(|listener| listener.local_addr().ok())
        .any(|address| !address.ip().is_loopback());
    log::info!(
        "tallyroom {}, store {}",
        env!("CARGO_PKG_VERSION"),
        serve.store
    );
    log::info!("open {} in several browsers", urls.join(" or "));
    if beyond_loopback {
        log::warn!("whoever reaches this address may change every room: there is no auth");
    }
    let server = Server {
        journal,
        limits: serve.limits.to_limits(server::max_connections()),
        admission: Admission {
            allow_hosts: serve.allow_host,
            allow_origins: serve.allow_origin,
        },
        page: serve.static_dir.map_or(Page::Counter, Page::Folder),
        carrying: Carrying {
            workers: serve.workers.into(),
            transport: serve.transport,
            tls,
        },
    };
    server::run(Counter, server, listeners, shutdown).await
}
