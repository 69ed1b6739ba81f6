//! A server that is killed and started again, and where its clients find it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use fastrand::Rng;

use crate::support::{Server, command};

/// Where the server is now.
pub struct Site {
    folder: PathBuf,
    now: Mutex<Now>,
    changed: Condvar,
    /// How many events clients were told, by which the moments of kills are chosen.
    told: AtomicU64,
    /// How often clients met what, so that nothing passes for tested that never came about.
    met: Mutex<BTreeMap<String, u64>>,
}

/// A server that may be dead already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// `None`: it is down.
    pub port: Option<u16>,
    /// It is the last, and is not killed.
    pub last: bool,
    /// There will be none any more: the test failed.
    pub over: bool,
}

/// The server that lives to the end of the test.
pub struct Last<'a> {
    pub server: Server,
    site: &'a Site,
}

impl Drop for Last<'_> {
    fn drop(&mut self) {
        self.site.set(Now {
            over: true,
            ..Now::default()
        });
    }
}

impl Site {
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            now: Mutex::default(),
            changed: Condvar::new(),
            told: AtomicU64::new(0),
            met: Mutex::default(),
        }
    }

    /// Waits until there is a server: its port, and whether it is the last one.
    pub fn find(&self) -> (u16, bool) {
        let mut now = self.now.lock().unwrap();
        loop {
            assert!(!now.over, "the server is gone for good");
            if let Some(port) = now.port {
                return (port, now.last);
            }
            now = self.changed.wait(now).unwrap();
        }
    }

    /// The server is gone: waits until it is known to be, so that nobody asks a dead one again and again.
    pub fn lost(&self, port: u16) {
        let now = self.now.lock().unwrap();
        let same = |now: &mut Now| now.port == Some(port) && !now.last;
        let waited = Duration::from_millis(20);
        drop(self.changed.wait_timeout_while(now, waited, same).unwrap());
    }

    pub fn told(&self) {
        self.told.fetch_add(1, Ordering::Relaxed);
    }

    /// A client met something.
    pub fn meets(&self, what: &str) {
        *self.met.lock().unwrap().entry(what.to_owned()).or_default() += 1;
    }

    /// How often clients met what.
    pub fn met(self) -> BTreeMap<String, u64> {
        self.met.into_inner().unwrap()
    }

    fn set(&self, now: Now) {
        *self.now.lock().unwrap() = now;
        self.changed.notify_all();
    }

    fn flags(&self, rate: &str) -> [String; 6] {
        let store = format!("disk:{}", self.folder.display());
        [
            "--listen",
            "127.0.0.1:0",
            "--store",
            &store,
            "--session-rate",
            rate,
        ]
        .map(str::to_owned)
    }

    /// Starts a server, which is killed some random time later; now and then one is killed while it
    /// starts, too.
    pub fn live_and_die(&self, rng: &mut Rng) {
        let rate = ["0", "10000", "500", "50"][rng.usize(..4)];
        let flags = self.flags(rate);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        if rng.u8(..8) == 0 {
            let mut starting = command(&flags).spawn().unwrap();
            thread::sleep(Duration::from_micros(rng.u64(..60_000)));
            starting.kill().unwrap();
            starting.wait().unwrap();
        }
        let mut server = Server::spawn(command(&flags));
        self.set(Now {
            port: Some(server.port()),
            ..Now::default()
        });
        // Sometimes after a few events, sometimes after many; but a slow machine need not get so far.
        let most = 1 << rng.u32(1..12);
        let until = self.told.load(Ordering::Relaxed) + rng.u64(..most);
        let start = Instant::now();
        while self.told.load(Ordering::Relaxed) < until
            && start.elapsed() < Duration::from_millis(400)
        {
            thread::sleep(Duration::from_micros(rng.u64(..1000)));
        }
        assert!(server.is_running(), "it ended by itself: {}", server.log());
        drop(server);
        self.set(Now::default());
    }

    /// Starts a server that lives.
    pub fn finish(&self) -> Last<'_> {
        let flags = self.flags("0");
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let server = Server::spawn(command(&flags));
        self.set(Now {
            port: Some(server.port()),
            last: true,
            over: false,
        });
        Last { server, site: self }
    }
}
