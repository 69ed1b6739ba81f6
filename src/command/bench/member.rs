//! One connection of a run: it brings what the server says to the [`Course`], and sends what that has to send.
//!
//! There may be tens of thousands, all on one thread, so a member keeps no buffers while nothing is underway: all read
//! into the same one.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use actix_codec::{Encoder, Framed};
use actix_web::rt::time::{Sleep, sleep_until};
use awc::{
    BoxedSocket,
    ws::{CloseCode, Codec, Message as Outgoing},
};
use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
};

use super::{course::Course, fault::Fault};
use crate::{
    client::connection::moment,
    framing::{Input, Reader},
};

/// How much is read at a time.
const PIECE: usize = 64 << 10;
/// How often a member reads before it is the others' turn.
const READS_IN_A_ROW: usize = 16;
/// The largest message that a server may send.
pub const MAX_MESSAGE: usize = 1 << 20;

/// What all members of a run share.
pub struct Shared {
    pub course: RefCell<Course>,
    /// Told when the course is over.
    pub over: Notify,
    /// Told when something is wrong.
    pub failed: Notify,
    fault: RefCell<Option<Fault>>,
    /// The run goes on: stalled clients read nothing.
    stalling: Cell<bool>,
    /// The run is done: all are to close.
    leaving: Cell<bool>,
    /// By which each member is woken.
    bells: RefCell<Vec<Option<Waker>>>,
    /// Which clients are writers.
    writers: Vec<usize>,
    piece: RefCell<Box<[u8]>>,
}

impl Shared {
    pub fn new(course: Course) -> Self {
        let parts = course.parts();
        let clients = parts.len();
        let writers = (0..clients).filter(|client| parts[*client].writer.is_some());
        Self {
            writers: writers.collect(),
            course: RefCell::new(course),
            over: Notify::new(),
            failed: Notify::new(),
            fault: RefCell::default(),
            stalling: Cell::default(),
            leaving: Cell::default(),
            bells: RefCell::new(vec![None; clients]),
            piece: RefCell::new(vec![0; PIECE].into()),
        }
    }

    /// What went wrong first.
    pub fn fault(&self) -> Option<Fault> {
        self.fault.borrow().clone()
    }

    /// Wakes the writers, since they may have something to send.
    pub fn wake_writers(&self) {
        let bells = self.bells.borrow();
        let writers = self
            .writers
            .iter()
            .filter_map(|client| bells[*client].as_ref());
        writers.for_each(Waker::wake_by_ref);
    }

    /// From now on stalled clients read nothing.
    pub fn stall(&self) {
        self.stalling.set(true);
    }

    /// Lets stalled clients read again.
    pub fn go_on(&self) {
        self.stalling.set(false);
        self.wake_all();
    }

    /// Lets all members close their connections.
    pub fn leave(&self) {
        self.leaving.set(true);
        self.wake_all();
    }

    fn wake_all(&self) {
        let bells = self.bells.borrow();
        bells.iter().flatten().for_each(Waker::wake_by_ref);
    }

    fn fail(&self, fault: Fault) {
        self.fault.borrow_mut().get_or_insert(fault);
        self.failed.notify_one();
    }

    fn hang_bell(&self, client: usize, waker: &Waker) {
        match &mut self.bells.borrow_mut()[client] {
            Some(bell) => bell.clone_from(waker),
            bell => *bell = Some(waker.clone()),
        }
    }
}

/// The task of one connection. It ends when the connection does.
pub struct Member {
    client: usize,
    writes: bool,
    stalls: bool,
    shared: Rc<Shared>,
    io: BoxedSocket,
    reader: Reader,
    codec: Codec,
    /// What the connection did not take yet.
    out: BytesMut,
    /// Until when the server wants the writer to wait.
    pause: Option<Pin<Box<Sleep>>>,
    has_said_goodbye: bool,
}

impl Member {
    pub fn new(client: usize, shared: Rc<Shared>, framed: Framed<BoxedSocket, Codec>) -> Self {
        let parts = framed.into_parts();
        let mut reader = Reader::of_server(MAX_MESSAGE);
        // A server may speak at once.
        reader.push(parts.read_buf);
        let part = shared.course.borrow().parts()[client];
        Self {
            client,
            writes: part.writer.is_some(),
            stalls: part.stalled,
            shared,
            io: parts.io,
            reader,
            codec: parts.codec,
            out: BytesMut::new(),
            pause: None,
            has_said_goodbye: false,
        }
    }

    fn exchange(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        if self.stalls && self.shared.stalling.get() && !self.shared.leaving.get() {
            return Ok(());
        }
        self.hear()?;
        self.read(cx)?;
        if self.shared.leaving.get() {
            self.say_goodbye()?;
        } else if self.writes {
            self.act(cx)?;
        }
        self.flush(cx)
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        for _ in 0..READS_IN_A_ROW {
            let Poll::Ready(piece) = self.poll_piece(cx) else {
                return Ok(());
            };
            self.reader.push(piece?.into());
            self.hear()?;
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Fault>> {
        let mut piece = self.shared.piece.borrow_mut();
        let mut piece = ReadBuf::new(&mut piece);
        let read = Pin::new(&mut self.io).poll_read(cx, &mut piece);
        read.map(|read| match (read, piece.filled()) {
            (Err(err), _) => Err(broken(&err)),
            (Ok(()), []) => Err(Fault::cut("a connection broke")),
            (Ok(()), read) => Ok(Bytes::copy_from_slice(read)),
        })
    }

    /// Takes the messages that are whole.
    fn hear(&mut self) -> Result<(), Fault> {
        let mut now = None;
        while let Some(message) = self.next_message()? {
            let mut course = self.shared.course.borrow_mut();
            match message {
                Input::Text(text) => {
                    course.hear(self.client, *now.get_or_insert_with(moment), &text)?;
                    if course.is_over() {
                        self.shared.over.notify_one();
                    }
                }
                Input::Binary(_) => {
                    return Err(Fault::strange("(a binary message)", course.plan().dialect));
                }
                Input::Close(code) => return Err(Fault::closed(code.map_or(1005, u16::from))),
                Input::Ping(payload) => {
                    drop(course);
                    self.push(Outgoing::Pong(payload))?;
                }
                Input::Pong => {}
            }
        }
        Ok(())
    }

    fn next_message(&mut self) -> Result<Option<Input>, Fault> {
        let next = self.reader.next_message();
        next.map_err(|_| Fault::Breach("a WebSocket frame"))
    }

    /// Prepares what the writer has to send, and is woken when it has more after a pause.
    fn act(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        loop {
            let next = self
                .shared
                .course
                .borrow_mut()
                .next_message(self.client, moment());
            let Some(text) = next else { break };
            self.push(Outgoing::Text(text))?;
        }
        if let Some(at) = self.shared.course.borrow().resumes_at(self.client) {
            let at = at.into();
            let pause = self.pause.get_or_insert_with(|| Box::pin(sleep_until(at)));
            if pause.deadline() != at {
                pause.as_mut().reset(at);
            }
            if pause.as_mut().poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
        Ok(())
    }

    fn say_goodbye(&mut self) -> Result<(), Fault> {
        if std::mem::replace(&mut self.has_said_goodbye, true) {
            return Ok(());
        }
        self.push(Outgoing::Close(Some(CloseCode::Normal.into())))
    }

    fn push(&mut self, message: Outgoing) -> Result<(), Fault> {
        self.codec
            .encode(message, &mut self.out)
            .map_err(Fault::cut)
    }

    /// Writes as much as the connection takes now.
    fn flush(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        while !self.out.is_empty() {
            match Pin::new(&mut self.io).poll_write(cx, &self.out) {
                Poll::Ready(Ok(written)) => self.out.advance(written),
                Poll::Ready(Err(err)) => return Err(broken(&err)),
                Poll::Pending => return Ok(()),
            }
        }
        self.out = BytesMut::new();
        match Pin::new(&mut self.io).poll_flush(cx) {
            Poll::Ready(Err(err)) => Err(broken(&err)),
            _ => Ok(()),
        }
    }
}

impl Future for Member {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.shared.hang_bell(self.client, cx.waker());
        let Err(fault) = self.exchange(cx) else {
            return Poll::Pending;
        };
        // Who leaves reads to the end, so that its goodbye arrives.
        if !self.shared.leaving.get() {
            let lost = self.shared.course.borrow_mut().lose(self.client, fault);
            if let Err(fault) = lost {
                self.shared.fail(fault);
            }
        }
        Poll::Ready(())
    }
}

fn broken(err: &std::io::Error) -> Fault {
    Fault::cut(format!("a connection broke: {err}"))
}
