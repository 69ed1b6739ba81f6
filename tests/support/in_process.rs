//! Servers of any model and journal within the test's own process.

use std::{net::TcpListener, sync::Arc, thread};

use tallyroom::{
    http::page::Page,
    journal::{Journal, memory::MemoryJournal},
    limits::Limits,
    model::Model,
    server::{self, Carrying},
    socket::{Transport, admission::Admission},
};
use tokio::sync::oneshot;

use super::{Client, join};

/// A server on a thread of its own, which is stopped when this is dropped.
pub struct InProcess {
    port: u16,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<std::io::Result<()>>>,
}

impl InProcess {
    pub fn start<M: Model>(model: M, journal: Arc<dyn Journal>, limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::spawn(move || {
            let server = server::Server {
                journal,
                limits,
                admission: Admission::default(),
                page: Page::default(),
                carrying: Carrying {
                    workers: 2,
                    transport: transport(),
                    tls: None,
                },
            };
            let shutdown = async {
                let _ = stopped.await;
            };
            let run = server::run(model, server, vec![listener], shutdown);
            actix_web::rt::System::new().block_on(run)
        });
        Self {
            port,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// A server of a model with its rooms in memory and the default limits.
    pub fn of<M: Model>(model: M) -> Self {
        Self::start(model, Arc::new(MemoryJournal::new()), Limits::default())
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn client(&self) -> Client {
        join(self.port, "/")
    }

    pub fn client_in(&self, path: &str) -> Client {
        join(self.port, path)
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        // The thread stops by itself; a test need not wait for sessions that it still has open.
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        self.thread.take();
    }
}

/// The transport that the program is told by its environment, too: each behaviour is tested on both.
pub fn transport() -> Transport {
    match std::env::var("TALLYROOM_TRANSPORT").as_deref() {
        Err(_) | Ok("direct") => Transport::Direct,
        Ok("embedded") => Transport::Embedded,
        Ok(other) => panic!("TALLYROOM_TRANSPORT={other}"),
    }
}
