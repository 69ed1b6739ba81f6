//! The program: parse, start logging, run, exit code.

use std::{io, process::ExitCode, sync::Arc};

use actix_web::rt::{
    self,
    signal::unix::{SignalKind, signal},
};
use clap::Parser;
use env_logger::Env;
use tallyroom::{
    config::{Cli, Serve, Store},
    http::page::Page,
    journal::{Journal, memory::MemoryJournal},
    model::counter::Counter,
    server::{self, Server},
    socket::admission::Admission,
};
use tokio::sync::oneshot;

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
    // What actix says of its own start and stop is said by us.
    std::env::var("RUST_LOG").unwrap_or_else(|_| "info,actix_server=warn".to_owned())
}

async fn run(serve: Serve) -> io::Result<()> {
    let shutdown = stop_signal()?;
    let mut listeners = Vec::new();
    let mut urls = Vec::new();
    for listen in &serve.listen {
        let bound = server::bind(listen)?;
        urls.extend(server::urls(listen, &bound));
        listeners.extend(bound);
    }
    let beyond_loopback = listeners
        .iter()
        .filter_map(|listener| listener.local_addr().ok())
        .any(|address| !address.ip().is_loopback());
    let journal = match serve.store {
        Store::Memory => MemoryJournal::new(),
    };
    log::info!(
        "tallyroom {}: store {}",
        env!("CARGO_PKG_VERSION"),
        journal.durability()
    );
    log::info!("open {} in several browsers", urls.join(" or "));
    if beyond_loopback {
        log::warn!("whoever reaches this address may change every room: there is no auth");
    }
    let server = Server {
        journal: Arc::new(journal),
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

/// Resolves at the first SIGTERM or SIGINT; a second one ends the process at once.
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
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
                    log::info!("stopping; once more stops at once");
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
