//! What a client of a room does, decided without a socket, a clock or chance: it is told what happened and when, and
//! says what to do.
//!
//! A connection is opened, brings a `welcome` and then the state; it is given up when it stays silent, and tried
//! again, later and later and never in step with others, unless the server's close code says that coming back is of
//! no use. What is sent by it is the business of [`Numbers`].

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::{
    client::{
        event::{Event, Fault, State, Welcome},
        moment::Moment,
        numbers::{Action, Breach, Numbers, Standing, Ticket, Verdict, Withdrawn},
        timeouts::Timeouts,
        view::{Connection, End, View},
    },
    ids::ClientId,
    rejection::Rejection,
};

/// A connection that has not brought the room's state by then is given up and tried again.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
/// The first try again follows within this; each later one may wait twice as long as the one before.
const FIRST_DELAY: Duration = Duration::from_millis(500);
/// The longest pause before another try.
const MAX_DELAY: Duration = Duration::from_secs(15);
/// Only a connection that lived this long lets the pauses start small again: some servers accept and then fail.
const STEADY_AFTER: Duration = Duration::from_secs(5);
/// Longer times that a server asks for are not believed.
const MAX_BELIEVED: Duration = Duration::from_secs(3600);
/// Close codes after which the same connection would only end the same way.
const FINAL_CODES: [u16; 8] = [1000, 1002, 1007, 1009, 4401, 4403, 4404, 4409];

/// A source of 128 random bits, of which the first 48 make a pause.
pub type Chance = Box<dyn FnMut() -> u128>;

/// What the machine wants done.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Open a connection as this client, in the place of any other.
    Open(ClientId),
    /// Drop the connection, or the try to open one.
    HangUp,
    /// Tell who waits what became of an action.
    Tell(Ticket, Outcome),
}

/// What became of an action, or of the wait for it.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Judged(Verdict),
    /// `sent`: it was put on a wire, so it may be taken or not.
    TimedOut {
        sent: bool,
    },
    /// The client ended; `sent` as above.
    Ended {
        sent: bool,
    },
}

/// How a connection ended, or did not come about.
#[derive(Clone, Debug, PartialEq)]
pub enum Loss {
    /// Nobody answered, or the connection broke.
    Cut(String),
    /// The server closed it.
    Closed(u16),
    /// The server answered the handshake with another status than 101.
    Denied(u16),
    /// The server took the connection but does not speak `tallyroom.v1`.
    Foreign,
}

#[derive(Debug)]
enum Link {
    Resting {
        until: Instant,
    },
    Opening {
        until: Instant,
    },
    Open {
        since: Instant,
        heard_at: Instant,
        /// Until the first state is here, when it must be; then `None`.
        until: Option<Instant>,
        beat: Option<Duration>,
    },
    Ended,
}

/// A client of one room.
pub struct Machine {
    numbers: Numbers,
    id: ClientId,
    link: Link,
    /// How often in a row a connection was lost before it was steady.
    tries: u32,
    /// When the server wants to be asked again.
    bye: Option<Duration>,
    /// The last error that was about no action.
    fault: Option<Fault>,
    view: View,
    view_changed: bool,
    timeouts: Timeouts,
    effects: VecDeque<Effect>,
    chance: Chance,
}

impl Machine {
    /// A client with a fresh id that will want its first connection at once.
    pub fn new(now: Instant, mut chance: Chance) -> Self {
        Self {
            numbers: Numbers::default(),
            id: fresh_id(&mut chance),
            link: Link::Resting { until: now },
            tries: 0,
            bye: None,
            fault: None,
            view: View {
                connection: Connection::Connecting,
                state: None,
                users: None,
            },
            view_changed: false,
            timeouts: Timeouts::default(),
            effects: VecDeque::new(),
            chance,
        }
    }

    /// The next thing to do; `None` until something else happened.
    pub fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Whether [`next_effect`](Self::next_effect) has one.
    pub fn has_effect(&self) -> bool {
        !self.effects.is_empty()
    }

    pub fn view(&self) -> &View {
        &self.view
    }

    /// Whether the view is another one than when this was last asked.
    pub fn take_view_changed(&mut self) -> bool {
        std::mem::take(&mut self.view_changed)
    }

    /// Why the client will never connect again.
    pub fn end(&self) -> Option<&End> {
        match &self.view.connection {
            Connection::Ended(end) => Some(end),
            _ => None,
        }
    }

    /// How many actions are not settled yet.
    pub fn waiting(&self) -> usize {
        self.numbers.waiting()
    }

    /// Queues an action. Who waits for it is told what became of it, at the latest at `give_up_at`.
    pub fn submit(&mut self, ticket: Ticket, action: Action, give_up_at: Option<Instant>) {
        if self.end().is_some() {
            self.tell(ticket, Outcome::Ended { sent: false });
            return;
        }
        self.numbers.submit(ticket, action);
        if let Some(at) = give_up_at {
            self.timeouts.set(ticket, at);
        }
    }

    /// When [`due`](Self::due) has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let link = match self.link {
            Link::Resting { until } | Link::Opening { until } => Some(until),
            Link::Open {
                heard_at,
                until,
                beat,
                ..
            } => until
                .into_iter()
                .chain(beat.map(|beat| heard_at + 2 * beat))
                .min(),
            Link::Ended => None,
        };
        let pause = self.numbers.resumes_at();
        [link, self.timeouts.first(), pause]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is to be done by now.
    pub fn due(&mut self, now: Instant) {
        self.numbers.resume(now);
        while let Some(ticket) = self.timeouts.next_by(now) {
            self.time_out(ticket);
        }
        match self.link {
            Link::Resting { until } if until <= now => self.open(now),
            Link::Opening { until } if until <= now => self.hang_up(now, "it takes too long"),
            Link::Open {
                until: Some(until), ..
            } if until <= now => self.hang_up(now, "the server does not tell its state"),
            Link::Open {
                heard_at,
                beat: Some(beat),
                ..
            } if heard_at + 2 * beat <= now => self.hang_up(now, "the server is silent"),
            _ => {}
        }
    }

    /// The connection that was wanted is there.
    pub fn opened(&mut self, now: Instant) {
        if let Link::Opening { until } = self.link {
            self.fault = None;
            self.link = Link::Open {
                since: now,
                heard_at: now,
                until: Some(until),
                beat: None,
            };
        }
    }

    /// Something came in, whatever it is.
    pub fn stirred(&mut self, now: Instant) {
        if let Link::Open { heard_at, .. } = &mut self.link {
            *heard_at = now;
        }
    }

    /// A text message came in.
    pub fn heard(&mut self, now: Moment, text: &[u8]) {
        if !matches!(self.link, Link::Open { .. }) {
            return;
        }
        self.stirred(now.monotonic);
        let taken = match Event::read(text) {
            Ok(event) => self.take(now, event),
            Err(_) => Err(Breach),
        };
        for (ticket, verdict) in self.numbers.take_verdicts() {
            self.tell(ticket, Outcome::Judged(verdict));
        }
        if taken.is_err() {
            self.hang_up(now.monotonic, "the server said what cannot be");
        }
    }

    /// The connection ended by itself, or did not come about.
    pub fn lost(&mut self, now: Instant, loss: Loss) {
        if !matches!(self.link, Link::Opening { .. } | Link::Open { .. }) {
            return;
        }
        match loss {
            Loss::Closed(code) if FINAL_CODES.contains(&code) => {
                let fault = self.fault.take().filter(|_| matches!(code, 4401 | 4403));
                let message = fault.map(|fault| fault.message);
                self.finish(End::ByServer { code, message });
            }
            Loss::Denied(status) if is_final(status) => self.finish(End::Denied(status)),
            Loss::Foreign => self.finish(End::Foreign),
            Loss::Closed(code) => self.rest(now, &format!("the server closed it with {code}")),
            Loss::Denied(status) => self.rest(now, &format!("the server answered with {status}")),
            Loss::Cut(why) => self.rest(now, &why),
        }
    }

    /// Ends the client; what is not settled is given up.
    pub fn close(&mut self) {
        if self.end().is_none() {
            self.effects.push_back(Effect::HangUp);
            self.finish(End::Closed);
        }
    }

    /// Whether [`next_message`](Self::next_message) has one.
    pub fn has_message(&self) -> bool {
        self.numbers.has_next()
    }

    /// The next message for the open connection.
    pub fn next_message(&mut self, now: Moment) -> Option<String> {
        if self.numbers.has_next() && self.numbers.is_in_doubt(now) {
            self.hang_up(now.monotonic, "the room may have forgotten this client");
        }
        self.numbers.next_message(now)
    }

    fn take(&mut self, now: Moment, event: Event) -> Result<(), Breach> {
        match event {
            Event::Welcome(welcome) => return self.welcomed(now, &welcome),
            Event::Ack(ack) => return self.numbers.acked(ack),
            Event::Retry(retry) => return self.numbers.put_off(&retry, now.monotonic),
            Event::Error(Fault {
                code,
                message,
                n: Some(n),
            }) => return self.numbers.refused(n, &Rejection::new(code, message)),
            Event::Error(fault) => self.fault = Some(fault),
            Event::State(state) => self.show_state(state),
            Event::Users(users) => {
                self.view.users = Some(users);
                self.view_changed = true;
            }
            Event::Bye(bye) => self.bye = bye.reconnect_after_ms.map(believed),
            Event::Beat | Event::Unknown => {}
        }
        Ok(())
    }

    fn welcomed(&mut self, now: Moment, welcome: &Welcome) -> Result<(), Breach> {
        if welcome.client != self.id {
            return Err(Breach);
        }
        if let Link::Open { beat, .. } = &mut self.link {
            *beat = welcome.beat().map(|beat| beat.min(MAX_BELIEVED));
        }
        if self.numbers.welcomed(now, welcome) == Standing::Forgotten {
            self.id = fresh_id(&mut self.chance);
            self.hang_up(now.monotonic, "the room has forgotten this client");
        }
        Ok(())
    }

    fn show_state(&mut self, state: State) {
        if let Link::Open { until, .. } = &mut self.link {
            *until = None;
        }
        self.view.state = Some(state);
        self.show(Connection::Live);
    }

    fn show(&mut self, connection: Connection) {
        self.view.connection = connection;
        self.view_changed = true;
    }

    fn open(&mut self, now: Instant) {
        self.bye = None;
        let until = now + OPEN_WITHIN;
        self.link = Link::Opening { until };
        self.effects.push_back(Effect::Open(self.id));
    }

    fn hang_up(&mut self, now: Instant, why: &str) {
        self.effects.push_back(Effect::HangUp);
        self.rest(now, why);
    }

    fn rest(&mut self, now: Instant, why: &str) {
        if let Link::Open { since, .. } = self.link
            && now.saturating_duration_since(since) >= STEADY_AFTER
        {
            self.tries = 0;
        }
        self.numbers.disconnected();
        let delay = match self.bye.take() {
            Some(delay) => delay,
            None => self.delay(),
        };
        self.tries = self.tries.saturating_add(1);
        self.link = Link::Resting { until: now + delay };
        self.show(Connection::Lost(why.into()));
    }

    /// The whole pause is drawn, so that a thousand clients that lost the same server do not return at once.
    fn delay(&mut self) -> Duration {
        let longest = FIRST_DELAY * 2_u32.pow(self.tries.min(8));
        let drawn = ((self.chance)() >> 80) as f64 / (1_u64 << 48) as f64;
        longest.min(MAX_DELAY).mul_f64(drawn)
    }

    fn finish(&mut self, end: End) {
        self.link = Link::Ended;
        self.numbers.disconnected();
        for (ticket, sent) in self.numbers.give_up() {
            self.tell(ticket, Outcome::Ended { sent });
        }
        self.show(Connection::Ended(end));
    }

    fn time_out(&mut self, ticket: Ticket) {
        let sent = match self.numbers.withdraw(ticket) {
            Withdrawn::Unsent => false,
            Withdrawn::Sent => true,
            Withdrawn::Done => return,
        };
        self.tell(ticket, Outcome::TimedOut { sent });
    }

    fn tell(&mut self, ticket: Ticket, outcome: Outcome) {
        self.timeouts.remove(ticket);
        self.effects.push_back(Effect::Tell(ticket, outcome));
    }
}

fn fresh_id(chance: &mut Chance) -> ClientId {
    let bytes = chance().to_be_bytes();
    ClientId(uuid::Builder::from_random_bytes(bytes).into_uuid())
}

/// Whether another try would be answered with the same status.
fn is_final(status: u16) -> bool {
    let passing = matches!(status, 408 | 425 | 429) || status >= 500;
    !passing
}

fn believed(millis: u64) -> Duration {
    Duration::from_millis(millis).min(MAX_BELIEVED)
}

#[cfg(test)]
mod tests;
