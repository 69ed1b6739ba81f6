//! The actions of one client in one room, by their numbers: what waits, what was ever put on a wire, what is
//! settled, and what to send now.
//!
//! Numbers are places in a queue: what waits at place `i` has the number `settled + 1 + i`, so they begin with 1 and
//! have no gaps whatever is settled, withdrawn or forgotten. Two counts cut the queue: `sent`, by this connection, and
//! `wired`, by any. Only what was never on a wire may get another number.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use serde::Serialize;
use serde_json::Value;

use crate::{
    client::{
        event::{Ack, Retry, Welcome},
        moment::Moment,
    },
    ids::{Epoch, Revision},
    limits::REMEMBER_AT_LEAST,
    rejection::Rejection,
};

/// After the pause that the server asked for, how much longer to wait for its answers to the rest of what was sent.
const LATE_ANSWERS: Duration = Duration::from_secs(2);
/// Longer pauses are not believed.
const MAX_PAUSE: Duration = Duration::from_secs(3600);
/// What is sent now may take as long to come to the room.
const UNDERWAY: Duration = Duration::from_secs(60);
/// So long after its number 1 was first put on a wire a client of which the room knows nothing is surely not forgotten.
const SURELY_REMEMBERED: Duration = REMEMBER_AT_LEAST.saturating_sub(UNDERWAY);

/// One action of which the caller waits to hear. Later actions have greater tickets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What became of an action.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Committed; `rev` includes it.
    Accepted {
        epoch: Epoch,
        rev: Revision,
    },
    Refused(Rejection),
    /// It was on a wire when the room forgot this client, or may have: it may be applied or not.
    Unsure,
}

/// What a withdrawal found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawn {
    /// It was never on a wire, and never will be.
    Unsent,
    /// It was on a wire and goes on to be settled.
    Sent,
    /// Nobody waits for it any more.
    Done,
}

/// How the room greets a client that it was connected with before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Known,
    /// Or it may be, and nobody can know. Under this id nothing more may be sent.
    Forgotten,
}

/// The server said what it cannot have meant; a new connection's welcome tells how things are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breach;

/// A JSON object that is to be sent with a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// Without its last brace.
    head: String,
}

/// The value is no action.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAction {
    #[error("an action is a JSON object, such as {{\"action\":\"plus\"}}")]
    NotAnObject,
    #[error("the field \"n\" of an action is its number, which the client gives")]
    Numbered,
    #[error("the action cannot be written as JSON: {0}")]
    NotJson(String),
}

impl Action {
    /// Writes an action down.
    ///
    /// # Errors
    ///
    /// It is not a JSON object, or has a field `n`.
    pub fn new(action: &impl Serialize) -> Result<Self, InvalidAction> {
        let value =
            serde_json::to_value(action).map_err(|err| InvalidAction::NotJson(err.to_string()))?;
        let Value::Object(fields) = &value else {
            return Err(InvalidAction::NotAnObject);
        };
        if fields.contains_key("n") {
            return Err(InvalidAction::Numbered);
        }
        let mut head = value.to_string();
        head.pop();
        Ok(Self { head })
    }

    fn numbered(&self, n: u64) -> String {
        let comma = if self.head == "{" { "" } else { "," };
        format!("{}{comma}\"n\":{n}}}", self.head)
    }
}

#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    action: Action,
    /// Somebody is still to hear what became of it.
    open: bool,
    refused: bool,
}

/// A pause that the server asked for.
#[derive(Clone, Copy, Debug)]
struct Pause {
    until: Instant,
    /// What to send first when it is over.
    from: u64,
    /// The last number that was sent before, which the server answers as well.
    last: u64,
    last_answered: bool,
}

impl Pause {
    fn end(&self) -> Instant {
        match self.last_answered {
            true => self.until,
            false => self.until + LATE_ANSWERS,
        }
    }
}

/// The numbered actions of one client.
#[derive(Debug, Default)]
pub struct Numbers {
    epoch: Option<Epoch>,
    settled: u64,
    waiting: VecDeque<Waiting>,
    /// How many of those that wait were ever put on a wire: never fewer than `sent`.
    wired: usize,
    /// When number 1 was first put on a wire.
    begun: Option<Moment>,
    /// How many of those that wait were sent by this connection.
    sent: usize,
    /// How many may be on a wire; 0 before the welcome.
    window: usize,
    pause: Option<Pause>,
    verdicts: Vec<(Ticket, Verdict)>,
}

impl Numbers {
    /// How many actions are not settled yet.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// What became known since this was last called.
    pub fn take_verdicts(&mut self) -> Vec<(Ticket, Verdict)> {
        std::mem::take(&mut self.verdicts)
    }

    /// Queues an action; tickets only rise.
    pub fn submit(&mut self, ticket: Ticket, action: Action) {
        self.waiting.push_back(Waiting {
            ticket,
            action,
            open: true,
            refused: false,
        });
    }

    /// Gives up waiting for an action, and takes it back if that is still possible.
    pub fn withdraw(&mut self, ticket: Ticket) -> Withdrawn {
        let found = self.waiting.binary_search_by_key(&ticket, |one| one.ticket);
        let Ok(index) = found else {
            return Withdrawn::Done;
        };
        if index >= self.wired {
            self.waiting.remove(index);
            return Withdrawn::Unsent;
        }
        match std::mem::take(&mut self.waiting[index].open) {
            true => Withdrawn::Sent,
            false => Withdrawn::Done,
        }
    }

    /// Gives up all that somebody waits for, and says of each whether it was ever put on a wire.
    pub fn give_up(&mut self) -> Vec<(Ticket, bool)> {
        let wired = std::mem::take(&mut self.wired);
        let given_up = self.waiting.drain(..).enumerate();
        self.sent = 0;
        given_up
            .filter(|(_, one)| one.open)
            .map(|(index, one)| (one.ticket, index < wired))
            .collect()
    }

    /// The connection is gone: nothing is sent before the next welcome.
    pub fn disconnected(&mut self) {
        self.sent = 0;
        self.window = 0;
        self.pause = None;
    }

    /// Takes what the room knows of this client.
    ///
    /// One that was forgotten starts anew: the caller must go on under another id. So does one of which nothing is known
    /// to be settled, by either side, whose number 1 is on a wire for so long that the room may have settled it and
    /// forgotten the client since: sent again it would be taken as new.
    pub fn welcomed(&mut self, now: Moment, welcome: &Welcome) -> Standing {
        let unused = self.settled == 0 && self.wired == 0;
        let another_life = self.epoch.is_some_and(|epoch| epoch != welcome.epoch) && !unused;
        let known = self.settled..=self.settled + self.wired as u64;
        let in_doubt = welcome.n == 0 && self.is_late(now);
        if another_life || in_doubt || !known.contains(&welcome.n) {
            self.forget();
            return Standing::Forgotten;
        }
        self.epoch = Some(welcome.epoch);
        self.window = usize::try_from(welcome.window.max(1)).unwrap_or(usize::MAX);
        for refused in &welcome.refused {
            if refused.n <= welcome.n {
                self.refuse(refused.n, &refused.to_rejection());
            }
        }
        self.settle(welcome.n, welcome.rev);
        Standing::Known
    }

    /// Everything up to a number is settled.
    ///
    /// # Errors
    ///
    /// It was never sent.
    pub fn acked(&mut self, ack: Ack) -> Result<(), Breach> {
        if !self.may_be_told_of(ack.n) {
            return Err(Breach);
        }
        self.settle(ack.n, ack.rev);
        Ok(())
    }

    /// An action was refused, for good.
    ///
    /// # Errors
    ///
    /// It was never sent.
    pub fn refused(&mut self, n: u64, rejection: &Rejection) -> Result<(), Breach> {
        if !self.may_be_told_of(n) {
            return Err(Breach);
        }
        self.refuse(n, rejection);
        // What is refused needs no revision, so it need not wait for an ack where nothing else waits before it.
        while self.waiting.front().is_some_and(|one| one.refused) {
            self.waiting.pop_front();
            self.count_settled();
        }
        Ok(())
    }

    /// An action was not taken: nothing more is sent until the pause is over.
    ///
    /// # Errors
    ///
    /// The number was not sent, or the room expects one that is settled or was not sent.
    pub fn put_off(&mut self, retry: &Retry, now: Instant) -> Result<(), Breach> {
        let unsettled = self.settled + 1..=self.settled + self.sent as u64;
        if !unsettled.contains(&retry.n) || !unsettled.contains(&retry.expected) {
            return Err(Breach);
        }
        let until = now + Duration::from_millis(retry.after_ms).min(MAX_PAUSE);
        let last = *unsettled.end();
        let pause = self.pause.get_or_insert(Pause {
            until,
            from: retry.expected,
            last,
            last_answered: false,
        });
        pause.until = pause.until.max(until);
        pause.from = pause.from.min(retry.expected);
        pause.last_answered |= retry.n == pause.last;
        Ok(())
    }

    /// When [`resume`](Self::resume) lets something be sent that may not be sent yet.
    pub fn resumes_at(&self) -> Option<Instant> {
        self.pause.map(|pause| pause.end())
    }

    /// Goes on to send, if a pause is over by now.
    pub fn resume(&mut self, now: Instant) {
        if let Some(pause) = self.pause.take_if(|pause| pause.end() <= now) {
            let taken_meanwhile = pause.from.saturating_sub(self.settled + 1);
            self.sent = self.sent.min(taken_meanwhile as usize);
        }
    }

    /// Whether number 1 is on a wire for so long that the room may have settled it and forgotten the client since.
    fn is_late(&self, now: Moment) -> bool {
        let is_late = |begun| !now.is_within(SURELY_REMEMBERED, begun);
        self.begun.is_some_and(is_late)
    }

    /// Whether what would be sent next was sent before and may be settled and forgotten: then only a welcome can tell
    /// what to do.
    pub fn is_in_doubt(&self, now: Moment) -> bool {
        self.settled == 0 && self.sent < self.wired && self.is_late(now)
    }

    /// Whether [`next_message`](Self::next_message) has something to send.
    pub fn has_next(&self) -> bool {
        self.pause.is_none() && self.sent < self.waiting.len().min(self.window)
    }

    /// The next message to send, which counts as put on a wire from now on.
    pub fn next_message(&mut self, now: Moment) -> Option<String> {
        if !self.has_next() {
            return None;
        }
        let n = self.settled + 1 + self.sent as u64;
        let message = self.waiting[self.sent].action.numbered(n);
        if n == 1 {
            self.begun.get_or_insert(now);
        }
        self.sent += 1;
        self.wired = self.wired.max(self.sent);
        Some(message)
    }

    fn may_be_told_of(&self, n: u64) -> bool {
        self.window > 0 && n <= self.settled + self.wired as u64
    }

    fn refuse(&mut self, n: u64, rejection: &Rejection) {
        let Some(index) = n.checked_sub(self.settled + 1) else {
            return;
        };
        let Some(one) = self.waiting.get_mut(index as usize) else {
            return;
        };
        one.refused = true;
        if std::mem::take(&mut one.open) {
            let verdict = Verdict::Refused(rejection.clone());
            self.verdicts.push((one.ticket, verdict));
        }
    }

    fn settle(&mut self, n: u64, rev: Revision) {
        let Some(epoch) = self.epoch else { return };
        while self.settled < n
            && let Some(one) = self.waiting.pop_front()
        {
            self.count_settled();
            if one.open {
                let verdict = Verdict::Accepted { epoch, rev };
                self.verdicts.push((one.ticket, verdict));
            }
        }
    }

    fn count_settled(&mut self) {
        self.settled += 1;
        self.wired = self.wired.saturating_sub(1);
        self.sent = self.sent.saturating_sub(1);
    }

    fn forget(&mut self) {
        for one in self.waiting.drain(..self.wired) {
            if one.open {
                self.verdicts.push((one.ticket, Verdict::Unsure));
            }
        }
        self.epoch = None;
        self.begun = None;
        self.settled = 0;
        self.wired = 0;
        self.disconnected();
    }
}
