//! What ties a session to its transport and to its worker's fan-out.
//!
//! A [`Link`] and a [`LocalRoom`] live on one thread and never leave it: the fan-out puts frames in,
//! the transport takes them out, the session is woken. No borrow is held while a task runs.

mod wire;

use std::{
    cell::{Cell, OnceCell, Ref, RefCell},
    collections::HashMap,
    io, mem,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use actix_web::web::{Bytes, BytesMut};

use self::wire::{Io, Wire};
use crate::{
    deliver::{Answer, Entered, Underway},
    framing,
    ids::{Name, OwnerId, SessionId},
    limits::Limits,
    limits::MAX_TOLD_BYTES,
    outbox::{Among, Outbox, Recent, States, TellFrame, UsersFrame, Whom},
    pulse::{Alarm, Pulse, Tick},
};

/// What a session, its transport and the fan-out share.
pub struct Link {
    id: SessionId,
    /// Boxed, since most have none.
    name: OnceCell<Box<Name>>,
    outbox: RefCell<Outbox>,
    room: RefCell<Option<Rc<LocalRoom>>>,
    /// Where it is in the room's list.
    seat: Cell<usize>,
    transport: RefCell<Transport>,
    hold: Cell<Hold>,
    /// It stands in its worker's list of those to be written to.
    due: Cell<bool>,
    underway: Cell<Underway>,
    /// The number that the room takes next, as far as it said.
    next: Cell<u64>,
    pulse: Cell<Pulse>,
    /// Whether it is sent something in silence.
    beats: Cell<bool>,
    listening: Cell<bool>,
    news: Cell<Option<News>>,
    wake_at: Cell<Option<Tick>>,
    left: Cell<bool>,
    ended: Cell<bool>,
    reader: RefCell<Option<Waker>>,
}

/// Whether the answer to the handshake waits until the session is in its room: whoever is connected
/// hears all that is told from then on, and with the direct transport one write says all.
#[derive(Clone, Copy, Debug)]
struct Hold {
    held: bool,
    /// A sweep of the worker came by while it was held.
    was_swept: bool,
}

impl Hold {
    /// It waits no more; whether it did.
    fn release(&mut self) -> bool {
        mem::take(&mut self.held)
    }

    /// A sweep of the worker comes by: who waits since before the last waits no more, whatever for.
    /// Whether it did.
    fn sweep(&mut self) -> bool {
        let waited = mem::replace(&mut self.was_swept, true);
        waited && self.release()
    }
}

/// What carries the frames.
enum Transport {
    /// The embedded one: its task, where that waits for frames, or to answer the handshake.
    Embedded(Option<Waker>),
    /// The direct one: the connection.
    Direct(Wire),
}

/// What a session is told beside what its client is told; of what it has yet to hear, the later in
/// this list counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum News {
    Alarm(Alarm),
    /// The server stops: no further actions.
    Drain,
    /// What was underway is told: take what is left, and close.
    Close,
    OwnerGone,
    /// Its client has a newer session.
    Replaced,
    /// The connection is gone.
    Cut,
}

impl Link {
    pub fn new(id: SessionId, now: Tick) -> Self {
        Self {
            id,
            name: OnceCell::new(),
            outbox: RefCell::default(),
            room: RefCell::default(),
            seat: Cell::default(),
            transport: RefCell::new(Transport::Embedded(None)),
            hold: Cell::new(Hold {
                held: true,
                was_swept: false,
            }),
            due: Cell::new(false),
            underway: Cell::default(),
            next: Cell::new(1),
            pulse: Cell::new(Pulse::new(now)),
            beats: Cell::new(false),
            listening: Cell::new(true),
            news: Cell::default(),
            wake_at: Cell::default(),
            left: Cell::new(false),
            ended: Cell::new(false),
            reader: RefCell::default(),
        }
    }

    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The name that its client bears in the room.
    pub fn name(&self) -> Option<&Name> {
        self.name.get().map(AsRef::as_ref)
    }

    /// Before it enters a room: under which name. The first counts.
    pub fn set_name(&self, name: Name) {
        self.name.get_or_init(|| name.into());
    }

    /// For the embedded transport: the next frames to write, or the end of the connection.
    pub fn poll_frames(&self, now: Tick, task: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(frames) = self.next_frames() {
            self.took(now, !framing::is_control(&frames));
            return Poll::Ready(Some(frames));
        }
        if self.ended.get() {
            return Poll::Ready(None);
        }
        if let Transport::Embedded(waker) = &mut *self.transport.borrow_mut() {
            remember(waker, task);
        }
        // A session that waits for everything to be taken goes on now.
        if self.wake_at.get().is_some() {
            self.wake_reader();
        }
        Poll::Pending
    }

    fn next_frames(&self) -> Option<Bytes> {
        let mut outbox = self.outbox.borrow_mut();
        let room = self.room.borrow();
        let mut recent = room.as_ref().map(|room| room.recent.borrow_mut());
        outbox.next(recent.as_deref_mut())
    }

    /// For the embedded transport: the connection is gone.
    pub fn cut(&self) {
        self.tell(News::Cut);
    }

    /// For the embedded transport: whether the handshake may be answered.
    pub fn poll_released(&self, task: &mut Context<'_>) -> Poll<()> {
        if !self.hold.get().held || self.ended.get() {
            return Poll::Ready(());
        }
        if let Transport::Embedded(waker) = &mut *self.transport.borrow_mut() {
            remember(waker, task);
        }
        Poll::Pending
    }

    /// For the direct transport: gives the connection, to which nothing is written before the session is
    /// in its room or [`Link::release`] is called.
    pub fn take_over(&self, io: Box<dyn Io>) {
        *self.transport.borrow_mut() = Transport::Direct(Wire::new(io));
    }

    /// Whether the transport is the direct one.
    pub fn is_direct(&self) -> bool {
        matches!(&*self.transport.borrow(), Transport::Direct(_))
    }

    /// The handshake may be answered, and what waits be written, in the room or not.
    pub fn release(&self) {
        let mut hold = self.hold.get();
        if hold.release() {
            self.wake_writer();
        }
        self.hold.set(hold);
    }

    /// For the direct transport: reads what is there into the buffer, which is grown by that; 0 bytes at
    /// the end of the connection.
    pub fn poll_read(
        &self,
        input: &mut BytesMut,
        task: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match &mut *self.transport.borrow_mut() {
            Transport::Direct(wire) => wire.poll_read(input, task),
            Transport::Embedded(_) => Poll::Ready(Ok(0)),
        }
    }

    /// For the direct transport: writes what waits, as far as the connection takes it. Where it takes no
    /// more, the task is woken when it does.
    pub fn poll_write(&self, now: Tick, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Transport::Direct(wire) = &mut *self.transport.borrow_mut() else {
            return Poll::Ready(Ok(()));
        };
        if self.hold.get().held {
            return Poll::Pending;
        }
        let mut outbox = self.outbox.borrow_mut();
        let room = self.room.borrow();
        let mut recent = room.as_ref().map(|room| room.recent.borrow_mut());
        let (written, done) = wire.poll_write(&mut outbox, recent.as_deref_mut(), task);
        if written.bytes > 0 {
            self.took(now, written.message);
        }
        done
    }

    /// The peer took something, perhaps a message.
    fn took(&self, now: Tick, message: bool) {
        let mut pulse = self.pulse.get();
        pulse.took(now);
        if message {
            pulse.told(now);
        }
        self.pulse.set(pulse);
    }

    /// For the fan-out: what waits is written, by it where the transport is the direct one, else by the
    /// transport's task, which is woken.
    ///
    /// What the connection does not take the session's task writes when it does.
    pub fn flush(&self, now: Tick) {
        self.due.set(false);
        if !self.is_direct() {
            self.wake_writer();
        } else if self.write(now).is_err() {
            self.tell(News::Cut);
        }
    }

    fn write(&self, now: Tick) -> io::Result<()> {
        if self.is_blocked() {
            return Ok(());
        }
        // A session that is woken already writes by itself.
        if let Some(waker) = &*self.reader.borrow()
            && let Poll::Ready(written) = self.poll_write(now, &mut Context::from_waker(waker))
        {
            return written;
        }
        Ok(())
    }

    /// Takes note that something waits; false where that was noted already.
    pub fn set_due(&self) -> bool {
        !self.due.replace(true)
    }

    /// With the direct transport: whether nothing can be written now.
    fn is_blocked(&self) -> bool {
        match &*self.transport.borrow() {
            Transport::Direct(wire) => self.hold.get().held || wire.is_blocked(),
            Transport::Embedded(_) => false,
        }
    }

    /// Whether something waits to be written, be it in the connection itself.
    pub fn is_behind(&self) -> bool {
        if self.is_blocked() {
            return true;
        }
        let room = self.room.borrow();
        let recent = room.as_ref().map(|room| room.recent.borrow());
        self.outbox.borrow().is_behind(recent.as_deref())
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

    /// A message of the model's own, where the session takes only the newest of what the room tells.
    fn push_told(&self, frame: &Bytes) {
        let mut outbox = self.outbox.borrow_mut();
        if outbox.takes_every() {
            return;
        }
        outbox.push_own(frame.clone());
        if outbox.own_bytes() > MAX_TOLD_BYTES {
            drop(outbox);
            self.tell(News::Alarm(Alarm::Slow));
        }
    }

    /// Sends a sign of life from now on whenever nothing else was sent for a heartbeat.
    pub fn beat(&self) {
        self.beats.set(true);
    }

    /// Throws away what waits for this session alone and is not half written.
    pub fn clear(&self) {
        self.outbox.borrow_mut().clear_own();
    }

    /// The connection ends: the embedded transport's when what is its own is written.
    pub fn end(&self) {
        self.ended.set(true);
        match self.transport.replace(Transport::Embedded(None)) {
            Transport::Embedded(mut waker) => wake(&mut waker),
            Transport::Direct(wire) => wire.end(),
        }
    }

    /// Whether it left its room, perhaps before it was let in: nothing more of a room is for it.
    pub fn has_left(&self) -> bool {
        self.left.get()
    }

    /// The lowest of its client's numbers that the room did not say to be settled.
    pub fn next_number(&self) -> u64 {
        self.next.get()
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
    pub fn heard(&self, now: Tick) {
        let mut pulse = self.pulse.get();
        pulse.heard(now);
        self.pulse.set(pulse);
    }

    /// Whether its socket is being read, so that silence is the peer's.
    pub fn set_listening(&self, listening: bool) {
        self.listening.set(listening);
    }

    /// The session wants to be polled then, even if nothing happens; `None`: no more.
    pub fn wake_reader_at(&self, at: Option<Tick>) {
        self.wake_at.set(at);
    }

    /// For the session: what happened since it was polled last. Its task is woken by the next.
    pub fn poll_news(&self, task: &mut Context<'_>) -> Option<News> {
        remember(&mut self.reader.borrow_mut(), task);
        self.news.take()
    }

    /// Tells the session, whose task is woken.
    pub fn tell(&self, news: News) {
        self.news.set(self.news.get().max(Some(news)));
        self.wake_reader();
    }

    /// What the room answers to this session alone.
    pub fn answer(&self, answer: Answer) {
        let Underway { actions, bytes } = self.underway.get();
        self.underway.set(Underway {
            actions: actions.saturating_sub(answer.done.actions),
            bytes: bytes.saturating_sub(answer.done.bytes),
        });
        if let Some(next) = answer.next {
            self.next.set(next);
        }
        if !answer.frames.is_empty() {
            self.push(answer.frames);
        }
        if !self.listening.get() {
            self.wake_reader();
        }
    }

    /// Looks whether something is due: an alarm, or the time that the session waits for. Whether
    /// something waits to be written because of that.
    pub fn sweep(&self, now: Tick, limits: &Limits, beat: &Bytes) -> bool {
        let mut hold = self.hold.get();
        let released = hold.sweep();
        self.hold.set(hold);
        let behind = self.is_behind();
        let listening = self.listening.get();
        let mut pulse = self.pulse.get();
        let alarm = pulse.check(now, behind, listening, limits);
        let beats = self.beats.get() && !behind && pulse.beat_due(now, limits);
        self.pulse.set(pulse);
        if beats {
            self.push(beat.clone());
        }
        if let Some(alarm) = alarm {
            self.tell(News::Alarm(alarm));
        }
        if self.wake_at.get().is_some_and(|at| at.is_past(now)) {
            self.wake_reader();
        }
        released || beats
    }

    fn wake_reader(&self) {
        wake(&mut self.reader.borrow_mut());
    }

    fn wake_writer(&self) {
        if let Transport::Embedded(waker) = &mut *self.transport.borrow_mut() {
            wake(waker);
        }
    }
}

/// A room as one worker sees it: its recent frames and its sessions there.
///
/// It and the links of its sessions hold each other, until each session leaves.
pub struct LocalRoom {
    owner: OwnerId,
    recent: RefCell<Recent>,
    sessions: RefCell<Vec<Rc<Link>>>,
    /// Who bears which name, of those who bear one.
    names: RefCell<HashMap<Name, Vec<SessionId>>>,
}

impl LocalRoom {
    pub fn new(owner: OwnerId, backlog_bytes: Option<usize>) -> Self {
        Self {
            owner,
            recent: RefCell::new(Recent::new(backlog_bytes)),
            sessions: RefCell::default(),
            names: RefCell::default(),
        }
    }

    pub fn owner(&self) -> OwnerId {
        self.owner
    }

    pub fn is_empty(&self) -> bool {
        self.sessions.borrow().is_empty()
    }

    pub fn sessions(&self) -> Ref<'_, [Rc<Link>]> {
        Ref::map(self.sessions.borrow(), Vec::as_slice)
    }

    /// Lets a session in: it is told what a newcomer is told, and then all that follows.
    pub fn enter(self: &Rc<Self>, link: &Rc<Link>, entered: Entered) {
        let mut outbox = link.outbox.borrow_mut();
        if !entered.welcome.is_empty() {
            outbox.push_own(entered.welcome);
        }
        link.next.set(entered.next);
        let mut recent = self.recent.borrow_mut();
        let Entered {
            takes,
            users,
            state,
            ..
        } = entered;
        outbox.enter(&mut recent, link.id, takes, users, state);
        if let Some(name) = link.name() {
            let mut names = self.names.borrow_mut();
            names.entry(name.clone()).or_default().push(link.id);
        }
        *link.room.borrow_mut() = Some(self.clone());
        let mut sessions = self.sessions.borrow_mut();
        link.seat.set(sessions.len());
        sessions.push(link.clone());
        link.release();
    }

    /// Takes a session out of the room that it is in, and gives that room.
    pub fn leave(link: &Link) -> Option<Rc<Self>> {
        link.left.set(true);
        let room = link.room.take()?;
        let mut recent = room.recent.borrow_mut();
        link.outbox.borrow_mut().leave(&mut recent);
        drop(recent);
        let mut sessions = room.sessions.borrow_mut();
        let seat = link.seat.get();
        sessions.swap_remove(seat);
        if let Some(moved) = sessions.get(seat) {
            moved.seat.set(seat);
        }
        if sessions.len() < sessions.capacity() / 4 {
            sessions.shrink_to_fit();
        }
        drop(sessions);
        if let Some(name) = link.name() {
            room.forget_name(name, link.id);
        }
        Some(room)
    }

    fn forget_name(&self, name: &Name, session: SessionId) {
        let mut names = self.names.borrow_mut();
        if let Some(bearers) = names.get_mut(name) {
            bearers.retain(|bearer| *bearer != session);
            if bearers.is_empty() {
                names.remove(name);
            }
        }
    }

    /// Has messages of the model's own, in order; no session is woken by this but those that missed some.
    ///
    /// `missed`: so did all that are in.
    pub fn push_told(&self, tells: Vec<TellFrame>, missed: bool) {
        let sessions = self.sessions.borrow();
        let mut recent = self.recent.borrow_mut();
        for TellFrame { to, frame } in tells {
            let to = self.among(to);
            for link in sessions.iter().filter(|link| to.includes(link.id)) {
                link.push_told(&frame);
            }
            recent.push_told(to, frame);
        }
        for link in sessions.iter() {
            if missed || link.outbox.borrow().has_missed(&recent) {
                link.tell(News::Alarm(Alarm::Slow));
            }
        }
    }

    /// Which sessions of this worker that means.
    fn among(&self, to: Whom) -> Among {
        let bearers = |name: &Name| self.names.borrow().get(name).cloned().unwrap_or_default();
        match to {
            Whom::Everyone => Among::Everyone,
            Whom::Only(session) => Among::Only(vec![session]),
            Whom::AllBut(session) => Among::AllBut(vec![session]),
            Whom::Named(name) => Among::Only(bearers(&name)),
            Whom::NotNamed(name) => Among::AllBut(bearers(&name)),
        }
    }

    /// Has something for every session, none of which is woken by this.
    pub fn push(&self, users: Option<UsersFrame>, states: Option<States>) {
        let mut recent = self.recent.borrow_mut();
        if let Some(users) = users {
            recent.push_users(users);
        }
        if let Some(states) = states {
            recent.push_states(states);
        }
    }

    pub fn tell(&self, news: News) {
        for link in self.sessions.borrow().iter() {
            link.tell(news);
        }
    }
}

fn remember(slot: &mut Option<Waker>, task: &Context<'_>) {
    match slot {
        Some(waker) if waker.will_wake(task.waker()) => {}
        _ => *slot = Some(task.waker().clone()),
    }
}

/// Waking only queues a task: nothing runs before this returns.
fn wake(slot: &mut Option<Waker>) {
    if let Some(waker) = slot.take() {
        waker.wake();
    }
}
