//! The program: parse, start logging, run, exit code.

use std::{io, process::ExitCode, sync::Arc};

use actix_web::rt;
use clap::Parser;
use env_logger::Env;
use tallyroom::{
    config::{Cli, Serve, Store},
    http::page::Page,
    journal::{Journal, disk::DiskJournal, memory::MemoryJournal},
    listen,
    model::{ModelId, counter::Counter},
    server::{self, Server},
    socket::admission::Admission,
};

fn main() -> ExitCode {
    let serve = Cli::parse().into_serve();
    let log = Env::new().filter_or("TALLYROOM_LOG", default_log());
    env_logger::Builder::from_env(log).init();
    match rt::System::new().block_on(run(serve)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("tallyroom: {err}");
            ExitCode::FAILURE
        }
    }
}

fn default_log() -> String {
    // What actix says of its own start and stop is said by us; what clients do wrong is no error.
    std::env::var("RUST_LOG").unwrap_or_else(|_| "info,actix_server=warn,actix_http=off".to_owned())
}

async fn run(serve: Serve) -> io::Result<()> {
    let shutdown = server::stop_signal()?;
    let journal: Arc<dyn Journal> = match &serve.store {
        Store::Memory => Arc::new(MemoryJournal::new()),
        Store::Disk(folder) => {
            let keep = serve.limits.to_keep();
            let opened = DiskJournal::open(folder, ModelId::of::<Counter>(), keep);
            Arc::new(opened.map_err(io::Error::other)?)
        }
    };
    let mut listeners = Vec::new();
    let mut urls = Vec::new();
    for (nth, listen) in serve.listen.iter().enumerate() {
        let said_before = serve.listen[..nth].contains(listen);
        if said_before && listen.port != 0 {
            continue;
        }
        let bound = listen::bind(listen)?;
        urls.extend(listen::urls(listen, &bound));
        listeners.extend(bound);
    }
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
        page: Page {
            folder: serve.static_dir,
        },
        workers: serve.workers.into(),
    };
    server::run::<Counter>(server, listeners, shutdown).await
}
