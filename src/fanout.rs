//! One actor per worker thread: hands what a room tells to the sessions that live on its thread.
//!
//! A room sends one [`Deliver`] per batch to each worker that has sessions of it, never one per
//! session. What the sessions, their transports and the fan-out share lives in [`Worker`] and
//! [`Link`], which never leave the thread: no lock, no message, no allocation per session and event.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    mem,
    rc::{Rc, Weak},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context as TaskContext, Poll, Waker},
    time::{Duration, Instant},
};

use actix::prelude::*;
use actix_web::web::Bytes;

use crate::{
    ids::{OwnerId, SessionId, WorkerId},
    limits::Limits,
    outbox::{Outbox, Recent, StateFrames, UsersFrame},
    pulse::{Alarm, Pulse},
};

/// How many deliveries may wait for a worker; past that each room merges its own.
const MAILBOX: usize = 1024;

/// What a room tells the sessions of one worker.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Deliver {
    pub owner: OwnerId,
    /// Sessions that are let in; what follows is for them too.
    pub entered: Vec<Entered>,
    pub answers: Vec<Answer>,
    pub users: Option<UsersFrame>,
    pub states: Option<StateFrames>,
}

/// What a newcomer is told first.
#[derive(Debug)]
pub struct Entered {
    pub session: SessionId,
    pub users: UsersFrame,
    pub state: Bytes,
}

/// What one session is told alone.
#[derive(Debug)]
pub struct Answer {
    pub session: SessionId,
    /// What of its actions is done with, accepted or not.
    pub done: Underway,
    /// May be empty.
    pub frames: Bytes,
}

/// Actions on their way through a room, and the bytes of the messages that asked for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Underway {
    pub actions: usize,
    pub bytes: usize,
}

impl Underway {
    pub fn add(&mut self, other: Self) {
        self.actions += other.actions;
        self.bytes += other.bytes;
    }
}

impl Deliver {
    pub fn new(owner: OwnerId) -> Self {
        Self {
            owner,
            entered: Vec::new(),
            answers: Vec::new(),
            users: None,
            states: None,
        }
    }

    /// Goes on with a later delivery, unless it lets sessions in that must not hear this one.
    ///
    /// # Errors
    ///
    /// The later delivery, which must follow by itself.
    pub fn merge(&mut self, later: Self, max_bytes: usize) -> Result<(), Self> {
        if !later.entered.is_empty() {
            return Err(later);
        }
        for answer in later.answers {
            self.answer(answer);
        }
        self.users = later.users.or(self.users.take());
        self.states = match (self.states.take(), later.states) {
            (Some(mut states), Some(later)) => {
                states.append(later, max_bytes);
                Some(states)
            }
            (states, later) => later.or(states),
        };
        Ok(())
    }

    /// Adds an answer, to the one before it if that is for the same session.
    pub fn answer(&mut self, answer: Answer) {
        match self.answers.last_mut() {
            Some(last) if last.session == answer.session => {
                last.done.add(answer.done);
                if !answer.frames.is_empty() {
                    last.frames = [&last.frames[..], &answer.frames[..]].concat().into();
                }
            }
            _ => self.answers.push(answer),
        }
    }
}

/// A room's owner is gone, and with it what its sessions wait for.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct OwnerGone(pub OwnerId);

/// The server stops: sessions finish what is underway and close.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Drain;

/// The fan-outs of one server, one per worker thread.
#[derive(Default)]
pub struct Fanouts {
    addresses: Mutex<Vec<Addr<Fanout>>>,
    draining: AtomicBool,
}

impl Fanouts {
    /// Tells every session to finish and close; later ones are let in no more.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        for fanout in self.addresses().iter() {
            fanout.do_send(Drain);
        }
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// What the sessions of the present thread share; the first call on a thread starts its
    /// fan-out.
    pub fn worker(self: &Arc<Self>, limits: &Arc<Limits>) -> Rc<Worker> {
        thread_local! {
            static WORKERS: RefCell<Vec<(Weak<Worker>, usize)>> = const { RefCell::new(Vec::new()) };
        }
        let server = Arc::as_ptr(self) as usize;
        WORKERS.with_borrow_mut(|workers| {
            workers.retain(|(worker, _)| worker.strong_count() > 0);
            let known = workers.iter().find(|(_, of)| *of == server);
            if let Some(worker) = known.and_then(|(worker, _)| worker.upgrade()) {
                return worker;
            }
            let worker = self.start_worker(limits);
            workers.push((Rc::downgrade(&worker), server));
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

    fn addresses(&self) -> std::sync::MutexGuard<'_, Vec<Addr<Fanout>>> {
        // A list of addresses is whole between any two operations on it.
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the sessions of one thread share with its fan-out.
pub struct Worker {
    id: WorkerId,
    fanout: Addr<Fanout>,
    limits: Arc<Limits>,
    sessions: RefCell<HashMap<SessionId, Rc<Link>>>,
    rooms: RefCell<HashMap<OwnerId, Rc<RefCell<LocalRoom>>>>,
}

/// A room as one worker sees it.
struct LocalRoom {
    recent: Recent,
    sessions: HashMap<SessionId, Rc<Link>>,
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
        let link = Rc::new(Link {
            id: SessionId(NEXT.fetch_add(1, Ordering::Relaxed)),
            outbox: RefCell::default(),
            room: RefCell::default(),
            underway: Cell::default(),
            pulse: RefCell::new(Pulse::new(Instant::now())),
            listening: Cell::new(true),
            news: Cell::default(),
            wake_at: Cell::default(),
            ended: Cell::new(false),
            reader: RefCell::default(),
            writer: RefCell::default(),
        });
        self.sessions.borrow_mut().insert(link.id, link.clone());
        link
    }

    /// Takes a session out of its room and forgets it; what is its own is still sent.
    pub fn disconnect(&self, link: &Link) {
        self.sessions.borrow_mut().remove(&link.id);
        self.leave(link);
    }

    /// Takes a session out of its room.
    pub fn leave(&self, link: &Link) {
        let Some((owner, room)) = link.room.take() else {
            return;
        };
        let mut local = room.borrow_mut();
        link.outbox.borrow_mut().leave(&mut local.recent);
        local.sessions.remove(&link.id);
        if local.sessions.is_empty() {
            self.rooms.borrow_mut().remove(&owner);
        }
    }

    fn deliver(&self, news: Deliver) {
        for entered in news.entered {
            self.enter(news.owner, entered);
        }
        for answer in news.answers {
            if let Some(link) = self.sessions.borrow().get(&answer.session) {
                link.answer(answer);
            }
        }
        if news.users.is_none() && news.states.is_none() {
            return;
        }
        let Some(room) = self.rooms.borrow().get(&news.owner).cloned() else {
            return;
        };
        let mut local = room.borrow_mut();
        if let Some(users) = news.users {
            local.recent.set_users(users);
        }
        if let Some(states) = news.states {
            let sessions = local.sessions.len();
            local.recent.push_states(states, sessions);
        }
        // Waking only queues the transports' tasks, so that the borrow ends before they run.
        for link in local.sessions.values() {
            link.wake_writer();
        }
    }

    fn enter(&self, owner: OwnerId, entered: Entered) {
        // A session that left meanwhile is not missed.
        let Some(link) = self.sessions.borrow().get(&entered.session).cloned() else {
            return;
        };
        let room = self
            .rooms
            .borrow_mut()
            .entry(owner)
            .or_insert_with(|| {
                Rc::new(RefCell::new(LocalRoom {
                    recent: Recent::new(self.limits.backlog_bytes),
                    sessions: HashMap::new(),
                }))
            })
            .clone();
        let mut local = room.borrow_mut();
        let mut outbox = link.outbox.borrow_mut();
        outbox.enter(&local.recent, entered.users, entered.state);
        *link.room.borrow_mut() = Some((owner, room.clone()));
        link.wake_writer();
        local.sessions.insert(link.id, link.clone());
    }

    fn tell_owner_gone(&self, owner: OwnerId) {
        let Some(room) = self.rooms.borrow().get(&owner).cloned() else {
            return;
        };
        for link in room.borrow().sessions.values() {
            link.tell(News::OwnerGone);
        }
    }

    fn tell_drain(&self) {
        for link in self.sessions.borrow().values() {
            link.tell(News::Drain);
        }
    }

    fn sweep(&self, now: Instant) {
        for link in self.sessions.borrow().values() {
            link.sweep(now, &self.limits);
        }
    }
}

/// What a session, its transport and the fan-out share.
pub struct Link {
    id: SessionId,
    outbox: RefCell<Outbox>,
    room: RefCell<Option<(OwnerId, Rc<RefCell<LocalRoom>>)>>,
    underway: Cell<Underway>,
    pulse: RefCell<Pulse>,
    listening: Cell<bool>,
    news: Cell<Option<News>>,
    wake_at: Cell<Option<Instant>>,
    ended: Cell<bool>,
    reader: RefCell<Option<Waker>>,
    writer: RefCell<Option<Waker>>,
}

/// What a session is told beside what its client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    Alarm(Alarm),
    OwnerGone,
    Drain,
    /// The connection is gone.
    Cut,
}

impl Link {
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// For the transport: the next frames to write, or the end of the connection.
    pub fn poll_frames(&self, task: &mut TaskContext<'_>) -> Poll<Option<Bytes>> {
        let next = self.next_frames();
        if next.is_some() {
            self.pulse.borrow_mut().took(Instant::now());
            return Poll::Ready(next);
        }
        if self.ended.get() {
            return Poll::Ready(None);
        }
        remember(&self.writer, task);
        // A session that waits for everything to be taken goes on now.
        if self.wake_at.get().is_some() {
            self.wake_reader();
        }
        Poll::Pending
    }

    fn next_frames(&self) -> Option<Bytes> {
        let mut outbox = self.outbox.borrow_mut();
        match &*self.room.borrow() {
            Some((_, room)) => outbox.next(&mut room.borrow_mut().recent),
            None => outbox.next_own(),
        }
    }

    /// For the transport: the connection is gone.
    pub fn cut(&self) {
        self.news.set(Some(News::Cut));
        self.wake_reader();
    }

    /// Whether something waits to be written.
    pub fn is_behind(&self) -> bool {
        let outbox = self.outbox.borrow();
        match &*self.room.borrow() {
            Some((_, room)) => outbox.is_behind(&room.borrow().recent),
            None => outbox.own_bytes() > 0,
        }
    }

    /// Bytes of answers for this session alone that wait to be written.
    pub fn own_bytes(&self) -> usize {
        self.outbox.borrow().own_bytes()
    }

    /// Sends frames to this session alone.
    pub fn push(&self, frames: Bytes) {
        self.outbox.borrow_mut().push_own(frames);
        self.wake_writer();
    }

    /// Throws away what waits for this session alone.
    pub fn clear(&self) {
        self.outbox.borrow_mut().clear_own();
    }

    /// The connection ends when what is its own is written.
    pub fn end(&self) {
        self.ended.set(true);
        self.wake_writer();
    }

    pub fn underway(&self) -> Underway {
        self.underway.get()
    }

    /// More of its actions are on their way.
    pub fn add_underway(&self, more: Underway) {
        let mut underway = self.underway.get();
        underway.add(more);
        self.underway.set(underway);
    }

    /// The peer sent something.
    pub fn heard(&self, now: Instant) {
        self.pulse.borrow_mut().heard(now);
    }

    /// Whether its socket is being read, so that silence is the peer's.
    pub fn set_listening(&self, listening: bool) {
        self.listening.set(listening);
    }

    /// The session wants to be polled then, even if nothing happens; `None`: no more.
    pub fn wake_reader_at(&self, at: Option<Instant>) {
        self.wake_at.set(at);
    }

    /// For the session: what happened since it was polled last. Its task is woken by the next.
    pub fn poll_news(&self, task: &mut TaskContext<'_>) -> Option<News> {
        remember(&self.reader, task);
        self.news.take()
    }

    fn tell(&self, news: News) {
        // An alarm does not take the place of news that end the session.
        if matches!(self.news.get(), None | Some(News::Alarm(_))) {
            self.news.set(Some(news));
        }
        self.wake_reader();
    }

    fn answer(&self, answer: Answer) {
        let Underway { actions, bytes } = self.underway.get();
        self.underway.set(Underway {
            actions: actions.saturating_sub(answer.done.actions),
            bytes: bytes.saturating_sub(answer.done.bytes),
        });
        if !answer.frames.is_empty() {
            self.push(answer.frames);
        }
        if !self.listening.get() {
            self.wake_reader();
        }
    }

    fn sweep(&self, now: Instant, limits: &Limits) {
        let behind = self.is_behind();
        let listening = self.listening.get();
        let alarm = self
            .pulse
            .borrow_mut()
            .check(now, behind, listening, limits);
        if let Some(alarm) = alarm {
            self.tell(News::Alarm(alarm));
        }
        if self.wake_at.get().is_some_and(|at| at <= now) {
            self.wake_reader();
        }
    }

    fn wake_reader(&self) {
        wake(&self.reader);
    }

    fn wake_writer(&self) {
        wake(&self.writer);
    }
}

fn remember(slot: &RefCell<Option<Waker>>, task: &TaskContext<'_>) {
    let mut slot = slot.borrow_mut();
    match &*slot {
        Some(waker) if waker.will_wake(task.waker()) => {}
        _ => *slot = Some(task.waker().clone()),
    }
}

fn wake(slot: &RefCell<Option<Waker>>) {
    let waker = mem::take(&mut *slot.borrow_mut());
    if let Some(waker) = waker {
        waker.wake();
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

    fn handle(&mut self, OwnerGone(owner): OwnerGone, _: &mut Self::Context) {
        self.worker.tell_owner_gone(owner);
    }
}

impl Handler<Drain> for Fanout {
    type Result = ();

    fn handle(&mut self, _: Drain, _: &mut Self::Context) {
        self.worker.tell_drain();
    }
}
