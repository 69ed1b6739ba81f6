//! The actor of one WebSocket: reads what its client sends, forwards actions to the room's owner,
//! and closes when it must.
//!
//! It never waits for its socket: whatever its client is to get goes into the outbox, which the
//! transport empties. Every way that it can end drops its `Member`, which takes it out of the room.

mod dialogue;
mod edge;
mod member;
mod source;

use std::{
    mem,
    pin::Pin,
    rc::Rc,
    task::{Context as TaskContext, Poll},
    time::{Duration, Instant},
};

use actix::{fut::ActorFuture, prelude::*};
use actix_web::web::{Bytes, BytesMut};
use actix_ws::CloseCode;
use uuid::Uuid;

pub use self::source::Source;
use self::{
    dialogue::{Dialogue, Overloaded},
    member::Member,
};
use crate::{
    deliver::Underway,
    fanout::Worker,
    framing::{self, Input, Reader},
    ids::RoomName,
    limits::{
        MAX_ACTIONS_UNDERWAY, MAX_BYTES_UNDERWAY, MAX_CLOSE_WAIT, MAX_DISCARDED, MAX_FLUSH,
        MAX_OWN_BYTES, MAX_READ_PAUSE,
    },
    link::{Link, News},
    model::{Events, Model, Received},
    pulse::Alarm,
    rejection::Rejection,
    replica::Asked,
    room::{Join, Listener, Origin, Peer},
    rooms::{
        AcquireError,
        leases::{Leases, Shared},
    },
};

/// The close code of a session whose client has a newer one.
const REPLACED: u16 = 4409;

/// What a session is opened with.
pub struct Opening<M: Model> {
    pub worker: Rc<Worker>,
    pub leases: Rc<Leases<M>>,
    /// By it the session's frames go out.
    pub link: Rc<Link>,
    pub source: Source,
    /// What came with the handshake; may be empty.
    pub came: Bytes,
    pub room: RoomName,
    pub peer: Peer,
}

/// How long to wait before it is seen whether the server takes more by now.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// One WebSocket connection of one client.
pub struct Session<M: Model> {
    link: Rc<Link>,
    worker: Rc<Worker>,
    /// While something has come in and is not read.
    reader: Option<Box<Reader>>,
    dialogue: Dialogue,
    member: Option<Member<M>>,
    /// Actions read and not yet submitted, and the bytes of their messages.
    read: Vec<(Asked<M::Action>, usize)>,
    read_bytes: usize,
    phase: Phase,
    /// Its room was asked for and has not answered.
    entering: bool,
    /// Since when the socket is not read because the room cannot take more.
    paused_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Live,
    /// The server stops: what is underway is finished first.
    Draining,
    /// That is done: what is its own is taken first, until then.
    Flushing {
        until: Instant,
    },
    /// A close frame was sent: the client's is waited for, until then.
    Closing {
        until: Instant,
    },
    /// The same after a breach: nothing that comes can be understood, and only so much is read.
    Discarding {
        until: Instant,
        bytes: usize,
    },
    /// All is said: it is taken first, until then.
    Parting {
        until: Instant,
    },
    Over,
}

impl<M: Model> Session<M> {
    /// Starts the actor of a connection.
    pub fn start_on(opening: Opening<M>) {
        let Opening {
            worker,
            leases,
            link,
            source,
            came,
            room,
            peer,
        } = opening;
        if let Peer::V1 { .. } = peer {
            link.beat();
        }
        let mut session = Self {
            dialogue: Dialogue::new(peer, worker.limits(), Instant::now()),
            link,
            worker,
            reader: None,
            member: None,
            read: Vec::new(),
            read_bytes: 0,
            phase: Phase::Live,
            entering: true,
            paused_at: None,
        };
        if !came.is_empty() {
            session.reader().push(came.into());
        }
        Self::create(|ctx| {
            match leases.held(&room) {
                Some(lease) => session.enter(Ok(lease)),
                None => {
                    let acquire = leases.acquire(room).into_actor(&session);
                    ctx.spawn(acquire.map(|lease, session, _| session.enter(lease)));
                }
            }
            session.beat(ctx);
            ctx.spawn(Serving { source });
            session
        });
    }

    // Entering.

    fn enter(&mut self, lease: Result<Rc<Shared<M>>, AcquireError>) {
        self.entering = false;
        if self.phase != Phase::Live {
            // The peer went, or the server stops.
            return;
        }
        match lease {
            Ok(lease) => {
                let from = self.origin();
                let join = Join::new(from, self.dialogue.peer(), lease.owner(), self.listener());
                // One for each session: the mailbox is bounded by them.
                lease.room().do_send(join);
                let session = from.session;
                self.member = Some(Member { lease, session });
                let received = self.ask(Model::joined);
                self.obey(received, 0);
                self.submit();
            }
            Err(AcquireError::Gone) => self.close(CloseCode::Error),
            Err(err) => {
                self.tell(&Rejection::new("overloaded", err.to_string()));
                self.close(CloseCode::Again);
            }
        }
    }

    // Reading.

    fn reader(&mut self) -> &mut Reader {
        let max_message = self.worker.limits().max_message_bytes;
        let new = || Box::new(Reader::new(max_message));
        self.reader.get_or_insert_with(new)
    }

    /// Takes what is in the reader until it may take no more.
    fn take_messages(&mut self, now: Instant) {
        while self.may_take(now) {
            let Some(reader) = &mut self.reader else {
                break;
            };
            match reader.next_message() {
                Ok(Some(message)) => self.take(message, now),
                Ok(None) => {
                    // An idle session has none.
                    self.reader.take_if(|reader| reader.is_idle());
                    break;
                }
                Err(breach) => {
                    log::debug!("{}: a session is closed: {breach:?}", self.room());
                    self.close(breach.close_code());
                    if let Phase::Closing { until } = self.phase {
                        self.phase = Phase::Discarding { until, bytes: 0 };
                    }
                }
            }
        }
        self.submit();
    }

    fn take(&mut self, message: Input, now: Instant) {
        if matches!(self.phase, Phase::Closing { .. }) {
            if let Input::Close(_) = message {
                self.part(now);
            }
            return;
        }
        match message {
            Input::Text(text) if M::EVENTS == Events::None => self.hear_message(text.into(), now),
            Input::Binary(bytes) if M::EVENTS == Events::None => {
                self.hear_message(bytes.into(), now);
            }
            Input::Text(text) => {
                let overloaded = self.paused_for_too_long(now) && !self.room_takes_more();
                let next = self.link.next_number();
                let overloaded = overloaded.then_some(Overloaded { next });
                match self.dialogue.read::<M>(&text, now, overloaded) {
                    Ok(asked) => self.push_read(asked, text.len()),
                    Err(json) => self.link.push(framing::text(&json)),
                }
            }
            Input::Binary(_) => self.tell(&Rejection::binary_not_allowed()),
            Input::Ping(payload) => self.link.push(framing::pong(&payload)),
            Input::Pong => {}
            Input::Close(code) => {
                self.link.push(framing::close(code));
                self.part(now);
            }
        }
    }

    fn push_read(&mut self, asked: Asked<M::Action>, bytes: usize) {
        let asked = Asked {
            session: Some(self.link.id()),
            name: self.link.name().cloned(),
            ..asked
        };
        self.read_bytes += bytes;
        self.read.push((asked, bytes));
    }

    /// Forwards what was read as one message, so that it shares a batch.
    fn submit(&mut self) {
        if self.read.is_empty() {
            return;
        }
        let actions = mem::take(&mut self.read);
        let bytes = mem::take(&mut self.read_bytes);
        if let Some(member) = &self.member {
            self.link.add_underway(Underway {
                actions: actions.len(),
                bytes,
            });
            member.submit(actions, bytes);
        }
    }

    fn room_takes_more(&self) -> bool {
        let Underway { actions, bytes } = self.link.underway();
        actions + self.read.len() < MAX_ACTIONS_UNDERWAY
            && bytes + self.read_bytes < MAX_BYTES_UNDERWAY
            && !self.server_is_full()
    }

    fn server_is_full(&self) -> bool {
        let member = self.member.as_ref();
        member.is_some_and(|member| member.lease.waiting().is_full())
    }

    fn paused_for_too_long(&self, now: Instant) -> bool {
        self.paused_at.is_some_and(|at| now - at >= MAX_READ_PAUSE)
    }

    /// Whether one more message may be taken, and with it an answer be added to the outbox.
    fn may_take(&mut self, now: Instant) -> bool {
        match self.phase {
            Phase::Closing { .. } => true,
            Phase::Draining
            | Phase::Flushing { .. }
            | Phase::Discarding { .. }
            | Phase::Parting { .. }
            | Phase::Over => false,
            // It is woken when the room answers.
            Phase::Live if self.entering => false,
            Phase::Live if M::EVENTS == Events::None && !self.dialogue.wait(now).is_zero() => {
                self.wake_at(now + self.dialogue.wait(now));
                false
            }
            Phase::Live if self.link.own_bytes() >= MAX_OWN_BYTES => {
                self.wake_at(now + MAX_READ_PAUSE);
                false
            }
            Phase::Live if self.room_takes_more() => {
                self.paused_at = None;
                true
            }
            Phase::Live => {
                let paused_at = *self.paused_at.get_or_insert(now);
                let until = paused_at + MAX_READ_PAUSE;
                // What is committed for others wakes nobody here.
                let look_again = self.server_is_full().then_some(now + LOOK_AGAIN);
                self.wake_at(look_again.map_or(until, |soon| soon.min(until)));
                // Who is told no errors waits.
                M::EVENTS == Events::Json && self.paused_for_too_long(now)
            }
        }
    }

    fn may_read(&mut self, now: Instant) -> bool {
        match self.phase {
            Phase::Discarding { .. } => true,
            // Once, so that a peer that goes is noticed.
            Phase::Live if self.entering => self.reader.is_none(),
            _ => self.may_take(now),
        }
    }

    fn receive(&mut self, input: BytesMut, now: Instant) {
        self.link.heard(self.worker.tick(now));
        match &mut self.phase {
            Phase::Discarding { bytes, .. } => {
                *bytes += input.len();
                if *bytes > MAX_DISCARDED {
                    self.part(now);
                }
            }
            _ => self.reader().push(input),
        }
    }

    // Ending.

    fn hear(&mut self, news: News, now: Instant) {
        match news {
            News::Alarm(Alarm::Ping) => self.link.push(framing::ping()),
            News::Alarm(Alarm::Silent) => {
                log::debug!("{}: a session is silent and taken as gone", self.room());
                self.phase = Phase::Over;
            }
            News::Alarm(Alarm::Slow) => {
                log::debug!("{}: a session takes nothing and is dropped", self.room());
                self.link.clear();
                self.close(CloseCode::Again);
                // What it does not take at once it does not take.
                self.phase = Phase::Parting { until: now };
            }
            News::Cut => self.phase = Phase::Over,
            News::OwnerGone => self.close(CloseCode::Error),
            News::Replaced => self.close(CloseCode::Other(REPLACED)),
            News::Drain if self.phase == Phase::Live => self.phase = Phase::Draining,
            News::Close if matches!(self.phase, Phase::Live | Phase::Draining) => {
                self.phase = Phase::Flushing {
                    until: now + MAX_FLUSH,
                };
            }
            News::Drain | News::Close => {}
        }
    }

    /// Goes on with ending as far as it can.
    fn advance(&mut self, now: Instant) {
        if let Phase::Flushing { until } = self.phase {
            self.wake_at(until);
            if now >= until || !self.link.is_behind() {
                self.close(CloseCode::Restart);
            }
        }
        if let Phase::Closing { until } | Phase::Discarding { until, .. } = self.phase {
            self.wake_at(until);
            if now >= until {
                self.phase = Phase::Over;
            }
        }
        if let Phase::Parting { until } = self.phase {
            self.wake_at(until);
            // The body of the embedded transport goes on by itself.
            if now >= until || !self.link.is_direct() || !self.link.is_behind() {
                self.phase = Phase::Over;
            }
        }
    }

    /// With the direct transport: writes what waits.
    fn poll_write(&mut self, now: Instant, task: &mut TaskContext<'_>) {
        let now = self.worker.tick(now);
        if let Poll::Ready(Err(_)) = self.link.poll_write(now, task) {
            self.phase = Phase::Over;
        }
    }

    /// Goes on then, even if nothing happens.
    fn wake_at(&self, at: Instant) {
        // A tick is cut to the millisecond: woken in the one before, it would wait a whole sweep more.
        let after = at + Duration::from_millis(1);
        self.link.wake_reader_at(Some(self.worker.tick(after)));
    }

    /// Leaves the room, and ends when what is its own is taken.
    fn part(&mut self, now: Instant) {
        self.leave();
        // Nobody will let it in.
        self.link.release();
        self.phase = Phase::Parting {
            until: now + MAX_CLOSE_WAIT,
        };
    }

    /// Leaves the room, says why, and waits for the client's close frame.
    fn close(&mut self, code: CloseCode) {
        if matches!(
            self.phase,
            Phase::Closing { .. } | Phase::Discarding { .. } | Phase::Parting { .. } | Phase::Over
        ) {
            return;
        }
        self.leave();
        let random = Uuid::new_v4().as_u128();
        if let Some(bye) = self.dialogue.bye(code.into(), random) {
            self.link.push(framing::text(&bye));
        }
        self.link.push(framing::close(Some(code)));
        self.link.release();
        let until = Instant::now() + MAX_CLOSE_WAIT;
        self.phase = Phase::Closing { until };
    }

    /// What was read before still counts.
    fn leave(&mut self) {
        if self.member.is_some()
            && let Ok(Received::Act(action)) = self.ask(Model::left)
        {
            self.push_read(dialogue::asked(action), 0);
        }
        self.submit();
        self.worker.leave(&self.link);
        self.member = None;
    }

    /// Which room it is in, for the log.
    fn room(&self) -> String {
        match &self.member {
            Some(member) => format!("room {}", member.lease.name()),
            None => "no room".to_owned(),
        }
    }

    fn tell(&mut self, refused: &Rejection) {
        let json = self.dialogue.error(refused);
        self.link.push(framing::text(&json));
    }
}

impl<M: Model> Actor for Session<M> {
    type Context = Context<Self>;
}

impl<M: Model> Session<M> {
    fn origin(&self) -> Origin {
        Origin {
            worker: self.worker.id(),
            session: self.link.id(),
        }
    }

    fn listener(&self) -> Listener {
        let fanout = self.worker.fanout();
        Listener {
            deliver: fanout.clone().recipient(),
            gone: fanout.clone().recipient(),
        }
    }
}

impl<M: Model> Drop for Session<M> {
    fn drop(&mut self) {
        self.leave();
        self.worker.disconnect(&self.link);
        self.link.end();
    }
}

/// Reads what comes from the client for as long as the session lives, and with the direct transport
/// writes what waits for it.
struct Serving {
    source: Source,
}

impl<M: Model> ActorFuture<Session<M>> for Serving {
    type Output = ();

    fn poll(
        mut self: Pin<&mut Self>,
        session: &mut Session<M>,
        ctx: &mut Context<Session<M>>,
        task: &mut TaskContext<'_>,
    ) -> Poll<()> {
        let now = Instant::now();
        session.link.wake_reader_at(None);
        if let Some(news) = session.link.poll_news(task) {
            session.hear(news, now);
        }
        loop {
            session.take_messages(now);
            let held_up = session.reader.is_some() && !session.may_take(now);
            session.poll_write(now, task);
            session.advance(now);
            session.poll_write(now, task);
            if session.phase == Phase::Over {
                ctx.stop();
                return Poll::Ready(());
            }
            if held_up && session.may_take(now) {
                // What was written made room for what is read already: nothing else may wake it.
                continue;
            }
            let listening = session.may_read(now);
            session.link.set_listening(listening);
            if !listening {
                if let Some(reader) = &mut session.reader {
                    reader.let_go();
                }
                return Poll::Pending;
            }
            match self.source.poll_read(&session.link, task) {
                Poll::Ready(Some(bytes)) => session.receive(bytes, now),
                Poll::Ready(None) => session.part(now),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
