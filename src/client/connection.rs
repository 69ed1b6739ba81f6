//! Carries out what the [`Machine`] decides: opens its connections, keeps its time, brings callers their answers.
//!
//! One task per client. It reads and writes side by side, so that a server that waits for us to read can be written
//! to, and it never waits for one thing alone.

use std::{
    collections::HashMap,
    future::{pending, poll_fn},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant, SystemTime},
};

use actix_codec::Framed;
use actix_http::ws::{Item, ProtocolError};
use actix_web::rt::time::{sleep_until, timeout};
use awc::{
    BoxedSocket,
    ws::{CloseCode, Codec, Frame, Message},
};
use bytes::{Bytes, BytesMut};
use futures_util::{Sink, Stream, future::LocalBoxFuture};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::{
    client::{
        address::Address,
        machine::{Effect, Loss, Machine, Outcome},
        moment::Moment,
        numbers::{Action, Ticket},
        transport,
        view::View,
    },
    ids::{ClientId, Millis, RoomName},
};

/// How many actions of callers are taken in one go.
const TAKEN_AT_ONCE: usize = 256;
/// How long a connection that we close may take to end well.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// Where a client connects to, and what it bears.
pub struct Target {
    pub http: awc::Client,
    pub address: Address,
    pub room: RoomName,
    pub max_message_bytes: usize,
    pub max_waiting: usize,
}

/// An action of a caller, who waits for the reply.
pub struct Submission {
    pub action: Action,
    pub give_up_at: Option<Instant>,
    pub reply: oneshot::Sender<Outcome>,
}

/// What the task of a client and its handles share.
pub struct Ends {
    pub submissions: mpsc::Receiver<Submission>,
    pub view: watch::Sender<View>,
    pub close: Arc<Notify>,
}

/// The task of a client.
pub struct Driver {
    target: Rc<Target>,
    machine: Machine,
    wire: Wire,
    ends: Ends,
    replies: HashMap<Ticket, oneshot::Sender<Outcome>>,
    next_ticket: u64,
}

impl Driver {
    pub fn new(target: Target, machine: Machine, ends: Ends) -> Self {
        Self {
            target: Rc::new(target),
            machine,
            wire: Wire::None,
            ends,
            replies: HashMap::new(),
            next_ticket: 0,
        }
    }

    /// Runs until the client ends, by its handles or by the server.
    pub async fn run(mut self) {
        while self.machine.end().is_none() {
            self.machine.due(Instant::now());
            self.obey();
            self.wait().await;
        }
        let open = std::mem::replace(&mut self.wire, Wire::None);
        self.obey();
        self.refuse_the_rest();
        if let Wire::Open(socket) = open {
            let _ = timeout(CLOSE_WITHIN, socket.close()).await;
        }
    }

    /// Waits until something happens, and tells the machine.
    async fn wait(&mut self) {
        let may_take = self.machine.waiting() < self.target.max_waiting;
        let deadline = self.machine.deadline();
        let mut taken = Vec::new();
        tokio::select! {
            () = self.ends.close.notified() => self.machine.close(),
            () = until(deadline) => {}
            count = self.ends.submissions.recv_many(&mut taken, TAKEN_AT_ONCE), if may_take => {
                match count {
                    0 => self.machine.close(),
                    _ => self.submit(taken),
                }
            }
            news = self.wire.next(&mut self.machine) => self.hear(news),
        }
    }

    fn submit(&mut self, submissions: Vec<Submission>) {
        for submission in submissions {
            self.next_ticket += 1;
            let ticket = Ticket(self.next_ticket);
            self.replies.insert(ticket, submission.reply);
            self.machine
                .submit(ticket, submission.action, submission.give_up_at);
        }
    }

    /// Tells those who were not heard before the end of it.
    fn refuse_the_rest(&mut self) {
        self.ends.submissions.close();
        while let Ok(submission) = self.ends.submissions.try_recv() {
            let _ = submission.reply.send(Outcome::Ended { sent: false });
        }
    }

    fn hear(&mut self, news: News) {
        let now = Instant::now();
        match news {
            News::Opened(framed) => {
                self.wire =
                    Wire::Open(Box::new(Socket::new(framed, self.target.max_message_bytes)));
                self.machine.opened(now);
            }
            News::Lost(loss) => {
                self.wire = Wire::None;
                self.machine.lost(now, loss);
            }
            News::Text(text) => self.machine.heard(moment(), &text),
            News::Stirred => self.machine.stirred(now),
        }
    }

    fn obey(&mut self) {
        // Before the answers, so that who is told that the client ended finds out why.
        if self.machine.take_view_changed() {
            self.ends.view.send_replace(self.machine.view().clone());
        }
        while let Some(effect) = self.machine.next_effect() {
            match effect {
                Effect::Open(id) => self.wire = Wire::Opening(open(self.target.clone(), id)),
                Effect::HangUp => self.wire = Wire::None,
                Effect::Tell(ticket, outcome) => {
                    if let Some(reply) = self.replies.remove(&ticket) {
                        // Who no longer waits need not hear it.
                        let _ = reply.send(outcome);
                    }
                }
            }
        }
    }
}

/// The present moment.
pub fn moment() -> Moment {
    let wall = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Moment {
        monotonic: Instant::now(),
        wall: Millis(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)),
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => pending().await,
    }
}

fn open(target: Rc<Target>, id: ClientId) -> LocalBoxFuture<'static, Opened> {
    Box::pin(async move {
        let Target {
            http,
            address,
            room,
            max_message_bytes,
            ..
        } = &*target;
        transport::open(http, &address.socket(room), id, *max_message_bytes).await
    })
}

type Opened = Result<Framed<BoxedSocket, Codec>, Loss>;

enum Wire {
    None,
    Opening(LocalBoxFuture<'static, Opened>),
    Open(Box<Socket>),
}

enum News {
    Opened(Framed<BoxedSocket, Codec>),
    Lost(Loss),
    Text(Bytes),
    /// Something came that says no more than that the server is there.
    Stirred,
}

impl Wire {
    /// Waits for news, and sends meanwhile what the machine has to send. It may be dropped at any time.
    async fn next(&mut self, machine: &mut Machine) -> News {
        match self {
            Self::None => pending().await,
            Self::Opening(opening) => match opening.await {
                Ok(framed) => News::Opened(framed),
                Err(loss) => News::Lost(loss),
            },
            Self::Open(socket) => poll_fn(|cx| socket.poll_exchange(cx, machine)).await,
        }
    }
}

struct Socket {
    framed: Framed<BoxedSocket, Codec>,
    pong: Option<Bytes>,
    /// The beginning of a message that comes in several frames.
    begun: Option<BytesMut>,
    max_message_bytes: usize,
}

impl Socket {
    fn new(framed: Framed<BoxedSocket, Codec>, max_message_bytes: usize) -> Self {
        Self {
            framed,
            pong: None,
            begun: None,
            max_message_bytes,
        }
    }

    fn poll_exchange(&mut self, cx: &mut Context<'_>, machine: &mut Machine) -> Poll<News> {
        if let Err(err) = self.send(cx, machine) {
            return Poll::Ready(News::Lost(cut(&err)));
        }
        if machine.has_effect() {
            // It wants to hang up rather than send on.
            return Poll::Ready(News::Stirred);
        }
        let news = match ready!(Pin::new(&mut self.framed).poll_next(cx)) {
            None => News::Lost(Loss::Cut("the connection broke".to_owned())),
            Some(Err(err)) => News::Lost(cut(&err)),
            Some(Ok(frame)) => self.receive(frame),
        };
        Poll::Ready(news)
    }

    /// Sends as much as the connection takes now.
    fn send(&mut self, cx: &mut Context<'_>, machine: &mut Machine) -> Result<(), ProtocolError> {
        while self.pong.is_some() || machine.has_message() {
            if Pin::new(&mut self.framed).poll_ready(cx)?.is_pending() {
                break;
            }
            let message = match self.pong.take() {
                Some(payload) => Message::Pong(payload),
                None => match machine.next_message(moment()) {
                    Some(text) => Message::Text(text.into()),
                    None => break,
                },
            };
            Pin::new(&mut self.framed).start_send(message)?;
        }
        match Pin::new(&mut self.framed).poll_flush(cx) {
            Poll::Ready(Err(err)) => Err(err),
            _ => Ok(()),
        }
    }

    fn receive(&mut self, frame: Frame) -> News {
        match frame {
            Frame::Text(text) => News::Text(text),
            Frame::Continuation(item) => self.assemble(item),
            Frame::Ping(payload) => {
                self.pong = Some(payload);
                News::Stirred
            }
            Frame::Close(reason) => {
                // 1005 stands for a close frame without a code.
                let code = reason.map_or(1005, |reason| reason.code.into());
                News::Lost(Loss::Closed(code))
            }
            Frame::Pong(_) | Frame::Binary(_) => News::Stirred,
        }
    }

    fn assemble(&mut self, item: Item) -> News {
        let (piece, last) = match item {
            Item::FirstText(piece) => {
                self.begun = Some(BytesMut::new());
                (piece, false)
            }
            Item::FirstBinary(_) => {
                self.begun = None;
                return News::Stirred;
            }
            Item::Continue(piece) => (piece, false),
            Item::Last(piece) => (piece, true),
        };
        let Some(begun) = &mut self.begun else {
            return News::Stirred;
        };
        if begun.len() + piece.len() > self.max_message_bytes {
            return News::Lost(cut(&ProtocolError::Overflow));
        }
        begun.extend_from_slice(&piece);
        match last {
            true => News::Text(self.begun.take().unwrap_or_default().freeze()),
            false => News::Stirred,
        }
    }

    /// Closes and reads to the end: bytes that nobody reads would let the kernel throw away what is still on its
    /// way to the server.
    async fn close(mut self: Box<Self>) {
        let framed = &mut self.framed;
        let ready = poll_fn(|cx| Pin::new(&mut *framed).poll_ready(cx)).await;
        let close = Message::Close(Some(CloseCode::Normal.into()));
        if ready.is_err() || Pin::new(&mut *framed).start_send(close).is_err() {
            return;
        }
        let flush = poll_fn(|cx| Pin::new(&mut *framed).poll_flush(cx));
        if flush.await.is_err() {
            return;
        }
        while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut *framed).poll_next(cx)).await {
            if matches!(frame, Frame::Close(_)) {
                return;
            }
        }
    }
}

fn cut(err: &ProtocolError) -> Loss {
    let why = match err {
        ProtocolError::Io(_) => "the connection broke".to_owned(),
        ProtocolError::Overflow => "the server sent a message that is too large".to_owned(),
        err => format!("the server broke the protocol: {err}"),
    };
    Loss::Cut(why)
}
