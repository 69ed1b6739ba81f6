//! A bad network: a way to a server that cuts, delays and loses what passes.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// A port that leads to a server, for as long as the network is up.
pub struct Network {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Where it leads; 0: nowhere.
    target: AtomicU16,
    /// Milliseconds that every piece takes on its way.
    delay: AtomicU64,
    deaf: AtomicBool,
    /// Whether a connection turns mute as soon as its client says more than its handshake.
    loses_answers: AtomicBool,
    /// How many pieces of what servers said were lost.
    lost: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

impl Network {
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let network = Self {
            port: listener.local_addr().unwrap().port(),
            shared: Arc::default(),
        };
        network.lead_to(port);
        let shared = network.shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                shared.clone().carry(stream);
            }
        });
        network
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// New connections lead to another server's port.
    pub fn lead_to(&self, port: u16) {
        self.shared.target.store(port, Ordering::SeqCst);
    }

    /// Cuts all connections, and loses what is on its way.
    pub fn cut(&self) {
        for stream in self.shared.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub fn delay(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap();
        self.shared.delay.store(millis, Ordering::SeqCst);
    }

    /// Whether what clients say is lost, though the connections stay open.
    pub fn lose_what_clients_say(&self, lose: bool) {
        self.shared.deaf.store(lose, Ordering::SeqCst);
    }

    /// Whether all is lost that a server says once a client of its has said something beside its
    /// handshake: so whoever acts comes in, and hears no answer.
    pub fn lose_answers(&self, lose: bool) {
        self.shared.loses_answers.store(lose, Ordering::SeqCst);
    }

    /// How many pieces of what servers said were lost so far.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::SeqCst)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.lead_to(0);
        self.cut();
    }
}

impl Shared {
    fn carry(self: Arc<Self>, client: TcpStream) {
        let target = self.target.load(Ordering::SeqCst);
        // Nobody is there: the connection is dropped.
        let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else {
            return;
        };
        let both = [client.try_clone().unwrap(), server.try_clone().unwrap()];
        self.open.lock().unwrap().extend(both);
        let there = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let shared = self.clone();
        let answers_lost = Arc::new(AtomicBool::new(false));
        let lose = answers_lost.clone();
        thread::spawn(move || {
            let mut pieces = 0;
            shared.pump(there.0, there.1, || {
                pieces += 1;
                if pieces > 1 && shared.loses_answers.load(Ordering::SeqCst) {
                    lose.store(true, Ordering::SeqCst);
                }
                shared.deaf.load(Ordering::SeqCst)
            });
        });
        thread::spawn(move || {
            self.pump(server, client, || {
                let lost = answers_lost.load(Ordering::SeqCst);
                self.lost.fetch_add(lost.into(), Ordering::SeqCst);
                lost
            });
        });
    }

    /// Passes on what comes, as long as nothing `is_lost`, which is asked about each piece. A stream
    /// that has a hole is cut before anything goes on behind it.
    fn pump(&self, mut from: TcpStream, mut to: TcpStream, mut is_lost: impl FnMut() -> bool) {
        let mut buffer = [0; 4096];
        let mut hole = false;
        while let Ok(len @ 1..) = from.read(&mut buffer) {
            if is_lost() {
                hole = true;
                continue;
            }
            thread::sleep(Duration::from_millis(self.delay.load(Ordering::SeqCst)));
            if hole || to.write_all(&buffer[..len]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}
