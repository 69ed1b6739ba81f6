//! One actor per worker thread: hands what a room tells to the sessions that live on its thread.
//!
//! A room sends one [`Deliver`] per batch to each worker that has sessions of it, never one per
//! session. What the sessions, their transports and the fan-out share lives in [`Worker`], which
//! never leaves the thread: no lock, no message, no allocation per session and event.

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::{Rc, Weak},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use actix::prelude::*;

use crate::{
    deliver::{Close, Deliver, Drain, Entered, OwnerGone},
    ids::{OwnerId, SessionId, WorkerId},
    limits::Limits,
    link::{Link, LocalRoom, News},
};

/// How many deliveries may wait for a worker; past that each room merges its own.
const MAILBOX: usize = 1024;

/// The fan-outs of one server, one per worker thread.
pub struct Fanouts {
    /// Tells the servers of one process apart.
    server: u64,
    addresses: Mutex<Vec<Addr<Fanout>>>,
    draining: AtomicBool,
}

impl Fanouts {
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            server: NEXT.fetch_add(1, Ordering::Relaxed),
            addresses: Mutex::default(),
            draining: AtomicBool::new(false),
        }
    }

    /// Lets no further sessions in, and no further actions of those that are; resolves when none
    /// can come any more.
    pub async fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        let told: Vec<_> = self
            .addresses()
            .iter()
            .map(|fanout| fanout.send(Drain))
            .collect();
        for told in told {
            // A worker that died has no sessions.
            let _ = told.await;
        }
    }

    /// Closes every session when it took what is its own.
    pub fn close(&self) {
        for fanout in self.addresses().iter() {
            fanout.do_send(Close);
        }
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// What the sessions of the present thread share; the first call on a thread starts its
    /// fan-out.
    pub fn worker(&self, limits: &Arc<Limits>) -> Rc<Worker> {
        thread_local! {
            static WORKERS: RefCell<Vec<(u64, Weak<Worker>)>> = const { RefCell::new(Vec::new()) };
        }
        WORKERS.with_borrow_mut(|workers| {
            workers.retain(|(_, worker)| worker.strong_count() > 0);
            let known = workers.iter().find(|(server, _)| *server == self.server);
            if let Some(worker) = known.and_then(|(_, worker)| worker.upgrade()) {
                return worker;
            }
            let worker = self.start_worker(limits);
            workers.push((self.server, Rc::downgrade(&worker)));
            worker
        })
    }

    fn start_worker(&self, limits: &Arc<Limits>) -> Rc<Worker> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut started = None;
        let address = Fanout::create(|ctx| {
            ctx.set_mailbox_capacity(MAILBOX);
            let worker = Rc::new(Worker {
                id: WorkerId(NEXT.fetch_add(1, Ordering::Relaxed)),
                fanout: ctx.address(),
                limits: limits.clone(),
                sessions: RefCell::default(),
                rooms: RefCell::default(),
            });
            started = Some(worker.clone());
            Fanout { worker }
        });
        self.addresses().push(address);
        started.expect("an actor is made before `create` returns")
    }

    fn addresses(&self) -> MutexGuard<'_, Vec<Addr<Fanout>>> {
        // A list of addresses is whole between any two operations on it.
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Fanouts {
    fn default() -> Self {
        Self::new()
    }
}

/// What the sessions of one thread share with its fan-out.
pub struct Worker {
    id: WorkerId,
    fanout: Addr<Fanout>,
    limits: Arc<Limits>,
    sessions: RefCell<HashMap<SessionId, Rc<Link>>>,
    rooms: RefCell<HashMap<OwnerId, Rc<LocalRoom>>>,
}

impl Worker {
    pub fn id(&self) -> WorkerId {
        self.id
    }

    pub fn fanout(&self) -> &Addr<Fanout> {
        &self.fanout
    }

    /// Makes the link of a new session. It is told nothing before its room lets it in.
    pub fn connect(&self) -> Rc<Link> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = SessionId(NEXT.fetch_add(1, Ordering::Relaxed));
        let link = Rc::new(Link::new(id, Instant::now()));
        self.sessions.borrow_mut().insert(id, link.clone());
        link
    }

    /// Takes a session out of its room and forgets it; what is its own is still sent.
    pub fn disconnect(&self, link: &Link) {
        self.sessions.borrow_mut().remove(&link.id());
        self.leave(link);
    }

    /// Takes a session out of its room.
    pub fn leave(&self, link: &Link) {
        if let Some(room) = LocalRoom::leave(link)
            && room.is_empty()
        {
            self.rooms.borrow_mut().remove(&room.owner());
        }
    }

    fn room(&self, owner: OwnerId) -> Option<Rc<LocalRoom>> {
        self.rooms.borrow().get(&owner).cloned()
    }

    fn deliver(&self, news: Deliver) {
        for replaced in news.replaced {
            if let Some(link) = self.sessions.borrow().get(&replaced) {
                link.tell(News::Replaced);
            }
        }
        for entered in news.entered {
            self.enter(news.owner, entered);
        }
        for answer in news.answers {
            if let Some(link) = self.sessions.borrow().get(&answer.session) {
                link.answer(answer);
            }
        }
        if (news.users.is_some() || news.states.is_some())
            && let Some(room) = self.room(news.owner)
        {
            room.publish(news.users, news.states);
        }
    }

    fn enter(&self, owner: OwnerId, entered: Entered) {
        // One that left meanwhile stays out: nothing may follow its close frame.
        if let Some(link) = self.sessions.borrow().get(&entered.session)
            && !link.has_left()
        {
            let mut rooms = self.rooms.borrow_mut();
            let room = rooms
                .entry(owner)
                .or_insert_with(|| Rc::new(LocalRoom::new(owner, self.limits.backlog_bytes)));
            room.enter(link, entered);
        }
    }

    fn tell_owner_gone(&self, OwnerGone { owner, waiting }: &OwnerGone) {
        if let Some(room) = self.room(*owner) {
            room.tell(News::OwnerGone);
        }
        let sessions = self.sessions.borrow();
        for link in waiting.iter().filter_map(|session| sessions.get(session)) {
            link.tell(News::OwnerGone);
        }
    }

    fn tell_all(&self, news: News) {
        for link in self.sessions.borrow().values() {
            link.tell(news);
        }
    }

    fn sweep(&self, now: Instant) {
        for link in self.sessions.borrow().values() {
            link.sweep(now, &self.limits);
        }
    }
}

/// The actor of one worker thread.
pub struct Fanout {
    worker: Rc<Worker>,
}

impl Actor for Fanout {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let limits = &self.worker.limits;
        let shortest = [limits.heartbeat, limits.slow_timeout]
            .into_iter()
            .flatten()
            .min();
        let tick = shortest.unwrap_or(Duration::MAX) / 8;
        let tick = tick.clamp(Duration::from_millis(10), Duration::from_millis(500));
        ctx.run_interval(tick, |fanout, _| fanout.worker.sweep(Instant::now()));
    }
}

impl Handler<Deliver> for Fanout {
    type Result = ();

    fn handle(&mut self, news: Deliver, _: &mut Self::Context) {
        self.worker.deliver(news);
    }
}

impl Handler<OwnerGone> for Fanout {
    type Result = ();

    fn handle(&mut self, gone: OwnerGone, _: &mut Self::Context) {
        self.worker.tell_owner_gone(&gone);
    }
}

impl Handler<Drain> for Fanout {
    type Result = ();

    fn handle(&mut self, _: Drain, _: &mut Self::Context) {
        self.worker.tell_all(News::Drain);
    }
}

impl Handler<Close> for Fanout {
    type Result = ();

    fn handle(&mut self, _: Close, _: &mut Self::Context) {
        self.worker.tell_all(News::Close);
    }
}
