//! One actor per worker thread: hands what a room tells to the sessions that live on its thread.
//!
//! A room sends one [`Deliver`] per batch to each worker that has sessions of it, never one per
//! session. What the sessions, their transports and the fan-out share lives in [`Worker`], which
//! never leaves the thread: no lock, no message, no allocation per session and event.

use std::{
    any::Any,
    cell::{OnceCell, RefCell},
    collections::{HashMap, VecDeque},
    pin::{Pin, pin},
    rc::{Rc, Weak},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context as TaskContext, Poll, Waker},
    time::{Duration, Instant},
};

use actix::{fut::ActorFuture, prelude::*};
use actix_web::web::Bytes;
use tokio::task::yield_now;

use crate::{
    deliver::{Close, Deliver, Drain, Entered, OwnerGone},
    framing,
    ids::{OwnerId, SessionId, WorkerId},
    limits::Limits,
    link::{Link, LocalRoom, News},
    protocol::v1,
    pulse::Tick,
};

/// How many deliveries may wait for a worker; past that each room merges its own.
const MAILBOX: usize = 1024;

/// How many sessions are seen to before the thread looks at its sockets again.
const FLUSHES: usize = 64;

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
                start: Instant::now(),
                beat: framing::text(v1::BEAT),
                sessions: RefCell::default(),
                rooms: RefCell::default(),
                due: RefCell::default(),
                flushing: RefCell::default(),
                kept: OnceCell::new(),
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
    start: Instant,
    /// What sessions of `tallyroom.v1` are sent in silence.
    beat: Bytes,
    sessions: RefCell<HashMap<SessionId, Rc<Link>>>,
    rooms: RefCell<HashMap<OwnerId, Rc<LocalRoom>>>,
    /// Those for whom something waits, each once, and the fan-out's task, which sees to it.
    due: RefCell<VecDeque<Rc<Link>>>,
    flushing: RefCell<Option<Waker>>,
    kept: OnceCell<Rc<dyn Any>>,
}

impl Worker {
    pub fn id(&self) -> WorkerId {
        self.id
    }

    pub fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    /// The time on this worker.
    pub fn tick(&self, now: Instant) -> Tick {
        Tick::new(self.start, now)
    }

    pub fn fanout(&self) -> &Addr<Fanout> {
        &self.fanout
    }

    /// What the sessions of this thread share beside this, made by the first that wants it.
    ///
    /// # Panics
    ///
    /// Where another type was kept before: there is place for one.
    pub fn keep<T: 'static>(&self, make: impl FnOnce() -> T) -> Rc<T> {
        let kept = self.kept.get_or_init(|| Rc::new(make()));
        let kept = kept.clone().downcast();
        kept.expect("the sessions of one server are of one type")
    }

    /// What [`Worker::keep`] keeps; `None` where that is something else, or nothing yet.
    pub fn kept<T: 'static>(&self) -> Option<Rc<T>> {
        self.kept.get()?.clone().downcast().ok()
    }

    /// Makes the link of a new session. It is told nothing before its room lets it in.
    pub fn connect(&self) -> Rc<Link> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = SessionId(NEXT.fetch_add(1, Ordering::Relaxed));
        let link = Rc::new(Link::new(id, self.tick(Instant::now())));
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
                self.flush_soon(link);
            }
        }
        let told = !news.tells.is_empty() || news.missed;
        if (told || news.users.is_some() || news.states.is_some())
            && let Some(room) = self.room(news.owner)
        {
            if told {
                room.push_told(news.tells, news.missed);
            }
            room.push(news.users, news.states);
            for link in room.sessions().iter() {
                self.flush_soon(link);
            }
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
            self.flush_soon(link);
        }
    }

    /// Something waits for a session.
    fn flush_soon(&self, link: &Rc<Link>) {
        if link.set_due() {
            self.due.borrow_mut().push_back(link.clone());
        }
    }

    /// Sees to a few of those for whom something waits; whether there are more.
    fn flush_some(&self) -> bool {
        let now = self.tick(Instant::now());
        for _ in 0..FLUSHES {
            let Some(link) = self.due.borrow_mut().pop_front() else {
                return false;
            };
            link.flush(now);
        }
        !self.due.borrow().is_empty()
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

    fn sweep(&self, now: Tick) {
        for link in self.sessions.borrow().values() {
            if link.sweep(now, &self.limits, &self.beat) {
                self.flush_soon(link);
            }
        }
        if let Some(fanout) = &*self.flushing.borrow() {
            fanout.wake_by_ref();
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
        ctx.run_interval(tick, |Fanout { worker }, _| {
            worker.sweep(worker.tick(Instant::now()));
        });
        ctx.spawn(Flushing);
    }
}

/// Sees to the sessions for whom something waits, a few at a time: in between, the thread reads what
/// came, so that what waits meanwhile goes out in one write.
struct Flushing;

impl ActorFuture<Fanout> for Flushing {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        fanout: &mut Fanout,
        _: &mut Context<Fanout>,
        task: &mut TaskContext<'_>,
    ) -> Poll<()> {
        let mut flushing = fanout.worker.flushing.borrow_mut();
        flushing.get_or_insert_with(|| task.waker().clone());
        drop(flushing);
        if fanout.worker.flush_some() {
            // Woken after the thread has looked at its sockets.
            let _ = pin!(yield_now()).poll(task);
        }
        Poll::Pending
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
