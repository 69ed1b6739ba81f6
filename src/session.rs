//! The actor of one WebSocket: reads what its client sends, forwards actions to the room's owner,
//! and closes when it must.
//!
//! It never waits for its socket: whatever its client is to get goes into the outbox, which the
//! transport empties. Every way that it can end drops its `Member`, which takes it out of the room.

mod dialogue;

use std::{
    mem,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context as TaskContext, Poll},
    time::{Duration, Instant},
};

use actix::{fut::ActorFuture, prelude::*};
use actix_web::web::Bytes;
use actix_ws::CloseCode;
use futures_util::{Stream, stream::LocalBoxStream};
use uuid::Uuid;

use self::dialogue::{Dialogue, Overloaded};
use crate::{
    deliver::Underway,
    fanout::Worker,
    framing::{self, Message as Input, Reader},
    ids::RoomName,
    limits::{
        Limits, MAX_ACTIONS_UNDERWAY, MAX_BYTES_UNDERWAY, MAX_CLOSE_WAIT, MAX_DISCARDED, MAX_FLUSH,
        MAX_OWN_BYTES, MAX_READ_PAUSE,
    },
    link::{Link, News},
    model::Model,
    protocol::{self, v1},
    pulse::Alarm,
    rejection::Rejection,
    replica::Asked,
    room::{Join, Leave, Listener, Origin, Seat, Submit},
    rooms::{Acquire, AcquireError, Lease, Rooms},
};

/// What a client sends, as it comes from its socket; it ends when the socket does.
pub type Socket = LocalBoxStream<'static, Bytes>;

/// The close code of a session whose client has a newer one.
const REPLACED: u16 = 4409;

/// What a session is opened with.
pub struct Opening {
    pub worker: Rc<Worker>,
    /// By it the session's frames go out.
    pub link: Rc<Link>,
    pub limits: Arc<Limits>,
    pub room: RoomName,
    pub seat: Seat,
}

/// How long to wait before it is seen whether the server takes more by now.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// One WebSocket connection of one client.
pub struct Session<M: Model> {
    link: Rc<Link>,
    worker: Rc<Worker>,
    rooms: Addr<Rooms<M>>,
    room: RoomName,
    socket: Option<Socket>,
    reader: Reader,
    dialogue: Dialogue,
    member: Option<Member<M>>,
    /// Actions read and not yet submitted, and the bytes of their messages.
    read: Vec<(Asked<M::Action>, usize)>,
    read_bytes: usize,
    phase: Phase,
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
    Over,
}

impl<M: Model> Session<M> {
    /// Starts the actor of a connection.
    pub fn start_on(opening: Opening, rooms: Addr<Rooms<M>>, socket: Socket) {
        let Opening {
            worker,
            link,
            limits,
            room,
            seat,
        } = opening;
        if let Seat::V1 { .. } = seat {
            link.set_beat(framing::text(v1::BEAT));
        }
        let session = Self {
            link,
            worker,
            rooms,
            room,
            socket: Some(socket),
            reader: Reader::new(limits.max_message_bytes),
            dialogue: Dialogue::new(seat, &limits, Instant::now()),
            member: None,
            read: Vec::new(),
            read_bytes: 0,
            phase: Phase::Live,
            paused_at: None,
        };
        session.start();
    }

    // Entering.

    fn entered(&mut self, entered: Result<Member<M>, EnterError>, ctx: &mut Context<Self>) {
        match entered {
            Ok(member) => self.member = Some(member),
            Err(EnterError::Full(err)) => {
                self.tell(&Rejection::new("overloaded", err.to_string()));
                self.close(CloseCode::Again);
            }
            Err(EnterError::OwnerGone) => self.close(CloseCode::Error),
        }
        if let Some(socket) = self.socket.take() {
            ctx.spawn(Reading { socket });
        }
    }

    // Reading.

    /// Takes what is in the reader until it may take no more.
    fn take_messages(&mut self, now: Instant) {
        while self.may_take(now) {
            match self.reader.next_message() {
                Ok(Some(message)) => self.take(message, now),
                Ok(None) => break,
                Err(breach) => {
                    log::debug!("room {}: a session is closed: {breach:?}", self.room);
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
                self.phase = Phase::Over;
            }
            return;
        }
        match message {
            Input::Text(text) => {
                let overloaded = self.paused_for_too_long(now) && !self.room_takes_more();
                let next = self.link.next_number();
                let overloaded = overloaded.then_some(Overloaded { next });
                match self.dialogue.read::<M>(&text, now, overloaded) {
                    Ok(asked) => {
                        self.read_bytes += text.len();
                        self.read.push((asked, text.len()));
                    }
                    Err(json) => self.link.push(framing::text(&json)),
                }
            }
            Input::Binary(_) => self.tell(&protocol::binary_not_allowed()),
            Input::Ping(payload) => self.link.push(framing::pong(&payload)),
            Input::Pong => {}
            Input::Close(code) => {
                self.leave();
                self.link.push(framing::close(code));
                self.phase = Phase::Over;
            }
        }
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
            Phase::Draining | Phase::Flushing { .. } | Phase::Discarding { .. } | Phase::Over => {
                false
            }
            Phase::Live if self.link.own_bytes() >= MAX_OWN_BYTES => {
                self.link.wake_reader_at(Some(now + MAX_READ_PAUSE));
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
                self.link
                    .wake_reader_at(Some(look_again.map_or(until, |soon| soon.min(until))));
                self.paused_for_too_long(now)
            }
        }
    }

    fn may_read(&mut self, now: Instant) -> bool {
        matches!(self.phase, Phase::Discarding { .. }) || self.may_take(now)
    }

    fn receive(&mut self, input: Bytes, now: Instant) {
        self.link.heard(now);
        match &mut self.phase {
            Phase::Discarding { bytes, .. } => {
                *bytes += input.len();
                if *bytes > MAX_DISCARDED {
                    self.phase = Phase::Over;
                }
            }
            _ => self.reader.push(input),
        }
    }

    // Ending.

    fn hear(&mut self, news: News, now: Instant) {
        match news {
            News::Alarm(Alarm::Ping) => self.link.push(framing::ping()),
            News::Alarm(Alarm::Silent) => {
                log::debug!("room {}: a session is silent and taken as gone", self.room);
                self.phase = Phase::Over;
            }
            News::Alarm(Alarm::Slow) => {
                log::debug!("room {}: a session takes nothing and is dropped", self.room);
                self.link.clear();
                self.close(CloseCode::Again);
                self.phase = Phase::Over;
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
            self.link.wake_reader_at(Some(until));
            if now >= until || !self.link.is_behind() {
                self.close(CloseCode::Restart);
            }
        }
        if let Phase::Closing { until } | Phase::Discarding { until, .. } = self.phase {
            self.link.wake_reader_at(Some(until));
            if now >= until {
                self.phase = Phase::Over;
            }
        }
    }

    /// Leaves the room, says why, and waits for the client's close frame.
    fn close(&mut self, code: CloseCode) {
        if matches!(
            self.phase,
            Phase::Closing { .. } | Phase::Discarding { .. } | Phase::Over
        ) {
            return;
        }
        self.leave();
        let random = Uuid::new_v4().as_u128();
        if let Some(bye) = self.dialogue.bye(code.into(), random) {
            self.link.push(framing::text(&bye));
        }
        self.link.push(framing::close(Some(code)));
        let until = Instant::now() + MAX_CLOSE_WAIT;
        self.phase = Phase::Closing { until };
    }

    /// What was read before still counts.
    fn leave(&mut self) {
        self.submit();
        self.worker.leave(&self.link);
        self.member = None;
    }

    fn tell(&mut self, refused: &Rejection) {
        let json = self.dialogue.error(refused);
        self.link.push(framing::text(&json));
    }
}

impl<M: Model> Actor for Session<M> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let join = Join {
            from: self.origin(),
            seat: self.dialogue.seat(),
            listener: self.listener(),
        };
        let entering = enter(self.rooms.clone(), self.room.clone(), join);
        let entering = entering.into_actor(self);
        ctx.wait(entering.map(|entered, session, ctx| session.entered(entered, ctx)));
    }
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
        self.worker.disconnect(&self.link);
        self.link.end();
    }
}

/// A session's place in a room: dropping it leaves the room.
struct Member<M: Model> {
    lease: Lease<M>,
    origin: Origin,
}

impl<M: Model> Member<M> {
    fn submit(&self, actions: Vec<(Asked<M::Action>, usize)>, bytes: usize) {
        // The mailbox is bounded by what each session may have underway, and all of them may.
        self.lease.room().do_send(Submit {
            from: self.origin,
            waits: self.lease.waiting().count(actions.len(), bytes),
            actions,
        });
    }
}

impl<M: Model> Drop for Member<M> {
    fn drop(&mut self) {
        self.lease.room().do_send(Leave(self.origin));
    }
}

enum EnterError {
    Full(AcquireError),
    OwnerGone,
}

async fn enter<M: Model>(
    rooms: Addr<Rooms<M>>,
    room: RoomName,
    join: Join,
) -> Result<Member<M>, EnterError> {
    let lease = rooms.send(Acquire::new(room)).await;
    let lease = lease.map_err(|_| EnterError::OwnerGone)?;
    let lease = lease.map_err(EnterError::Full)?;
    // Made before it joins, so that it leaves even if it is dropped while it joins.
    let member = Member {
        lease,
        origin: join.from,
    };
    let joined = member.lease.room().send(join).await;
    joined.map(|()| member).map_err(|_| EnterError::OwnerGone)
}

/// Reads the socket for as long as the session lives.
struct Reading {
    socket: Socket,
}

impl<M: Model> ActorFuture<Session<M>> for Reading {
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
            session.advance(now);
            if session.phase == Phase::Over {
                ctx.stop();
                return Poll::Ready(());
            }
            let listening = session.may_read(now);
            session.link.set_listening(listening);
            if !listening {
                return Poll::Pending;
            }
            match Pin::new(&mut self.socket).poll_next(task) {
                Poll::Ready(Some(bytes)) => session.receive(bytes, now),
                Poll::Ready(None) => session.phase = Phase::Over,
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
